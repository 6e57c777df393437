"""What a failed attempt means, driven by real errors of real clients on real sockets."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from hypothesis import given
from hypothesis import strategies as st

from postroom import failure_tables as tables
from postroom.failures import (
    FailureClass,
    Fate,
    Verdict,
    _chain,
    _names,
    backoff,
    compose_backoff,
    judge,
    judge_compose,
    redact,
)
from tests.servers import free_port

anymail = pytest.importorskip("anymail.backends.brevo")
from anymail.backends.postmark import EmailBackend as Postmark  # noqa: E402
from anymail.backends.resend import EmailBackend as Resend  # noqa: E402
from anymail.backends.sendgrid import EmailBackend as SendGrid  # noqa: E402

Brevo = anymail.EmailBackend
Talk = Callable[[socket.socket], None]
PATIENCE = 20.0
"""Seconds that a client of these tests waits for an answer that comes, however busy the machine is."""

IMPATIENCE = 0.4
"""Seconds that it waits for one that never comes."""


# A server that says what it is told


class Server:
    """Gives every connection to *talk*, one thread each, on a free port of the loopback interface."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(3 * PATIENCE)  # the client gives up first
            self.talk(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        # Or it would go on to accept what comes for the next one who gets the same descriptor.
        self._thread.join()
        self.listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Talk], Server]]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(talk: Talk) -> Server:
        servers.append(Server(talk))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def read_request(connection: socket.socket) -> bytes:
    """Read one HTTP request with its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536) or b" " * length
    return body


def http(status: int, body: bytes | dict[str, object] | list[object] = b"", **headers: str) -> Talk:
    """Answer a request like this."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)

    return talk


def raw(answer: bytes) -> Talk:
    """Answer a request with these bytes and hang up."""

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return talk


def reset(connection: socket.socket) -> None:
    """Take the whole request, then break the connection with RST."""
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(connection: socket.socket) -> None:
    """Take whatever comes and say nothing until the client goes away."""
    while connection.recv(65536):
        pass


def letter(**more: object) -> EmailMessage:
    """Return a message to send."""
    fields = {"subject": "Hello", "body": "Hi", "from_email": "shop@example.com", "to": ["ann@example.net"]}
    return EmailMessage(**{**fields, **more})  # type: ignore[arg-type]


def failed(send: Callable[[], object]) -> BaseException:
    """Return what *send* raises."""
    try:
        send()
    except Exception as error:  # noqa: BLE001 - any error is what this is about
        return error
    raise AssertionError("the attempt did not fail")


def brevo_at(url: str, message: EmailMessage | None = None, **options: object) -> BaseException:
    """Send through Anymail's Brevo backend and return the error."""
    backend = Brevo(**{"api_key": "xkeysib-1", "api_url": url, "timeout": PATIENCE, **options})
    return failed(lambda: backend.send_messages([message or letter()]))


def brevo(server: Server, message: EmailMessage | None = None, **options: object) -> BaseException:
    """Send through Anymail's Brevo backend to *server* and return the error."""
    return brevo_at(f"http://127.0.0.1:{server.port}/v3/", message, **options)


# HTTP: one row of the tables, one test

STATUSES = [
    ("2??", 200, FailureClass.UNCERTAIN),
    ("3??", 304, FailureClass.CONFIG),
    ("401", 401, FailureClass.CONFIG),
    ("402", 402, FailureClass.QUOTA),
    ("403", 403, FailureClass.CONFIG),
    ("404", 404, FailureClass.CONFIG),
    ("405", 405, FailureClass.CONFIG),
    ("407", 407, FailureClass.CONFIG),
    ("408", 408, FailureClass.TRANSIENT),
    ("409", 409, FailureClass.UNCERTAIN),
    ("421", 421, FailureClass.TRANSIENT),
    ("425", 425, FailureClass.TRANSIENT),
    ("429", 429, FailureClass.RATE_LIMITED),
    ("4??", 400, FailureClass.PERMANENT_MESSAGE),
    ("4??", 413, FailureClass.PERMANENT_MESSAGE),
    ("4??", 415, FailureClass.PERMANENT_MESSAGE),
    ("4??", 422, FailureClass.PERMANENT_MESSAGE),
    ("503", 503, FailureClass.TRANSIENT),
    ("521", 521, FailureClass.TRANSIENT),
    ("523", 523, FailureClass.TRANSIENT),
    ("525", 525, FailureClass.TRANSIENT),
    ("526", 526, FailureClass.TRANSIENT),
    ("5??", 500, FailureClass.UNCERTAIN),
    ("5??", 502, FailureClass.UNCERTAIN),
    ("5??", 504, FailureClass.UNCERTAIN),
    ("5??", 522, FailureClass.UNCERTAIN),
    ("5??", 524, FailureClass.UNCERTAIN),
]

