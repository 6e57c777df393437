"""What Brevo reports, through the real view, in any order, twice, garbled, and with the database gone."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client
from django.urls import resolve, reverse

from postroom import feedback, outbox
from postroom.models import DeliveryEvent, EventType, OutboundEmail, State
from tests.attempts import NO_ANSWER, answer, put, put_and_take, table

pytest.importorskip("anymail.webhooks.brevo")
from anymail.signals import tracking
from anymail.webhooks.brevo import BrevoTrackingWebhookView

pytestmark = [pytest.mark.django_db, pytest.mark.urls("postroom.urls")]

AT = 1_780_000_000
"""Seconds; when the reported things happened."""


def basic(secret: str) -> str:
    return "Basic " + base64.b64encode(secret.encode()).decode()


def report(name: str, about: OutboundEmail | None = None, /, **more: object) -> dict[str, object]:
    """One report as Brevo sends it, naming the e-mail *about* by the metadata that went out with it."""
    body: dict[str, object] = {
        "event": name,
        "email": "ada@example.com",
        "id": 7,
        "date": "2026-05-28 22:26:40",
        "ts": AT + 7200,
        "ts_event": AT,
        "ts_epoch": AT * 1000,
        "message-id": "<1@smtp-relay.mailin.fr>",
        "subject": "Please activate your account",
        "sending_ip": "185.41.28.109",
        "contact_id": 1,
        "tags": ["verification"],
    }
    if about is not None:
        body["X-Mailin-custom"] = json.dumps({"postroom": str(about.uuid)})
    return {key: value for key, value in {**body, **more}.items() if value is not None}


def post(body: object, *, secret: str = "hook:secret", url: str = "/webhooks/brevo/tracking/"):
    """Bring *body*, JSON unless it is bytes, to the webhook as Brevo would."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    client = Client(enforce_csrf_checks=True)
    return client.post(
        url, content, content_type="application/json", headers={"Authorization": basic(secret)}
    )


def accepted(message_id: str = "<1@smtp-relay.mailin.fr>") -> OutboundEmail:
    """An e-mail that the provider took."""
    email = put_and_take("default")
    outbox.accept([answer(email, message_id=message_id)])
    return table(email)


def reports_of(email: OutboundEmail) -> list[str]:
    return [event.type for event in email.events.filter(occurred_at__isnull=False).order_by("pk")]


# The words

WORDS = [
    ("request", EventType.REQUESTED),
    ("deferred", EventType.DEFERRED),
    ("soft_bounce", EventType.SOFT_BOUNCED),
    ("delivered", EventType.DELIVERED),
    ("opened", EventType.OPENED),
    ("unique_opened", EventType.OPENED),
    ("proxy_open", EventType.OPENED),
    ("unique_proxy_open", EventType.OPENED),
    ("click", EventType.OPENED),
    ("hard_bounce", EventType.BOUNCED),
    ("invalid_email", EventType.BOUNCED),
    ("blocked", EventType.REFUSED),
    ("error", EventType.BROKEN),
    ("spam", EventType.COMPLAINED),
    ("complaint", EventType.COMPLAINED),
    ("unsubscribe", EventType.UNSUBSCRIBED),
    ("unsubscribed", EventType.UNSUBSCRIBED),
    ("reply", EventType.UNKNOWN),
    ("list_addition", EventType.UNKNOWN),
    ("", EventType.UNKNOWN),
]


@pytest.mark.parametrize(("name", "expected"), WORDS)
def test_word_of_brevo_becomes_one_of_ours(name, expected):
    email = accepted()

    response = post(report(name, email))

    assert response.status_code == 200
    assert reports_of(email) == [expected]


def test_every_word_has_a_test():
    assert {name for name, type_ in WORDS if type_ != EventType.UNKNOWN} == set(feedback.BREVO_EVENTS)


def test_every_word_that_anymail_knows_of_messages_is_known_here():
    """Anymail may learn a new one first; ``list_addition`` is about lists, not about messages."""
    assert set(BrevoTrackingWebhookView.event_types) - {"list_addition"} <= set(feedback.BREVO_EVENTS)


def test_unknown_kind_is_kept_with_its_name_and_changes_nothing():
    email = accepted()

    post(report("teleported", email, reason="no idea"))

    event = email.events.get(type=EventType.UNKNOWN)
    assert event.detail == "teleported: no idea"
    assert table(email).report == ""


