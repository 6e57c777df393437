"""What each thread of a worker does, and what it leaves to the others; the accidents are in ``journeys``."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.management import call_command
from django.db import connections

from postroom import composer, enqueue, mailers
from postroom.models import EventType, OutboundEmail, State, WorkerHeartbeat
from postroom.worker import CRASHED, Worker, stop_on_signals
from tests.attempts import history, table

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_SECONDS = 30


class Provider(BaseEmailBackend):
    """The far side: notes which thread asks, and answers when it may."""

    asked_in: list[str] = []
    asked, may_answer = threading.Event(), threading.Event()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        self.asked_in.append(threading.current_thread().name)
        self.asked.set()
        self.may_answer.wait(PATIENCE_SECONDS)
        return len(email_messages)


written_in: list[str] = []
"""Names of the threads that composers ran in."""


@composer("tests.worker.letter")
def letter() -> EmailMessage:
    """Note which thread writes it."""
    written_in.append(threading.current_thread().name)
    return EmailMessage("Hello", "Text", "shop@example.com", ["ann@example.com"])


@composer("tests.worker.poison", lane="urgent")
def poison() -> EmailMessage:
    """Cannot be written."""
    raise ZeroDivisionError("this composer is broken")


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> type[Provider]:
    """Send through a provider that answers at once; ``may_answer.clear()`` lets it hang."""
    # What every mailer is under Django's test runner.
    monkeypatch.setattr(mailers, "LOCMEM", f"{__name__}.Provider")
    Provider.asked_in.clear()
    Provider.asked.clear()
    Provider.may_answer.set()
    written_in.clear()
    return Provider


def work_until_empty() -> None:
    """Let a worker deliver everything that is due, in this thread."""
    Worker(until_empty=True).run()


def in_the_background() -> threading.Thread:
    """The same in a thread of its own, with database connections of its own."""

    def run() -> None:
        try:
            work_until_empty()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="loop")
    thread.start()
    return thread


def eventually(what: str, look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def test_loop_writes_the_messages_and_senders_only_send(provider: type[Provider]) -> None:
    """
    A composer reads the database. Run by the senders, fifty e-mails in flight are fifty
    connections, and PostgreSQL has no more for the web.
    """
    for _ in range(3):
        enqueue("tests.worker.letter")

    work_until_empty()

    assert written_in == [threading.current_thread().name] * 3
    assert len(provider.asked_in) == 3
    assert all(name.startswith("postroom-sender") for name in provider.asked_in)


def test_lease_is_renewed_for_as_long_as_the_provider_takes(provider: type[Provider], settings: Any) -> None:
    """A provider took longer than a lease, the e-mail was taken from a living worker and went out twice."""
    settings.POSTROOM = {**settings.POSTROOM, "LEASE_SECONDS": 9}
    provider.may_answer.clear()
    email = enqueue("tests.worker.letter")
    loop = in_the_background()
    try:
        assert provider.asked.wait(PATIENCE_SECONDS)
        first = table(email).lease_expires_at

        eventually("the lease changed", lambda: table(email).lease_expires_at != first)
        renewed = table(email)
    finally:
        provider.may_answer.set()
        loop.join(PATIENCE_SECONDS)

    assert renewed.state == State.SENDING
    assert renewed.lease_expires_at is not None
    assert first is not None
    assert renewed.lease_expires_at > first
    assert history(email) == ["claimed:sending", "accepted:accepted"]


def test_e_mail_that_cannot_be_written_stops_nobody_and_is_not_lost() -> None:
    """The first in the queue raised, the worker died of it, and so did the next one and the one after."""
    poisonous = [enqueue("tests.worker.poison", lane="urgent"), enqueue("tests.worker.nobody", lane="urgent")]
    others = [enqueue("tests.worker.letter") for _ in range(3)]

    work_until_empty()

    assert [table(email).state for email in others] == [State.ACCEPTED] * 3
    for email in poisonous:
        stored = table(email)
        assert (stored.state, stored.reason, stored.strikes) == (State.PENDING, "compose", 0)
        assert email.events.get(type=EventType.RESCHEDULED).error_class == "compose"
    assert not OutboundEmail.objects.filter(state=State.SENDING).exists()


def test_goodbye_tells_whether_nothing_was_left_or_the_worker_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever broke said "done", too, and the doctor takes that for cron's between two runs."""
    Worker(until_empty=True).run()
    assert WorkerHeartbeat.objects.get().stop_reason == "done"

    broken = Worker(until_empty=True)
    monkeypatch.setattr(broken, "_turn", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.run()

    assert WorkerHeartbeat.objects.get().stop_reason == CRASHED


def test_sigterm_in_the_middle_of_a_log_line_stops_the_worker_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python refuses to write to a stream in the middle of a write to it: the worker ended there and then."""

    def reentrant(*_: object) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    worker = Worker(until_empty=True)
    with stop_on_signals(worker):
        monkeypatch.setattr("postroom.worker.logger.info", reentrant)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.undo()
    worker.run()

    assert WorkerHeartbeat.objects.get().stop_reason == "SIGTERM"


def test_command_says_that_sigterm_stops_it_when_that_is_true() -> None:
    """Whoever had read the line and sent SIGTERM at once killed it instead, for nobody caught the signal yet."""

    class Listener(io.StringIO):
        handlers: list[object] = []

        def write(self, text: str) -> int:
            if "SIGTERM stops it" in text:
                self.handlers.append(signal.getsignal(signal.SIGTERM))
            return super().write(text)

    out = Listener()

    call_command("postroom_worker", "--until-empty", stdout=out)

    assert len(out.handlers) == 1
    assert out.handlers != [signal.SIG_DFL]


def test_worker_says_when_it_was_given_more_threads_than_are_good() -> None:
    """Nobody runs the checks after typing a number on the command line."""
    errors = io.StringIO()

    call_command(
        "postroom_worker", "--until-empty", "--concurrency", "201", stdout=io.StringIO(), stderr=errors
    )

    assert "postroom.W013" in errors.getvalue()
    assert "200 or fewer" in errors.getvalue()


def test_worker_counts_one_attempt_as_one() -> None:
    """Its last line was "1 attempts settled"."""
    enqueue(EmailMessage("Hello", "Hello.", to=["ann@example.com"]))
    out = io.StringIO()

    call_command("postroom_worker", "--until-empty", stdout=out)

    assert out.getvalue().endswith(": stopped, 1 attempt settled.\n")
