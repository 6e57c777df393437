"""
The statements that the outbox needs beyond the ORM: a clock, a claim, an UPDATE that says whom it met.

Hides what differs between databases. PostgreSQL and SQLite (3.35 or newer) both know
``WITH … UPDATE … FROM … RETURNING``, so one form serves both. MariaDB and MySQL do not: there the
rows are locked first, changed by key and read again, inside one transaction. That form stands at
the end.

What differs from row to row travels as one JSON parameter, which the database reads as a table.
The ORM's ways, a CASE for each column and a parameter for each value, take three times the time
(590 against 180 µs a mail for claim and settle, PostgreSQL, 2026-11).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from django.db import OperationalError, connections, transaction
from django.db.models import AutoField, Case, DateTimeField, Field, Func, Model, Q, Value, When
from django.db.models.expressions import Col, RawSQL
from django.db.models.functions import Now
from django.db.models.sql import UpdateQuery
from django.utils import timezone

from postroom.models import OutboundEmail, OutboundEmailQuerySet, State

logger = logging.getLogger("postroom")

NEEDS_NO_QUOTING = re.compile(r"[a-z_]*")
"""Words that are their own SQL literal on every database."""


class _UtcTimestamp(Func):
    """
    MariaDB's and MySQL's clock in UTC, whatever the zone of the server or of the session.

    ``CURRENT_TIMESTAMP``, Django's ``Now()``, is in the zone of the session: at +06:00 every
    e-mail would be due, and every lease over, six hours too early.
    """

    template = "UTC_TIMESTAMP(6)"
    output_field = DateTimeField()


def clock(using: str) -> Any:
    """
    Return the time by which leases and due dates are judged; ``clock(using) + timedelta`` works.

    On PostgreSQL its ``STATEMENT_TIMESTAMP()``, so that hosts whose clocks differ agree; never
    ``now()``, which stands still for a whole transaction. On MariaDB its ``UTC_TIMESTAMP(6)``,
    unless the settings keep instants there in another zone. SQLite is one host: this process's clock.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        return Now()
    if connection.vendor == "mysql" and connection.timezone_name == "UTC":
        return _UtcTimestamp()
    return timezone.now()


@dataclass(frozen=True, slots=True)
class Tick:
    """The ``clock`` of a server at the moment of an ``insert``, and *later*; ``Tick() + timedelta`` works."""

    later: timedelta = timedelta()

    def __add__(self, more: timedelta) -> Tick:
        return Tick(self.later + more)


def clock_for_insert(using: str) -> Tick | datetime:
    """Return what ``clock`` does, in a form that ``insert`` does not compile anew for each row."""
    instant = clock(using)
    return instant if isinstance(instant, datetime) else Tick()


def clock_now(using: str) -> datetime:
    """
    Return what ``clock(using)`` says now, for what Python has to decide: a host may be an hour wrong.

    One question to a server; on SQLite none.
    """
    instant = clock(using)
    if isinstance(instant, datetime):
        return instant
    asked = "UTC_TIMESTAMP(6)" if isinstance(instant, _UtcTimestamp) else "STATEMENT_TIMESTAMP()"
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT {asked}")
        said: datetime = cursor.fetchone()[0]
    return said if said.tzinfo else said.replace(tzinfo=UTC)


def locked(rows: OutboundEmailQuerySet) -> OutboundEmailQuerySet:
    """Return *rows* as a queryset that locks what it reads; on PostgreSQL events may still point at them."""
    return rows.select_for_update(no_key=connections[rows.db].features.has_select_for_no_key_update)


def lock_before_events(email_ids: Iterable[int], using: str) -> None:
    """
    On MariaDB lock these e-mails, whose events the transaction is about to write before it locks them.

    There the foreign key of an event takes a shared lock on the e-mail. Two transactions that both
    have it and then want the e-mail for themselves wait for each other: a deadlock. Elsewhere nothing
    is done: PostgreSQL's two locks bear each other, and SQLite's writers stand in a queue.
    """
    if _lacks_returning(using):
        emails = OutboundEmail.objects.using(using).filter(pk__in=list(email_ids))
        list(emails.select_for_update().order_by("pk").values_list("pk"))


