"""
Somebody's lock: told before anything else, with who it is, where the database tells.

A lock makes workers look dead, because they cannot write their heartbeats: an operator who reads
"no delivery process" starts one after the other, and each of them waits as well.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from postroom import ops
from postroom.models import OutboundEmail
from postroom.ops import Diagnosis, Level, locks
from postroom.ops.terminal import as_text
from tests.journeys.stage import eventually
from tests.operations import MINUTE, beat, saved
from tests.operator.commands import manage

DATABASES = [name for name in ("default", "postgres", "mariadb") if name in settings.DATABASES]
pytestmark = pytest.mark.django_db(databases=DATABASES, transaction=True)

needs_postgres = pytest.mark.skipif("postgres" not in DATABASES, reason="needs PostgreSQL")
needs_mariadb = pytest.mark.skipif("mariadb" not in DATABASES, reason="needs MariaDB")


@contextmanager
def session(alias: str, *statements: str) -> Iterator[int]:
    """Another session that has executed *statements* in a transaction and then went for coffee; its number."""
    other: Any = connections.create_connection(alias)
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT " + ("pg_backend_pid()" if alias == "postgres" else "CONNECTION_ID()"))
            number = int(cursor.fetchone()[0])
            for statement in statements:
                cursor.execute(statement)
        yield number
    finally:
        other.rollback()
        if alias == "mariadb":
            with other.cursor() as cursor:
                cursor.execute("UNLOCK TABLES")
        other.close()


def flat(diagnosis: Diagnosis) -> str:
    """The diagnosis as a terminal shows it, on one line."""
    return " ".join(as_text(diagnosis).split())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock counts as one that stays after a tenth of a second."""
    monkeypatch.setattr(locks, "LONG_SECONDS", 0.1)


# --- PostgreSQL ---------------------------------------------------------------------------------


@needs_postgres
@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE"])
@pytest.mark.parametrize("table", ["postroom_outboundemail", "postroom_workerheartbeat"])
def test_a_lock_on_postgresql_is_told_instead_of_dead_workers(mode: str, table: str) -> None:
    """SHARE is what CREATE INDEX takes: everything can be read, nothing can be written."""
    with session("postgres", f"LOCK TABLE {table} IN {mode} MODE") as pid:
        diagnosis = eventually(
            "D20", lambda: found if (found := ops.diagnose("postgres")).code == "D20" else None
        )

        text = flat(diagnosis)
        assert diagnosis.level == Level.STOPPED
        assert text.startswith("STOPPED The tables of the outbox are locked by somebody else.")
        assert f"Session {pid} (" in text
        assert f"Lock on {table}." in text
        assert f"SELECT pg_terminate_backend({pid});" in text
        assert "D10" not in text

    assert ops.diagnose("postgres").code == "D10"


@needs_postgres
def test_a_lock_that_is_held_for_a_moment_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration or a TRUNCATE takes one, too."""
    monkeypatch.setattr(locks, "LONG_SECONDS", 60.0)
    beat(using="postgres")

    with session("postgres", "LOCK TABLE postroom_outboundemail IN EXCLUSIVE MODE"):
        assert ops.diagnose("postgres").code == "OK"


@needs_postgres
def test_a_role_that_may_not_see_others_is_told_what_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pg_monitor the state, the age and the statement of another role's session are NULL."""
    with connections["postgres"].cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS clerk")
        cursor.execute("CREATE ROLE clerk LOGIN")
        cursor.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
    ours = connections["postgres"]
    try:
        with session("postgres", "LOCK TABLE postroom_outboundemail IN ACCESS EXCLUSIVE MODE") as pid:
            ours.close()
            monkeypatch.setitem(ours.settings_dict, "USER", "clerk")

            text = flat(ops.diagnose("postgres"))  # not shown its age: told after waiting in vain

            assert "locked by somebody else" in text
            assert f"Session {pid} (" in text
            assert "member of pg_monitor" in text
            assert f"pg_terminate_backend({pid})" in text
    finally:
        monkeypatch.undo()
        ours.close()
        with ours.cursor() as cursor:
            cursor.execute("DROP OWNED BY clerk")
            cursor.execute("DROP ROLE clerk")


# --- MariaDB ------------------------------------------------------------------------------------


@needs_mariadb
def test_a_lock_on_mariadb_is_told_with_how_to_learn_whose_it_is() -> None:
    with session("mariadb", "LOCK TABLES postroom_outboundemail WRITE"):
        diagnosis = ops.diagnose("mariadb")  # which would wait for a day by MariaDB's own settings

        text = flat(diagnosis)
        assert (diagnosis.code, diagnosis.level) == ("D20", Level.STOPPED)
        assert "INSTALL SONAME 'metadata_lock_info'" in text
        assert "SHOW FULL PROCESSLIST;" in text

    assert ops.diagnose("mariadb").code == "D10"