CODES = [
    (Brevo, 402, "code", "not_enough_credits", FailureClass.QUOTA),
    (Brevo, 401, "code", "unauthorized", FailureClass.CONFIG),
    (Brevo, 400, "code", "permission_denied", FailureClass.CONFIG),
    (Brevo, 400, "code", "account_under_validation", FailureClass.CONFIG),
    (Brevo, 405, "code", "method_not_allowed", FailureClass.CONFIG),
    (Brevo, 400, "code", "duplicate_parameter", FailureClass.DUPLICATE),
    (Brevo, 400, "code", "duplicate_request", FailureClass.DUPLICATE),
    (Brevo, 400, "code", "invalid_parameter", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 400, "code", "missing_parameter", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 400, "code", "out_of_range", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 404, "code", "document_not_found", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 400, "code", "bad_request", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 422, "code", "unprocessable_entity", FailureClass.PERMANENT_MESSAGE),
    (Brevo, 406, "code", "not_acceptable", FailureClass.PERMANENT_MESSAGE),
    (Resend, 429, "name", "rate_limit_exceeded", FailureClass.RATE_LIMITED),
    (Resend, 429, "name", "daily_quota_exceeded", FailureClass.QUOTA),
    (Resend, 429, "name", "monthly_quota_exceeded", FailureClass.QUOTA),
    (Resend, 422, "name", "invalid_from_address", FailureClass.CONFIG),
    (Resend, 409, "name", "invalid_idempotent_request", FailureClass.DUPLICATE),
    (Resend, 409, "name", "concurrent_idempotent_requests", FailureClass.UNCERTAIN),
    (Postmark, 401, "ErrorCode", "10", FailureClass.CONFIG),
    (Postmark, 422, "ErrorCode", "300", FailureClass.PERMANENT_MESSAGE),
    (Postmark, 422, "ErrorCode", "400", FailureClass.CONFIG),
    (Postmark, 422, "ErrorCode", "401", FailureClass.CONFIG),
    (Postmark, 422, "ErrorCode", "405", FailureClass.QUOTA),
    (Postmark, 422, "ErrorCode", "412", FailureClass.CONFIG),
    (Postmark, 422, "ErrorCode", "413", FailureClass.CONFIG),
]
OPTIONS = {Brevo: "api_key", Resend: "api_key", SendGrid: "api_key", Postmark: "server_token"}

BREVO_WORDS = {"code": "invalid_parameter"}
TEXTS = [
    (0, Brevo, 400, {**BREVO_WORDS, "message": "email is not valid in to"}, FailureClass.PERMANENT_RECIPIENT),
    (1, Brevo, 400, {**BREVO_WORDS, "message": "valid sender email required"}, FailureClass.CONFIG),
    (2, Postmark, 422, {"ErrorCode": 300, "Message": "Invalid 'From' address: 'x'."}, FailureClass.CONFIG),
    (3, SendGrid, 401, {"errors": [{"message": "Maximum credits exceeded"}]}, FailureClass.QUOTA),
]


@pytest.mark.parametrize(("row", "status", "expected"), STATUSES)
def test_http_status_decides_where_the_code_says_nothing(serve, row, status, expected):
    """SDKs of 2026 type Brevo's code as free text: one that we do not know must fall to its status."""
    server = serve(http(status, {"code": "something_new", "message": "So sorry"}))

    assert judge(brevo(server)).failure == expected


@pytest.mark.parametrize(("backend", "status", "field", "value", "expected"), CODES)
def test_code_of_the_provider_decides_before_the_status(serve, backend, status, field, value, expected):
    number = int(value) if value.isdigit() else value
    server = serve(http(status, {field: number, "message": "No", "Message": "No"}))
    mailer = backend(**{OPTIONS[backend]: "k", "api_url": f"http://127.0.0.1:{server.port}/"})

    verdict = judge(failed(lambda: mailer.send_messages([letter()])))

    assert verdict.failure == expected
    assert value in verdict.detail


@pytest.mark.filterwarnings("ignore:.*official support for SendGrid")
@pytest.mark.parametrize(("row", "backend", "status", "body", "expected"), TEXTS)
def test_words_of_the_provider_decide_where_its_code_is_too_wide(serve, row, backend, status, body, expected):
    """Brevo has one code for a bad recipient, a bad sender and a bad message."""
    server = serve(http(status, body))
    mailer = backend(**{OPTIONS[backend]: "k", "api_url": f"http://127.0.0.1:{server.port}/"})

    assert judge(failed(lambda: mailer.send_messages([letter()]))).failure == expected


def test_every_row_about_http_has_a_test():
    assert {row for row, _, _ in STATUSES} == {row for row, _ in tables.HTTP_STATUSES}
    assert {(field, value) for _, _, field, value, _ in CODES} == set(tables.ANSWER_CODES)
    assert [row for row, *_ in TEXTS] == list(range(len(tables.ANSWER_TEXTS)))


def test_code_is_read_in_capitals_too(serve):
    """Brevo wrote INVALID_PARAMETER in 2021 (sendinblue/APIv3-python-library#71)."""
    server = serve(http(400, {"code": "DUPLICATE_PARAMETER", "message": "No"}))

    assert judge(brevo(server)).fate == Fate.DUPLICATE


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    "body",
    [
        b"<html><title>Sign in to the Wi-Fi</title></html>",
        b'{"messageId":"<2026',
        b"{}",
        b"null",
        b"[]",
        b"\xff\xfe",
    ],
    ids=["html", "truncated", "no id", "null", "array", "binary"],
)
def test_yes_that_cannot_be_read_is_doubt(serve, status, body):
    """
    A proxy cut or replaced the answer of a provider that had taken the e-mail. "Failed"
    would send it again, "accepted" might be a lie of the hotel's Wi-Fi.
    """
    verdict = judge(brevo(serve(http(status, body))))

    assert (verdict.failure, verdict.fate) == (FailureClass.UNCERTAIN, Fate.DOUBT)


