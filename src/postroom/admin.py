"""
The tables in Django's admin, to be read only, and the switch.

Every change of state is a verb of ``byhand.py``, offered as an action on the list; to pause is to add
the one row of ``Pause``, and to delete it is to resume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from postroom import ops, outbox
from postroom.admin_verbs import ByHand
from postroom.brakes import MAY_SWITCH
from postroom.failures import redact
from postroom.models import EVIDENCE, DeliveryEvent, EventType, OutboundEmail, Pause, WorkerHeartbeat
from postroom.ops.questions import database
from postroom.ops.search import id_begins_with
from postroom.ops.words import masked, number, person, shown_args

if TYPE_CHECKING:
    _EmailAdmin = admin.ModelAdmin[OutboundEmail]
    _EventAdmin = admin.ModelAdmin[DeliveryEvent]
    _WorkerAdmin = admin.ModelAdmin[WorkerHeartbeat]
    _PauseAdmin = admin.ModelAdmin[Pause]
    _EventInline = admin.TabularInline[DeliveryEvent, OutboundEmail]
else:
    _EmailAdmin = _EventAdmin = _WorkerAdmin = _PauseAdmin = admin.ModelAdmin
    _EventInline = admin.TabularInline


class ReadOnly:
    """Look, but do not touch. Reads the database that is written; counts no further than one page."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the writing database: a replica would tell an older story."""
        rows: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]
        return rows.using(database())


class EventInline(ReadOnly, _EventInline):
    """What happened to one e-mail, in order."""

    model = DeliveryEvent
    extra = 0
    ordering = ("pk",)
    fields = ("at", "type", "attempt", "worker", "mailer", "error_class", "duration_ms", "said", "actor")
    readonly_fields = ("said",)
    verbose_name_plural = _("What happened")

    @admin.display(description=_("detail"))
    def said(self, event: DeliveryEvent) -> str:
        return redact(event.detail)


