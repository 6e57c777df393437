"""Accidents of one worker in one process: databases that fail in the middle, messages that cannot be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import django.db
import django.test.utils
import pytest
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.locmem import EmailBackend as InMemory
from django.db import OperationalError, connections
from django.db.models.query import QuerySet
from django.utils import timezone

from postroom import Withdraw, composer, delivery, drain, enqueue, mailers, outbox, reports, worker
from postroom.backends import OutboxEmailBackend
from postroom.ledger import Result
from postroom.models import DeliveryEvent, OutboundEmail, WorkerHeartbeat
from postroom.statements import Given
from postroom.worker import Held, Worker
from tests.attempts import NEVER, NOT_NOW, answer, history, put_and_take, table

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres", "mariadb"])


class Provider(BaseEmailBackend):
    """Takes what it is given, after ``before`` has had its way."""

    taken: list[EmailMessage] = []
    before: Callable[[], object] = staticmethod(lambda: None)

    def send_messages(self, email_messages: Any) -> int:
        Provider.before()
        Provider.taken.extend(email_messages)
        return len(email_messages)


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Provider]]:
    monkeypatch.setattr(mailers, "LOCMEM", f"{__name__}.Provider")
    monkeypatch.setattr(worker, "DATABASE_PAUSE_SECONDS", 0)
    mailers.close_all()
    Provider.taken, Provider.before = [], staticmethod(lambda: None)
    yield Provider
    mailers.close_all()


@pytest.fixture
def hired() -> Iterator[Callable[..., Worker]]:
    """Makes workers that are never run, and closes what they hold."""
    workers: list[Worker] = []

    def hire(**options: Any) -> Worker:
        workers.append(Worker(**options))
        return workers[-1]

    yield hire
    for one in workers:
        one._senders.stop()
        one._ears.close()


def letter() -> EmailMessage:
    return EmailMessage("Subject", "Text", "shop@example.com", ["ann@example.com"])


@composer("accidents.letter")
def good() -> EmailMessage:
    return letter()


@composer("accidents.of_anymail")
def of_anymail() -> EmailMessage:
    from anymail.message import AnymailMessage

    message: EmailMessage = AnymailMessage("Subject", "Text", "shop@example.com", ["ann@example.com"])
    return message


@composer("accidents.unspeakable")
def unspeakable() -> EmailMessage:
    raise ValueError("half a character \udce9 and a NUL \0")


@composer("accidents.mute")
def mute() -> EmailMessage:
    class OfASloppyLibrary(Exception):
        def __str__(self) -> str:
            return str(self.response)  # type: ignore[attr-defined] # it never got one

    raise OfASloppyLibrary


@composer("accidents.withdrawn")
def withdrawn() -> EmailMessage:
    raise Withdraw("there is no file half\udce9\0.pdf")


@composer("accidents.to_a_user")
def to_a_user() -> EmailMessage:
    class User:
        def __str__(self) -> str:
            return "ann@example.com"

    return EmailMessage("Subject", "Text", "shop@example.com", [User(), None])  # type: ignore[list-item]


def failing_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose first call meets a dead connection."""
    calls: list[int] = []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("server closed the connection unexpectedly")
        return function(*args, **kwargs)

    return flaky


def write(worker: Worker, *results: Result) -> None:
    """Let *worker* settle these, as often as it takes."""
    worker._unwritten = list(results)
    while worker._unwritten:
        worker._guarded(worker._finishing)


def test_refusal_survives_a_database_that_fails_before_the_commit(
    database: str, hired: Callable[..., Worker]
) -> None:
    """The second try had forgotten its claim, and the answer was dropped as if it had come too late."""
    email = put_and_take(database)

    with mock.patch.object(QuerySet, "bulk_create", failing_once(QuerySet.bulk_create)):
        write(hired(using=database), answer(email, NOT_NOW))

    assert history(email) == ["claimed:sending", "rescheduled:pending"]
    assert table(email).strikes == 1