def test_empty_201_is_an_acceptance_without_an_id(serve):
    """Anymail's own reading (15.2); judge() never sees it."""
    server = serve(http(201))
    message = letter()

    sent = Brevo(api_key="k", api_url=f"http://127.0.0.1:{server.port}/").send_messages([message])

    assert sent == 1
    assert message.anymail_status.message_id is None
    assert message.anymail_status.status == {"queued"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusal_in_html_comes_from_something_in_between(serve, status):
    """A firewall's page must not burn every e-mail of the night as "this message is wrong"."""
    verdict = judge(brevo(serve(http(status, b"<html><style>b{}</style><h1>Blocked by policy</h1></html>"))))

    assert (verdict.failure, verdict.fate) == (FailureClass.CONFIG, Fate.RESCHEDULE)
    assert "Blocked by policy" in verdict.detail
    assert "<" not in verdict.detail.replace("<url>", "")


def test_proxy_that_finds_the_message_too_large_is_believed(serve):
    assert judge(brevo(serve(http(413, b"<h1>Too large</h1>")))).failure == FailureClass.PERMANENT_MESSAGE


# How long to wait

WAITS = [
    (429, {"x_sib_ratelimit_reset": "7"}, 7),
    (429, {"Retry_After": "11"}, 11),
    (429, {"ratelimit_reset": "3.5"}, 3.5),
    (429, {"x_sib_ratelimit_reset": "7", "Retry_After": "11"}, 7),
    (429, {}, 30),
    (429, {"Retry_After": "soon"}, 30),
    (429, {"Retry_After": "-5"}, 30),
    (429, {"Retry_After": "nan"}, 30),
    (429, {"Retry_After": "1e300"}, 3600),
    (503, {"Retry_After": "20"}, 20),
    (503, {"x_sib_ratelimit_reset": "1"}, None),
    (503, {}, None),
    (402, {}, 900),
    (402, {"x_sib_ratelimit_reset": "1"}, 900),
    (401, {"Retry_After": "1"}, 60),
    (500, {"Retry_After": "1"}, None),
]


@pytest.mark.parametrize(("status", "headers", "expected"), WAITS)
def test_wait_that_the_provider_asks_for_is_kept(serve, status, headers, expected):
    """Brevo sends x-sib-ratelimit-reset with every answer, so only a 429 may listen to it."""
    verdict = judge(brevo(serve(http(status, {"message": "No"}, **headers))))

    assert verdict.retry_after == expected


def test_retry_after_may_be_a_date(serve):
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)

    verdict = judge(brevo(serve(http(429, {"message": "No"}, Retry_After=at))))

    assert verdict.retry_after is not None
    assert 100 < verdict.retry_after <= 120


# No answer at all: one row, one accident


def refused(serve) -> BaseException:
    return brevo_at(f"http://127.0.0.1:{free_port()}/v3/")


def no_such_host(serve) -> BaseException:
    """A name that no resolver knows, and that does not leave this machine."""
    return brevo_at("http://[::1%25nosuchinterface]/v3/")


