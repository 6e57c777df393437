"""Delete registrations that never became accounts; for cron."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from postroom.accounts.registration import purge


class Command(BaseCommand):
    """``postroom_purge_accounts``."""

    help = (
        "Delete attempts to register seven days after their end, and the accounts that never came of "
        "them: created by registration, never confirmed, never logged in."
    )

    # Some of them ask the database, and where it is away Django 6.1 answers with a traceback.
    requires_system_checks: tuple[()] = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Purge, and say how much."""
        try:
            attempts, accounts = purge()
        except DatabaseError as error:
            reason = str(error).strip().partition("\n")[0]
            raise CommandError(
                f"The database refuses ({reason}). Repeat the command.", returncode=2
            ) from None
        self.stdout.write(f"{attempts} registrations and {accounts} unconfirmed accounts deleted.")
