"""
The statements that the outbox needs beyond the ORM: a clock, a claim, an UPDATE that says whom it met.

Hides what differs between databases. PostgreSQL and SQLite (3.35 or newer) both know
``WITH … UPDATE … RETURNING``, so one form serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connections
from django.db.models import Case, Field, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Now
from django.db.models.sql import UpdateQuery
from django.utils import timezone

from postroom.models import OutboundEmail, OutboundEmailQuerySet


def clock(using: str) -> Any:
    """
    Return the time by which leases and due dates are judged; ``clock(using) + timedelta`` works.

    On PostgreSQL its ``STATEMENT_TIMESTAMP()``, so that hosts whose clocks differ agree; never
    ``now()``, which stands still for a whole transaction. SQLite is one host: this process's clock.
    """
    return Now() if connections[using].vendor == "postgresql" else timezone.now()


def claim_rows(due: OutboundEmailQuerySet, values: Mapping[str, Any]) -> list[OutboundEmail]:
    """
    Change the rows of *due* (ordered, limited) to *values* in one statement and return them.

    Two callers never get the same row: PostgreSQL locks what it picks and skips what is locked,
    SQLite has one writer. MATERIALIZED keeps the planner from evaluating the LIMIT twice and
    so from taking more rows than asked for. Must run inside ``atomic()``.
    """
    using = due.db
    locked = due.select_for_update(skip_locked=True).values("id")
    due_sql, due_params = locked.query.get_compiler(using=using).as_sql()
    picked = OutboundEmail.objects.using(using).filter(pk__in=RawSQL("SELECT due.id FROM due", ()))
    sql, params = _update_sql(picked, values)
    statement = f"WITH due AS MATERIALIZED ({due_sql}) {sql} RETURNING *"
    return list(OutboundEmail.objects.using(using).raw(statement, (*due_params, *params)))


def update_returning(rows: OutboundEmailQuerySet, values: Mapping[str, Any]) -> set[int]:
    """Change the rows that still match, in one statement, and return their primary keys."""
    sql, params = _update_sql(rows, values)
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"{sql} RETURNING id", params)
        return {row[0] for row in cursor.fetchall()}


def columns(names: Iterable[str], rows: Mapping[int, Mapping[str, Any]], using: str) -> dict[str, Any]:
    """
    Return assignments that give each row its own value of each column in *names*.

    *rows* maps a primary key to its values. A column whose value is the same for all rows is
    assigned plainly; the others become a CASE, which PostgreSQL wants to be told the type of.
    """
    return {name: _by_row(name, {pk: values[name] for pk, values in rows.items()}, using) for name in names}


def _by_row(name: str, values: Mapping[int, Any], using: str) -> Any:
    distinct = list(values.values())
    if all(value == distinct[0] for value in distinct):
        return distinct[0]
    field: Field[Any, Any] = OutboundEmail._meta.get_field(name)  # type: ignore[assignment] # a column, no relation
    whens = [When(pk=pk, then=Value(value, output_field=field)) for pk, value in values.items()]
    case = Case(*whens, output_field=field)
    return (
        Cast(case, output_field=field)
        if connections[using].features.requires_casted_case_in_updates
        else case
    )


def _update_sql(rows: OutboundEmailQuerySet, values: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    query: UpdateQuery = rows.query.chain(UpdateQuery)  # type: ignore[assignment]
    query.add_update_values(dict(values))
    sql, params = query.get_compiler(using=rows.db).as_sql()
    return sql, tuple(params)
