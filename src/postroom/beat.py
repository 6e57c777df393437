"""
What ``celery beat`` does for postroom, ready for the settings: ``CELERY_BEAT_SCHEDULE = postroom.beat.SCHEDULE``.

Needs neither Celery nor Django's apps, because settings are read before both are there.
"""

from __future__ import annotations

from typing import Any, Final

SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "postroom.rescue": {"task": "postroom.rescue", "schedule": 30.0, "options": {"expires": 30}},
    "postroom.alert": {"task": "postroom.alert", "schedule": 60.0, "options": {"expires": 60}},
    "postroom.prune": {"task": "postroom.prune", "schedule": 3600.0, "options": {"expires": 3600}},
}
"""Two beats do no harm: each of the tasks may run twice. What no worker took in time is not done later."""
