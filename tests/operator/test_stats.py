"""The numbers: for eyes, for scripts, and as an alarm. Never an address."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from django.utils import timezone

from postroom import outbox
from postroom.management.commands import postroom_stats
from postroom.models import EventType, State
from postroom.ops.numbers import as_json
from tests.operations import MINUTE, accepted, beat, happened, saved
from tests.operator.commands import arguments_of, manage, run

committed = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.usefixtures("clock_stands_still")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of these tests is waited for as long as a busy machine needs."""
    monkeypatch.setattr(postroom_stats, "PATIENCE_SECONDS", 60)


def fill() -> None:
    """Somewhat of everything, as in a night."""
    beat("web-1/1")
    beat("web-2/4711", heard=10 * MINUTE)
    accepted(ago=1.5 * MINUTE, recipient="ann@example.com")
    accepted(ago=2 * MINUTE, duration_ms=2100)
    saved(kind="accounts.verification", ago=5 * MINUTE)
    saved(kind="accounts.verification", due_at=timezone.now() + timedelta(hours=1))
    saved(State.SENDING)
    happened(saved(State.FAILED), EventType.FAILED)


@committed
def test_the_numbers_of_a_night_in_five_lines() -> None:
    fill()

    code, text = run("postroom_stats")

    lines = text.splitlines()
    assert code == 0
    assert lines[0] == "outbox    waiting 1   in hand 1   oldest 5 min   due later 1"
    assert lines[1].startswith(
        "last hour accepted 2   failed 1   expired 0   uncertain 0   per minute 0 now 0"
    )
    assert lines[2] == "by kind   accounts.verification 1 waiting 1 later"
    assert lines[3] == "by mailer provider  accepted 2   typical 0.4 s   worst 2.1 s"
    assert lines[4].startswith("workers   1 turning   (web-2/4711 lost ")
    assert "@" not in text


@committed
def test_an_empty_outbox_has_numbers_too() -> None:
    code, text = run("postroom_stats")

    assert code == 0
    assert text.startswith("outbox    waiting 0   in hand 0   due later 0\n")
    assert "by kind   none waits" in text


@committed
def test_json_is_one_object_on_one_line_with_the_documented_keys() -> None:
    """Scripts of others stand on the keys: what the docs list is what is printed."""
    fill()

    code, text = run("postroom_stats", "--json")

    numbers = json.loads(text)
    assert code == 0
    assert text.count("\n") == 1
    assert (numbers["waiting"], numbers["later"], numbers["in_hand"]) == (1, 1, 1)
    assert numbers["lag_seconds"] == 300
    assert numbers["last_hour"] == {"accepted": 2, "failed": 1, "uncertain": 0, "rescued": 0, "expired": 0}
    assert numbers["kinds"] == [{"kind": "accounts.verification", "waiting": 1, "later": 1}]
    assert [worker["state"] for worker in numbers["workers"]] == ["turning", "silent"]
    assert numbers["paused"] is None
    assert "@" not in text


@committed
def test_a_pause_is_a_number_that_nobody_overlooks() -> None:
    outbox.pause(actor="anna@example.com", reason="wrong price in the newsletter")

    _code, text = run("postroom_stats")
    _code, object_ = run("postroom_stats", "--json")

    assert "PAUSED since" in text.splitlines()[0]
    assert json.loads(object_)["paused"]["by"] == "a***@example.com"


@committed
@pytest.mark.parametrize(("limit", "code"), [("60", 1), ("600", 0)])
def test_a_lag_over_the_limit_is_exit_1(limit: str, code: int) -> None:
    saved(ago=5 * MINUTE)

    found, text = run("postroom_stats", "--fail-if-lag-over", limit)

    assert found == code
    assert ("longer than 1 min" in text) == bool(code)


@committed
def test_an_alarm_does_not_end_by_itself_when_nobody_has_come_for_hours() -> None:
    """After six hours without a worker nothing counted as due any more, and the alarm went off."""
    beat(heard=timedelta(hours=7))
    saved(ago=timedelta(hours=6, minutes=30))

    code, text = run("postroom_stats", "--fail-if-lag-over", "60")

    assert code == 1
    assert "oldest 6 h 30 min" in text
    assert "stale 1" in text


@committed
def test_a_database_that_refuses_is_exit_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("connection to 10.0.0.5 refused, password=hunter2")

    monkeypatch.setattr(postroom_stats, "count", refuse)

    code, text = run("postroom_stats")

    assert code == 2
    assert "postroom_doctor" in text
    assert "hunter2" not in text


@committed
def test_a_database_that_hangs_is_exit_2_within_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postroom_stats, "within", lambda seconds, ask: None)

    code, text = run("postroom_stats")

    assert code == 2
    assert "does not answer within 60 s" in text


def test_wrong_settings_are_a_sentence(tmp_path: Path) -> None:
    code, text, _seconds = manage("postroom_stats", settings="POSTROOM = {'CONCURENCY': 3}", folder=tmp_path)

    assert code == 2
    assert "Did you mean 'CONCURRENCY'?" in text
    assert "Traceback" not in text


def test_watching_prints_again_and_ends_cleanly_with_ctrl_c(tmp_path: Path) -> None:
    settings = f"DATABASES['default']['NAME'] = {str(tmp_path / 'shop.sqlite3')!r}"
    assert manage("migrate", "-v0", settings=settings, folder=tmp_path)[0] == 0
    watch = arguments_of("postroom_stats", "--watch", "--json", settings=settings, folder=tmp_path)

    # A shell starts what runs in the background deaf to SIGINT, and children inherit that.
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(**watch, **pipes, preexec_fn=hears) as process:  # noqa: PLW1509 - no thread is near
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [json.loads(process.stdout.readline())["at"] for _n in range(2)]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(timeout=30)

    assert seen[0] < seen[1]
    assert code == 0
    assert "Traceback" not in rest


@committed
def test_who_watches_sees_the_database_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher of a restart must not be thrown out by the restart."""
    real, turns = postroom_stats.count, []

    def now_and_then() -> object:
        if not turns:
            raise OperationalError("the database system is starting up")
        return real()

    def turn(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(postroom_stats, "count", now_and_then)
    monkeypatch.setattr(postroom_stats, "time", SimpleNamespace(sleep=turn))

    code, text = run("postroom_stats", "--watch")

    assert code == 0
    assert text.index("cannot be asked") < text.index("outbox    waiting 0")
    assert turns == [postroom_stats.WATCH_SECONDS] * 2


@committed
def test_an_alarm_of_nonsense_is_refused() -> None:
    code, text = run("postroom_stats", "--fail-if-lag-over", "-1")

    assert code == 2
    assert "0 or more" in text


@pytest.mark.django_db
def test_every_key_of_the_object_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()

    assert [key for key in as_json(postroom_stats.count()) if f"`{key}`" not in page] == []
