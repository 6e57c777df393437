"""What the page says about an e-mail, and that it never says more than is known."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom import mailers, status
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.status import Status, describe
from tests.rows import row

ANN = "ann@example.org"
A_MOMENT = timedelta(seconds=1)
AN_HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noon, and stays so: a second more, or a new day, is another thing to say."""
    now = timezone.now().replace(hour=12, minute=0)
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailer that tells what became of an e-mail (the one of the tests does not)."""
    monkeypatch.setattr(status, "_reports", lambda email: True)


def say(email: OutboundEmail, **kwargs: Any) -> Status:
    return describe(email, address=ANN, **kwargs)


SITUATIONS = [
    # what, row, word, detail, headline, a part of the body
    ("just saved", row, "pending", "queued", "Preparing your email", "will go out in a moment"),
    (
        "for tomorrow",
        lambda: row(due_at=timezone.now() + timedelta(days=1, seconds=-5)),
        "pending", "queued", "Your email is saved", "goes out in 24 hours",
    ),
    (
        "overdue by 20 s",
        lambda: row(ago=timedelta(seconds=20)),
        "pending", "late", "This takes longer than usual", "as soon as our mail service runs again",
    ),
    (
        "overdue by 61 s",
        lambda: row(ago=timedelta(seconds=61)),
        "pending", "delayed", "Our mail service is not available", "You can close this page",
    ),
    (
        "our key is refused",
        lambda: row(attempt=1, reason="config", due_at=timezone.now() + timedelta(minutes=1)),
        "pending", "delayed", "Our mail service is not available", "You can close this page",
    ),
    (
        "set aside until an operator has looked: due when it expires",
        lambda: row(reason="stale", due_at=timezone.now() + timedelta(days=6)),
        "pending", "delayed", "Our mail service is not available", "You can close this page",
    ),
    ("in flight", lambda: row(State.SENDING), "pending", "sending", "Sending…", ""),
    (
        "in flight for 31 s",
        lambda: row(State.SENDING, ago=timedelta(seconds=31)),
        "pending", "slow", "Still handing it over", "You need not do anything",
    ),
    (
        "refused for now",
        lambda: row(attempt=2, strikes=2, reason="transient", due_at=timezone.now() + 19.5 * A_MOMENT),
        "pending", "retrying", "Still trying to send", "We try again in 20 seconds",
    ),
    (
        "its composer fails",
        lambda: row(attempt=2, reason="compose", due_at=timezone.now() + timedelta(seconds=118)),
        "pending", "retrying", "Still preparing your email", "We try again in 2 minutes",
    ),
    (
        "a repeat in doubt waits",
        lambda: row(attempt=1, reason="uncertain", uncertain_since=timezone.now()),
        "pending", "uncertain", "Checking whether it went out", "got no receipt",
    ),
    (
        "a repeat in doubt is in flight",
        lambda: row(State.SENDING, attempt=2, uncertain_since=timezone.now()),
        "pending", "uncertain", "Checking whether it went out", "got no receipt",
    ),
    (
        "in doubt, no safe repeat left",
        lambda: row(State.UNCERTAIN, ago=AN_HOUR),
        "pending", "uncertain", "Checking whether it went out", "If two arrive, either is good",
    ),
    (
        "nothing to send any more",
        lambda: row(State.CANCELLED, reason="verified"),
        "pending", "withdrawn", "This message was not sent", "stopped before it went out",
    ),
    (
        "too late, not settled yet",
        lambda: row(ago=timedelta(days=8)),
        "failed", "expired", "This message came too late", "so we did not send it",
    ),
    (
        "too late",
        lambda: row(State.CANCELLED, reason="expired"),
        "failed", "expired", "This message came too late", "so we did not send it",
    ),
    (
        "given up",
        lambda: row(State.FAILED, reason="transient", attempt=24),
        "failed", "failed", "We could not send the email", "Nothing was sent to you. This is our fault.",
    ),
    (
        "refused at the door because of its address",
        lambda: row(State.FAILED, reason="permanent_recipient", attempt=1),
        "failed", "refused", f"{ANN} cannot receive our email", "Check the spelling",
    ),
    (
        "taken by a mailer that reports nothing",
        lambda: row(State.ACCEPTED),
        "sent", "accepted", "Email sent", "We are not told when it arrives",
    ),
    (
        "their server asks to wait",
        lambda: row(State.ACCEPTED, report=EventType.DEFERRED, report_rank=30),
        "sent", "deferred", "Your mail provider asks us to wait", "example.org has not taken the message yet",
    ),
    (
        "soft bounce",
        lambda: row(State.ACCEPTED, ago=AN_HOUR, report=EventType.SOFT_BOUNCED, report_rank=40),
        "sent", "delayed", "Your mail provider has not taken it yet", "It may still arrive",
    ),
    (
        "soft bounce after three days",
        lambda: row(State.ACCEPTED, ago=timedelta(hours=73), report=EventType.SOFT_BOUNCED, report_rank=40),
        "failed", "bounced", "Your mail provider did not take our email", "for three days",
    ),
    (
        "delivered",
        lambda: row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50),
        "sent", "delivered", "It has arrived at example.org", "Look in the inbox",
    ),
    (
        "opened",
        lambda: row(State.ACCEPTED, report=EventType.OPENED, report_rank=51),
        "sent", "delivered", "It has arrived at example.org", "Look in the inbox",
    ),
    (
        "its link was used",
        lambda: row(State.ACCEPTED, report=EventType.VERIFIED, report_rank=90),
        "sent", "delivered", "It has arrived at example.org", "",
    ),
    (
        "hard bounce",
        lambda: row(State.ACCEPTED, report=EventType.BOUNCED, report_rank=60),
        "failed", "bounced", f"{ANN} cannot receive our email", "refuses mail",
    ),
    (
        "suppressed by the provider",
        lambda: row(State.ACCEPTED, report=EventType.REFUSED, report_rank=60),
        "failed", "refused", f"{ANN} cannot receive our email", "refuses mail",
    ),
    (
        "the provider broke it",
        lambda: row(State.ACCEPTED, report=EventType.BROKEN, report_rank=60),
        "failed", "broken", "Our mail service could not deliver the email", "This is our fault",
    ),
    (
        "marked as spam",
        lambda: row(State.ACCEPTED, report=EventType.COMPLAINED, report_rank=70),
        "sent", "complained", "This address asked us not to write", "Use another address",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "word", "detail", "headline", "body"),
    [pytest.param(*rest, id=what) for what, *rest in SITUATIONS],
)
def test_every_situation_has_its_words(make: Any, word: str, detail: str, headline: str, body: str) -> None:
    told = say(make())

    assert (told.word, told.detail, told.headline) == (word, detail, headline)
    assert body in told.body


def test_with_reports_acceptance_promises_that_it_usually_arrives(reporting: None) -> None:
    told = say(row(State.ACCEPTED), time_zone=UTC)

    at = f"{timezone.now() - A_MOMENT:%H:%M}"
    taken = f"Our mail service took the message for {ANN} at {at}."
    assert told.body == f"{taken} It usually arrives within a minute."
    assert not told.terminal


def test_no_report_half_a_minute_after_acceptance_is_called_normal(reporting: None) -> None:
    told = say(row(State.ACCEPTED, ago=timedelta(seconds=31)))

    assert told.detail == "accepted"
    assert told.body.endswith("That no word of its arrival has come back yet is normal.")


def test_alias_that_is_no_longer_configured_reports_nothing() -> None:
    """An e-mail of last year names a mailer that is gone; its page must still open."""
    told = say(row(State.ACCEPTED, mailer="sold-with-the-company"))

    assert "We are not told when it arrives" in told.body


def test_mailer_that_refuses_its_options_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's SMTP backend raises ValueError for TLS and SSL at once: the page of every e-mail was a 500."""

    def refuse(alias: str, recipe: object) -> NoReturn:
        raise ValueError("EMAIL_USE_TLS/EMAIL_USE_SSL are mutually exclusive.")

    monkeypatch.setattr(mailers, "build", refuse)
    mailers.close_all()

    told = say(row(State.ACCEPTED))

    assert "We are not told when it arrives" in told.body


