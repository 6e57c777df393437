"""Taking e-mails: in order, within the limit, never twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom import outbox
from postroom.models import DeliveryEvent, OutboundEmail, State
from tests.attempts import (
    MAILER,
    NO_ANSWER,
    answer,
    history,
    let_time_pass,
    lose_worker,
    put,
    put_and_take,
    table,
    take,
    take_again,
)

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])


def test_claim_sets_owner_lease_token_and_attempt(database: str) -> None:
    before = timezone.now()
    email = put_and_take(database)

    stored = table(email)
    assert stored.state == State.SENDING
    assert (stored.worker, stored.mailer, stored.attempt) == ("host/1", MAILER, 1)
    assert stored.claim_id == email.claim_id is not None
    assert stored.lease_expires_at is not None
    assert before <= stored.lease_expires_at - timedelta(seconds=30) <= timezone.now()
    assert history(email) == ["claimed:sending"]


def test_claim_goes_by_lane_and_then_by_age(database: str) -> None:
    """Ten thousand newsletters stood before the code that somebody waited for."""
    now = timezone.now()
    bulk = put(database, lane="bulk", due_at=now - timedelta(minutes=9))
    young = put(database, due_at=now - timedelta(minutes=1))
    old = put(database, due_at=now - timedelta(minutes=5))
    urgent = put(database, lane="urgent", due_at=now - timedelta(seconds=1))

    assert take(database, 3) == [urgent, old, young]
    assert take(database, 3) == [bulk]


def test_claim_never_takes_more_than_its_limit(database: str) -> None:
    """
    PostgreSQL may evaluate a LIMIT inside an UPDATE more than once and claim a whole backlog;
    what a worker claims beyond its free slots waits until its lease runs out.
    """
    for _ in range(20):
        put(database)

    assert len(take(database, 7)) == 7
    assert OutboundEmail.objects.using(database).filter(state=State.SENDING).count() == 7


def test_claimed_email_is_not_claimed_again(database: str) -> None:
    email = put_and_take(database)

    assert take(database, 10) == []
    assert take(database, 1, only=email.pk) == []
    assert table(email).attempt == 1


def test_claim_is_one_update_and_one_insert(database: str) -> None:
    """Row by row a claim cost more than the sending. MariaDB cannot say whom an UPDATE met: two SELECTs more."""
    for _ in range(5):
        put(database)

    with CaptureQueriesContext(connections[database]) as queries:
        take(database, 5)

    asked = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
    if connections[database].vendor == "mysql":
        assert [sql.split()[0] for sql in asked] == ["SELECT", "UPDATE", "SELECT", "INSERT"]
        return
    assert len(asked) == 2
    assert "UPDATE" in asked[0]
    assert asked[1].startswith("INSERT")


def test_first_use_of_the_key_is_written_where_the_mailer_knows_keys(database: str) -> None:
    with_keys = put_and_take(database, keyed=True)
    without = put_and_take(database, keyed=False)

    assert table(with_keys).key_used_at is not None
    assert table(without).key_used_at is None


def test_first_use_of_the_key_stays_what_it_was_when_it_is_used_again(database: str) -> None:
    """The provider counts its window from the first use: a repeat must not seem to begin a new one."""
    email = put_and_take(database)
    first = table(email).key_used_at
    outbox.doubt([answer(email, NO_ANSWER)], using=database)

    again = take_again(email)

    assert table(again).key_used_at == first


def test_email_in_doubt_is_given_to_no_other_mailer(database: str) -> None:
    """The second provider knows nothing of the first one's key: the mail would go out twice."""
    email = put_and_take(database)
    outbox.doubt([answer(email, NO_ANSWER)], using=database)
    let_time_pass(database, timedelta(minutes=1))

    assert take(database, mailer="another") == []
    assert take(database, mailer=MAILER) == [email]


def test_urgent_only_takes_urgent_only(database: str) -> None:
    put(database)
    urgent = put(database, lane="urgent")

    assert take(database, 10, urgent_only=True) == [urgent]


def test_backlog_of_hours_is_claimed(database: str) -> None:
    """The provider was away for a night, and in the morning its whole backlog stood still for ever."""
    email = put(database, due_at=timezone.now() - timedelta(hours=7))

    assert take(database, 10) == [email]


def test_email_that_lost_two_workers_is_claimed_alone(database: str) -> None:
    """One poisonous mail killed each worker, and the strikes of everything in flight beside it were burnt."""
    suspect = put_and_take(database)
    lose_worker(suspect)
    lose_worker(take_again(suspect))
    other = put(database)

    assert table(suspect).losses == 2
    assert take(database, 10) == [other]
    assert take(database, 10, alone=True) == [suspect]


def test_claim_by_key_ignores_the_due_date(database: str) -> None:
    email = put(database, due_at=timezone.now() + timedelta(hours=1))

    assert take(database, only=email.pk) == [email]


def test_claimed_rows_come_back_whole(database: str) -> None:
    """``RETURNING *`` gives raw columns: JSON, UUIDs and instants have to arrive as such."""
    email = put(database, lane="bulk", on_uncertain="repeat")

    (taken,) = take(database)

    assert (taken.args, taken.uuid, taken.on_uncertain) == ({"n": 1}, email.uuid, "repeat")
    assert taken.expires_at == table(email).expires_at
    assert taken._state.db == database


def test_claim_writes_one_event_each(database: str) -> None:
    for _ in range(3):
        put(database)

    taken = take(database, 3)

    events = DeliveryEvent.objects.using(database)
    assert {event.email_id for event in events.all()} == {email.pk for email in taken}
    assert events.filter(type="claimed", state="sending", attempt=1, worker="host/1").count() == 3


def test_renewal_prolongs_what_is_still_held(database: str) -> None:
    held, lost = put_and_take(database), put_and_take(database)
    outbox.accept([answer(lost)], using=database)
    let_time_pass(database, timedelta(seconds=25))
    before = timezone.now()

    renewed = outbox.renew([held, lost], using=database)

    assert renewed == {held.pk}
    lease = table(held).lease_expires_at
    assert lease is not None
    assert lease >= before + timedelta(seconds=30)
    assert outbox.renew([], using=database) == set()


def test_renewal_of_a_claim_that_somebody_else_holds_does_nothing(database: str) -> None:
    """A worker came back from a long pause and kept alive the lease of another one."""
    email = put_and_take(database)
    lose_worker(email)
    take_again(email, worker="host/2")

    assert outbox.renew([email], using=database) == set()
