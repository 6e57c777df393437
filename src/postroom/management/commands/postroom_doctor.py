"""Is mail going out, and if not, what to do: one verdict in words."""

from __future__ import annotations

import sys
from typing import Any, Final

from django.core.management.base import BaseCommand

from postroom import ops
from postroom.ops.terminal import as_text

PATIENCE_SECONDS: Final = 3.5
"""Together with the start of Python the answer is there within five."""

EXIT_CODES: Final = {ops.Level.OK: 0, ops.Level.LATE: 1, ops.Level.STOPPED: 2}


class Command(BaseCommand):
    """Print the diagnosis; exit 0 OK, 1 LATE, 2 STOPPED."""

    help = (
        "Is mail going out, and if not, what to do? Reads only, answers within 5 seconds whatever hangs, "
        "prints no address and no key. Exit code: 0 OK, 1 LATE, 2 STOPPED."
    )
    # It has to answer with wrong settings and without a database.
    requires_system_checks: tuple[()] = ()
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        diagnosis = ops.diagnose_within(PATIENCE_SECONDS)
        self.stdout.write(as_text(diagnosis))
        if code := EXIT_CODES[diagnosis.level]:
            self.stdout.flush()
            sys.exit(code)
