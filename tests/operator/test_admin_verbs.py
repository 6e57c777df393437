"""What a person does to many e-mails from the admin's list, and the switch there."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from postroom import admin_verbs, byhand, outbox
from postroom.models import DeliveryEvent, EventType, OutboundEmail, Pause, State
from tests.operations import saved

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_admin")]

LIST = "/admin/postroom/outboundemail/"
EVERYTHING = ("view_outboundemail", "change_outboundemail", "view_pause", "change_pause")


def staff(*permissions: str) -> Client:
    user = get_user_model().objects.create_user("anna", "anna@example.com", "secret", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def anna() -> Client:
    return staff(*EVERYTHING)


def uncertain() -> OutboundEmail:
    return saved(State.UNCERTAIN, uncertain_since=timezone.now(), attempt=1)


def choose(action: str, *emails: OutboundEmail, **more: str) -> dict[str, Any]:
    """What the form of the list posts when these are ticked."""
    return {"action": action, "index": "0", "_selected_action": [str(email.pk) for email in emails], **more}


def words(answer: Any) -> str:
    """The text of a page without its marks."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())


def fields(answer: Any) -> dict[str, str]:
    """The hidden fields of the question, as a browser would send them back."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.content.decode())
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def states() -> list[str]:
    return list(OutboundEmail.objects.order_by("pk").values_list("state", flat=True))


def test_what_failed_waits_again_with_the_name_of_the_user_and_the_rest_is_left_alone(anna: Client) -> None:
    emails = [saved(State.FAILED), saved(State.CANCELLED), saved(State.ACCEPTED), saved()]

    answer = anna.post(LIST, choose("retry_selected", *emails), follow=True)

    assert states() == ["pending", "pending", "accepted", "pending"]
    assert "2 e-mails wait again." in words(answer)
    assert "2 were left alone. Only what is failed, cancelled or uncertain can be retried." in words(answer)
    events = DeliveryEvent.objects.values_list("type", "actor")
    assert list(events) == [(EventType.RETRIED, "anna")] * 2


def test_only_what_is_ticked_is_changed(anna: Client) -> None:
    ticked, other = saved(State.FAILED), saved(State.FAILED)

    anna.post(LIST, choose("retry_selected", ticked))

    assert states() == ["pending", "failed"]
    assert DeliveryEvent.objects.get().email_id == ticked.pk != other.pk


def test_what_waits_is_cancelled_unless_it_may_have_arrived(anna: Client) -> None:
    emails = [saved(), saved(uncertain_since=timezone.now(), attempt=1)]

    answer = anna.post(LIST, choose("cancel_selected", *emails), follow=True)

    assert states() == ["cancelled", "pending"]
    assert "1 e-mail will not be sent." in words(answer)
    assert "1 was left alone. Only a pending e-mail of which no attempt may have arrived" in words(answer)


def test_what_may_have_arrived_is_retried_only_after_a_question(anna: Client) -> None:
    emails = [saved(State.FAILED), uncertain()]

    asked = anna.post(LIST, choose("retry_selected", *emails))

    assert asked.status_code == 200
    assert states() == ["failed", "uncertain"]
    assert "1 Uncertain: may have gone out: may arrive a second time" in words(asked)
    assert "1 Failed: certainly did not go out: arrives once" in words(asked)

    answer = anna.post(LIST, fields(asked), follow=True)

    assert states() == ["pending", "pending"]
    assert "2 e-mails wait again." in words(answer)


def test_sending_again_what_was_accepted_asks_first_and_writes_a_new_email(anna: Client) -> None:
    old = saved(State.ACCEPTED)

    asked = anna.post(LIST, choose("resend_selected", old))
    assert OutboundEmail.objects.count() == 1
    assert "1 Accepted: was accepted by the provider: arrives a second time" in words(asked)

    answer = anna.post(LIST, fields(asked), follow=True)

    again = OutboundEmail.objects.exclude(pk=old.pk).get()
    assert (again.resend_of_id, again.state) == (old.pk, State.PENDING)
    event = DeliveryEvent.objects.get()
    assert (event.email_id, event.type, event.actor) == (old.pk, EventType.RESENT, "anna")
    assert "1 e-mail is sent again, as a new one." in words(answer)


def test_a_question_answered_about_other_numbers_is_asked_again(anna: Client) -> None:
    """While the page stood open for an hour, a provider's reports had settled half of it."""
    first, second = uncertain(), uncertain()
    asked = anna.post(LIST, choose("retry_selected", first, second))
    outbox.note(first, "delivered")

    asked = anna.post(LIST, fields(asked))

    assert "The numbers have changed meanwhile. Nothing was done yet." in words(asked)
    assert states() == ["accepted", "uncertain"]

    anna.post(LIST, fields(asked))

    assert states() == ["accepted", "pending"]


