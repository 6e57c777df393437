"""Delete registrations that never became accounts; for cron."""

from typing import Any

from django.core.management.base import BaseCommand

from postroom.accounts.registration import purge


class Command(BaseCommand):
    """``postroom_purge_accounts``."""

    help = (
        "Delete attempts to register seven days after their end, and the accounts that never came of "
        "them: created by registration, never confirmed, never logged in."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Purge, and say how much."""
        attempts, accounts = purge()
        self.stdout.write(f"{attempts} registrations and {accounts} unconfirmed accounts deleted.")
