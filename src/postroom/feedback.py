"""
What providers report later, turned into events.

Owns the words of Brevo's reports and how a report finds its e-mail: by our metadata, which also
names e-mails whose acceptance is not known yet, else by the provider's message id; a report that
nobody can place is kept until an acceptance brings that id. Ordering, proof and the second copy
of a report are the business of ``reports.note_all``.

Anymail checks the secret and reads the payload; it is optional, and needed only when the webhook
is called.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from postroom.models import EventType
from postroom.redaction import redact, storable
from postroom.reports import Report, note_all
from postroom.signals import logger

try:
    from anymail.webhooks.brevo import BrevoTrackingWebhookView
except ImportError:  # the extra "brevo" is not installed
    BrevoTrackingWebhookView = View

BREVO_EVENTS: Final[Mapping[str, EventType]] = {
    "request": EventType.REQUESTED,
    "deferred": EventType.DEFERRED,
    "soft_bounce": EventType.SOFT_BOUNCED,
    "delivered": EventType.DELIVERED,
    "opened": EventType.OPENED,
    "unique_opened": EventType.OPENED,
    "proxy_open": EventType.OPENED,
    "unique_proxy_open": EventType.OPENED,
    "click": EventType.OPENED,
    "hard_bounce": EventType.BOUNCED,
    "invalid_email": EventType.BOUNCED,
    "blocked": EventType.REFUSED,
    "error": EventType.BROKEN,
    "spam": EventType.COMPLAINED,
    "complaint": EventType.COMPLAINED,
    "unsubscribe": EventType.UNSUBSCRIBED,
    "unsubscribed": EventType.UNSUBSCRIBED,
}
"""
``event`` in the payload → ours; what is missing is kept as UNKNOWN. Anymail's own reading is not
used: it does not tell a soft bounce from a hard one.
Source: developers.brevo.com/docs/transactional-webhooks (2026-11).
"""

RETRY_AFTER_SECONDS: Final = 60
"""Told to a provider whose report we cannot store. Brevo comes back after 10 min, 1 h, 2 h, 8 h."""

Body = dict[str, Any]
"""One report as Brevo sends it."""


@csrf_exempt
@transaction.non_atomic_requests
def brevo_webhook(request: HttpRequest) -> HttpResponse:
    """
    Take one report of Brevo's, or a batch of them, and answer.

    200 when all are stored, also for the second time. 429 when the database cannot take them:
    Brevo repeats a 429 and a time-out, and forgets a report that met a 5xx. 400 for a body that is
    no report and, from Anymail, for a wrong or missing secret (``ANYMAIL["WEBHOOK_SECRET"]``).
    Raises ImproperlyConfigured where Anymail is not installed.
    """
    if BrevoTrackingWebhookView is View:
        raise ImproperlyConfigured("Brevo's webhook needs Anymail: pip install 'django-postroom[brevo]'")
    response: HttpResponse = _view(request)
    return response


class BrevoReports(BrevoTrackingWebhookView):  # type: ignore[misc]
    """Anymail's webhook, which also takes arrays and stores what it gets."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Store each report, then tell the receivers of Anymail's own signal; theirs are their own errors."""
        self.run_validators(request)
        try:
            events = self.parse_events(request)
        except (ValueError, RecursionError) as error:
            logger.warning("report_unreadable provider=Brevo error=%s", type(error).__name__)
            return HttpResponseBadRequest("This is not a report of Brevo's transactional webhook.\n")
        try:
            note_all([understood(event.esp_event) for event in events])
        except DatabaseFailure as error:
            logger.warning("report_not_stored provider=Brevo error=%s", type(error).__name__)
            return HttpResponse(status=429, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        for event in events:
            self.signal.send_robust(sender=type(self), event=event, esp_name=self.esp_name)
        return HttpResponse()

    def parse_events(self, request: HttpRequest) -> list[Any]:
        """Return the reports as Anymail's events; raises ValueError for a body that holds none."""
        return [self.esp_to_anymail_event(report) for report in read(request.body)]


_view = BrevoReports.as_view()


def read(body: bytes) -> list[Body]:
    """
    Return the reports in the *body* of one request: an object, or the array of a batched webhook.

    Parts that cannot be trusted to have their documented type are put right or left out, so that
    one odd report does not cost a batch of 500. Raises ValueError for anything else.
    """
    content = json.loads(body.decode("utf-8"))
    reports = content if isinstance(content, list) else [content]
    objects = [report for report in reports if isinstance(report, dict) and "event" in report]
    if reports and not objects:
        raise ValueError("no report in it")
    return [_put_right(report) for report in objects]


def understood(body: Body) -> Report:
    """Return what one report of Brevo's means."""
    name = _text(body.get("event"))
    type_ = BREVO_EVENTS.get(name, EventType.UNKNOWN)
    reason = redact(_text(body.get("reason")))
    return Report(
        type=type_,
        dedupe_key=dedupe_key(body),
        uuid=_named_email(body),
        message_id=_text(body.get("message-id")),
        occurred_at=_occurred_at(body),
        recipient=_text(body.get("email")),
        detail=f"{redact(name, limit=60)}: {reason}".rstrip(": ") if type_ == EventType.UNKNOWN else reason,
    )


def dedupe_key(report: Body) -> str:
    """
    Return what makes two copies of a report one: 64 hex digits.

    Brevo gives no id of the event (``id`` is the webhook's), so it is made of what tells events apart.
    """
    at = report.get("ts_event") or report.get("ts_epoch")
    about = report.get("message-id") or _custom(report).get("postroom")
    parts = [
        _text(part) for part in (about, report.get("event"), report.get("email"), at, report.get("link"))
    ]
    return hashlib.sha256(json.dumps(["brevo", *parts]).encode()).hexdigest()


def _named_email(report: Body) -> uuid.UUID | None:
    """Return the name of the e-mail that our metadata gives."""
    try:
        return uuid.UUID(_text(_custom(report).get("postroom")))
    except ValueError:
        return None


def _custom(report: Body) -> Mapping[str, Any]:
    """Return the metadata that Anymail sent along; another sender's may be any text."""
    try:
        custom = json.loads(report["X-Mailin-custom"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return custom if isinstance(custom, dict) else {}


def _occurred_at(report: Body) -> datetime | None:
    """Return when it happened, in UTC. ``date`` and ``ts`` are in the zone of the account: not used."""
    seconds = _epoch(report.get("ts_epoch")) or _epoch(report.get("ts_event"))
    return datetime.fromtimestamp(seconds, tz=UTC) if seconds else None


def _epoch(value: object) -> float | None:
    """Read milliseconds or seconds: documented are the first, but Brevo's own sample shows the second."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    seconds = number / 1000 if number >= 1e12 else number
    return seconds if math.isfinite(seconds) and 0 < seconds < 4e9 else None


def _put_right(report: Body) -> Body:
    """Return *report* with a time in ms and metadata as Anymail expects them, or without."""
    right = {key: value for key, value in report.items() if key not in ("ts_epoch", "X-Mailin-custom")}
    right["event"] = _text(report["event"])
    seconds = _epoch(report.get("ts_epoch"))
    if seconds:
        right["ts_epoch"] = round(seconds * 1000)
    if custom := _custom(report):
        right["X-Mailin-custom"] = json.dumps(custom)
    return right


def _text(value: object) -> str:
    """Return *value* as text that every database takes."""
    return "" if value is None else storable(str(value))