def test_report_is_written_with_what_it_says():
    email = accepted()

    post(report("soft_bounce", email, reason="mailbox of ada@example.com is full"))

    event = email.events.get(type=EventType.SOFT_BOUNCED)
    assert event.occurred_at == datetime.fromtimestamp(AT, tz=UTC)
    assert event.recipient == "ada@example.com"
    assert event.message_id == "<1@smtp-relay.mailin.fr>"
    assert event.detail == "mailbox of <address> is full"
    assert event.mailer == "provider"


# Time

TIMES = [
    ({"ts_epoch": AT * 1000}, AT),
    ({"ts_epoch": AT}, AT),
    ({"ts_epoch": str(AT * 1000)}, AT),
    ({"ts_epoch": AT * 1000 + 250}, AT + 0.25),
    ({"ts_epoch": None}, AT),
    ({"ts_epoch": "soon"}, AT),
    ({"ts_epoch": 0}, AT),
    ({"ts_epoch": -5}, AT),
    ({"ts_epoch": 10**30}, AT),
    ({"ts_epoch": [1]}, AT),
]


@pytest.mark.parametrize(("fields", "expected"), TIMES)
def test_time_is_read_in_milliseconds_and_in_seconds(fields, expected):
    """Documented are milliseconds; Brevo's own sample shows seconds, which would be in 1970."""
    email = accepted()

    post(report("delivered", email, **fields))

    assert email.events.get(type=EventType.DELIVERED).occurred_at == datetime.fromtimestamp(expected, tz=UTC)


def test_report_without_a_usable_time_happened_now():
    email = accepted()

    post(report("delivered", email, ts_epoch=None, ts_event="NaN"))

    event = email.events.get(type=EventType.DELIVERED)
    assert abs((event.occurred_at - event.at).total_seconds()) < 60


# Which e-mail


def test_metadata_finds_the_email_whatever_the_message_id():
    email = accepted("")

    post(report("delivered", email, **{"message-id": "<other@smtp-relay.mailin.fr>"}))

    assert table(email).report == EventType.DELIVERED


def test_message_id_finds_the_email_without_metadata():
    email = accepted()

    post(report("delivered"))

    assert table(email).report == EventType.DELIVERED


@pytest.mark.parametrize(
    "custom", ["not json", "[1]", '{"postroom": 5}', '{"postroom": "x"}', "null", 17, {"a": 1}]
)
def test_metadata_of_another_sender_is_no_accident(custom):
    """One Brevo account, several applications: theirs may be any text."""
    email = accepted()

    response = post(report("delivered", **{"X-Mailin-custom": custom}))

    assert response.status_code == 200
    assert table(email).report == EventType.DELIVERED


def test_metadata_of_an_email_that_was_pruned_falls_back_to_the_message_id():
    gone = put("default")
    OutboundEmail.objects.filter(pk=gone.pk).delete()
    email = accepted()

    post(report("delivered", gone))

    assert table(email).report == EventType.DELIVERED


def test_report_that_nobody_can_place_is_kept():
    response = post(report("delivered"))

    assert response.status_code == 200
    assert DeliveryEvent.objects.get().email is None


def test_report_before_the_acceptance_is_known_is_adopted_by_it():
    """The provider's report overtook the provider's answer: 1 s against a read time-out of 60."""
    email = put_and_take("default")
    post(report("delivered"))

    outbox.accept([answer(email, message_id="<1@smtp-relay.mailin.fr>")])

    assert (table(email).state, table(email).report) == (State.ACCEPTED, EventType.DELIVERED)


def test_report_about_an_email_in_flight_is_kept_with_it():
    email = put_and_take("default")

    post(report("delivered", email))

    assert reports_of(email) == [EventType.DELIVERED]
    assert table(email).state == State.SENDING


@pytest.mark.parametrize("name", ["request", "delivered", "hard_bounce", "blocked"])
def test_report_resolves_the_doubt(name):
    """No answer came, the mail had gone out: the report is the proof, whatever it says."""
    email = put_and_take("default")
    outbox.doubt([answer(email, NO_ANSWER)])

    post(report(name, email))

    assert table(email).state == State.ACCEPTED
    assert table(email).uncertain_since is None


# Again, together, in any order


