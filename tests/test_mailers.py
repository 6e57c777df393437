"""What a mailer hands to a provider that knows keys, as that provider sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.core.mail import EmailMessage
from pytest_django.fixtures import Settings

from example.brevo import Brevo, Server
from example.moods import Mood
from example.reports import Hook
from postroom import mailers
from postroom.exceptions import SettingsError
from postroom.failures import FailureClass, judge
from postroom.mailers import Mailer

pytest.importorskip("anymail.backends.brevo")


@pytest.fixture
def provider() -> Iterator[Server]:
    """A provider that answers at once."""
    server = Server(Brevo(Mood(label="quick", seconds=0), Hook("")))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mailer(provider: Server) -> Iterator[Mailer]:
    url = f"http://127.0.0.1:{provider.server_port}/v3/"
    mailer = Mailer(
        "brevo",
        {"BACKEND": "anymail.backends.brevo.EmailBackend", "OPTIONS": {"api_key": "k", "api_url": url}},
    )
    yield mailer
    mailer.close()


def a_message() -> EmailMessage:
    return EmailMessage("Hello", "Text", "shop@example.com", ["ann@example.com"])


KEY = "9b2c1f0a-6a0e-5d5c-8d58-3b8b1f3f4a10"


def test_provider_recognises_a_repeat_by_its_key(provider: Server, mailer: Mailer) -> None:
    """The answer to the first was lost on the way. Without a key the repeat is a second e-mail."""
    first = mailer.send(a_message(), KEY)

    with pytest.raises(Exception, match="400") as refused:
        mailer.send(a_message(), KEY)

    assert judge(refused.value).failure == FailureClass.DUPLICATE
    assert [call["accepted"] for call in provider.brevo.log()] == [True, False]
    assert [call["message_id"] for call in provider.brevo.log()] == [first.message_id, ""]


def test_outbox_is_no_mailer_whatever_the_checks_were_not_asked() -> None:
    """In a Celery worker, which heeds no check, each e-mail was "accepted" by becoming the next one."""
    with pytest.raises(SettingsError, match="would deliver to itself"):
        mailers.build("default", {"BACKEND": "postroom.backends.OutboxEmailBackend"})


def test_mailer_that_cannot_be_made_is_closed_without_a_word(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A celery worker whose key was forgotten died of it in its start, with a traceback."""
    monkeypatch.setattr(mailers, "under_test_runner", lambda: False)
    settings.POSTROOM = {"MAILERS": {"brevo": {"BACKEND": "anymail.backends.brevo.EmailBackend"}}}
    mailers.close_all()

    assert "api_key" in mailers.trouble("brevo").lower()

    mailers.close_all()
