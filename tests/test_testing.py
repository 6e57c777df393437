"""What sites get for their own tests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail
from django.test import TestCase
from django.utils import timezone

from postroom import outbox
from postroom.models import State
from postroom.testing import deliver_one, drain, enqueued, let_time_pass
from tests.attempts import NO_ANSWER, answer, put, put_and_take, table


class SiteTests(TestCase):
    """As a site would write them: no captureOnCommitCallbacks, no worker, no sleep."""

    def test_mail_is_enqueued_and_then_delivered(self) -> None:
        first = put("default")
        outbox.enqueue("postroom.test", {"address": "ada@example.com", "asked_at": "now"})

        assert [email.kind for email in enqueued()] == ["tests.letter", "postroom.test"]
        assert enqueued("tests.letter") == [first]
        assert mail.outbox == []

        (trial,) = enqueued("postroom.test")
        deliver_one(trial)

        assert [message.to for message in mail.outbox] == [["ada@example.com"]]
        assert enqueued("postroom.test") == []

    def test_time_passes_without_waiting(self) -> None:
        put("default", due_at=timezone.now() + timedelta(hours=1))
        assert drain() == 0

        let_time_pass(timedelta(hours=1, minutes=1))

        assert drain() == 1

    def test_what_expires_has_expired(self) -> None:
        email = put("default", expires_in=timedelta(hours=1))

        let_time_pass(timedelta(hours=2))
        drain()

        assert (table(email).state, table(email).reason) == (State.CANCELLED, "expired")


@pytest.mark.django_db
def test_time_that_passes_takes_the_key_window_and_the_lease_along() -> None:
    email = put_and_take("default")
    let_time_pass(timedelta(minutes=1))
    assert outbox.rescue(worker="host/2") == [email]

    let_time_pass(timedelta(minutes=26))

    assert outbox.key_has_expired(table(email))


@pytest.mark.django_db
def test_time_that_passes_makes_settled_emails_older_too() -> None:
    """Pages and retention count from when it was settled."""
    email = put_and_take("default")
    outbox.accept([answer(email)])
    outbox.note(email, "delivered")
    before = table(email)

    let_time_pass(timedelta(days=2))

    after = table(email)
    for moment in ("settled_at", "accepted_at", "reported_at", "created_at"):
        assert getattr(before, moment) - getattr(after, moment) == timedelta(days=2), moment


@pytest.mark.django_db(databases=["default", "postgres", "mariadb"])
def test_time_passes_in_the_database_that_is_named(database: str) -> None:
    email = put_and_take(database)
    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    let_time_pass(timedelta(minutes=30), using=database)

    assert outbox.key_has_expired(table(email))