def connect_timeout(serve) -> BaseException:
    """Fill the queue of a listener that accepts nobody; Linux then drops the next SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        return brevo_at(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=(IMPATIENCE, 5))


def through_proxy(serve, talk: Talk) -> BaseException:
    backend = Brevo(api_key="k", api_url="https://provider.example/v3/", timeout=PATIENCE)
    backend.open()
    backend.session.proxies = {"https": f"http://127.0.0.1:{serve(talk).port}"}
    error = failed(lambda: backend.send_messages([letter()]))
    backend.close()
    return error


def proxy_refuses(serve) -> BaseException:
    return through_proxy(serve, raw(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"))


def plain_http_behind_https(serve) -> BaseException:
    def answer_the_hello(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    return brevo_at(f"https://127.0.0.1:{serve(answer_the_hello).port}/")


def handshake_that_hangs(serve) -> BaseException:
    return brevo_at(f"https://127.0.0.1:{serve(silence).port}/", timeout=IMPATIENCE)


def read_timeout(serve) -> BaseException:
    return brevo(serve(silence), timeout=(PATIENCE, IMPATIENCE))


def dripping(serve) -> BaseException:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n")
        connection.sendall(b'{"messageId":')
        silence(connection)

    return brevo(serve(drip), timeout=(PATIENCE, IMPATIENCE))


def reset_after_the_body(serve) -> BaseException:
    return brevo(serve(reset))


def closed_without_an_answer(serve) -> BaseException:
    return brevo(serve(raw(b"")))


def garbage_for_http(serve) -> BaseException:
    return brevo(serve(raw(b"\x15\x03\x01 what?\r\n\r\n")))


def cut_chunks(serve) -> BaseException:
    return brevo(serve(raw(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{")))


def shorter_than_promised(serve) -> BaseException:
    return brevo(serve(raw(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{")))


def not_gzip(serve) -> BaseException:
    return brevo(
        serve(raw(b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain"))
    )


def bare_reset(serve) -> BaseException:
    """As a mailer would see it that speaks HTTP by itself."""
    with socket.create_connection(("127.0.0.1", serve(reset).port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n\r\n")
        return failed(lambda: connection.recv(1) + connection.recv(1))


def bare_timeout(serve) -> BaseException:
    with socket.create_connection(("127.0.0.1", serve(silence).port), timeout=IMPATIENCE) as connection:
        return failed(lambda: connection.recv(1))


def bare_refusal(serve) -> BaseException:
    with socket.socket() as connection:
        return failed(lambda: connection.connect(("127.0.0.1", free_port())))


def url_without_host(serve) -> BaseException:
    return brevo_at("http://")


def url_without_scheme(serve) -> BaseException:
    return brevo_at("api.brevo.com/v3/")


def url_that_cannot_be_parsed(serve) -> BaseException:
    return brevo_at("http://[::1/v3/")


def url_of_another_kind(serve) -> BaseException:
    return brevo_at("ftp://127.0.0.1/v3/")


def key_with_line_end(serve) -> BaseException:
    return brevo(serve(silence), api_key="xkeysib-1\n")


def endless_redirects(serve) -> BaseException:
    return brevo(serve(http(302, Location="/v3/again")))


def no_key(serve) -> BaseException:
    return failed(Brevo)


def two_reply_to(serve) -> BaseException:
    return brevo(serve(silence), letter(reply_to=["a@example.com", "b@example.com"]))


def metadata_not_json(serve) -> BaseException:
    message = letter()
    message.metadata = {"order": object()}  # type: ignore[attr-defined]
    return brevo(serve(silence), message)


def malformed_recipient(serve) -> BaseException:
    return brevo(serve(silence), letter(to=["ann at example"]))


def malformed_sender(serve) -> BaseException:
    return brevo(serve(silence), letter(from_email="our shop"))


def postmark(serve, code: int, words: str) -> BaseException:
    server = serve(http(422, {"ErrorCode": code, "Message": words}))
    backend = Postmark(server_token="k", api_url=f"http://127.0.0.1:{server.port}/")
    return failed(lambda: backend.send_messages([letter()]))


def inactive_recipient(serve) -> BaseException:
    return postmark(
        serve, 406, "Found inactive addresses: ann@example.net.\n Inactive recipients are ones that"
    )


def invalid_recipient(serve) -> BaseException:
    return postmark(serve, 300, "Invalid 'To' address: 'ann@example.net'.")


NOTHING_LEFT = [
    ("requests.ConnectTimeout", connect_timeout),
    ("requests.ProxyError", proxy_refuses),
    ("urllib3.NewConnectionError", refused),
    ("socket.gaierror", no_such_host),
    ("builtins.ConnectionRefusedError", bare_refusal),
    ("", plain_http_behind_https),
    ("", handshake_that_hangs),
]
MAY_HAVE_LEFT = [
    ("requests.ReadTimeout", read_timeout),
    ("requests.ChunkedEncodingError", cut_chunks),
    ("requests.ContentDecodingError", not_gzip),
    ("urllib3.ProtocolError", reset_after_the_body),
    ("builtins.ConnectionError", bare_reset),
    ("builtins.TimeoutError", bare_timeout),
    ("", dripping),
    ("", closed_without_an_answer),
    ("", garbage_for_http),
    ("", shorter_than_promised),
]
REFUSED_BY_THE_CLIENT = [
    ("requests.InvalidURL", url_without_host, FailureClass.CONFIG),
    ("requests.MissingSchema", url_without_scheme, FailureClass.CONFIG),
    ("", url_that_cannot_be_parsed, FailureClass.CONFIG),
    ("requests.InvalidSchema", url_of_another_kind, FailureClass.CONFIG),
    ("requests.InvalidHeader", key_with_line_end, FailureClass.CONFIG),
    ("requests.TooManyRedirects", endless_redirects, FailureClass.CONFIG),
    ("django.ImproperlyConfigured", no_key, FailureClass.CONFIG),
    ("anymail.AnymailUnsupportedFeature", two_reply_to, FailureClass.PERMANENT_MESSAGE),
    ("anymail.AnymailSerializationError", metadata_not_json, FailureClass.PERMANENT_MESSAGE),
    ("anymail.AnymailInvalidAddress", malformed_recipient, FailureClass.PERMANENT_RECIPIENT),
    ("", malformed_sender, FailureClass.CONFIG),
    ("anymail.AnymailRecipientsRefused", inactive_recipient, FailureClass.PERMANENT_RECIPIENT),
    ("", invalid_recipient, FailureClass.PERMANENT_RECIPIENT),
]
BEHIND_TLS = {"ssl.SSLCertVerificationError", "requests.SSLError", "ssl.SSLError"}
"""Rows whose accidents need a certificate; see the tests with ``certificate``."""


def classes_of(error: BaseException) -> set[str]:
    return {name for link in _chain(error) for name in _names(link)}


def accidents(rows):
    return [pytest.param(*row, id=row[1].__name__) for row in rows]


@pytest.mark.parametrize(("row", "accident"), accidents(NOTHING_LEFT))
def test_accident_before_the_body_left_is_safe_to_repeat(serve, row, accident):
    error = accident(serve)

    verdict = judge(error)

    assert not row or row in classes_of(error)
    assert (verdict.failure, verdict.fate, verdict.strike) == (FailureClass.TRANSIENT, Fate.RESCHEDULE, True)


@pytest.mark.parametrize(("row", "accident"), accidents(MAY_HAVE_LEFT))
def test_accident_after_the_body_left_is_doubt(serve, row, accident):
    """The shop told people "failed" about mails that had arrived: this is where it came from."""
    error = accident(serve)

    verdict = judge(error)

    assert not row or row in classes_of(error)
    assert (verdict.failure, verdict.fate, verdict.strike) == (FailureClass.UNCERTAIN, Fate.DOUBT, True)


@pytest.mark.parametrize(("row", "accident", "expected"), accidents(REFUSED_BY_THE_CLIENT))
def test_what_the_client_refuses_never_left(serve, row, accident, expected):
    error = accident(serve)

    verdict = judge(error)

    assert not row or row in classes_of(error)
    assert verdict.failure == expected
    assert verdict.fate != Fate.DOUBT


def test_every_row_about_exceptions_has_a_test():
    tested = {row for row, *_ in [*NOTHING_LEFT, *MAY_HAVE_LEFT, *REFUSED_BY_THE_CLIENT] if row}
    carried = {"postroom.NothingLeft"}  # tests/test_carrier.py

    assert tested | BEHIND_TLS | carried == set(tables.EXCEPTIONS)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A certificate of 127.0.0.1 that nobody has signed, with its key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-keyout", path, "-out", path.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return str(path)


def over_tls(certificate: str, talk: Callable[[ssl.SSLSocket], None]) -> Talk:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def secure(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            talk(tls)

    return secure


def test_certificate_that_nobody_signed_is_safe_to_repeat(serve, certificate):
    error = brevo_at(f"https://127.0.0.1:{serve(over_tls(certificate, silence)).port}/")

    assert "ssl.SSLCertVerificationError" in classes_of(error)
    assert judge(error).failure == FailureClass.TRANSIENT


def test_tls_that_breaks_after_the_request_is_doubt(serve, certificate):
    """The same class as a failed handshake: only the place of the error tells them apart."""

    def break_off(tls: ssl.SSLSocket) -> None:
        read_request(tls)
        with socket.socket(fileno=os.dup(tls.fileno())) as below:
            below.sendall(b"this is not a TLS record at all")

    backend = Brevo(api_key="k", api_url=f"https://127.0.0.1:{serve(over_tls(certificate, break_off)).port}/")
    backend.open()
    backend.session.trust_env = False  # REQUESTS_CA_BUNDLE would win over the next line
    backend.session.verify = certificate
    error = failed(lambda: backend.send_messages([letter()]))
    backend.close()

    assert {"requests.SSLError", "ssl.SSLError"} <= classes_of(error)
    assert judge(error).failure == FailureClass.UNCERTAIN


def test_refusal_of_a_first_mailer_does_not_excuse_the_second(serve):
    """A fallback inside ``except`` leaves the harmless error in ``__context__`` of the harmful one."""

    def fall_back() -> None:
        try:
            raise refused(serve)
        except Exception:  # noqa: BLE001 - as such backends do
            raise read_timeout(serve)  # noqa: B904

    assert judge(failed(fall_back)).failure == FailureClass.UNCERTAIN


# SMTP: one row, one conversation


def smtp_talk(**says: bytes | Talk | None) -> Talk:
    """
    Return a mail server that answers the verbs of *says* differently: with a reply, with a
    deed, or by hanging up (None). ``done`` is the answer after the final dot.
    """
    polite: dict[str, bytes] = {
        "hello": b"220 ready",
        "ehlo": b"250-here\r\n250-AUTH PLAIN\r\n250 SIZE 1000000",
        "auth": b"235 fine",
        "mail": b"250 fine",
        "rcpt": b"250 fine",
        "data": b"354 go on",
        "done": b"250 taken",
        "rset": b"250 fine",
        "quit": b"221 bye",
    }

    def talk(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        verb: str = "hello"
        while verb:
            answer = says.get(verb, polite.get(verb, b"500 what?"))
            if answer is None or callable(answer):
                break
            connection.sendall(answer + b"\r\n")
            if verb == "data" and answer.startswith(b"354"):
                while lines.readline().rstrip() not in (b".", b""):
                    pass
                verb = "done"
            else:
                verb = lines.readline()[:4].decode().strip().lower()
        if callable(answer):
            answer(connection)

    return talk


def smtp(serve, *, message: EmailMessage | None = None, **says: bytes | Talk | None) -> BaseException:
    """Send through Django's SMTP backend to a server that answers like this, and return the error."""
    options = {"username": "u", "password": "p"} if says.pop("login", None) else {}
    is_silent = threading.Event()

    def keep_silent(connection: socket.socket) -> None:
        is_silent.set()
        silence(connection)

    hangs = silence in says.values()
    says = {verb: keep_silent if answer is silence else answer for verb, answer in says.items()}
    port = serve(smtp_talk(**says)).port
    while True:
        patience = IMPATIENCE if hangs else PATIENCE
        backend = SMTPBackend(alias="tests", host="127.0.0.1", port=port, timeout=patience, **options)
        error = smtp_error(backend, message or letter())
        # A client that lost its patience while the server was yet to speak has met another accident.
        if is_silent.is_set() or not hangs:
            return error