def test_capability_of_the_mailer_that_sent_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talking:
        reports = True

    monkeypatch.setattr(mailers, "trouble", lambda alias: "")
    monkeypatch.setattr(mailers, "get", lambda alias: Talking() if alias == "talking" else None)

    told = say(row(State.ACCEPTED, mailer="talking"))

    assert [step.name for step in told.steps] == ["saved", "sent", "arrived"]


def test_confirmed_address_wins_over_everything() -> None:
    verified_at = timezone.now()

    for _what, make, *_rest in SITUATIONS:
        told = say(make(), verified_at=verified_at)
        assert (told.word, told.headline, told.terminal) == ("completed", "Your address is confirmed", True)
        assert {step.state for step in told.steps} == {"done"}
        assert told.verified_at == verified_at


def test_message_with_a_link_that_came_too_late_says_so() -> None:
    told = say(row(State.CANCELLED, reason="expired"), confirm=True)

    assert told.body == "Its link would no longer work, so we did not send it."


def test_our_blocking_of_an_address_reads_like_a_bounce() -> None:
    """Who types a stranger's address must not learn whether we have suppressed it."""
    bounced = say(row(State.ACCEPTED, report=EventType.BOUNCED, report_rank=60))
    refused = say(row(State.ACCEPTED, report=EventType.REFUSED, report_rank=60))

    assert (bounced.headline, bounced.body, bounced.error_message) == (
        refused.headline, refused.body, refused.error_message,
    )  # fmt: skip
    assert (bounced.error_code, refused.error_code) == ("address_rejected", "blocked")


