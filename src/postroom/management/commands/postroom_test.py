"""Send one real e-mail and watch it go."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.core.validators import validate_email
from django.db import DatabaseError
from django.utils import timezone
from django.utils.translation import gettext as _

from postroom import mailers, ops
from postroom.emails import trial_email
from postroom.failures import redact
from postroom.management.base import DatabaseCommand
from postroom.models import EVIDENCE, DeliveryEvent, EventType, OutboundEmail, State
from postroom.ops.words import clock, duration, masked

LOOK_SECONDS: Final = 0.2
REPORT_SECONDS: Final = 10
"""After acceptance a report is waited for no longer than this."""


class Command(DatabaseCommand):
    """Enqueue the e-mail ``postroom.test`` and print its events as they happen."""

    help = (
        "Does mail work at all? Puts a small real e-mail to ADDRESS into the outbox and prints what happens to it. "
        "Exit code: 0 accepted or better, 1 not (yet), 2 wrong address or no database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", metavar="ADDRESS", help="where to; it gets a real e-mail")
        parser.add_argument(
            "--wait", type=float, default=30, metavar="SECONDS", help="how long to watch (default: 30)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        email = self._enqueue(options["address"])
        self._say(0, _("saved in the outbox as {id}").format(id=email.short_id))
        self._tell_if_nobody_delivers()
        began = time.monotonic()
        # Ctrl-C only ends the watching: the e-mail is saved, and what is known of it is still to be said.
        with suppress(KeyboardInterrupt):
            self._watch(email, options["wait"])
        self.stdout.write(_verdict(email, time.monotonic() - began))
        self.stdout.write(_("Its history: kind postroom.test, {uuid}").format(uuid=email.uuid))
        if email.state != State.ACCEPTED or email.report_rank >= EVIDENCE[EventType.BOUNCED]:
            self.stdout.flush()
            sys.exit(1)

    def _enqueue(self, address: str) -> OutboundEmail:
        try:
            validate_email(address)
        except ValidationError:
            text = _("{address!r} is not an e-mail address. Nothing was sent.").format(address=address)
            raise CommandError(text, returncode=2) from None
        self.stdout.write(_("A real e-mail to {address}.").format(address=masked(address)))
        try:
            return trial_email.enqueue(address=address, asked_at=clock(timezone.now()))
        except DatabaseError as error:
            text = _("The e-mail could not be saved ({error}). Ask: python manage.py postroom_doctor")
            raise CommandError(text.format(error=redact(str(error), limit=200)), returncode=2) from error

    def _tell_if_nobody_delivers(self) -> None:
        if not any(worker.is_alive for worker in ops.workers()):
            self.stdout.write(
                _("No delivery process is running. Start one: python manage.py postroom_worker")
            )
            self.stdout.flush()

    def _watch(self, email: OutboundEmail, seconds: float) -> None:
        """Print each event once, until nothing more is expected or *seconds* are over."""
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            for event in email.events.filter(pk__gt=seen).order_by("pk"):
                seen = event.pk
                self._say((event.at - email.created_at).total_seconds(), _told(event))
            email.refresh_from_db()
            if email.state == State.ACCEPTED:
                deadline = min(deadline, time.monotonic() + _report_wait(email))
            if time.monotonic() >= deadline or _is_over(email):
                return
            time.sleep(LOOK_SECONDS)

    def _say(self, seconds: float, text: str) -> None:
        self.stdout.write(f"  {max(seconds, 0):5.1f} s  {text}")
        self.stdout.flush()


def _told(event: DeliveryEvent) -> str:
    """One event in a line: what, by whom, how long it took, and what was answered."""
    parts = [str(EventType(event.type).label)]
    if event.type == EventType.CLAIMED:
        parts.append(
            _("(number {n}) by {worker}, with {mailer}").format(
                n=event.attempt, worker=event.worker, mailer=event.mailer
            )
        )
    if event.duration_ms is not None:
        parts.append(_("after {time}").format(time=duration(event.duration_ms / 1000)))
    if event.error_class:
        parts.append(f"[{event.error_class}] {redact(event.detail, limit=200)}")
    return " ".join(parts)


def _is_over(email: OutboundEmail) -> bool:
    """Whether nothing more happens by itself, or what may still happen is not waited for."""
    if email.state == State.ACCEPTED:
        return email.report_rank >= EVIDENCE[EventType.DELIVERED] or not _report_wait(email)
    return email.is_settled


def _report_wait(email: OutboundEmail) -> float:
    """Return how long after acceptance a report may be hoped for; 0 with a mailer that never tells."""
    if not mailers.get(email.mailer or mailers.names()[0]).reports:
        return 0
    since = email.accepted_at or timezone.now()
    return max(REPORT_SECONDS - (timezone.now() - since).total_seconds(), 0)


def _verdict(email: OutboundEmail, waited: float) -> str:
    if email.report_rank >= EVIDENCE[EventType.BOUNCED]:
        return _("The provider had taken it, but it did not arrive: {report}.").format(
            report=email.get_report_display()
        )
    if email.report_rank >= EVIDENCE[EventType.DELIVERED]:
        return _("It has arrived at the recipient's mail server.")
    if email.state == State.ACCEPTED:
        return _("{mailer} took it. Whether it arrived is not known yet: look into the mailbox.").format(
            mailer=email.mailer or _("The mailer")
        )
    texts = {
        State.FAILED: _("It was given up: certainly not sent ({reason})."),
        State.CANCELLED: _("It was not sent, on purpose: {reason}."),
        State.UNCERTAIN: _("It may have gone out: the attempt got no answer and is not repeated by itself."),
        State.SENDING: _("Not yet: after {time} it is still being handed over. It stays in the outbox."),
        State.PENDING: _(
            "Not yet: after {time} it waits in the outbox and goes out as soon as it can. Ask: python manage.py postroom_doctor"
        ),
    }
    return texts[State(email.state)].format(reason=email.reason or "-", time=duration(waited))
