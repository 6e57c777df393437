"""
Judges a finished run: what was promised, what the provider says, what the tables say, what was logged.

The provider's log is the judge of what was sent, the acknowledged promises of what had to be. The
outbox may claim less than the provider knows (*uncertain*), never more. Knows nothing of how the
run was made, so that every accident can be put before it, and so that it can be shown broken histories.

**Calls and attempts.** Each attempt calls the provider at most once, so calls ≤ claims, for every
e-mail. Exactly one where its event says that the provider answered. None where its event says that
nothing was handed over (the composer failed, the process stood still, it was withdrawn). In between are
the attempts that ended in doubt, and those whose connection failed: they may have called, and nobody
but the provider knows. So, for every e-mail: answered ≤ calls ≤ answered + unanswered; and where no
attempt of a run is unanswered, calls = answered.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from postroom.failures import FailureClass
from postroom.models import EVIDENCE, SETTLED, DeliveryEvent, EventType, OutboundEmail, State

ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)

ARROWS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    EventType.CLAIMED: (frozenset({State.PENDING}), frozenset({State.SENDING})),
    # Evidence wins: an acceptance is written from any state.
    EventType.ACCEPTED: (frozenset(State.values), frozenset({State.ACCEPTED})),
    EventType.RESCHEDULED: (frozenset({State.SENDING}), frozenset({State.PENDING})),
    EventType.FAILED: (frozenset({State.SENDING}), frozenset({State.FAILED})),
    EventType.DOUBTED: (frozenset({State.SENDING}), frozenset({State.PENDING, State.UNCERTAIN})),
    EventType.WITHDRAWN: (frozenset({State.SENDING}), frozenset({State.CANCELLED})),
    EventType.RESCUED: (
        frozenset({State.SENDING}),
        frozenset({State.PENDING, State.UNCERTAIN, State.ACCEPTED}),
    ),
    EventType.CANCELLED: (frozenset({State.PENDING}), frozenset({State.CANCELLED})),
    EventType.RETRIED: (
        frozenset({State.FAILED, State.CANCELLED, State.UNCERTAIN}),
        frozenset({State.PENDING}),
    ),
}
"""From where an arrow may begin, and where it may end."""

ENDS = frozenset(ARROWS) - {EventType.CLAIMED, EventType.CANCELLED, EventType.RETRIED}
"""Events that end an attempt."""

DOUBTS = frozenset({EventType.DOUBTED, EventType.RESCUED})
"""Events that mark an e-mail as uncertain."""

OPEN = frozenset({FailureClass.UNCERTAIN, FailureClass.UNKNOWN, FailureClass.WORKER_LOST})
"""Classes of failure after which the provider may have been called, or not."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything there is to know about a run that has ended."""

    acknowledged: frozenset[str]
    """UUIDs of the e-mails whose transaction committed, as those who enqueued were told."""

    attempted: frozenset[str] = frozenset()
    """Those of which nobody knows whether they were committed: the connection broke in the commit."""

    calls: Sequence[Mapping[str, Any]]
    """The provider's log."""

    emails: Sequence[OutboundEmail]
    events: Sequence[DeliveryEvent]
    logs: Mapping[str, str] = field(default_factory=dict)
    """What every process said, by the name of the process."""

    keyed: bool = True
    """Whether the provider recognises a repeat."""


@dataclass(kw_only=True)
class Judgement:
    """What became of a run: figures for the table, and every broken promise as a sentence."""

    violations: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    twice: int = 0
    """Copies beyond the first."""

    promised: int = 0
    taken: int = 0
    calls: int = 0
    claims: int = 0
    rescued: int = 0
    """E-mails that lost their worker: what was in hand at the kills."""

    unanswered: int = 0
    """Attempts of which only the provider knows whether they called."""

    in_doubt: int = 0
    """Attempts that were put in doubt: those in flight when their worker died or the answer stayed away."""

    marked: int = 0
    """E-mails that were marked as uncertain at some time; without keys only these may arrive twice."""

    states: Counter[str] = field(default_factory=Counter)
    uncertain_and_not_taken: int = 0

    def complain(self, sentence: str) -> None:
        """Note a broken promise."""
        self.violations.append(sentence)

    def assert_sound(self) -> None:
        """Fail with every broken promise, one a line."""
        assert not self.violations, "\n".join(self.violations[:40])


def read(using: str, calls: Sequence[Mapping[str, Any]], **known: Any) -> Run:
    """Return the run whose tables are in the database *using*, with the provider's *calls*."""
    return Run(
        calls=calls,
        emails=list(OutboundEmail.objects.using(using).order_by("pk")),
        events=list(DeliveryEvent.objects.using(using).order_by("pk")),
        **known,
    )


