"""The checker must be able to fail: each test gives it one history that must never be."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from tests.chaos.checker import Judgement, Run, judge

NAME = uuid.UUID("12345678-1234-4234-8234-123456789abc")
NUMBERS = itertools.count(1)


def email(state: State, *, attempt: int = 1, **fields: Any) -> OutboundEmail:
    return OutboundEmail(pk=7, uuid=NAME, kind="k", state=state, attempt=attempt, **fields)


def event(type_: EventType, state: str, attempt: int = 1, **fields: Any) -> DeliveryEvent:
    return DeliveryEvent(pk=next(NUMBERS), email_id=7, type=type_, state=state, attempt=attempt, **fields)


def claimed(attempt: int = 1) -> DeliveryEvent:
    return event(EventType.CLAIMED, State.SENDING, attempt)


def accepted(attempt: int = 1, **fields: Any) -> DeliveryEvent:
    return event(EventType.ACCEPTED, State.ACCEPTED, attempt, **{"duration_ms": 5, **fields})


def call(*, taken: bool = True, name: str = str(NAME)) -> dict[str, Any]:
    return {"email": name, "accepted": taken, "message_id": "<1@x>" if taken else ""}


def run(row: OutboundEmail, events: Sequence[DeliveryEvent], calls: Sequence[dict[str, Any]]) -> Run:
    return Run(acknowledged=frozenset({str(NAME)}), calls=calls, emails=[row], events=events)


def good() -> Run:
    return run(email(State.ACCEPTED, message_id="<1@x>"), [claimed(), accepted()], [call()])


def rescued_and_repeated(*, keyed: bool = True) -> Run:
    """The first attempt was killed after the provider took it, the second went out again."""
    events = [claimed(), event(EventType.RESCUED, State.PENDING), claimed(2), accepted(2)]
    return replace(run(email(State.ACCEPTED, attempt=2), events, [call(), call()]), keyed=keyed)


def complaints(judgement: Judgement) -> set[str]:
    return {sentence.partition(":")[0] for sentence in judgement.violations}


def test_sound_history_has_nothing_to_complain_of() -> None:
    found = judge(good())

    assert found.violations == []
    assert (found.promised, found.taken, found.calls, found.claims, found.twice) == (1, 1, 1, 1, 0)


def test_killed_attempt_may_have_called_or_not() -> None:
    """Its RESCUED event cannot say it: one call and two are both sound."""
    two = rescued_and_repeated(keyed=False)

    assert judge(two).violations == []
    assert (judge(two).twice, judge(two).in_doubt, judge(two).marked) == (1, 1, 1)
    assert judge(replace(two, calls=[call()])).violations == []


def test_late_acceptance_ends_the_attempt_of_another_worker_silently() -> None:
    events = [claimed(), event(EventType.RESCUED, State.PENDING), claimed(2), accepted(1)]

    assert judge(run(email(State.ACCEPTED, attempt=2), events, [call(), call(taken=False)])).violations == []


def broken() -> dict[str, tuple[str, Run]]:
    """By name: what the checker has to say, and a run that must never be."""
    row, sent = email(State.ACCEPTED), [claimed(), accepted()]
    refused = event(EventType.RESCHEDULED, State.PENDING, duration_ms=3, detail="E HTTP 503: later")
    broke_off = event(EventType.RESCHEDULED, State.PENDING, duration_ms=3, error_class="transient")
    failed = event(EventType.FAILED, State.FAILED, duration_ms=3, detail="E HTTP 400: no")
    report = event(EventType.DELIVERED, State.PENDING)
    stray = DeliveryEvent(pk=next(NUMBERS), type=EventType.DELIVERED, message_id="<1@x>")
    waiting = [claimed(), refused]
    return {
        "no row": ("lost", replace(good(), emails=[], events=[])),
        "accepted but never taken": ("lost", run(row, sent, [call(taken=False)])),
        "still pending": ("stuck", run(email(State.PENDING), waiting, [call(taken=False)])),
        "still sending": ("stuck", run(email(State.SENDING), [claimed()], [])),
        "sent by nobody": ("unexpected", replace(good(), acknowledged=frozenset())),
        "call of a stranger": ("unexpected", replace(good(), calls=[call(), call(name="other")])),
        "twice with a key": ("twice", rescued_and_repeated()),
        "twice without doubt": (
            "twice",
            replace(
                run(email(State.ACCEPTED, attempt=2), [claimed(), refused, claimed(2), accepted(2)], []),
                calls=[call(), call()],
                keyed=False,
            ),
        ),
        "twice after a connection that failed": (
            "twice",
            replace(
                run(email(State.ACCEPTED, attempt=2), [claimed(), broke_off, claimed(2), accepted(2)], []),
                calls=[call(), call()],
                keyed=False,
            ),
        ),
        "more calls than claims": ("calls", run(row, sent, [call(), call(taken=False)])),
        "answer without a call": ("calls", run(row, sent, [])),
        "taken but failed": ("evidence", run(email(State.FAILED), [claimed(), failed], [call()])),
        "id of nobody": ("evidence", run(email(State.ACCEPTED, message_id="<2@x>"), sent, [call()])),
        "proved but failed": (
            "evidence",
            run(email(State.FAILED), [claimed(), report, failed], [call(taken=False)]),
        ),
        "less than its reports": (
            "evidence",
            run(
                email(State.ACCEPTED, report_rank=20),
                [*sent, event(EventType.DELIVERED, State.ACCEPTED)],
                [call()],
            ),
        ),
        "report not adopted": (
            "evidence",
            replace(good(), events=[*good().events, stray]),
        ),
        "change without event": ("path", run(row, [claimed()], [call()])),
        "event without change": ("path", run(email(State.FAILED), sent, [call()])),
        "claimed twice": ("path", run(email(State.ACCEPTED, attempt=2), [claimed(), *sent], [call()])),
        "claim not written": ("path", run(email(State.ACCEPTED, attempt=2), sent, [call()])),
        "attempt ended twice": (
            "path",
            run(email(State.PENDING), [claimed(), refused, refused], [call(taken=False)]),
        ),
        "address in a log": ("log", replace(good(), logs={"worker": "accepted for ann@example.com"})),
    }


@pytest.mark.parametrize("name", sorted(broken()))
def test_checker_sees_a_history_that_must_never_be(name: str) -> None:
    complaint, history = broken()[name]

    assert complaint in complaints(judge(history))


def test_broken_promise_fails_the_test_that_asks() -> None:
    with pytest.raises(AssertionError, match="lost: "):
        judge(replace(good(), emails=[], events=[])).assert_sound()
