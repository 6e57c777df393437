"""
"You are trying postroom": six steps on the home page, in development only.

Reads facts (this browser's registration, the events of the outbox), keeps no flags of its own
but the wish to hide it. Its buttons change the provider's mood and kill the worker.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from example import control, terminal
from example.loopback import call, is_loopback
from example.middleware import ANSWERED_IN_MS
from example.moods import FOR_PEOPLE, MOODS
from postroom.accounts import browser
from postroom.accounts.models import AccountEmail, Registration
from postroom.models import DeliveryEvent, EventType, OutboundEmail

HIDDEN = "example_tour_hidden"
LAST_WORDS = 5
ARRIVED = (EventType.DELIVERED, EventType.OPENED, EventType.VERIFIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the strip."""

    name: str
    state: str
    """``done``, ``now`` or ``todo``."""


class Tour:
    """What the strip shows to one browser; asks the database only where the template looks."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def is_hidden(self) -> bool:
        """Whether this browser has had enough of it."""
        return HIDDEN in self._request.session

    @cached_property
    def registration(self) -> Registration | None:
        """The latest registration of this browser."""
        return browser.newest(self._request)

    @cached_property
    def email(self) -> OutboundEmail | None:
        """Its e-mail."""
        return self.registration.email if self.registration else None

    @property
    def answered_in_ms(self) -> int | None:
        """How long the registration took to answer."""
        return self._request.session.get(ANSWERED_IN_MS)

    @cached_property
    def provider_needed(self) -> float | None:
        """Seconds that the provider took for the e-mail, once it has answered."""
        events = (
            self.email.events.filter(type=EventType.ACCEPTED) if self.email else DeliveryEvent.objects.none()
        )
        needed = events.exclude(duration_ms=None).values_list("duration_ms", flat=True).first()
        return needed / 1000 if needed is not None else None

    @cached_property
    def arrived_at(self) -> datetime | None:
        """When we first knew that the e-mail has arrived: the click on its link, minutes later, is another fact."""
        events = self.email.events.filter(type__in=ARRIVED) if self.email else DeliveryEvent.objects.none()
        return events.order_by("at").values_list("at", flat=True).first()

    @cached_property
    def steps(self) -> list[Step]:
        """The six steps; the first that is not done is the one to take now."""
        done = self._done()
        now = next((name for name, is_done in done.items() if not is_done), "")
        return [
            Step(name=name, state="done" if is_done else "now" if name == now else "todo")
            for name, is_done in done.items()
        ]

    def _done(self) -> dict[str, bool]:
        attempt, user = self.registration, self._request.user
        confirmed = bool(attempt and attempt.consumed_at)
        opened = browser.opened(self._request) is not None
        entered = user.is_authenticated or bool(
            confirmed and attempt and attempt.user and attempt.user.last_login
        )
        # Logged in with an address confirmed earlier, in whatever browser; the operator never registered.
        came_in = (
            user.is_authenticated
            and AccountEmail.objects.filter(user=user, verified_at__isnull=False).exists()
        )
        return {
            "register": came_in or attempt is not None,
            "read": came_in or confirmed or opened,
            "confirm": came_in or confirmed,
            "login": entered,
            "break": DeliveryEvent.objects.filter(type=EventType.RESCUED).exists(),
            "operator": get_user_model()
            ._default_manager.filter(is_staff=True, last_login__isnull=False)
            .exists(),
        }

    @cached_property
    def last_words(self) -> list[DeliveryEvent]:
        """The newest events of the outbox, whosever e-mail it is."""
        return list(DeliveryEvent.objects.select_related("email").order_by("-id")[:LAST_WORDS])

    @property
    def can_kill(self) -> bool:
        """Whether there is somebody who kills the worker, and starts another one."""
        return control.is_there()

    @property
    def reaches(self) -> str:
        """Whom e-mails reach: ``nobody`` where the provider is played, ``people``, or empty: who can tell."""
        if terminal.nothing_leaves(settings):
            return "nobody"
        return "people" if terminal.real_mail(settings) else ""

    @property
    def plays_provider(self) -> bool:
        """Whether the provider is one whose mood can be changed: on this machine, and it tells its mood."""
        return is_loopback(_provider_url()) and bool(self.mood)

    @property
    def moods(self) -> dict[str, str]:
        """Name and label of the provider's moods."""
        return {name: MOODS[name].label for name in FOR_PEOPLE}

    @cached_property
    def mood(self) -> str:
        """Label of the mood in force; empty where the provider does not say, because it has none."""
        mood = (_speak("GET") or {}).get("mood")
        return str(mood.get("label", "")) if isinstance(mood, dict) else ""


def context(request: HttpRequest) -> dict[str, Any]:
    """Give every template the ``tour``, in development."""
    return {"tour": Tour(request)} if settings.DEBUG else {}


@require_safe
def strip(request: HttpRequest) -> HttpResponse:
    """Render the strip alone, for the script that keeps it fresh."""
    return render(request, "example/_tour.html", {"tour": Tour(request)})


@require_POST
def hide(request: HttpRequest) -> HttpResponse:
    """Hide the strip, or show it again."""
    if request.session.pop(HIDDEN, None) is None:
        request.session[HIDDEN] = True
    return redirect("home")


@require_POST
def mood(request: HttpRequest) -> HttpResponse:
    """Change how the simulator treats the next e-mails."""
    name = request.POST.get("mood", "")
    if name in FOR_PEOPLE and _speak("POST", {"mood": name}):
        messages.success(request, f"The provider is now: {MOODS[name].label}.")
    else:
        messages.error(request, "The provider did not answer.")
    return redirect("postroom_mailbox:overview" if request.POST.get("from") == "mailbox" else "home")


@require_POST
def kill_worker(request: HttpRequest) -> HttpResponse:
    """Have the supervisor do exactly ``kill -9``."""
    pid = control.kill_worker()
    if pid:
        messages.success(request, f"kill -9 {pid}: the worker is dead. Another one starts in 10 s.")
    else:
        messages.error(request, "No worker runs at the moment; one starts within 10 s.")
    return redirect("home")


def _provider_url() -> str:
    return str(settings.PROVIDER_URL)


def _speak(method: str, wish: dict[str, str] | None = None) -> dict[str, Any] | None:
    """Ask the simulator for its mood, or change it; None where it does not answer."""
    parts = urlsplit(_provider_url())
    body = json.dumps(wish).encode() if wish else None
    headers = {"Content-Type": "application/json"}
    try:
        _status, told = call(
            f"{parts.scheme}://{parts.netloc}/_mood", body, headers=headers, method=method, timeout=2
        )
        answer = json.loads(told)
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