def test_list_that_fails_half_way_is_written_once(database: str, hired: Callable[..., Worker]) -> None:
    """The acceptance had been committed, the refusal had not; the repeat wrote the acceptance again."""
    taken, refused = put_and_take(database), put_and_take(database)

    with mock.patch.object(outbox, "reschedule", failing_once(outbox.reschedule)):
        write(hired(using=database), answer(taken), answer(refused, NOT_NOW))

    assert history(taken) == ["claimed:sending", "accepted:accepted"]


def test_database_that_refuses_the_first_word_of_a_worker_is_what_it_ends_with() -> None:
    """It ended with "cannot join thread before it is started", and nobody heard of the database."""
    with (
        mock.patch("postroom.pulse.Pulse.start", side_effect=OperationalError("read only")),
        pytest.raises(OperationalError, match="read only"),
    ):
        Worker().run()


def test_worker_stops_while_the_database_is_away(settings: Any) -> None:
    """It tried to settle for ever; then came SIGKILL, and with it the doubt about everything in hand."""
    settings.POSTROOM = {**settings.POSTROOM, "STOP_SECONDS": 0.1}
    email = enqueue("accidents.letter")
    worker = Worker()
    Provider.before = staticmethod(lambda: worker.stop("SIGTERM"))

    with mock.patch("postroom.delivery.settle", side_effect=OperationalError("away")):
        worker.run()

    assert history(email) == ["claimed:sending"]


def test_answer_that_waited_for_the_database_at_the_end_is_not_called_doubt(settings: Any) -> None:
    """The database came back for the last write of a worker, which then wrote two ends of one attempt."""
    settings.POSTROOM = {**settings.POSTROOM, "STOP_SECONDS": 30}
    enqueue("accidents.letter")
    worker, settle, written = Worker(), delivery.settle, []
    Provider.before = staticmethod(lambda: worker.stop("SIGTERM"))

    def away_until_the_last(results: Any, **options: Any) -> Any:
        written.append(list(results))
        if len(written) == 1:
            raise OperationalError("away")
        return settle(results, **options)

    with mock.patch("postroom.delivery.settle", away_until_the_last):
        worker.run()

    assert [result.verdict for result in written[-1]] == [None]


def test_connection_that_dies_right_after_the_commit_ends_no_worker(
    database: str, hired: Callable[..., Worker]
) -> None:
    """On Django 5.2 the hook that looks for early reports had no name, and its failure ended the process."""
    email, look, looks = put_and_take(database), reports._adopt, []

    def away_after_the_commit(*args: Any) -> None:
        looks.append(connections[database].in_atomic_block)
        if not looks[-1]:
            raise OperationalError("server closed the connection unexpectedly")
        look(*args)

    with mock.patch.object(reports, "_adopt", away_after_the_commit):
        write(hired(using=database), answer(email, message_id="<1@p>"))

    assert looks == [True, False]
    assert history(email) == ["claimed:sending", "accepted:accepted"]


def test_answer_of_the_last_moment_is_not_called_doubt(settings: Any, hired: Callable[..., Worker]) -> None:
    """The provider had refused it a moment before the end, and it was written down as in doubt."""
    settings.POSTROOM = {**settings.POSTROOM, "STOP_SECONDS": 0.000001}
    email, worker = put_and_take("default"), hired()
    worker.in_hand[email.pk] = Held(email, renewed=time.monotonic(), since=time.monotonic())
    worker._senders._done.append(answer(email, NOT_NOW))  # type: ignore[attr-defined]

    worker._finish()

    assert history(email) == ["claimed:sending", "rescheduled:pending"]


def test_e_mail_whose_turn_met_a_dead_connection_has_another_turn() -> None:
    """It was neither sent nor given back, and became one in doubt although nothing had left."""
    email = enqueue("accidents.letter")

    with mock.patch("postroom.delivery.prepare", failing_once(delivery.prepare)):
        Worker(until_empty=True).run()

    assert history(email) == ["claimed:sending", "accepted:accepted"]


def test_question_whether_to_go_on_may_meet_a_dead_connection() -> None:
    """The delivery inside a web process asks the table whether somebody else delivers; it ended with a traceback."""
    email = enqueue("accidents.letter")

    Worker(until_empty=True, keep_on=failing_once(lambda: True)).run()

    assert history(email) == ["claimed:sending", "accepted:accepted"]