def smtp_error(backend: SMTPBackend, message: EmailMessage) -> BaseException:
    error = failed(lambda: backend.send_messages([message]))
    backend.close()  # also the connection that got as far as STARTTLS or AUTH
    return error


REPLIES = [
    (("data", "2??", "*"), "done", "251 I think so", FailureClass.UNCERTAIN),
    (("*", "454", "4.7.*"), "auth", "454 4.7.0 Temporary authentication failure", FailureClass.TRANSIENT),
    (("*", "*", "4.4.7"), "done", "450 4.4.7 Too old", FailureClass.EXPIRED),
    (("*", "*", "4.7.*"), "rcpt", "450 4.7.1 Greylisted", FailureClass.RATE_LIMITED),
    (("*", "*", "4.7.*"), "mail", "421 4.7.0 Too many messages", FailureClass.RATE_LIMITED),
    (("*", "*", "4.*"), "rcpt", "452 4.2.2 Mailbox full", FailureClass.TRANSIENT),
    (("*", "*", "4.*"), "rcpt", "550 4.3.0 The enhanced code wins", FailureClass.TRANSIENT),
    (("mail", "*", "5.1.*"), "mail", "550 5.1.0 Address rejected", FailureClass.CONFIG),
    (("*", "*", "5.1.7"), "rcpt", "553 5.1.7 Sender malformed", FailureClass.CONFIG),
    (("*", "*", "5.1.8"), "rcpt", "501 5.1.8 Domain of sender does not exist", FailureClass.CONFIG),
    (("*", "*", "5.1.*"), "rcpt", "550 5.1.1 No such user", FailureClass.PERMANENT_RECIPIENT),
    (("*", "*", "5.1.*"), "rcpt", "550 5.1.10 Null MX", FailureClass.PERMANENT_RECIPIENT),
    (("*", "*", "5.1.*"), "rcpt", "553 5.1.3 Bad syntax", FailureClass.PERMANENT_RECIPIENT),
    (("*", "*", "5.2.2"), "rcpt", "552 5.2.2 Mailbox full", FailureClass.TRANSIENT),
    (("*", "*", "5.2.3"), "done", "552 5.2.3 Too long", FailureClass.PERMANENT_MESSAGE),
    (("*", "*", "5.2.*"), "rcpt", "550 5.2.1 Mailbox disabled", FailureClass.PERMANENT_RECIPIENT),
    (("*", "*", "5.3.4"), "mail", "552 5.3.4 Too big", FailureClass.PERMANENT_MESSAGE),
    (("auth", "5??", "*"), "auth", "535 5.7.8 Bad credentials", FailureClass.CONFIG),
    (("auth", "5??", "*"), "auth", "501 5.5.2 Cannot decode", FailureClass.CONFIG),
    (("connect", "5??", "*"), "hello", "554 No SMTP service here", FailureClass.CONFIG),
    (("*", "*", "5.5.*"), "rcpt", "501 5.5.4 Bad arguments", FailureClass.PERMANENT_MESSAGE),
    (("*", "*", "5.6.*"), "done", "554 5.6.0 Malformed", FailureClass.PERMANENT_MESSAGE),
    (("*", "*", "5.7.*"), "rcpt", "550 5.7.1 Relaying denied", FailureClass.CONFIG),
    (("*", "*", "5.7.*"), "done", "550 5.7.26 Unauthenticated mail is not accepted", FailureClass.CONFIG),
    (("*", "53[0458]", "*"), "mail", "530 Authentication required", FailureClass.CONFIG),
    (("*", "552", "*"), "rcpt", "552 Too many recipients", FailureClass.TRANSIENT),
    (("mail", "55[0136]", "*"), "mail", "550 We do not like you", FailureClass.CONFIG),
    (("data", "55[0136]", "*"), "done", "550 We do not like this", FailureClass.PERMANENT_MESSAGE),
    (("*", "55[0136]", "*"), "rcpt", "550 No such user", FailureClass.PERMANENT_RECIPIENT),
    (("*", "55[0136]", "*"), "rcpt", "556 Domain takes no mail", FailureClass.PERMANENT_RECIPIENT),
    (("*", "521", "*"), "rcpt", "521 Host takes no mail", FailureClass.PERMANENT_RECIPIENT),
    (("*", "4??", "*"), "hello", "421 Too busy", FailureClass.TRANSIENT),
    (("*", "4??", "*"), "done", "451 Local error", FailureClass.TRANSIENT),
    (("*", "5??", "*"), "done", "554 Transaction failed", FailureClass.PERMANENT_MESSAGE),
    (("data", "*", "*"), "done", "!!! what?", FailureClass.UNCERTAIN),
    (("data", "*", "*"), "done", "354 go on", FailureClass.UNCERTAIN),
    (("*", "*", "*"), "rcpt", "!!! what?", FailureClass.TRANSIENT),
]


