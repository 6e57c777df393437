"""What happens to the mail when something happens to its database, while workers are at work on it."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from postroom import outbox
from postroom.models import OutboundEmail, State
from tests import servers
from tests.chaos.checker import Judgement, judge, read
from tests.conftest import _lacking
from tests.journeys.feed import Feed, beside
from tests.journeys.stage import ALIAS, Process, Stage, eventually, set_stage

pytestmark = pytest.mark.timeout(240)

CONNECTIONS = 30
"""So few does the server of these journeys take: the last one is soon reached."""


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A server that may be stopped, for nobody else uses it."""
    try:
        with getattr(servers, request.param)(max_connections=CONNECTIONS) as running:
            yield running
    except servers.ServerMissing as missing:
        _lacking(missing)


@pytest.fixture
def stage(
    server: servers.PostgreSQL | servers.MariaDB, scratch: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Stage]:
    """A stage on that server, which the journey before may have left as it fell."""
    if not server.answers():
        server.start()
    with django_db_blocker.unblock(), set_stage(scratch, server.create_database()) as prepared:
        yield prepared


def promise(letters: int) -> frozenset[str]:
    """Enqueue so many and return their UUIDs."""
    return frozenset(
        str(outbox.enqueue("journey.hello", {"number": number}, using=ALIAS).uuid)
        for number in range(letters)
    )


def judged(stage: Stage, acknowledged: frozenset[str], **known: Any) -> Judgement:
    """Let the provider's log judge, and fail with every broken promise."""
    logs = {process.log.name: process.said() for process in stage.processes}
    known = {"logs": logs, **known}
    judgement = judge(read(ALIAS, stage.provider.calls(), acknowledged=acknowledged, **known))
    judgement.assert_sound()
    return judgement


def assert_alive(*workers: Process) -> None:
    """No worker may end of what its database does."""
    for worker in workers:
        assert worker.popen.poll() is None, worker.said()


def failures(worker: Process) -> int:
    """How often the worker has met a database that was away."""
    return worker.said().count("database failed=")


def have_noticed(workers: list[Process], before: list[int]) -> bool:
    """Whether each has met a database that was away since it had met it so often *before*."""
    assert_alive(*workers)
    return all(failures(worker) > count for worker, count in zip(workers, before, strict=True))


def all_answered(stage: Stage) -> bool:
    """Whether the provider has answered every call."""
    return all(call["answered"] for call in stage.provider.calls())


def in_flight(stage: Stage, count: int) -> None:
    """Wait until the provider has been asked for so many."""
    eventually(f"{count} are in flight", lambda: len(stage.provider.calls()) >= count)


