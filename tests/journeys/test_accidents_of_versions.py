"""
The first version beside today's on one table: an update in which both run, in either order.

The old processes are real ones of version 0.1.0, from the wheel in ``tests/fixtures``. What has to
hold between the two of them is the table.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections import Counter
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.migrations import (
    AddField,
    AddIndex,
    AlterField,
    AlterModelOptions,
    CreateModel,
    RemoveField,
    RenameField,
    RunSQL,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import CharField, Field, Index

import postroom
from postroom.models import DeliveryEvent, State, WorkerHeartbeat
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, ROOT, Process, Stage, eventually, start
from tests.journeys.webs import start_endless_web, start_web

pytestmark = pytest.mark.timeout(240)

OLD = "0.1.0"
APPS = ("postroom", "postroom_accounts")
WHEEL = ROOT / "tests" / "fixtures" / f"django_postroom-{OLD}-py3-none-any.whl"

on_its_databases = pytest.mark.parametrize("stage", ["sqlite", "postgresql"], indirect=True)
"""The old version knew no others."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that runs the old code."""
    folder = tmp_path_factory.mktemp("old") / "a b"
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def versions_that_delivered() -> set[str]:
    """By the claims in the history and the names of the workers."""
    version = dict(WorkerHeartbeat.objects.using(ALIAS).values_list("name", "version"))
    claimed = DeliveryEvent.objects.using(ALIAS).filter(type="claimed").values_list("worker", flat=True)
    return {version[name] for name in set(claimed)}


def assert_alive_and_well(*workers: Process) -> None:
    """None has ended, and none has met an exception, which would be a statement of the other version's."""
    for worker in workers:
        assert worker.popen.poll() is None, worker.said()
        assert "Traceback" not in worker.said()
        assert "database failed" not in worker.said()


def assert_each_once(stage: Stage, promised: list[str]) -> None:
    judgement = assert_sound(stage, promised)
    assert judgement.states == {State.ACCEPTED: len(promised)}
    assert Counter(stage.provider.accepted()) == Counter(promised)


@on_its_databases
def test_old_worker_beside_a_new_one_and_a_new_web_sends_each_e_mail_once(
    stage: Stage, old: dict[str, str]
) -> None:
    """
    The table is migrated, the web is new, one of two workers is old yet. What one of them gave back
    in doubt, or after a refusal, the other one takes; then the old one is killed with some in hand.
    """
    workers = [stage.worker(**old), stage.worker()]
    web = start_endless_web(stage)
    eventually("both have delivered", lambda: len(versions_that_delivered()) == 2)
    stage.provider.mood("5xx", seconds=0.1, next=10)
    eventually("some were refused", lambda: any(call["status"] == 503 for call in stage.provider.calls()))
    stage.provider.mood("takes-it-and-drops", seconds=0.1, next=10)
    eventually("some had no answer", lambda: any(c["answered"] is False for c in stage.provider.calls()))
    assert_alive_and_well(*workers)

    workers[0].kill()
    promised = web.ended()
    eventually("everything is settled", stage.all_settled)

    assert_alive_and_well(workers[1])
    assert_each_once(stage, promised)


@on_its_databases
def test_new_worker_is_killed_and_an_old_one_takes_over(stage: Stage, old: dict[str, str]) -> None:
    """An update that is taken back: what the new code had in hand the old code must be able to rescue."""
    stage.provider.mood(seconds=120)
    promised = start_web(stage, 20).finished()
    new = stage.worker()
    eventually("the provider has some", lambda: len(stage.provider.calls()) == 8)

    new.kill()
    stage.provider.mood("instant")
    worker = stage.worker(**old)
    eventually("everything is settled", stage.all_settled)

    assert_alive_and_well(worker)
    assert_each_once(stage, promised)
    assert versions_that_delivered() == {OLD, postroom.__version__}


@on_its_databases
def test_new_worker_sends_what_an_old_web_has_promised(stage: Stage, old: dict[str, str]) -> None:
    """The workers are updated first; the old web inserts rows that know nothing of newer columns."""
    worker = stage.worker()

    promised = start_web(stage, 200, seconds=2, **old).finished()
    eventually("everything is settled", stage.all_settled)

    assert_alive_and_well(worker)
    assert_each_once(stage, promised)