@pytest.mark.parametrize(
    ("row", "verb", "reply", "expected"), REPLIES, ids=[f"{r[1]}-{r[2]}" for r in REPLIES]
)
def test_reply_of_a_mail_server_is_understood(serve, row, verb, reply, expected):
    verdict = judge(smtp(serve, login=verb == "auth", **{verb: reply.encode()}))

    assert verdict.failure == expected
    assert reply.split()[-1] in verdict.detail


def test_every_row_about_smtp_has_a_test():
    assert {row for row, *_ in REPLIES} == {row[:3] for row in tables.SMTP_REPLIES}


def test_most_hopeful_refusal_decides_where_all_recipients_are_refused(serve):
    """One dead address must not keep the greylisted one from its mail."""
    answers = iter([b"550 5.1.1 No such user\r\n", b"450 4.2.0 Later\r\n"])

    def alternate(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        connection.sendall(next(answers))
        lines.readline()
        connection.sendall(next(answers))
        lines.readline()  # RSET; then it hangs up

    verdict = judge(smtp(serve, rcpt=alternate, message=letter(to=["a@example.net", "b@example.net"])))

    assert verdict.failure == FailureClass.TRANSIENT


@pytest.mark.parametrize("verb", ["hello", "ehlo", "mail", "rcpt"])
@pytest.mark.parametrize("deed", [None, silence], ids=["hangs up", "hangs"])
def test_mail_server_lost_before_the_message_is_safe_to_repeat(serve, verb, deed):
    verdict = judge(smtp(serve, **{verb: deed}))

    assert (verdict.failure, verdict.fate) == (FailureClass.TRANSIENT, Fate.RESCHEDULE)


@pytest.mark.parametrize("deed", [None, silence], ids=["hangs up", "hangs"])
def test_mail_server_lost_after_the_final_dot_is_doubt(serve, deed):
    """RFC 1047: it may have queued the message and lost only the way back."""
    verdict = judge(smtp(serve, done=deed))

    assert (verdict.failure, verdict.fate) == (FailureClass.UNCERTAIN, Fate.DOUBT)


def test_mail_server_that_talks_too_much_after_the_final_dot_is_doubt(serve):
    """smtplib raises its plain SMTPResponseException then, at whatever stage."""
    assert judge(smtp(serve, done=b"250 " + b"x" * 9000)).failure == FailureClass.UNCERTAIN
    assert judge(smtp(serve, hello=b"220 " + b"x" * 9000)).fate == Fate.RESCHEDULE


def test_mail_server_that_is_not_there_is_safe_to_repeat():
    backend = SMTPBackend(alias="tests", host="127.0.0.1", port=free_port(), timeout=PATIENCE)

    assert judge(failed(lambda: backend.send_messages([letter()]))).failure == FailureClass.TRANSIENT


def smtplib_data(serve):
    return smtp(serve, done=None)


def smtputf8_not_offered(serve):
    port = serve(smtp_talk()).port
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo()
        return failed(lambda: client.mail("a@example.com", ["SMTPUTF8"]))


def starttls_not_offered(serve):
    backend = SMTPBackend(
        alias="tests", host="127.0.0.1", port=serve(smtp_talk()).port, use_tls=True, timeout=PATIENCE
    )
    return smtp_error(backend, letter())


def no_mechanism_in_common(serve):
    return smtp(serve, login=True, ehlo=b"250-here\r\n250 AUTH KERBEROS_V9")


def local_part_beyond_ascii(serve):
    port = serve(smtp_talk()).port
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        return failed(lambda: client.sendmail("a@example.com", ["äöü@example.com"], b"Subject: x\r\n\r\nx"))


def gone_before_mail(serve):
    return smtp(serve, mail=None)


def two_addresses_in_one(serve):
    return smtp(serve, message=letter(to=["a@example.com, b@@example.com"]))


def own_payload_breaks(serve):
    message = letter()
    message.tags = 5  # type: ignore[attr-defined]
    return brevo(serve(silence), message)


def receiver_of_pre_send_raises(serve):
    from anymail.signals import pre_send

    def receiver(**_: object) -> None:
        raise KeyError("a bug of the site")

    pre_send.connect(receiver)
    try:
        return brevo(serve(silence))
    finally:
        pre_send.disconnect(receiver)


ORIGINS = [
    (0, smtplib_data, FailureClass.UNCERTAIN),
    (1, smtputf8_not_offered, FailureClass.PERMANENT_MESSAGE),
    (2, starttls_not_offered, FailureClass.CONFIG),
    (3, no_mechanism_in_common, FailureClass.CONFIG),
    (4, local_part_beyond_ascii, FailureClass.PERMANENT_MESSAGE),
    (5, gone_before_mail, FailureClass.TRANSIENT),
    (6, two_addresses_in_one, FailureClass.PERMANENT_MESSAGE),
    (7, two_addresses_in_one, FailureClass.PERMANENT_MESSAGE),
    (8, own_payload_breaks, FailureClass.PERMANENT_MESSAGE),
    (9, url_that_cannot_be_parsed, FailureClass.CONFIG),
    (10, receiver_of_pre_send_raises, FailureClass.COMPOSE),
]


@pytest.mark.parametrize(("row", "accident", "expected"), accidents(ORIGINS))
def test_place_decides_where_the_class_says_nothing(serve, row, accident, expected):
    assert judge(accident(serve)).failure == expected


def test_every_row_about_places_has_a_test():
    assert [row for row, *_ in ORIGINS] == list(range(len(tables.PLACES)))


# Verdicts as a whole


@pytest.mark.parametrize("failure", FailureClass)
def test_every_class_has_its_consequence(failure):
    consequence = tables.CONSEQUENCES[failure]

    assert consequence.fate in Fate
    assert consequence.wait is None or consequence.wait > 0


def test_only_refusals_for_certain_are_repeated_or_given_up():
    doubtful = {FailureClass.UNCERTAIN, FailureClass.UNKNOWN, FailureClass.WORKER_LOST}

    assert {f for f, c in tables.CONSEQUENCES.items() if c.fate == Fate.DOUBT} == doubtful


@pytest.mark.parametrize(
    "failure", [FailureClass.RATE_LIMITED, FailureClass.QUOTA, FailureClass.CONFIG, FailureClass.COMPOSE]
)
def test_fault_that_is_not_of_the_email_costs_no_strike_and_waits(failure):
    """Without a wait of its own it would come back at once, for ever."""
    consequence = tables.CONSEQUENCES[failure]

    assert not consequence.strike
    assert consequence.wait


def test_error_that_nobody_has_seen_before_is_doubt():
    verdict = judge(failed(lambda: {}["x"]))

    assert (verdict.failure, verdict.fate) == (FailureClass.UNKNOWN, Fate.DOUBT)


def test_setting_that_is_missing_is_no_fault_of_the_email():
    assert judge(ImproperlyConfigured("BREVO_API_KEY is missing")).failure == FailureClass.CONFIG


def test_error_that_is_its_own_cause_ends():
    error = OSError("a")
    error.__cause__ = ValueError("b", error)

    assert judge(error).failure == FailureClass.UNKNOWN


def test_failures_that_look_the_same_have_one_fingerprint(serve):
    """A doctor says "412 of 412 the same": ports, addresses and request ids must not count."""
    one = judge(brevo(serve(http(400, {"code": "invalid_parameter", "message": "a@example.com is odd"}))))
    two = judge(brevo(serve(http(400, {"code": "invalid_parameter", "message": "b@example.org is odd"}))))
    other = judge(brevo(serve(http(400, {"code": "out_of_range", "message": "a@example.com is odd"}))))

    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert judge(refused(serve)).fingerprint == judge(refused(serve)).fingerprint
    assert len(one.fingerprint) == 12
    assert int(one.fingerprint, 16) >= 0


def test_detail_names_class_code_and_words(serve):
    verdict = judge(brevo(serve(http(402, {"code": "not_enough_credits", "message": "Buy more"}))))

    assert verdict.detail == "AnymailRequestsAPIError HTTP 402 not_enough_credits: Buy more"


def test_detail_of_a_refused_connection_names_the_bottom_of_it(serve):
    detail = judge(refused(serve)).detail

    assert "ConnectionRefusedError" in detail
    assert "Connection refused" in detail


def test_detail_never_quotes_address_link_or_key(serve):
    """Providers echo the address, requests the URL with whatever stands in it."""
    words = "ann@example.net used https://shop.example/activate/MQ/c0ffee-secret with xkeysib-0123456789abcdef0123"
    server = serve(http(400, {"code": "invalid_parameter", "message": words}))

    detail = judge(brevo(server)).detail

    assert "ann" not in detail
    assert "activate" not in detail
    assert "xkeysib" not in detail
    assert "\n" not in detail


def test_detail_is_bounded(serve):
    detail = judge(brevo(serve(http(400, {"code": "x", "message": "long words " * 9000})))).detail

    assert len(detail) <= 500
    assert detail.endswith("…")


# Composers


def order_confirmation() -> None:
    raise LookupError("no order for ann@example.net")


def test_composer_that_raises_is_named_with_its_line():
    verdict = judge_compose(failed(order_confirmation))

    assert (verdict.failure, verdict.fate, verdict.strike) == (FailureClass.COMPOSE, Fate.RESCHEDULE, False)
    assert verdict.detail.startswith("LookupError: no order for <address> (at tests/test_failures.py:")
    assert isinstance(verdict, Verdict)


def test_composer_of_the_site_is_named_rather_than_the_template_engine():
    from django.template.loader import render_to_string

    def composer() -> str:
        return render_to_string("shop/there_is_no_such_template.txt")

    verdict = judge_compose(failed(functools.partial(composer)))

    assert verdict.detail.startswith("TemplateDoesNotExist: shop/there_is_no_such_template.txt")
    assert "test_failures.py" in verdict.detail


def test_composer_error_without_a_place_has_a_verdict():
    assert judge_compose(LookupError("x")).detail == "LookupError: x"


# Time


@given(st.integers(min_value=1, max_value=10_000))
def test_backoff_is_half_fixed_and_half_drawn(strike):
    step = min(5 * 2 ** (strike - 1), 900)

    assert timedelta(seconds=step / 2) <= backoff(strike) <= timedelta(seconds=step)


@given(st.integers(max_value=0))
def test_backoff_of_no_strike_is_that_of_the_first(strike):
    assert timedelta(seconds=2.5) <= backoff(strike) <= timedelta(seconds=5)


def test_backoff_scatters_what_failed_together():
    assert len({backoff(5) for _ in range(50)}) > 40


def test_backoff_follows_the_settings(settings):
    settings.POSTROOM = {**settings.POSTROOM, "BACKOFF_BASE_SECONDS": 1, "BACKOFF_CAP_SECONDS": 2}

    assert backoff(1) <= timedelta(seconds=1)
    assert backoff(30) <= timedelta(seconds=2)


def test_budget_of_strikes_lasts_for_two_to_four_hours():
    total = sum((backoff(strike) for strike in range(1, 25)), timedelta())

    assert timedelta(hours=2) < total < timedelta(hours=4)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 30), (1, 30), (2, 120), (3, 600), (4, 3600), (900, 3600)]
)
def test_composer_is_tried_again_soon_then_hourly(failures, seconds):
    assert compose_backoff(failures) == timedelta(seconds=seconds)


