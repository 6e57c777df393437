"""The far sides that the recorder is tried against: a real SMTP server, and Brevo's API on loopback."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from aiosmtpd.controller import Controller
from django.core.mail import EmailMessage, EmailMultiAlternatives

from postroom.mailbox.recorder import EmailBackend
from tests import servers

if TYPE_CHECKING:
    from pathlib import Path

    from aiosmtpd.smtp import SMTP, Envelope, Session

PATIENCE_SECONDS = 60
"""How long a far side may take; its threads share this process with whoever asks."""

EVIL_SUBJECT = "<script>document.title='taken'</script>"
EVIL_HTML = """<!doctype html><html><head></head><body><h1 id="read">Hello</h1>
<script>document.title = "taken"; parent.document.title = "taken"; document.body.id = "ran"</script>
<img src="/accounts/activate/picture/fetched/" onerror="document.body.id = 'ran'">
<a id="link" href="/accounts/activate/MQ/abc-def/">Confirm</a>
<form method="post" action="/mailbox/clear/"><button id="clear">Clear</button></form>
<iframe src="javascript:parent.document.body.id = 'ran'"></iframe>
<base href="https://evil.example/"></body></html>"""


class SMTPServer:
    """Takes every message, except those to an address that begins with ``refused``."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.sessions: set[int] = set()
        self.controller = Controller(
            self, hostname="127.0.0.1", port=servers.free_port(), ready_timeout=PATIENCE_SECONDS
        )

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken.append(envelope)
        self.sessions.add(id(session))
        return "250 Message accepted for delivery"

    @property
    def behind(self) -> dict[str, Any]:
        """What the recorder is told to have behind it."""
        return {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "127.0.0.1", "port": self.controller.port, "timeout": PATIENCE_SECONDS},
        }


class BrevoServer(ThreadingHTTPServer):
    """Brevo's ``POST /v3/smtp/email``: 201 with an id of its own, or the status in ``mood``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BrevoRequest)
        self.taken: list[dict[str, Any]] = []
        self.mood = 201

    @property
    def behind(self) -> dict[str, Any]:
        """What the recorder is told to have behind it."""
        url = f"http://127.0.0.1:{self.server_address[1]}/v3/"
        return {
            "BACKEND": "anymail.backends.brevo.EmailBackend",
            "OPTIONS": {"api_key": "a key of the tests", "api_url": url},
        }


class BrevoRequest(BaseHTTPRequestHandler):
    """One request to the API."""

    server: BrevoServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.mood == 201:
            self.server.taken.append(told)
            answer = {"messageId": f"<{len(self.server.taken)}@smtp-relay.mailin.fr>"}
        else:
            answer = {"code": "unauthorized", "message": "Key not found"}
        body = json.dumps(answer).encode()
        self.send_response(self.server.mood)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def recorder(path: Path, behind: dict[str, Any] | None) -> EmailBackend:
    """Build the recorder as a mailer called ``post`` would."""
    return EmailBackend(path=path, behind=behind, alias="post")


def message(
    to: str = "ann@example.com", subject: str = "Please activate your account", **more: Any
) -> EmailMessage:
    """Compose a message with a text and an HTML part."""
    text = "Hello,\n\nhttp://testserver/accounts/activate/MQ/abc-def/\n"
    composed = EmailMultiAlternatives(subject, text, "Shop <shop@example.com>", [to], **more)
    composed.attach_alternative(
        "<!doctype html><html><head></head><body><p>Hello</p></body></html>", "text/html"
    )
    return composed


def evil() -> EmailMessage:
    """Compose a message that tries what an e-mail may try."""
    composed = EmailMultiAlternatives(
        EVIL_SUBJECT, "<b>text</b>", "Shop <shop@example.com>", ["ann@example.com"]
    )
    composed.attach_alternative(EVIL_HTML, "text/html")
    return composed
