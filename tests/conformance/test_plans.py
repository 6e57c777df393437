"""
How the statements of delivery find their rows beside a million e-mails that are finished.

A temporary table of the same name stands before the real one, on all three databases: nothing of
the million is left behind, and every statement is the very one that the code writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from postroom import outbox
from postroom.models import DeliveryEvent, OutboundEmail
from postroom.statements import clock
from tests.attempts import answer, put, put_and_take, take, take_again

pytestmark = [
    pytest.mark.django_db(databases=["default", "postgres", "mariadb"]),
    pytest.mark.timeout(300),
]

EMAILS = OutboundEmail._meta.db_table
TABLES = (EMAILS, DeliveryEvent._meta.db_table)
FINISHED = 1_000_000
STATEMENTS = {
    "claim": lambda using, email: take(using, 100),
    "claim what is urgent": lambda using, email: take(using, 100, urgent_only=True),
    "claim what lost its worker": lambda using, email: take(using, 1, alone=True),
    "look whether something is due": lambda using, email: _rows(using).due(clock(using)).exists(),
    "look whether a lease ran out": lambda using, email: _rows(using).abandoned(clock(using))[:1].exists(),
    "renew": lambda using, email: outbox.renew([email], using=using),
    "take back": lambda using, email: outbox.rescue(worker="host/2", using=using),
    "doubt": lambda using, email: outbox.doubt([answer(email)], using=using),
    "accept": lambda using, email: outbox.accept([answer(email, message_id="<new@p>")], using=using),
    "note a report by its message id": lambda using, email: outbox.note(
        None, "delivered", message_id="<of-one@p>", using=using
    ),
    "look for reports that were left behind": lambda using, email: _note_and_look_for_others(using),
}


def _note_and_look_for_others(using: str) -> None:
    outbox.note(None, "delivered", message_id="<of-another@account>", using=using)
    outbox.adopt_left_behind(using)


def _rows(using: str) -> Any:
    return OutboundEmail.objects.using(using)


def test_delivery_finds_its_rows_by_an_index_among_a_million_finished(database: str) -> None:
    """Reading a million rows for each claim is how a queue dies slowly, months after it was tested."""
    with tables_of_its_own(database):
        fill(database, FINISHED, "accepted")
        for statistics in ("none", "fresh"):
            if statistics == "fresh":
                analyse(database)
            for number in range(50):
                put(database, lane=("urgent", "normal", "bulk")[number % 3])
            email = put_and_take(database)

            for name, statement in STATEMENTS.items():
                with CaptureQueriesContext(connections[database]) as queries:
                    statement(database, email)
                asked = [
                    query["sql"]
                    for query in queries
                    if EMAILS in query["sql"] and query["sql"].startswith(("SELECT", "UPDATE", "WITH"))
                ]
                assert asked, name
                for sql in asked:
                    assert not whole_reads(database, sql), f"{name}, statistics {statistics}: {sql}"


@pytest.mark.parametrize("database", ["postgres"], ids=["postgresql"])
def test_claim_takes_no_more_than_was_asked_for_when_statistics_are_wrong(database: str) -> None:
    """PostgreSQL evaluated the LIMIT of a subquery once for each row, because it believed in an empty table."""
    with tables_of_its_own(database):
        analyse(database)
        fill(database, 20_000, "pending")

        taken = [len(take(database, count)) for count in (1, 7, 100)]

        assert taken == [1, 7, 100]
        assert _rows(database).filter(state="sending").count() == 108


@contextmanager
def tables_of_its_own(database: str) -> Iterator[None]:
    """Let empty temporary tables stand before the real ones; the end of the test's transaction takes them."""
    connection = connections[database]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL temp_buffers = '512MB'")
        for table in TABLES:
            if connection.vendor == "sqlite":
                _copy_on_sqlite(cursor, table)
            elif connection.vendor == "postgresql":
                cursor.execute(f"CREATE TEMP TABLE {table} (LIKE public.{table} INCLUDING ALL)")
            else:
                cursor.execute(f"SHOW CREATE TABLE {table}")
                lines = [line for line in cursor.fetchone()[1].splitlines() if "FOREIGN KEY" not in line]
                written = "\n".join(lines).replace(",\n)", "\n)")
                cursor.execute(written.replace("CREATE TABLE", "CREATE TEMPORARY TABLE", 1))
        try:
            yield
        finally:
            if connection.vendor == "mysql":  # there they belong to the connection
                for table in TABLES:
                    cursor.execute(f"DROP TEMPORARY TABLE {table}")


def _copy_on_sqlite(cursor: Any, table: str) -> None:
    written = "SELECT sql FROM main.sqlite_master WHERE tbl_name = %s AND type = %s AND sql IS NOT NULL"
    for kind, before, after in (
        ("table", "CREATE TABLE ", "CREATE TEMP TABLE "),
        ("index", "INDEX ", "INDEX temp."),
    ):
        cursor.execute(written, [table, kind])
        for (sql,) in cursor.fetchall():
            cursor.execute(sql.replace(before, after, 1))


def fill(database: str, count: int, state: str) -> None:
    """Add *count* e-mails that are like one which went the public way."""
    email = put(database)
    if state == "accepted":
        outbox.accept([answer(take_again(email), message_id="<of-one@p>")], using=database)
    vendor = connections[database].vendor
    numbers = {
        "sqlite": f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)",
        "postgresql": f"(SELECT generate_series(1, {count}) AS n)",
        "mysql": f"(SELECT seq AS n FROM seq_1_to_{count})",
    }[vendor]
    given = {
        "uuid": {
            "sqlite": "lower(hex(randomblob(16)))",
            "postgresql": "gen_random_uuid()",
            "mysql": "uuid()",
        }[vendor],
        "message_id": "CONCAT('<', numbers.n, '@p>')" if vendor == "mysql" else "'<' || numbers.n || '@p>'",
    }
    names = [field.column for field in OutboundEmail._meta.concrete_fields if field.column != "id"]
    values = [given.get(name, f"one.{name}") for name in names]
    with connections[database].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {EMAILS} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM (SELECT * FROM {EMAILS} WHERE id = {email.pk}) AS one CROSS JOIN {numbers} AS numbers"
        )


def analyse(database: str) -> None:
    """Let the database look at the e-mails, and believe what it sees from now on."""
    with connections[database].cursor() as cursor:
        vendor = connections[database].vendor
        cursor.execute(
            {"mysql": f"ANALYZE TABLE {EMAILS}", "sqlite": "ANALYZE temp"}.get(vendor, f"ANALYZE {EMAILS}")
        )


def whole_reads(database: str, sql: str) -> list[str]:
    """Return the steps of *sql*'s plan that read all e-mails, or a whole index of them."""
    vendor = connections[database].vendor
    with connections[database].cursor() as cursor:
        cursor.execute(("EXPLAIN QUERY PLAN " if vendor == "sqlite" else "EXPLAIN ") + sql)
        steps = cursor.fetchall()
    if vendor == "sqlite":
        return [step[3] for step in steps if step[3].startswith(f"SCAN {EMAILS}")]
    if vendor == "postgresql":
        return [step[0] for step in steps if f"Seq Scan on {EMAILS}" in step[0]]
    return [str(step) for step in steps if step[2] == EMAILS and step[3] in ("ALL", "index")]
