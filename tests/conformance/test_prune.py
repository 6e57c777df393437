"""What leaves the outbox when it is old, and what never does."""

from __future__ import annotations

import time
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from postroom import outbox, retention
from postroom.accounts.models import Registration
from postroom.models import DeliveryEvent, OutboundEmail, WorkerHeartbeat
from tests.attempts import answer, put_and_take

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])

LONG_AGO = timedelta(days=100)


def settled(database: str, *, ago: timedelta = timedelta()) -> OutboundEmail:
    """An accepted e-mail that was settled so long ago."""
    email = put_and_take(database)
    outbox.accept([answer(email)], using=database)
    then = timezone.now() - ago
    OutboundEmail.objects.using(database).filter(pk=email.pk).update(created_at=then, settled_at=then)
    return email


def left(database: str) -> set[int]:
    return set(OutboundEmail.objects.using(database).values_list("pk", flat=True))


def test_only_what_was_settled_long_ago_leaves_with_its_history(database: str) -> None:
    old, young = settled(database, ago=LONG_AGO), settled(database)
    waiting = outbox.enqueue("attempts.letter", {}, using=database)
    OutboundEmail.objects.using(database).filter(pk=waiting.pk).update(created_at=timezone.now() - LONG_AGO)

    deleted = retention.prune(before=timezone.now() - timedelta(days=90), using=database)

    assert deleted == 1
    assert left(database) == {young.pk, waiting.pk}
    assert not DeliveryEvent.objects.using(database).filter(email_id=old.pk).exists()
    assert DeliveryEvent.objects.using(database).filter(email_id=young.pk).exists()


def test_a_batch_is_no_larger_than_asked_for_and_the_last_call_says_so(database: str) -> None:
    for _ in range(3):
        settled(database, ago=LONG_AGO)
    before = timezone.now() - timedelta(days=90)

    batches = [retention.prune(before=before, limit=2, using=database) for _ in range(3)]

    assert batches == [2, 1, 0]


def test_others_get_the_lock_between_two_batches(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of Celery took it again at once, so that on SQLite whoever waited went on waiting."""
    for _ in range(3):
        settled(database, ago=LONG_AGO)
    before = timezone.now() - timedelta(days=90)
    rests: list[float] = []
    monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rests.append))

    assert retention.prune_all(before=before, limit=2, using=database, seconds=0) == 0
    assert retention.prune_all(before=before, limit=2, using=database) == 3

    assert len(rests) == 2
    assert min(rests) >= retention.REST_SECONDS


def test_batch_is_found_by_the_index_of_its_age_and_not_by_reading_all_that_is_old() -> None:
    """
    SQLite took the index of claims and sorted everything that was ever settled, for each batch and
    under the write lock: with a million old e-mails each of 2,000 batches kept everybody waiting.
    """
    batch = retention.prunable(before=timezone.now(), using="default").order_by("created_at")[:500]

    plan = batch.explain()

    assert "postroom_created" in plan or connections["default"].vendor != "sqlite", plan


def test_reports_that_found_no_e_mail_leave_in_batches_too(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A provider also tells of what others send through the same account. All of a quarter of a year
    left in one statement, which on SQLite kept everybody from writing for as long as it took.
    """
    now, rests, batches = timezone.now(), [], []
    for number, age in enumerate([100, 99, 98, 1]):
        outbox.note(None, "delivered", message_id=f"<{number}@another>", using=database)
        DeliveryEvent.objects.using(database).filter(message_id=f"<{number}@another>").update(
            at=now - timedelta(days=age)
        )
    mine = settled(database)
    forget = retention.forget_reports
    monkeypatch.setattr(
        retention, "forget_reports", lambda **told: batches.append(forget(**told)) or batches[-1]
    )
    monkeypatch.setattr(retention, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rests.append))

    assert retention.prune_all(before=now - timedelta(days=90), limit=2, using=database) == 0

    assert batches == [2, 1, 0]
    assert len(rests) == 2
    lone = DeliveryEvent.objects.using(database).filter(email=None).values_list("message_id", flat=True)
    assert list(lone) == ["<3@another>"]
    assert left(database) == {mine.pk}


def test_copy_of_an_e_mail_that_leaves_stays(database: str) -> None:
    old, copy = settled(database, ago=LONG_AGO), settled(database)
    OutboundEmail.objects.using(database).filter(pk=copy.pk).update(resend_of=old.pk)

    retention.prune(before=timezone.now() - timedelta(days=90), using=database)

    assert OutboundEmail.objects.using(database).get(pk=copy.pk).resend_of_id is None


def test_rows_of_other_apps_that_point_at_an_old_e_mail_do_not_keep_it() -> None:
    """A registration remembers its verification mail: the first night of pruning ended in an IntegrityError."""
    old = settled("default", ago=LONG_AGO)
    registration = Registration.objects.create(
        address="ann@example.com", canonical="ann@example.com", expires_at=timezone.now(), email=old
    )

    deleted = retention.prune(before=timezone.now() - timedelta(days=90), using="default")
    connections["default"].check_constraints()
    registration.refresh_from_db()

    assert deleted == 1
    assert registration.email is None


def test_delivery_process_that_was_the_last_one_is_remembered(database: str) -> None:
    """ "No worker has ever been heard" would be untrue, and would send the operator the wrong way."""
    for name, days in (("web-1/1", 30), ("web-1/2", 20)):
        WorkerHeartbeat.objects.using(database).create(
            name=name, seen_at=timezone.now() - timedelta(days=days)
        )

    retention.prune(before=timezone.now(), using=database)

    assert list(WorkerHeartbeat.objects.using(database).values_list("name", flat=True)) == ["web-1/2"]


def test_command_counts_first_and_deletes_then() -> None:
    """It spoke of "1 e-mails"."""
    settled("default", ago=LONG_AGO)
    counted, deleted = StringIO(), StringIO()

    call_command("postroom_prune", "--dry-run", stdout=counted)
    kept = left("default")
    call_command("postroom_prune", stdout=deleted)

    assert counted.getvalue() == "Would delete 1 e-mail settled more than 90 days ago. Nothing was deleted.\n"
    assert len(kept) == 1
    assert deleted.getvalue() == "Deleted 1 e-mail settled more than 90 days ago.\n"
    assert not left("default")