def claim_rows(due: OutboundEmailQuerySet, values: Mapping[str, Any]) -> list[OutboundEmail]:
    """
    Change the rows of *due* (ordered, limited) to *values* in one statement and return them.

    Two callers never get the same row: PostgreSQL locks what it picks and skips what is locked,
    SQLite has one writer. MATERIALIZED keeps the planner from evaluating the LIMIT twice and
    so from taking more rows than asked for. Must run inside ``atomic()``.
    """
    using = due.db
    if _lacks_returning(using):
        return _claim_by_key(due, values)
    picking = due.select_for_update(skip_locked=True).values("id")
    due_sql, due_params = picking.query.get_compiler(using=using).as_sql()
    picked = OutboundEmail.objects.using(using).filter(pk__in=RawSQL("SELECT due.id FROM due", ()))
    sql, params = _update_sql(picked, values)
    statement = f"WITH due AS MATERIALIZED ({due_sql}) {sql} RETURNING *"
    return list(OutboundEmail.objects.using(using).raw(statement, (*due_params, *params)))


class Given:
    """
    New values for rows that are named by primary key, each row with its own.

    *rows* maps a primary key to its values, the same names for all. With *claims* (claim id by
    primary key) only those rows match that are still SENDING under that very claim.
    """

    def __init__(
        self,
        rows: Mapping[int, Mapping[str, Any]],
        using: str,
        *,
        claims: Mapping[int, UUID | None] | None = None,
    ) -> None:
        self._rows, self._using, self._claims = rows, using, claims
        self._same, self._varying = _split(list(rows.values()) or [{}])

    def columns(self) -> dict[str, Any]:
        """Return the assignments: an expression for each column."""
        same = {name: Value(value, output_field=_field(name)) for name, value in self._same.items()}
        if _lacks_returning(self._using):
            return {**same, **{name: self._case(name) for name in self._varying}}
        return same | {name: Col("given", _field(name)) for name in self._varying}

    def update(self, guard: OutboundEmailQuerySet, values: Mapping[str, Any]) -> set[int]:
        """Change those of the rows that *guard* lets through to *values*; return their primary keys."""
        if not self._rows:
            return set()
        if _lacks_returning(self._using):
            named = guard.filter(self._fence() if self._claims else Q(pk__in=list(self._rows)))
            still = Q(claim_id__in=set(self._claims.values())) if self._claims else Q()
            return _update_by_key(named, values, still)
        sql, params = _update_sql(guard.filter(self._match()), values)
        # No assignment of ours holds a subquery, so the first WHERE is that of the UPDATE.
        assignments, where, guards = sql.partition(" WHERE ")
        before = assignments.count("%s")
        table, given = self._table()
        returned = f'"{OutboundEmail._meta.db_table}"."id"'
        with connections[self._using].cursor() as cursor:
            cursor.execute(
                f"{assignments} FROM {table}{where}{guards} RETURNING {returned}",
                (*params[:before], given, *params[before:]),
            )
            return {row[0] for row in cursor.fetchall()}

    def _match(self) -> Q:
        """The condition that joins the table with what is given."""
        named = Q(pk=Col("given", _field("id")))
        if self._claims:
            named &= Q(state=State.SENDING, claim_id=Col("given", _field("claim_id")))
        return named

    def _table(self) -> tuple[str, str]:
        fields = {name: _field(name) for name in ("id", *self._varying)}
        rows: list[dict[str, Any]] = [
            {"id": pk, **{name: values[name] for name in self._varying}} for pk, values in self._rows.items()
        ]
        if self._claims:
            fields["claim_id"] = _field("claim_id")
            for row in rows:
                row["claim_id"] = self._claims[row["id"]]
        return _json_table(fields, rows, self._using)

    def _case(self, name: str) -> Case:
        field = _field(name)
        whens = [
            When(pk=pk, then=Value(values[name], output_field=field)) for pk, values in self._rows.items()
        ]
        return Case(*whens, output_field=field)

    def _fence(self) -> Q:
        by_claim: dict[Any, list[int]] = {}
        for pk, claim_id in (self._claims or {}).items():
            by_claim.setdefault(claim_id, []).append(pk)
        held = Q(pk__in=[])
        for claim_id, pks in by_claim.items():
            held |= Q(pk__in=pks, claim_id=claim_id)
        return Q(state=State.SENDING) & held


