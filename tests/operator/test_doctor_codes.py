"""Situations of the doctor beside the common ones: each brought about, and silent when all is well."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from postroom import ops, outbox
from postroom.models import DeliveryEvent, EventType
from postroom.ops import Diagnosis, Level
from postroom.ops.terminal import as_text
from tests import servers
from tests.attempts import lose_worker, put_and_take, take_again
from tests.journeys.stage import eventually
from tests.operations import MINUTE, accepted, beat, happened, refused
from tests.operator.commands import arguments_of, manage

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"])

HOUR = timedelta(hours=1)


def flat(diagnosis: Diagnosis) -> str:
    """The diagnosis as a terminal shows it, on one line."""
    return " ".join(as_text(diagnosis).split())


# --- D61: an e-mail that kills workers ----------------------------------------------------------


def test_an_email_that_has_lost_two_workers_is_named(database: str) -> None:
    """The worker ran out of memory while it composed a catalogue; whoever took it next did so, too."""
    beat(using=database)
    email = lose_worker(put_and_take(database))
    beat("web-9/1", using=database)
    assert ops.diagnose(database).code != "D61"

    email = lose_worker(take_again(email))
    diagnosis = ops.diagnose(database)

    text = flat(diagnosis)
    assert (diagnosis.code, diagnosis.level) == ("D61", Level.LATE)
    assert f"E-mail {email.short_id} (tests.letter) has lost 2 delivery processes." in text
    assert f"{email.short_id} (tests.letter) lost 2 workers, host/1 the latest" in text
    assert "given up as uncertain after 3 losses" in text


def test_an_email_that_went_out_after_all_kills_nobody_any_more(database: str) -> None:
    beat(using=database)
    email = lose_worker(take_again(lose_worker(put_and_take(database))))
    outbox.note(email, "delivered", using=database)
    DeliveryEvent.objects.using(database).filter(type=EventType.RESCUED).update(at=timezone.now())

    assert ops.diagnose(database).code == "OK"


def test_two_emails_that_lost_a_worker_each_are_no_killers(database: str) -> None:
    """The host was rebooted with both in hand."""
    beat(using=database)
    for _n in range(2):
        lose_worker(put_and_take(database))

    assert "D61" not in flat(ops.diagnose(database))


# --- D62: a kind that no worker knows -----------------------------------------------------------

UNKNOWN = "UnknownKind: No composer for kind 'shop.gift' in this process (it knows shop.order)."


def test_a_kind_that_no_worker_knows_waits_for_newer_code(database: str) -> None:
    beat(using=database)
    accepted(using=database)
    for n in range(3):
        refused("compose", UNKNOWN, kind="shop.gift", ago=(n + 1) * MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    text = flat(diagnosis)
    assert (diagnosis.code, diagnosis.level) == ("D62", Level.LATE)
    assert "3 e-mails of kind shop.gift wait for newer code." in text
    assert "restart all workers with code that has a composer for shop.gift" in text
    assert "D60" not in text


def test_a_kind_that_fails_beside_one_that_is_unknown_is_told_too() -> None:
    beat()
    refused("compose", UNKNOWN, kind="shop.gift")
    refused("compose", "TemplateDoesNotExist: order.html", kind="shop.order")

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D62"
    assert "D60  One kind of e-mail fails: shop.order." in diagnosis.also


def test_a_kind_that_a_newer_worker_has_sent_since_waits_for_nothing() -> None:
    """In the middle of a deploy an old worker meets it first, and a new one sends it."""
    beat()
    refused("compose", UNKNOWN, kind="shop.gift", ago=5 * MINUTE)
    accepted(kind="shop.gift", ago=MINUTE)

    assert ops.diagnose().code == "OK"


# --- D70, D80: silence --------------------------------------------------------------------------


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailer that tells what became of an e-mail (the one of the tests does not)."""
    monkeypatch.setattr("postroom.ops.mailer_questions._reports", lambda alias: True)