def judge(run: Run) -> Judgement:
    """Return what became of *run*. Violations are what must never be, whatever happened to whom."""
    found = Judgement(promised=len(run.acknowledged), calls=len(run.calls))
    histories = _histories(run)
    calls = _by_email(run.calls)
    found.states = Counter(str(email.state) for email in run.emails)
    _promises(run, found, calls)
    for email in run.emails:
        name = str(email.uuid)
        history = _History(email, histories.get(email.pk, []), calls.get(name, []))
        _path(history, found)
        _account(history, found)
        _truth(history, found)
        _copies(history, found, keyed=run.keyed)
    _strays(run, found)
    _logs(run, found)
    return found


@dataclass(frozen=True)
class _History:
    email: OutboundEmail
    events: list[DeliveryEvent]
    """Its events in the order they were written."""

    calls: list[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.email.uuid} ({self.email.state})"

    @property
    def arrows(self) -> list[DeliveryEvent]:
        return [event for event in self.events if event.type in ARROWS]

    @property
    def told(self) -> str:
        """All of it on one line: who finds a broken promise has nothing else to go by."""
        return " | ".join(
            f"{event.at:%M:%S.%f} {event.type} {event.attempt} by {event.worker or '-'} {event.detail}"
            for event in self.events
        )

    @property
    def reports(self) -> list[DeliveryEvent]:
        return [event for event in self.events if event.type in EVIDENCE]

    @property
    def taken(self) -> int:
        return sum(bool(call["accepted"]) for call in self.calls)

    def attempts(self) -> dict[int, list[DeliveryEvent]]:
        """The ends of every attempt by its number; empty where nothing ended it."""
        ends: dict[int, list[DeliveryEvent]] = {
            event.attempt: [] for event in self.arrows if event.type == EventType.CLAIMED
        }
        for event in self.arrows:
            if event.type in ENDS:
                ends.setdefault(event.attempt, []).append(event)
        return ends

    def late_acceptance(self, attempt: int) -> bool:
        """Whether an earlier attempt was accepted while *attempt* was under way: then that one ends silently."""
        claims = [e for e in self.arrows if e.type == EventType.CLAIMED and e.attempt == attempt]
        return bool(claims) and any(
            event.type == EventType.ACCEPTED and event.attempt < attempt and event.pk > claims[0].pk
            for event in self.arrows
        )


def _histories(run: Run) -> dict[int, list[DeliveryEvent]]:
    found: dict[int, list[DeliveryEvent]] = defaultdict(list)
    for event in sorted(run.events, key=lambda event: event.pk):
        if event.email_id is not None:
            found[event.email_id].append(event)
    return found


