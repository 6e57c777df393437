"""Answers and their headers: where a redirect may lead, and what must not be kept or passed on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


class SeeOther(HttpResponseRedirect):
    """303: the answer to a POST is a page to GET."""

    status_code = 303


def private_page(view: View[P]) -> View[P]:
    """
    Keep a page out of caches and search engines, its URL on this site, and the password typed
    into it out of error reports.

    Not ``no-referrer``: browsers then send ``Origin: null`` with the page's forms, and Django's CSRF
    check refuses that. No URL of these pages holds a secret.
    """
    return _with_headers(view, {"Referrer-Policy": "same-origin", "X-Robots-Tag": "noindex"})


def secret_url(view: View[P]) -> View[P]:
    """
    Like ``private_page``, for reading the one URL that is a secret itself: it answers with a
    redirect, and neither a ``Referer`` nor a log line of Django's gets to hold it.
    """
    within = _with_headers(view, {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"})

    # Exempt, because a refusal would be logged with the path. A POST comes to nothing here anyway.
    @csrf_exempt
    @wraps(view)
    def wrapped(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return within(request, *args, **kwargs)
        return unlogged(HttpResponseNotAllowed(["GET", "HEAD"]))

    return wrapped


def unlogged(response: HttpResponse) -> HttpResponse:
    """Keep Django from logging this refusal together with the path."""
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def is_prefetch(request: HttpRequest) -> bool:
    """Whether a browser fetches ahead what nobody has asked for yet."""
    purpose = f"{request.headers.get('Sec-Purpose', '')} {request.headers.get('Purpose', '')}"
    return "prefetch" in purpose.lower()


def destination(request: HttpRequest) -> str:
    """Return where a login leads: the ``next`` that was asked for, if it is a page of this site, else home."""
    wanted = request.POST.get("next", request.GET.get("next", ""))
    return wanted if _is_ours(request, wanted) else resolve_url(settings.LOGIN_REDIRECT_URL)


def try_again_at(request: HttpRequest) -> str:
    """
    Return the page from which a request that came to nothing can be made again.

    What was sent by a form cannot be followed as a link: then it is the page that had the form, or home.
    """
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    page = request.headers.get("Referer", "")
    return page if _is_ours(request, page) else "/"


def _is_ours(request: HttpRequest, url: str) -> bool:
    return url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )


def _with_headers(view: View[P], headers: dict[str, str]) -> View[P]:
    @wraps(view)
    @sensitive_post_parameters("password")
    def wrapped(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        response = view(request, *args, **kwargs)
        add_never_cache_headers(response)
        for name, value in headers.items():
            response.headers[name] = value
        return response

    return wrapped
