"""Settings of the bench's own site. Everything that a run varies comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import django

from example import environment

os.environ.setdefault("DATABASE_URL", os.environ.get("BENCH_DATABASE_URL", ""))

SECRET_KEY = "a key of the bench and of nothing else, long enough for every check"
DEBUG = False
USE_TZ = True
ROOT_URLCONF = "bench.site.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_FROM_EMAIL = "Factors <shop@example.com>"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "postroom", "bench.site"]
DATABASES: dict[str, dict[str, Any]] = {"default": environment.database(Path("bench.sqlite3"))}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

POSTROOM: dict[str, Any] = environment.postroom_settings(
    {"SEND_WITH": ["provider"], "SITE_URL": "https://shop.example"}
)
POSTROOM["SEND_WITH"] = ["provider"]
_PROVIDER = {
    "BACKEND": "anymail.backends.brevo.EmailBackend",
    "OPTIONS": {
        "api_key": "bench",
        "api_url": os.environ.get("BENCH_PROVIDER_URL", "https://127.0.0.1:1/v3/"),
    },
}
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "postroom.backends.OutboxEmailBackend"}, "provider": _PROVIDER}
else:
    EMAIL_BACKEND = "postroom.backends.OutboxEmailBackend"
    POSTROOM["MAILERS"] = {"provider": _PROVIDER}
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "")

# What a site in production does: INFO lines to a stream. Every attempt is one.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"people": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "people"}},
    "loggers": {"postroom": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}