def test_report_that_comes_twice_is_one_event():
    """Brevo repeats what it thinks we missed."""
    email = accepted()

    statuses = [post(report("delivered", email)).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert reports_of(email) == [EventType.DELIVERED]


@pytest.mark.parametrize(
    "other",
    [
        {"event": "opened"},
        {"email": "bob@example.com"},
        {"ts_event": AT + 1},
        {"message-id": "<2@smtp-relay.mailin.fr>"},
        {"link": "https://shop.example/"},
    ],
)
def test_report_that_differs_is_another_event(other):
    one = report("click", link="https://shop.example/a")

    assert feedback.dedupe_key(one) != feedback.dedupe_key({**one, **other})


def test_webhook_id_is_not_an_id_of_the_event():
    """Brevo's ``id`` is the same for all reports of a webhook, and differs between two webhooks."""
    assert feedback.dedupe_key(report("click")) == feedback.dedupe_key(report("click", id=8))


def test_batch_is_taken_whole():
    """``batched: true`` posts arrays, which Anymail 15.2 answers with a 500."""
    one, two = accepted("<1@x>"), accepted("<2@x>")

    response = post([report("delivered", one), report("hard_bounce", two), report("opened", one)])

    assert response.status_code == 200
    assert table(one).report == EventType.OPENED
    assert table(two).report == EventType.BOUNCED


def test_batch_may_repeat_what_came_alone():
    email = accepted()
    post(report("delivered", email))

    post([report("request", email), report("delivered", email), report("delivered", email)])

    assert sorted(reports_of(email)) == [EventType.DELIVERED, EventType.REQUESTED]


def test_empty_batch_is_no_accident():
    assert post([]).status_code == 200


def test_one_odd_report_does_not_cost_the_batch():
    email = accepted()

    response = post([None, 5, {"no": "event"}, report("delivered", email), {"event": ["odd"]}])

    assert response.status_code == 200
    assert table(email).report == EventType.DELIVERED


@pytest.mark.parametrize("with_metadata", [True, False], ids=["by metadata", "by message id"])
def test_every_order_of_the_same_reports_ends_alike(with_metadata):
    """
    ``delivered`` before ``request`` is normal, and an acceptance may come after all of them. Late
    bounces beat a delivery; nothing an early report says may be undone by a weaker later one.
    """
    steps = ["request", "deferred", "delivered", "hard_bounce", "acceptance"]
    ends = set()
    for number, order in enumerate(itertools.permutations(steps)):
        email = put_and_take("default")
        message_id = f"<{number}@smtp-relay.mailin.fr>"
        for step in order:
            if step == "acceptance":
                outbox.accept([answer(email, message_id=message_id)])
                continue
            at = AT + steps.index(step)
            named = email if with_metadata else None
            body = report(step, named, ts_event=at, ts_epoch=at * 1000, **{"message-id": message_id})
            assert post(body).status_code == 200
        end = table(email)
        ends.add((end.state, end.report, end.report_rank, end.reported_at, len(reports_of(end))))

    assert len(ends) == 1
    assert ends.pop()[:2] == (State.ACCEPTED, EventType.BOUNCED)


# What must not come in

GARBAGE = [
    b"",
    b"hello",
    b'{"event": "deliv',
    b"\xff\xfe\x00",
    b"null",
    b"17",
    b'"delivered"',
    b"{}",
    b'[{"no": "event"}]',
    b"[1, 2]",
    b'{"items": [{"Uuid": ["x"]}]}',
    b"[" * 100_000,
    b"event=delivered",
]


@pytest.mark.parametrize("body", GARBAGE, ids=[repr(body[:20]) for body in GARBAGE])
def test_body_that_is_no_report_is_a_bad_request(body):
    response = post(body)

    assert response.status_code == 400
    assert not DeliveryEvent.objects.exists()


@pytest.mark.parametrize("odd", ["nul \0 in it", "half a pair \ud800", "x" * 5000, 5, ["a"], {"a": 1}, True])
def test_text_that_a_database_would_refuse_is_put_right(odd):
    """One such report would come back for ten hours and never get in."""
    email = accepted()
    fields = {"email": odd, "reason": odd, "link": odd, "message-id": odd, "tags": odd, "subject": odd}

    response = post(report("delivered", email, **fields))

    assert response.status_code == 200
    assert table(email).report == EventType.DELIVERED


@pytest.mark.parametrize("secret", ["hook:wrong", "", "hook", "wrong:secret"])
def test_wrong_secret_is_a_bad_request(secret):
    """Anymail's own answer: it raises a SuspiciousOperation, and Django says 400."""
    email = accepted()

    response = post(report("delivered", email), secret=secret)

    assert response.status_code == 400
    assert table(email).report == ""


def test_missing_secret_is_a_bad_request():
    response = Client().post("/webhooks/brevo/tracking/", json.dumps(report("delivered")), "application/json")

    assert response.status_code == 400


def test_secret_can_be_rotated(settings):
    settings.ANYMAIL = {"WEBHOOK_SECRET": ["hook:new", "hook:old"]}

    assert post(report("delivered"), secret="hook:new").status_code == 200
    assert post(report("opened"), secret="hook:old").status_code == 200


def test_browser_gets_nothing():
    assert Client().get("/webhooks/brevo/tracking/").status_code == 405


# When it cannot be stored


@contextmanager
def events_table_gone():
    """As in the middle of a migration: every INSERT is refused by the database itself."""
    name = DeliveryEvent._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} RENAME TO {name}_gone")
        yield
        cursor.execute(f"ALTER TABLE {name}_gone RENAME TO {name}")


