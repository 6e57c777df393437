"""A few seconds of storm with every run of the tests; ``make chaos`` lets it go on for longer."""

from __future__ import annotations

import pytest

from tests.chaos.storm import Plan, rage
from tests.journeys.conftest import stage
from tests.journeys.stage import Stage

__all__ = ["stage"]

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "no-keys"])
def test_storm_of_ten_kills_breaks_no_promise(stage: Stage, keyed: bool) -> None:
    """Four workers, a kill about every half second, a provider with moods; then all is judged."""
    outcome = rage(stage, Plan(kills=10, workers=4, mails=120, seed=20261124, keyed=keyed))

    outcome.judgement.assert_sound()
    assert outcome.judgement.promised > 100
    assert not outcome.judgement.lost
    assert outcome.judgement.taken
