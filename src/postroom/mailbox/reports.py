"""
What became of a letter after it left: the events of its e-mail, and reports played by hand.

A report is played the long way: a payload as Brevo posts it, through the webhook that the site has
mounted, with its secret. So it proves the path, and what it does is what a real one would do.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import router
from django.urls import NoReverseMatch, resolve, reverse
from django.utils.translation import gettext_lazy as _

from postroom.models import DeliveryEvent, OutboundEmail

if TYPE_CHECKING:
    from django.utils.functional import Promise

    from postroom.mailbox.store import Letter

WEBHOOK: Final = "postroom_webhooks:brevo"

REPORTS: Final[dict[str, tuple[Promise | str, str, str]]] = {
    "delivered": (_("Delivered"), "delivered", ""),
    "bounced": (_("Bounced"), "hard_bounce", "550 5.1.1 no such mailbox"),
    "deferred": (_("Deferred"), "deferred", "451 4.7.1 greylisted, try again later"),
    "complained": (_("Complained"), "spam", ""),
}
"""Report → the button's word, Brevo's name of the event, the reason that Brevo passes on."""


def email_of(letter: Letter) -> OutboundEmail | None:
    """Return the row in the outbox that the letter was composed for, from the database that is written."""
    if not letter.email_uuid:
        return None
    rows = OutboundEmail.objects.using(router.db_for_write(OutboundEmail))
    return rows.filter(uuid=letter.email_uuid).first()


def history(email: OutboundEmail) -> list[DeliveryEvent]:
    """Return what happened to the e-mail, in the order in which we learned it."""
    return list(DeliveryEvent.objects.using(email._state.db).filter(email=email).order_by("id"))


def can_report(letter: Letter) -> bool:
    """Whether the webhook is mounted and would know which e-mail a report about this letter means."""
    return bool(_webhook_path() and (letter.email_uuid or letter.message_id))


def play(letter: Letter, report: str) -> int:
    """
    Post the report about every recipient to the webhook and return its answer, an HTTP status;
    with several recipients the worst one.
    """
    path = _webhook_path()
    view = resolve(path)
    answers = []
    for recipient in letter.recipients:
        request = _request(path, payload(letter, report, recipient))
        answers.append(int(view.func(request, *view.args, **view.kwargs).status_code))
    return max(answers, default=200)


def payload(letter: Letter, report: str, recipient: str) -> dict[str, object]:
    """
    Return a tracking event in Brevo's shape.

    Source: https://developers.brevo.com/docs/transactional-webhooks, 2026-11. ``id`` is the
    webhook's id, not the event's; ``ts_epoch`` is in milliseconds and the only time in UTC.
    """
    now = time.time()
    _label, event, reason = REPORTS[report]
    told: dict[str, object] = {
        "event": event,
        "email": recipient,
        "id": 1,
        "date": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "ts": int(now),
        "ts_event": int(now),
        "ts_epoch": int(now * 1000),
        "message-id": letter.message_id,
        "subject": letter.subject,
        "sending_ip": "127.0.0.1",
    }
    if letter.email_uuid:
        told["X-Mailin-custom"] = json.dumps({"postroom": letter.email_uuid})
    if reason:
        told["reason"] = reason
    return told


def _webhook_path() -> str:
    try:
        return reverse(WEBHOOK)
    except NoReverseMatch:
        return ""


def _request(path: str, told: dict[str, object]) -> WSGIRequest:
    """Build the request that Brevo would have made."""
    body = json.dumps(told).encode()
    return WSGIRequest(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_AUTHORIZATION": "Basic " + b64encode(_secret().encode()).decode(),
            "wsgi.input": BytesIO(body),
            "wsgi.url_scheme": "http",
        }
    )


def _secret() -> str:
    """Return ``user:password`` of the webhook; where a list allows rotation, the first."""
    anymail = getattr(settings, "ANYMAIL", {})
    secret: Any = anymail.get("WEBHOOK_SECRET") or getattr(settings, "ANYMAIL_WEBHOOK_SECRET", "")
    return str(secret if isinstance(secret, str) else next(iter(secret)))