def test_stored_address_is_never_shown_to_who_did_not_type_it() -> None:
    """The stored spelling of a taken address would tell that there is an account."""
    for _what, make, *_rest in SITUATIONS:
        email = make()
        email.recipient = "Ann.Stored@Example.org"

        told = describe(email)

        assert "Ann" not in told.headline + told.body
        assert "ann.stored" not in json.dumps(told.as_json()).lower()


def test_a_domain_that_nobody_knows_is_paraphrased() -> None:
    told = describe(row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50))

    assert told.headline == "It has arrived at your mail provider"


def test_address_with_braces_is_shown_as_it_is() -> None:
    told = describe(row(), address="{0.__class__}@example.org")

    assert "{0.__class__}@example.org" in told.body


# ---- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(1, 1), (9, 1), (11, 2), (25, 3), (60, 5), (120, 8), (400, 13), (601, 30), (90000, 30)],
)
def test_page_asks_often_at_first_and_ever_less(age: int, seconds: int, reporting: None) -> None:
    assert say(row(State.ACCEPTED, ago=timedelta(seconds=age))).poll_after == seconds


def test_page_asks_soon_after_the_next_attempt_is_due() -> None:
    due_at = timezone.now() + timedelta(seconds=2.5)

    assert say(row(ago=AN_HOUR, attempt=3, strikes=3, due_at=due_at)).poll_after == 4


def test_news_after_a_long_silence_makes_the_page_quick_again() -> None:
    email = row(ago=AN_HOUR, due_at=timezone.now() - A_MOMENT, attempt=3)

    assert say(email).poll_after == 1


@pytest.mark.parametrize(
    ("make", "terminal", "terminal_with_link"),
    [
        (row, False, False),
        (lambda: row(State.SENDING), False, False),
        (lambda: row(State.UNCERTAIN), False, False),
        (lambda: row(State.ACCEPTED), True, False),
        (lambda: row(State.ACCEPTED, report=EventType.DEFERRED, report_rank=30), False, False),
        (lambda: row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50), True, False),
        (lambda: row(State.ACCEPTED, report=EventType.BOUNCED, report_rank=60), True, True),
        (lambda: row(State.FAILED), True, True),
        (lambda: row(State.CANCELLED), True, True),
        (lambda: row(ago=timedelta(days=8)), False, False),
    ],
)
def test_page_stops_asking_when_nothing_more_can_come(
    make: Any, terminal: bool, terminal_with_link: bool
) -> None:
    assert say(make()).terminal is terminal
    assert say(make(), confirm=True).terminal is terminal_with_link