def insert(
    model: type[Model], rows: Sequence[Mapping[str, Any]], using: str, **expressions: Any
) -> list[Any]:
    """
    Write a row of *model* for each of *rows* by one INSERT and return their primary keys, in that order.

    *rows* hold values by the name of the attribute, the same names for all; *expressions*, instants
    by ``clock_for_insert`` or any other, are the same for all rows. What neither names gets the
    model's default, if that is no function.
    """
    if _lacks_returning(using):
        instants = {name: _expression(value, using) for name, value in expressions.items()}
        made = [model(**row, **instants) for row in rows]
        return [row.pk for row in model._default_manager.using(using).bulk_create(made)]
    same, varying = _split(rows)
    columns, values, params = _columns_of(model, same, varying, expressions, using)
    source, given = _source(model, rows, varying, values, using)
    statement = f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) {source} RETURNING id'
    with transaction.mark_for_rollback_on_error(using), connections[using].cursor() as cursor:
        cursor.execute(statement, [*params, *given])
        return [pk for (pk,) in cursor.fetchall()]


def _columns_of(
    model: type[Model],
    same: Mapping[str, Any],
    varying: Sequence[str],
    expressions: Mapping[str, Any],
    using: str,
) -> tuple[list[str], list[str], list[Any]]:
    """Return the columns of an INSERT, what is written into each, and the parameters of that."""
    connection, fields = connections[using], _fields_of(model)
    names, constants, defaults = _the_rest(model, using, frozenset((*same, *varying, *expressions)))
    columns, values, params = [*names], [*constants], [*defaults]
    for name, value in same.items():
        columns.append(f'"{fields[name].column}"')
        values.append("%s")
        params.append(fields[name].get_db_prep_save(value, connection=connection))
    for name, expression in expressions.items():
        sql, more = _compiled(expression, using)
        columns.append(f'"{fields[name].column}"')
        values.append(sql)
        params.extend(more)
    columns += [f'"{fields[name].column}"' for name in varying]
    values += [f'given."{name}"' for name in varying]
    return columns, values, params


def _source(
    model: type[Model],
    rows: Sequence[Mapping[str, Any]],
    varying: Sequence[str],
    values: Sequence[str],
    using: str,
) -> tuple[str, list[Any]]:
    """Return where the rows of an INSERT come from, and the parameter in it."""
    written = ", ".join(values)
    if len(rows) == 1:
        return f"VALUES ({written})", []
    fields = _fields_of(model)
    numbered = [{"n": n, **{name: row[name] for name in varying}} for n, row in enumerate(rows)]
    typed = {"n": _field("id"), **{name: fields[name] for name in varying}}
    table, given = _json_table(typed, numbered, using)
    return f'SELECT {written} FROM {table} ORDER BY given."n"', [given]  # noqa: S608 - names of columns


