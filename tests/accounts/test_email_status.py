"""The seven names of the original's ``EmailStatus``, read-only."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from postroom.accounts import verification
from postroom.accounts.email_status import EmailStatus, ReadOnly
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


def test_the_purge_says_what_it_did(attempt: Registration):
    out = StringIO()

    call_command("postroom_purge_accounts", stdout=out)

    assert out.getvalue() == "0 registrations and 0 unconfirmed accounts deleted.\n"
