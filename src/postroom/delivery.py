"""
One attempt: compose, send, settle.

``prepare`` and ``settle`` use the database, ``send`` never does: between the two a worker may hold
thousands of e-mails in flight and not one connection for them. ``drain`` and ``deliver_one`` do
all three in the caller's thread, and so work inside a ``TestCase``.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.core.mail import EmailMessage
from django.db import Error as DatabaseFailure
from django.db import connections, router, transaction
from django.utils import timezone

from postroom import mailers, outbox
from postroom.composing import Withdraw, compose
from postroom.conf import config
from postroom.exceptions import NotAllowed
from postroom.failures import FailureClass, Fate, Verdict, backoff, compose_backoff, judge, judge_compose
from postroom.ledger import Result
from postroom.models import EventType, OutboundEmail, State
from postroom.redaction import storable

logger = logging.getLogger("postroom")


TOO_OLD = "the key of the attempt in doubt is too old to be repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A claimed e-mail with its message: all that a sending thread needs."""

    email: OutboundEmail
    message: EmailMessage
    key: str
    """Idempotency key: the same for every repeat of an attempt in doubt."""

    begun_at: datetime
    """When its message was begun, by the clock of this process."""

    is_ours: Callable[[], bool] = lambda: True
    """Whether its claim has been ours until a moment ago, as far as this process can know."""


def prepare(email: OutboundEmail, *, is_ours: Callable[[], bool] = lambda: True) -> Prepared | Result:
    """
    Write the message of a claimed e-mail, or return why there is nothing to send.

    *is_ours* says whether its claim has been ours until a moment ago. Whatever a composer raises
    becomes a Result: one poisonous e-mail never leaves this function.
    """
    begun_at = timezone.now()
    if email.is_expired(outbox.claimed_at(email)):
        return _too_late(email)
    if outbox.key_has_expired(email):
        # No longer safe: settle as it is. outbox.doubt() finds no repeat left and holds it.
        return Result(email=email, verdict=no_answer(TOO_OLD, strike=False))
    try:
        message = compose(email, mime=mailers.get(email.mailer).needs_mime)
        if _meant_for_others(message):
            return Result(email=email, reason="only_to", detail="ONLY_TO does not match a recipient")
        # Anymail hands it to the provider, whose reports bring it back. Its own class says UNSET for "none".
        given = getattr(message, "metadata", None)
        named = {**(given if isinstance(given, Mapping) else {}), "postroom": str(email.uuid)}
        message.metadata = named  # type: ignore[attr-defined]
    except Withdraw as decision:
        reason = storable(decision.reason)
        return Result(email=email, reason=reason, detail=f"the composer withdrew it: {reason}")
    except Exception as error:  # noqa: BLE001 - a composer is the site's code and may fail in any way
        return _composer_failed(email, error)
    message.postroom_uuid = named["postroom"]  # type: ignore[attr-defined]
    return Prepared(
        email=email, message=message, key=email.idempotency_key, begun_at=begun_at, is_ours=is_ours
    )


def send(prepared: Prepared) -> Result:
    """Hand the message to its mailer and judge the answer. Never raises, never uses the database."""
    email, message = prepared.email, prepared.message
    stood_still = timezone.now() - prepared.begun_at > timedelta(seconds=config().ATTEMPT_SECONDS)
    if stood_still or not prepared.is_ours():
        # This process was frozen: the lease is over and the e-mail has another worker, or an end, by now.
        return Result(email=email, verdict=not_begun("this process stood still before it could send"))
    recipients = message.recipients()
    began = time.monotonic()
    verdict: Verdict | None = None
    message_id = reason = ""
    try:
        sent = mailers.get(email.mailer).send(message, prepared.key)
        message_id, reason = sent.message_id, "cancelled while sending" if sent.nothing else ""
    except Exception as error:  # noqa: BLE001 - a mail backend may raise anything; judge() knows what it means
        # Anymail may raise after the provider took the message (a receiver of post_send, say):
        # an id says that it was accepted.
        message_id = mailers.message_id_of(message)
        verdict = None if message_id else judge(error)
    return Result(
        email=email,
        verdict=verdict,
        message_id=message_id,
        recipient=storable(recipients[0]),
        recipient_count=len(recipients),
        duration_ms=int((time.monotonic() - began) * 1000),
        reason=reason,
    )


def settle(results: Iterable[Result], *, using: str | None = None) -> list[Result]:
    """
    Write how attempts ended, each by its arrow; return those that came too late to be written.

    A late refusal is dropped and logged: the e-mail has another worker, or an end, by now.
    """
    using = using or router.db_for_write(OutboundEmail)
    by_verb: dict[Verb, list[Result]] = {}
    for result in results:
        # A copy: the verbs change the row in memory before the commit, and who tries again needs its claim.
        verb, planned = _arrow(replace(result, email=_twin(result.email)))
        by_verb.setdefault(verb, []).append(planned)
    # All or nothing, for the same reason: what was written must not be written again.
    with transaction.atomic(using=using):
        lost = [result for verb, group in by_verb.items() for result in verb(group, using=using)]
    for result in lost:
        logger.warning(
            "claim_lost email=%s attempt=%s worker=%s: its late result was dropped",
            result.email.uuid,
            result.email.attempt,
            result.email.worker,
        )
    return lost


