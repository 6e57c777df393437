"""The mailbox's pages and its JSON: there with DEBUG only, and harmless whatever an e-mail holds."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from anymail.signals import tracking
from django.core.mail import EmailMultiAlternatives
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from postroom.mailbox.store import Outcome, Store
from postroom.mailbox.views import LETTER_POLICY
from postroom.models import EventType, OutboundEmail, State
from tests.mailbox.far_sides import evil, message, recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_django.fixtures import Settings

    from postroom.mailbox.recorder import EmailBackend

pytestmark = pytest.mark.usefixtures("mailbox")


@pytest.fixture
def post(path: Path) -> EmailBackend:
    return recorder(path, None)


def body(response: Any) -> str:
    return str(response.content.decode())


@pytest.mark.parametrize("name", ["overview", "letter", "html", "source", "api"])
def test_without_debug_there_is_no_mailbox(
    client: Client, post: EmailBackend, settings: Settings, name: str
) -> None:
    post.send_messages([message()])
    url = reverse(f"postroom_mailbox:{name}", args=[] if name in ("overview", "api") else [1])

    assert client.get(url).status_code == 200
    settings.DEBUG = False
    assert client.get(url).status_code == 404


@pytest.mark.parametrize("name", ["report", "clear"])
def test_without_debug_nothing_can_be_posted(
    client: Client, post: EmailBackend, store: Store, settings: Settings, name: str
) -> None:
    post.send_messages([message()])
    settings.DEBUG = False

    url = reverse(f"postroom_mailbox:{name}", args=[] if name == "clear" else [1])
    assert client.post(url, {"report": "bounced"}).status_code == 404
    assert len(store.newest()) == 1


def test_an_empty_mailbox_says_how_to_fill_it(client: Client, path: Path) -> None:
    page = body(client.get("/mailbox/"))

    assert "No e-mail yet." in page
    assert "python manage.py sendtestemail you@example.com" in page
    assert not path.exists()


def test_a_site_whose_mailers_do_not_record_is_told_so(client: Client, settings: Settings) -> None:
    settings.POSTROOM = {"SITE_URL": "http://testserver"}

    assert "No mailer records here." in body(client.get("/mailbox/"))
    assert client.get("/mailbox/api/messages/").json() == []


def test_a_broken_file_is_an_explanation_and_no_crash(client: Client, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)

    response = client.get("/mailbox/")

    assert response.status_code == 503
    assert str(path) in body(response)
    assert "a new one is begun" in body(response)


def test_the_newest_letter_is_open_with_its_link_as_a_button(client: Client, post: EmailBackend) -> None:
    post.send_messages([message("bob@example.com", "An older one"), message()])

    page = body(client.get("/mailbox/"))

    assert page.index("Please activate your account") < page.index("An older one")
    assert re.search(
        r'<a class="button" href="http://testserver/accounts/activate/MQ/abc-def/"[^>]*>Confirm link', page
    )
    assert "Open it in a private window to see what another device sees." in page
    assert '<iframe src="/mailbox/2/html/"' in page


@pytest.mark.parametrize("knows_dark", [True, False])
def test_a_letter_that_knows_the_dark_is_not_white_until_it_is_loaded(
    client: Client, post: EmailBackend, knows_dark: bool
) -> None:
    """One that does not is white afterwards, and expects paper below its black letters."""
    composed = EmailMultiAlternatives("Hello", "Hello.", to=["ann@example.com"])
    head = '<meta name="color-scheme" content="light dark">' if knows_dark else ""
    composed.attach_alternative(f"<head>{head}</head><p>Hello.</p>", "text/html")
    post.send_messages([composed])

    assert ('<iframe class="knows-dark"' in body(client.get("/mailbox/"))) is knows_dark


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("text", "http://testserver/accounts/activate/MQ/abc-def/\n</pre>"),
        ("source", "Content-Type: multipart/alternative"),
        ("headers", '<th scope="row">Subject</th><td>Please activate your account</td>'),
        ("nonsense", "<iframe"),
    ],
)
def test_each_part_can_be_looked_at(client: Client, post: EmailBackend, part: str, shown: str) -> None:
    post.send_messages([message()])

    assert shown in body(client.get(f"/mailbox/1/?part={part}"))


def test_the_source_can_be_downloaded(client: Client, post: EmailBackend, store: Store) -> None:
    post.send_messages([message()])

    response = client.get("/mailbox/1/source.eml")

    letter = store.get(1)
    assert letter is not None
    assert response.content == letter.source
    assert response["Content-Disposition"] == 'attachment; filename="1.eml"'
    assert response["Content-Type"] == "message/rfc822"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.WAITING, "which has not answered"),
        (Outcome.ACCEPTED, "&lt;1@provider&gt;"),
        (Outcome.ERROR, "OSError: &lt;b&gt;cut&lt;/b&gt;"),
        (Outcome.UNSENT, "not sent"),
        (Outcome.KEPT, "it went nowhere else"),
    ],
)
def test_what_the_mailer_answered_is_told(
    client: Client, post: EmailBackend, store: Store, outcome: Outcome, said: str
) -> None:
    post.send_messages([message()])
    answer = "OSError: <b>cut</b>" if outcome is Outcome.ERROR else ""
    store.answer(1, outcome, answer=answer, message_id="<1@provider>")

    assert said in body(client.get("/mailbox/1/"))


def test_a_letter_that_is_gone_is_a_404(client: Client, post: EmailBackend) -> None:
    post.send_messages([message()])

    assert client.get("/mailbox/17/").status_code == 404
    assert client.get("/mailbox/17/html/").status_code == 404
    assert client.get("/mailbox/99999999999999999999/").status_code == 404


def test_the_json_holds_exactly_what_was_promised_newest_first(client: Client, post: EmailBackend) -> None:
    post.send_messages(
        [message("Ann <ann@example.com>", "First", cc=["bob@example.com"]), message(subject="Second")]
    )
    post.send_messages([message("carol@example.com")])

    letters = client.get("/mailbox/api/messages/", {"to": "ANN@example.com"}).json()

    assert [letter["subject"] for letter in letters] == ["Second", "First"]
    first = letters[1]
    assert set(first) == {"id", "to", "subject", "text", "html", "headers", "received_at"}
    assert first["to"] == ["ann@example.com", "bob@example.com"]
    assert "http://testserver/accounts/activate/MQ/abc-def/" in first["text"]
    assert "<p>Hello</p>" in first["html"]
    assert first["headers"]["Subject"] == "First"
    assert abs((timezone.now() - datetime.fromisoformat(first["received_at"])).total_seconds()) < 60
    assert len(client.get("/mailbox/api/messages/").json()) == 3


def test_the_json_finds_an_address_with_an_unquoted_plus(client: Client, post: EmailBackend) -> None:
    """A script that pastes the address into the URL asks for a space, which no address contains."""
    post.send_messages([message("ann+shop@example.com")])

    assert len(client.get("/mailbox/api/messages/?to=ann+shop@example.com").json()) == 1
    assert len(client.get("/mailbox/api/messages/?to=ann%2Bshop@example.com").json()) == 1


def test_clear_empties_the_mailbox_and_only_when_posted(
    client: Client, post: EmailBackend, store: Store
) -> None:
    post.send_messages([message()])

    assert client.get("/mailbox/clear/").status_code == 405
    assert len(store.newest()) == 1
    assert client.post("/mailbox/clear/").headers["Location"] == "/mailbox/"
    assert store.newest() == []


def test_a_post_from_another_site_is_refused(post: EmailBackend, store: Store) -> None:
    post.send_messages([message()])

    assert Client(enforce_csrf_checks=True).post("/mailbox/clear/").status_code == 403
    assert len(store.newest()) == 1


def test_pages_escape_whatever_an_e_mail_holds(client: Client, post: EmailBackend) -> None:
    post.send_messages([evil()])

    for part in ("html", "text", "source", "headers"):
        page = body(client.get(f"/mailbox/1/?part={part}&to=<script>"))
        assert "&lt;script&gt;document.title=" in page
        assert [tag for tag in re.findall(r"<script[^>]*>", page) if "/mailbox.js" not in tag] == []
        assert "<b>text</b>" not in page


def test_pages_carry_a_policy_without_inline_scripts(client: Client, post: EmailBackend) -> None:
    post.send_messages([message()])

    response = client.get("/mailbox/")

    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert "script-src 'self';" in response["Content-Security-Policy"]
    assert "unsafe-inline" not in response["Content-Security-Policy"]
    assert response["Cache-Control"] == "no-store"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", body(response))


def test_the_html_of_an_e_mail_is_served_into_a_sandbox(client: Client, post: EmailBackend) -> None:
    post.send_messages([evil()])

    response = client.get("/mailbox/1/html/")

    assert response["Content-Security-Policy"] == LETTER_POLICY
    policy = {words.split()[0]: words.split()[1:] for words in LETTER_POLICY.split("; ")}
    assert policy["default-src"] == ["'none'"]
    assert "allow-scripts" not in policy["sandbox"]
    assert "allow-same-origin" not in policy["sandbox"]
    assert "allow-forms" not in policy["sandbox"]
    assert "script-src" not in policy
    assert "X-Frame-Options" not in response


@pytest.fixture
def email() -> OutboundEmail:
    """An accepted row, two events old."""
    now = timezone.now()
    row = OutboundEmail.objects.create(
        kind="accounts.verification",
        state=State.ACCEPTED,
        attempt=1,
        expires_at=now,
        settled_at=now,
        accepted_at=now,
    )
    row.events.create(type=EventType.CLAIMED, attempt=1)
    row.events.create(type=EventType.ACCEPTED, attempt=1, detail="<i>250</i>")
    return row


@pytest.mark.django_db
def test_a_letter_of_the_outbox_shows_its_history(
    client: Client, post: EmailBackend, email: OutboundEmail
) -> None:
    composed = message()
    composed.postroom_uuid = str(email.uuid)  # type: ignore[attr-defined]
    post.send_messages([composed])

    page = body(client.get("/mailbox/"))

    told = [
        "Saved in the outbox",
        "Attempt begun",
        "Accepted by the provider",
        "&lt;i&gt;250&lt;/i&gt;",
        "Now: Accepted",
    ]
    assert sorted(told, key=page.index) == told


@pytest.mark.django_db
def test_a_letter_whose_row_was_pruned_says_so(client: Client, post: EmailBackend) -> None:
    composed = message()
    composed.postroom_uuid = str(uuid4())  # type: ignore[attr-defined]
    post.send_messages([composed])

    assert "not in the outbox any more" in body(client.get("/mailbox/"))


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """What Anymail's own webhook view makes of a report."""
    events: list[Any] = []

    def hear(sender: object, event: Any, esp_name: str, **_: object) -> None:
        events.append(event)

    tracking.connect(hear)
    yield events
    tracking.disconnect(hear)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("report", "event_type"),
    [
        ("delivered", EventType.DELIVERED),
        ("bounced", EventType.BOUNCED),
        ("deferred", EventType.DEFERRED),
        ("complained", EventType.COMPLAINED),
    ],
)
def test_a_report_played_by_hand_does_what_one_of_brevo_would(
    client: Client,
    post: EmailBackend,
    store: Store,
    email: OutboundEmail,
    heard: list[Any],
    report: str,
    event_type: EventType,
) -> None:
    """It goes through the mounted view with its password, and Anymail reads everything in it."""
    composed = message()
    composed.postroom_uuid = str(email.uuid)  # type: ignore[attr-defined]
    post.send_messages([composed])
    store.answer(1, Outcome.ACCEPTED, message_id="<1@smtp-relay.mailin.fr>")

    response = client.post("/mailbox/1/report/", {"report": report})

    assert response.headers["Location"] == f"/mailbox/1/?reported={report}&answer=200#history"
    [event] = heard
    assert event.event_type == event_type
    assert event.message_id == "<1@smtp-relay.mailin.fr>"
    assert event.recipient == "ann@example.com"
    assert event.metadata == {"postroom": str(email.uuid)}
    assert abs((timezone.now() - event.timestamp).total_seconds()) < 60
    assert email.events.filter(type=event_type, message_id="<1@smtp-relay.mailin.fr>").count() == 1
    email.refresh_from_db()
    assert email.report == event_type
    page = body(client.get(response.headers["Location"]))
    assert str(event_type.label) in page
    assert "the webhook took it" in page


