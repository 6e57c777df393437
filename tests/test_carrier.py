"""The loop that carries Anymail's requests answers, and fails, as requests itself does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from anymail.backends.base_requests import AnymailRequestsBackend
from anymail.backends.brevo import EmailBackend as Brevo
from anymail.backends.mailgun import EmailBackend as Mailgun
from anymail.backends.mailjet import EmailBackend as Mailjet
from anymail.exceptions import AnymailError
from anymail.signals import post_send
from django.core.mail import EmailMessage

from postroom import carrier
from postroom.failures import FailureClass, judge
from postroom.models import OutboundEmail
from tests import test_failures as accidents
from tests.test_failures import certificate, http, letter, over_tls, serve  # noqa: F401

BEFORE_THE_BODY = {
    "aiohttp.ClientConnectorError": accidents.refused,
    "aiohttp.ConnectionTimeoutError": accidents.connect_timeout,
}
AFTER_THE_BODY = {
    "aiohttp.ClientOSError": accidents.reset_after_the_body,
    "aiohttp.ServerDisconnectedError": accidents.closed_without_an_answer,
    "aiohttp.SocketTimeoutError": accidents.read_timeout,
    "aiohttp.ClientPayloadError": accidents.cut_chunks,
    "aiohttp.ClientResponseError": accidents.garbage_for_http,
}
OF_REQUESTS_ALONE = {"proxy_refuses", "bare_reset", "bare_timeout", "bare_refusal", "no_key"}
"""Accidents without a request that could be carried."""

ALL = [
    (accident, None)
    for _, accident in [*accidents.NOTHING_LEFT, *accidents.MAY_HAVE_LEFT]
    if accident.__name__ not in OF_REQUESTS_ALONE
] + [
    (accident, failure)
    for _, accident, failure in accidents.REFUSED_BY_THE_CLIENT
    if accident.__name__ not in OF_REQUESTS_ALONE
]


@pytest.fixture
def carry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Runs a function in a loop that carries what Anymail asks for; the accidents run there as well."""
    loop, carries = carrier.new_loop(10), carrier.Carrier()
    create, failed = AnymailRequestsBackend.create_session, accidents.failed

    def run(function: Callable[..., Any], *args: Any) -> Any:
        return loop.run_until_complete(carrier.run(function, *args))

    monkeypatch.setattr(
        AnymailRequestsBackend, "create_session", lambda self: carries.stand_in_for(create(self))
    )
    monkeypatch.setattr(accidents, "failed", lambda send: run(failed, send))
    yield run
    loop.run_until_complete(carries.close())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.parametrize(("accident", "expected"), ALL, ids=lambda value: getattr(value, "__name__", ""))
def test_accident_is_judged_as_with_requests(
    serve: Any,  # noqa: F811 - the fixture
    carry: Any,
    accident: Any,
    expected: FailureClass | None,
) -> None:
    """One table of failures for two clients: what may have left must not become "failed" with either."""
    before = accident in [row[1] for row in accidents.NOTHING_LEFT]

    verdict = judge(accident(serve))

    assert verdict.failure == expected or (
        expected is None and verdict.failure == (FailureClass.TRANSIENT if before else FailureClass.UNCERTAIN)
    )


@pytest.mark.parametrize(
    ("row", "accident"),
    [*BEFORE_THE_BODY.items(), *AFTER_THE_BODY.items()],
    ids=lambda value: str(value)[:40],
)
def test_row_of_aiohttp_is_met(serve: Any, carry: Any, row: str, accident: Any) -> None:  # noqa: F811
    assert row in accidents.classes_of(accident(serve))


def test_certificate_that_nobody_signed_is_safe_to_repeat(
    serve: Any,  # noqa: F811
    carry: Any,
    certificate: str,  # noqa: F811
) -> None:
    error = accidents.brevo_at(f"https://127.0.0.1:{serve(over_tls(certificate, accidents.silence)).port}/")

    assert "aiohttp.ClientConnectorCertificateError" in accidents.classes_of(error)
    assert judge(error).failure == FailureClass.TRANSIENT


def test_tls_is_spoken_with_the_authority_of_the_session(serve: Any, carry: Any, certificate: str) -> None:  # noqa: F811
    def answer(tls: Any) -> None:
        http(201, {"messageId": "<1@x>"})(tls)

    backend = Brevo(api_key="k", api_url=f"https://127.0.0.1:{serve(over_tls(certificate, answer)).port}/")
    session = backend.create_session

    def trusting() -> Any:
        carried = session()
        carried._verify = certificate
        return carried

    backend.create_session = trusting  # type: ignore[method-assign]

    assert carry(lambda: backend.send_messages([letter()])) == 1


@pytest.mark.parametrize("kind", [Mailgun, Mailjet], ids=["form data", "credentials"])
def test_other_ways_to_ask_reach_the_provider_as_requests_would_send_them(
    serve: Any,  # noqa: F811
    carry: Any,
    kind: Any,
) -> None:
    """Brevo takes JSON and a header. Mailgun takes a form with files, Mailjet a password."""
    asked: list[bytes] = []

    def listen(connection: Any) -> None:
        asked.append(b"")
        while not asked[0].endswith((b"--\r\n", b"]}")):
            asked[0] += connection.recv(65536)
        answer = b'{"id": "<1@x>", "Messages": [{"Status": "success", "To": []}]}'
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    options = (
        {"api_key": "k", "sender_domain": "example.com"}
        if kind is Mailgun
        else {"api_key": "k", "secret_key": "s"}
    )
    backend = kind(api_url=f"http://127.0.0.1:{serve(listen).port}/", **options)
    message = letter()
    message.attach("ä.txt", "content", "text/plain")

    carry(lambda: whatever_comes(backend, message))

    assert b"Authorization: Basic" in asked[0]
    assert asked[0].lower().count(b"content-length:") == 1


def whatever_comes(backend: Any, message: EmailMessage) -> None:
    """Send; what the stand-in answers is not what this is about."""
    with suppress(AnymailError):
        backend.send_messages([message])


@pytest.mark.django_db
def test_receiver_of_a_signal_may_use_the_database(serve: Any, carry: Any) -> None:  # noqa: F811
    """Inside a running loop Django refuses every query; a site's receiver does not know of the loop."""
    counted: list[int] = []

    def count(**_: object) -> None:
        counted.append(OutboundEmail.objects.count())

    post_send.connect(count)
    try:
        backend = Brevo(
            api_key="k", api_url=f"http://127.0.0.1:{serve(http(201, {'messageId': '<1@x>'})).port}/v3/"
        )
        carry(lambda: backend.send_messages([letter()]))
    finally:
        post_send.disconnect(count)

    assert counted == [0]


def test_many_waits_happen_at_once() -> None:
    """A send that waits holds up nobody: all of them begin before the first one ends."""
    order: list[str] = []

    def wait(number: int) -> None:
        order.append(f"begin {number}")
        carrier.wait_for(asyncio.sleep(0))
        order.append(f"end {number}")

    async def all_of_them() -> None:
        await asyncio.gather(*(carrier.run(wait, number) for number in range(3)))

    asyncio.run(all_of_them())

    assert order[:3] == ["begin 0", "begin 1", "begin 2"]
    assert sorted(order[3:]) == ["end 0", "end 1", "end 2"]


def test_error_of_what_is_waited_for_comes_out_where_it_was_asked_for() -> None:
    async def fail() -> None:
        raise LookupError("nobody there")

    def ask() -> str:
        try:
            carrier.wait_for(fail())
        except LookupError as error:
            return str(error)
        return "no error"

    assert asyncio.run(carrier.run(ask)) == "nobody there"
