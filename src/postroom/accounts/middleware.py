"""When the database is away: a page that says so and keeps the form, instead of a 500."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.contrib.sessions.backends.base import UpdateError
from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import get_token
from django.template.loader import render_to_string

from postroom.accounts.forms import kept_form
from postroom.accounts.responses import private_page, try_again_at, unlogged

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("postroom")

RETRY_AFTER_SECONDS = 30

AWAY = (OperationalError, ProgrammingError, InterfaceError, InternalError)
"""
Not there, not writable, not migrated. ProgrammingError is a missing table on PostgreSQL,
InternalError a read-only transaction. IntegrityError and DataError are about the data: a 500.
"""


class DatabaseAwayMiddleware:
    """Answer 503 with ``Retry-After`` when a page meets a database that is away. Put it last."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Called by Django with what a view raised; its transaction is rolled back by then."""
        # A session that cannot be saved raises UpdateError and has the cause behind it.
        cause = exception.__context__ if isinstance(exception, UpdateError) else exception
        if not isinstance(cause, AWAY):
            return None
        logger.error("database away path=%s", _without_secret(request), exc_info=exception)
        if hasattr(request, "session"):
            # What it was given cannot be kept either. The middleware that would try stands outside.
            request.session.modified = False
        response = private_page(_answer)(request)
        response["Retry-After"] = str(RETRY_AFTER_SECONDS)
        # Django's own line would name the path, and that of a link is a secret.
        return unlogged(response)


def _without_secret(request: HttpRequest) -> str:
    """Name the page by its route."""
    return request.resolver_match.route if request.resolver_match else ""


def _answer(request: HttpRequest) -> HttpResponse:
    if "/api/" in request.path:
        return JsonResponse({"status": "unavailable", "poll_after": RETRY_AFTER_SECONDS}, status=503)
    context = {
        "form": kept_form(request),
        "csrf_token": get_token(request),
        "action": request.path,
        "try_again_at": try_again_at(request),
    }
    # Without the request: context processors would ask the database who is logged in.
    return HttpResponse(render_to_string("postroom/accounts/database_away.html", context), status=503)
