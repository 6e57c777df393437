"""What the shop does to every request: one host name, a policy for browsers, and a stopwatch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect

from postroom.status import held

logger = logging.getLogger("postroom")

View = Callable[[HttpRequest], HttpResponseBase]

MEASURED = {"register": "registered", "buy": "bought"}
"""Pages whose answer is timed, and what the log calls it."""

ANSWERED_IN_MS = "example_answered_in_ms"
"""Of the session: how long the registration took, for the strip of the home page."""


class OneHost:
    """
    In development, send a page that is asked for under another name of this machine to ``SITE_URL``.

    Links in e-mails name that host, and a session belongs to one: who registers at ``localhost``
    and confirms at ``127.0.0.1`` would look like two people. A host that is not ours is a 400, but for
    probes: they ask at an address of the machine, and their answer depends on no host.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        ours = urlsplit(settings.SITE_URL).netloc
        if request.path.startswith("/healthz/") and ADDRESS.fullmatch(request.META.get("HTTP_HOST", "")):
            # For the middlewares behind this one, which ask too.
            request.META["HTTP_HOST"] = ours
        host = request.get_host()
        if settings.DEBUG and request.method in ("GET", "HEAD") and host != ours:
            return redirect(settings.SITE_URL + request.get_full_path())
        return self.get_response(request)


ADDRESS = re.compile(r"(\d+(\.\d+){3}|\[[0-9A-Fa-f:.]+\])(:\d+)?")
"""An IP address, with or without a port: how a probe asks."""


class ContentSecurityPolicy:
    """Django 6's ``SECURE_CSP`` for Django 5.2; a view's own policy wins."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response
        self.policy = "; ".join(f"{name} {' '.join(values)}" for name, values in settings.SECURE_CSP.items())

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", self.policy)
        return response


class Stopwatch:
    """Time the answers after which an e-mail is on its way. Stands right behind the session's middleware."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        response = self.get_response(request)
        page = request.resolver_match.url_name if request.resolver_match else None
        if request.method == "POST" and response.status_code in (302, 303) and page in MEASURED:
            _note(request, page, round((time.perf_counter() - began) * 1000))
        return response


def _note(request: HttpRequest, page: str, milliseconds: int) -> None:
    promised = held(request)
    if not promised:
        return
    if page == "register":
        request.session[ANSWERED_IN_MS] = milliseconds
    logger.info("%s ms=%s email=%s", MEASURED[page], milliseconds, promised[-1])