@on_its_databases
def test_migrating_under_load_disturbs_neither_an_old_worker_nor_an_old_web(
    stage: Stage, old: dict[str, str]
) -> None:
    """
    The database is of the old version, and so is every process. ``migrate`` runs while e-mails come in
    and go out; then a new worker joins. Nobody is turned away, and nobody waits for long.
    """
    _begin_with(stage, old)
    old_worker = stage.worker(**old)
    web = start_endless_web(stage, **old)
    eventually("mail flows", lambda: len(stage.provider.accepted()) >= 10)

    migrate = _run(stage, ["migrate", "postroom"], {})
    assert migrate.ended() == 0, migrate.said()
    new_worker = stage.worker()
    promised = web.ended()
    eventually("everything is settled", stage.all_settled)

    assert_alive_and_well(old_worker, new_worker)
    assert_each_once(stage, promised)
    assert web.times()[-1] < 10  # on two busy cores; a table that is written anew under load takes longer
    call_command("migrate", "postroom", database=ALIAS, check_unapplied=True, verbosity=0)


def _begin_with(stage: Stage, old: dict[str, str]) -> None:
    """Let the old version make the tables of the stage."""
    connection = connections[ALIAS]
    if connection.vendor == "sqlite":
        connection.close()
        for path in stage.folder.glob("outbox.sqlite3*"):
            path.unlink()
    else:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE")
            cursor.execute("CREATE SCHEMA public")
    made = _run(stage, ["migrate", "postroom"], old)
    assert made.ended() == 0, made.said()
    assert "0002" not in made.said()


def _run(stage: Stage, arguments: list[str], environment: dict[str, str]) -> Process:
    process = start(
        stage.folder / f"command-{len(stage.processes)}.log",
        [sys.executable, "-m", "django", *arguments],
        {**stage.environment, **environment},
    )
    stage.processes.append(process)
    return process


# --- what a migration may do --------------------------------------------------------------------


def tolerated(operation: Operation, before: ProjectState, app: str) -> bool:
    """
    Whether code of the version before, which runs on while this operation does, notices nothing.

    New tables, new columns that fill themselves, indexes that are made beside the writers, and
    changes that are Django's alone. A column or a table leaves two versions after its last reader.
    """
    match operation:
        case CreateModel() | AlterModelOptions():
            return True
        case AddField():
            return operation.field.null or operation.field.has_db_default()
        case AlterField():
            was = before.models[app, operation.model_name_lower].fields[operation.name]
            return of_the_database(was) == of_the_database(operation.field)
        case _:
            return "Concurrently" in type(operation).__name__


def of_the_database(field: Field[Any, Any]) -> tuple[str, object, dict[str, object]]:
    """What the database has to do with a field; choices, for one, are Python's."""
    _, kind, arguments, options = field.deconstruct()
    return kind, arguments, {key: options[key] for key in options if key not in Field.non_db_attrs}


@pytest.mark.parametrize(
    "operation",
    [
        RemoveField("outboundemail", "reason"),
        RenameField("outboundemail", "reason", "why"),
        AddField("outboundemail", "tag", CharField(max_length=9, default="")),
        AlterField("outboundemail", "reason", CharField(max_length=9)),
        AddIndex("outboundemail", Index(fields=["reason"], name="postroom_reason")),
        RunSQL("SELECT 1"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_operation_that_the_version_before_would_notice_is_found(operation: Operation) -> None:
    state = MigrationLoader(None).project_state(("postroom", "0001_initial"))

    assert not tolerated(operation, state, "postroom")


@pytest.mark.parametrize("app", APPS)
def test_migrations_after_the_first_do_only_what_the_version_before_tolerates(app: str) -> None:
    loader = MigrationLoader(None)
    [newest] = loader.graph.leaf_nodes(app)
    wrong = []
    for key in loader.graph.forwards_plan(newest):
        if key[0] != app or key[1].startswith("0001_"):
            continue
        migration = loader.get_migration(*key)
        state = loader.project_state(key, at_end=False)
        for operation in migration.operations:
            if not tolerated(operation, state, app):
                wrong.append(f"{key[1]}: {operation.describe()}")
            operation.state_forwards(app, state)

    assert not wrong
