"""Settings of the site over which the storm goes: that of the journeys, in more of a hurry."""

from tests.journeys.site import *  # noqa: F403
from tests.journeys.site import POSTROOM as _POSTROOM

POSTROOM = {**_POSTROOM, "BACKOFF_CAP_SECONDS": 2, "ATTEMPT_SECONDS": 4, "STOP_SECONDS": 5}