# Redaction

LEAKS = [
    "ann@example.net",
    "<ann@example.net>",
    "'o'brien@example.net'",
    '"ann b"@example.net',
    "ann%40example.net",
    "äöü@exämple.de",
    "root@localhost",
    "ann@[127.0.0.1]",
    "mailto:ann@example.net",
    "https://shop.example/activate/MQ/token/",
    "postgres://user:pw@db/shop",
    "xkeysib-0123456789abcdef0123456789",
    "api-key: hunter22",
    'password="hunter22"',
    "{'secret': 'hunter22'}",
    "Authorization: Basic dXNlcjpwYXNz",
    "Bearer hunter22",
    "c3ab8ff13720e8ad9047dd39466b3c8974e592c2",
]


@pytest.mark.parametrize("leak", LEAKS)
def test_address_link_or_key_is_taken_out(leak):
    text = redact(f"We did not like {leak} today")

    assert text.startswith("We did not like ")
    assert text.endswith(" today")
    for part in (
        "ann",
        "brien",
        "example",
        "localhost",
        "shop",
        "token",
        "pw",
        "0123",
        "hunter",
        "dXNl",
        "3720",
    ):
        assert part not in text


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 400 invalid_parameter: subject is missing",
        "[Errno 111] Connection refused",
        "550 5.1.1 No such user",
    ],
)
def test_what_an_operator_needs_stays(text):
    assert redact(text) == text