def _by_email(calls: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for call in calls:
        found[str(call["email"])].append(call)
    return found


def _promises(run: Run, found: Judgement, calls: Mapping[str, list[Mapping[str, Any]]]) -> None:
    """Nothing lost, nothing invented, everything settled."""
    rows = {str(email.uuid): email for email in run.emails}
    taken = {name for name, of in calls.items() if any(call["accepted"] for call in of)}
    found.taken = len(taken)
    for name in run.acknowledged - rows.keys():
        found.lost.add(name)
        found.complain(f"lost: {name} was acknowledged, and there is no row of it")
    for name, email in rows.items():
        if email.state not in SETTLED:
            found.complain(f"stuck: {name} is {email.state} after the run")
        if email.state == State.ACCEPTED and name not in taken:
            found.lost.add(name)
            found.complain(f"lost: {name} is said to be accepted, and the provider never took it")
        if email.state == State.UNCERTAIN and name not in taken:
            found.uncertain_and_not_taken += 1
    known = run.acknowledged | run.attempted
    found.unexpected = (rows.keys() | calls.keys()) - known
    for name in found.unexpected:
        found.complain(f"unexpected: nobody promised {name!r}")


def _path(history: _History, found: Judgement) -> None:
    """Every change of state has its event, and every event is an arrow that exists."""
    state: str = State.PENDING
    for event in history.arrows:
        begins, ends = ARROWS[event.type]
        if state not in begins or event.state not in ends:
            found.complain(
                f"path: {history.name} went from {state} by {event.type} to {event.state}: {history.told}"
            )
        state = event.state
    proved = bool(history.reports) and history.email.state == State.ACCEPTED
    if history.email.state != state and not proved:
        found.complain(f"path: {history.name} ended as {state} by its events")
    claimed = [event.attempt for event in history.arrows if event.type == EventType.CLAIMED]
    found.claims += len(claimed)
    if claimed != list(range(1, history.email.attempt + 1)):
        found.complain(f"path: {history.name} has attempt {history.email.attempt} and claims {claimed}")
    for attempt, ends_of in history.attempts().items():
        late = history.late_acceptance(attempt)
        if not ends_of and not late and history.email.state != State.SENDING:
            found.complain(f"path: nothing ended attempt {attempt} of {history.name}")
        if len([event for event in ends_of if event.type != EventType.ACCEPTED]) > 1:
            found.complain(f"path: attempt {attempt} of {history.name} ended twice")


def _account(history: _History, found: Judgement) -> None:
    """Calls = attempts that were answered, give or take those of which only the provider knows."""
    attempts = history.attempts()
    answered = sum(any(map(_answered, ends)) for ends in attempts.values())
    unanswered = sum(_may_have_called(ends) for ends in attempts.values())
    calls = len(history.calls)
    found.unanswered += unanswered
    found.rescued += sum(event.type == EventType.RESCUED for event in history.arrows)
    if calls > history.email.attempt:
        found.complain(f"calls: {history.name} was claimed {history.email.attempt} times and called {calls}")
    if not answered <= calls <= answered + unanswered:
        found.complain(
            f"calls: {history.name} called {calls} times; {answered} attempts were answered, "
            f"{unanswered} may have called"
        )


def _answered(event: DeliveryEvent) -> bool:
    """Whether *event* says that the provider was called and answered."""
    if event.type == EventType.WITHDRAWN or event.duration_ms is None:
        return False
    if event.type == EventType.ACCEPTED and not event.error_class:
        return True
    return "HTTP " in event.detail


def _may_have_called(ends: list[DeliveryEvent]) -> bool:
    """Whether only the provider knows if this attempt called it."""
    if any(map(_answered, ends)):
        return False
    if not ends:
        return True
    return any(
        event.type == EventType.RESCUED
        or event.error_class in OPEN
        or (event.error_class == FailureClass.TRANSIENT and event.duration_ms is not None)
        for event in ends
    )


def _truth(history: _History, found: Judgement) -> None:
    """No row says less than its reports prove, and none says that what was taken was not."""
    email = history.email
    if history.taken and email.state in (State.FAILED, State.CANCELLED):
        found.complain(f"evidence: the provider took {history.name}")
    ids = {str(call.get("message_id", "")) for call in history.calls if call["accepted"]}
    if email.message_id and email.message_id not in ids:
        found.complain(f"evidence: {history.name} names an id that the provider never gave it")
    counted = [event for event in history.reports if event.attempt or not event.state]
    strongest = max((EVIDENCE[event.type] for event in counted), default=0)
    if email.recipient_count == 1 and email.report_rank < strongest:
        found.complain(f"evidence: {history.name} has rank {email.report_rank}, a report proves {strongest}")
    if strongest and email.state not in (State.ACCEPTED, State.SENDING):
        found.complain(f"evidence: a report proves that {history.name} was taken")


def _copies(history: _History, found: Judgement, *, keyed: bool) -> None:
    """
    With keys one copy; without, one more for each attempt that was put in doubt, and says so in its history.

    A connection that failed is no doubt: whoever says so claims that nothing had left.
    """
    doubts = sum(any(event.type in DOUBTS for event in ends) for ends in history.attempts().values())
    found.in_doubt += doubts
    found.marked += bool(doubts)
    copies = history.taken - 1
    if copies < 1:
        return
    found.twice += copies
    if keyed:
        found.complain(f"twice: the provider took {history.name} {copies + 1} times, in spite of its key")
    elif copies > doubts:
        found.complain(
            f"twice: {history.name} went out {copies + 1} times, and {doubts} attempts are in doubt"
        )


def _strays(run: Run, found: Judgement) -> None:
    """A report that nobody could place must have been adopted by now."""
    ids = {email.message_id for email in run.emails if email.message_id}
    for event in run.events:
        if event.email_id is None and event.message_id in ids:
            found.complain(f"evidence: the report {event.type} of {event.message_id} was not adopted")


def _logs(run: Run, found: Judgement) -> None:
    """No process may write an address into its log."""
    for name, said in run.logs.items():
        for address in sorted(set(_addresses(said)))[:3]:
            found.complain(f"log: {name} names {address}")


def _addresses(said: str) -> Iterator[str]:
    return (match[0] for match in ADDRESS.finditer(said))