def end_connections_of_others() -> int:
    """End every connection to the database of the stage but this test's own; return how many there were."""
    own = connections[ALIAS]
    with own.cursor() as cursor:
        if own.vendor == "postgresql":
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return len(cursor.fetchall())
        cursor.execute(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        found = [row[0] for row in cursor.fetchall()]
        for number in found:
            try:
                cursor.execute(f"KILL {number}")
            except Error:  # it went by itself
                pass
        return len(found)


@pytest.mark.parametrize("how", ["shut down", "killed"])
def test_server_that_is_restarted_under_load(stage: Stage, server: servers.Server, how: str) -> None:
    """
    Twice the server goes away for as long as it takes both workers to notice, with e-mails in every
    stage of their way and people who go on asking. What was committed is sent, once.
    """
    signals = {
        "postgres": {"shut down": "INT", "killed": "QUIT"},
        "mysql": {"shut down": "TERM", "killed": "KILL"},
    }
    stage.provider.mood("no-reports", seconds=0.3)
    workers = [stage.worker(), stage.worker()]
    feed = Feed(letters=100, seconds=5, seed=7)

    with beside(feed.run, feed.over):
        for _ in range(2):
            in_flight(stage, len(stage.provider.calls()) + 20)
            before = [failures(worker) for worker in workers]
            server.stop(signals[server.scheme][how])
            eventually("both have noticed", lambda before=before: have_noticed(workers, before))
            server.start()
        in_flight(stage, len(stage.provider.calls()) + 20)
    connections[ALIAS].close()
    eventually("everything is settled", stage.all_settled)

    found = judged(stage, frozenset(feed.acknowledged), attempted=frozenset(feed.attempted))
    assert found.states == {State.ACCEPTED: found.taken}
    assert found.promised > 60
    assert found.twice == 0
    assert_alive(*workers)


def test_connections_cut_between_the_answer_and_its_writing(stage: Stage) -> None:
    """
    The provider has taken eight e-mails and said so; the worker is writing that down when an
    administrator ends its connections. It has not forgotten: nobody is asked a second time.
    """
    # Time enough to lock the rows on a busy machine, too, before the first answer is written.
    stage.provider.mood("no-reports", seconds=6)
    promised = promise(8)
    worker = stage.worker(JOURNEY_LEASE="60")
    in_flight(stage, 8)
    with transaction.atomic(using=ALIAS):
        list(OutboundEmail.objects.using(ALIAS).select_for_update())
        eventually("all answers were heard", lambda: all_answered(stage))
        eventually("the worker writes", waits_for_a_lock)

        assert end_connections_of_others() >= 1
        eventually("the worker has noticed", lambda: failures(worker))
    eventually("everything is settled", stage.all_settled)

    found = judged(stage, promised)
    assert (found.calls, found.claims, found.in_doubt) == (8, 8, 0)
    assert found.states == {State.ACCEPTED: 8}
    assert_alive(worker)


def waits_for_a_lock() -> bool:
    """Whether somebody waits for what this test's transaction holds."""
    own = connections[ALIAS]
    with own.cursor() as cursor:
        if own.vendor == "postgresql":
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        else:
            # Not innodb_trx: it shows what was true when nobody had asked for a tenth of a second.
            cursor.execute(
                "SELECT CAST(variable_value AS INTEGER) FROM information_schema.global_status"
                " WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
            )
        return bool(cursor.fetchone()[0])


class Crowd:
    """Everybody else who uses the server: takes every connection that is free, and keeps it."""

    def __init__(self) -> None:
        self._values = connections[ALIAS].settings_dict
        self._held: list[Any] = []

    def press_in(self) -> None:
        """Take what is free now."""
        import psycopg
        import pymysql

        with suppress(psycopg.Error, pymysql.Error):
            while True:
                self._held.append(self._connect())

    def leave(self) -> None:
        """Let go."""
        for one in self._held:
            one.close()
        self._held.clear()

    def _connect(self) -> Any:
        """Not to the database of the stage: nobody ends these."""
        import psycopg
        import pymysql

        at = {"host": self._values["HOST"], "port": self._values["PORT"], "user": self._values["USER"]}
        if connections[ALIAS].vendor == "mysql":
            return pymysql.connect(**at, connect_timeout=5)
        return psycopg.connect(**at, dbname="postgres", connect_timeout=5)


def test_no_connection_is_left_when_the_worker_wants_one_again(stage: Stage) -> None:
    """
    Its connections are cut with eight sends in flight, and others are quicker to take the free places.
    It waits with eight answers in its memory, and writes them as soon as a place is free.
    """
    stage.provider.mood("no-reports", seconds=2)
    promised = promise(24)
    worker = stage.worker(JOURNEY_LEASE="60")
    in_flight(stage, 8)
    crowd = Crowd()
    try:

        def crowded_out() -> bool:
            end_connections_of_others()
            crowd.press_in()
            return failures(worker) >= 3

        eventually("no place is left for the worker", crowded_out)
        eventually("all answers were heard", lambda: all_answered(stage))
    finally:
        crowd.leave()
    eventually("everything is settled", stage.all_settled)

    found = judged(stage, promised)
    assert (found.calls, found.claims, found.in_doubt) == (24, 24, 0)
    assert found.states == {State.ACCEPTED: 24}
    assert_alive(worker)


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_database_that_takes_no_writes_between_the_answer_and_its_writing(
    stage: Stage, server: servers.PostgreSQL
) -> None:
    """
    A failover: for a while every connection is read only. The provider knows no keys here, so an
    answer that was forgotten would leave its e-mail uncertain for ever.
    """
    stage.provider.mood("no-reports", seconds=6)
    promised = promise(8)
    worker = stage.worker(JOURNEY_LEASE="60", JOURNEY_KEYS="off")
    in_flight(stage, 8)

    let_write("off")
    eventually("all answers were heard", lambda: all_answered(stage))
    eventually("the worker has noticed", lambda: failures(worker) >= 2)
    let_write("on")
    eventually("everything is settled", stage.all_settled)

    found = judged(stage, promised, keyed=False)
    assert (found.calls, found.claims, found.in_doubt) == (8, 8, 0)
    assert found.states == {State.ACCEPTED: 8}
    assert_alive(worker)


def let_write(answer: str) -> None:
    """Let those who connect to the stage's database from now on write there, or not."""
    with connections[ALIAS].cursor() as cursor:
        name = connections[ALIAS].settings_dict["NAME"]
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = {'off' if answer == 'on' else 'on'}"
        )
    end_connections_of_others()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_workers_with_a_strict_isolation_level_share_one_table(stage: Stage, level: str) -> None:
    """
    A site chose the level for its own reasons. Then the database may refuse what two workers do at
    once; they try again, and neither sends what the other has.
    """
    stage.provider.mood("no-reports", seconds=0.01)
    workers = [stage.worker(JOURNEY_ISOLATION=level, JOURNEY_LEASE="10") for _ in range(2)]
    feed = Feed(letters=200, seconds=4, seed=8)

    with beside(feed.run, feed.over):
        in_flight(stage, 100)
    eventually("everything is settled", stage.all_settled)

    found = judged(stage, frozenset(feed.acknowledged), attempted=frozenset(feed.attempted))
    assert found.states == {State.ACCEPTED: found.promised}
    assert found.twice == 0
    assert_alive(*workers)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_deadlock_costs_a_worker_one_more_try_and_nothing_else(stage: Stage) -> None:
    """
    Somebody has changed a thousand old rows and wants one more, which the worker has; the worker
    wants what he has. InnoDB lets the smaller transaction lose, and that is the worker's.
    """
    stage.provider.mood("no-reports", seconds=4)
    now = timezone.now()
    done = {"state": State.ACCEPTED, "attempt": 1, "accepted_at": now, "settled_at": now}
    times = {"created_at": now, "due_at": now, "expires_at": now + timedelta(days=7)}
    old = [OutboundEmail(kind="journey.hello", **done, **times) for _ in range(1000)]
    OutboundEmail.objects.using(ALIAS).bulk_create(old)
    worker = stage.worker(JOURNEY_LEASE="30")
    before, promised = deadlocks(), frozenset[str]()

    # Once is enough, but it takes two rows that are written together, and that is the worker's to choose.
    while deadlocks() == before and len(promised) < 80:
        promised |= promise(8)
        in_flight(stage, len(promised))
        with transaction.atomic(using=ALIAS):
            old_rows = OutboundEmail.objects.using(ALIAS).filter(pk__in=[email.pk for email in old])
            old_rows.update(reason="looked at")
            clash(stage)
        eventually("everything is settled", stage.all_settled)

    assert deadlocks() == before + 1
    assert failures(worker) == 1
    assert sorted(call["email"] for call in stage.provider.calls()) == sorted(promised)
    assert promised | {str(email.uuid) for email in old} == stage.emails().keys()
    assert_alive(worker)


