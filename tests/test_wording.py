"""How instants and waits are put into words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from postroom import wording
from postroom.wording import SAYS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "in a moment"), (2, "in a moment"), (4, "in 5 seconds"), (20, "in 20 seconds"),
        (88, "in 90 seconds"), (90, "in 2 minutes"), (899, "in 15 minutes"),
        (3600 * 3, "in 3 hours"), (86400 * 3, "in 3 days"),
    ],
)  # fmt: skip
def test_a_wait_is_told_in_words(seconds: float, words: str) -> None:
    assert wording.wait(seconds) == words


def test_time_of_day_is_the_visitors_and_otherwise_names_its_zone() -> None:
    instant = datetime(2026, 11, 24, 14, 3, tzinfo=UTC)
    now = instant + timedelta(minutes=5)

    assert wording.clock(instant, now, None) == "14:03 UTC"
    assert wording.clock(instant, now, "Asia/Dhaka") == "20:03"
    assert wording.clock(instant, now, ZoneInfo("Europe/Vienna")) == "15:03"


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "", "\x00", "a" * 5000, "Europe"])
def test_zone_that_is_none_is_ignored(name: str) -> None:
    instant = datetime(2026, 11, 24, 14, 3, tzinfo=UTC)

    assert wording.clock(instant, instant, name) == "14:03 UTC"


def test_time_of_another_day_carries_its_date() -> None:
    instant = datetime(2026, 11, 24, 14, 3, tzinfo=UTC)

    assert wording.clock(instant, instant + timedelta(days=1), UTC) == "14:03 on Nov. 24, 2026"


def test_every_text_that_names_something_has_one_for_when_it_is_not_known() -> None:
    """ "It has arrived at " with nothing behind it is worse than a plain sentence."""
    for situation, says in SAYS.items():
        for text, bare in ((says.headline, says.bare_headline), (says.body, says.bare_body)):
            if any(name in str(text) for name in ("{address}", "{domain}", "{at}")):
                assert bare, situation
                assert not any(name in str(bare) for name in ("{address}", "{domain}", "{at}")), situation
