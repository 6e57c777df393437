"""From log lines to sentences for the terminal."""

from __future__ import annotations

import pytest

from example.narrator import Narrator, shortened

EMAIL = "7f3a9c2e-0000-4000-8000-000000000000"


def line(event: str, *, state: str = "sending", why: str = "-", ms: str = "-", level: str = "INFO") -> str:
    """Return a line as postroom's log writes it."""
    return (
        f"{level} postroom {event} email={EMAIL} kind=accounts.verification state={state} attempt=1 "
        f"worker=box/40312 mailer=brevo class={why} ms={ms}"
    )


def told(who: str, text: str, *, plays_provider: bool = True) -> str | None:
    sentence = Narrator(plays_provider=plays_provider).tell(who, text)
    return sentence[12:] if sentence else None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (line("claimed"), "worker    7f3a attempt 1"),
        (line("accepted", state="accepted", ms="3012"), "worker    7f3a accepted after 3.0 s"),
        (
            line("accepted", state="accepted", why="duplicate"),
            "worker    7f3a accepted: the provider refused the repeat, so the first had arrived",
        ),
        (
            line("rescued", state="accepted", level="WARNING"),
            "worker    7f3a taken back and closed, not sent again",
        ),
        (
            line("rescued", state="pending", level="WARNING"),
            "worker    7f3a taken back: it may have gone out, so the same key is used again",
        ),
        (line("rescheduled", why="transient"), "worker    7f3a not accepted (transient); again later"),
        (
            line("doubted", state="uncertain", level="WARNING"),
            "worker    7f3a no answer: it may have gone out, so it is not repeated",
        ),
        (
            line("failed", state="failed", why="permanent_message", level="ERROR"),
            "worker    7f3a given up (permanent_message): nothing had gone out",
        ),
    ],
)
def test_arrows_of_the_machine(text: str, sentence: str) -> None:
    assert told("worker", text) == sentence


def test_report_is_told_once_by_the_simulator_that_made_it() -> None:
    assert (
        told("provider", "INFO postroom.provider reported email=7f3a event=delivered")
        == "provider  7f3a delivered"
    )
    assert told("web", line("delivered", state="accepted")) is None
    assert (
        told("web", line("delivered", state="accepted"), plays_provider=False)
        == "web       7f3a delivered (report)"
    )


def test_survival_is_claimed_only_for_what_the_provider_had_taken() -> None:
    """Killed before the request left, the e-mail had not gone out, whatever is reported later."""
    narrator = Narrator(plays_provider=True)
    narrator.tell("provider", "INFO postroom.provider took email=7f3a outcome=accepted")
    narrator.worker_died(["7f3a", "b1b4"])

    survived = narrator.tell("provider", "INFO postroom.provider reported email=7f3a event=delivered")
    other = narrator.tell("provider", "INFO postroom.provider reported email=b1b4 event=delivered")

    assert survived is not None
    assert survived.endswith("7f3a delivered: it had gone out before the worker died")
    assert other is not None
    assert other.endswith("b1b4 delivered")


def test_new_worker_is_introduced_by_what_it_does_first() -> None:
    narrator = Narrator(plays_provider=True)
    narrator.worker_started(40388)

    first = narrator.tell("worker", line("rescued", state="accepted", level="WARNING"))

    assert first is not None
    assert first.endswith("worker    pid 40388; 7f3a taken back and closed, not sent again")
    assert narrator.arrival() is None


def test_new_worker_without_work_says_only_that_it_is_there() -> None:
    narrator = Narrator(plays_provider=True)
    narrator.worker_started(40388)

    arrival = narrator.arrival()

    assert arrival is not None
    assert arrival.endswith("worker    pid 40388")


def test_trouble_of_others_comes_through_without_addresses() -> None:
    text = "ERROR django.request Internal Server Error: to ann@example.com failed"

    assert told("web", text) == "web       Internal Server Error: to <address> failed"
    assert "@" not in shortened("a@b.example <c@d.example> 'e@f.example'")


@pytest.mark.parametrize(
    "text", ["Traceback (most recent call last):", "INFO django.server GET /", "", "INFO postroom "]
)
def test_rest_is_not_worth_a_line(text: str) -> None:
    assert told("web", text) is None