@pytest.mark.django_db
def test_each_recipient_is_reported(
    client: Client, post: EmailBackend, store: Store, heard: list[Any]
) -> None:
    post.send_messages([message(bcc=["boss@example.com"])])
    store.answer(1, Outcome.ACCEPTED, message_id="<1@provider>")

    client.post("/mailbox/1/report/", {"report": "delivered"})

    assert [event.recipient for event in heard] == ["ann@example.com", "boss@example.com"]


@pytest.mark.django_db
def test_of_several_secrets_one_is_used(
    client: Client, post: EmailBackend, store: Store, settings: Settings, heard: list[Any]
) -> None:
    """While a secret is being changed, Anymail takes a list."""
    settings.ANYMAIL = {"WEBHOOK_SECRET": ["first:secret", "second:secret"]}
    post.send_messages([message()])
    store.answer(1, Outcome.ACCEPTED, message_id="<1@provider>")

    assert "answer=200" in client.post("/mailbox/1/report/", {"report": "delivered"}).headers["Location"]
    assert len(heard) == 1


def test_a_webhook_that_refuses_is_told(client: Client, post: EmailBackend) -> None:
    post.send_messages([message()])

    assert "the webhook answered 429" in body(client.get("/mailbox/1/?reported=delivered&answer=429"))


def test_a_report_of_another_kind_or_without_an_id_is_refused(
    client: Client, post: EmailBackend, store: Store, heard: list[Any]
) -> None:
    post.send_messages([message()])

    assert "/report/" not in body(client.get("/mailbox/1/"))
    assert client.post("/mailbox/1/report/", {"report": "delivered"}).status_code == 404
    store.answer(1, Outcome.ACCEPTED, message_id="<1@provider>")
    assert client.post("/mailbox/1/report/", {"report": "click"}).status_code == 404
    assert client.post("/mailbox/1/report/").status_code == 404
    assert heard == []


def test_nonsense_in_the_query_is_not_repeated(client: Client, post: EmailBackend) -> None:
    post.send_messages([message()])

    page = body(client.get("/mailbox/1/?reported=delivered&answer=<b>"))

    assert "was posted" not in page
