"""The two ways to send: which one a worker gets, and how they end."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from typing import Any

import pycurl
import pytest
from anymail.backends.brevo import EmailBackend as Brevo
from django.core.mail import EmailMessage
from django.core.mail.backends.locmem import EmailBackend as InMemory

from postroom import composer, enqueue, mailers
from postroom.delivery import Prepared, prepare
from postroom.ears import Ears
from postroom.ledger import Result
from postroom.mailers import Mailer
from postroom.outbox import claim
from postroom.senders import LoopSenders, ThreadSenders, senders_for
from tests.test_failures import http, read_request, serve  # noqa: F401 - the fixture

pytestmark = pytest.mark.django_db

PATIENCE_SECONDS = 20


@composer("senders.letter")
def letter() -> EmailMessage:
    return EmailMessage("Subject", "Text", "shop@example.com", ["ann@example.com"])


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears("default")
    yield ears
    ears.close()


@pytest.fixture
def prepared() -> Prepared:
    enqueue("senders.letter")
    (email,) = claim(1, worker="host/1", mailer="provider", keyed=True)
    ready = prepare(email)
    assert isinstance(ready, Prepared)
    return ready


def behind_brevo(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let every mailer be Brevo at *url*."""
    recipe = {"BACKEND": "anymail.backends.brevo.EmailBackend", "OPTIONS": {"api_key": "k", "api_url": url}}
    monkeypatch.setattr(mailers, "recipe", lambda alias: recipe)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        (Brevo(api_key="k", api_url="http://127.0.0.1:1/v3/"), LoopSenders),
        (InMemory(alias="provider") if hasattr(InMemory, "alias") else InMemory(), ThreadSenders),
    ],
    ids=["HTTP of Anymail", "anything else"],
)
def test_loop_carries_what_it_can_and_threads_the_rest(ears: Ears, backend: Any, kind: type) -> None:
    mailer = Mailer("provider", {})
    mailer.__dict__["backend"] = backend

    senders = senders_for(mailer, 2, ears)
    senders.stop()

    assert type(senders) is kind


@pytest.mark.parametrize("absent", ["pycurl", "greenlet", "AsyncCurlMulti"])
def test_without_pycurl_or_with_an_old_one_threads_send(
    ears: Ears, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    """Debian's pycurl of 2022 knows no asyncio: each e-mail would have ended in doubt."""
    if absent == "AsyncCurlMulti":
        monkeypatch.delattr(pycurl, absent)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else object())
    mailer = Mailer("provider", {})
    mailer.__dict__["backend"] = Brevo(api_key="k", api_url="http://127.0.0.1:1/v3/")

    senders = senders_for(mailer, 2, ears)
    senders.stop()

    assert type(senders) is ThreadSenders


def test_loop_sends_while_it_is_waited_for(
    ears: Ears,
    prepared: Prepared,
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    behind_brevo(monkeypatch, f"http://127.0.0.1:{serve(http(201, {'messageId': '<1@x>'})).port}/v3/")
    senders = LoopSenders(2)

    senders.start(prepared)
    senders.wait(ears, PATIENCE_SECONDS, rings=False)
    results = senders.finished()
    senders.stop()

    assert [(result.verdict, result.message_id) for result in results] == [(None, "<1@x>")]


def test_loop_keeps_no_connection_that_is_too_old_to_be_used(
    ears: Ears,
    prepared: Prepared,
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a burst an idle worker held thousands of sockets, closed by the provider long ago."""
    gone = threading.Event()

    def answer_and_listen(connection: Any) -> None:
        read_request(connection)
        connection.sendall(b'HTTP/1.1 201 Created\r\nContent-Length: 21\r\n\r\n{"messageId":"<1@x>"}')
        if connection.recv(1) == b"":
            gone.set()

    behind_brevo(monkeypatch, f"http://127.0.0.1:{serve(answer_and_listen).port}/v3/")
    senders = LoopSenders(2)
    senders.start(prepared)
    while not senders.finished():
        senders.wait(ears, PATIENCE_SECONDS, rings=False)
    monkeypatch.setattr(mailers, "IDLE_SECONDS", 0)

    while not gone.is_set():
        senders.wait(ears, 0.01, rings=False)

    senders.stop()


def test_loop_ends_although_a_timer_wants_to_stop_it(ears: Ears) -> None:
    """
    The last result of a worker leaves a timer behind. It fired while the connections were being
    closed: the worker ended with an exception instead of its goodbye.
    """
    senders = LoopSenders(2)
    senders._loop.call_soon(senders._loop.stop)

    senders.stop()

    assert senders._loop.is_closed()


def test_loop_gives_up_what_hangs_when_it_ends(
    ears: Ears,
    prepared: Prepared,
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def hang(connection: Any) -> None:
        asked.append(True)
        ears.wake()
        connection.recv(65536)
        connection.recv(65536)

    behind_brevo(monkeypatch, f"http://127.0.0.1:{serve(hang).port}/v3/")
    senders = LoopSenders(2)
    senders.start(prepared)
    while not asked:
        senders.wait(ears, 1)

    senders.stop()

    assert senders.finished() == []
    assert senders._loop.is_closed()


def test_thread_that_was_given_up_ends_when_its_send_does(
    ears: Ears, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An SMTP server took two minutes for each e-mail. Every attempt was given up and replaced by one
    more thread, and none of them ever ended: 32 more every 90 s, each with a connection of its own.
    """
    sent_in: list[threading.Thread] = []
    begun, may_end = threading.Event(), threading.Event()

    def hang(prepared: Prepared) -> Result:
        sent_in.append(threading.current_thread())
        begun.set()
        may_end.wait(PATIENCE_SECONDS)
        return Result(email=prepared.email)

    monkeypatch.setattr("postroom.delivery.send", hang)
    senders = ThreadSenders(1, ears)
    senders.start(prepared)
    assert begun.wait(PATIENCE_SECONDS)

    senders.abandon(prepared.email)
    may_end.set()
    sent_in[0].join(PATIENCE_SECONDS)

    assert not sent_in[0].is_alive()
    assert len(senders.finished()) == 1
    begun.clear()
    senders.start(prepared)
    assert begun.wait(PATIENCE_SECONDS), "nobody sends in its place"
    senders.stop()
    sent_in[1].join(PATIENCE_SECONDS)
    senders.abandon(prepared.email)  # a moment too late: it has ended by itself
    assert senders._threads == 2
