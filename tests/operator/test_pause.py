"""The switch that stops all sending: whoever looks anywhere reads who threw it, when and why."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DatabaseError
from django.test import Client

from postroom import delivery, ops, outbox
from postroom.models import Pause, State
from postroom.ops import Level
from postroom.ops.terminal import as_text
from postroom.ops.words import this_person
from tests.operations import MINUTE, beat, saved
from tests.operator.commands import run

pytestmark = pytest.mark.django_db


def staff(name: str, *permissions: str) -> Client:
    user = get_user_model().objects.create_user(name, f"{name}@example.com", "secret", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


# --- commands -----------------------------------------------------------------------------------


def test_paused_by_a_command_nothing_goes_out_until_it_is_resumed() -> None:
    beat()
    email = saved()

    code, text = run("postroom_pause", "--reason", "wrong price")
    delivery.drain()
    email.refresh_from_db()

    assert code == 0
    assert text.startswith("Sending is paused since")
    assert email.state == State.PENDING
    assert Pause.objects.get().actor == this_person()

    code, text = run("postroom_resume")

    assert (code, text) == (0, "Sending goes on; 1 due now.\n")
    assert not Pause.objects.exists()


def test_whoever_pauses_second_reads_who_was_first() -> None:
    outbox.pause(actor="anna@example.com", reason="wrong price, ask bob@example.com")

    code, text = run("postroom_pause", "--reason", "me too")

    assert code == 0
    assert text.startswith("Sending was paused already, by a***@example.com")
    assert "wrong price, ask <address>" in text
    assert Pause.objects.get().actor == "anna@example.com"


def test_resuming_is_not_told_as_enough_where_nobody_delivers() -> None:
    """Workers were stopped during the pause: "sending goes on", it said, and nothing did."""
    outbox.pause(actor="anna@example.com")

    assert "since no delivery process is running:  python manage.py postroom_worker" in as_text(
        ops.diagnose()
    )
    assert run("postroom_resume") == (
        0,
        "Sending goes on; 0 due now.\nNo delivery process is running. Start one: python manage.py postroom_worker\n",
    )


def test_resuming_what_is_not_paused_says_so() -> None:
    assert run("postroom_resume") == (0, "Sending was not paused.\n")


@pytest.mark.parametrize("command", ["postroom_pause", "postroom_resume"])
def test_a_switch_that_cannot_be_written_was_not_thrown(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst answer at night is "paused" while mail goes out."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise DatabaseError("attempt to write a readonly database")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refuse)

    code, text = run(command)

    assert code == 2
    assert "was paused" in text or "could not be thrown" in text


# --- the doctor ---------------------------------------------------------------------------------


def test_the_first_line_of_the_doctor_says_who_since_when_and_why() -> None:
    beat(version="0.2.0")
    saved(ago=MINUTE, kind="accounts.verification")
    outbox.pause(actor="anna", reason="wrong price in the newsletter")

    diagnosis = ops.diagnose()

    first = as_text(diagnosis).splitlines()[0]
    assert (diagnosis.code, diagnosis.level) == ("D11", Level.STOPPED)
    assert first.startswith("STOPPED   Sending is paused by anna since ")
    assert ": wrong price in the newsletter" in first
    assert "1 e-mail waits" in as_text(diagnosis)
    assert "postroom_resume" in as_text(diagnosis)


def test_a_pause_hides_no_other_trouble() -> None:
    outbox.pause(actor="anna")

    diagnosis = ops.diagnose()

    assert diagnosis.code == "D11"
    assert any(text.startswith("D10  No delivery process is running.") for text in diagnosis.also)


def test_older_code_that_does_not_know_the_switch_is_named() -> None:
    """During a deploy a worker of yesterday sends on, and the operator believes that all is quiet."""
    beat("web-1/1", version="0.1.0")
    beat("web-2/2", version="0.2.0")
    outbox.pause(actor="anna")

    text = as_text(ops.diagnose())

    assert "web-1/1 runs code that does not know the switch" in text
    assert "web-2/2 runs code" not in text


# --- the page -----------------------------------------------------------------------------------


def test_the_button_pauses_and_the_other_resumes_each_with_a_line_in_the_log() -> None:
    client = staff("anna", "change_pause")
    assert "Pause all sending" in client.get("/postroom/").content.decode()

    answer = client.post("/postroom/pause/", {"reason": "wrong price"})

    assert (answer.status_code, answer["Location"]) == (302, "/postroom/")
    assert (Pause.objects.get().actor, Pause.objects.get().reason) == ("anna", "wrong price")
    html = client.get("/postroom/").content.decode()
    assert "Sending is paused by anna since" in html
    assert "Resume sending" in html

    client.post("/postroom/resume/")

    assert not Pause.objects.exists()
    said = list(LogEntry.objects.order_by("pk").values_list("user__username", "change_message"))
    assert said == [("anna", "Paused all sending: wrong price"), ("anna", "Resumed sending.")]


def test_pausing_twice_is_written_down_once() -> None:
    client = staff("anna", "change_pause")

    for _n in range(2):
        client.post("/postroom/pause/")

    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("path", ["/postroom/pause/", "/postroom/resume/"])
def test_staff_without_the_permission_sees_no_button_and_throws_no_switch(path: str) -> None:
    outbox.pause(actor="anna")
    client = staff("bob", "view_outboundemail")

    html = client.get("/postroom/").content.decode()
    answer = client.post(path)

    assert "Resume sending" not in html
    assert answer.status_code == 403
    assert Pause.objects.get().actor == "anna"


@pytest.mark.parametrize("path", ["/postroom/pause/", "/postroom/resume/"])
def test_a_link_or_a_foreign_page_throws_no_switch(path: str) -> None:
    client = staff("anna", "change_pause")
    assert client.get(path).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies

    assert strict.post(path).status_code == 403
    assert not Pause.objects.exists()


def test_logging_in_does_not_repeat_what_was_not_done() -> None:
    answer = Client().post("/postroom/pause/")

    assert answer.status_code == 302
    assert answer["Location"].endswith("?next=/postroom/")
    assert not Pause.objects.exists()


def test_what_expired_during_the_pause_is_counted_as_such() -> None:
    beat()
    saved(ago=MINUTE, expires_at=saved().created_at - timedelta(seconds=1))
    outbox.pause(actor="anna")

    assert "1 expired unsent." in as_text(ops.diagnose())
