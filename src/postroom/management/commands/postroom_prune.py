"""Delete what was settled long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import router
from django.utils import timezone

from postroom import retention
from postroom.conf import config
from postroom.models import OutboundEmail


class Command(BaseCommand):
    """Delete settled e-mails with their history, in short transactions."""

    help = (
        "Delete e-mails that were settled RETENTION_DAYS ago, with their history. Never touches one that "
        "is still to be sent. May be stopped at any time and run at any time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than", type=float, metavar="DAYS", help="instead of RETENTION_DAYS")
        parser.add_argument(
            "--batch", type=int, default=retention.PRUNE_AT_ONCE, metavar="N", help="e-mails a transaction"
        )
        parser.add_argument("--dry-run", action="store_true", help="count, delete nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        days = config().RETENTION_DAYS if options["older_than"] is None else options["older_than"]
        if days < 0 or options["batch"] < 1:
            raise CommandError("--older-than is a number of days, --batch a number of e-mails.")
        using, before = router.db_for_write(OutboundEmail), timezone.now() - timedelta(days=days)
        if options["dry_run"]:
            count = retention.prunable(before=before, using=using).count()
            self.stdout.write(
                f"{count} e-mails were settled more than {days:g} days ago. Nothing was deleted."
            )
            return
        deleted = retention.prune_all(before=before, limit=options["batch"], using=using)
        self.stdout.write(f"Deleted {deleted} e-mails that were settled more than {days:g} days ago.")