@given(
    st.text(st.characters(categories=["L", "N"], include_characters="._+-'"), min_size=1, max_size=64),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,10}){1,3}", fullmatch=True),
    st.text(max_size=50),
)
def test_no_address_survives_whatever_stands_around_it(local, domain, around):
    assert f"{local}@{domain}" not in redact(f"{around} {local}@{domain} {around}")


@given(st.text(max_size=6000))
def test_redacted_text_is_one_short_line(text):
    redacted = redact(text)

    assert len(redacted) <= 500
    assert len(redacted.splitlines()) <= 1


def test_redacting_a_hostile_text_takes_no_time():
    """The text comes from the network: no pattern may be quadratic in it."""
    start = time.thread_time()

    redact("a" * 200_000 + '"' * 200_000 + "@" * 200_000)

    assert time.thread_time() - start < 0.5


def test_engine_judges_without_any_client_library():
    """Anymail and requests are extras: importing failures must not need them."""
    program = (
        "import sys\n"
        "for name in ('anymail', 'requests', 'urllib3'): sys.modules[name] = None\n"
        "import django; from django.conf import settings; settings.configure(); django.setup()\n"
        "from postroom.failures import judge\n"
        "print(judge(ConnectionRefusedError(111, 'no')).failure)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "transient", done.stderr
