"""What the peers share: settings, and the lines by which the harness speaks to them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings

from bench import talk

API_URL = os.environ["BENCH_PROVIDER_URL"]


def configure(apps: Sequence[str], **more: Any) -> None:
    """Set Django up on the bench's PostgreSQL, with Anymail's Brevo backend at the bench's provider."""
    url = urlsplit(os.environ["BENCH_DATABASE_URL"])
    settings.configure(
        SECRET_KEY="bench",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *apps],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.path[1:],
                "USER": url.username,
                "HOST": url.hostname,
                "PORT": url.port,
                "CONN_MAX_AGE": 60,
            }
        },
        ANYMAIL={"BREVO_API_KEY": "bench", "BREVO_API_URL": API_URL, "REQUESTS_TIMEOUT": 60},
        **more,
    )
    django.setup()


def main(enqueue: Callable[[int], None], left: Callable[[], int]) -> None:
    """``serve``: answer the harness. Anything else: a command of Django's."""
    from django.core.management import call_command, execute_from_command_line

    def put(count: int, start: int = 0) -> dict[str, Any]:
        began = time.perf_counter()
        for number in range(start, start + count):
            enqueue(number)
        return {"seconds": time.perf_counter() - began}

    def migrate() -> dict[str, Any]:
        call_command("migrate", run_syncdb=True, verbosity=0)
        return {}

    if sys.argv[1:] == ["serve"]:
        talk.serve({"enqueue": put, "migrate": migrate, "left": lambda: {"count": left()}})
    else:
        execute_from_command_line(["bench", *sys.argv[1:]])
