"""Workers beside each other, on real connections: nothing twice, nothing lost, no lock errors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
from django.db import OperationalError, connections, transaction

from postroom import byhand, outbox, statements
from postroom.exceptions import NotAllowed
from postroom.models import DeliveryEvent, OutboundEmail, State
from tests.attempts import NEVER, NOT_NOW, answer, history, let_time_pass, put, put_and_take, table, take

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"], transaction=True)

THREADS = 6
T = TypeVar("T")


def in_threads(database: str, work: Callable[[int], T]) -> list[T]:
    """Run ``work(0) … work(n)`` at the same time, each on a connection of its own."""
    together = threading.Barrier(THREADS)

    def run(number: int) -> T:
        try:
            together.wait(timeout=60)
            return work(number)
        finally:
            connections[database].close()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_no_email_is_claimed_twice(database: str) -> None:
    """Two workers looked at the same moment, both saw it pending, and both sent it."""
    total = 120
    for _ in range(total):
        put(database)

    def claim_all(number: int) -> list[int]:
        mine: list[int] = []
        while emails := take(database, 7, worker=f"host/{number}"):
            mine += [email.pk for email in emails]
            outbox.accept([answer(email) for email in emails], using=database)
        return mine

    claimed = Counter(pk for mine in in_threads(database, claim_all) for pk in mine)

    assert len(claimed) == total
    assert set(claimed.values()) == {1}
    assert OutboundEmail.objects.using(database).filter(state=State.ACCEPTED, attempt=1).count() == total
    assert DeliveryEvent.objects.using(database).count() == 2 * total


def test_one_email_goes_to_one_of_many(database: str) -> None:
    email = put(database)

    got = in_threads(database, lambda number: take(database, 1, worker=f"host/{number}"))

    assert [one for mine in got for one in mine] == [email]
    assert table(email).attempt == 1


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_refusal_is_not_written_where_a_lock_was_lost(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a storm on MariaDB an attempt ended twice: between its lock and its change a row had been rescued."""
    email = put_and_take(database)
    let_time_pass(database, timedelta(minutes=1))
    outbox.rescue(worker="host/2", using=database)
    monkeypatch.setattr(statements, "_lock", lambda *_, **__: [email.pk])

    with pytest.raises(OperationalError, match="1 of 1 locked rows were changed"):
        outbox.reschedule([answer(email, NOT_NOW)], using=database)

    assert history(email) == ["claimed:sending", "rescued:pending"]


def test_email_is_rescued_once(database: str) -> None:
    """Every worker looks for abandoned rows: each loss must count once."""
    email = put_and_take(database)
    let_time_pass(database, timedelta(minutes=1))

    got = in_threads(database, lambda number: outbox.rescue(worker=f"host/{number}", using=database))

    assert [one for mine in got for one in mine] == [email]
    assert table(email).losses == 1


def test_report_that_comes_twice_at_once_is_one_event(database: str) -> None:
    """The provider's second try overlapped the first one, which was only slow."""
    email = put_and_take(database)
    outbox.accept([answer(email, message_id="<1@p>")], using=database)

    known = in_threads(
        database,
        lambda number: outbox.note(None, "delivered", message_id="<1@p>", dedupe_key="d", using=database),
    )

    assert sorted(known) == [False] * (THREADS - 1) + [True]
    assert table(email).report == "delivered"


def test_reports_at_once_leave_the_strongest(database: str) -> None:
    """Each read the row before the other had written it, and the weaker one won."""
    email = put_and_take(database)
    outbox.accept([answer(email)], using=database)
    reports = ["requested", "deferred", "delivered", "bounced", "opened", "requested"]

    in_threads(database, lambda number: outbox.note(email, reports[number], using=database))

    assert table(email).report == "bounced"


def test_report_and_acceptance_at_once_find_each_other(database: str) -> None:
    """Neither had committed when the other looked, and the delivery was never told."""
    half = THREADS // 2
    for turn in range(5):
        emails = [put_and_take(database) for _ in range(half)]
        ids = [f"<{turn}-{number}@p>" for number in range(half)]

        def meet(number: int, emails: list[OutboundEmail] = emails, ids: list[str] = ids) -> None:
            if number < half:
                outbox.accept([answer(emails[number], message_id=ids[number])], using=database)
            else:
                outbox.note(None, "delivered", message_id=ids[number - half], using=database)

        in_threads(database, meet)

        assert [table(email).report for email in emails] == ["delivered"] * half


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_report_that_comes_between_acceptance_and_commit_is_adopted(database: str) -> None:
    """A worker writes its results in one transaction. (SQLite has one writer: there nothing comes between.)"""
    email = put_and_take(database)

    def come() -> None:
        outbox.note(None, "delivered", message_id="<1@p>", using=database)
        connections[database].close()

    with transaction.atomic(using=database):
        outbox.accept([answer(email, message_id="<1@p>")], using=database)
        report = threading.Thread(target=come)
        report.start()
        report.join(timeout=60)

    assert table(email).report == "delivered"


def test_either_the_person_cancels_it_or_a_worker_takes_it(database: str) -> None:
    """ "Cancelled" on the page and the e-mail in the inbox."""
    emails = [put(database) for _ in range(10)]

    def work(number: int) -> list[int]:
        if number % 2:
            return [email.pk for email in take(database, 10, worker=f"host/{number}")]
        return [email.pk for email in emails if cancelled(email)]

    def cancelled(email: OutboundEmail) -> bool:
        try:
            outbox.cancel(OutboundEmail.objects.using(database).get(pk=email.pk))
        except NotAllowed:
            return False
        return True

    ends = Counter(pk for mine in in_threads(database, work) for pk in mine)

    assert ends == Counter(email.pk for email in emails)


def test_click_that_is_made_many_times_at_once_sends_again_once(database: str) -> None:
    """Each had looked for copies before any of the others had written one."""
    emails = [put_and_take(database) for _ in range(5)]
    outbox.fail([answer(email, NEVER) for email in emails], using=database)
    failed = OutboundEmail.objects.using(database).filter(state=State.FAILED)

    again = in_threads(
        database, lambda number: sum(byhand.resend_all(failed.all(), actor="ada", known=frozenset()))
    )

    assert sum(again) == len(emails)
    copies = OutboundEmail.objects.using(database).filter(state=State.PENDING)
    assert Counter(copies.values_list("resend_of", flat=True)) == Counter(email.pk for email in emails)


def test_acceptance_and_refusal_at_once_end_accepted(database: str) -> None:
    emails = [put_and_take(database) for _ in range(THREADS)]

    def settle(number: int) -> None:
        for email in emails:
            result = answer(email, None if number % 2 else NEVER)
            (outbox.accept if number % 2 else outbox.fail)([result], using=database)

    in_threads(database, settle)

    assert {table(email).state for email in emails} == {State.ACCEPTED}


def test_claim_does_not_wait_for_a_row_that_somebody_holds(database: str) -> None:
    """One long transaction on one row stopped all workers. (SQLite has one writer: nothing to skip.)"""
    if connections[database].vendor == "sqlite":
        assert connections[database].features.has_select_for_update_skip_locked is False
        return
    held, free = put(database), put(database)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(using=database):
            OutboundEmail.objects.using(database).select_for_update().get(pk=held.pk)
            holding.set()
            release.wait(timeout=60)
        connections[database].close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(timeout=60)
        taken = take(database, 2)
    finally:
        release.set()
        thread.join()

    assert taken == [free]
