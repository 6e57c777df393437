"""
The pages of the development mailbox, and its JSON. Without ``DEBUG`` none of them exists.

Everything shown here was written by somebody else: templates escape it, each page carries a
policy of its own, and the HTML of an e-mail is only ever served into a sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Final, ParamSpec

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

from postroom.conf import config
from postroom.mailbox import contents, reports
from postroom.mailbox.recorder import configured_store
from postroom.mailbox.store import Letter, MailboxUnusableError, Store

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

LISTED: Final = 100
"""So many letters stand in the list; the search by address reaches the others."""

PARTS: Final = ("html", "text", "source", "headers")

PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

LETTER_POLICY: Final = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data: cid:; "
    "style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""
No script, no form, nothing fetched from anywhere, an origin of its own. A link opens a new tab, and
that tab is an ordinary one: else the page behind the link would run without its cookies.
"""


def development_only(view: View[P]) -> View[P]:
    """Answer 404 unless ``DEBUG`` is on, and 503 with a sentence where the mailbox's file is broken."""

    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not settings.DEBUG:
            raise Http404
        try:
            response = view(request, *args, **kwargs)
        except MailboxUnusableError as error:
            response = render(request, "postroom/mailbox/unavailable.html", {"error": str(error)}, status=503)
        response.setdefault("Content-Security-Policy", PAGE_POLICY)
        response["X-Content-Type-Options"] = "nosniff"
        response["Cache-Control"] = "no-store"
        patch_vary_headers(response, ["Cookie"])
        return response

    return login_not_required(guarded)


@development_only
@csrf_protect
@require_safe
def overview(request: HttpRequest, letter_id: int | None = None) -> HttpResponse:
    """
    Show the list and one letter: the one asked for, else the newest.

    ``?to=`` lists only what one address gets, ``?part=`` chooses html, text, source or headers.
    """
    address = _address(request)
    store = configured_store()
    letters = store.newest(address, limit=LISTED) if store else []
    letter = _letter(letter_id) if letter_id else store and letters and store.get(letters[0].id)
    context: dict[str, object] = {
        "letters": letters,
        "address": address,
        "records": store is not None,
        "listed": LISTED,
        "chosen": letter_id is not None,
    }
    if letter:
        context |= _opened(request, letter)
    return render(request, "postroom/mailbox/mailbox.html", context)


@xframe_options_exempt  # frame-ancestors of the policy decides
@development_only
@require_safe
def html(_request: HttpRequest, letter_id: int) -> HttpResponse:
    """Serve the HTML of a letter for the frame, under LETTER_POLICY."""
    parts = contents.read(_letter(letter_id).source)
    response = HttpResponse(contents.framed_html(parts))
    response["Content-Security-Policy"] = LETTER_POLICY
    response["Referrer-Policy"] = "no-referrer"
    return response


@development_only
@require_safe
def source(_request: HttpRequest, letter_id: int) -> HttpResponse:
    """Serve the letter as a file that mail programs open."""
    response = HttpResponse(_letter(letter_id).source, content_type="message/rfc822")
    response["Content-Disposition"] = f'attachment; filename="{letter_id}.eml"'
    return response


@transaction.non_atomic_requests  # as the webhook wants it
@development_only
@csrf_protect
@require_POST
def report(request: HttpRequest, letter_id: int) -> HttpResponse:
    """Play a provider's report about the letter, and say what the webhook answered."""
    letter = _letter(letter_id)
    kind = request.POST.get("report", "")
    if kind not in reports.REPORTS or not reports.can_report(letter):
        raise Http404
    answer = reports.play(letter, kind)
    address = reverse("postroom_mailbox:letter", args=[letter_id])
    return redirect(f"{address}?reported={kind}&answer={answer}#history")


@development_only
@csrf_protect
@require_POST
def clear(_request: HttpRequest) -> HttpResponse:
    """Forget all letters; what they did in the outbox stays."""
    store = configured_store()
    if store:
        store.clear()
    return redirect("postroom_mailbox:overview")


@development_only
@require_safe
def messages(request: HttpRequest) -> HttpResponse:
    """
    Return the letters as a JSON array, newest first; with ``?to=ADDRESS`` those that it gets.

    Each has exactly the keys ``id to subject text html headers received_at``. ``to`` holds the bare
    addresses of all recipients, ``received_at`` is ISO 8601 in UTC.
    """
    store = configured_store()
    letters = store.newest(_address(request), with_source=True) if store else []
    return JsonResponse([_as_json(letter) for letter in letters], safe=False)


def _address(request: HttpRequest) -> str:
    """Return ``?to=``. A ``+`` that was not quoted arrives as a space, which no address contains."""
    return request.GET.get("to", "").strip().replace(" ", "+")


def _letter(letter_id: int) -> Letter:
    store: Store | None = configured_store()
    letter = store.get(letter_id) if store else None
    if letter is None:
        raise Http404(_("There is no such e-mail in the mailbox, or it has given way to newer ones."))
    return letter


def _as_json(letter: Letter) -> dict[str, object]:
    parts = contents.read(letter.source)
    return {
        "id": letter.id,
        "to": list(letter.recipients),
        "subject": letter.subject,
        "text": parts.text,
        "html": parts.html,
        "headers": parts.header_dict(),
        "received_at": letter.composed_at.isoformat(),
    }


def _opened(request: HttpRequest, letter: Letter) -> dict[str, object]:
    """Return what the right half shows of a letter."""
    parts = contents.read(letter.source)
    part = request.GET.get("part", "")
    if part not in PARTS:
        part = "html" if parts.html else "text"
    email = reports.email_of(letter)
    return {
        "letter": letter,
        "contents": parts,
        "part": part,
        "parts": _part_labels(),
        "source": letter.source.decode("utf-8", errors="replace"),
        "link": contents.find_link(parts, config().SITE_URL or request.build_absolute_uri("/")),
        "email": email,
        "history": reports.history(email) if email else [],
        "reports": _report_labels() if reports.can_report(letter) else {},
        "reported": _reported(request),
    }


def _part_labels() -> dict[str, str]:
    return {"html": _("HTML"), "text": _("Text"), "source": _("Source"), "headers": _("Headers")}


def _report_labels() -> dict[str, str]:
    return {kind: str(label) for kind, (label, _event, _reason) in reports.REPORTS.items()}


def _reported(request: HttpRequest) -> dict[str, object] | None:
    """Return what ``report`` has just done, as its redirect tells; None for anything else."""
    kind, answer = request.GET.get("reported", ""), request.GET.get("answer", "")
    if kind not in reports.REPORTS or not (answer.isascii() and answer.isdigit() and len(answer) == 3):
        return None
    return {"label": reports.REPORTS[kind][0], "answer": answer, "taken": answer == "200"}
