"""
Whether somebody keeps the workers from the tables, and who: asked of the database before anything else.

A lock on a whole table (D20) makes workers look dead, because they cannot write their heartbeats, and
SKIP LOCKED steps over locked rows in silence (D21). Nothing is changed: what is locked for the question
is let go at once.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from django.db import DatabaseError, OperationalError, connections, transaction
from django.utils.translation import gettext as _

from postroom.failures import redact
from postroom.models import DeliveryEvent, OutboundEmail, Pause, WorkerHeartbeat
from postroom.ops.facts import Lock
from postroom.ops.words import duration

TABLES: Final = tuple(
    model._meta.db_table for model in (OutboundEmail, DeliveryEvent, WorkerHeartbeat, Pause)
)
"""Whoever locks one of these, locks the workers out."""

LONG_SECONDS: Final = 2.0
"""A migration, or a batch of somebody's, may hold a lock for a moment."""

SQLITE_SECONDS: Final = 1.5
"""A batch of ours keeps the write lock for about a twentieth of a second."""

LOOKED_AT: Final = 50
"""So many due e-mails are looked at for locks, those that go first."""

AGAIN_SECONDS: Final = 0.2
"""A claim locks its rows for milliseconds; what is locked at two looks is locked by somebody else."""


# --- whole tables -------------------------------------------------------------------------------


def table_lock(alias: str) -> Lock | None:
    """Return who has kept the workers from the tables of database *alias* for a while; None: nobody."""
    asks = {"postgresql": _postgresql, "sqlite": _sqlite, "mysql": _mysql}.get(connections[alias].vendor)
    return asks(alias) if asks else None


_HOLDERS = """
    SELECT a.pid, a.usename, a.application_name, l.mode, l.relation::regclass::text, a.state,
           extract(epoch FROM clock_timestamp() - a.state_change), left(a.query, 120)
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.relation IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
      AND l.granted AND a.pid <> pg_backend_pid() AND l.mode = ANY(%s)
"""
_FOR_LONG = """
    AND (clock_timestamp() - a.xact_start > %s * interval '1 second'
         OR EXISTS (SELECT 1 FROM pg_locks w WHERE w.relation = l.relation AND NOT w.granted
                    AND w.waitstart < clock_timestamp() - %s * interval '1 second'))
"""
"""By its own age, or, for a role that may not see that, by how long others have waited for it."""

_KEEP_OUT: Final = ["AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"]
_OF_ROWS: Final = ["RowShareLock", "RowExclusiveLock"]


def holders(alias: str) -> Lock | None:
    """Return who locks the tables now, however long: for whoever has waited in vain already."""
    if connections[alias].vendor != "postgresql":
        return None
    try:
        return _told(_ask_postgresql(alias, _HOLDERS, [list(TABLES), _KEEP_OUT]))
    except DatabaseError:
        return None


def _postgresql(alias: str) -> Lock | None:
    return _told(
        _ask_postgresql(alias, _HOLDERS + _FOR_LONG, [list(TABLES), _KEEP_OUT, LONG_SECONDS, LONG_SECONDS])
    )


def _ask_postgresql(alias: str, sql: str, params: list[Any]) -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"{sql} ORDER BY a.xact_start NULLS LAST, a.pid LIMIT 3", params)
        return list(cursor.fetchall())


