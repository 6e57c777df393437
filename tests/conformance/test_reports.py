"""What others say about an e-mail: in any order, twice, before we know it, and of several people."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from unittest import mock

import pytest
from django.utils import timezone

from postroom import outbox, reports
from postroom.models import EVIDENCE, DeliveryEvent, OutboundEmail, State
from tests.attempts import NEVER, answer, history, put, put_and_take, table, take_again

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])

DAY = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)


def sent(database: str, *, message_id: str = "<1@p>", recipients: int = 1) -> OutboundEmail:
    email = put_and_take(database)
    outbox.accept([answer(email, message_id=message_id, recipient_count=recipients)], using=database)
    return table(email)


def test_report_is_an_event_and_changes_no_state_of_an_accepted_email(database: str) -> None:
    email = sent(database)

    assert outbox.note(email, "delivered", occurred_at=DAY, dedupe_key="k", using=database)

    stored = table(email)
    assert (stored.state, stored.report, stored.reported_at) == (State.ACCEPTED, "delivered", DAY)
    assert history(email)[-1] == "delivered:accepted"


def test_report_that_comes_twice_is_one_event(database: str) -> None:
    """Brevo repeats a webhook that it got no answer to."""
    email = sent(database)

    assert outbox.note(email, "delivered", dedupe_key="same", using=database) is True
    assert outbox.note(email, "delivered", dedupe_key="same", using=database) is False
    assert outbox.note(None, "bounced", dedupe_key="same", using=database) is False

    assert history(email).count("delivered:accepted") == 1
    assert table(email).report == "delivered"


def test_same_reports_give_the_same_answer_in_every_order(database: str) -> None:
    """ "delivered" came before "request", and the page fell back from arrived to sent."""
    reports = [
        ("requested", DAY),
        ("deferred", DAY + timedelta(minutes=1)),
        ("delivered", DAY + timedelta(minutes=2)),
        ("bounced", DAY + timedelta(minutes=3)),
    ]
    ends = set()
    for order in permutations(reports):
        email = sent(database)
        for type_, at in order:
            outbox.note(email, type_, occurred_at=at, using=database)
        stored = table(email)
        ends.add((stored.report, stored.report_rank, stored.reported_at))

    assert ends == {("bounced", 60, DAY + timedelta(minutes=3))}


def test_late_bounce_beats_a_delivery_and_not_the_other_way_round(database: str) -> None:
    email = sent(database)

    outbox.note(email, "bounced", occurred_at=DAY, using=database)
    outbox.note(email, "delivered", occurred_at=DAY + timedelta(hours=1), using=database)

    assert table(email).report == "bounced"


def test_of_two_equally_strong_reports_the_later_counts_by_the_reporters_clock(database: str) -> None:
    email = sent(database)

    outbox.note(email, "refused", occurred_at=DAY + timedelta(hours=1), using=database)
    outbox.note(email, "broken", occurred_at=DAY, using=database)

    assert table(email).report == "refused"


@pytest.mark.parametrize("report", ["unsubscribed", "unknown"])
def test_report_that_proves_nothing_changes_nothing(database: str, report: str) -> None:
    email = put_and_take(database)
    outbox.fail([answer(email, NEVER)], using=database)

    outbox.note(email, report, using=database)

    stored = table(email)
    assert (stored.state, stored.report) == (State.FAILED, "")
    assert history(email)[-1] == f"{report}:failed"


@pytest.mark.parametrize("report", sorted(EVIDENCE))
def test_proof_settles_even_a_failed_row_as_accepted(database: str, report: str) -> None:
    """We believed the refusal, and the provider had it all the same."""
    email = put_and_take(database)
    outbox.fail([answer(email, NEVER)], using=database)

    outbox.note(email, report, using=database)

    stored = table(email)
    assert (stored.state, stored.report) == (State.ACCEPTED, report)
    assert stored.accepted_at is not None


def test_proof_leaves_a_row_in_hand_to_the_one_who_has_it(database: str) -> None:
    """Its worker still talks to the provider; ending the claim under it would lose the answer."""
    email = put_and_take(database)

    outbox.note(email, "requested", using=database)

    stored = table(email)
    assert (stored.state, stored.report) == (State.SENDING, "requested")


def test_report_about_an_email_that_was_never_attempted_proves_nothing(database: str) -> None:
    """A link of an earlier e-mail was used: this one is still to go out, or to be withdrawn."""
    email = put(database)

    outbox.note(email, "verified", using=database)

    stored = table(email)
    assert (stored.state, stored.report) == (State.PENDING, "")
    assert history(email) == ["verified:pending"]


def test_report_before_the_first_attempt_proves_nothing_later_either(database: str) -> None:
    """The next report of any kind weighed it again, and the failed row became "accepted"."""
    email = put(database)
    outbox.note(email, "bounced", using=database)
    outbox.fail([answer(take_again(email), NEVER)], using=database)

    outbox.note(email, "unknown", using=database)

    stored = table(email)
    assert (stored.state, stored.report) == (State.FAILED, "")


def test_report_on_a_row_that_was_claimed_meanwhile_counts(database: str) -> None:
    """The webhook had read the row before the claim; what it proves must not be forgotten later."""
    stale = put(database)
    taken = take_again(stale)
    outbox.note(stale, "delivered", using=database)
    outbox.accept([answer(taken)], using=database)

    outbox.note(stale, "requested", using=database)

    assert table(stale).report == "delivered"


def test_report_finds_its_email_by_the_message_id(database: str) -> None:
    email = sent(database, message_id="<known@p>")

    outbox.note(None, "delivered", message_id="<known@p>", using=database)

    assert table(email).report == "delivered"


def test_report_finds_its_email_by_the_id_of_an_earlier_acceptance(database: str) -> None:
    """Two attempts in doubt were both taken, each under an id of its own; both ids are this e-mail's."""
    email = sent(database, message_id="<first@p>")
    outbox.accept([answer(email, message_id="<second@p>")], using=database)

    outbox.note(None, "delivered", message_id="<first@p>", using=database)

    assert table(email).report == "delivered"


