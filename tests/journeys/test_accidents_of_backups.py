"""A backup is restored: what it knows as waiting was sent long ago."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone

from postroom import outbox
from postroom.models import OutboundEmail, State, WorkerHeartbeat
from tests.chaos.checker import ADDRESS
from tests.journeys.stage import ALIAS, Stage, eventually
from tests.servers import postgresql_binaries

pytestmark = pytest.mark.timeout(180)

STALE_SECONDS = 4
"""Instead of six hours: the age from which a database where nobody delivered looks like a backup."""


@pytest.mark.parametrize("stage", ["sqlite", "postgresql"], indirect=True)
def test_restored_backup_sends_nothing_a_second_time(stage: Stage) -> None:
    """
    Dumped while twenty e-mails waited; they were sent; the disk died; the dump was restored hours
    later. The worker sets the twenty aside and sends what is enqueued from now on.
    """
    stage.environment["DJANGO_SETTINGS_MODULE"] = "tests.journeys.perils.site"
    delivered = [hello(number) for number in range(3)]
    settle_and_stop(stage)
    waiting = [hello(number) for number in range(20)]
    backup = dump(stage)
    settle_and_stop(stage)
    sent = stage.provider.accepted()
    assert sorted(sent) == sorted(str(email.uuid) for email in delivered + waiting)

    restore(stage, backup)
    assert unsettled() == {str(email.uuid) for email in waiting}
    eventually("the backup is old", is_old)
    worker = stage.worker(JOURNEY_STALE=str(STALE_SECONDS))
    eventually("the old ones are set aside", lambda: "set_aside emails=20" in worker.said())
    fresh = hello(99)
    eventually("what is new goes out", lambda: len(stage.provider.calls()) > len(sent))
    eventually("it is settled", lambda: unsettled() == {str(email.uuid) for email in waiting})

    assert stage.provider.accepted() == [*sent, str(fresh.uuid)]
    assert len(stage.provider.calls()) == len(sent) + 1
    aside = OutboundEmail.objects.using(ALIAS).filter(reason="stale", state=State.PENDING)
    assert {str(email.uuid) for email in aside} == {str(email.uuid) for email in waiting}
    assert not ADDRESS.search(worker.said())


def hello(number: int) -> OutboundEmail:
    return outbox.enqueue("journey.hello", {"number": number}, using=ALIAS)


def settle_and_stop(stage: Stage) -> None:
    worker = stage.worker()
    eventually("everything is settled", stage.all_settled)
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0


def unsettled() -> set[str]:
    rows = OutboundEmail.objects.using(ALIAS).filter(settled_at=None)
    return {str(uuid) for uuid in rows.values_list("uuid", flat=True)}


def is_old() -> bool:
    before = timezone.now() - timedelta(seconds=STALE_SECONDS + 1)
    beats = WorkerHeartbeat.objects.using(ALIAS)
    return (
        not beats.filter(seen_at__gte=before).exists()
        and not OutboundEmail.objects.using(ALIAS).filter(settled_at=None, due_at__gte=before).exists()
    )


def dump(stage: Stage) -> Path:
    """Write the database into a file, as an operator does."""
    target = stage.folder / "backup"
    if stage.database_url.startswith("sqlite"):
        with (
            closing(sqlite3.connect(stage.folder / "outbox.sqlite3")) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
    else:
        run_postgresql("pg_dump", "--format=custom", f"--file={target}", stage.database_url)
    return target


def restore(stage: Stage, backup: Path) -> None:
    """Put the file in the place of the database."""
    connections[ALIAS].close()
    if stage.database_url.startswith("sqlite"):
        for left in stage.folder.glob("outbox.sqlite3*"):
            left.unlink()
        shutil.copy(backup, stage.folder / "outbox.sqlite3")
    else:
        run_postgresql("pg_restore", "--clean", f"--dbname={stage.database_url}", str(backup))


def run_postgresql(program: str, *arguments: str) -> None:
    binaries = postgresql_binaries()
    assert binaries
    done = subprocess.run([binaries / program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