def test_worker_is_alive_although_its_namesake_said_goodbye(hired: Callable[..., Worker]) -> None:
    """Two containers on the network of one host: one was stopped, and the doctor missed them both."""
    mine, namesake = hired(name="web-1/1"), hired(name="web-1/1")
    mine._pulse._introduce()
    namesake._pulse._introduce()

    namesake._pulse._beat(stopped_at=timezone.now(), stop_reason="SIGTERM")
    mine._pulse._beat()

    beat = WorkerHeartbeat.objects.get()
    assert (beat.stopped_at, beat.stop_reason) == (None, "")


def test_e_mail_whose_turn_met_a_database_that_was_away_for_minutes_has_another_turn() -> None:
    """
    Its attempt had "begun" before the database went, so it was given up as one without an answer
    while it still stood in the queue of the composers: the worker died of that contradiction.
    """
    email = enqueue("accidents.letter")
    worker, prepare, tries = Worker(until_empty=True), delivery.prepare, []

    def away_for_minutes(*args: Any, **options: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            worker.in_hand[email.pk].since = time.monotonic() - 200
            raise OperationalError("server closed the connection unexpectedly")
        return prepare(*args, **options)

    with mock.patch("postroom.delivery.prepare", away_for_minutes):
        worker.run()

    assert history(email) == ["claimed:sending", "accepted:accepted"]


def test_process_that_stands_still_while_it_renews_does_not_believe_in_the_lease(
    hired: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Frozen for a minute between the renewal and the note of it, it noted the minute after. What another
    worker had taken meanwhile counted as its own, and what it had not sent yet went out a second time.
    """
    now, renew, holder = [time.monotonic()], outbox.renew, hired()
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("postroom.worker.time", clock)
    monkeypatch.setattr("postroom.pulse.time", clock)
    email = put_and_take("default")
    holder.in_hand[email.pk] = Held(email, renewed=now[0], since=now[0])

    def stand_still(*args: Any, **options: Any) -> set[int]:
        held = renew(*args, **options)
        now[0] += 60
        return held

    now[0] += 15
    with mock.patch("postroom.outbox.renew", stand_still):
        holder._pulse._renew()

    assert not holder.in_hand[email.pk].is_ours()


def test_report_between_the_statements_of_a_refusal_wins() -> None:
    """Written down as delivered and as failed: the report came between two UPDATEs of one refusal."""
    database = "postgres"
    email = put_and_take(database)
    update, reports = Given.update, []

    def and_then_a_report(*args: Any) -> set[int]:
        changed = update(*args)
        if not reports:
            reports.append(threading.Thread(target=report))
            reports[0].start()
            reports[0].join(timeout=1)
        return changed

    def report() -> None:
        outbox.note(table(email), "delivered", using=database)
        django.db.connections.close_all()

    with mock.patch.object(Given, "update", and_then_a_report):
        outbox.fail([answer(email, NEVER)], using=database)
    reports[0].join()

    assert (table(email).state, table(email).report) == ("accepted", "delivered")


def test_message_of_anymails_own_class_is_sent() -> None:
    """Its ``metadata`` is a marker, not a dictionary, unless somebody sets it."""
    pytest.importorskip("anymail.message")
    composed = enqueue("accidents.of_anymail")
    OutboxEmailBackend().send_messages([of_anymail()])

    Worker(until_empty=True).run()

    assert table(composed).state == "accepted"
    assert len(Provider.taken) == 2


def test_exception_that_no_database_can_store_is_one_more_failed_composer(database: str) -> None:
    bad = outbox.enqueue("accidents.unspeakable", {}, using=database)
    behind = outbox.enqueue("accidents.letter", {}, using=database)

    Worker(using=database, until_empty=True).run()

    assert table(bad).state == "pending"
    assert table(behind).state == "accepted"


def test_worker_looks_for_reports_that_were_left_behind(database: str) -> None:
    email = put_and_take(database)
    outbox.note(None, "delivered", message_id="<1@p>", using=database)
    with mock.patch.object(reports, "_adopt"):
        outbox.accept([answer(email, message_id="<1@p>")], using=database)

    Worker(using=database, until_empty=True).run()

    assert table(email).report == "delivered"


def test_worker_that_an_error_has_ended_does_not_say_that_it_was_done() -> None:
    """ "Its reason: done", the doctor told of a worker that had crashed."""
    enqueue("accidents.letter")

    with (
        mock.patch("postroom.delivery.prepare", side_effect=RuntimeError("who would have thought")),
        pytest.raises(RuntimeError),
    ):
        Worker(until_empty=True).run()

    beat = WorkerHeartbeat.objects.get()
    assert beat.stopped_at
    assert beat.stop_reason == worker.CRASHED


def test_exception_without_a_text_is_one_more_failed_composer(database: str) -> None:
    """It raised once more when it was asked what it had to say, and the worker died of that."""
    bad = outbox.enqueue("accidents.mute", {}, using=database)
    behind = outbox.enqueue("accidents.letter", {}, using=database)

    Worker(using=database, until_empty=True).run()

    assert table(bad).state == "pending"
    assert "AttributeError" in bad.events.using(database).get(type="rescheduled").detail
    assert table(behind).state == "accepted"


def test_answer_without_a_text_is_doubt(database: str) -> None:
    def raise_it() -> None:
        mute()

    Provider.before = staticmethod(raise_it)
    email = outbox.enqueue("accidents.letter", {}, using=database)

    Worker(using=database, until_empty=True).run()

    assert table(email).state == "uncertain"


def test_reason_that_no_database_can_store_withdraws_nevertheless(database: str) -> None:
    """The worker died of it, with everything in hand; so did the next one, and the one after."""
    email = outbox.enqueue("accidents.withdrawn", {}, using=database)

    Worker(using=database, until_empty=True).run()

    assert (table(email).state, table(email).reason) == ("cancelled", "there is no file half?.pdf")


def test_recipient_that_is_no_text_is_written_down_as_one(database: str) -> None:
    """A user whose text is the address: the provider took it, and the worker died of writing that down."""
    email = outbox.enqueue("accidents.to_a_user", {}, using=database)

    Worker(using=database, until_empty=True).run()

    assert (table(email).state, table(email).recipient) == ("accepted", "ann@example.com")
    assert Provider.taken[0].to == ["ann@example.com"]


def test_a_tenth_of_the_slots_is_kept_for_urgent_e_mails(hired: Callable[..., Worker]) -> None:
    """Twenty newsletters to a slow provider, and somebody waits for a link."""
    answered = threading.Event()
    Provider.before = staticmethod(lambda: answered.wait(timeout=20))
    for _ in range(40):
        enqueue("accidents.letter")
    busy = hired(concurrency=20)

    busy._claim()
    in_hand = len(busy.in_hand)
    while busy._waiting:
        busy._compose()
    urgent = enqueue("accidents.letter", lane="urgent")
    busy._claim()
    held = {email.pk for email in busy.holds()}
    answered.set()
    busy._finish()

    assert in_hand == 18
    assert urgent.pk in held


def test_wait_of_nothing_is_not_tried_again_at_once() -> None:
    """ "Reset in 0 seconds": the quota is that of the moment that just ended."""

    class Answer:
        status_code, text, headers = 429, '{"code": "too_many_requests"}', {"x-sib-ratelimit-reset": "0"}

    class TooMany(Exception):
        response = Answer()

    def refuse() -> None:
        raise TooMany

    Provider.before = staticmethod(refuse)
    enqueue("accidents.letter")

    assert drain() == 1
    assert DeliveryEvent.objects.count() == 2


def test_locmem_backend_of_somebody_else_does_not_swallow_the_mail(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """A preview page built one, and from then on the process "sent" everything into its memory."""
    monkeypatch.delattr(django.test.utils._TestState, "saved_data")  # type: ignore[attr-defined]
    ours = {"provider": {"BACKEND": f"{__name__}.Provider"}}
    settings.POSTROOM = {**settings.POSTROOM, "MAILERS": ours, "DOORBELL": "none"}
    InMemory()

    email = enqueue("accidents.letter")
    drain()

    assert table(email).state == "accepted"
    assert len(Provider.taken) == 1
    assert OutboundEmail.objects.count() == 1
