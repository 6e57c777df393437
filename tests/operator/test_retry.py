"""Retrying many at night: exactly those that were meant, each with the name of who did it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError
from django.utils import timezone

from postroom import byhand, ops, outbox
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.ops.terminal import as_text
from postroom.ops.words import this_person
from tests.operations import MINUTE, accepted, beat, happened, saved
from tests.operator.commands import manage, run

pytestmark = pytest.mark.django_db

KIND = "shop.order_confirmation"


def given_up(*, ago: timedelta = MINUTE, state: State = State.FAILED, **fields: object) -> OutboundEmail:
    """An e-mail that was settled *ago*."""
    values = {"kind": KIND, "reason": "compose", "attempt": 2, **fields}
    email = saved(state, ago=ago + MINUTE, **values)
    OutboundEmail.objects.filter(pk=email.pk).update(settled_at=timezone.now() - ago)
    return email


def state_of(email: OutboundEmail) -> str:
    return OutboundEmail.objects.get(pk=email.pk).state


def test_what_failed_since_then_waits_again_with_the_name_of_who_did_it() -> None:
    beat()
    new, old, other = given_up(), given_up(ago=timedelta(hours=3)), given_up(kind="shop.gift")

    code, text = run("postroom_retry", "--kind", KIND, "--since", "2h")

    assert (code, text) == (0, "1 e-mail waits again.\n")
    assert [state_of(email) for email in (new, old, other)] == ["pending", "failed", "failed"]
    event = DeliveryEvent.objects.get()
    assert (event.email, event.type, event.actor) == (new, EventType.RETRIED, this_person())


def test_hundreds_go_in_batches_and_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    beat()
    monkeypatch.setattr(byhand, "AT_ONCE", 4)
    for _n in range(10):
        given_up()

    assert run("postroom_retry", "--kind", KIND, "--actor", "anna") == (0, "10 e-mails wait again.\n")

    assert set(DeliveryEvent.objects.values_list("actor", flat=True)) == {"anna"}
    assert DeliveryEvent.objects.count() == 10


def test_ctrl_c_says_how_many_were_done(monkeypatch: pytest.MonkeyPatch) -> None:
    beat()
    monkeypatch.setattr(byhand, "AT_ONCE", 2)
    for _n in range(4):
        given_up()
    retry_all = byhand.retry_all

    def pressed(*arguments: object, **options: object) -> Iterator[int]:
        yield next(retry_all(*arguments, **options))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(byhand, "retry_all", pressed)

    code, text = run("postroom_retry", "--kind", KIND)

    assert (code, text) == (130, "Stopped: 2 e-mails wait again. Repeat the command for the rest.")


def test_a_dry_run_shows_what_it_would_be_and_changes_nothing() -> None:
    for _n in range(2):
        given_up()
    given_up(reason="expired", kind="shop.gift")

    code, text = run("postroom_retry", "--dry-run")

    assert code == 0
    first, *groups = text.splitlines()
    assert first == "3 e-mails would wait again. Nothing was changed."
    assert groups[0].split()[:4] == ["2", KIND, "compose", "failed"]
    assert groups[1].split()[:4] == ["1", "shop.gift", "expired", "failed"]
    assert not DeliveryEvent.objects.exists()
    assert set(OutboundEmail.objects.values_list("state", flat=True)) == {"failed"}


def test_only_one_reason_is_retried_where_one_is_named() -> None:
    beat()
    wanted, other = given_up(), given_up(reason="permanent_recipient")

    run("postroom_retry", "--reason", "compose")

    assert [state_of(email) for email in (wanted, other)] == ["pending", "failed"]


def test_failed_alone_is_meant_unless_another_state_is_named() -> None:
    beat()
    emails = {
        state: given_up(
            state=state, **({} if state != State.UNCERTAIN else {"uncertain_since": timezone.now()})
        )
        for state in (State.CANCELLED, State.UNCERTAIN)
    }

    code, text = run("postroom_retry", "--kind", KIND)
    assert (code, text) == (0, "Nothing to retry: no e-mail is failed as asked for.\n")

    code, text = run("postroom_retry", "--kind", KIND, "--state", "cancelled")
    assert (code, text) == (0, "1 e-mail waits again.\n")
    assert {state: state_of(email) for state, email in emails.items()} == {
        State.CANCELLED: "pending",
        State.UNCERTAIN: "uncertain",
    }


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_what_may_arrive_twice_is_said_before_and_after(options: tuple[str, ...]) -> None:
    beat()
    given_up(state=State.UNCERTAIN, uncertain_since=timezone.now())

    code, text = run("postroom_retry", "--state", "uncertain", "--kind", KIND, *options)

    assert code == 0
    assert "may have gone out already, and would then arrive a second time" in text


def test_without_a_choice_it_refuses_to_retry_all_of_three_months() -> None:
    email = given_up()

    code, text = run("postroom_retry")

    assert code == 2
    assert "--kind, --since or --reason" in text
    assert state_of(email) == "failed"


def test_a_typing_error_in_a_name_is_not_told_as_good_news() -> None:
    given_up()

    code, text = run("postroom_retry", "--kind", "shop.oder_confirmation")

    assert code == 2
    assert text == f"No failed e-mail has the kind 'shop.oder_confirmation'. There are: {KIND} (1)."


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("yesterday", "is no time"),
        ("25:00", "is no time"),
        ("2h ago", "is no time"),
        ("99999999999d", "is no time"),
        ("2999-01-01", "has not come yet"),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused_with_an_example(when: str, says: str) -> None:
    email = given_up()

    code, text = run("postroom_retry", "--since", when)

    assert code == 2
    assert says in text
    assert state_of(email) == "failed"


@pytest.mark.parametrize("form", ["%H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "90m", "1.5h"])
def test_a_time_may_be_said_in_each_usual_way(form: str) -> None:
    """02:05 is what stands in the doctor's lines: the latest one, be it yesterday's."""
    beat()
    new, old = given_up(ago=timedelta(hours=1)), given_up(ago=timedelta(hours=2))
    when = timezone.localtime() - timedelta(hours=1.5)

    code, text = run("postroom_retry", "--since", when.strftime(form))

    assert (code, text) == (0, "1 e-mail waits again.\n")
    assert [state_of(email) for email in (new, old)] == ["pending", "failed"]


def test_it_says_when_what_waits_again_is_taken_by_nobody() -> None:
    given_up()
    assert "No delivery process is running." in run("postroom_retry", "--kind", KIND)[1]

    given_up()
    outbox.pause(actor="anna@example.com")
    assert "Sending is paused by a***@example.com." in run("postroom_retry", "--kind", KIND)[1]


def test_a_database_that_gives_up_half_way_is_told_with_what_was_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(byhand, "AT_ONCE", 2)
    for _n in range(4):
        given_up()
    really = byhand._retry
    calls = []

    def second_fails(*args: object, **kwargs: object) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise DatabaseError("disk full, says ann@example.com")
        return really(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(byhand, "_retry", second_fails)

    code, text = run("postroom_retry", "--kind", KIND)

    assert code == 2
    assert text.startswith("2 e-mails wait again; then the database refused: disk full, says <address>")
    assert OutboundEmail.objects.filter(state=State.PENDING).count() == 2


def test_a_site_without_tables_gets_a_sentence_and_no_traceback(scratch: Path) -> None:
    code, text, _seconds = manage(
        "postroom_retry",
        "--kind",
        KIND,
        settings="DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}",
        folder=scratch,
    )

    assert code == 2
    assert "Nothing was retried (no such table" in text
    assert "Traceback" not in text


def test_the_command_that_the_doctor_prints_takes_exactly_what_failed_by_it() -> None:
    """At three in the morning it is copied, not understood."""
    beat()
    accepted(ago=MINUTE, kind="shop.gift")
    for minutes in (90, 30):
        email = given_up(ago=minutes * MINUTE)
        happened(email, EventType.FAILED, ago=minutes * MINUTE, error_class="compose", fingerprint="f")

    lines = [line.strip() for line in as_text(ops.diagnose()).splitlines()]
    (command,) = [line for line in lines if "postroom_retry" in line]
    words = command.partition("manage.py ")[2].split()

    assert run(*words)[1].startswith("2 e-mails would wait again.")
    assert run(*words[:-1]) == (0, "2 e-mails wait again.\n")
