"""The two commands of the night: the doctor's words and exit codes, and the e-mail that is sent to try."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from postroom import delivery
from postroom.emails import trial_email
from postroom.management.commands import postroom_doctor, postroom_test
from postroom.models import EventType, OutboundEmail, State
from postroom.outbox import note
from postroom.testing import let_time_pass
from tests.journeys.stage import eventually
from tests.operations import MINUTE, accepted, beat, saved
from tests.servers import free_port

committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def patient_doctor(clock_stands_still: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the database of these tests for as long as a busy machine needs."""
    monkeypatch.setattr(postroom_doctor, "PATIENCE_SECONDS", 60)


def run(*arguments: Any, **options: Any) -> tuple[int, str]:
    """The exit code of a command and what it printed."""
    out = StringIO()
    try:
        call_command(*arguments, stdout=out, **options)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


# --- postroom_doctor ----------------------------------------------------------------------------


@committed
@pytest.mark.usefixtures("patient_doctor")
def test_exit_0_when_mail_goes_out() -> None:
    beat()
    accepted()

    code, text = run("postroom_doctor")

    assert code == 0
    assert text.startswith("OK        Mail is going out.")


@committed
@pytest.mark.usefixtures("patient_doctor")
def test_exit_1_when_mail_is_late() -> None:
    beat()
    saved(ago=MINUTE)

    code, text = run("postroom_doctor")

    assert code == 1
    assert text.startswith("LATE      E-mails wait longer than usual.")


@committed
@pytest.mark.usefixtures("patient_doctor")
def test_exit_2_when_nothing_goes_out() -> None:
    saved(ago=MINUTE, kind="accounts.verification")

    code, text = run("postroom_doctor")

    assert code == 2
    lines = text.splitlines()
    assert re.match(r"STOPPED   No delivery process is running\. +D10  \d\d:\d\d:\d\d$", lines[0])
    assert lines[1] == "          1 e-mail waits, for 1 min by now. None is lost."
    assert "  Why     No worker has ever been heard on this database." in lines
    assert "  People  1 accounts.verification" in lines
    assert "  Do      python manage.py postroom_worker        (safe at any time, any number)" in lines


def manage(*arguments: str, settings: str, folder: Path) -> tuple[int, str, float]:
    """Run a command as an operator does: a process of its own. Exit code, output, seconds."""
    (folder / "night.py").write_text(f"from tests.settings import *\n{settings}\n")
    root = Path(__file__).parent.parent
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "night",
            "PYTHONPATH": os.pathsep.join([str(folder), str(root / "src"), str(root)]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr, time.monotonic() - began


def test_a_database_without_tables(tmp_path: Path) -> None:
    settings = f"DATABASES['default']['NAME'] = {str(tmp_path / 'empty.sqlite3')!r}"

    code, text, _seconds = manage("postroom_doctor", settings=settings, folder=tmp_path)

    assert code == 2
    assert text.startswith("STOPPED   The tables of the outbox are not up to date.")
    assert "  Why     Not applied: postroom.0001_initial" in text
    assert "  Do      python manage.py migrate\n" in text


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    settings = f"DATABASES['default']['NAME'] = {str(tmp_path / 'no' / 'such' / 'folder.sqlite3')!r}"

    code, text, _seconds = manage("postroom_doctor", settings=settings, folder=tmp_path)

    assert code == 2
    assert text.startswith("STOPPED   The database cannot be reached.")
    assert "unable to open database file" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("opened", "more", "why"),
    [
        ("file:{}?mode=ro", "", "The settings open the SQLite file for reading only."),
        (
            "{}",
            "os.access = lambda path, mode: False",
            "This process may not write to the SQLite file or to its folder.",
        ),
    ],
)
def test_a_database_that_cannot_be_written(tmp_path: Path, opened: str, more: str, why: str) -> None:
    """A disk mounted for reading after an error, a file that root restored: all can be read, nothing is saved."""
    file = str(tmp_path / "shop.sqlite3")
    writing = f"DATABASES['default']['NAME'] = {file!r}"
    assert manage("migrate", "-v0", settings=writing, folder=tmp_path)[0] == 0
    named = f"DATABASES['default']['NAME'] = {opened.format(file)!r}"
    uri = "DATABASES['default']['OPTIONS']['uri'] = True"

    code, text, _seconds = manage(
        "postroom_doctor", settings=f"import os\n{named}\n{uri}\n{more}", folder=tmp_path
    )

    assert code == 2
    assert text.startswith("STOPPED   The database cannot be written."), text
    assert f"  Why     {why}" in text


