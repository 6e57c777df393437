"""How delivery is doing, in numbers."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from postroom.exceptions import SettingsError
from postroom.failures import redact
from postroom.ops.numbers import Numbers, as_json, as_lines, count
from postroom.ops.patience import within
from postroom.ops.words import clock, duration

PATIENCE_SECONDS: Final = 3.5
"""Together with the start of Python the answer is there within five."""

WATCH_SECONDS: Final = 2.0

_CLEAR: Final = "\x1b[H\x1b[J"
"""Cursor home, and erase what is below."""


class Command(BaseCommand):
    """Print the numbers; exit 1 when mail is later than allowed, 2 when nobody could be asked."""

    help = (
        "Delivery in numbers: what waits, what went out, how fast, and who delivers. Reads only, prints no address. "
        "What it means is said by postroom_doctor. Exit code: 0, 1 later than --fail-if-lag-over, 2 the database "
        "cannot be asked."
    )
    # It has to answer with wrong settings and without a database.
    requires_system_checks: tuple[()] = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--watch", action="store_true", help="again every two seconds, until Ctrl-C or --fail-if-lag-over"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
        parser.add_argument(
            "--fail-if-lag-over",
            type=float,
            metavar="SECONDS",
            help="exit with 1 when the oldest due e-mail waits for longer than this",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        limit = options["fail_if_lag_over"]
        if limit is not None and not limit >= 0:
            raise CommandError("--fail-if-lag-over is a number of seconds, 0 or more.", returncode=2)
        if not options["watch"]:
            self._look(limit, as_object=options["json"], watching=False)
            return
        try:
            while True:
                self._look_again(limit, as_object=options["json"])
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            self.stdout.write("")

    def _look_again(self, limit: float | None, *, as_object: bool) -> None:
        """Whoever watches wants to see the database come back, too."""
        try:
            self._look(limit, as_object=as_object, watching=True)
        except CommandError as error:
            self.stderr.write(str(error))
            self.stderr.flush()

    def _look(self, limit: float | None, *, as_object: bool, watching: bool) -> None:
        numbers = self._ask()
        self._print(numbers, as_object=as_object, watching=watching)
        if limit is not None and numbers.facts.lag_seconds > limit:
            self._leave_late(numbers.facts.lag_seconds, limit)

    def _ask(self) -> Numbers:
        try:
            numbers = within(PATIENCE_SECONDS, count)
        except DatabaseError as error:
            said = f"{type(error).__name__}: {redact(str(error), limit=200)}"
            raise CommandError(
                f"The database cannot be asked ({said}). Ask: python manage.py postroom_doctor", returncode=2
            ) from None
        except SettingsError as error:
            raise CommandError(redact(str(error)), returncode=2) from None
        if numbers is None:
            text = f"The database does not answer within {PATIENCE_SECONDS} s."
            raise CommandError(f"{text} Ask: python manage.py postroom_doctor", returncode=2)
        return numbers

    def _print(self, numbers: Numbers, *, as_object: bool, watching: bool) -> None:
        if as_object:
            self.stdout.write(json.dumps(as_json(numbers)))
        else:
            lines = as_lines(numbers)
            if watching:
                clear = _CLEAR if self.stdout.isatty() else ""
                lines = [f"{clear}{clock(numbers.facts.now, numbers.facts.now)}", *lines]
            self.stdout.write("\n".join(lines))
        self.stdout.flush()

    def _leave_late(self, lag: float, limit: float) -> None:
        self.stderr.write(
            f"The oldest due e-mail has waited for {duration(lag)}, longer than {duration(limit)}."
        )
        self.stderr.flush()
        sys.exit(1)
