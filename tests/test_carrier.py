"""The loop that carries Anymail's requests answers, and fails, as requests itself does."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from anymail.backends.base_requests import AnymailRequestsBackend
from anymail.backends.brevo import EmailBackend as Brevo
from anymail.backends.mailgun import EmailBackend as Mailgun
from anymail.backends.mailjet import EmailBackend as Mailjet
from anymail.exceptions import AnymailError
from anymail.signals import post_send
from django.core.mail import EmailMessage
from requests.structures import CaseInsensitiveDict

from postroom import carrier, mailers
from postroom.exchange import Exchange
from postroom.failures import FailureClass, judge
from postroom.models import OutboundEmail
from tests import test_failures as accidents
from tests.test_failures import certificate, http, letter, over_tls, serve  # noqa: F401

BEFORE_THE_BODY = {
    "requests.ConnectionError": accidents.refused,
    "requests.ConnectTimeout": accidents.connect_timeout,
    "requests.SSLError": accidents.plain_http_behind_https,
}
AFTER_THE_BODY = {
    "requests.ConnectionError": accidents.reset_after_the_body,
    "requests.ReadTimeout": accidents.read_timeout,
    "requests.ChunkedEncodingError": accidents.shorter_than_promised,
    "requests.ContentDecodingError": accidents.not_gzip,
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
def test_error_is_that_of_requests_and_says_whether_anything_left(
    serve: Any,  # noqa: F811
    carry: Any,
    row: str,
    accident: Any,
) -> None:
    met = accidents.classes_of(accident(serve))

    assert row in met
    assert ("postroom.NothingLeft" in met) == (accident in BEFORE_THE_BODY.values())


def test_certificate_that_nobody_signed_is_safe_to_repeat(
    serve: Any,  # noqa: F811
    carry: Any,
    certificate: str,  # noqa: F811
) -> None:
    error = accidents.brevo_at(f"https://127.0.0.1:{serve(over_tls(certificate, accidents.silence)).port}/")

    assert accidents.classes_of(error) >= {"requests.SSLError", "postroom.NothingLeft"}
    assert judge(error).failure == FailureClass.TRANSIENT


@pytest.mark.parametrize("named", [str, Path], ids=["text", "path"])
def test_tls_is_spoken_with_the_authority_of_the_session(
    serve: Any,  # noqa: F811
    certificate: str,  # noqa: F811
    named: Callable[[str], Any],
) -> None:
    backend = brevo_of(serve(over_tls(certificate, Provider(created()))), scheme="https")

    with carried(backend, verify=named(certificate)):
        assert backend.send_messages([letter()]) == 1


def test_authorities_may_be_a_directory(
    serve: Any,  # noqa: F811
    certificate: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    server = serve(over_tls(certificate, Provider(created())))
    backend = brevo_of(server, scheme="https")
    with carried(backend, verify=tmp_path):
        error = accidents.failed(lambda: backend.send_messages([letter()]))
    assert accidents.classes_of(error) >= {"requests.SSLError", "postroom.NothingLeft"}

    asked = ["openssl", "x509", "-hash", "-noout", "-in", certificate]
    digest = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(certificate, tmp_path / f"{digest}.0")
    server = serve(over_tls(certificate, Provider(created())))
    with carried(backend := brevo_of(server, scheme="https"), verify=str(tmp_path)):
        assert backend.send_messages([letter()]) == 1


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


# --- connections that are kept open --------------------------------------------------------------


class Provider:
    """Answers the requests of each connection as *answers* say, in turn; None: takes it and hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.taken: list[bytes] = []
        self.gone = threading.Event()

    def __call__(self, connection: Any) -> None:
        self.connections += 1
        while self.answers:
            self.taken.append(accidents.read_request(connection))
            answer = self.answers.pop(0)
            if answer is None:
                break
            connection.sendall(answer)
            if b"Connection: close" in answer:
                break
        connection.close()
        self.gone.set()


