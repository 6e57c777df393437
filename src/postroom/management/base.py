"""What every command of ours that needs the database shares: that it may be away."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from postroom.failures import redact


class DatabaseCommand(BaseCommand):
    """A command that says in one sentence, with exit code 2, that the database was away before it began."""

    def check(self, *args: Any, **options: Any) -> None:
        """
        Run the system checks.

        Some of Django's ask the database: since 6.1 that of a JSONField does before every command,
        on SQLite and MariaDB, and what it raises would be a traceback.
        """
        try:
            super().check(*args, **options)
        except DatabaseError as error:
            said = redact(str(error), limit=200)
            told = f"The database does not answer ({said}). Ask: python manage.py postroom_doctor"
            raise CommandError(told, returncode=2) from None
