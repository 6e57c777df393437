"""Ten times as much as usual, in front of the outbox and behind it."""

from __future__ import annotations

import math
import os
import signal
import sys
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connections, transaction

from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, Process, Stage, eventually, start
from tests.journeys.webs import start_web
from tests.rows import row

OLD_EMAILS = int(os.environ.get("POSTROOM_OLD_EMAILS", "20000"))
"""
How many lie about when people register and somebody prunes. For a million:
``POSTROOM_OLD_EMAILS=1000000 make test ARGS="-s tests/journeys/test_accidents_of_floods.py -k prune"``
"""

pytestmark = pytest.mark.timeout(480 + OLD_EMAILS // 1000)

PATIENCE_SECONDS = 10
"""Nobody may wait for longer; SQLite itself would give up after twenty."""


def test_burst_of_a_thousand_e_mails_from_four_processes_goes_out_once_each(stage: Stage) -> None:
    """A newsletter, a sale and a rush of registrations at one moment, while two workers run."""
    stage.provider.mood(seconds=0.02)
    for _ in range(2):
        # Nobody dies here: six processes on two cores may stand still for longer than the usual lease.
        stage.worker("--concurrency", "32", JOURNEY_LEASE="60")

    webs = [start_web(stage, 250, lane=lane) for lane in ("urgent", "normal", "normal", "bulk")]
    promised = [name for web in webs for name in web.finished()]
    eventually("everything is settled", stage.all_settled)

    judgement = assert_sound(stage, promised)
    assert (len(promised), judgement.states) == (1000, {State.ACCEPTED: 1000})
    assert Counter(stage.provider.accepted()) == Counter(promised)
    assert (judgement.calls, judgement.claims) == (1000, 1000)
    assert all("database is locked" not in process.said() for process in stage.processes)


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_people_who_register_while_old_e_mails_are_pruned_do_not_wait_for_it(stage: Stage) -> None:
    """
    On SQLite there is one writer at a time. Pruning writes in short transactions and rests in
    between, so that those who register, and the worker, get their turn.
    """
    stage.environment |= {"DJANGO_SETTINGS_MODULE": "tests.journeys.perils.people", "JOURNEY_REGISTERS": "1"}
    assert command(stage, "migrate", "--verbosity", "0").ended() == 0
    write_old_emails(OLD_EMAILS)
    worker = stage.worker()
    webs = [start_web(stage, 1_000_000, seconds=50_000) for _ in range(2)]
    eventually("people register", lambda: all(len(web.promised()) > 5 for web in webs))
    before = sum(len(web.promised()) for web in webs)

    prune = command(stage, "postroom_prune")
    assert prune.popen.wait(timeout=240 + OLD_EMAILS / 1000) == 0, prune.said()
    during = sum(len(web.promised()) for web in webs) - before
    for web in webs:
        web.process.signal(signal.SIGTERM)
    promised = [name for web in webs for name in web.finished()]
    eventually("everything is settled", stage.all_settled, seconds=60 + len(promised) / 5)

    assert f"Deleted {OLD_EMAILS} e-mails" in prune.said()
    assert during > 0
    times = sorted(time for web in webs for time in web.times())
    print(
        f"{OLD_EMAILS} pruned beside {len(times)} registrations ({during} meanwhile): median "
        f"{times[len(times) // 2]:.3f} s, p99 {times[math.ceil(len(times) * 0.99) - 1]:.3f} s, "
        f"longest {times[-1]:.3f} s"
    )
    assert times[-1] < PATIENCE_SECONDS
    assert_sound(stage, promised)
    assert Counter(stage.provider.accepted()) == Counter(promised)
    assert "database failed" not in worker.said()
    assert all("database is locked" not in process.said() for process in stage.processes)


def command(stage: Stage, *arguments: str) -> Process:
    process = start(
        stage.folder / f"command-{len(stage.processes)}.log",
        [sys.executable, "-m", "django", *arguments],
        stage.environment,
    )
    stage.processes.append(process)
    return process


def write_old_emails(count: int) -> None:
    """Write *count* e-mails that were accepted two years ago, each with its two events, by two statements."""
    model = row(State.ACCEPTED, ago=timedelta(days=730))
    with transaction.atomic(using=ALIAS), connections[ALIAS].cursor() as cursor:
        model.save(using=ALIAS, force_insert=True)
        for type_, state in ((EventType.CLAIMED, State.SENDING), (EventType.ACCEPTED, State.ACCEPTED)):
            DeliveryEvent.objects.using(ALIAS).create(
                email=model, type=type_, state=state, attempt=1, at=model.created_at
            )
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        names, copies = columns(OutboundEmail, uuid="lower(hex(randomblob(16)))")
        table = OutboundEmail._meta.db_table
        cursor.execute(f"INSERT INTO {table} ({names}) {numbers} SELECT {copies} FROM {table}, n")
        names, copies = columns(DeliveryEvent, email_id="old.id")
        events = DeliveryEvent._meta.db_table
        cursor.execute(
            f"INSERT INTO {events} ({names}) SELECT {copies} FROM {events} AS model, {table} AS old"
            f" WHERE old.id <> model.email_id"
        )
    assert OutboundEmail.objects.using(ALIAS).count() == count
    assert DeliveryEvent.objects.using(ALIAS).count() == 2 * count
    assert uuid.UUID(str(OutboundEmail.objects.using(ALIAS).latest("pk").uuid))


def columns(model: type[OutboundEmail] | type[DeliveryEvent], **instead: str) -> tuple[str, str]:
    """Return the columns of a table but its key, and what a copy of a row has in them."""
    names = [field.column for field in model._meta.concrete_fields if not field.primary_key]
    source = "model." if model is DeliveryEvent else ""
    return ", ".join(names), ", ".join(instead.get(name, f"{source}{name}") for name in names)