@needs_mariadb
def test_a_lock_on_mariadb_is_told_with_the_session_where_the_server_tells() -> None:
    with connections["mariadb"].cursor() as cursor:
        try:
            cursor.execute("INSTALL SONAME 'metadata_lock_info'")
        except DatabaseError as error:
            pytest.skip(f"This MariaDB has no plugin metadata_lock_info: {error}")
    try:
        with session("mariadb", "LOCK TABLES postroom_workerheartbeat READ") as number:
            text = flat(ops.diagnose("mariadb"))

            assert f"Session {number} (user root" in text
            assert f"KILL {number};" in text
    finally:
        with connections["mariadb"].cursor() as cursor:
            cursor.execute("UNINSTALL SONAME 'metadata_lock_info'")


@needs_mariadb
def test_a_look_leaves_the_patience_of_the_connection_as_it_was() -> None:
    with connections["mariadb"].cursor() as cursor:
        cursor.execute("SET SESSION lock_wait_timeout = 77")

    ops.diagnose("mariadb")

    with connections["mariadb"].cursor() as cursor:
        cursor.execute("SELECT @@session.lock_wait_timeout")
        assert cursor.fetchone()[0] == 77


# --- SQLite -------------------------------------------------------------------------------------

_HOLD = """
import sqlite3, sys
own = sqlite3.connect(sys.argv[1], isolation_level=None)
own.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def writer(path: Path, folder: Path) -> Iterator[int]:
    """A process that began to write and does not end."""
    script = folder / "nightly_import.py"
    script.write_text(_HOLD)
    with subprocess.Popen(
        [sys.executable, str(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process.pid
        finally:
            process.communicate()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_writer_that_does_not_end_on_sqlite_is_told_with_its_pid(scratch: Path, journal: str) -> None:
    path = scratch / "shop.sqlite3"
    options = {"init_command": f"PRAGMA journal_mode={journal}"}
    site = f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(path)!r}, 'OPTIONS': {options}}}}}"
    assert manage("migrate", settings=site, folder=scratch)[0] == 0

    with writer(path, scratch) as pid:
        code, text, _seconds = manage("postroom_doctor", settings=site, folder=scratch)

        assert code == 2
        assert "locked by somebody else" in text.splitlines()[0]
        assert "  D20  " in text.splitlines()[0]
        assert "Somebody has kept the write lock of shop.sqlite3 for more than" in text
        if Path("/proc/locks").exists():
            assert f"It is pid {pid}: " in text
            assert "nightly_import.py" in text
            assert f"kill {pid}" in text

    code, text, _seconds = manage("postroom_doctor", settings=site, folder=scratch)
    assert "  D10  " in text.splitlines()[0]


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [name for name in DATABASES if name != "default"])
def test_due_emails_that_somebody_keeps_locked_are_told(alias: str) -> None:
    """SKIP LOCKED steps over them in silence: workers turn, nothing fails, and they wait for ever."""
    beat(using=alias)
    first, _other = saved(ago=MINUTE, using=alias), saved(ago=MINUTE, using=alias)
    chosen = f"SELECT id FROM postroom_outboundemail WHERE id = {first.pk} FOR UPDATE"

    with session(alias, chosen) as number:
        diagnosis = eventually("D21", lambda: found if (found := ops.diagnose(alias)).code == "D21" else None)

        text = flat(diagnosis)
        assert diagnosis.level == Level.LATE
        assert "1 due e-mail is locked by somebody else and is stepped over." in text
        if alias == "postgres":
            assert f"Session {number} (" in text
            assert f"pg_terminate_backend({number})" in text
            assert "FOR UPDATE" in text

    assert ops.diagnose(alias).code == "D41"


@pytest.mark.parametrize("alias", [name for name in DATABASES if name != "default"])
def test_what_a_worker_has_in_its_hands_is_not_somebodys_lock(alias: str) -> None:
    """A claim locks its rows until it commits; that is no reason to wake anybody."""
    beat(using=alias)
    saved(ago=MINUTE, using=alias)
    facts = ops.diagnose(alias).facts

    assert facts is not None
    assert facts.stepped_over == 0
    with transaction.atomic(using=alias):
        # The look locks nothing beyond itself: whoever comes next gets all of them.
        rows = OutboundEmail.objects.using(alias).due(timezone.now()).select_for_update(nowait=True)
        assert len(rows) == 1