# ---- what only the history tells ---------------------------------------------------------------


def happened(email: OutboundEmail, *types: EventType, at: datetime | None = None) -> None:
    for event_type in types:
        DeliveryEvent.objects.create(
            email=email, type=event_type, attempt=email.attempt, at=at or timezone.now()
        )


@pytest.mark.django_db
def test_slow_counts_from_the_claim_not_from_when_it_was_due() -> None:
    """After an outage a row is claimed long after it was due; it is not slow for that."""
    email = row(State.SENDING, ago=AN_HOUR)
    email.save()
    happened(email, EventType.CLAIMED)

    assert say(email).detail == "sending"


@pytest.mark.django_db
@pytest.mark.parametrize("end", [EventType.FAILED, EventType.CANCELLED, EventType.WITHDRAWN])
def test_operators_retry_of_one_that_was_not_sent_says_that_nothing_had_gone_out(end: EventType) -> None:
    email = row(attempt=24, epoch=1, reason="retried")
    email.save()
    happened(email, EventType.CLAIMED, end, EventType.RETRIED)

    told = say(email)

    assert (told.word, told.headline) == ("pending", "Trying once more")
    assert told.body == "Nothing had gone out; we try again now."


@pytest.mark.django_db
def test_operators_retry_of_an_uncertain_one_does_not_claim_that() -> None:
    email = row(attempt=2, epoch=1, reason="retried")
    email.save()
    happened(email, EventType.CLAIMED, EventType.DOUBTED, EventType.RETRIED)

    told = say(email)

    assert told.headline == "Trying once more"
    assert "Nothing had gone out" not in told.body


@pytest.mark.django_db
def test_what_was_sent_again_as_a_new_email_changes_nothing_that_is_said_of_the_old_one() -> None:
    email = row(attempt=24, epoch=1, reason="retried")
    email.save()
    happened(email, EventType.CLAIMED, EventType.FAILED, EventType.RETRIED, EventType.RESENT)

    assert say(email).headline == "Trying once more"


# ---- steps -------------------------------------------------------------------------------------


def stations(told: Status) -> str:
    return " ".join(f"{step.name}:{step.state}" for step in told.steps)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (row, "saved:done sent:now arrived:todo confirmed:todo"),
        (lambda: row(State.UNCERTAIN), "saved:done sent:now arrived:todo confirmed:todo"),
        (lambda: row(State.ACCEPTED), "saved:done sent:done arrived:now confirmed:todo"),
        (
            lambda: row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50),
            "saved:done sent:done arrived:done confirmed:now",
        ),
        (
            lambda: row(State.ACCEPTED, report=EventType.BOUNCED, report_rank=60),
            "saved:done sent:done arrived:failed confirmed:todo",
        ),
        (lambda: row(State.FAILED), "saved:done sent:failed arrived:todo confirmed:todo"),
        (lambda: row(State.CANCELLED), "saved:done sent:todo arrived:todo confirmed:todo"),
    ],
)
def test_steps_show_how_far_it_is(make: Any, expected: str, reporting: None) -> None:
    assert stations(say(make(), confirm=True)) == expected


def test_without_reports_there_is_no_step_that_would_never_come() -> None:
    assert stations(say(row(State.ACCEPTED), confirm=True)) == "saved:done sent:done confirmed:now"
    assert stations(say(row(State.ACCEPTED))) == "saved:done sent:done"


# ---- properties --------------------------------------------------------------------------------

MOMENTS = st.integers(-400_000, 400_000).map(lambda s: timezone.now() + timedelta(seconds=s))
REASONS = ["", "expired", "compose", "quota", "config", "permanent_recipient", "transient", "verified"]


