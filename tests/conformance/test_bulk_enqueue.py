"""Thousands of promises at once: all or none, each a row like any other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from postroom import composing, doorbell, outbox
from postroom.composing import composer
from postroom.exceptions import ArgumentsNotJSON
from postroom.models import Lane, OutboundEmail
from tests.attempts import put, table, take

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of this test's own, so that its kinds end with it."""
    monkeypatch.setattr(composing, "_composers", dict(composing._composers))


def newsletter(number: int, name: str = "") -> EmailMessage:
    return EmailMessage("News", f"{number} {name}", to=[f"person{number}@example.com"])


def rows_of(database: str) -> list[OutboundEmail]:
    return list(OutboundEmail.objects.using(database).order_by("pk"))


def test_thousands_are_one_insert(database: str) -> None:
    with CaptureQueriesContext(connections[database]) as queries:
        names = outbox.bulk_enqueue("tests.letter", ({"number": n} for n in range(2000)), using=database)

    inserts = [query for query in queries if query["sql"].startswith("INSERT")]
    # MariaDB is not told in JSON, so its INSERTs are as long as the ORM makes them.
    assert len(inserts) == 1 or database == "mariadb"
    assert [row.uuid for row in rows_of(database)] == names
    assert [row.args for row in rows_of(database)] == [{"number": n} for n in range(2000)]


def test_each_is_a_row_like_any_other(database: str) -> None:
    """Column by column what ``enqueue`` writes."""
    instant = timezone.now() + timedelta(days=1)
    options: dict[str, Any] = {"lane": "bulk", "expires_at": instant, "on_uncertain": "repeat"}
    with translation.override("de"), timezone.override("Asia/Dhaka"):
        single = table(outbox.enqueue("tests.letter", {"n": "ä"}, using=database, **options))
        outbox.bulk_enqueue("tests.letter", [{"n": "ä"}, {"n": "\\ \" ' 😀 %s"}], using=database, **options)

    _, *many = rows_of(database)
    for row in many:
        for field in OutboundEmail._meta.concrete_fields:
            if field.name not in {"id", "uuid", "args", "created_at", "due_at"}:
                assert getattr(row, field.name) == getattr(single, field.name), field.name
        assert abs(row.due_at - single.due_at) < timedelta(minutes=1)
    assert [row.args["n"] for row in many] == ["ä", "\\ \" ' 😀 %s"]
    assert len({row.uuid for row in many}) == 2


def test_they_are_claimed_after_what_is_urgent_and_normal(database: str) -> None:
    outbox.bulk_enqueue("tests.letter", [{}, {}], using=database)
    late = put(database)

    assert take(database)[0] == late
    assert {row.lane for row in take(database, 10)} == {Lane.BULK}


def test_rollback_leaves_none_of_them(database: str) -> None:
    with transaction.atomic(using=database):
        outbox.bulk_enqueue("tests.letter", [{}] * 3, using=database)
        transaction.set_rollback(True, using=database)

    assert rows_of(database) == []


def test_one_that_cannot_be_stored_is_none_at_all(database: str) -> None:
    """Half a newsletter is worse than none: nobody knows which half."""
    made = composer("tests.newsletter")(newsletter).using(using=database)

    def arguments() -> Iterator[dict[str, Any]]:
        yield from ({"number": n} for n in range(3))
        yield {"number": object()}

    with pytest.raises(ArgumentsNotJSON, match="number"):
        made.bulk_enqueue(arguments())

    assert rows_of(database) == []


def test_nothing_to_enqueue_is_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", rung.append)

    assert outbox.bulk_enqueue("tests.letter", [], using=database) == []

    assert rung == []


@pytest.mark.django_db(databases=["default", "postgres", "mariadb"], transaction=True)
def test_bell_rings_once_for_all(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", rung.append)
    monkeypatch.setattr(outbox, "BULK_ROWS", 2)

    outbox.bulk_enqueue("tests.letter", [{}] * 5, using=database)

    assert rung == [database]
    assert len(rows_of(database)) == 5


@pytest.mark.parametrize(
    ("declared", "chosen", "lane"),
    [
        ("normal", {}, Lane.BULK),
        ("urgent", {}, Lane.URGENT),
        ("normal", {"lane": "normal"}, Lane.NORMAL),
    ],
)
def test_lane_is_bulk_unless_somebody_chose(
    database: str, declared: str, chosen: dict[str, Any], lane: Lane
) -> None:
    made = composer("tests.newsletter", lane=declared)(newsletter).using(using=database, **chosen)

    made.bulk_enqueue([{"number": 1}])

    assert [row.lane for row in rows_of(database)] == [lane]
