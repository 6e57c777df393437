"""
What a person may do to many e-mails from the admin's list: retry, cancel, send again.

Owns the way from a selection to a list of ``byhand.py``: who may, whether it is asked again first,
and what is said afterwards. Whatever may arrive a second time is asked about; the question carries
the selection in one field, however long it is, and is asked once more when the answer is about
other numbers than those shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import DatabaseError
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from postroom import byhand
from postroom.failures import redact
from postroom.models import SETTLED, OutboundEmail, OutboundEmailQuerySet, State
from postroom.ops.words import number

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[OutboundEmail]
else:
    _Admin = object

MAY_CHANGE: Final = "postroom.change_outboundemail"
"""Who has this permission may retry, cancel and send again."""

AT_MOST: Final = 5_000
"""E-mails of one click: about two seconds of a web process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One thing that can be done to a selection."""

    name: str
    """The action as the admin's form names it."""

    states: tuple[State, ...]
    """Whatever is in another state is left alone."""

    may_double: tuple[State, ...]
    """In these states it may have arrived already."""

    do: Callable[..., Iterator[int]]
    done: Callable[[int], str]
    rule: str | Promise
    """Why something was left alone."""

    asks: str | Promise = ""
    """What the question begins with."""

    yes: str | Promise = ""
    """The button that means it."""


RETRY: Final = Verb(
    name="retry_selected",
    states=byhand.RETRYABLE,
    may_double=(State.UNCERTAIN,),
    do=byhand.retry_all,
    done=lambda n: ngettext("{n} e-mail waits again.", "{n} e-mails wait again.", n),
    rule=gettext_lazy("Only what is failed, cancelled or uncertain can be retried."),
    asks=gettext_lazy("You asked to retry:"),
    yes=gettext_lazy("Yes, retry them"),
)
CANCEL: Final = Verb(
    name="cancel_selected",
    states=(State.PENDING,),
    may_double=(),
    do=byhand.cancel_all,
    done=lambda n: ngettext("{n} e-mail will not be sent.", "{n} e-mails will not be sent.", n),
    rule=gettext_lazy("Only a pending e-mail of which no attempt may have arrived can be cancelled."),
)
RESEND: Final = Verb(
    name="resend_selected",
    states=SETTLED,
    may_double=(State.ACCEPTED, State.UNCERTAIN),
    do=byhand.resend_all,
    done=lambda n: ngettext(
        "{n} e-mail is sent again, as a new one.", "{n} e-mails are sent again, as new ones.", n
    ),
    rule=gettext_lazy(
        "What is still to be sent goes out by itself; what was sent again this very moment is not sent twice."
    ),
    asks=gettext_lazy("You asked to send again, as new e-mails:"),
    yes=gettext_lazy("Yes, send them again"),
)


class ByHand(_Admin):
    """The three actions, for an admin of the outbox; each leaves an event with the name of the user."""

    actions = ("retry_selected", "cancel_selected", "resend_selected")

    def has_by_hand_permission(self, request: HttpRequest) -> bool:
        """Return whether this user may do something to e-mails; looking takes less."""
        return request.user.has_perm(MAY_CHANGE)

    @admin.action(
        description=gettext_lazy("Retry: send after all what was given up"), permissions=["by_hand"]
    )
    def retry_selected(self, request: HttpRequest, rows: QuerySet[OutboundEmail]) -> HttpResponse | None:
        return _act(self, request, rows, RETRY)

    @admin.action(description=gettext_lazy("Cancel: do not send what waits"), permissions=["by_hand"])
    def cancel_selected(self, request: HttpRequest, rows: QuerySet[OutboundEmail]) -> HttpResponse | None:
        return _act(self, request, rows, CANCEL)

    @admin.action(description=gettext_lazy("Send again, as a new e-mail"), permissions=["by_hand"])
    def resend_selected(self, request: HttpRequest, rows: QuerySet[OutboundEmail]) -> HttpResponse | None:
        return _act(self, request, rows, RESEND)


def _act(
    model_admin: Any, request: HttpRequest, selected: QuerySet[OutboundEmail], verb: Verb
) -> HttpResponse | None:
    """Do it, or first ask whether it is meant."""
    rows = _narrowed(request, cast(OutboundEmailQuerySet, selected))
    # Before they are counted: a copy that comes between the two is asked about, one that comes later is the guard's.
    known = {"known": _copies(rows, verb)} if verb is RESEND else {}
    counts = dict(rows.order_by().values_list("state").annotate(Count("pk")))
    again = _sent_again(rows, verb)
    doubled = again + sum(counts.get(state, 0) for state in verb.may_double)
    # With those sent again: a second click, or a page that is loaded once more, is a question of its own.
    seen = " ".join(f"{state}:{n}" for state, n in [*sorted(counts.items()), ("again", again)])
    if doubled and request.POST.get("seen") != seen:
        return _ask(model_admin, request, rows, verb, counts=counts, again=again, seen=seen)
    _do(request, rows, verb, total=sum(counts.values()), **known)
    return None


