"""
Before the doors open: the tables, six things to buy, and in development somebody who may look.

Everything here can be done again and changes nothing then. Speaks to the database in the
supervisor's process, which lets go of it each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

OPERATOR = "operator@example.com"
PASSWORD = "three-in-the-morning"  # noqa: S105 - printed on every start, in development only


class MadeByNewer(Exception):
    """The database has migrations that this code does not know."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in the outbox."""

    emails: int
    waiting: int


def database_name() -> str:
    """Name the database for people, without user and password."""
    values = settings.DATABASES["default"]
    if values["ENGINE"].endswith("sqlite3"):
        path = Path(values["NAME"])
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return f"{values['NAME']} at {values['HOST'] or 'localhost'}"


def migrate() -> bool:
    """Bring the tables up to date; return whether there were none before. Raises MadeByNewer."""
    executor = MigrationExecutor(connection)
    applied = set(MigrationRecorder(connection).applied_migrations())
    labels = {app for app, _name in executor.loader.disk_migrations}
    unknown = {key for key in applied if key[0] in labels and key not in executor.loader.disk_migrations}
    # One that was squashed away is not a newer one.
    unknown -= {key for squashed in executor.loader.replacements.values() for key in squashed.replaces}
    if unknown:
        raise MadeByNewer
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0, interactive=False)
    connection.close()
    return not applied


def seed() -> int:
    """Put the assortment on the shelves and, in development, make the operator; return how many things there are."""
    from example.shop.models import GOODS, Product

    for slug, name, description, price in GOODS:
        values = {"name": name, "description": description, "price": price}
        Product.objects.update_or_create(slug=slug, defaults=values)
    accounts = get_user_model()._default_manager
    if settings.DEBUG and not accounts.filter(email=OPERATOR).exists():
        get_user_model().objects.create_superuser(OPERATOR, PASSWORD)
    connection.close()
    return len(GOODS)


def counts() -> Counts:
    """Count the outbox."""
    from postroom.models import OutboundEmail, State

    waiting = OutboundEmail.objects.filter(state__in=[State.PENDING, State.SENDING]).count()
    found = Counts(emails=OutboundEmail.objects.count(), waiting=waiting)
    connection.close()
    return found


def in_hand(pid: int | None = None) -> list[str]:
    """Return the UUIDs of the e-mails that are being sent, by any worker or by that of process *pid*."""
    from postroom.models import OutboundEmail, State

    rows = OutboundEmail.objects.filter(state=State.SENDING)
    if pid is not None:
        rows = rows.filter(worker__endswith=f"/{pid}")
    found = [email.uuid.hex for email in rows]
    connection.close()
    return found


def became(uuids: list[str]) -> list[str]:
    """Return the states of these e-mails."""
    from postroom.models import OutboundEmail

    found = list(OutboundEmail.objects.filter(uuid__in=uuids).values_list("state", flat=True))
    connection.close()
    return found


def has_heartbeat(pid: int) -> bool:
    """Whether the worker of process *pid* has reported to the database."""
    from postroom.models import WorkerHeartbeat

    found = WorkerHeartbeat.objects.filter(pid=pid, stopped_at=None).exists()
    connection.close()
    return found
