"""Pruning by hand, and what is said when it cannot be."""

from __future__ import annotations

import pytest

from postroom import retention
from tests.operator.commands import run


def test_ctrl_c_says_that_nothing_is_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(**_options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "prune_all", press)

    code, text = run("postroom_prune")

    assert code == 130
    assert text == "Stopped. What is deleted stays so; repeat the command for the rest."


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "99999999999"])
def test_a_number_of_days_that_cannot_be_meant_is_refused_with_an_example(days: str) -> None:
    """Three of the four were a traceback."""
    code, text = run("postroom_prune", f"--older-than={days}")

    assert code == 2
    assert "is no number of days ago. Say for example 30." in text
