"""
A few e-mails live through any order of claims, answers, crashes, reports, people and clocks.

The machine plays everybody: workers (some die, some come back late, some answer twice), a provider
whose reports come early, late and again, a person, and a clock that jumps. After every step it
compares the rows with their history, and both with what can be known.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import router
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from postroom import brakes, delivery, outbox, status
from postroom.exceptions import NotAllowed
from postroom.ledger import Result
from postroom.models import EVIDENCE, DeliveryEvent, EventType, OutboundEmail, State
from tests.attempts import KEY_KNOWN, MAILER, NEVER, NO_ANSWER, NOT_NOW, RATE_LIMITED, answer, put

pytestmark = pytest.mark.django_db

HISTORIES, STEPS = 30, 30
HISTORIES_ON_SERVERS = 8
"""Of each: what differs there are the statements, and every history uses all of them."""

PENDING, SENDING, ACCEPTED = State.PENDING.value, State.SENDING.value, State.ACCEPTED.value
FAILED, CANCELLED, UNCERTAIN = State.FAILED.value, State.CANCELLED.value, State.UNCERTAIN.value

ARROWS: dict[str, dict[str, set[str]]] = {
    "claimed": {PENDING: {SENDING}},
    "accepted": {state: {ACCEPTED} for state in State.values},
    "rescheduled": {SENDING: {PENDING}},
    "failed": {SENDING: {FAILED}},
    "withdrawn": {SENDING: {CANCELLED}},
    "doubted": {SENDING: {PENDING, UNCERTAIN}},
    "rescued": {SENDING: {PENDING, UNCERTAIN, ACCEPTED}},
    "cancelled": {PENDING: {CANCELLED}},
    "retried": {state: {PENDING} for state in (FAILED, CANCELLED, UNCERTAIN)},
    "resent": {state: {state} for state in State.values},
    **{
        report: {state: {state, ACCEPTED} if state != SENDING else {SENDING} for state in State.values}
        for report in EVIDENCE
    },
    "unknown": {state: {state} for state in State.values},
    "unsubscribed": {state: {state} for state in State.values},
}
"""What may follow from what: event → state before it → states after it."""

SHOWN = {
    "requested": {"accepted"},
    "deferred": {"deferred"},
    "soft_bounced": {"delayed", "bounced"},
    "delivered": {"delivered"},
    "opened": {"delivered"},
    "verified": {"delivered"},
    "bounced": {"bounced"},
    "refused": {"refused"},
    "broken": {"broken"},
    "complained": {"complained"},
}
"""The strongest report → the words by which a page may show it."""

REPORTS = st.sampled_from([*EVIDENCE, EventType.UNKNOWN, EventType.UNSUBSCRIBED])
SAYINGS = st.sampled_from([None, NO_ANSWER, NO_ANSWER, NOT_NOW, RATE_LIMITED, NEVER, KEY_KNOWN])
JUMPS = st.sampled_from([1, 11, 31, 31, 120, 700, 1500, 4 * 3600, 8 * 86400])


class Lifecycle(RuleBasedStateMachine):
    alias = "default"
    """The database in which they live."""

    hands = Bundle("hands")
    """Claimed e-mails as their workers remember them, long after the claim may have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.now = timezone.now()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(timezone, "now", lambda: self.now)
        if self.alias != "default":
            self.patch.setattr(router, "routers", [self])
            for module in (outbox, brakes):  # the server's own clock does not jump
                self.patch.setattr(module, "clock", lambda using: self.now)
        OutboundEmail.objects.all().delete()
        DeliveryEvent.objects.all().delete()
        self.before: dict[int, OutboundEmail] = {}
        self.unanswered: set[int] = set()
        self.shown_as_sent: set[int] = set()

    def db_for_read(self, model: object, **hints: object) -> str:
        """All live in one database."""
        return self.alias

    db_for_write = db_for_read

    @initialize(keyed=st.booleans(), count=st.integers(1, 2))
    def begin(self, keyed: bool, count: int) -> None:
        self.keyed = keyed
        for _ in range(count):
            put(self.alias)

    # --- what happens ---------------------------------------------------------------------------

    @precondition(lambda self: len(self.before) < 3)
    @rule(
        lane=st.sampled_from(["urgent", "normal", "bulk"]),
        on_uncertain=st.sampled_from(["hold", "repeat"]),
        minutes=st.sampled_from([3, 60, 7 * 24 * 60]),
    )
    def enqueue(self, lane: str, on_uncertain: str, minutes: int) -> None:
        put(self.alias, lane=lane, on_uncertain=on_uncertain, expires_in=timedelta(minutes=minutes))

    @rule(
        target=hands,
        limit=st.integers(1, 3),
        alone=st.booleans(),
        mailer=st.sampled_from([MAILER] * 4 + ["other"]),
    )
    def claim(self, limit: int, alone: bool, mailer: str) -> MultipleResults[OutboundEmail]:
        emails = outbox.claim(limit, worker="host/1", mailer=mailer, keyed=self.keyed, alone=alone)
        assert len(emails) <= limit
        return multiple(*emails)

    @rule(hand=hands, says=SAYINGS, named=st.booleans())
    def answer_comes(self, hand: OutboundEmail, says: Any, named: bool) -> None:
        """In time or late, once or again: the hand is not consumed."""
        message_id = self.message_id(hand.pk, hand.attempt) if named and says is None else ""
        self.settle(answer(hand, says, message_id=message_id))

    @rule(data=st.data(), sayings=st.lists(SAYINGS, min_size=2, max_size=6), seconds=st.integers(0, 60))
    def attempts_follow_each_other(self, data: st.DataObject, sayings: list[Any], seconds: int) -> None:
        """The usual course, without the luck that random claims need to come this far."""
        email = self.draw(data)
        for says in sayings:
            taken = outbox.claim(1, worker="host/3", mailer=MAILER, keyed=self.keyed, only=email.pk)
            for hand in taken:
                self.now += timedelta(seconds=seconds)
                self.settle(answer(hand, says))
                self.nothing_is_said_that_is_not_known()

    @rule(data=st.data(), report=st.none() | REPORTS, pause=st.sampled_from([1, 31]), says=SAYINGS)
    def worker_pauses_before_its_answer(
        self, data: st.DataObject, report: str | None, pause: int, says: Any
    ) -> None:
        """A report may overtake it; after a long pause another worker has the e-mail."""
        email = self.draw(data)
        for hand in outbox.claim(1, worker="host/4", mailer=MAILER, keyed=self.keyed, only=email.pk):
            if report:
                outbox.note(email, report)
                self.nothing_is_said_that_is_not_known()
            self.now += timedelta(seconds=pause)
            outbox.rescue(worker="host/5")
            self.nothing_is_said_that_is_not_known()
            outbox.claim(1, worker="host/5", mailer=MAILER, keyed=self.keyed, only=email.pk)
            self.settle(answer(hand, says))

    @rule(one=hands, other=hands, says=SAYINGS)
    def answers_come_together(self, one: OutboundEmail, other: OutboundEmail, says: Any) -> None:
        if one.pk != other.pk:
            self.settle(answer(one, says), answer(other, NO_ANSWER))

    @rule(hand=hands)
    def composer_withdraws(self, hand: OutboundEmail) -> None:
        self.settle(answer(hand, reason="verified"))

    @rule(hand=hands)
    def worker_prepares(self, hand: OutboundEmail) -> None:
        """No composer of this kind exists; too late and too old a key are found before that matters."""
        ready = delivery.prepare(hand)
        assert isinstance(ready, Result)
        self.settle(ready)

    @rule(hand=hands)
    def worker_renews(self, hand: OutboundEmail) -> None:
        outbox.renew([hand], using=self.alias)

    @rule()
    def rescue(self) -> None:
        """Workers crash by saying nothing; this finds them."""
        outbox.rescue(worker="host/2")

    @rule(seconds=JUMPS)
    def clock_jumps(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(data=st.data(), says=REPORTS, again=st.integers(0, 3), ago=st.integers(0, 600))
    def report_comes(self, data: st.DataObject, says: str, again: int, ago: int) -> None:
        email = self.draw(data)
        known = DeliveryEvent.objects.filter(dedupe_key=f"{says}{again}").exists()
        new = outbox.note(
            email, says, occurred_at=self.now - timedelta(seconds=ago), dedupe_key=f"{says}{again}"
        )
        assert new is not known

    @rule(data=st.data(), says=REPORTS, ahead=st.integers(0, 1))
    def report_comes_by_message_id(self, data: st.DataObject, says: str, ahead: int) -> None:
        """Also before the acceptance that makes the id known."""
        email = self.draw(data)
        outbox.note(None, says, message_id=self.message_id(email.pk, email.attempt + ahead))

    @rule(data=st.data())
    def person_retries(self, data: st.DataObject) -> None:
        email = self.draw(data)
        may = email.state in (FAILED, CANCELLED, UNCERTAIN)
        assert self.allowed(outbox.retry, email) is may

    @rule(data=st.data())
    def person_cancels(self, data: st.DataObject) -> None:
        email = self.draw(data)
        may = email.state == PENDING and email.pk not in self.unanswered
        assert self.allowed(outbox.cancel, email) is may

    @precondition(lambda self: len(self.before) < 3)
    @rule(data=st.data())
    def person_resends(self, data: st.DataObject) -> None:
        outbox.resend(self.draw(data))

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def history_agrees_and_every_arrow_is_legal(self) -> None:
        states = dict.fromkeys(OutboundEmail.objects.values_list("pk", flat=True), PENDING)
        told = DeliveryEvent.objects.filter(email__isnull=False).exclude(state="")  # adopted ones have none
        for pk, type_, after in told.order_by("pk").values_list("email_id", "type", "state"):
            before = states[pk]
            assert after in ARROWS[type_].get(before, set()), f"{before} --{type_}--> {after}"
            states[pk] = after
        assert states == dict(OutboundEmail.objects.values_list("pk", "state"))

    @invariant()
    def nothing_is_said_that_is_not_known(self) -> None:
        rows = {email.pk: email for email in OutboundEmail.objects.all()}
        for pk, email in rows.items():
            if email.uncertain_since:
                self.unanswered.add(pk)
            if pk in self.before:
                self.compare(self.before[pk], email)
            if pk in self.unanswered:
                assert email.state not in (FAILED, CANCELLED)
            self.look_at_the_page(email)
        self.before = rows

    def compare(self, before: OutboundEmail, after: OutboundEmail) -> None:
        assert after.attempt in (before.attempt, before.attempt + 1)
        assert after.report_rank >= before.report_rank
        assert after.message_id or not before.message_id
        assert (after.uuid, after.kind, after.args) == (before.uuid, before.kind, before.args)
        if before.state == ACCEPTED:
            assert after.state == ACCEPTED
            assert after.accepted_at == before.accepted_at
        if before.state == SENDING and before.report_rank:
            assert after.state in (SENDING, ACCEPTED)
        if before.uncertain_since and after.uncertain_since:
            key = ("idempotency_key", "key_used_at", "mailer", "uncertain_since")
            assert [getattr(after, name) for name in key] == [getattr(before, name) for name in key]
        if after.strikes < before.strikes or after.losses < before.losses:
            assert after.reason == "retried"

    def look_at_the_page(self, email: OutboundEmail) -> None:
        shown = status.describe(email)
        if email.report_rank:
            assert shown.detail in SHOWN[email.report]
        if shown.word == "sent":
            self.shown_as_sent.add(email.pk)
        if email.pk in self.shown_as_sent:
            assert shown.word in ("sent", "failed")
            assert shown.error_code != "not_sent" or email.report == "broken"
            assert email.report_rank or shown.word == "sent"

    def teardown(self) -> None:
        """The clock runs out: whatever was left in whichever state comes to an end by itself."""
        try:
            for _ in range(4):
                self.now += timedelta(days=8)
                outbox.rescue(worker="host/2")
                for alone in (False, True):
                    for email in outbox.claim(
                        9, worker="host/2", mailer=MAILER, keyed=self.keyed, alone=alone
                    ):
                        ready = delivery.prepare(email)
                        assert isinstance(ready, Result)
                        self.settle(ready)
                    # After each step, as everywhere: compared over several, an attempt may rise by two.
                    self.history_agrees_and_every_arrow_is_legal()
                    self.nothing_is_said_that_is_not_known()
            assert not OutboundEmail.objects.exclude(
                state__in=[ACCEPTED, FAILED, CANCELLED, UNCERTAIN]
            ).exists()
        finally:
            self.patch.undo()

    # --- tools ----------------------------------------------------------------------------------

    def settle(self, *results: Result) -> None:
        """Refusals count under their own claim alone; whatever ends a proved row ends it accepted."""
        # The outbox writes into the rows it is given; a hand remembers its claim as it was.
        results = tuple(replace(one, email=copy(one.email)) for one in results)
        rows = OutboundEmail.objects.in_bulk([one.email.pk for one in results])
        refusals = [one for one in results if delivery._arrow(one)[0] is not outbox.accept]
        late = {one.email.pk for one in refusals if rows[one.email.pk].claim_id != one.email.claim_id}
        assert all(one.email.claim_id for one in results)

        lost = delivery.settle(results)

        assert {one.email.pk for one in lost} == late

    def draw(self, data: st.DataObject) -> OutboundEmail:
        return data.draw(st.sampled_from(list(OutboundEmail.objects.order_by("pk"))))

    def message_id(self, pk: int, attempt: int) -> str:
        return f"<{pk}.{attempt}@provider>"

    def allowed(self, verb: Any, email: OutboundEmail) -> bool:
        try:
            verb(email)
        except NotAllowed:
            return False
        return True


LIVED = settings(
    max_examples=HISTORIES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.timeout(300)
@pytest.mark.django_db(databases=["default", "postgres", "mariadb"])
@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_lifecycle_on_a_server(database: str) -> None:
    """PostgreSQL casts what it assigns, and MariaDB locks, changes and reads again: other statements, one life."""

    class There(Lifecycle):
        alias = database

    run_state_machine_as_test(There, settings=settings(LIVED, max_examples=HISTORIES_ON_SERVERS))


Lifecycle.TestCase.settings = LIVED
TestLifecycle = pytest.mark.timeout(300)(Lifecycle.TestCase)