def _split(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return what all *rows* have in common, and the names of what they do not."""
    first, *others = rows
    if not others:
        return dict(first), []
    same = {name: value for name, value in first.items() if all(row[name] == value for row in others)}
    return same, [name for name in first if name not in same]


@cache
def _fields_of(model: type[Model]) -> dict[str, Field[Any, Any]]:
    """Return the fields of the columns that are written, by attribute."""
    return {field.attname: field for field in model._meta.concrete_fields if not isinstance(field, AutoField)}


@cache
def _the_rest(
    model: type[Model], using: str, given: frozenset[str]
) -> tuple[list[str], list[str], list[Any]]:
    """
    Return what an INSERT that names *given* writes besides: columns, their defaults as SQL, its parameters.

    Columns that stay NULL are left out, and what needs no quoting stands in the statement itself:
    each parameter costs a microsecond or two, and an e-mail has twenty that are always the same.
    """
    columns: list[str] = []
    constants: list[str] = []
    params: list[Any] = []
    for name, field in _fields_of(model).items():
        default = None if name in given else field.get_default()
        if default is None:
            continue
        value = field.get_db_prep_save(default, connection=connections[using])
        columns.append(f'"{field.column}"')
        if isinstance(value, int) and not isinstance(value, bool):
            constants.append(f"{value:d}")
        elif isinstance(value, str) and NEEDS_NO_QUOTING.fullmatch(value):
            constants.append(f"'{value!s}'")
        else:
            constants.append("%s")
            params.append(value)
    return columns, constants, params


def _compiled(expression: Any, using: str) -> tuple[str, Sequence[Any]]:
    if isinstance(expression, Tick):
        return _compiled_tick(expression, using)
    if not hasattr(expression, "resolve_expression"):
        return "%s", [connections[using].ops.adapt_datetimefield_value(expression)]
    query = OutboundEmail.objects.using(using).query
    sql, params = query.get_compiler(using=using).compile(expression.resolve_expression(query))
    return sql, params


@lru_cache(maxsize=256)  # as many as a site has different lives of e-mails, which may be any number
def _compiled_tick(tick: Tick, using: str) -> tuple[str, Sequence[Any]]:
    return _compiled(_expression(tick, using), using)


def _expression(value: Any, using: str) -> Any:
    if not isinstance(value, Tick):
        return value
    return clock(using) + value.later if value.later else clock(using)


def _json_table(
    fields: Mapping[str, Field[Any, Any]], rows: Sequence[Mapping[str, Any]], using: str
) -> tuple[str, str]:
    """
    Return *rows* as a table named ``given`` for a FROM clause, and the one parameter in it.

    *fields* gives each column its type. PostgreSQL and SQLite.
    """
    connection = connections[using]
    adapt = connection.ops.adapt_datetimefield_value

    def plain(value: Any) -> Any:
        if isinstance(value, UUID):
            return value.hex
        if isinstance(value, datetime):
            return str(adapt(value))
        raise TypeError(f"{type(value).__name__} is nothing that a column of ours holds")

    given = json.dumps(rows, default=plain)
    if connection.vendor == "postgresql":
        types = ", ".join(f'"{name}" {field.rel_db_type(connection)}' for name, field in fields.items())
        return f"json_to_recordset(%s::json) AS given({types})", given
    picked = ", ".join(f"json_extract(value, '$.{name}') AS \"{name}\"" for name in fields)
    return f"(SELECT {picked} FROM json_each(%s)) AS given", given  # noqa: S608 - names of columns


def _field(name: str) -> Field[Any, Any]:
    return OutboundEmail._meta.get_field(name)  # type: ignore[return-value] # a column, no relation


def _update_sql(rows: OutboundEmailQuerySet, values: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    query: UpdateQuery = rows.query.chain(UpdateQuery)  # type: ignore[assignment]
    query.add_update_values(dict(values))
    sql, params = query.get_compiler(using=rows.db).as_sql()
    return sql, tuple(params)


# --- MariaDB and MySQL: no UPDATE … RETURNING ---------------------------------------------------


def _lacks_returning(using: str) -> bool:
    return connections[using].vendor == "mysql"


def _claim_by_key(due: OutboundEmailQuerySet, values: Mapping[str, Any]) -> list[OutboundEmail]:
    """Lock what is due and free, change it, read it: what the locks hold nobody else changes in between."""
    keys = _lock(due, by="PRIMARY, postroom_claim", skip_locked=True)
    return list(_change(keys, values, due.db)) if keys else []


def _update_by_key(rows: OutboundEmailQuerySet, values: Mapping[str, Any], still: Q) -> set[int]:
    """
    Lock the rows that match now and change them.

    The lock waits for whoever is at a row and then reads what he committed, at every isolation
    level; so a row that he took out of the guard is neither changed nor reported. That it holds until
    the change is not only believed: *still* is asked once more by the UPDATE itself.
    """
    with transaction.atomic(using=rows.db):
        keys = _lock(rows.order_by("pk"), by="PRIMARY")
        if keys:
            _change(keys, values, rows.db, still)
    return set(keys)


def _lock(rows: OutboundEmailQuerySet, *, by: str, skip_locked: bool = False) -> list[int]:
    """
    Lock *rows*, found by one of the indexes *by*, and return their primary keys.

    InnoDB locks what it reads on the way, not only what it finds. By the wrong index, which statistics
    may suggest, a worker would wait at rows of others or hold a whole backlog to sort it.
    """
    using = rows.db
    locking = rows.select_for_update(skip_locked=skip_locked).values("pk")
    sql, params = locking.query.get_compiler(using=using).as_sql()
    table = f" FROM {connections[using].ops.quote_name(OutboundEmail._meta.db_table)} "
    with connections[using].cursor() as cursor:
        cursor.execute(sql.replace(table, f"{table}FORCE INDEX ({by}) ", 1), params)
        return [row[0] for row in cursor.fetchall()]


def _change(
    keys: Sequence[int], values: Mapping[str, Any], using: str, still: Q | None = None
) -> OutboundEmailQuerySet:
    """Change the rows that are locked; raises OperationalError, and nothing is written, where one is not *still* so."""
    rows = OutboundEmail.objects.using(using).filter(pk__in=keys)
    # From left to right, and each assignment sees those before it: what looks at columns comes first.
    ordered = sorted(values, key=lambda name: not hasattr(values[name], "resolve_expression"))
    changed = rows.filter(still or Q()).update(**{name: values[name] for name in ordered})
    if changed != len(keys):
        lost = f"{len(keys) - changed} of {len(keys)} locked rows were changed by somebody else"
        logger.error("lock_lost %s: nothing of it is written, and it is tried again", lost)
        raise OperationalError(lost)
    return rows
