"""Delete what was settled long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import DatabaseError, router
from django.utils import timezone

from postroom import retention
from postroom.conf import config
from postroom.failures import redact
from postroom.management.base import DatabaseCommand
from postroom.models import OutboundEmail

REPEAT: Final = "What is deleted stays so; repeat the command for the rest."


class Command(DatabaseCommand):
    """Delete settled e-mails with their history, in short transactions."""

    help = (
        "Delete e-mails that were settled RETENTION_DAYS ago, with their history. Never touches one that "
        "is still to be sent. May be stopped at any time and run at any time. Exit code: 0 done, 2 not understood, "
        "or the database refuses."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", type=float, metavar="DAYS", help="instead of RETENTION_DAYS")
        parser.add_argument(
            "--batch", type=int, default=retention.PRUNE_AT_ONCE, metavar="N", help="e-mails a transaction"
        )
        parser.add_argument("--dry-run", action="store_true", help="count, delete nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        days = config().RETENTION_DAYS if options["older_than"] is None else options["older_than"]
        before, limit = _instant(days), options["batch"]
        if limit < 1:
            raise CommandError("--batch is a number of e-mails, 1 or more.", returncode=2)
        using = router.db_for_write(OutboundEmail)
        try:
            if options["dry_run"]:
                count = retention.prunable(before=before, using=using).count()
                self.stdout.write(f"Would delete {_emails(count, days)}. Nothing was deleted.")
            else:
                deleted = retention.prune_all(before=before, limit=limit, using=using)
                self.stdout.write(f"Deleted {_emails(deleted, days)}.")
        except DatabaseError as error:
            said = redact(str(error), limit=200)
            raise CommandError(f"The database refuses ({said}). {REPEAT}", returncode=2) from None
        except KeyboardInterrupt:
            raise CommandError(f"Stopped. {REPEAT}", returncode=130) from None


def _emails(count: int, days: float) -> str:
    emails = "e-mail" if count == 1 else "e-mails"
    return f"{count} {emails} settled more than {days:g} {'day' if days == 1 else 'days'} ago"


def _instant(days: float) -> datetime:
    """Return the instant so many *days* ago; raises CommandError."""
    try:
        if days >= 0:
            return timezone.now() - timedelta(days=days)
    except (OverflowError, ValueError):
        pass
    raise CommandError(f"--older-than {days:g} is no number of days ago. Say for example 30.", returncode=2)
