"""What goes over the wire: connections, keys, time-outs and TLS, against real servers on loopback."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.locmem import EmailBackend as InMemory
from pytest_django.fixtures import Settings

from postroom import mailers
from postroom.exceptions import SettingsError
from postroom.failures import FailureClass, judge
from postroom.mailers import Mailer
from tests import servers
from tests.journeys.stage import eventually
from tests.mailbox.far_sides import SMTPServer

SMTP = "django.core.mail.backends.smtp.EmailBackend"
KEY = "9b2c1f0a-6a0e-5d5c-8d58-3b8b1f3f4a10"


class API(ThreadingHTTPServer):
    """Brevo's ``POST /v3/smtp/email``, which counts the connections that it is asked over."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.taken: list[dict[str, Any]] = []
        self.connections: set[int] = set()
        self.status = 201
        self.is_silent, self.over = False, threading.Event()
        self.location = ""
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses our certificate, or goes away, is no news."""

    def mailer(self, **options: Any) -> Mailer:
        url = f"{self.scheme}://127.0.0.1:{self.server_port}/v3/"
        options = {"api_key": "the api key", "api_url": url, **options}
        return Mailer("brevo", {"BACKEND": "anymail.backends.brevo.EmailBackend", "OPTIONS": options})


class Call(BaseHTTPRequestHandler):
    server: API
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.connections.add(self.client_address[1])
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.append(told)
        if self.server.is_silent:
            self.server.over.wait()
        body = json.dumps({"messageId": f"<{len(self.server.taken)}@brevo>", "code": "x"}).encode()
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serving(api: API) -> Iterator[API]:
    thread = threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield api
    api.over.set()
    api.shutdown()
    thread.join()
    api.server_close()


@pytest.fixture
def api() -> Iterator[API]:
    pytest.importorskip("anymail.backends.brevo")
    yield from serving(API())


@pytest.fixture
def mailer(api: API) -> Iterator[Mailer]:
    mailer = api.mailer()
    yield mailer
    mailer.close()


@pytest.fixture
def smtp() -> Iterator[SMTPServer]:
    server = SMTPServer()
    server.controller.start()
    yield server
    server.controller.stop()


def letter(to: str = "ada@example.com", body: str = "Text") -> EmailMessage:
    return EmailMessage("Grüße", body, "shop@example.com", [to])


# --- Brevo's HTTP API, by Anymail ---------------------------------------------------------------


def test_key_goes_into_the_headers_of_the_json(api: API, mailer: Mailer) -> None:
    """There Brevo looks for it, and not among the headers of the request."""
    sent = mailer.send(letter(), KEY)

    assert api.taken[0]["headers"]["idempotencyKey"] == KEY
    assert sent.message_id == "<1@brevo>"
    assert (mailer.provider, mailer.keyed, mailer.reports) == ("Brevo", True, True)


def test_many_messages_go_over_one_connection(api: API, mailer: Mailer) -> None:
    """A TLS handshake for each took longer than the sending."""
    for _ in range(10):
        mailer.send(letter(), KEY)

    assert len(api.taken) == 10
    assert len(api.connections) == 1


def test_connection_is_given_up_after_an_error(api: API, mailer: Mailer) -> None:
    """The rest of a broken answer must not be read as the answer to the next message."""
    mailer.send(letter(), KEY)
    api.status = 500
    with pytest.raises(Exception, match="500"):
        mailer.send(letter(), KEY)
    api.status = 201

    assert mailer.send(letter(), KEY).message_id == "<3@brevo>"
    assert len(api.connections) == 2


def test_connection_that_was_idle_is_opened_anew(
    api: API, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Providers close theirs without a word; what is sent into it then is in doubt."""
    mailer.send(letter(), KEY)
    monkeypatch.setattr(mailers, "IDLE_SECONDS", -1)

    mailer.send(letter(), KEY)

    assert len(api.connections) == 2


def test_redirect_is_not_followed(api: API, mailer: Mailer) -> None:
    """Followed, message and API key would go to a host that nobody configured, and its answer would count."""
    api.status, api.location = 307, f"http://127.0.0.1:{api.server_port}/elsewhere"

    with pytest.raises(Exception, match="redirects") as caught:
        mailer.send(letter(), KEY)

    assert len(api.taken) == 1
    assert judge(caught.value).failure == FailureClass.CONFIG


def test_provider_that_says_nothing_is_doubt_after_the_time_out(api: API) -> None:
    """It had the request: "failed" would be a lie."""
    mailer = api.mailer(timeout=0.2)
    api.is_silent = True

    with pytest.raises(Exception, match=r"(?i)timed out") as error:
        mailer.send(letter(), KEY)

    assert judge(error.value).failure == FailureClass.UNCERTAIN
    eventually("it has the request", lambda: len(api.taken) == 1)
    mailer.close()


