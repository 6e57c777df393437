"""The seven names of the original's ``EmailStatus``, read-only."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from postroom.accounts import verification
from postroom.accounts.email_status import EmailStatus, ReadOnly
from postroom.accounts.management.commands import postroom_purge_accounts
from postroom.accounts.models import Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import ADDRESS, OTHER_PASSWORD, received

pytestmark = pytest.mark.django_db


def status_of(attempt: Registration) -> EmailStatus:
    assert attempt.user is not None
    found = EmailStatus.for_user(attempt.user, "verification")
    assert found is not None
    return found


def test_it_tells_pending_sent_and_completed(attempt: Registration):
    words = [status_of(attempt).status]
    received()
    sent = status_of(attempt)
    words.append(sent.status)
    verification.confirm(attempt, registering_browser=True)
    done = status_of(attempt)

    assert [*words, done.status] == ["pending", "sent", "completed"]
    assert done.sent_at == sent.sent_at is not None
    assert (sent.user, sent.email_type, sent.retry_count, sent.error_message) == (
        attempt.user,
        "verification",
        0,
        None,
    )
    assert sent.created_at <= sent.sent_at


def test_the_confirmed_attempt_is_the_account(attempt: Registration):
    register(ADDRESS, OTHER_PASSWORD)
    verification.confirm(attempt, registering_browser=True)

    assert status_of(attempt).status == "completed"


def test_an_unknown_type_and_an_account_without_registration_have_none(attempt: Registration):
    assert attempt.user is not None
    assert EmailStatus.for_user(attempt.user, "password_reset") is None
    Registration.objects.all().delete()
    assert EmailStatus.for_user(attempt.user) is None


def test_saving_is_refused_with_a_sentence(attempt: Registration):
    with pytest.raises(ReadOnly, match="read-only"):
        status_of(attempt).save()


@pytest.mark.parametrize(
    ("deleted", "says"),
    [
        ((0, 0), "Deleted 0 registrations and 0 unconfirmed accounts.\n"),
        ((1, 1), "Deleted 1 registration and 1 unconfirmed account.\n"),
        ((12, 1), "Deleted 12 registrations and 1 unconfirmed account.\n"),
    ],
)
def test_the_purge_says_what_it_did(
    monkeypatch: pytest.MonkeyPatch, deleted: tuple[int, int], says: str
) -> None:
    monkeypatch.setattr(postroom_purge_accounts, "purge", lambda: deleted)
    out = StringIO()

    call_command("postroom_purge_accounts", stdout=out)

    assert out.getvalue() == says


@pytest.mark.parametrize(
    ("accident", "says"),
    [
        (KeyboardInterrupt(), "Stopped. What is deleted stays so; repeat the command for the rest."),
        (
            OperationalError("disk I/O error\nDETAIL: (ann@example.com)"),
            "The database refuses (disk I/O error). What is deleted stays so; repeat the command for the rest.",
        ),
    ],
)
def test_a_purge_that_is_cut_short_says_so_in_the_words_of_postroom_prune(
    monkeypatch: pytest.MonkeyPatch, accident: BaseException, says: str
) -> None:
    def fail() -> None:
        raise accident

    monkeypatch.setattr(postroom_purge_accounts, "purge", fail)

    with pytest.raises(CommandError) as refused:
        call_command("postroom_purge_accounts")

    assert str(refused.value) == says
