"""
The broker of the shop: ``CELERY_BROKER_URL`` as Celery takes it, and what of the original is understood.

Celery reads the variable itself, before any setting, so what it must not see is written over.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from example.environment import refuse, text

VARIABLE = "CELERY_BROKER_URL"
SCHEMES = ("redis", "rediss", "amqp", "amqps", "sentinel", "memory")
NONE = "memory://"
"""A broker in nobody's reach: no socket is opened, and the worker's step does the work."""

EXAMPLES = "redis://127.0.0.1:6379/0 or amqp://user:password@127.0.0.1:5672//, or leave it empty"


def url() -> str:
    """Return the broker's URL; ``memory://`` where there is none. The original's ``django://`` is none."""
    value = text("CELERY_BROKER_URL")
    if not value or value.startswith("django:"):
        os.environ[VARIABLE] = NONE
        return NONE
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        # The reason may quote a password.
        refuse(
            f"{VARIABLE} is no URL. In a user or password / : @ ? and # are written %2F %3A %40 %3F and %23."
        )
    if parts.scheme not in SCHEMES or "://" not in value:
        begins = f"begins with {parts.scheme}" if "://" in value and parts.scheme else "has no scheme"
        refuse(f"{VARIABLE} {begins}. Type {EXAMPLES}.")
    if not parts.hostname and parts.scheme != "memory":
        refuse(f"{VARIABLE} names no host. Type {EXAMPLES}.")
    return value


def notes() -> list[str]:
    """Return what somebody who starts Celery should know about the variables given, a line each."""
    found = []
    if text("CELERY_BROKER_URL").startswith("django:"):
        found.append("Celery has no broker django:// since 4.0; none is needed: the worker reads the table.")
    if text("CELERY_RESULT_BACKEND"):
        found.append("CELERY_RESULT_BACKEND is not used: nothing here reads a result.")
    return found


def transport_options(broker: str) -> dict[str, Any]:
    """Return time-outs for a broker that accepts and never answers; Celery's own wait has no end."""
    if broker.startswith(("redis", "rediss")):
        return {"socket_connect_timeout": 2, "socket_timeout": 5}
    return {}
