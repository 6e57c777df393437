"""
Whether the database can be written, told without writing to it.

A standby, a server that was set to read only and a file without the right to write all answer every
question: only asking for the right itself shows that nothing can be saved.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from django.db import connections
from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnly:
    """Why nothing can be written, and what to do. Names no host, user or file: a probe shows it to anybody."""

    why: str
    do: str


def read_only(alias: str) -> ReadOnly | None:
    """Return why database *alias* cannot be written; None where it can, or where nobody tells."""
    asks = {"postgresql": _postgresql, "sqlite": _sqlite, "mysql": _mysql}.get(connections[alias].vendor)
    return asks(alias) if asks else None


def _postgresql(alias: str) -> ReadOnly | None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only'), pg_is_in_recovery()")
        setting, is_standby = cursor.fetchone()
    if is_standby:
        return ReadOnly(
            why=_("The PostgreSQL server is in recovery: a standby, or a primary that still starts."),
            do=_("Let DATABASES name the primary, or promote this server."),
        )
    if setting == "on":
        return ReadOnly(
            why=_("PostgreSQL begins transactions read only (default_transaction_read_only)."),
            do=_(
                "Switch default_transaction_read_only off, for the server, the database or the role."
                " Some hosts switch it on when the disk is full: then make room first."
            ),
        )
    return None


def _mysql(alias: str) -> ReadOnly | None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT @@global.read_only, @@session.tx_read_only")
        server, session = cursor.fetchone()
    if not (server or session):
        return None
    return ReadOnly(
        why=_("The server is set to read only: a replica, or a primary that somebody closed for writing."),
        do=_("Let DATABASES name the primary, or: SET GLOBAL read_only = 0."),
    )


def _sqlite(alias: str) -> ReadOnly | None:
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA query_only")
        is_query_only = bool(cursor.fetchone()[0])
        cursor.execute("PRAGMA database_list")
        path = next((file for _seq, name, file in cursor.fetchall() if name == "main"), "")
    asked = str(connections[alias].settings_dict["NAME"])
    if is_query_only or (asked.startswith("file:") and ("mode=ro" in asked or "immutable=1" in asked)):
        return ReadOnly(
            why=_("The settings open the SQLite file for reading only."),
            do=_("Remove mode=ro, immutable=1 or PRAGMA query_only from DATABASES."),
        )
    if path and Path(path).exists() and not _may_write(path):
        return ReadOnly(
            why=_("This process may not write to the SQLite file or to its folder."),
            do=_("Give its user the right to write both (chown, chmod), or mount the disk for writing."),
        )
    return None


def _may_write(path: str) -> bool:
    """SQLite writes a journal beside the file: without the right to make one, it must be there already."""
    beside = (Path(path).parent, f"{path}-wal", f"{path}-journal")
    return os.access(path, os.W_OK) and any(os.access(other, os.W_OK) for other in beside)