def _copies(rows: OutboundEmailQuerySet, verb: Verb) -> frozenset[int]:
    """Return the e-mails that repeat one of these."""
    olds = rows.filter(state__in=verb.states).order_by().values("pk")
    copies = OutboundEmail.objects.using(rows.db).filter(resend_of__in=olds)
    return frozenset(copies.values_list("pk", flat=True))


def _sent_again(rows: OutboundEmailQuerySet, verb: Verb) -> int:
    """Return how many would go out although a new e-mail in place of them has, or still may."""
    if not verb.may_double:
        return 0
    copies = OutboundEmail.objects.using(rows.db).filter(resend_of=OuterRef("pk"))
    copies = copies.exclude(state__in=(State.FAILED, State.CANCELLED))
    return rows.filter(Exists(copies), state__in=verb.states).count()


def _narrowed(request: HttpRequest, rows: OutboundEmailQuerySet) -> OutboundEmailQuerySet:
    """Return those that the question was about: named one by one, or all of a list up to the newest then."""
    if chosen := request.POST.get("chosen"):
        rows = rows.filter(pk__in=[int(pk) for pk in chosen.split(",") if pk.isdecimal()])
    newest = request.POST.get("newest", "")
    return rows.filter(pk__lte=int(newest)) if newest.isdecimal() else rows


def _ask(
    model_admin: Any,
    request: HttpRequest,
    rows: OutboundEmailQuerySet,
    verb: Verb,
    *,
    counts: dict[str, int],
    again: int,
    seen: str,
) -> HttpResponse:
    """Ask on a page of its own; nothing has been done yet."""
    across = request.POST.get("select_across") == "1"
    chosen = (
        request.POST.get("chosen", "") if across else ",".join(request.POST.getlist(ACTION_CHECKBOX_NAME))
    )
    newest = rows.order_by("-pk").values_list("pk", flat=True).first()
    fields = {
        "action": verb.name,
        # One is enough for Django, whose form this answers; the selection itself is in ours.
        ACTION_CHECKBOX_NAME: str(newest),
        "select_across": "1",
        "chosen": chosen,
        "newest": str(newest),
        "seen": seen,
    }
    lines: list[tuple[str, str | Promise, str]] = [
        (number(counts[state]), State(state).label, _fate(verb, State(state))) for state in sorted(counts)
    ]
    if again:
        lines.append((number(again), _("of these"), _("sent again before, as new e-mails: once more")))
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Some of these may arrive a second time"),
        "verb": verb,
        "fields": fields,
        "lines": lines,
        "changed": "seen" in request.POST,
    }
    return TemplateResponse(request, "postroom/admin/confirm.html", context)


def _fate(verb: Verb, state: State) -> str:
    if state not in verb.states:
        return _("stays as it is")
    texts = {
        State.ACCEPTED: _("was accepted by the provider: arrives a second time"),
        State.UNCERTAIN: _("may have gone out: may arrive a second time"),
    }
    return texts.get(state, _("certainly did not go out: arrives once"))


def _do(
    request: HttpRequest, rows: OutboundEmailQuerySet, verb: Verb, *, total: int, **known: Set[int]
) -> None:
    able = rows.filter(state__in=verb.states)
    bound = able.order_by("pk").values_list("pk", flat=True)[AT_MOST : AT_MOST + 1].first()
    some = able.filter(pk__lt=bound) if bound is not None else able
    tried, done = some.count(), 0
    later = able.count() - tried if bound is not None else 0
    try:
        for n in verb.do(some, actor=request.user.get_username(), **known):
            done += n
    except DatabaseError as error:
        text = _("The database refused to go on: {error}. What is said above was done.")
        messages.error(request, text.format(error=redact(str(error), limit=200)))
        later = 0
    if done:
        messages.success(request, verb.done(done).format(n=number(done)))
    if later:
        text = ngettext(
            "{n} is left for another time: repeat it.",
            "{n} are left: more than one click may do. Repeat it.",
            later,
        )
        messages.warning(request, text.format(n=number(later)))
    if left := total - done - later:
        text = ngettext("{n} was left alone.", "{n} were left alone.", left).format(n=number(left))
        messages.warning(request, f"{text} {verb.rule}")