def _told(rows: Sequence[tuple[Any, ...]]) -> Lock | None:
    """Say who it is; what a role without pg_monitor is not shown, is left out."""
    if not rows:
        return None
    why = []
    for pid, user, program, mode, table, state, seconds, query in rows:
        doing = _(", {state} for {time}").format(state=state, time=duration(float(seconds))) if state else ""
        who = _("session {pid} ({program}, user {user}{doing})").format(
            pid=pid, program=program or "?", user=user or "?", doing=doing
        )
        why.append(_("{who} holds {mode} on {table}.").format(who=_capital(who), mode=mode, table=table))
        if state:
            why.append(_("Its last statement: {statement}").format(statement=redact(query)))
        else:
            why.append(_("More is shown to a role that is a member of pg_monitor."))
    pids = dict.fromkeys(row[0] for row in rows)
    return Lock(
        why=tuple(dict.fromkeys(why)),
        do=tuple(
            _("SELECT pg_terminate_backend({pid});     (rolls its transaction back)").format(pid=pid)
            for pid in pids
        ),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sqlite(alias: str) -> Lock | None:
    """Ask for the one write lock, on a connection of one's own, and let it go."""
    connection = connections[alias]
    path = Path(str(connection.settings_dict["NAME"]))
    if connection.in_atomic_block or not path.is_file():  # it would be ourselves; in memory nobody else is
        return None
    try:
        with closing(sqlite3.connect(path, timeout=SQLITE_SECONDS, isolation_level=None)) as own:
            own.execute("BEGIN IMMEDIATE")
            own.execute("ROLLBACK")
        return None
    except sqlite3.DatabaseError as error:
        if "locked" not in str(error):
            return None  # a file that cannot be written is another trouble
    pids = sorted(set(_holders_of_file(path)))
    if os.getpid() in pids:
        return None
    told = _("Somebody has kept the write lock of {name} for more than {time}.")
    who = [_("It is pid {pid}: {command}.").format(pid=pid, command=_command(pid)) for pid in pids]
    return Lock(
        why=(told.format(name=path.name, time=duration(SQLITE_SECONDS)), *who),
        do=tuple(f"kill {pid}" for pid in pids) or (f"fuser -v {path.name}*",),
    )


_WAL_WRITE_LOCK, _RESERVED_BYTE, _PENDING_BYTE = 120, 0x40000001, 0x40000000
"""The bytes that a writer locks, in the -shm file or in the file itself (sqlite.org/walformat, /lockingv3, 2026-11)."""


def _holders_of_file(path: Path) -> Iterator[int]:
    """Yield the processes of this host that have the write lock, as Linux tells them; nothing elsewhere."""
    wanted = {}
    for file, bytes_ in ((path, (_RESERVED_BYTE, _PENDING_BYTE)), (Path(f"{path}-shm"), (_WAL_WRITE_LOCK,))):
        if file.exists():
            wanted[file.stat().st_ino] = bytes_
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) != 8 or words[3] != "WRITE" or not words[4].isdecimal():
            continue  # also "->": one that waits
        inode, first, last = int(words[5].rpartition(":")[2]), int(words[6]), words[7]
        end = float("inf") if last == "EOF" else int(last)
        if any(first <= byte <= end for byte in wanted.get(inode, ())):
            yield int(words[4])


def _command(pid: int) -> str:
    """The program and its first words, without folders; no options, which may hold secrets."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        return "?"
    shown = [Path(word).name for word in words[:4] if word and not word.startswith("-") and "=" not in word]
    return redact(" ".join(shown[:3]), limit=80) or "?"


def _mysql(alias: str) -> Lock | None:
    """Ask for the lock that a claim needs, of no row at all, for the second that is the shortest wait there."""
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT @@session.lock_wait_timeout")
            before = cursor.fetchone()[0]
            cursor.execute("SET SESSION lock_wait_timeout = 1")
            try:
                cursor.execute(f"SELECT 1 FROM {', '.join(TABLES)} WHERE 1 = 0 FOR UPDATE")  # noqa: S608
                cursor.fetchall()
            finally:
                cursor.execute("SET SESSION lock_wait_timeout = %s", [before])
    except OperationalError as error:
        if error.args[:1] != (1205,):
            raise
    else:
        return None
    return _told_mysql(alias)


_MARIADB_HOLDERS = """
    SELECT DISTINCT l.thread_id, p.user, p.command, p.time
    FROM information_schema.metadata_lock_info l
    JOIN information_schema.processlist p ON p.id = l.thread_id
    WHERE l.table_schema = DATABASE() AND l.table_name IN %s AND l.thread_id <> CONNECTION_ID()
      AND l.lock_mode NOT IN ('MDL_SHARED', 'MDL_SHARED_READ', 'MDL_SHARED_WRITE', 'MDL_INTENTION_EXCLUSIVE')