def clash(stage: Stage) -> None:
    """Hold the last row that the worker wants; then, when it waits for that one, want the first that it has."""
    in_hand = OutboundEmail.objects.using(ALIAS).filter(state=State.SENDING).order_by("pk")
    pks = list(in_hand.values_list("pk", flat=True))
    *others, last = pks or [0]
    if not others or not in_hand.select_for_update(skip_locked=True).filter(pk=last):
        return  # this machine was too slow
    with somebody_else() as cursor:
        # Until all answers are there, so that they are written together.
        cursor.execute("BEGIN")
        free = "SELECT id FROM postroom_outboundemail WHERE id IN %s AND state = 'sending' FOR UPDATE SKIP LOCKED"
        if cursor.execute(free, [others]) < len(others):
            return  # the same, a moment later: some are being written
        eventually("all answers were heard", lambda: all_answered(stage))
        cursor.execute("COMMIT")

        def first_that_it_has() -> int:
            if not waits_for_a_lock():
                return 0
            cursor.execute(
                "SELECT id FROM postroom_outboundemail WHERE id IN %s FOR UPDATE SKIP LOCKED", [others]
            )
            free = {row[0] for row in cursor.fetchall()}
            return next((pk for pk in others if pk not in free), -1)

        wanted = eventually("the worker waits for the last row", first_that_it_has)
    OutboundEmail.objects.using(ALIAS).filter(pk=wanted).update(language="en")


@contextmanager
def somebody_else() -> Iterator[Any]:
    """Another connection to the MariaDB of the stage; each statement commits itself unless it says BEGIN."""
    import pymysql

    values = connections[ALIAS].settings_dict
    at = {"host": values["HOST"], "port": values["PORT"], "user": values["USER"]}
    with pymysql.connect(**at, database=values["NAME"], autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield cursor


def deadlocks() -> int:
    """How many there were on this server."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(cursor.fetchone()[1])


class Disk:
    """A disk of two megabytes: a real one where this may be mounted, else a limit to what a process may write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        self.is_real = (
            os.geteuid() == 0 and not subprocess.run(command, check=False, capture_output=True).returncode
        )

    def fill(self, worker: Process) -> None:
        """Leave no room for *worker*."""
        if not self.is_real:
            resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))

    def clear(self, worker: Process) -> None:
        """Make room again."""
        if not self.is_real:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(worker.popen.pid, resource.RLIMIT_FSIZE, unlimited)
            return
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        """Take it away."""
        if self.is_real:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def test_disk_that_is_full(scratch: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """
    SQLite has no room for a page more while eight sends are in flight. The worker keeps what the
    provider said until there is room again; nobody is asked a second time.
    """
    (scratch / "disk").mkdir()
    disk = Disk(scratch / "disk")
    try:
        url = f"sqlite://{scratch / 'disk' / 'outbox.sqlite3'}"
        with django_db_blocker.unblock(), set_stage(scratch, url) as stage:
            stage.provider.mood("no-reports", seconds=2)
            promised = promise(24)
            worker = stage.worker(JOURNEY_LEASE="60")
            in_flight(stage, 8)

            disk.fill(worker)
            eventually("all answers were heard", lambda: all_answered(stage))
            eventually("the worker has noticed", lambda: failures(worker) >= 3)
            disk.clear(worker)
            eventually("everything is settled", stage.all_settled)

            found = judged(stage, promised)
            assert (found.calls, found.claims, found.in_doubt) == (24, 24, 0)
            assert found.states == {State.ACCEPTED: 24}
            assert_alive(worker)
    finally:
        disk.close()