@contextmanager
def silent_server() -> Iterator[int]:
    """A host that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


POSTGRESQL = "DATABASES = {{'default': {{'ENGINE': 'django.db.backends.postgresql', 'NAME': 'shop', 'USER': 'anna', 'PASSWORD': 'hunter2', 'HOST': '127.0.0.1', 'PORT': {port}}}}}"


def test_a_database_that_hangs_does_not_hang_the_doctor(tmp_path: Path) -> None:
    """At night, a firewall that swallows packets: the terminal must not stand still."""
    pytest.importorskip("psycopg")

    def ask() -> tuple[int, str] | None:
        code, text, seconds = manage(
            "postroom_doctor", settings=POSTGRESQL.format(port=port), folder=tmp_path
        )
        # Five by the promise, what an interpreter needs to start included; a busy machine has another try.
        return (code, text) if seconds < postroom_doctor.PATIENCE_SECONDS + 5 else None

    with silent_server() as port:
        code, text = eventually("the doctor answers soon", ask)

    assert code == 2
    assert text.startswith("STOPPED   The database does not answer in time.")
    assert "No answer within 3.5 s; gave up." in text


def test_a_database_that_refuses_is_told_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    settings = POSTGRESQL.format(port=free_port())

    code, text, _seconds = manage("postroom_doctor", settings=settings, folder=tmp_path)

    assert code == 2
    assert text.startswith("STOPPED   The database cannot be reached.")
    assert "Asked just now: postgresql shop@127.0.0.1." in text
    assert "hunter2" not in text


def test_wrong_settings_are_a_verdict_and_no_traceback(tmp_path: Path) -> None:
    settings = "POSTROOM = {'CONCURENCY': 3}"

    code, text, _seconds = manage("postroom_doctor", settings=settings, folder=tmp_path)

    assert code == 2
    assert text.startswith("STOPPED   The settings of postroom cannot be used.")
    assert "'CONCURRENCY'" in text
    assert "Traceback" not in text


# --- postroom_test ------------------------------------------------------------------------------


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen while the command watches: each time it would sleep."""

    def install(happen: Callable[[], object]) -> None:
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: happen())
        monkeypatch.setattr(postroom_test, "time", clock)

    return install


@pytest.mark.parametrize("address", ["ann", "ann@", "ann@example.com\nBcc: all@example.com", ""])
@pytest.mark.django_db
def test_what_is_no_address_is_refused_before_anything_is_written(address: str) -> None:
    with pytest.raises(CommandError, match="is not an e-mail address") as refusal:
        call_command("postroom_test", address, stdout=StringIO())

    assert refusal.value.returncode == 2
    assert not OutboundEmail.objects.exists()


