"""One verdict from the tables: each situation with its evidence, and silence where there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom import ops
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State, WorkerHeartbeat
from postroom.ops import Diagnosis, Level
from postroom.ops.search import id_begins_with
from postroom.ops.terminal import as_text
from postroom.ops.words import clock, duration, masked, median, shown_args
from postroom.ops.writing import ReadOnly
from tests.operations import MINUTE, SECOND, accepted, beat, happened, refused, saved
from tests.rows import row

DATABASES = [name for name in ("default", "postgres", "mariadb") if name in settings.DATABASES]
pytestmark = [pytest.mark.django_db(databases=DATABASES), pytest.mark.usefixtures("clock_stands_still")]


def section(diagnosis: Diagnosis, label: str) -> str:
    """The text of one section, or nothing."""
    return "\n".join(line for part in diagnosis.sections if part.label == label for line in part.lines)


# --- healthy ------------------------------------------------------------------------------------


def test_all_is_well_when_a_worker_turns_and_mail_goes_out(database: str) -> None:
    beat(using=database)
    accepted(using=database, took=3 * SECOND)
    accepted(using=database, took=5 * SECOND)
    accepted(using=database, took=4 * SECOND)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level, diagnosis.headline) == ("OK", Level.OK, "Mail is going out.")
    assert "0 waiting" in diagnosis.summary[0]
    assert "3 accepted in the last 10 min" in diagnosis.summary[0]
    assert "from commit to accepted: typical 4 s, worst 5 s" in diagnosis.summary[0]
    assert "1 worker turning" in diagnosis.summary[1]
    assert "provider accepting" in diagnosis.summary[1]
    assert diagnosis.also == ()


def test_nothing_is_called_going_out_when_nothing_went_out() -> None:
    """A quiet night is not proof that mail works, so the headline does not claim it."""
    beat()

    diagnosis = ops.diagnose()

    assert diagnosis.level == Level.OK
    assert diagnosis.headline == "Ready. Nothing had to go out just now."


def test_an_email_planned_for_later_is_not_waiting() -> None:
    beat()
    saved(due_at=timezone.now() + timedelta(hours=1))

    diagnosis = ops.diagnose()

    assert diagnosis.level == Level.OK
    assert "0 waiting · 1 for later" in diagnosis.summary[0]


def test_the_look_costs_a_bounded_number_of_questions_whatever_lies_in_the_tables(database: str) -> None:
    beat(using=database)
    for _n in range(3):
        accepted(using=database)
    with CaptureQueriesContext(connections[database]) as few:
        ops.diagnose(database)

    for _n in range(30):
        accepted(using=database)
        refused("transient", "503", using=database)
    with CaptureQueriesContext(connections[database]) as many:
        ops.diagnose(database)

    assert len(many) == len(few) <= 40


def test_a_backlog_beyond_all_bounds_is_counted_no_further(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million rows must not make the doctor say that the database is silent."""
    for module in ("questions", "phrases", "about_workers"):
        monkeypatch.setattr(f"postroom.ops.{module}.CAP", 3)
    for n in range(5):
        saved(ago=(n + 1) * MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    assert diagnosis.summary == ("3+ e-mails wait, the oldest for 5 min. None is lost.",)
    assert section(diagnosis, "Then") == "The 3+ that are due follow, the urgent first."


# --- D10: no worker -----------------------------------------------------------------------------


def test_no_worker_was_ever_heard(database: str) -> None:
    saved(ago=41 * SECOND, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D10", Level.STOPPED)
    assert diagnosis.headline == "No delivery process is running."
    assert "1 e-mail waits, for 41 s by now. None is lost." in diagnosis.summary
    assert section(diagnosis, "Why") == "No worker has ever been heard on this database."
    assert "python manage.py postroom_worker" in section(diagnosis, "Do")
    assert section(diagnosis, "Look") == ""


def test_a_worker_that_was_killed_said_no_goodbye() -> None:
    beat(heard=16 * MINUTE)

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D10"
    why = section(diagnosis, "Why")
    assert "web-2/4711 (version 0.1.0), was heard at" in why
    assert "(16 min ago) and said no goodbye" in why
    assert "journalctl" in section(diagnosis, "Look")


def test_what_a_lost_worker_holds_is_counted_and_not_taken_from_its_last_heartbeat(database: str) -> None:
    beat(heard=MINUTE, in_hand=0, using=database)
    for _n in range(3):
        saved(State.SENDING, worker="web-2/4711", using=database)
    saved(State.SENDING, worker="web-3/12", using=database)
    saved(worker="web-2/4711", using=database)

    diagnosis = ops.diagnose(database)

    assert "3 e-mails are still in its hands." in section(diagnosis, "Why")
    assert "The 4 in hand are taken back first" in section(diagnosis, "Then")


def test_those_due_and_those_due_later_make_the_number_that_waits(database: str) -> None:
    saved(ago=41 * SECOND, using=database)
    for _n in range(6):
        saved(due_at=timezone.now() + MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    assert "7 e-mails wait, the oldest for 41 s. 1 due now, 6 due later." in diagnosis.summary[0]
    assert section(diagnosis, "Then") == (
        "The 1 that is due follows at once.\nThe 6 that are due later go out when their time comes."
    )


def test_reports_on_the_emails_of_others_are_not_counted(database: str) -> None:
    """One account at the provider, several senders: the hook hears of all of them."""
    beat(using=database)
    happened(accepted(using=database), EventType.DELIVERED)
    for _n in range(4):
        DeliveryEvent.objects.using(database).create(type=EventType.DELIVERED, at=timezone.now())

    facts = ops.diagnose(database).facts

    assert facts is not None
    assert (facts.day["accepted"], facts.day["delivered"]) == (1, 1)


def test_a_worker_that_was_stopped_on_purpose_is_not_called_killed() -> None:
    beat(heard=MINUTE, stopped_at=timezone.now() - MINUTE, stop_reason="SIGTERM")

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D10"
    assert "said goodbye at" in section(diagnosis, "Why")
    assert "SIGTERM" in section(diagnosis, "Why")
    assert "killed" not in section(diagnosis, "Why")
    assert section(diagnosis, "Look") == ""


def test_a_site_whose_worker_is_started_by_cron_is_not_called_stopped_between_two_runs(
    database: str,
) -> None:
    """Where no process may run beside the web, cron starts one a minute: for most of it the doctor said STOPPED."""
    ended = timezone.now() - 40 * SECOND
    beat(heard=40 * SECOND, stopped_at=ended, stop_reason="done", using=database)
    saved(ago=20 * SECOND, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("OK", Level.OK)
    assert "between two runs of postroom_worker --until-empty, the last ended 4" in diagnosis.summary[1]


@pytest.mark.parametrize(("reason", "ended"), [("SIGTERM", MINUTE), ("done", 11 * MINUTE)])
def test_a_worker_that_was_stopped_or_is_not_started_any_more_is_missed(
    reason: str, ended: timedelta
) -> None:
    beat(heard=ended, stopped_at=timezone.now() - ended, stop_reason=reason)

    assert ops.diagnose().code == "D10"


def test_a_process_that_no_longer_exists_on_this_host_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six seconds after kill -9 the heartbeat is still young; the process table knows better."""
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    beat("here/4194304", heard=6 * SECOND)

    assert ops.diagnose().code == "D10"


def test_a_worker_on_another_host_is_given_time_for_its_heartbeat() -> None:
    beat("elsewhere/4194304", heard=6 * SECOND)

    assert ops.diagnose().code == "OK"


def test_those_that_expired_unsent_are_not_passed_over() -> None:
    """ "None is lost" must not stand above an e-mail that will never be sent."""
    saved(ago=timedelta(hours=1), expires_at=timezone.now() - MINUTE)
    saved()

    diagnosis = ops.diagnose()

    assert "None is lost" not in as_text(diagnosis)
    assert "1 expired unsent" in diagnosis.summary[0]
    assert "1 has expired meanwhile and will not be sent." in section(diagnosis, "People")


def test_a_failed_email_today_forbids_to_say_that_none_is_lost() -> None:
    happened(
        saved(State.FAILED, reason="permanent_message"), EventType.FAILED, error_class="permanent_message"
    )

    assert "None is lost" not in as_text(ops.diagnose())


def test_who_waits_and_what_is_too_late_first() -> None:
    soon = timezone.now() + 14 * MINUTE
    for _n in range(2):
        saved(kind="accounts.verification")
    saved(kind="accounts.reset", expires_at=soon)

    people = section(ops.diagnose(), "People")

    assert people.startswith("2 accounts.verification · 1 accounts.reset")
    assert f"one of accounts.reset, at {clock(soon)}" in people


def test_a_restored_backup_is_told_apart_from_a_backlog() -> None:
    """No worker sends these by itself, so "they follow at once" would be untrue."""
    beat(heard=timedelta(hours=8))
    saved(ago=timedelta(hours=7))

    diagnosis = ops.diagnose()

    assert "--release-stale" in section(diagnosis, "Then")
    assert "follows at once" not in section(diagnosis, "Then")
    assert diagnosis.summary == (
        "1 e-mail waits, for 7 h by now. 1 of them waits for a person's word. None is lost.",
    )


def test_a_worker_that_died_in_the_evening_is_not_told_as_a_restored_backup_alone() -> None:
    """
    "0 e-mails wait", said the doctor in the morning, and named the command after which the confirmations
    of the evening expire unsent. Which of the two it is only a person knows.
    """
    beat(heard=timedelta(hours=7))
    saved(ago=timedelta(hours=6, minutes=30))
    saved(ago=timedelta(hours=1))

    diagnosis = ops.diagnose()

    first, second = section(diagnosis, "Do").splitlines()
    assert diagnosis.summary[0].startswith("2 e-mails wait, the oldest for 6 h 30 min.")
    assert first.startswith("python manage.py postroom_worker --release-stale ")
    assert second.startswith("python manage.py postroom_worker  ")


def test_all_that_wait_for_a_persons_word_are_told_on_a_good_day_too() -> None:
    beat()
    saved(ago=timedelta(hours=7), reason="stale", due_at=timezone.now() + timedelta(days=6))

    diagnosis = ops.diagnose()

    assert diagnosis.code == "OK"
    assert "--release-stale" in diagnosis.also[0]


# --- D12: stuck ---------------------------------------------------------------------------------


def test_a_worker_that_is_alive_but_does_not_turn_is_stuck_and_not_missing(database: str) -> None:
    """Warned by a doctor that sent people to restart a worker that did not exist."""
    beat(using=database, last_turn_at=timezone.now() - 9 * MINUTE, doing="claim")

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D12", Level.STOPPED)
    assert diagnosis.headline == "1 of 1 delivery process is alive but stuck."
    assert "has not finished a turn for 9 min: it is in claim." in section(diagnosis, "Why")
    assert "kill 4711" in section(diagnosis, "Do")


def test_mail_still_goes_out_while_another_worker_turns() -> None:
    beat(last_turn_at=timezone.now() - 9 * MINUTE)
    beat("web-3/12")

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D12", Level.LATE)
    assert diagnosis.headline == "1 of 2 delivery processes are alive but stuck."


# --- D30, D31: refused --------------------------------------------------------------------------


def test_a_provider_that_refuses_our_key(database: str) -> None:
    beat(using=database)
    accepted(ago=10 * MINUTE, using=database)
    for n in range(3):
        refused(
            "config", "401 unauthorized: Key not found", ago=(n + 1) * MINUTE, duration_ms=80, using=database
        )

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D30", Level.STOPPED)
    assert diagnosis.headline == "provider refuses our key."
    why = section(diagnosis, "Why")
    assert "401 unauthorized: Key not found since" in why
    assert "on 3 of 3 tries; the last was accepted at" in why
    assert "It answers in 80 ms, so it is not the network." in why
    assert "3 accounts.verification" in section(diagnosis, "People")
    assert "tried again after 1 min, so they go out within that time" in section(diagnosis, "Then")
    assert (
        "3 e-mails wait for their next attempt. None is lost. None has used up an attempt by it."
        in diagnosis.summary
    )


def test_one_success_after_the_refusals_ends_the_alarm() -> None:
    beat()
    refused("config", "401 unauthorized", ago=5 * MINUTE)
    accepted(ago=MINUTE)

    assert ops.diagnose().code == "OK"


def test_an_old_refusal_without_anybody_waiting_says_nothing_about_now() -> None:
    beat()
    email = saved(State.CANCELLED, reason="expired", ago=timedelta(hours=5))
    happened(email, EventType.RESCHEDULED, ago=timedelta(hours=5), error_class="config", detail="401")

    assert ops.diagnose().code == "OK"


def test_a_refused_sender_is_not_called_a_refused_key() -> None:
    beat()
    refused("config", "invalid_parameter: sender is not verified")

    assert ops.diagnose().headline == "provider refuses our account or our settings."


def test_uncertain_emails_forbid_to_switch_the_provider() -> None:
    beat()
    saved(State.UNCERTAIN)
    refused("config", "401")

    assert "1 e-mail is uncertain and would go out twice" in section(ops.diagnose(), "Not")


def test_a_provider_that_takes_nothing_for_another_reason() -> None:
    beat()
    for n in range(3):
        refused("quota", "402 not_enough_credits", ago=(n + 1) * SECOND)

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D31", Level.LATE)
    assert diagnosis.headline == "provider says that our quota is used up."


@pytest.mark.parametrize(
    ("failure", "pause"), [("transient", "15 min"), ("quota", "15 min"), ("rate_limited", "30 s")]
)
def test_how_long_it_may_take_until_the_recovery_of_a_provider_is_noticed(failure: str, pause: str) -> None:
    """The provider was well again and the operator saw nothing go out: "a little later", it said."""
    beat()
    for n in range(3):
        refused(failure, "no", ago=(n + 1) * MINUTE)

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D31"
    assert diagnosis.summary == ("3 e-mails wait for their next attempt. None is lost.",)
    assert f"with pauses of up to {pause};" in section(diagnosis, "Then")


def test_how_long_a_provider_has_refused_is_counted_from_the_first_refusal() -> None:
    beat()
    accepted(ago=30 * MINUTE)
    for minutes in (20, 10, 1):
        refused("transient", "503", ago=minutes * MINUTE)
    facts = ops.diagnose().facts

    assert facts is not None
    assert facts.lag_seconds == 0
    assert 1200 <= facts.refused_seconds < 1260

    accepted(ago=SECOND)
    facts = ops.diagnose().facts
    assert facts is not None
    assert facts.refused_seconds == 0


def test_two_hiccups_are_no_outage() -> None:
    beat()
    for _n in range(2):
        refused("transient", "503")

    assert ops.diagnose().code == "OK"


# --- D40, D41: slow -----------------------------------------------------------------------------


def test_a_slow_provider_with_all_slots_taken(database: str) -> None:
    beat(using=database, in_hand=2, concurrency=2)
    for _n in range(3):
        accepted(duration_ms=28_000, took=40 * SECOND, using=database)
    for _n in range(2):
        saved(State.SENDING, using=database)
    saved(ago=5 * MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D40", Level.LATE)
    assert diagnosis.headline == "provider is slow: typical 28 s an answer."
    assert "2 of 2 sending slots are taken, so 2 / 28 s = 0.1 e-mails a second leave" in section(
        diagnosis, "Why"
    )
    assert "--concurrency 200" in section(diagnosis, "Do")
    assert "SEND_TIMEOUT_SECONDS" in section(diagnosis, "Not")


def test_what_was_usual_yesterday_is_named_where_it_is_known() -> None:
    beat()
    accepted(duration_ms=28_000)
    accepted(ago=timedelta(hours=24), duration_ms=400)

    assert (
        ops.diagnose().headline == "provider is slow: typical 28 s an answer (yesterday at this hour 0.4 s)."
    )


def test_more_slots_are_not_advised_while_there_are_free_ones() -> None:
    beat()
    accepted(duration_ms=15_000)

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D40"
    assert "0 of 32 sending slots are taken." in section(diagnosis, "Why")
    assert section(diagnosis, "Do") == "nothing: there are slots left."


def test_sends_that_hang_show_before_their_time_out(database: str) -> None:
    """A provider that never answers gives no durations; the age of what is under way tells it."""
    beat(using=database, in_hand=1)
    email = saved(State.SENDING, using=database, ago=30 * SECOND)
    happened(email, EventType.CLAIMED, ago=25 * SECOND)

    diagnosis = ops.diagnose(database)

    assert diagnosis.code == "D40"
    assert "1 send is without an answer, for 25 s by now." in section(diagnosis, "Why")


def test_a_lease_that_ran_out_is_no_send_under_way() -> None:
    beat()
    email = saved(State.SENDING, ago=2 * MINUTE, lease_expires_at=timezone.now() - MINUTE)
    happened(email, EventType.CLAIMED, ago=2 * MINUTE)

    assert ops.diagnose().code == "OK"


def test_another_host_is_named_only_where_one_can_help(database: str) -> None:
    """SQLite's file lies on one host: a worker on another one would have an outbox of its own."""
    beat(using=database)
    saved(ago=MINUTE, using=database)

    where = "this host" if connections[database].vendor == "sqlite" else "any host"

    assert f"(one more process, on {where}; safe)" in section(ops.diagnose(database), "Do")


def test_a_backlog_that_nobody_hinders_is_late() -> None:
    beat()
    saved(ago=20 * SECOND)

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D41", Level.LATE)


# --- D60: one kind ------------------------------------------------------------------------------

NO_TEMPLATE = "TemplateDoesNotExist: shop/order_confirmation.html (at shop/emails.py:31)"


def test_one_kind_fails_while_all_others_go_out(database: str) -> None:
    beat(using=database)
    accepted(kind="accounts.verification", using=database)
    for n in range(4):
        refused("compose", NO_TEMPLATE, kind="shop.order", ago=(n + 1) * MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D60", Level.LATE)
    assert diagnosis.headline == "One kind of e-mail fails, all others go out: shop.order."
    assert "shop.order: 0 failed and 4 waiting since" in diagnosis.summary[0]
    assert "Other kinds in the last 24 hours: 1 accepted, 0 failed." in diagnosis.summary
    assert f"{NO_TEMPLATE}, on 4 of 4 tries." in section(diagnosis, "Why")
    assert "4 e-mails of this kind have not gone out" in section(diagnosis, "People")
    assert "tried again by themselves" in section(diagnosis, "Then")


def test_one_poisonous_email_among_good_ones_of_its_kind_is_no_ill_kind() -> None:
    beat()
    refused("compose", "DoesNotExist", kind="shop.order", ago=5 * MINUTE)
    accepted(kind="shop.order", ago=MINUTE)

    assert ops.diagnose().code == "OK"


def test_a_composer_that_fails_is_not_held_against_the_mailer() -> None:
    beat()
    for _n in range(5):
        refused("compose", NO_TEMPLATE, kind="shop.order")

    facts = ops.diagnose().facts

    assert facts is not None
    assert [mailer.streak for mailer in facts.mailers] == [()]


def test_the_first_situation_is_the_verdict_and_the_others_follow() -> None:
    refused("compose", NO_TEMPLATE, kind="shop.order")

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D10"
    assert "D60  One kind of e-mail fails: shop.order." in diagnosis.also


# --- what else deserves a look ------------------------------------------------------------------


def test_uncertain_emails_are_told_on_a_good_day_too() -> None:
    beat()
    saved(State.UNCERTAIN)

    assert "1 e-mail is uncertain" in ops.diagnose().also[0]


def test_workers_that_make_different_links_are_told() -> None:
    beat(fingerprint="aaaa")
    beat("web-3/12", fingerprint="bbbb")

    assert "differ in SECRET_KEY or SITE_URL" in ops.diagnose().also[0]


# --- D20, D05 -----------------------------------------------------------------------------------


def test_tables_that_are_not_there_are_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.ops.outages.missing_migrations", lambda alias: ["postroom.0001_initial"])
    monkeypatch.setattr(WorkerHeartbeat._meta, "db_table", "postroom_nowhere")

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D20", Level.STOPPED)
    assert "Not applied: postroom.0001_initial." in section(diagnosis, "Why")
    assert section(diagnosis, "Do") == "python manage.py migrate"


def test_a_database_that_can_only_be_read_is_not_called_well(database: str) -> None:
    beat(using=database)
    accepted(using=database)
    assert ops.diagnose(database).code == "OK"
    closed, opened, remedy = {
        "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "query_only"),
        # PostgreSQL forgets it with the savepoint.
        "postgresql": ("SET TRANSACTION READ ONLY", "SELECT 1", "default_transaction_read_only"),
        "mysql": ("SET SESSION tx_read_only = 1", "SET SESSION tx_read_only = 0", "read_only = 0"),
    }[connections[database].vendor]
    with transaction.atomic(using=database), connections[database].cursor() as cursor:
        cursor.execute(closed)
        try:
            diagnosis = ops.diagnose(database)
        finally:
            cursor.execute(opened)
            transaction.set_rollback(True, using=database)

    assert (diagnosis.code, diagnosis.level) == ("D20", Level.STOPPED)
    assert diagnosis.headline == "The database cannot be written."
    assert remedy in section(diagnosis, "Do")
    assert diagnosis.facts is not None
    assert diagnosis.facts.accepted_10m == 1


def test_what_else_is_the_matter_with_a_database_that_can_only_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standby = ReadOnly(why="A standby.", do="Name the primary.")
    monkeypatch.setattr("postroom.ops.verdict.read_only", lambda alias: standby)

    diagnosis = ops.diagnose()

    assert section(diagnosis, "Do") == "Name the primary."
    assert diagnosis.also == ("D10  No delivery process is running.",)


@pytest.mark.django_db(databases=DATABASES, transaction=True)
@pytest.mark.skipif("postgres" not in DATABASES, reason="needs PostgreSQL")
def test_a_locked_outbox_is_told_with_the_session_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's ALTER TABLE in an open transaction: the doctor must not queue behind it."""
    monkeypatch.setattr("postroom.ops.questions.QUESTION_MS", 200)
    locker = connections.create_connection("postgres")
    try:
        locker.set_autocommit(False)
        with locker.cursor() as cursor:
            cursor.execute("LOCK TABLE postroom_outboundemail IN ACCESS EXCLUSIVE MODE")
            cursor.execute("SELECT pg_backend_pid()")
            pid = cursor.fetchone()[0]

        diagnosis = ops.diagnose("postgres")

        assert (diagnosis.code, diagnosis.level) == ("D20", Level.STOPPED)
        assert diagnosis.headline == "The tables of the outbox are locked by somebody else."
        assert f"Session {pid}" in section(diagnosis, "Why")
        assert "AccessExclusiveLock on postroom_outboundemail" in section(diagnosis, "Why")
        assert f"pg_terminate_backend({pid})" in section(diagnosis, "Do")
    finally:
        locker.rollback()
        locker.close()


@pytest.mark.skipif("postgres" not in DATABASES, reason="needs PostgreSQL")
def test_a_look_leaves_the_time_limit_of_the_connection_as_it_was() -> None:
    ops.diagnose("postgres")

    with connections["postgres"].cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone()[0] == "0"


def test_settings_that_cannot_be_meant_are_a_verdict(settings: Any) -> None:
    settings.POSTROOM = {"SENDWITH": ["provider"]}

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D05", Level.STOPPED)
    assert "Did you mean 'SEND_WITH'?" in section(diagnosis, "Why")


UNUSABLE = {
    "outbox": ("postroom.backends.OutboxEmailBackend", "would deliver to itself"),
    "brevo": ("anymail.backends.brevo.EmailBackend", "api_key"),
    "elsewhere": ("shop.nowhere.EmailBackend", "No module named"),
}


@pytest.fixture
def unusable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Let SEND_WITH name a mailer that cannot even be made; return what is said of it."""
    monkeypatch.setattr("postroom.mailers.under_test_runner", lambda: False)

    def choose(alias: str) -> str:
        backend, said = UNUSABLE[alias]
        settings.POSTROOM = {"SEND_WITH": [alias], "MAILERS": {alias: {"BACKEND": backend}}}
        return said

    return choose


@pytest.mark.parametrize("alias", UNUSABLE)
def test_settings_that_no_worker_could_start_with_are_told_before_the_worker_that_is_missing(
    unusable: Callable[[str], str], alias: str
) -> None:
    """The doctor said "postroom_worker", and that ended with a traceback: the key had been forgotten."""
    said = unusable(alias)
    saved(ago=MINUTE)

    diagnosis = ops.diagnose()

    assert (diagnosis.code, diagnosis.level) == ("D05", Level.STOPPED)
    assert said.lower() in section(diagnosis, "Why").lower()
    assert "manage.py check" in section(diagnosis, "Do")
    assert "1 e-mail waits" in diagnosis.summary[0]
    assert diagnosis.also == ("D10  No delivery process is running.",)


@pytest.mark.parametrize(("heard", "code"), [(SECOND, "OK"), (MINUTE, "D10")])
def test_settings_of_the_shell_stop_and_kill_no_worker_that_has_others(
    unusable: Callable[[str], str], heard: timedelta, code: str
) -> None:
    """The operator's shell lacked the environment of the service; mail went out, or the worker was killed."""
    said = unusable("brevo")
    beat(heard=heard)
    accepted()

    diagnosis = ops.diagnose()

    assert diagnosis.code == code
    assert said.lower() in diagnosis.also[0].lower()


def test_deploy_with_settings_that_no_worker_can_start_with_is_told_as_that(
    unusable: Callable[[str], str],
) -> None:
    """The old worker said goodbye, and the new one ended at once."""
    unusable("brevo")
    beat(stopped_at=timezone.now(), stop_reason="SIGTERM")

    assert ops.diagnose().code == "D05"


# --- numbers and words --------------------------------------------------------------------------


def test_the_numbers_of_the_outbox() -> None:
    saved(ago=30 * SECOND)
    saved(due_at=timezone.now() + MINUTE)
    accepted(ago=30 * SECOND)
    accepted(ago=2 * MINUTE)
    refused("transient", "503")

    assert ops.depth() == 1
    assert ops.lag_seconds() == 30
    assert ops.throughput_per_minute() == 1
    assert ops.failures_by_reason() == {"transient": 1}
    assert ops.workers() == ()
    assert [mailer.alias for mailer in ops.mailers_seen()] == ["provider"]


def test_no_address_link_or_key_gets_through(database: str) -> None:
    beat(using=database)
    secret = "xkeysib-0123456789abcdef0123456789abcdef"
    refused(
        "config",
        f"401 for ann@example.com with {secret} see https://shop.example/activate/x/y/",
        using=database,
        recipient="ann@example.com",
    )

    text = as_text(ops.diagnose(database))

    assert "401" in text
    for forbidden in ("ann@", secret, "https://"):
        assert forbidden not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (0.42, "0.4 s"),
        (4, "4 s"),
        (41.2, "41 s"),
        (350, "5 min 50 s"),
        (970, "16 min"),
        (11400, "3 h 10 min"),
        (3 * 86400, "3 days"),
    ],
)
def test_lengths_of_time_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_address_is_masked() -> None:
    assert masked("ann@example.com") == "a***@example.com"
    assert masked("@example.com") == "***@example.com"
    assert masked("nonsense") == "***"
    assert masked("") == ""


def test_the_median_is_a_value_that_occurred() -> None:
    assert median([5, 1, 3]) == 3
    assert median([1, 2]) == 1
    assert median([]) == 0


def test_arguments_are_shown_only_where_they_can_be_no_secret() -> None:
    email = row(
        args={
            "order_id": 7,
            "account": "9b0c2f4e-6c77-4c0e-9f0a-0b0b6b3c5a11",
            "on": "2026-11-24",
            "address": "ann@example.com",
            "token": "s3cret",
            "ids": [1, 2],
        }
    )

    shown = dict(shown_args(email))

    assert shown["order_id"] == "7"
    assert shown["account"].startswith("9b0c2f4e")
    assert shown["on"] == "2026-11-24"
    assert shown["address"] == "(text of 15 characters)"
    assert shown["token"] == "(text of 6 characters)"
    assert shown["ids"] == "(list of 2)"


def test_nothing_of_a_drop_in_message_is_shown() -> None:
    assert shown_args(OutboundEmail(kind="postroom.message", args={"n": 1})) == []


def test_the_terminal_shows_the_verdict_in_its_first_line() -> None:
    text = as_text(ops.diagnose())

    first, *rest = text.splitlines()
    assert first.startswith("STOPPED   No delivery process is running.")
    assert "  D10  " in first
    assert any(line.startswith("  Do      python manage.py postroom_worker") for line in rest)
    assert all(line.startswith("  ") for line in rest)


# --- the search ---------------------------------------------------------------------------------


def test_an_id_is_found_by_its_beginning_on_every_database(database: str) -> None:
    """MariaDB orders UUIDs from their end: a range from 2b000000… to 2bffffff… held none of those that begin so."""
    names = [
        "2b33aaaa-1111-4111-8111-0000000000ff",
        "2b33aaab-ffff-4fff-bfff-ffffffffff00",
        "ffffffff-2b33-4b33-8b33-2b33aaaaaaaa",
        "00000000-0000-4000-8000-000000000001",
    ]
    for name in names:
        saved(using=database, uuid=UUID(name))
    rows = OutboundEmail.objects.using(database)

    for name in names:
        digits = name.replace("-", "")
        for count in range(1, 33):
            found = rows.filter(id_begins_with(digits[:count], database)).values_list("uuid", flat=True)
            expected = [one for one in names if one.replace("-", "").startswith(digits[:count])]
            assert sorted(map(str, found)) == sorted(expected)
    with pytest.raises(ValueError, match="nonsense"):
        id_begins_with("nonsense", database)