def test_report_that_cannot_be_stored_is_asked_for_again():
    """Brevo forgets a report that met a 5xx, and repeats one that met a 429."""
    email = accepted()

    with events_table_gone():
        response = post(report("delivered", email))

    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert post(report("delivered", email)).status_code == 200
    assert table(email).report == EventType.DELIVERED


@pytest.mark.parametrize(
    "error", [OperationalError("server closed the connection"), InterfaceError("closed")]
)
def test_database_that_is_away_is_no_500(error):
    def away(*_: object) -> None:
        raise error

    with connection.execute_wrapper(away):
        response = post(report("delivered"))

    assert response.status_code == 429


def test_batch_that_could_not_be_stored_to_its_end_is_stored_by_its_repetition():
    email = accepted()
    batch = [report("request", email), report("delivered", email), report("opened", email)]

    def fails_later(execute, sql, params, many, context):
        if sql.startswith("UPDATE") and "event" in sql:
            raise OperationalError("disk full")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fails_later):
        first = post(batch)
    assert reports_of(email) == []
    second = post(batch)

    assert (first.status_code, second.status_code) == (429, 200)
    assert sorted(reports_of(email)) == [EventType.DELIVERED, EventType.OPENED, EventType.REQUESTED]


# Anymail, with and without


def test_receivers_of_anymails_signal_still_hear():
    heard = []

    def receiver(event, esp_name, **_):
        heard.append((esp_name, event.event_type, event.message_id, event.timestamp))

    tracking.connect(receiver)
    try:
        post(report("soft_bounce", ts_epoch=AT))
    finally:
        tracking.disconnect(receiver)

    assert heard == [("Brevo", "bounced", "<1@smtp-relay.mailin.fr>", datetime.fromtimestamp(AT, tz=UTC))]


def test_receiver_that_raises_costs_no_report():
    email = accepted()

    def receiver(**_: object) -> None:
        raise RuntimeError("a bug of the site")

    tracking.connect(receiver)
    try:
        response = post(report("delivered", email))
    finally:
        tracking.disconnect(receiver)

    assert response.status_code == 200
    assert table(email).report == EventType.DELIVERED


def test_without_anymail_the_webhook_says_what_is_missing_and_the_rest_works():
    program = (
        "import sys\n"
        "for name in ('anymail', 'requests', 'urllib3'): sys.modules[name] = None\n"
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "import django; django.setup()\n"
        "from django.core.exceptions import ImproperlyConfigured\n"
        "from django.test import RequestFactory\n"
        "from postroom.urls.webhooks import urlpatterns\n"
        "try: urlpatterns[0].callback(RequestFactory().post('/'))\n"
        "except ImproperlyConfigured as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "django-postroom[brevo]" in done.stdout, done.stderr


# URLs


def test_all_parts_can_be_mounted_at_once():
    names = [
        "postroom_webhooks:brevo",
        "postroom_operator:overview",
        "postroom_health:live",
        "postroom_health:ready",
    ]

    assert [reverse(name) for name in names] == [
        "/webhooks/brevo/tracking/",
        "/",
        "/healthz/live",
        "/healthz/ready",
    ]
    assert resolve("/status/00000000-0000-0000-0000-000000000000/").view_name == "postroom_status:status"


def test_mounting_one_part_does_not_import_the_others():
    program = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
        "import django; django.setup()\n"
        "import postroom.urls.status\n"
        "print([name for name in sys.modules if name.startswith('postroom.urls.')])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "['postroom.urls.status']", done.stderr
