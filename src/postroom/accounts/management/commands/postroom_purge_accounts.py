"""Delete registrations that never became accounts; for cron."""

from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from postroom.accounts.registration import purge

REPEAT: Final = "What is deleted stays so; repeat the command for the rest."


class Command(BaseCommand):
    """``postroom_purge_accounts``."""

    help = (
        "Delete attempts to register seven days after their end, and the accounts that never came of "
        "them: created by registration, never confirmed, never logged in. May be stopped at any time and run at "
        "any time. Exit code: 0 done, 2 the database refuses."
    )

    # Some of them ask the database, and where it is away Django 6.1 answers with a traceback.
    requires_system_checks: tuple[()] = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Purge, and say how much."""
        try:
            attempts, accounts = purge()
        except DatabaseError as error:
            # Only the first line: PostgreSQL quotes the values of a row in the next one.
            said = str(error).strip().partition("\n")[0]
            raise CommandError(f"The database refuses ({said}). {REPEAT}", returncode=2) from None
        except KeyboardInterrupt:
            raise CommandError(f"Stopped. {REPEAT}", returncode=130) from None
        self.stdout.write(
            f"Deleted {_of(attempts, 'registration')} and {_of(accounts, 'unconfirmed account')}."
        )


def _of(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
