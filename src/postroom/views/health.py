"""
Whether this process lives, and whether it can serve. Neither asks Redis, the provider or the workers:
a dependency that all processes share must not take every one of them out of service.
"""

from __future__ import annotations

import time

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from postroom.conf import config
from postroom.exceptions import SettingsError
from postroom.failures import redact
from postroom.ops import missing_migrations
from postroom.ops.questions import database
from postroom.ops.writing import read_only


@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """Answer. No database: a process that can answer is alive, whatever else is wrong."""
    return _answer({"status": "ok"}, 200)


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer 200 when the database answers, can be written and is migrated, and the settings can be used; else 503."""
    checks: dict[str, dict[str, object]] = {}
    for name, check in (("settings", _settings), ("database", _database), ("migrations", _migrations)):
        began = time.perf_counter()
        trouble = check()
        checks[name] = {"ok": not trouble, "ms": round((time.perf_counter() - began) * 1000, 1)}
        if trouble:
            checks[name]["do"] = trouble
            return _answer({"status": "unavailable", "checks": checks}, 503)
    return _answer({"status": "ok", "checks": checks}, 200)


def _settings() -> str:
    try:
        config()
    except SettingsError as error:
        return f"Correct the settings: {redact(str(error))}"
    return ""


def _database() -> str:
    try:
        with connections[database()].cursor() as cursor:
            cursor.execute("SELECT 1")
        trouble = read_only(database())
    except DatabaseError as error:
        # The class alone: the text of a driver names hosts and users, and this page is public.
        return f"Bring the database back ({type(error).__name__}); then nothing else has to be done."
    return f"The database cannot be written. {trouble.why} {trouble.do}" if trouble else ""


def _migrations() -> str:
    try:
        missing = missing_migrations(database())
    except DatabaseError as error:
        return (
            f"The table of migrations cannot be read ({type(error).__name__}). Run: python manage.py migrate"
        )
    return f"{len(missing)} migrations are not applied. Run: python manage.py migrate" if missing else ""


def _answer(content: dict[str, object], status: int) -> JsonResponse:
    response = JsonResponse(content, status=status)
    response["Cache-Control"] = "no-store"
    return response
