"""
The outbox as tables: one row an e-mail, one row for everything that happened to it.

Owns the words (states, events, lanes), the columns and the constraints that make the
impossible impossible. Who may change a row, and how, is written in ``outbox.py`` alone.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise  # noqa: F401


class State(models.TextChoices):
    """Where an e-mail is. Written by ``outbox.py`` only."""

    PENDING = "pending", _("Pending")
    """Waits for ``due_at``. With ``strikes`` it is being retried, with ``uncertain_since`` repeated in doubt."""

    SENDING = "sending", _("Sending")
    """Claimed by a worker until ``lease_expires_at``."""

    ACCEPTED = "accepted", _("Accepted")
    """
    The provider took responsibility (SMTP 250, or a 2xx from its API).
    This does *not* mean delivered: only a DELIVERED event says that.
    """

    FAILED = "failed", _("Failed")
    """Certainly not accepted, and no attempt is left or none is worth it."""

    CANCELLED = "cancelled", _("Cancelled")
    """Not sent on purpose: ``reason`` says why. Never after an attempt that ended in doubt."""

    UNCERTAIN = "uncertain", _("Uncertain")
    """It may have gone out and cannot be repeated safely. A report, a used link or a person resolves it."""


SETTLED = (State.ACCEPTED, State.FAILED, State.CANCELLED, State.UNCERTAIN)
"""States that no worker leaves by itself."""

UNSETTLED = (State.PENDING, State.SENDING)
"""States in which a worker has something to do, now or later."""


class Lane(models.IntegerChoices):
    """Which e-mails go first."""

    URGENT = 0, _("Urgent")
    """Somebody waits at a page."""

    NORMAL = 1, _("Normal")
    BULK = 2, _("Bulk")


class OnUncertain(models.TextChoices):
    """What to do when an attempt ended without an answer and the mailer knows no idempotency key."""

    HOLD = "hold", _("Hold")
    """Do not repeat: a person or a report decides."""

    REPEAT = "repeat", _("Repeat once")
    """A second copy does no harm (its link is the same): repeat once after 10 minutes."""


class EventType(models.TextChoices):
    """
    What happened. The first block is written by the arrows of the state machine, one event an
    arrow; the second is what others report and never by itself a change of state.
    """

    CLAIMED = "claimed", _("Attempt begun")
    ACCEPTED = "accepted", _("Accepted by the provider")
    RESCHEDULED = "rescheduled", _("Not accepted, tried again later")
    FAILED = "failed", _("Given up")
    DOUBTED = "doubted", _("No answer")
    WITHDRAWN = "withdrawn", _("Not sent on purpose")
    RESCUED = "rescued", _("Taken back from a lost worker")
    CANCELLED = "cancelled", _("Cancelled by hand")
    RETRIED = "retried", _("Retried by hand")
    RESENT = "resent", _("Sent again by hand, as a new e-mail")
    SET_ASIDE = "set_aside", _("Set aside: it had waited for hours while nobody delivered")
    RELEASED = "released", _("Released by hand")

    REQUESTED = "requested", _("Report: taken by the provider")
    DEFERRED = "deferred", _("Report: their server asks to wait")
    SOFT_BOUNCED = "soft_bounced", _("Report: refused for now")
    DELIVERED = "delivered", _("Report: delivered")
    OPENED = "opened", _("Report: opened")
    BOUNCED = "bounced", _("Report: bounced")
    REFUSED = "refused", _("Report: refused by the provider")
    BROKEN = "broken", _("Report: the provider failed")
    COMPLAINED = "complained", _("Report: marked as spam")
    VERIFIED = "verified", _("Its link was used")
    UNSUBSCRIBED = "unsubscribed", _("Report: unsubscribed")
    UNKNOWN = "unknown", _("Report of a kind we do not know")


EVIDENCE: dict[str, int] = {
    EventType.REQUESTED: 20,
    EventType.DEFERRED: 30,
    EventType.SOFT_BOUNCED: 40,
    EventType.DELIVERED: 50,
    EventType.OPENED: 51,
    EventType.BOUNCED: 60,
    EventType.REFUSED: 60,
    EventType.BROKEN: 60,
    EventType.COMPLAINED: 70,
    EventType.VERIFIED: 90,
}
"""
How strong a report is. A higher rank wins, ties by the provider's time; so reports may come in
any order, and twice. Each of them proves that the provider had taken the e-mail.
A late bounce beats a delivery: SES and Brevo do bounce after "delivered".
"""


class OutboundEmailQuerySet(models.QuerySet["OutboundEmail"]):
    """Questions that read as sentences."""

    def due(self, now: Any = None) -> OutboundEmailQuerySet:
        """Rows that a worker may claim now (clock: the database's where it has one, see ``outbox.clock``)."""
        return self.filter(state=State.PENDING, due_at__lte=now or timezone.now())

    def abandoned(self, now: Any = None) -> OutboundEmailQuerySet:
        """
        Rows whose worker has let its lease run out, in the order of a claim.

        The order leads to the index: SQLite with statistics, which say that a state has a million
        rows, would else read the whole table, for a handful, every second.
        """
        rows = self.filter(state=State.SENDING, lease_expires_at__lt=now or timezone.now())
        return rows.order_by("lane", "due_at")

    def settled(self) -> OutboundEmailQuerySet:
        """Rows that no worker will touch again."""
        return self.filter(state__in=SETTLED)


class OutboundEmail(models.Model):
    """
    The promise to send one e-mail.

    Holds *kind and arguments*, not a message: the composer of the kind writes the message at
    sending time, so that links are fresh and no secret lies in the table. The row itself, by
    its ``created_at``, is the event "enqueued".
    """

    id = models.BigAutoField(primary_key=True)
    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    """The name of this e-mail outside the database."""

    kind = models.CharField(max_length=100)
    """Stable name of the composer."""

    args = models.JSONField(default=dict)
    """Keyword arguments of the composer."""

    language = models.CharField(max_length=35, blank=True)
    """Language that was active when the e-mail was enqueued, e.g. ``de-at``; empty: the site's."""

    time_zone = models.CharField(max_length=64, blank=True)
    """Zone that was active when the e-mail was enqueued, e.g. ``Asia/Dhaka``; empty: the site's."""

    lane = models.PositiveSmallIntegerField(choices=Lane.choices, default=Lane.NORMAL)
    on_uncertain = models.CharField(max_length=8, choices=OnUncertain.choices, default=OnUncertain.HOLD)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    reason = models.CharField(max_length=64, blank=True)
    """Why CANCELLED, FAILED or waiting: ``expired``, a composer's word, or the class of the last failure."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    due_at = models.DateTimeField(default=timezone.now)
    """Not before this instant."""

    expires_at = models.DateTimeField()
    """Not after this instant: then it is settled without being sent."""

    settled_at = models.DateTimeField(null=True, blank=True)
    """When the row became ACCEPTED, FAILED, CANCELLED or UNCERTAIN."""

    attempt = models.PositiveIntegerField(default=0)
    """Number of the latest claim. Only rises: it fences late results and numbers the events."""

    strikes = models.PositiveIntegerField(default=0)
    """Attempts that used up the budget (``MAX_STRIKES``)."""

    losses = models.PositiveSmallIntegerField(default=0)
    """Workers that died with this e-mail in hand. Two: claimed alone. Three: given up."""

    claim_id = models.UUIDField(null=True, blank=True)
    """Fencing token of the claim in force."""

    worker = models.CharField(max_length=128, blank=True)
    """Who holds, or last held, the claim: ``host/pid``."""

    lease_expires_at = models.DateTimeField(null=True, blank=True)

    mailer = models.CharField(max_length=64, blank=True)
    """Alias of the mailer of the latest attempt. An e-mail in doubt is never given to another one."""

    epoch = models.PositiveIntegerField(default=0)
    """Rises after every definite refusal and every retry by hand; with ``uuid`` it makes the idempotency key."""

    key_used_at = models.DateTimeField(null=True, blank=True)
    """First use of the key in force; null where the mailer knows no keys."""

    uncertain_since = models.DateTimeField(null=True, blank=True)
    """Since when an attempt stands without an answer; null once it is resolved."""

    accepted_at = models.DateTimeField(null=True, blank=True)
    message_id = models.CharField(max_length=255, blank=True)
    """The provider's id of the message; may stay empty although it was accepted."""

    recipient = models.CharField(max_length=254, blank=True)
    """First recipient, known once the message was composed."""

    recipient_count = models.PositiveIntegerField(default=1)
    report = models.CharField(max_length=16, choices=EventType.choices, blank=True)
    """The strongest report so far (see EVIDENCE); with several recipients that of the worst off."""

    report_rank = models.PositiveSmallIntegerField(default=0)
    reported_at = models.DateTimeField(null=True, blank=True)
    """The reporter's own time of ``report``."""

    resend_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="resends"
    )

    objects: ClassVar[OutboundEmailQuerySet] = OutboundEmailQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("e-mail")
        verbose_name_plural = _("e-mails")
        # A plain index, not a partial one: MariaDB drops the condition of a partial index,
        # and a claim then takes 615 ms at a million finished rows (measured, 2026-11).
        indexes = [
            models.Index(fields=["state", "lane", "due_at"], name="postroom_claim"),
            models.Index(fields=["message_id"], name="postroom_message_id"),
            models.Index(fields=["created_at"], name="postroom_created"),
        ]
        constraints = [
            models.CheckConstraint(
                name="postroom_claimed_iff_sending",
                condition=Q(state="sending", claim_id__isnull=False, lease_expires_at__isnull=False)
                | (~Q(state="sending") & Q(claim_id__isnull=True, lease_expires_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="postroom_settled_has_instant",
                condition=Q(state__in=["pending", "sending"], settled_at__isnull=True)
                | (~Q(state__in=["pending", "sending"]) & Q(settled_at__isnull=False)),
            ),
            models.CheckConstraint(
                name="postroom_accepted_has_instant",
                condition=Q(state="accepted", accepted_at__isnull=False, uncertain_since__isnull=True)
                | (~Q(state="accepted") & Q(accepted_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="postroom_doubt_is_not_refusal",
                condition=~Q(state__in=["failed", "cancelled"]) | Q(uncertain_since__isnull=True),
            ),
            models.CheckConstraint(
                name="postroom_uncertain_has_instant",
                condition=~Q(state="uncertain") | Q(uncertain_since__isnull=False),
            ),
            models.CheckConstraint(name="postroom_known_state", condition=Q(state__in=State.values)),
        ]

    def __str__(self) -> str:
        return f"{self.short_id} {self.kind} {self.state}"

    @property
    def short_id(self) -> str:
        """The first four characters of the UUID, as logs and pages show them."""
        return self.uuid.hex[:4]

    @property
    def is_settled(self) -> bool:
        """Whether no worker will touch this e-mail again."""
        return self.state in SETTLED

    @property
    def idempotency_key(self) -> str:
        """A UUID that stays the same for as long as a repeat may be the same e-mail (row and epoch)."""
        return str(uuid.uuid5(self.uuid, str(self.epoch)))

    def is_expired(self, now: datetime | None = None) -> bool:
        """Whether it is too late to send this e-mail."""
        return self.expires_at <= (now or timezone.now())


class DeliveryEvent(models.Model):
    """
    One thing that happened to an e-mail; only ever appended, in the transaction of the change.

    A report that names an e-mail we do not know yet has no ``email``; acceptance adopts it by
    ``message_id``.
    """

    id = models.BigAutoField(primary_key=True)
    email = models.ForeignKey(OutboundEmail, null=True, on_delete=models.CASCADE, related_name="events")
    type = models.CharField(max_length=16, choices=EventType.choices)
    state = models.CharField(max_length=10, choices=State.choices, blank=True)
    """State of the e-mail after this event."""

    at = models.DateTimeField(default=timezone.now)
    """When we wrote it."""

    occurred_at = models.DateTimeField(null=True, blank=True)
    """When the reporter says it happened; null for our own events."""

    attempt = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=128, blank=True)
    mailer = models.CharField(max_length=64, blank=True)
    error_class = models.CharField(max_length=32, blank=True)
    """Class of the failure, a word of ``failures.FailureClass``."""

    fingerprint = models.CharField(max_length=16, blank=True)
    """Same for failures that look the same, so that a doctor can say "412 of 412 the same"."""

    detail = models.TextField(blank=True)
    """What exactly, without addresses, links or keys."""

    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    """How long the mailer took."""

    recipient = models.CharField(max_length=254, blank=True)
    message_id = models.CharField(max_length=255, blank=True)
    dedupe_key = models.CharField(max_length=64, null=True, blank=True, unique=True)
    """Makes a report that comes twice one event."""

    actor = models.CharField(max_length=150, blank=True)
    """The person behind a change by hand."""

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        indexes = [
            models.Index(fields=["message_id"], name="postroom_event_message_id"),
            models.Index(fields=["type", "at"], name="postroom_event_type_at"),
        ]

    def __str__(self) -> str:
        return f"{self.type} (attempt {self.attempt})"


class WorkerHeartbeat(models.Model):
    """
    One delivery process. Alive is not working: ``seen_at`` is written by a thread of its own,
    ``last_turn_at`` only by the loop that delivers.
    """

    name = models.CharField(max_length=128, primary_key=True)
    """``host/pid``."""

    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    last_turn_at = models.DateTimeField(null=True, blank=True)
    doing = models.CharField(max_length=32, blank=True)
    """What the loop is in: ``claim``, ``compose``, ``settle``, ``idle``."""

    in_hand = models.PositiveIntegerField(default=0)
    concurrency = models.PositiveIntegerField(default=0)
    host = models.CharField(max_length=100, blank=True)
    pid = models.PositiveIntegerField(default=0)
    version = models.CharField(max_length=32, blank=True)
    database = models.CharField(max_length=128, blank=True)
    """Which database it serves, without user and password."""

    fingerprint = models.CharField(max_length=16, blank=True)
    """Digest of SECRET_KEY and SITE_URL: two that differ make links that do not work."""

    stopped_at = models.DateTimeField(null=True, blank=True)
    """Its goodbye; null for a process that runs or was killed."""

    stop_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = _("delivery process")
        verbose_name_plural = _("delivery processes")

    def __str__(self) -> str:
        return self.name


class Pause(models.Model):
    """
    The switch that stops all sending: while its one row exists, nothing is claimed.

    What is in flight finishes, and what is enqueued waits.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    """Always 1: two people who pause at once have paused once."""

    paused_at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=150)
    """The person who paused."""

    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        constraints = [models.CheckConstraint(name="postroom_one_pause", condition=Q(id=1))]

    def __str__(self) -> str:
        # Without the actor: people who log in with their addresses would be named in other logs.
        reason = f": {self.reason}" if self.reason else ""
        return f"paused since {self.paused_at:%Y-%m-%d %H:%M}{reason}"