@committed
def test_each_event_is_printed_as_it_happens(
    meanwhile: Callable[[Callable[[], object]], None], mailoutbox: list[Any]
) -> None:
    beat()
    meanwhile(delivery.drain)

    code, text = run("postroom_test", "ann@example.com")

    assert code == 0
    assert "A real e-mail to a***@example.com." in text
    order = ["saved in the outbox as", "Attempt begun (number 1) by", "Accepted by the provider"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert "provider took it. Whether it arrived is not known yet: look into the mailbox." in text
    assert "No delivery process" not in text
    assert [message.to for message in mailoutbox] == [["ann@example.com"]]
    assert "ann@" not in text


@committed
def test_without_a_worker_it_names_the_command_and_is_not_done() -> None:
    code, text = run("postroom_test", "ann@example.com", wait=0)

    assert code == 1
    assert "No delivery process is running. Start one: python manage.py postroom_worker" in text
    assert "Not yet: after 0 s it waits in the outbox" in text
    assert OutboundEmail.objects.get().state == State.PENDING


@committed
def test_ctrl_c_ends_the_watching_and_not_the_answer(
    meanwhile: Callable[[Callable[[], object]], None],
) -> None:
    """It was a traceback, after which nobody knew whether the e-mail was there."""

    def press() -> None:
        raise KeyboardInterrupt

    meanwhile(press)

    code, text = run("postroom_test", "ann@example.com")

    assert code == 1
    assert "Not yet: after 0 s it waits in the outbox" in text
    assert "Its history: kind postroom.test" in text


@committed
def test_an_attempt_that_fails_is_printed_without_the_address(
    meanwhile: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    beat()

    def refuse(self: object, message: object, key: str) -> None:
        raise ConnectionRefusedError("provider.example:443 said no to ann@example.com")

    monkeypatch.setattr("postroom.mailers.Mailer.send", refuse)
    meanwhile(delivery.drain)

    code, text = run("postroom_test", "ann@example.com", wait=0.5)

    assert code == 1
    assert "Not accepted, tried again later" in text
    assert "[transient]" in text
    assert "ann@" not in text
    assert "Not yet: after" in text


@committed
def test_a_report_that_comes_in_is_the_last_word(
    meanwhile: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    beat()
    monkeypatch.setattr("postroom.mailers.Mailer.reports", True)

    def deliver_and_report() -> None:
        delivery.drain()
        email = OutboundEmail.objects.get()
        if email.state == State.ACCEPTED:
            note(email, EventType.DELIVERED, dedupe_key="one")

    meanwhile(deliver_and_report)

    code, text = run("postroom_test", "ann@example.com")

    assert code == 0
    assert "Report: delivered" in text
    assert "It has arrived at the recipient's mail server." in text


@committed
def test_a_bounce_is_not_called_a_success(
    meanwhile: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    beat()
    monkeypatch.setattr("postroom.mailers.Mailer.reports", True)

    def deliver_and_bounce() -> None:
        delivery.drain()
        note(OutboundEmail.objects.get(), EventType.BOUNCED, dedupe_key="one")

    meanwhile(deliver_and_bounce)

    code, text = run("postroom_test", "ann@example.com")

    assert code == 1
    assert "it did not arrive: Report: bounced." in text


@committed
def test_an_email_that_was_withdrawn_meanwhile_is_told(
    meanwhile: Callable[[Callable[[], object]], None],
) -> None:
    beat()

    def expire() -> None:
        let_time_pass(61 * MINUTE)
        delivery.drain()

    meanwhile(expire)

    code, text = run("postroom_test", "ann@example.com")

    assert code == 1
    assert "It was not sent, on purpose: expired." in text


@pytest.mark.django_db
def test_a_database_that_cannot_be_written_is_exit_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**arguments: str) -> None:
        raise OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(type(trial_email), "enqueue", lambda self, **arguments: refuse(**arguments))

    with pytest.raises(CommandError, match="could not be saved") as refusal:
        call_command("postroom_test", "ann@example.com", stdout=StringIO())

    assert refusal.value.returncode == 2
    assert "postroom_doctor" in str(refusal.value)


def test_the_test_email_tells_what_it_is() -> None:
    message = trial_email(address="ann@example.com", asked_at="14:02:51")

    assert message.to == ["ann@example.com"]
    assert "Nothing has to be done." in message.body
    assert "14:02:51" in message.body
