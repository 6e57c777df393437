"""
Settings of the site whose worker dies: that of the journeys, with the app that knows where.

``JOURNEY_PERIL`` names the place (see ``apps``); ``JOURNEY_KEYS=off`` gives it a provider that
knows no idempotency keys; ``JOURNEY_CLOCK`` are the seconds by which the clock of the process is ahead;
``JOURNEY_STALE`` is STALE_AFTER_SECONDS; ``JOURNEY_SECOND`` is the address of a second provider,
to which mail could fail over; ``JOURNEY_SENDERS=threads`` sends without the event loop.
"""

import os

from tests.journeys.perils.clock import go_wrong
from tests.journeys.site import *  # noqa: F403
from tests.journeys.site import INSTALLED_APPS as _INSTALLED_APPS
from tests.journeys.site import POSTROOM as _POSTROOM

go_wrong(float(os.environ.get("JOURNEY_CLOCK", "0")))
INSTALLED_APPS = [*_INSTALLED_APPS, "tests.journeys.perils.apps.PerilsConfig"]
_BACKEND = "Keyless" if os.environ.get("JOURNEY_KEYS") == "off" else "Keyed"
_MAILER = {**_POSTROOM["MAILERS"]["brevo"], "BACKEND": f"tests.journeys.perils.backends.{_BACKEND}"}  # type: ignore[index]
POSTROOM = {
    **_POSTROOM,
    "MAILERS": {"brevo": _MAILER},
    "STALE_AFTER_SECONDS": float(os.environ.get("JOURNEY_STALE", "21600")),
}
if _second := os.environ.get("JOURNEY_SECOND"):
    _OTHER = {**_MAILER, "OPTIONS": {**_MAILER["OPTIONS"], "api_url": _second}}
    POSTROOM |= {"SEND_WITH": ["brevo", "other"], "MAILERS": {"brevo": _MAILER, "other": _OTHER}}
