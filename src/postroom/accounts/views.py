"""
The pages. Views decide nothing: they take a form, ask one verb, and show what it answered.

    register ──► check_email (waits, turns to "confirmed")
                     :
    the e-mail's link ──► open_link ──► activate ──► login ──► the site
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth import login as begin_session
from django.contrib.auth import logout as end_session
from django.http import HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.shortcuts import render, resolve_url
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from postroom.accounts import browser, progress, registration, signin, verification
from postroom.accounts.forms import ConfirmForm, LoginForm, kept_form, registration_form
from postroom.accounts.responses import (
    SeeOther,
    destination,
    is_prefetch,
    private_page,
    secret_url,
    try_again_at,
)
from postroom.accounts.routes import url
from postroom.accounts.verification import AlreadyConfirmed, Confirmed

if TYPE_CHECKING:
    from postroom.accounts.models import Registration

require_form_methods = require_http_methods(["GET", "HEAD", "POST"])


@require_form_methods
@private_page
def register(request: HttpRequest) -> HttpResponse:
    """Ask for an address and a password. The answer is the same whether or not the address has an account."""
    if request.user.is_authenticated:
        return SeeOther(destination(request))
    form = registration_form()(_posted(request))
    if not form.is_valid():
        return _page(request, "register", form=form)
    attempt = registration.register(form.cleaned_data["email"], form.cleaned_data["password"])
    browser.remember(request, attempt)
    return SeeOther(url("check_email"))


@require_safe
@private_page
def check_email(request: HttpRequest) -> HttpResponse:
    """Show how far the e-mail of this browser's registration is, and wait for the confirmation."""
    attempt = browser.newest(request)
    if attempt is None:
        return SeeOther(url("register") + ("?over" if browser.had_registered(request) else ""))
    return _page(request, "check_email", attempt=attempt, status=progress.of(attempt))


@require_safe
def check_email_status(request: HttpRequest) -> HttpResponse:
    """
    Answer the waiting page in JSON, about this browser's registration and no other.

    ``?zone=`` is the visitor's time zone, ``?email=`` is ignored, and an unknown ``?type=`` is an
    error whoever asks.
    """
    if request.GET.get("type", progress.TYPE) != progress.TYPE:
        return _private_json({"status": "error", "error_code": "unknown_type"}, status=400)
    attempt = browser.newest(request)
    status = progress.of(attempt, time_zone=request.GET.get("zone")) if attempt is not None else None
    if status is None:
        return _private_json({"status": "none"}, status=404)
    return _private_json(status.as_json())


@secret_url
def open_link(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Take the token out of the URL at once. Opening a link changes nothing but this browser's session."""
    try:
        attempt = verification.check(uid, token)
    except verification.LinkInvalid:
        return SeeOther(f"{url('activate')}?invalid")
    if is_prefetch(request):
        # Nothing to show ahead of time; the browser asks again when the person does.
        return HttpResponse(status=204)
    if request.method == "GET":
        browser.remember_link(request, attempt)
    return SeeOther(f"{url('activate')}?opened")


@require_form_methods
@private_page
def activate(request: HttpRequest) -> HttpResponse:
    """Confirm the address: one click in the browser that registered, elsewhere with the password."""
    attempt = None if "invalid" in request.GET else browser.opened(request)
    if attempt is None:
        return _no_link(request)
    here = browser.registered(request, attempt)
    form = ConfirmForm(_posted(request), registering_browser=here)
    try:
        if verification.is_confirmed(attempt):
            return _page(request, "already_confirmed")
        if form.is_valid():
            password = form.cleaned_data.get("password")
            outcome = verification.confirm(attempt, password=password, registering_browser=here)
            return _after_confirmation(request, outcome, by_password=not here)
    except verification.WrongPassword:
        form.refuse()
    except verification.LinkExpired:
        return _link_over(request, attempt)
    return _page(request, "activate", form=form, attempt=attempt, registering_browser=here)


@require_form_methods
@private_page
def login(request: HttpRequest) -> HttpResponse:
    """Log in by address. Who has the right password but has not confirmed yet is told so."""
    if request.user.is_authenticated:
        return SeeOther(destination(request))
    attempt = browser.newest(request)
    if attempt is not None and request.method != "POST" and request.GET.get("command") == "verification":
        return SeeOther(url("check_email"))
    form = LoginForm(_posted(request), initial={"username": attempt.address if attempt else ""})
    if form.is_valid():
        user = authenticate(request, **form.cleaned_data)
        if user is not None:
            begin_session(request, user)
            return SeeOther(destination(request))
        if unconfirmed := signin.unconfirmed(request):
            # Who knows the password of an attempt is the one who made it, whatever the browser.
            browser.remember(request, unconfirmed)
            return SeeOther(f"{url('check_email')}?first")
        form.refuse()
    just_confirmed = attempt is not None and attempt.consumed_at is not None
    return _page(request, "login", form=form, next=_wanted(request), just_confirmed=just_confirmed)


@require_POST
@private_page
def logout(request: HttpRequest) -> HttpResponse:
    """End the session, and with it the receipts."""
    end_session(request)
    return SeeOther(resolve_url(settings.LOGOUT_REDIRECT_URL or url("login")))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Explain a form that came from an old page or without cookies, and keep it (``CSRF_FAILURE_VIEW``)."""
    no_cookie = reason == REASON_NO_CSRF_COOKIE
    context = {"form": kept_form(request), "no_cookie": no_cookie, "try_again_at": try_again_at(request)}
    return private_page(_page)(request, "form_again", code=403, **context)


def _posted(request: HttpRequest) -> QueryDict | None:
    return request.POST if request.method == "POST" else None


def _wanted(request: HttpRequest) -> str:
    """Return the ``next`` that the login page carries along; judged when it is followed."""
    return request.POST.get("next", request.GET.get("next", ""))


def _page(request: HttpRequest, /, name: str, *, code: int = 200, **context: Any) -> HttpResponse:
    return render(request, f"postroom/accounts/{name}.html", context, status=code)


def _after_confirmation(
    request: HttpRequest, outcome: Confirmed | AlreadyConfirmed, *, by_password: bool
) -> HttpResponse:
    if isinstance(outcome, AlreadyConfirmed):
        return _page(request, "already_confirmed")
    if signin.admit(request, outcome.user, by_password=by_password):
        return SeeOther(destination(request))
    if request.user.is_authenticated:
        # Somebody else's session stays theirs; the page behind the link tells what happened.
        return SeeOther(f"{url('activate')}?opened")
    return SeeOther(f"{url('login')}?command=activated")


def _no_link(request: HttpRequest) -> HttpResponse:
    """Answer where no opened link is in the session: the cookie was not kept, or the link was no link."""
    if request.method == "POST" or "opened" in request.GET:
        return _page(request, "cookie_missing", code=400)
    return _link_over(request, browser.newest(request))


def _link_over(request: HttpRequest, attempt: Registration | None) -> HttpResponse:
    """Offer to register again, with the address filled in as far as this browser may know it."""
    form = registration_form()(initial={"email": attempt.address if attempt else ""})
    return _page(request, "link_over", code=410, form=form)


def _private_json(answer: dict[str, Any], *, status: int = 200) -> JsonResponse:
    response = JsonResponse(answer, status=status)
    add_never_cache_headers(response)
    patch_vary_headers(response, ["Cookie"])
    return response