def test_reports_that_stay_away_are_told_when_many_should_have_come(database: str, reporting: None) -> None:
    """Customers say that they get nothing, and everything is green: the webhook's secret was changed."""
    beat(using=database)
    happened(accepted(ago=3 * HOUR, using=database), EventType.DELIVERED, ago=2 * HOUR)
    for _n in range(20):
        accepted(ago=40 * MINUTE, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D70", Level.LATE)
    assert "20 accepted between 10 and 70 minutes ago, 0 reports since" in flat(diagnosis)
    assert "do not send them again" in flat(diagnosis)


@pytest.mark.parametrize("why", ["one came", "too few", "too soon", "never came", "does not report"])
def test_reports_are_not_missed_where_none_can_be_expected(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beat()
    monkeypatch.setattr("postroom.ops.mailer_questions._reports", lambda alias: why != "does not report")
    if why != "never came":
        happened(
            accepted(ago=3 * HOUR), EventType.DELIVERED, ago=30 * MINUTE if why == "one came" else 2 * HOUR
        )
    for _n in range(19 if why == "too few" else 25):
        accepted(ago=5 * MINUTE if why == "too soon" else 40 * MINUTE)

    assert ops.diagnose().code == "OK"


def test_a_site_that_asks_for_nothing_is_sent_to_look_at_itself(database: str) -> None:
    """The page for registration answered 500 since the deploy; mail, of course, was fine."""
    beat(using=database)
    for _n in range(20):
        accepted(ago=25 * HOUR, using=database)

    diagnosis = ops.diagnose(database)

    assert (diagnosis.code, diagnosis.level) == ("D80", Level.OK)
    assert "look at the site, not at mail" in flat(diagnosis)
    assert "Yesterday it was 20 e-mails in the same 3 hours." in flat(diagnosis)


@pytest.mark.parametrize("yesterday", [0, 19])
def test_a_quiet_site_may_be_quiet(yesterday: int) -> None:
    beat()
    for _n in range(yesterday):
        accepted(ago=25 * HOUR)

    assert ops.diagnose().code == "OK"


def test_one_email_shows_that_the_site_asks() -> None:
    beat()
    accepted()
    for _n in range(25):
        accepted(ago=25 * HOUR)

    assert ops.diagnose().code == "OK"


# --- versions -----------------------------------------------------------------------------------


def test_workers_that_were_not_restarted_after_a_deploy_are_named() -> None:
    beat("web-1/1", version="0.1.0")
    beat("web-2/2", version="0.2.0")

    assert "different versions of postroom (0.1.0, 0.2.0): restart web-1/1" in ops.diagnose().also[0]


def test_one_that_is_gone_may_have_been_older() -> None:
    beat("web-1/1", version="0.1.0", heard=10 * MINUTE)
    beat("web-2/2", version="0.2.0")

    assert ops.diagnose().also == ()


# --- D50: the doorbell --------------------------------------------------------------------------


@contextmanager
def redis() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A Redis of one's own: its port and its process."""
    port = servers.free_port()
    with subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield port, process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(timeout=30)


def site(scratch: Path, url: str) -> str:
    """Settings of a site that rings with Celery over *url*, on a database with a worker that turns."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(scratch / "site.sqlite3")}
    settings = (
        f"DATABASES = {{'default': {database!r}}}\n"
        "POSTROOM = {**POSTROOM, 'DOORBELL': 'celery'}\n"
        "from celery import Celery\n"
        f"app = Celery('site', broker={url!r})\n"
    )
    assert manage("migrate", settings=settings, folder=scratch)[0] == 0
    return settings


@contextmanager
def worker(settings: str, folder: Path) -> Iterator[None]:
    with subprocess.Popen(
        **arguments_of("postroom_worker", settings=settings, folder=folder), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert "at once" in process.stdout.readline()
            yield
        finally:
            process.terminate()
            process.communicate(timeout=60)


def doctor(settings: str, folder: Path) -> tuple[int, str, float]:
    """The doctor's answer, once the worker has been heard."""

    def ask() -> tuple[int, str, float] | None:
        code, text, seconds = manage("postroom_doctor", settings=settings, folder=folder)
        return None if "  D10  " in text else (code, " ".join(text.split()), seconds)

    return eventually("a worker is heard", ask)


def doctor_of_the_bell(settings: str, folder: Path, *, silent: bool) -> tuple[int, str, float]:
    """The same, once it tells of the bell (a machine under load may not get to ask), or tells nothing of it."""

    def ask() -> tuple[int, str, float] | None:
        found = doctor(settings, folder)
        return found if ("D50" in found[1]) == silent else None

    return eventually(f"the bell is {'silent' if silent else 'well'}", ask)


@pytest.mark.skipif(
    not shutil.which("redis-server"), reason="There is no Redis here: apt install redis-server"
)
def test_a_broker_that_is_away_or_hangs_is_told_as_what_it_is(scratch: Path) -> None:
    """Redis is a doorbell, not the door: nobody needs to get up for mail."""
    with redis() as (port, process):
        settings = site(scratch, f"redis://127.0.0.1:{port}/0")
        with worker(settings, scratch):
            code, text, _seconds = doctor_of_the_bell(settings, scratch, silent=False)
            assert (code, text[:9]) == (0, "OK Ready.")

            os.kill(process.pid, signal.SIGSTOP)
            code, text, seconds = doctor_of_the_bell(settings, scratch, silent=True)
            assert code == 0
            assert "OK Ready. The doorbell is silent. D50" in text
            assert seconds < 20

            os.kill(process.pid, signal.SIGCONT)
            process.terminate()
            process.wait(timeout=30)
            refused = f"redis at 127.0.0.1:{port} does not take rings: OperationalError"
            code, text, _seconds = eventually(
                "the doctor hears the refusal",
                lambda: (
                    found
                    if refused in (found := doctor_of_the_bell(settings, scratch, silent=True))[1]
                    else None
                ),
            )
            assert code == 0
            assert "Workers find e-mails by looking" in text
            assert "nothing tonight for mail" in text


def test_a_name_that_nobody_resolves_holds_no_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that is gone answers after 5 to 40 seconds, and no time-out of a socket covers it."""
    beat()
    monkeypatch.setattr("postroom.ops.bell.doorbell.kind_for", lambda alias: "celery")
    monkeypatch.setattr("postroom.ops.bell.LOADING_SECONDS", 60)
    answered = threading.Event()
    monkeypatch.setattr("postroom.tasks.bell_to_try", lambda: lambda: str(answered.wait()))

    diagnosis = ops.diagnose()  # a doctor who waited for the answer would wait for ever

    answered.set()
    assert diagnosis.code == "D50"
    assert "gives no answer: gave up after" in flat(diagnosis)


def test_a_library_that_loads_slowly_is_not_held_against_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine kombu and redis take more than a second to import; Redis was well."""
    beat()
    monkeypatch.setattr("postroom.ops.bell.LOADING_SECONDS", 0.1)
    monkeypatch.setattr("postroom.ops.bell.doorbell.kind_for", lambda alias: "celery")
    loaded = threading.Event()
    monkeypatch.setattr("postroom.tasks.bell_to_try", lambda: loaded.wait() and str)

    diagnosis = ops.diagnose()

    loaded.set()
    assert diagnosis.code == "OK"


def test_a_silent_bell_hides_no_trouble_and_no_trouble_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.ops.bell.ask", lambda alias: lambda: "redis at h:1 does not take rings.")

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D10"
    assert "D50  Ready. The doorbell is silent." in diagnosis.also


def test_a_password_of_the_broker_is_not_told(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from celery import Celery, _state

    from postroom import tasks

    before = _state._tls.current_app
    app = Celery("site", broker=f"redis://clerk:s3cret@127.0.0.1:{servers.free_port()}/0", fixups=[])
    try:
        said = tasks.bell_to_try()()
    finally:
        app.close()
        _state._set_current_app(before)

    assert said.startswith("redis at 127.0.0.1:")
    assert "s3cret" not in said
    assert "clerk" not in said