"""
_MYSQL_HOLDERS = """
    SELECT DISTINCT t.processlist_id, t.processlist_user, t.processlist_command, t.processlist_time
    FROM performance_schema.metadata_locks l
    JOIN performance_schema.threads t ON t.thread_id = l.owner_thread_id
    WHERE l.object_schema = DATABASE() AND l.object_name IN %s AND t.processlist_id <> CONNECTION_ID()
      AND l.lock_status = 'GRANTED' AND l.lock_type NOT IN ('SHARED', 'SHARED_READ', 'SHARED_WRITE')
"""


def _told_mysql(alias: str) -> Lock:
    for sql in (_MARIADB_HOLDERS, _MYSQL_HOLDERS):
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(sql, [TABLES])
                rows = cursor.fetchall()
        except DatabaseError:
            continue  # no such plugin, or not allowed to look
        if rows:
            text = _(
                "Session {pid} (user {user}, {command} for {time}) holds a lock on a table of the outbox."
            )
            return Lock(
                why=tuple(
                    text.format(pid=pid, user=user, command=command, time=duration(float(seconds or 0)))
                    for pid, user, command, seconds in rows
                ),
                do=tuple(f"KILL {row[0]};" for row in rows),
            )
    return Lock(
        why=(
            _("Somebody holds a lock on a table of the outbox; the server does not tell us who."),
            _("It tells after: INSTALL SONAME 'metadata_lock_info' (MariaDB), GRANT PROCESS ON *.*"),
        ),
        do=("SHOW FULL PROCESSLIST;",),
    )


# --- rows ---------------------------------------------------------------------------------------


def stepped_over(alias: str, overdue: Any) -> tuple[int, Lock | None]:
    """
    Return how many e-mails that have been due since *overdue* somebody keeps locked, and who may it be.

    Of the LOOKED_AT that go first. SQLite has no locks of rows.
    """
    if not connections[alias].features.has_select_for_update_skip_locked:
        return 0, None
    locked = _locked_rows(alias, overdue)
    if locked:
        time.sleep(AGAIN_SECONDS)
        locked &= _locked_rows(alias, overdue)
    return len(locked), _suspects(alias) if locked else None


def _locked_rows(alias: str, overdue: Any) -> set[int]:
    due = OutboundEmail.objects.using(alias).due(overdue).order_by("lane", "due_at")
    pks = set(due.values_list("pk", flat=True)[:LOOKED_AT])
    with transaction.atomic(using=alias):
        # By primary key alone: InnoDB locks what it reads on the way, not only what it finds.
        rows = OutboundEmail.objects.using(alias).filter(pk__in=pks)
        free = set(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
        transaction.set_rollback(True, using=alias)
    still_due = OutboundEmail.objects.using(alias).due(overdue).filter(pk__in=pks - free)
    return set(still_due.values_list("pk", flat=True))


_TRANSACTIONS = """
    SELECT t.trx_mysql_thread_id, p.user, p.command, timestampdiff(SECOND, t.trx_started, now())
    FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
    WHERE t.trx_rows_locked > 0 AND p.id <> CONNECTION_ID() AND p.db = DATABASE()
      AND t.trx_started < now() - INTERVAL 2 SECOND
    ORDER BY t.trx_started LIMIT 3
"""


def _suspects(alias: str) -> Lock | None:
    """Return the transactions that have had rows of the outbox in hand for long: one of them it is."""
    try:
        if connections[alias].vendor == "postgresql":
            return _told(
                _ask_postgresql(
                    alias, _HOLDERS + _FOR_LONG, [[TABLES[0]], _OF_ROWS, LONG_SECONDS, LONG_SECONDS]
                )
            )
        with connections[alias].cursor() as cursor:
            cursor.execute(_TRANSACTIONS)
            rows = cursor.fetchall()
    except DatabaseError:
        return None
    text = _(
        "Session {pid} (user {user}, {command}) has a transaction open for {time} and holds locks of rows."
    )
    why = [
        text.format(pid=pid, user=user, command=command, time=duration(float(seconds)))
        for pid, user, command, seconds in rows
    ]
    return Lock(why=tuple(why), do=tuple(f"KILL {row[0]};" for row in rows)) if rows else None