class ReportFilter(admin.SimpleListFilter):
    """By report: the column borrows its choices from the events, most of which are no reports."""

    title = _("report")
    parameter_name = "report__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return what an e-mail's report can be."""
        return [(report, str(EventType(report).label)) for report in EVIDENCE]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Narrow the list to the report that was chosen."""
        return queryset.filter(report=self.value()) if self.value() else queryset


@admin.register(OutboundEmail)
class OutboundEmailAdmin(ByHand, ReadOnly, _EmailAdmin):
    """The outbox. Addresses are masked, and nothing is shown that could be a link or a secret."""

    list_display = (
        "short_id",
        "kind",
        "to",
        "state",
        "report",
        "attempt",
        "reason",
        "created_at",
        "accepted_at",
    )
    list_filter = ("state", "lane", ReportFilter, "created_at")
    ordering = ("-pk",)
    search_fields = ("uuid",)
    search_help_text = _("The id of an e-mail, or its beginning")
    inlines = (EventInline,)
    fieldsets = (
        (None, {"fields": ("uuid", "kind", "to", "state", "report", "reason", "arguments")}),
        (
            _("Times"),
            {
                "fields": (
                    "created_at",
                    "due_at",
                    "expires_at",
                    "accepted_at",
                    "settled_at",
                    "uncertain_since",
                )
            },
        ),
        (
            _("Delivery"),
            {
                "fields": (
                    "lane",
                    "attempt",
                    "strikes",
                    "losses",
                    "worker",
                    "mailer",
                    "message_id",
                    "on_uncertain",
                ),
                "classes": ("collapse",),
            },
        ),
    )
    readonly_fields = ("to", "arguments")

    @admin.display(description=_("to"))
    def to(self, email: OutboundEmail) -> str:
        return masked(email.recipient) or "-"

    @admin.display(description=_("arguments"))
    def arguments(self, email: OutboundEmail) -> str:
        return ", ".join(f"{name}={value}" for name, value in shown_args(email)) or "-"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[OutboundEmail], search_term: str
    ) -> tuple[QuerySet[OutboundEmail], bool]:
        """Find by the beginning of the id."""
        digits = search_term.strip().replace("-", "").lower()
        if not digits:
            return queryset, False
        try:
            return queryset.filter(id_begins_with(digits, queryset.db)), False
        except ValueError:
            return queryset.none(), False


@admin.register(DeliveryEvent)
class DeliveryEventAdmin(ReadOnly, _EventAdmin):
    """Everything that happened, the newest first."""

    list_display = ("at", "type", "email", "attempt", "worker", "mailer", "error_class", "duration_ms")
    list_filter = ("type", "at")
    list_select_related = ("email",)
    ordering = ("-pk",)
    fields = (
        "email",
        "type",
        "state",
        "at",
        "occurred_at",
        "attempt",
        "worker",
        "mailer",
        "error_class",
        "fingerprint",
        "said",
        "duration_ms",
        "to",
        "message_id",
        "actor",
    )
    readonly_fields = ("said", "to")

    @admin.display(description=_("detail"))
    def said(self, event: DeliveryEvent) -> str:
        return redact(event.detail)

    @admin.display(description=_("to"))
    def to(self, event: DeliveryEvent) -> str:
        return masked(event.recipient) or "-"


@admin.register(WorkerHeartbeat)
class WorkerHeartbeatAdmin(ReadOnly, _WorkerAdmin):
    """The delivery processes; whether they are well, the operator page says in words."""

    list_display = (
        "name",
        "seen_at",
        "last_turn_at",
        "doing",
        "in_hand",
        "concurrency",
        "version",
        "stopped_at",
    )
    ordering = ("-seen_at",)


@admin.register(Pause)
class PauseAdmin(ReadOnly, _PauseAdmin):
    """The switch: add a pause with its reason to stop all sending, delete it to let it go on."""

    list_display = ("paused_at", "who", "why")
    add_form_template = change_form_template = "postroom/admin/pause.html"
    delete_confirmation_template = "postroom/admin/resume.html"
    actions = None

    @admin.display(description=_("by"))
    def who(self, pause: Pause) -> str:
        return person(pause.actor)

    @admin.display(description=_("reason"))
    def why(self, pause: Pause) -> str:
        return redact(pause.reason, limit=200) or "-"

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Say what the form does: "Add pause" and "Save" tell nobody that all mail stops."""
        title = {"title": gettext("Pause all sending")}
        return super().add_view(request, form_url, {**(extra_context or {}), **title})

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Call it what it is: nobody who comes here wants to delete something."""
        title = {"title": gettext("Resume sending?")}
        return super().delete_view(request, object_id, {**(extra_context or {}), **title})

    def get_fields(self, request: HttpRequest, obj: Pause | None = None) -> tuple[str, ...]:
        return ("paused_at", "who", "why") if obj else ("reason",)

    def get_readonly_fields(self, request: HttpRequest, obj: Pause | None = None) -> tuple[str, ...]:
        return ("paused_at", "who", "why") if obj else ()

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm(MAY_SWITCH) and outbox.paused() is None

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm(MAY_SWITCH)

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: bool) -> None:
        """Pause; whoever was first by a moment stays written, and the second one reads so."""
        reason = redact(obj.reason.strip(), limit=200)
        paused = outbox.pause(actor=request.user.get_username(), reason=reason)
        obj.pk, obj.paused_at, obj.actor, obj.reason = (
            paused.pk,
            paused.paused_at,
            paused.actor,
            paused.reason,
        )
        messages.warning(
            request, gettext("Sending is paused by {who}: nothing goes out.").format(who=person(obj.actor))
        )

    def delete_model(self, request: HttpRequest, obj: Pause) -> None:
        outbox.resume(actor=request.user.get_username())
        text = gettext("Sending goes on; {n} due now.").format(n=number(ops.depth()))
        messages.success(request, text)