def created(*headers: bytes, body: bytes = b'{"messageId": "<1@x>"}') -> bytes:
    """Return what Brevo answers, with *headers*, on a connection that stays open."""
    lines = [b"HTTP/1.1 201 Created", *headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def brevo_of(server: Any, scheme: str = "http") -> Any:
    return Brevo(api_key="k", api_url=f"{scheme}://127.0.0.1:{server.port}/v3/", timeout=20)


@contextmanager
def carried(backend: Any, **session: Any) -> Iterator[carrier.Carrier]:
    """Let *backend* send through a carrier and a loop of its own; *session* is what its session is set up with."""
    loop, carries = carrier.new_loop(10), carrier.Carrier()
    backend.open()
    for name, value in session.items():
        setattr(backend.session, name, value)
    backend.session = carries.stand_in_for(backend.session)
    send = backend.send_messages
    backend.send_messages = lambda messages: loop.run_until_complete(carrier.run(send, messages))
    yield carries
    loop.run_until_complete(carries.close())
    loop.close()


def test_connection_is_used_again(serve: Any, carry: Any) -> None:  # noqa: F811
    provider = Provider(created(), created(), created())
    backend = brevo_of(serve(provider))

    assert carry(lambda: backend.send_messages([letter(), letter(), letter()])) == 3

    assert provider.connections == 1


def test_email_is_not_sent_again_where_an_open_connection_ends_without_an_answer(
    serve: Any,  # noqa: F811
    carry: Any,
) -> None:
    """
    libcurl by itself sends a second time what got no answer on a connection that was used before.

    The provider had taken it: without a key that is a second e-mail, and nobody would know.
    """
    provider = Provider(created(), None, created())
    backend = brevo_of(serve(provider))
    carry(lambda: backend.send_messages([letter()]))

    error = accidents.failed(lambda: backend.send_messages([letter(subject="Once")]))

    assert judge(error).failure == FailureClass.UNCERTAIN
    assert [b"Once" in taken for taken in provider.taken] == [False, True]


def test_a_second_try_that_finds_nobody_does_not_make_the_first_one_safe(
    serve: Any,  # noqa: F811
    carry: Any,
) -> None:
    """The server takes the e-mail and dies: "refused" is true of the second connection, not of the first."""
    provider = Provider(created(), None)
    server = serve(provider)
    backend = brevo_of(server)
    carry(lambda: backend.send_messages([letter()]))
    server.close()

    error = accidents.failed(lambda: backend.send_messages([letter()]))

    assert len(provider.taken) == 2
    assert judge(error).failure == FailureClass.UNCERTAIN


def test_connection_that_the_provider_has_closed_is_not_used(serve: Any, carry: Any) -> None:  # noqa: F811
    """Providers close what is idle without a word; the next e-mail must not be in doubt for that."""
    provider = Provider(created(b"Connection: close"), created())
    backend = brevo_of(serve(provider))
    carry(lambda: backend.send_messages([letter()]))
    assert provider.gone.wait(20)

    assert carry(lambda: backend.send_messages([letter()])) == 1

    assert provider.connections == 2


def test_connections_are_closed_when_they_are_too_old_to_be_used(
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a burst a worker would keep thousands of sockets that the other side has closed long ago."""
    provider = Provider(created(), created())
    backend = brevo_of(serve(provider))

    with carried(backend) as carries:
        backend.send_messages([letter()])
        assert not carries.is_stale

        monkeypatch.setattr(mailers, "IDLE_SECONDS", 0)
        assert carries.is_stale
        asyncio.run(carries.close())

    assert provider.gone.wait(20)
    assert not carries.is_stale


# --- what goes over the wire ---------------------------------------------------------------------


def lines_of(request: bytes) -> list[bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *others = head.split(b"\r\n")
    told = sorted(line.strip() for line in others if not line.lower().startswith(b"accept-encoding:"))
    return [first, *told, body]


def test_body_of_any_length_is_sent_whole(serve: Any, carry: Any) -> None:  # noqa: F811
    provider = Provider(created())
    backend = brevo_of(serve(provider))
    text = "An attachment may be as long as this. " * 100_000

    assert carry(lambda: backend.send_messages([letter(body=text)])) == 1

    assert text.encode() in provider.taken[0]


def test_answer_that_is_compressed_is_read(serve: Any, carry: Any) -> None:  # noqa: F811
    provider = Provider(created(b"Content-Encoding: gzip", body=gzip.compress(b'{"messageId": "<gz@x>"}')))
    message = letter()

    carry(lambda: brevo_of(serve(provider)).send_messages([message]))

    assert message.anymail_status.message_id == "<gz@x>"  # type: ignore[attr-defined]


def test_answers_before_the_answer_are_skipped(serve: Any, carry: Any) -> None:  # noqa: F811
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    message = letter()

    carry(lambda: brevo_of(serve(Provider(early + created()))).send_messages([message]))

    assert message.anymail_status.message_id == "<1@x>"  # type: ignore[attr-defined]
    assert "Link" not in message.anymail_status.esp_response.headers  # type: ignore[attr-defined]


def test_certificate_is_not_looked_at_where_the_site_says_so(serve: Any, certificate: str) -> None:  # noqa: F811
    backend = brevo_of(serve(over_tls(certificate, Provider(created()))), scheme="https")

    with carried(backend, verify=False):
        assert backend.send_messages([letter()]) == 1


def test_proxy_of_the_environment_is_asked_and_its_refusal_is_safe(
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def refuse(connection: Any) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{serve(refuse).port}")
    backend = Brevo(api_key="k", api_url="https://provider.example/v3/", timeout=20)

    with carried(backend):
        error = accidents.failed(lambda: backend.send_messages([letter()]))

    assert asked[0].startswith(b"CONNECT provider.example:443 HTTP/1.1\r\n")
    assert judge(error).failure == FailureClass.TRANSIENT


def test_proxy_is_not_asked_for_hosts_that_the_environment_excepts(
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{serve(accidents.reset).port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    backend = brevo_of(serve(Provider(created())))

    with carried(backend):
        assert backend.send_messages([letter()]) == 1


def test_answer_that_trickles_is_waited_for(serve: Any, carry: Any) -> None:  # noqa: F811
    """The time-out is for silence: what comes slowly, and comes, is an answer."""
    heard = threading.Event()

    def trickle(connection: Any) -> None:
        accidents.read_request(connection)
        for byte in created():
            connection.sendall(bytes([byte]))
            heard.wait(0.02)

    backend = brevo_of(serve(trickle))
    backend.timeout = (20, 0.9)

    assert carry(lambda: backend.send_messages([letter()])) == 1


def test_more_connections_than_open_files_are_told_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The check of the settings does not know what --concurrency says."""
    monkeypatch.setattr("resource.getrlimit", lambda what: (1024, 1024))

    carrier._allow_descriptors(3000 + carrier.SPARE_DESCRIPTORS)

    assert "postroom.W011 open_files limit=1024 wanted=3256" in caplog.text
    assert "LimitNOFILE=6512 in the unit (ulimit -n), or --concurrency 768" in caplog.text


# --- what the session is set up with -------------------------------------------------------------


def test_debugging_of_anymail_puts_nothing_in_doubt(
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It looks at the request of the answer: that there was none cost each e-mail its acceptance."""
    monkeypatch.setattr("django.conf.settings.ANYMAIL_DEBUG_API_REQUESTS", True, raising=False)
    backend, message = brevo_of(serve(Provider(created()))), letter()

    with carried(backend):
        backend.send_messages([message])

    assert message.anymail_status.message_id == "<1@x>"  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert "POST http://127.0.0.1" in said
    assert "201 Created" in said


def test_hook_of_the_site_may_replace_the_answer(serve: Any) -> None:  # noqa: F811
    def replace(response: Any, **told: Any) -> Any:
        assert set(told) == {"timeout", "verify", "cert", "stream", "proxies"}
        response._content = b'{"messageId": "<hook@x>"}'
        return response

    backend, message = brevo_of(serve(Provider(created()))), letter()

    with carried(backend, hooks={"response": [replace]}):
        backend.send_messages([message])

    assert message.anymail_status.message_id == "<hook@x>"  # type: ignore[attr-defined]


def test_session_of_the_site_keeps_its_proxy(serve: Any) -> None:  # noqa: F811
    """Where a site must leave through a proxy, to go round it is no detail."""
    proxy, direct = Provider(created()), Provider(created())
    backend = brevo_of(serve(direct))

    with carried(backend, proxies={"http": f"http://127.0.0.1:{serve(proxy).port}"}):
        backend.send_messages([letter()])

    assert (proxy.connections, direct.connections) == (1, 0)


def test_session_of_the_site_may_not_trust_the_environment(
    serve: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy, direct = Provider(created()), Provider(created())
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{serve(proxy).port}")
    backend = brevo_of(serve(direct))

    with carried(backend, trust_env=False):
        backend.send_messages([letter()])

    assert (proxy.connections, direct.connections) == (0, 1)


def heads(serve: Any, **session: Any) -> tuple[list[bytes], list[bytes]]:  # noqa: F811
    """Return the lines that requests sends, and those of libcurl."""
    asked: list[bytes] = []

    def listen(connection: Any) -> None:
        asked.append(b"")
        while not asked[-1].endswith(b"}"):
            asked[-1] += connection.recv(65536)
        connection.sendall(created(b"Connection: close"))

    server = serve(listen)
    backend = brevo_of(server)
    backend.open()
    for name, value in session.items():
        setattr(backend.session, name, value)
    backend.send_messages([letter()])
    with carried(backend := brevo_of(server), **session):
        backend.send_messages([letter()])
    return lines_of(asked[0]), lines_of(asked[1])


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"auth": ("ann", "secret")},
        {"params": {"region": "eu"}},
        {
            "headers": CaseInsensitiveDict(
                {"API-KEY": "of the session", "user-agent": "shop", "X-Empty": "", "Accept": None}
            )
        },
    ],
    ids=["as it comes", "auth", "params", "headers"],
)
def test_what_is_sent_is_what_requests_would_send(serve: Any, session: dict[str, Any]) -> None:  # noqa: F811
    """Line for line, but for the codings that each of the two can read."""
    theirs, ours = heads(serve, **session)

    assert ours == theirs


# --- answers that are none -----------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"HTTP/2.0 429 Too Many Requests", b"HTTP/3 503"])
def test_status_that_cannot_be_read_is_doubt(serve: Any, line: bytes) -> None:  # noqa: F811
    """libcurl takes it for 200, and Anymail an empty 200 for an acceptance."""
    backend = brevo_of(serve(accidents.raw(line + b"\r\nContent-Length: 0\r\n\r\n")))

    with carried(backend):
        error = accidents.failed(lambda: backend.send_messages([letter()]))

    assert judge(error).failure == FailureClass.UNCERTAIN


def test_what_comes_after_the_body_replaces_no_header(serve: Any) -> None:  # noqa: F811
    body = b'{"messageId": "<1@x>"}'
    answer = (
        b"HTTP/1.1 201 Created\r\nContent-Type: application/json; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n"
        b"Content-Type: text/plain; charset=utf-16\r\n\r\n" % (len(body), body)
    )
    backend, message = brevo_of(serve(accidents.raw(answer))), letter()

    with carried(backend):
        backend.send_messages([message])

    headers = message.anymail_status.esp_response.headers  # type: ignore[attr-defined]
    assert headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("code", range(100))
def test_no_error_of_libcurl_is_safe_once_the_email_was_begun(code: int) -> None:
    """Whatever its number comes to mean: the body had been asked for."""
    asked = requests.Request("POST", "http://127.0.0.1/", data="{}").prepare()
    exchange = Exchange(asked, waits=20, verify=True, cert=None)
    exchange.begun = True

    assert judge(exchange.failure(code, "")).failure == FailureClass.UNCERTAIN


def test_tests_stay_on_this_machine_with_libcurl_too(carry: Any) -> None:
    backend = Brevo(api_key="k", api_url="http://192.0.2.1/v3/", timeout=20)

    with pytest.raises(OSError, match="tests stay on this machine"):
        carry(lambda: backend.send_messages([letter()]))
