"""
Settings of the site that the accidents happen to: the engine alone, with a provider on loopback.

What differs between journeys comes from the environment, as for any site. ``JOURNEY_KEYS=off`` gives it
a provider that knows no idempotency keys.
"""

import os
from urllib.parse import urlsplit

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES as _DATABASES

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "postroom", "tests.journeys"]
ROOT_URLCONF = "tests.journeys.urls"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]


def database(url: str) -> dict[str, object]:
    """Return Django's settings for ``sqlite:///PATH``, ``postgres://user@host:port/name`` or ``mysql://…``."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {**_DATABASES["default"], "NAME": parts.path, "TEST": {}}
    return {
        "ENGINE": f"django.db.backends.{'mysql' if parts.scheme == 'mysql' else 'postgresql'}",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }


def _isolated(level: str) -> dict[str, object]:
    """Return what sets *level* on every connection, in the words of the database; it must be a server."""
    if _URL.startswith("mysql"):
        return {"isolation_level": level}
    from psycopg import IsolationLevel

    return {"isolation_level": IsolationLevel[level.upper().replace(" ", "_")]}


_URL = os.environ.get("JOURNEY_DATABASE", "sqlite:////nowhere")
DEBUG = bool(os.environ.get("JOURNEY_DEBUG"))
DATABASES = {"default": database(_URL)}
if os.environ.get("JOURNEY_ISOLATION"):
    DATABASES["default"]["OPTIONS"] = _isolated(os.environ["JOURNEY_ISOLATION"])
ANYMAIL = {"WEBHOOK_SECRET": "hook:secret"}
_PROVIDER = "tests.journeys.keyless" if os.environ.get("JOURNEY_KEYS") == "off" else "anymail.backends.brevo"
POSTROOM = {
    "SEND_WITH": ["brevo"],
    "SITE_URL": "http://127.0.0.1",
    "LEASE_SECONDS": float(os.environ.get("JOURNEY_LEASE", "2")),
    "CONCURRENCY": int(os.environ.get("JOURNEY_CONCURRENCY", "8")),
    "POLL_INTERVAL_SECONDS": float(os.environ.get("JOURNEY_POLL", "0.2")),
    "BACKOFF_BASE_SECONDS": 0.2,
    "ATTEMPT_SECONDS": float(os.environ.get("JOURNEY_ATTEMPT", "90")),
    "SEND_TIMEOUT_SECONDS": 1,
    "STOP_SECONDS": float(os.environ.get("JOURNEY_STOP", "10")),
    "MAILERS": {
        "brevo": {
            "BACKEND": f"{_PROVIDER}.EmailBackend",
            "OPTIONS": {
                "api_key": "any",
                "api_url": os.environ.get("JOURNEY_PROVIDER", "http://127.0.0.1:1/v3/"),
                "timeout": 60,  # of a read; an attempt is bounded by ATTEMPT_SECONDS
            },
        }
    },
}
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"postroom": {"handlers": ["console"], "level": "INFO"}},
}