@st.composite
def rows(draw: st.DrawFn) -> OutboundEmail:
    """Any row at all, also those that the constraints refuse: a description must not depend on them."""
    return OutboundEmail(
        kind=draw(st.text(max_size=20)),
        state=draw(st.sampled_from([*State, "a state of a newer version"])),
        reason=draw(st.sampled_from(REASONS) | st.text(max_size=64)),
        report=draw(st.sampled_from(["", *EventType])),
        report_rank=draw(st.integers(0, 90)),
        attempt=draw(st.integers(0, 40)),
        strikes=draw(st.integers(0, 24)),
        created_at=draw(MOMENTS),
        due_at=draw(MOMENTS),
        expires_at=draw(MOMENTS),
        accepted_at=draw(st.none() | MOMENTS),
        reported_at=draw(st.none() | MOMENTS),
        uncertain_since=draw(st.none() | MOMENTS),
        mailer=draw(st.sampled_from(["", "provider", "gone"])),
        recipient=draw(st.sampled_from(["", ANN, "not an address"])),
    )


ADDRESSES = st.sampled_from(["", ANN, "no at sign", "{}{x}@{y}"])
FEW = settings(max_examples=300, deadline=None)


@FEW
@given(rows(), ADDRESSES, st.booleans())
def test_every_row_has_a_description(email: OutboundEmail, address: str, confirm: bool) -> None:
    told = describe(email, address=address, confirm=confirm)

    assert told.word in ("pending", "sent", "failed", "completed")
    assert told.headline
    assert 1 <= told.poll_after <= 30
    assert (told.error_code is not None) == (told.word == "failed") == (told.error_message is not None)
    assert sum(step.state == "now" for step in told.steps) <= 1
    assert not re.search(r"\{(address|domain|at|wait)\}", told.headline + told.body)
    json.dumps(told.as_json())


@FEW
@given(rows())
def test_nothing_is_called_not_sent_after_a_proof_that_it_was(email: OutboundEmail) -> None:
    told = say(email)

    if email.state == State.ACCEPTED or email.report in status._REPORTED:
        assert told.detail not in ("failed", "expired", "withdrawn")
        assert told.word != "pending"
        assert "Nothing was sent" not in told.body


@FEW
@given(rows())
def test_nothing_is_called_sent_before_that_is_known(email: OutboundEmail) -> None:
    told = say(email)

    if email.state != State.ACCEPTED and not email.report:
        assert told.word != "sent"


@FEW
@given(rows())
def test_doubt_is_never_told_as_failure(email: OutboundEmail) -> None:
    if email.state in (State.PENDING, State.SENDING, State.UNCERTAIN) and email.uncertain_since:
        assert say(email).word != "failed" or email.report


@FEW
@given(rows(), st.text(max_size=30), st.integers(0, 24), ADDRESSES)
def test_word_hangs_on_nothing_that_tells_people_apart(
    email: OutboundEmail, kind: str, attempt: int, address: str
) -> None:
    """Kind, attempts and address differ between a new and a taken address; the word must not."""
    before = describe(email, address=address)
    email.kind, email.attempt = kind, attempt

    assert describe(email, address=ANN).word == before.word


# ---- the API -----------------------------------------------------------------------------------

KEYS = (
    "status detail type created_at sent_at retry_count error_message error_code "
    "headline body can_resend_at poll_after terminal next steps"
)


def test_answer_has_the_keys_of_the_contract() -> None:
    email = row(State.ACCEPTED, attempt=3, created_at=datetime(2026, 11, 24, 14, 2, 51, 999_000, tzinfo=UTC))
    email.accepted_at = datetime(2026, 11, 24, 15, 2, 53, tzinfo=ZoneInfo("Europe/Vienna"))

    answer = say(email, type="verification").as_json()

    assert list(answer) == KEYS.split()
    assert answer["type"] == "verification"
    assert (answer["created_at"], answer["sent_at"]) == ("2026-11-24T14:02:51Z", "2026-11-24T14:02:53Z")
    assert (answer["retry_count"], answer["error_message"], answer["next"]) == (2, None, None)


def test_error_is_a_sentence_of_ours() -> None:
    """The original showed the provider's text to anybody who asked."""
    told = say(row(State.FAILED, reason="transient", attempt=5))

    assert (told.error_code, told.error_message) == ("not_sent", "The message could not be sent.")
