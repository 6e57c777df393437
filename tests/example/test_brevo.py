"""The provider simulator: what the tests of everything else take for Brevo has to behave like it."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Empty, Queue
from typing import Any

import pytest
import requests

from example.brevo import KEY_LIVES_SECONDS, Brevo, Server
from example.moods import FOR_PEOPLE, MOODS, Mood
from example.reports import Hook
from tests.example.running import PATIENCE_SECONDS, eventually

QUICK = Mood(label="quick", seconds=0, report_after=0.05)


class Ears:
    """The customer's webhook: hears reports, and answers with the statuses it was given, then 200."""

    def __init__(self, *statuses: int) -> None:
        heard: Queue[tuple[str, dict[str, Any]]] = Queue()
        answers = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                heard.put((self.headers.get("Authorization", ""), body))
                self.send_response(answers.pop(0) if answers else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.heard = heard
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://hook:secret@127.0.0.1:{self.server.server_port}/"

    def next(self, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait for the next report."""
        return self.heard.get(timeout=seconds)[1]


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Serve for the length of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    with serving(ears.server):
        yield ears


@pytest.fixture
def brevo(ears: Ears) -> Iterator[str]:
    """URL of a simulator that answers at once and reports to *ears*."""
    server = Server(Brevo(QUICK, Hook(ears.url, retries=(0.01,) * 4)))
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


def an_email(**changes: Any) -> dict[str, Any]:
    """Return a request body as Anymail makes them."""
    body: dict[str, Any] = {
        "sender": {"email": "shop@example.com"},
        "to": [{"email": "ann@example.com"}],
        "subject": "Please activate your account",
        "textContent": "Hello",
        "headers": {"idempotencyKey": str(uuid.uuid4()), "X-Mailin-custom": '{"postroom": "7f3a"}'},
        "tags": ["accounts.verification"],
    }
    return {**body, **changes}


def send(brevo: str, body: Any = None, **options: Any) -> requests.Response:
    options = {"headers": {"api-key": "k"}, "timeout": PATIENCE_SECONDS, **options}
    return requests.post(f"{brevo}/v3/smtp/email", json=body or an_email(), **options)


def mood(brevo: str, name: str, **wish: Any) -> None:
    requests.post(f"{brevo}/_mood", json={"mood": name, **wish}, timeout=PATIENCE_SECONDS).raise_for_status()


def log(brevo: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{brevo}/_log", timeout=PATIENCE_SECONDS).json()
    return found


def test_accepts_with_a_message_id_and_rate_headers(brevo: str) -> None:
    answer = send(brevo)

    assert answer.status_code == 201
    assert answer.json()["messageId"].endswith("@smtp-relay.mailin.fr>")
    assert {"x-sib-ratelimit-limit", "x-sib-ratelimit-remaining", "x-sib-ratelimit-reset"} <= {
        name.lower() for name in answer.headers
    }


def test_reports_request_and_delivered_with_our_metadata_tags_and_credentials(brevo: str, ears: Ears) -> None:
    message_id = send(brevo).json()["messageId"]

    heard = [ears.heard.get(timeout=PATIENCE_SECONDS) for _ in range(2)]

    # In any order, as at Brevo.
    told = {report["event"]: report for _authorization, report in heard}
    second = told["delivered"]
    assert {authorization for authorization, _report in heard} == {"Basic aG9vazpzZWNyZXQ="}
    assert set(told) == {"request", "delivered"}
    assert second["message-id"] == message_id
    assert second["email"] == "ann@example.com"
    assert json.loads(second["X-Mailin-custom"]) == {"postroom": "7f3a"}
    assert second["tags"] == ["accounts.verification"]
    assert abs(second["ts_epoch"] / 1000 - time.time()) < 60


def test_second_use_of_a_key_is_refused_and_not_processed(brevo: str, ears: Ears) -> None:
    body = an_email()

    first, second = send(brevo, body), send(brevo, body)

    assert (first.status_code, second.status_code) == (201, 400)
    assert second.json()["code"] == "duplicate_parameter"
    assert [call["accepted"] for call in log(brevo)] == [True, False]
    assert {ears.next()["event"], ears.next()["event"]} == {"request", "delivered"}
    with pytest.raises(Empty):
        ears.next(0.2)


def test_key_is_forgotten_after_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    brevo, body = Brevo(QUICK, Hook("")), an_email()
    brevo.receive(body, "k")
    later = time.monotonic() + KEY_LIVES_SECONDS + 1
    monkeypatch.setattr("example.brevo.time.monotonic", lambda: later)

    call, _mood, refusal = brevo.receive(body, "k")

    assert refusal is None
    assert call.accepted


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sender": None}, "missing_parameter"),
        ({"sender": {"email": "nobody"}}, "invalid_parameter"),
        ({"to": []}, "missing_parameter"),
        ({"to": [{"email": "not an address"}]}, "invalid_parameter"),
        ({"to": "ann@example.com"}, "invalid_parameter"),
        ({"subject": ""}, "missing_parameter"),
        ({"textContent": ""}, "missing_parameter"),
        ({"headers": {"idempotencyKey": "7"}}, "invalid_parameter"),
    ],
)
def test_refuses_what_brevo_would_refuse(brevo: str, changes: dict[str, Any], code: str) -> None:
    answer = send(brevo, an_email(**changes))

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not log(brevo)[0]["accepted"]


def test_missing_key_is_unauthorized(brevo: str) -> None:
    assert send(brevo, headers={}).status_code == 401


def test_no_json_is_a_bad_request(brevo: str) -> None:
    answer = requests.post(
        f"{brevo}/v3/smtp/email", data=b"{", headers={"api-key": "k"}, timeout=PATIENCE_SECONDS
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_an_answer_dropped_after_acceptance_still_counts_as_taken(brevo: str, ears: Ears) -> None:
    """The accident that postroom exists for: it went out, and nobody was told."""
    body = an_email()
    mood(brevo, "takes-it-and-drops", seconds=0, report_after=0, next=1)

    with pytest.raises(requests.ConnectionError):
        send(brevo, body)

    assert send(brevo, body).json()["code"] == "duplicate_parameter"
    assert [(call["accepted"], call["answered"]) for call in log(brevo)] == [(True, False), (False, True)]
    assert "delivered" in {ears.next()["event"], ears.next()["event"]}


def test_caller_that_hangs_up_does_not_undo_acceptance(brevo: str) -> None:
    mood(brevo, "default", seconds=30)

    with pytest.raises(requests.Timeout):
        send(brevo, timeout=0.2)

    assert eventually(lambda: log(brevo))[0]["accepted"]


def test_caller_that_dies_while_speaking_has_asked_for_nothing(brevo: str) -> None:
    """
    A worker killed between the head and the body of its request was once logged as a bad request:
    the log of calls, which judges every accident, accused the worker of one that it never made.
    """
    host, port = brevo.removeprefix("http://").split(":")
    head = "POST /v3/smtp/email HTTP/1.1\r\nHost: x\r\napi-key: k\r\nContent-Length: 100\r\n\r\n"

    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as caller:
        caller.sendall(head.encode() + b'{"sender": ')
        caller.shutdown(socket.SHUT_WR)
        answer = caller.recv(100)

    assert answer == b""
    assert log(brevo) == []


def test_hanging_accepts_nothing(brevo: str) -> None:
    mood(brevo, "hangs")

    with pytest.raises(requests.Timeout):
        send(brevo, timeout=0.2)

    assert not eventually(lambda: log(brevo))[0]["accepted"]


@pytest.mark.parametrize("name", ["429", "5xx", "unauthorized", "no-credits"])
def test_refusing_moods_take_nothing_and_remember_no_key(brevo: str, name: str) -> None:
    body = an_email()
    mood(brevo, name, seconds=0, next=1)

    refused, taken = send(brevo, body), send(brevo, body)

    assert refused.status_code == MOODS[name].status
    assert taken.status_code == 201


def test_too_many_says_when_to_come_back(brevo: str) -> None:
    mood(brevo, "429", seconds=0)

    assert send(brevo).headers["x-sib-ratelimit-reset"] == "5"


@pytest.mark.parametrize(("name", "event"), [("refuses", "blocked"), ("bounces", "hard_bounce")])
def test_bad_news_comes_by_report(brevo: str, ears: Ears, name: str, event: str) -> None:
    mood(brevo, name, seconds=0, report_after=0.05)
    assert send(brevo).status_code == 201

    assert {ears.next()["event"], ears.next()["event"]} == {"request", event}


def test_without_reports_nothing_is_told(brevo: str, ears: Ears) -> None:
    mood(brevo, "no-reports", seconds=0)
    send(brevo)

    with pytest.raises(Empty):
        ears.next(0.3)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("html", 200, b"<!doctype"), ("empty", 201, b""), ("truncated", 201, b'{"mess')],
)
def test_nonsense(brevo: str, name: str, status: int, body: bytes) -> None:
    mood(brevo, name, seconds=0)

    answer = send(brevo)

    assert answer.status_code == status
    assert answer.content.startswith(body)


@pytest.mark.parametrize(("first", "times"), [(429, 2), (500, 1), (200, 1)])
def test_report_is_repeated_after_429_and_lost_after_500(first: int, times: int) -> None:
    """Brevo repeats only what timed out, had no answer or met a 429; a 5xx loses the report."""
    ears = Ears(first)

    with serving(ears.server):
        Hook(ears.url, retries=(0.01,)).tell(0, {"event": "delivered"})

        assert [ears.next()["event"] for _ in range(times)] == ["delivered"] * times
        with pytest.raises(Empty):
            ears.next(0.3)


def test_foreign_page_cannot_change_the_mood(brevo: str) -> None:
    """A form on any web page can post to the loopback interface, but not JSON."""
    answer = requests.post(
        f"{brevo}/_mood",
        data='{"mood": "5xx"}',
        headers={"Content-Type": "text/plain"},
        timeout=PATIENCE_SECONDS,
    )

    assert answer.status_code == 404
    assert send(brevo).status_code == 201


@pytest.mark.parametrize(
    "wish", [{"mood": "angry"}, {"mood": "5xx", "seconds": "soon"}, {"mood": "5xx", "next": "x"}]
)
def test_unknown_mood_is_refused(brevo: str, wish: dict[str, Any]) -> None:
    assert requests.post(f"{brevo}/_mood", json=wish, timeout=PATIENCE_SECONDS).status_code == 400


def test_ten_moods_are_for_people(brevo: str) -> None:
    told = requests.get(f"{brevo}/_mood", timeout=PATIENCE_SECONDS).json()

    assert list(told["moods"]) == list(FOR_PEOPLE)
    assert len(FOR_PEOPLE) == 10


def test_lines_carry_ids_and_no_address(brevo: str, ears: Ears, capfd: pytest.CaptureFixture[str]) -> None:
    send(brevo)
    assert {ears.next()["event"], ears.next()["event"]} == {"request", "delivered"}

    told = capfd.readouterr().out
    assert "took email=7f3a" in told
    assert "@" not in told
