"""The operator's pages: staff only, one verdict, and histories without addresses and contents."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from postroom.ops.search import PAGE_SIZE
from tests.operations import MINUTE, SECOND, accepted, beat, happened, saved

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("clock_stands_still")]


@pytest.fixture
def operator(client: Client) -> Client:
    user = get_user_model().objects.create_user("operator", "operator@example.com", "secret", is_staff=True)
    client.force_login(user)
    return client


def page(client: Client, path: str = "/postroom/", **query: str) -> str:
    response = client.get(path, query)
    assert response.status_code == 200, response.content
    return response.content.decode()


def rows(html: str) -> list[str]:
    """The short ids in the list of e-mails, in order."""
    return re.findall(r"<code>([0-9a-f]{4})</code><span", html)


# --- who may ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/postroom/", f"/postroom/{uuid.uuid4()}/"])
def test_a_stranger_is_sent_to_log_in_and_back(client: Client, path: str) -> None:
    response = client.get(path + "?q=state:failed")

    assert response.status_code == 302
    assert "next=/postroom/" in response["Location"]
    assert "q%3Dstate%253Afailed" in response["Location"] or "q%3Dstate%3Afailed" in response["Location"]


def test_a_customer_reads_that_the_page_is_for_operators(client: Client) -> None:
    client.force_login(get_user_model().objects.create_user("ann", "ann@example.com", "secret"))

    response = client.get("/postroom/")

    assert response.status_code == 403
    assert "This page is for operators" in response.content.decode()


def test_the_pages_are_only_read_and_never_cached(operator: Client) -> None:
    assert operator.post("/postroom/").status_code == 405
    assert "no-store" in operator.get("/postroom/")["Cache-Control"]


def test_without_its_database_the_page_names_the_doctor(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("refused")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refuse)

    response = operator.get("/postroom/")

    assert response.status_code == 503
    assert "<title>■ STOPPED</title>" in response.content.decode()
    assert "postroom_doctor" in response.content.decode()


# --- the verdict --------------------------------------------------------------------------------


def test_the_title_of_the_tab_is_the_verdict(operator: Client) -> None:
    assert "<title>■ STOPPED</title>" in page(operator)

    beat()
    assert "<title>● OK</title>" in page(operator)

    saved(ago=MINUTE)
    assert "<title>▲ LATE</title>" in page(operator)


def test_the_page_tells_what_the_doctor_tells(operator: Client) -> None:
    beat(heard=MINUTE, in_hand=0)
    saved(State.SENDING, worker="web-2/4711")

    html = page(operator)

    assert "No delivery process is running." in html
    assert "D10" in html
    assert "python manage.py postroom_worker" in html
    assert "said no goodbye" in html
    assert "1 e-mail still in its hands" in html


def test_what_it_stands_on(operator: Client) -> None:
    beat()
    accepted()

    html = page(operator)

    assert "web-2/4711" in html
    assert "0 of 32 in hand" in html
    assert "tells nothing after acceptance" in html
    assert "none needed: workers see SQLite change" in html
    assert "1 accepted · 0 delivered · 0 bounced · 0 failed · 0 expired · 0 uncertain now" in html


def test_a_number_and_its_unit_stay_on_one_line(operator: Client) -> None:
    """On a telephone "typical 3.1" stood at the end of one line and "s" on the next."""
    beat()
    accepted()
    email = saved(ago=MINUTE)

    text = re.sub(r"<[^>]+>", "", page(operator) + page(operator, f"/postroom/{email.uuid}/"))

    assert "waits, for 1\N{NO-BREAK SPACE}min by now" in text
    assert "24\N{NO-BREAK SPACE}h" in text
    assert re.findall(r"\d (?:ms|s|min|h|days?)\b", text.replace("&nbsp;", "\N{NO-BREAK SPACE}")) == []


def test_an_empty_outbox_says_how_to_try_it(operator: Client) -> None:
    assert "postroom_test you@example.com" in page(operator)


# --- e-mails ------------------------------------------------------------------------------------


def test_addresses_are_masked_in_the_list(operator: Client) -> None:
    saved(State.ACCEPTED, recipient="ann@example.com", report="delivered", report_rank=50)

    html = page(operator)

    assert "a***@example.com" in html
    assert "ann@" not in html
    assert '<span class="badge badge--ok">delivered</span>' in html


def test_the_search_finds_by_each_of_its_words(operator: Client) -> None:
    ann = saved(State.ACCEPTED, recipient="ann@example.com", kind="shop.order")
    bob = saved(State.FAILED, recipient="bob@example.org", kind="accounts.reset", ago=timedelta(hours=5))

    assert rows(page(operator, q="to:ANN@example.com")) == [ann.short_id]
    assert rows(page(operator, q="kind:accounts")) == [bob.short_id]
    assert rows(page(operator, q="state:failed")) == [bob.short_id]
    assert rows(page(operator, q="state:settled since:3h")) == [ann.short_id]
    assert rows(page(operator, q=str(bob.uuid))) == [bob.short_id]
    assert rows(page(operator, q=bob.uuid.hex[:6])) == [bob.short_id]
    assert rows(page(operator, q="state:failed kind:shop")) == []


def test_waiting_means_not_settled(operator: Client) -> None:
    waiting = saved()
    saved(State.ACCEPTED)

    assert rows(page(operator, q="state:waiting")) == [waiting.short_id]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("from:ann", "There are to: kind: state: since: and the beginning of an id."),
        ("to:", "is not understood"),
        ("ann@example.com", "write to:ann@example.com"),
        ("state:lost", "There is no state “lost”."),
        ("since:yesterday", "Write since:90m, since:3h or since:2d."),
        ("since:99999999d", "Write since:90m"),
        ("<script>", "&lt;script&gt;"),
    ],
)
def test_a_word_that_is_not_understood_is_answered(operator: Client, text: str, sentence: str) -> None:
    assert sentence in page(operator, q=text)


def test_since_long_before_there_was_time_is_no_error(operator: Client) -> None:
    email = saved()

    assert rows(page(operator, q="since:99999d")) == [email.short_id]


def test_every_email_is_on_one_page_exactly_while_new_ones_come_in(operator: Client) -> None:
    """Pages counted by offset show a row twice as soon as another one is written."""
    emails = [saved() for _n in range(PAGE_SIZE + 3)]
    first = page(operator)

    saved()
    second = page(operator, before=older(first))

    assert rows(first) + rows(second) == [email.short_id for email in reversed(emails)]
    assert "Older" not in second
    assert "Newest" in second


def older(html: str) -> str:
    found = re.search(r"before=([0-9a-f-]{36})", html)
    assert found is not None
    return found[1]


def test_a_page_after_nothing_begins_at_the_newest(operator: Client) -> None:
    email = saved()

    assert rows(page(operator, before="rubbish")) == [email.short_id]
    assert rows(page(operator, before=str(uuid.uuid4()))) == [email.short_id]


def test_the_script_asks_for_nothing_from_elsewhere_and_stands_in_a_file(operator: Client) -> None:
    html = page(operator)

    assert re.findall(r"<script[^>]*>[^<]", html) == []
    assert 'src="/static/postroom/operator.js"' in html
    assert "style=" not in html


# --- one e-mail ---------------------------------------------------------------------------------


def test_the_history_of_one_email(operator: Client) -> None:
    email = saved(State.ACCEPTED, ago=MINUTE, recipient="ann@example.com", args={"order_id": 7})
    happened(email, EventType.CLAIMED, ago=59 * SECOND, worker="web-2/4711", attempt=1)
    happened(email, EventType.RESCUED, ago=30 * SECOND, worker="web-2/4711", attempt=1)
    happened(email, EventType.DELIVERED, ago=SECOND, recipient="ann@example.com")

    html = page(operator, f"/postroom/{email.uuid}/")

    order = [
        "Saved in the outbox",
        "Attempt 1 by web-2/4711",
        "Taken back from a lost worker",
        "Report: delivered",
    ]
    assert [html.index(text) for text in order] == sorted(html.index(text) for text in order)
    assert "The provider took it at" in html
    assert "a***@example.com" in html
    assert "ann@" not in html
    assert "order_id" in html
    assert "<details>" in html


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "It waits in the outbox; due at"),
        (
            {"attempt": 2, "reason": "transient"},
            "It has not been accepted yet (transient). The next attempt is due at",
        ),
        ({"uncertain_since": timezone.now()}, "It is repeated once, at"),
        (
            {"uncertain_since": timezone.now(), "key_used_at": timezone.now()},
            "in a way that the provider recognises",
        ),
        ({"expires_at": timezone.now() - SECOND}, "It expired while it waited."),
        ({"state": State.SENDING, "worker": "web-2/4711"}, "It is being handed over by web-2/4711."),
        (
            {"state": State.FAILED, "reason": "expired"},
            "It was certainly not sent and is given up (expired).",
        ),
        ({"state": State.CANCELLED, "reason": "verified"}, "It was not sent, on purpose: verified."),
        ({"state": State.UNCERTAIN}, "It may have gone out"),
        ({"state": State.ACCEPTED}, "What became of it has not been reported."),
        ({"state": State.ACCEPTED, "report": "bounced", "report_rank": 60}, "Strongest report: bounced."),
    ],
)
def test_its_state_in_words_that_claim_no_more_than_is_known(
    operator: Client, fields: dict[str, Any], sentence: str
) -> None:
    email = saved(fields.pop("state", State.PENDING), **fields)

    assert sentence in page(operator, f"/postroom/{email.uuid}/")


def test_nothing_of_what_is_written_in_an_email_is_shown(operator: Client) -> None:
    """A drop-in message is stored with its links: whoever may look at operations may not log in as a customer."""
    link = "https://shop.example/reset/abc/"
    email = saved(kind="postroom.message", args={"body": link, "to": ["ann@example.com"], "n": 1})
    happened(email, EventType.RESCHEDULED, error_class="transient", detail=f"503 for ann@example.com: {link}")

    html = page(operator, f"/postroom/{email.uuid}/")

    assert "503 for" in html
    for forbidden in (link, "ann@", "<code>body</code>", "<code>n</code>"):
        assert forbidden not in html


def test_a_resent_email_leads_to_the_one_it_replaces(operator: Client) -> None:
    first = saved(State.FAILED)
    again = saved(resend_of=first)

    assert f"/postroom/{first.uuid}/" in page(operator, f"/postroom/{again.uuid}/")


def test_every_event_type_can_be_told(operator: Client) -> None:
    email = saved(State.ACCEPTED)
    for type_ in EventType:
        happened(email, type_)

    html = page(operator, f"/postroom/{email.uuid}/")

    assert len(re.findall(r"<li[ >]", html)) == len(EventType) + 1
    assert DeliveryEvent.objects.count() == len(EventType)


def test_an_email_that_does_not_exist_is_answered_with_a_way_back(operator: Client) -> None:
    response = operator.get(f"/postroom/{uuid.uuid4()}/")

    assert response.status_code == 404
    assert "There is no e-mail of this id" in response.content.decode()
    assert not OutboundEmail.objects.exists()
