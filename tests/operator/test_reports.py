"""A webhook of 500 reports: one transaction, a number of statements that does not grow, and no deadlock."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from postroom import outbox, reports
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.reports import Report, note_all
from tests.attempts import NO_ANSWER, answer, put_and_take, table
from tests.journeys.stage import eventually

DATABASES = [name for name in ("default", "postgres", "mariadb") if name in settings.DATABASES]
ALL = ["default", "postgres", "mariadb"]
pytestmark = pytest.mark.django_db(databases=ALL)


def accepted(database: str) -> OutboundEmail:
    email = put_and_take(database)
    outbox.accept([answer(email, message_id=f"<{email.pk}@provider>")], using=database)
    return table(email)


def delivered(email: OutboundEmail, **more: Any) -> Report:
    values = {"type": EventType.DELIVERED, "uuid": email.uuid, "dedupe_key": f"{email.uuid}"}
    return Report(**{**values, **more})


def test_the_number_of_statements_does_not_grow_with_the_list(database: str) -> None:
    """Nine statements and a transaction for each of 500 reports took seconds; Brevo hangs up, and repeats."""
    costs = []
    for n in (3, 150):
        emails = [accepted(database) for _n in range(n)]
        lines = [delivered(email) for email in emails[: n // 3]]
        lines += [delivered(e, uuid=None, message_id=e.message_id) for e in emails[n // 3 : 2 * n // 3]]
        lines += [delivered(e, uuid=None, message_id=f"<{e.pk}@nobody>") for e in emails[2 * n // 3 :]]
        with CaptureQueriesContext(connections[database]) as queries:
            assert note_all(lines, using=database) == n
        costs.append(len(queries))
        reported = OutboundEmail.objects.using(database).filter(pk__in=[email.pk for email in emails])
        assert reported.filter(report=EventType.DELIVERED).count() == 2 * n // 3

    assert costs[0] == costs[1] <= 20


def test_a_list_ends_like_its_reports_one_by_one(database: str) -> None:
    """In doubt, accepted, in hand and unknown; twice the same, and the strongest first."""

    def told(row: OutboundEmail) -> list[tuple[Any, ...]]:
        events = row.events.using(database).filter(occurred_at__isnull=False).order_by("pk")
        return list(events.values_list("type", "state", "attempt", "detail"))

    def play(one_by_one: bool) -> list[tuple[Any, ...]]:
        emails = [accepted(database), put_and_take(database), put_and_take(database, keyed=False)]
        outbox.doubt([answer(emails[2], NO_ANSWER)], using=database)
        said = [
            delivered(email, type=type_, dedupe_key=f"{email.uuid} {type_}", detail=str(type_))
            for email in emails
            for type_ in (EventType.BOUNCED, EventType.DELIVERED, EventType.UNKNOWN, EventType.BOUNCED)
        ]
        if one_by_one:
            for line in said:
                outbox.note(
                    OutboundEmail.objects.using(database).get(uuid=line.uuid),
                    line.type,
                    detail=line.detail,
                    dedupe_key=line.dedupe_key,
                    using=database,
                )
        else:
            assert note_all(said, using=database) == 9
        return [
            (row.state, row.report, row.report_rank, row.uncertain_since, bool(row.accepted_at), told(row))
            for row in (table(email) for email in emails)
        ]

    assert play(one_by_one=False) == play(one_by_one=True)


def test_what_is_known_already_is_written_once_and_told_once(database: str) -> None:
    email = accepted(database)

    assert note_all([delivered(email), delivered(email)], using=database) == 1
    assert note_all([delivered(email)], using=database) == 0
    assert note_all([], using=database) == 0

    assert DeliveryEvent.objects.using(database).filter(type=EventType.DELIVERED).count() == 1


def test_a_report_that_came_first_is_adopted_by_its_acceptance(database: str) -> None:
    email = put_and_take(database)
    note_all([delivered(email, uuid=None, message_id="<early@provider>")], using=database)

    outbox.accept([answer(email, message_id="<early@provider>")], using=database)

    assert (table(email).state, table(email).report) == (State.ACCEPTED, EventType.DELIVERED)


@pytest.mark.django_db(databases=ALL, transaction=True)
@pytest.mark.parametrize("alias", [name for name in DATABASES if name != "default"])
def test_a_list_never_waits_for_one_email_while_it_holds_another(alias: str) -> None:
    """
    A worker settles a hundred e-mails in an order of its own while the reports about them come in:
    each would wait for what the other has, until the database kills one of them.
    """
    first, second = accepted(alias), accepted(alias)
    done: list[int] = []

    def webhook() -> None:
        try:
            done.append(note_all([delivered(first), delivered(second)], using=alias))
        finally:
            connections.close_all()

    thread = threading.Thread(target=webhook)
    rows = OutboundEmail.objects.using(alias).select_for_update()
    with transaction.atomic(using=alias):
        rows.get(pk=second.pk)
        thread.start()
        # It has written what it could, and waits for the second with empty hands.
        eventually("the first is reported", lambda: _reported(alias, first.pk))
        rows.get(pk=first.pk)
        assert not done
    thread.join(60)

    assert done == [2]
    assert table(second).report == EventType.DELIVERED


def _reported(alias: str, pk: int) -> bool:
    """Whether somebody has committed a report about it, seen from a connection beside ours."""
    seen: list[bool] = []

    def look() -> None:
        try:
            seen.append(OutboundEmail.objects.using(alias).get(pk=pk).report != "")
        finally:
            connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(60)
    return bool(seen and seen[0])


def test_two_calls_with_the_same_reports_at_once_write_them_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that got no answer in time sends again while the first call is still at work."""
    email, other = accepted(database), accepted(database)
    really, calls = reports._placed, []

    def somebody_is_faster(lines: Any, using: str) -> Any:
        calls.append(1)
        if len(calls) == 1:
            note_all([delivered(email)], using=using)
        return really(lines, using)

    monkeypatch.setattr(reports, "_placed", somebody_is_faster)

    assert note_all([delivered(email), delivered(other)], using=database) == 1

    types = DeliveryEvent.objects.using(database).filter(type=EventType.DELIVERED)
    assert sorted(types.values_list("email_id", flat=True)) == sorted([email.pk, other.pk])