def test_a_second_click_does_not_send_a_second_time(anna: Client) -> None:
    """
    What failed is sent again without a question: it certainly did not go out. The same click once
    more, or the same page loaded again, went through in the same way, and everybody got two.
    """
    old = saved(State.FAILED)
    anna.post(LIST, choose("resend_selected", old))
    assert OutboundEmail.objects.filter(resend_of=old).count() == 1

    asked = anna.post(LIST, choose("resend_selected", old))

    assert OutboundEmail.objects.filter(resend_of=old).count() == 1
    assert "1 of these: sent again before, as new e-mails: once more" in words(asked)
    anna.post(LIST, fields(asked))
    assert OutboundEmail.objects.filter(resend_of=old).count() == 2


def test_two_clicks_at_once_send_once(anna: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a double click had written its copy when the other looked whether there was one."""
    old, do, clicks = saved(State.FAILED), admin_verbs._do, []

    def and_the_other_click(*args: Any, **told: Any) -> None:
        clicks.append(1)
        if len(clicks) == 1:
            anna.post(LIST, choose("resend_selected", old))
        do(*args, **told)

    monkeypatch.setattr(admin_verbs, "_do", and_the_other_click)

    answer = anna.post(LIST, choose("resend_selected", old), follow=True)

    assert len(clicks) == 2
    assert OutboundEmail.objects.filter(resend_of=old).count() == 1
    assert "1 was left alone." in words(answer)
    assert "what was sent again this very moment is not sent twice." in words(answer)


def test_a_question_is_answered_once(anna: Client) -> None:
    """The back button and "send the form again", and all of them would have got a third one."""
    old = saved(State.ACCEPTED)
    answered = fields(anna.post(LIST, choose("resend_selected", old)))
    anna.post(LIST, answered)

    asked = anna.post(LIST, answered)

    assert OutboundEmail.objects.filter(resend_of=old).count() == 1
    assert "The numbers have changed meanwhile. Nothing was done yet." in words(asked)


def test_what_was_sent_again_is_retried_only_after_a_question(anna: Client) -> None:
    old = saved(State.FAILED)
    byhand.resend(old)

    asked = anna.post(LIST, choose("retry_selected", old))

    assert "You asked to retry:" in words(asked)
    assert "1 of these: sent again before" in words(asked)
    assert states() == ["failed", "pending"]


def test_a_copy_that_did_not_go_out_either_is_no_reason_to_ask(anna: Client) -> None:
    old = saved(State.FAILED)
    byhand.cancel(byhand.resend(old))

    anna.post(LIST, choose("resend_selected", old))

    assert OutboundEmail.objects.filter(resend_of=old).count() == 2


def test_more_than_a_thousand_are_confirmed_in_a_handful_of_fields(anna: Client) -> None:
    """Django takes 1,000 fields of a form (DATA_UPLOAD_MAX_NUMBER_FIELDS): a field an e-mail is too many."""
    for email in [uncertain(), saved(State.FAILED), saved()]:
        copies = [OutboundEmail(**_values(email)) for _n in range(500)]
        OutboundEmail.objects.bulk_create(copies)

    asked = anna.post(f"{LIST}?lane__exact=1", choose("retry_selected", *_some(), select_across="1"))
    assert "501 Uncertain" in words(asked)
    late = uncertain()
    answered = fields(asked)
    answer = anna.post(f"{LIST}?lane__exact=1", answered, follow=True)

    assert len(answered) < 10
    assert "1,002 e-mails wait again." in words(answer)
    assert "501 were left alone." in words(answer)
    late.refresh_from_db()
    assert late.state == State.UNCERTAIN
    assert DeliveryEvent.objects.filter(type=EventType.RETRIED, actor="anna").count() == 1002


def _values(email: OutboundEmail) -> dict[str, Any]:
    names = [field.attname for field in OutboundEmail._meta.concrete_fields]
    return {name: getattr(email, name) for name in names if name not in ("id", "uuid")}


def _some() -> list[OutboundEmail]:
    return list(OutboundEmail.objects.order_by("-pk")[:50])


def test_ticked_one_by_one_they_are_confirmed_in_one_field_and_no_other_is_taken(anna: Client) -> None:
    ticked = [uncertain() for _n in range(60)]
    other = uncertain()

    asked = anna.post(LIST, choose("retry_selected", *ticked))
    answer = anna.post(LIST, fields(asked), follow=True)

    assert "60 e-mails wait again." in words(answer)
    other.refresh_from_db()
    assert other.state == State.UNCERTAIN


def test_a_click_does_as_many_as_a_web_process_has_time_for(
    anna: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_verbs, "AT_MOST", 2)
    emails = [saved(State.FAILED) for _n in range(3)] + [saved()]

    answer = anna.post(LIST, choose("retry_selected", *emails), follow=True)

    assert states() == ["pending", "pending", "failed", "pending"]
    assert "2 e-mails wait again." in words(answer)
    assert "1 is left for another time: repeat it." in words(answer)
    assert "1 was left alone." in words(answer)


def test_a_database_that_gives_up_half_way_is_told_with_what_was_done(
    anna: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byhand, "AT_ONCE", 1)
    emails = [saved(State.FAILED) for _n in range(2)]
    really, calls = byhand._retry, []

    def second_fails(*args: Any, **kwargs: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise DatabaseError("disk full")
        return really(*args, **kwargs)

    monkeypatch.setattr(byhand, "_retry", second_fails)

    answer = anna.post(LIST, choose("retry_selected", *emails), follow=True)

    assert "1 e-mail waits again." in words(answer)
    assert "The database refused to go on: disk full." in words(answer)
    assert states() == ["pending", "failed"]


@pytest.mark.parametrize("action", ["retry_selected", "cancel_selected", "resend_selected"])
def test_whoever_may_only_look_is_offered_nothing_and_changes_nothing(action: str) -> None:
    client = staff("view_outboundemail")
    emails = [saved(State.FAILED), saved()]

    page = client.get(LIST).content.decode()
    client.post(LIST, {**choose(action, *emails), "seen": "failed:1 pending:1"})

    assert action not in page
    assert states() == ["failed", "pending"]
    assert not DeliveryEvent.objects.exists()


# --- the switch ---------------------------------------------------------------------------------

PAUSES = "/admin/postroom/pause/"


def test_adding_a_pause_stops_all_sending_and_deleting_it_lets_it_go_on(anna: Client) -> None:
    answer = anna.post(f"{PAUSES}add/", {"reason": "wrong price, ask bob@example.com"}, follow=True)

    pause = Pause.objects.get()
    assert (pause.actor, pause.reason) == ("anna", "wrong price, ask <address>")
    assert "Sending is paused by anna: nothing goes out." in words(answer)
    assert outbox.claim(1, worker="host/1", mailer="provider", keyed=False) == []
    assert anna.get(f"{PAUSES}add/").status_code == 403

    asked = anna.get(f"{PAUSES}1/delete/")
    assert "what waits goes out" in words(asked)
    assert Pause.objects.exists()
    answer = anna.post(f"{PAUSES}1/delete/", {"post": "yes"}, follow=True)

    assert not Pause.objects.exists()
    assert "Sending goes on; 0 due now." in words(answer)
    log = LogEntry.objects.order_by("pk").values_list("user__username", "action_flag", "object_repr")
    (who, what, about), (who_again, what_again, _about) = log
    assert (who, what, who_again, what_again) == ("anna", ADDITION, "anna", DELETION)
    assert about.startswith("paused since ")
    assert about.endswith(": wrong price, ask <address>")


def test_the_form_of_a_pause_says_what_it_does_before_anybody_presses_it(anna: Client) -> None:
    """It was called "Add pause", with "Save" and "Save and add another", beside a field "Reason"."""
    form = anna.get(f"{PAUSES}add/")

    assert "No delivery process takes anything more in hand until somebody resumes." in words(form)
    buttons = re.findall(r'<input type="submit" value="([^"]+)"', form.content.decode())
    assert buttons == ["Pause all sending"]

    outbox.pause(actor="bob", reason="")
    shown = anna.get(f"{PAUSES}1/change/").content.decode()
    assert f'<a href="{PAUSES}1/delete/" class="deletelink">Resume sending</a>' in shown
    asked = anna.get(f"{PAUSES}1/delete/").content.decode()
    assert "Resume sending?" in asked
    assert f'<a href="{PAUSES}" class="button cancel-link">' in asked


def test_whoever_pauses_second_reads_who_was_first(anna: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both had the form open: the second one must not believe that it is his pause."""
    monkeypatch.setattr("postroom.admin.PauseAdmin.has_add_permission", lambda *_a, **_k: True)
    outbox.pause(actor="bob@example.com", reason="first")

    answer = anna.post(f"{PAUSES}add/", {"reason": "second"}, follow=True)

    assert (Pause.objects.get().actor, Pause.objects.get().reason) == ("bob@example.com", "first")
    assert "Sending is paused by b***@example.com" in words(answer)


def test_a_pause_cannot_be_rewritten_and_names_no_address(anna: Client) -> None:
    outbox.pause(actor="bob@example.com", reason="first")

    for path in (PAUSES, f"{PAUSES}1/change/"):
        text = anna.get(path).content.decode()
        assert "b***@example.com" in text
        assert "bob@" not in text
    assert anna.post(f"{PAUSES}1/change/", {"reason": "second"}).status_code == 403


def test_staff_without_the_permission_throws_no_switch() -> None:
    client = staff("view_pause")
    assert client.post(f"{PAUSES}add/", {"reason": "x"}).status_code == 403
    outbox.pause(actor="bob")

    assert client.post(f"{PAUSES}1/delete/", {"post": "yes"}).status_code == 403
    assert Pause.objects.exists()