def test_report_before_the_acceptance_is_kept_and_adopted(database: str) -> None:
    """The webhook overtook the answer of the API: the row has no id yet by which it could be found."""
    assert outbox.note(None, "delivered", message_id="<early@p>", dedupe_key="e", using=database)
    assert DeliveryEvent.objects.using(database).get().email is None

    email = sent(database, message_id="<early@p>")

    assert email.report == "delivered"
    assert history(email) == ["delivered:", "claimed:sending", "accepted:accepted"]


def test_report_that_a_killed_process_left_behind_is_adopted_later(database: str) -> None:
    """
    Acceptance and report were committed in the same moment, and whoever should have looked once more
    was killed. The e-mail had arrived, and for ever its page said that nothing was known.
    """
    email = put_and_take(database)
    outbox.note(None, "bounced", message_id="<of-another@account>", using=database)
    outbox.note(None, "delivered", message_id="<1@p>", using=database)
    with mock.patch.object(reports, "_adopt"):
        outbox.accept([answer(email, message_id="<1@p>")], using=database)
    assert table(email).report == ""

    outbox.adopt_left_behind(database)

    assert table(email).report == "delivered"
    assert DeliveryEvent.objects.using(database).get(email=None).message_id == "<of-another@account>"


def test_what_is_left_behind_is_looked_for_among_the_newest_events_only(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million reports about e-mails of others must not be read twice a minute."""
    monkeypatch.setattr(reports, "LOOKED_OVER", 3)
    email = put_and_take(database)
    outbox.note(None, "delivered", message_id="<1@p>", using=database)
    with mock.patch.object(reports, "_adopt"):
        outbox.accept([answer(email, message_id="<1@p>")], using=database)
    for number in range(3):
        outbox.note(None, "bounced", message_id=f"<{number}@another>", using=database)

    outbox.adopt_left_behind(database)

    assert table(email).report == ""


def test_id_that_differs_in_its_capitals_is_another_one(database: str) -> None:
    """For MariaDB both are the same: the acceptance found a report that it could not place, and its worker died."""
    email = put_and_take(database)
    outbox.note(None, "delivered", message_id="<A@P>", using=database)

    outbox.accept([answer(email, message_id="<a@p>")], using=database)

    assert (table(email).state, table(email).report) == ("accepted", "")


def test_reports_of_nobody_do_not_go_to_the_email_without_an_id(database: str) -> None:
    outbox.note(None, "bounced", using=database)

    email = sent(database, message_id="")

    assert email.report == ""


def test_several_recipients_have_the_state_of_the_worst(database: str) -> None:
    """One of two addresses bounced; "delivered" would hide it."""
    email = sent(database, recipients=2)
    outbox.note(email, "delivered", recipient="ada@example.com", occurred_at=DAY, using=database)
    assert table(email).report == "delivered"

    outbox.note(email, "bounced", recipient="bob@example.com", occurred_at=DAY, using=database)
    outbox.note(email, "delivered", recipient="ADA@example.com", occurred_at=DAY, using=database)

    assert table(email).report == "bounced"


def test_several_recipients_wait_for_the_slowest(database: str) -> None:
    email = sent(database, recipients=2)

    outbox.note(email, "delivered", recipient="ada@example.com", using=database)
    outbox.note(email, "deferred", recipient="bob@example.com", using=database)

    assert table(email).report == "deferred"
    outbox.note(email, "delivered", recipient="bob@example.com", using=database)
    assert table(email).report == "delivered"


def test_one_recipient_under_two_spellings_is_one(database: str) -> None:
    """A provider lower-cases addresses in some of its reports."""
    email = sent(database)

    outbox.note(email, "deferred", recipient="Ada@Example.com", using=database)
    outbox.note(email, "delivered", recipient="ada@example.com", using=database)

    assert table(email).report == "delivered"


def test_evidence_of_an_earlier_attempt_survives_a_retry(database: str) -> None:
    """A row is proved, whatever attempts come after it."""
    email = put_and_take(database)
    outbox.fail([answer(email, NEVER)], using=database)
    outbox.retry(email)
    taken = take_again(email)
    outbox.note(email, "delivered", using=database)

    outbox.fail([answer(taken, NEVER)], using=database)

    assert table(email).state == State.ACCEPTED


def test_report_of_a_word_that_does_not_exist_is_refused(database: str) -> None:
    with pytest.raises(ValueError, match="arrived"):
        outbox.note(put(database), "arrived", using=database)