def test_time_out_is_ours_unless_the_mailer_names_its_own(api: API, settings: Settings) -> None:
    """SMTP waits for ever by default, Anymail for 30 s; one provider has been seen to take 30."""
    smtp = Mailer("smtp", {"BACKEND": SMTP, "OPTIONS": {"host": "127.0.0.1"}})
    settings.POSTROOM = {**settings.POSTROOM, "SEND_TIMEOUT_SECONDS": 61}

    assert api.mailer().backend.timeout == 61  # type: ignore[attr-defined]
    assert api.mailer(timeout=7).backend.timeout == 7  # type: ignore[attr-defined]
    assert smtp.backend.timeout == 61  # type: ignore[attr-defined]
    assert mailers.build("m", {"BACKEND": f"{InMemory.__module__}.EmailBackend"})


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("There is no openssl on this machine: apt install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


@pytest.fixture
def secure_api(certificate: Path) -> Iterator[API]:
    pytest.importorskip("anymail.backends.brevo")
    mailers._tls_context.cache_clear()
    yield from serving(API(certificate))
    mailers._tls_context.cache_clear()


def test_all_connections_of_a_process_share_one_tls_context(
    secure_api: API, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand sessions, each with the whole bundle of authorities, took 849 MiB."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def counted(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(create(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)

    def send(_: int) -> str:
        mailer = secure_api.mailer()
        try:
            return mailer.send(letter(), KEY).message_id
        finally:
            mailer.close()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(send, range(8)))

    assert all(ids)
    assert len(secure_api.connections) == 8
    assert len(made) == 1


def test_shared_context_still_refuses_an_authority_that_nobody_knows(
    secure_api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharing must not have switched off what TLS is for; nothing left, so it is no doubt either."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    mailer = secure_api.mailer()

    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED") as error:
        mailer.send(letter(), KEY)

    assert secure_api.taken == []
    assert judge(error.value).failure == FailureClass.TRANSIENT
    mailer.close()


# --- SMTP ---------------------------------------------------------------------------------------


def test_smtp_takes_many_messages_over_one_connection(smtp: SMTPServer) -> None:
    mailer = Mailer("smtp", smtp.behind)

    sent = [mailer.send(letter(body="Zeile\n.\n..ü\n"), KEY) for _ in range(3)]
    mailer.close()

    assert len(smtp.taken) == 3
    assert len(smtp.sessions) == 1
    assert [one.message_id for one in sent] == [""] * 3
    assert not mailer.keyed
    content = smtp.taken[0].content
    assert isinstance(content, bytes)
    assert b"idempotencyKey" not in content
    assert smtp.taken[0].rcpt_tos == ["ada@example.com"]


def test_smtp_goes_on_after_a_refused_recipient(smtp: SMTPServer) -> None:
    """The refusal is of that one address; the connection behind it starts clean."""
    mailer = Mailer("smtp", smtp.behind)
    with pytest.raises(Exception, match=r"5\.1\.1") as error:
        mailer.send(letter(to="refused@example.com"), KEY)

    mailer.send(letter(), KEY)
    mailer.close()

    assert judge(error.value).failure == FailureClass.PERMANENT_RECIPIENT
    assert [envelope.rcpt_tos for envelope in smtp.taken] == [["ada@example.com"]]


def test_smtp_server_that_is_away_has_taken_nothing() -> None:
    options = {"host": "127.0.0.1", "port": servers.free_port()}
    mailer = Mailer("smtp", {"BACKEND": SMTP, "OPTIONS": options})

    with pytest.raises(ConnectionRefusedError) as error:
        mailer.send(letter(), KEY)

    assert judge(error.value).failure == FailureClass.TRANSIENT


# --- which mailer -------------------------------------------------------------------------------


def test_every_mailer_is_in_memory_under_the_test_runner() -> None:
    """A test of a site once wrote to its customers."""
    assert hasattr(mail, "outbox")

    assert isinstance(mailers.get("provider").backend, InMemory)
    assert isinstance(mailers.get("whatever it is called").backend, InMemory)


def test_mailers_are_those_of_the_settings_on_either_django(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(mailers, "under_test_runner", lambda: False)
    ours = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}

    assert mailers.names() == ("provider",)
    assert mailers.recipe("provider")["BACKEND"].endswith("locmem.EmailBackend")
    assert mailers.has_mailers() is (django.VERSION >= (6, 1))

    settings.POSTROOM = {"SEND_WITH": ["provider"], "MAILERS": {"provider": ours}}
    assert mailers.recipe("provider") == ours
    with pytest.raises(SettingsError, match=r"no mailer 'gone'.*known: .*provider"):
        mailers.recipe("gone")


def test_mailer_is_kept_for_its_thread_and_changes_with_the_settings(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A connection is nothing that two threads may use at once."""
    monkeypatch.setattr(mailers, "under_test_runner", lambda: False)
    dummy = {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    settings.POSTROOM = {"SEND_WITH": ["one"], "MAILERS": {"one": dummy}}

    mine = mailers.get("one")
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(mailers.get, "one").result()

    assert mailers.get("one") is mine
    assert theirs is not mine
    settings.POSTROOM = {"SEND_WITH": ["one"], "MAILERS": {"one": {**dummy, "OPTIONS": {}}}}
    assert mailers.get("one") is not mine
    mailers.close_all()
