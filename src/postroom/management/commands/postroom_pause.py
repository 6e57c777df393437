"""Stop all sending, until postroom_resume."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from postroom import outbox
from postroom.failures import redact
from postroom.management.base import DatabaseCommand
from postroom.ops.words import ago, clock, person, this_person


class Command(DatabaseCommand):
    """Throw the switch; who threw it first stays written."""

    help = (
        "Stop all sending: no delivery process claims anything more until postroom_resume. What is in flight "
        "finishes, what is enqueued waits, nothing is lost. Safe to repeat."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="why, for whoever asks the doctor; no addresses"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        actor = this_person()
        try:
            before = outbox.paused()
            pause = outbox.pause(actor=actor, reason=redact(options["reason"], limit=200))
        except DatabaseError as error:
            raise CommandError(
                f"Nothing was paused ({redact(str(error), limit=200)}).", returncode=2
            ) from None
        if before:
            told = f"Sending was paused already, by {person(pause.actor)} {ago(pause.paused_at)}"
            reason = redact(pause.reason, limit=200)
            self.stdout.write(f"{told}: {reason}" if reason else f"{told}.")
        else:
            self.stdout.write(f"Sending is paused since {clock(pause.paused_at)}, by {actor}.")
        self.stdout.write(
            "What is in flight finishes, the rest waits. To go on: python manage.py postroom_resume"
        )