def deliver_one(email: OutboundEmail, *, using: str | None = None) -> OutboundEmail:
    """
    Attempt *email* now, in this thread, and return it as it is afterwards.

    It must be PENDING, and sending not paused; its due date is ignored. Raises NotAllowed otherwise.
    """
    using = using or email._state.db or router.db_for_write(OutboundEmail)
    taken = _turn(using, only=email.pk)
    email.refresh_from_db(using=using)
    if not taken:
        if outbox.paused(using):
            raise NotAllowed("Sending is paused. To go on: python manage.py postroom_resume")
        if email.state == State.PENDING:
            raise NotAllowed(
                f"E-mail {email.short_id} is not to be had: another transaction holds it, or an attempt "
                f"of the mailer {email.mailer or '-'!r}, which is not the first of SEND_WITH, is in doubt."
            )
        raise NotAllowed(f"E-mail {email.short_id} is {email.state}; only a pending one can be delivered.")
    return email


def drain(*, using: str | None = None) -> int:
    """Attempt everything that is due, in this thread, until nothing is; return the number of attempts."""
    using = using or router.db_for_write(OutboundEmail)
    total = 0
    # One at a time: nobody renews here the leases of e-mails that wait for their turn.
    while count := _turn(using) or _turn(using, alone=True):
        total += count
    return total


def worker_name() -> str:
    """Return ``host/pid``."""
    return f"{socket.gethostname()}/{os.getpid()}"


def close_connections() -> None:
    """Close the database connections that this thread opened."""
    for connection in connections.all(initialized_only=True):
        connection.close()


Verb = Callable[..., list[Result]]


def _turn(using: str, *, only: int | None = None, alone: bool = False) -> int:
    alias = mailers.names()[0]
    keyed = mailers.get(alias).keyed
    emails = outbox.claim(
        1, worker=worker_name(), mailer=alias, keyed=keyed, only=only, alone=alone, using=using
    )
    for email in emails:
        ready = prepare(email)
        settle([send(ready) if isinstance(ready, Prepared) else ready], using=using)
    return len(emails)


def _arrow(result: Result) -> tuple[Verb, Result]:
    """Which verb ends this claim, and with which wait."""
    verdict, email = result.verdict, result.email
    if verdict is None:
        return (outbox.withdraw if result.reason else outbox.accept), result
    match verdict.fate:
        case Fate.DUPLICATE if email.uncertain_since and email.key_used_at:
            # The provider knows the key, and an earlier attempt with it got no answer: that one arrived.
            return outbox.accept, replace(result, verdict=None, detail=verdict.detail)
        case Fate.DOUBT:
            return outbox.doubt, result
        case Fate.FAIL:
            return outbox.fail, result
    strikes = email.strikes + int(verdict.strike)
    if strikes >= config().MAX_STRIKES:
        return outbox.fail, result
    wait = (
        timedelta(seconds=verdict.retry_after)
        if verdict.retry_after is not None
        else backoff(max(strikes, 1))
    )
    return outbox.reschedule, replace(result, wait=result.wait or wait)


def _twin(email: OutboundEmail) -> OutboundEmail:
    """Return a copy of the row in memory; ``copy()`` of a model takes ten times as long."""
    twin = OutboundEmail.__new__(OutboundEmail)
    twin.__dict__.update(email.__dict__)
    twin._state = copy(email._state)
    return twin


def _too_late(email: OutboundEmail) -> Result:
    if email.reason == FailureClass.COMPOSE:
        verdict = Verdict(
            failure=FailureClass.COMPOSE,
            fate=Fate.FAIL,
            strike=False,
            retry_after=None,
            detail="expired: its composer failed to the end",
            fingerprint="",
        )
        return Result(email=email, verdict=verdict)
    return Result(email=email, reason="expired", detail="expired before it could be sent")


def _composer_failed(email: OutboundEmail, error: Exception) -> Result:
    verdict = judge_compose(error)
    try:
        failures = email.events.filter(type=EventType.RESCHEDULED, error_class=FailureClass.COMPOSE).count()
    except DatabaseFailure as failed:  # the reason why the composer failed, most likely: its e-mail goes back
        connections[email._state.db or router.db_for_write(OutboundEmail)].close_if_unusable_or_obsolete()
        return Result(email=email, verdict=not_begun(f"the database failed: {type(failed).__name__}"))
    if not failures:
        logger.error("compose failed email=%s kind=%s %s", email.uuid, email.kind, verdict.detail)
    return Result(email=email, verdict=verdict, wait=compose_backoff(failures + 1))


def not_begun(detail: str, *, wait: float = 1) -> Verdict:
    """Return the verdict on an attempt that ended before anything left: again after *wait* seconds, no strike."""
    return Verdict(
        failure=FailureClass.TRANSIENT,
        fate=Fate.RESCHEDULE,
        strike=False,
        retry_after=wait,
        detail=detail,
        fingerprint="",
    )


def no_answer(detail: str, *, strike: bool = True) -> Verdict:
    """Return the verdict on an attempt of which nobody knows how it ended: it goes the way of doubt."""
    return Verdict(
        failure=FailureClass.UNCERTAIN,
        fate=Fate.DOUBT,
        strike=strike,
        retry_after=None,
        detail=detail,
        fingerprint="",
    )


def _meant_for_others(message: EmailMessage) -> bool:
    allowed = config().ONLY_TO
    return bool(allowed) and not all(re.search(allowed, address) for address in message.recipients())
