"""
The operator's pages: one verdict with the numbers behind it, and the history of one e-mail.

Staff only. Reads from the database that is written, and answers when that does not. One thing can be
done here: stop all sending, and let it go on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from postroom import ops, outbox
from postroom.brakes import MAY_SWITCH
from postroom.failures import redact
from postroom.models import OutboundEmail
from postroom.ops import history
from postroom.ops.questions import database
from postroom.ops.search import Page, search
from postroom.views.audit import write_down

View = Callable[..., HttpResponse]


def staff_only(view: View) -> Callable[..., HttpResponseBase]:
    """
    Let operators (``is_staff``) read: others are sent to log in, or read that they may not.

    Where the database that knows who is logged in does not answer, a page says so (503).
    """
    return require_safe(_guarded(view, ""))


def staff_with(permission: str) -> Callable[[View], Callable[..., HttpResponseBase]]:
    """Let operators who have *permission* do something, by POST; the others as with ``staff_only``."""
    return lambda view: require_POST(_guarded(view, permission))


def _guarded(view: View, permission: str) -> Callable[..., HttpResponseBase]:

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            user = request.user
            if not user.is_authenticated:
                return redirect_to_login(_way_back(request))
            if not (user.is_active and user.is_staff and (not permission or user.has_perm(permission))):
                return render(request, "postroom/operator/forbidden.html", status=403)
            return view(request, *args, **kwargs)
        except DatabaseError:
            # Without the request: its context processors would ask the database again.
            return HttpResponse(render_to_string("postroom/operator/unavailable.html"), status=503)

    return never_cache(guarded)


def _way_back(request: HttpRequest) -> str:
    """What is done by POST is not done by logging in: then the way leads to the overview."""
    return (
        request.get_full_path()
        if request.method in ("GET", "HEAD")
        else reverse("postroom_operator:overview")
    )


@staff_only
def overview(request: HttpRequest) -> HttpResponse:
    """Show the verdict, what it stands on, and the newest e-mails or those searched for."""
    text = request.GET.get("q", "").strip()[:200]
    diagnosis = ops.diagnose()
    page = _search(text, request.GET.get("before", "")) if diagnosis.facts else Page(emails=())
    context = {
        "diagnosis": diagnosis,
        "facts": diagnosis.facts,
        "workers": history.worker_lines(diagnosis.facts) if diagnosis.facts else (),
        "mailers": history.mailer_lines(diagnosis.facts) if diagnosis.facts else (),
        "doorbell": history.doorbell_line(diagnosis.facts) if diagnosis.facts else "",
        "page": page,
        "lines": [history.line(email) for email in page.emails],
        "may_switch": request.user.has_perm(MAY_SWITCH),
        "q": text,
        "is_first_page": not request.GET.get("before"),
    }
    return render(request, "postroom/operator/overview.html", context)


def _search(text: str, before: str) -> Page:
    try:
        return search(text, before=before)
    except DatabaseError:
        return Page(emails=(), misunderstood=(_("This search takes too long. Add since:1d, or a kind."),))


@staff_only
def email(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show one e-mail: its state in words and everything that happened to it; never what is written in it."""
    found = OutboundEmail.objects.using(database()).filter(uuid=uuid).first()
    if found is None:
        return render(request, "postroom/operator/missing.html", {"uuid": uuid}, status=404)
    return render(request, "postroom/operator/email.html", {"told": history.tell(found)})


@staff_with(MAY_SWITCH)
def pause(request: HttpRequest) -> HttpResponse:
    """Stop all sending."""
    reason = redact(request.POST.get("reason", "").strip(), limit=200)
    before = outbox.paused()
    paused = outbox.pause(actor=request.user.get_username(), reason=reason)
    if not before:
        write_down(request.user, paused, f"Paused all sending: {reason}" if reason else "Paused all sending.")
    return redirect("postroom_operator:overview")


@staff_with(MAY_SWITCH)
def resume(request: HttpRequest) -> HttpResponse:
    """Let sending go on."""
    paused = outbox.paused()
    if outbox.resume(actor=request.user.get_username()) and paused:
        write_down(request.user, paused, "Resumed sending.")
    return redirect("postroom_operator:overview")
