"""The status API: the holder of a receipt reads, everybody else gets one and the same answer."""

from __future__ import annotations

import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.test import Client
from django.utils import timezone

from postroom import status
from postroom.models import EventType, OutboundEmail, State
from postroom.status import Receipt
from tests.rows import row

pytestmark = pytest.mark.usefixtures("clock_stands_still")

ANN = "ann@example.org"


def session_of(client: Client, email: OutboundEmail, **kwargs: Any) -> Receipt:
    """Let the browser *client* hold the receipt for *email*, as a view would."""
    request = HttpRequest()
    request.session = client.session
    given = status.receipt(request, email, **kwargs)
    request.session.save()
    client.cookies["sessionid"] = request.session.session_key or ""
    return given


@pytest.mark.django_db
def test_holder_of_the_receipt_reads_the_status(client: Client) -> None:
    email = row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50)
    email.save()
    session_of(client, email, address=ANN, type="order")

    response = client.get(status.status_url(email))

    assert response.json()["headline"] == "It has arrived at example.org"
    assert response.json()["type"] == "order"
    assert response["Cache-Control"] == "no-store"
    assert "Cookie" in response["Vary"]
    assert "ETag" not in response


@pytest.mark.django_db
def test_everything_that_is_not_held_gets_the_same_bytes(client: Client) -> None:
    """Whether the e-mail exists, is somebody else's or was pruned: the answer must not tell."""
    held, foreign, pruned = row(), row(State.FAILED), row()
    for email in (held, foreign, pruned):
        email.save()
    session_of(client, held)
    session_of(client, pruned)
    pruned_url = status.status_url(pruned)
    pruned.delete()

    answers = [
        client.get(status.status_url(foreign)),
        client.get(f"/mail/status/{uuid.uuid4()}/"),
        client.get(pruned_url),
        client.get(status.status_url(foreign), {"email": ANN, "uuid": str(held.uuid)}),
        Client().get(status.status_url(held)),
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {(404, b'{"status": "none"}')}
    assert len({str(sorted(answer.headers.items())) for answer in answers}) == 1
    assert answers[0]["Cache-Control"] == "no-store"


@pytest.mark.django_db
def test_asking_changes_nothing(client: Client, django_assert_num_queries: Any) -> None:
    email = row()
    email.save()
    session_of(client, email)

    with django_assert_num_queries(2):  # the session, the row
        response = client.get(status.status_url(email))

    assert not response.cookies
    assert client.post(status.status_url(email)).status_code == 405


@pytest.mark.django_db
def test_times_are_told_in_the_zone_that_the_browser_names(client: Client) -> None:
    email = row(State.ACCEPTED, accepted_at=timezone.now())
    email.save()
    session_of(client, email)

    body = client.get(status.status_url(email), {"zone": "Asia/Dhaka"}).json()["body"]
    unknown = client.get(status.status_url(email), {"zone": "../../x"}).json()["body"]

    local = timezone.localtime(email.accepted_at, ZoneInfo("Asia/Dhaka"))
    assert f"at {local:%H:%M}." in body
    assert "UTC." in unknown


@pytest.mark.django_db
def test_receipts_survive_the_login_and_end_with_the_logout(client: Client, django_user_model: Any) -> None:
    email = row()
    email.save()
    session_of(client, email)
    user = django_user_model.objects.create_user("ann")

    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    after_login = client.get(status.status_url(email)).status_code
    client.logout()

    assert (after_login, client.get(status.status_url(email)).status_code) == (200, 404)


@pytest.mark.django_db
def test_session_keeps_the_newest_twenty_receipts() -> None:
    request = HttpRequest()
    request.session = SessionStore()
    emails = [row() for _ in range(25)]

    for email in [*emails, emails[-1], emails[10]]:
        status.receipt(request, email)

    assert status.held(request) == [email.uuid for email in [*emails[5:10], *emails[11:], emails[10]]]
    assert status.email_for(request, emails[0].uuid) is None


def test_page_that_is_looked_at_again_writes_nothing() -> None:
    """The order's page gives its receipt each time: a session was written by every look at it."""
    request = HttpRequest()
    request.session = SessionStore()
    email = row()

    status.receipt(request, email, address=ANN)
    request.session.modified = False
    status.receipt(request, email, address=ANN)
    again = request.session.modified
    status.receipt(request, email, address="ann@example.net")

    assert (again, request.session.modified) == (False, True)


def test_receipt_is_the_id_as_a_string() -> None:
    one = uuid.uuid4()

    assert str(Receipt(uuid=one)) == str(one)
