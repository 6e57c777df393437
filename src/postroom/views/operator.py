"""
The operator's pages: one verdict with the numbers behind it, and the history of one e-mail.

Staff only. Reads only, and from the database that is written; answers when it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from postroom import ops
from postroom.models import OutboundEmail
from postroom.ops import history
from postroom.ops.questions import database
from postroom.ops.search import Page, search

View = Callable[..., HttpResponse]


def staff_only(view: View) -> Callable[..., HttpResponseBase]:
    """
    Let operators (``is_staff``) in: others are sent to log in, or read that they may not.

    Where the database that knows who is logged in does not answer, a page says so (503).
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            user = request.user
            if not user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if not (user.is_active and user.is_staff):
                return render(request, "postroom/operator/forbidden.html", status=403)
            return view(request, *args, **kwargs)
        except DatabaseError:
            # Without the request: its context processors would ask the database again.
            return HttpResponse(render_to_string("postroom/operator/unavailable.html"), status=503)

    return require_safe(never_cache(guarded))


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
