"""A provider that neither answers nor keeps silent."""

from __future__ import annotations

from collections import Counter

import pytest

from postroom import outbox
from postroom.models import DeliveryEvent, EventType, State
from tests.journeys.judging import assert_sound
from tests.journeys.stage import ALIAS, Stage, eventually, start_provider

pytestmark = pytest.mark.timeout(180)


# The senders know nothing of the database: where the loop is tried on all three, the threads are on one.
@pytest.mark.parametrize(
    ("stage", "senders"),
    [("sqlite", "loop"), ("postgresql", "loop"), ("mariadb", "loop"), ("postgresql", "threads")],
    indirect=["stage"],
)
def test_provider_that_drips_is_given_up_after_the_time_of_an_attempt(stage: Stage, senders: str) -> None:
    """
    It takes every e-mail and answers a byte a second, so that no read ever waits for long: only the
    time of the whole attempt ends it. That is no answer, so it goes the way of doubt: the repeat has
    the same key, and another provider, which would take it a second time, is never asked.
    """
    (stage.folder / "second").mkdir()
    second = start_provider(stage.folder / "second")
    stage.processes.append(second.process)
    stage.environment |= {
        "DJANGO_SETTINGS_MODULE": "tests.journeys.perils.site",
        "JOURNEY_SECOND": second.url,
        "JOURNEY_SENDERS": senders,
    }
    stage.provider.mood("drips")
    promised = [outbox.enqueue("journey.hello", {"number": n}, using=ALIAS) for n in range(6)]
    stage.worker("--concurrency", "4", JOURNEY_ATTEMPT="2")

    doubted = DeliveryEvent.objects.using(ALIAS).filter(type=EventType.DOUBTED)
    eventually("all are in doubt", lambda: len(set(doubted.values_list("email_id", flat=True))) == 6)
    assert len(set(stage.provider.accepted())) == 6
    stage.provider.mood("instant")
    eventually("everything is settled", stage.all_settled)

    judgement = assert_sound(stage, promised)
    assert judgement.states == {State.ACCEPTED: 6}
    assert Counter(stage.provider.accepted()) == Counter(str(email.uuid) for email in promised)
    keys = {(call["email"], call["key"]) for call in stage.provider.calls()}
    assert len(keys) == 6
    assert second.calls() == []
    assert {event.detail for event in doubted} >= {"no answer within ATTEMPT_SECONDS"}
