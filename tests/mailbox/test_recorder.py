"""The recorder writes down what passes, and changes nothing about it."""

from __future__ import annotations

import logging
import smtplib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.test import override_settings
from django.utils.module_loading import import_string

from postroom import mailers
from postroom.exceptions import SettingsError
from postroom.mailbox import recorder as recording
from postroom.mailbox.recorder import EmailBackend, configured_store
from postroom.mailbox.store import Outcome, Store
from tests.mailbox.far_sides import BrevoServer, SMTPServer, message, recorder

if TYPE_CHECKING:
    from pathlib import Path

    from django.core.mail import EmailMessage


def test_what_a_real_smtp_server_takes_is_recorded_as_accepted(
    path: Path, store: Store, smtp_server: SMTPServer
) -> None:
    sent = recorder(path, smtp_server.behind).send_messages([message(bcc=["boss@example.com"])])

    assert sent == 1
    assert smtp_server.taken[0].rcpt_tos == ["ann@example.com", "boss@example.com"]
    [letter] = store.newest(with_source=True)
    assert letter.outcome is Outcome.ACCEPTED
    assert letter.mailer == "post"
    assert letter.recipients == ("ann@example.com", "boss@example.com")
    assert letter.subject == "Please activate your account"
    assert letter.sender == "Shop <shop@example.com>"
    assert b"http://testserver/accounts/activate/MQ/abc-def/" in letter.source
    assert letter.answered_at is not None
    assert letter.answered_at >= letter.composed_at


def test_a_refusal_of_the_smtp_server_comes_out_untouched_and_is_recorded(
    path: Path, store: Store, smtp_server: SMTPServer
) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        recorder(path, smtp_server.behind).send_messages([message("refused@example.com")])

    assert caught.value.recipients["refused@example.com"][0] == 550
    [letter] = store.newest()
    assert letter.outcome is Outcome.ERROR
    assert "SMTPRecipientsRefused" in letter.answer
    assert "no such mailbox" in letter.answer


def test_the_very_exception_of_the_backend_behind_comes_out(path: Path) -> None:
    """Whoever judges a failure looks at its class, its cause and its attributes."""
    original = OSError("the wire is cut")
    backend = recorder(path, {"BACKEND": f"{__name__}.Raising", "OPTIONS": {"error": original}})

    with pytest.raises(OSError, match="the wire is cut") as caught:
        backend.send_messages([message()])

    assert caught.value is original
    assert original.__cause__ is None
    assert original.__context__ is None


@pytest.mark.parametrize("result", [0, None, 1])
def test_the_very_result_of_the_backend_behind_comes_out(
    path: Path, store: Store, result: int | None
) -> None:
    backend = recorder(path, {"BACKEND": f"{__name__}.Returning", "OPTIONS": {"result": result}})

    assert backend.send_messages([message()]) is result
    assert store.newest()[0].outcome is (Outcome.UNSENT if result == 0 else Outcome.ACCEPTED)


def test_what_brevo_answers_is_recorded_and_left_on_the_message(
    path: Path, store: Store, brevo: BrevoServer
) -> None:
    uuid = uuid4()
    composed = message()
    composed.metadata = {"postroom": str(uuid)}  # type: ignore[attr-defined]

    recorder(path, brevo.behind).send_messages([composed])

    assert composed.anymail_status.message_id == "<1@smtp-relay.mailin.fr>"  # type: ignore[attr-defined]
    assert composed.anymail_status.status == {"queued"}  # type: ignore[attr-defined]
    [letter] = store.newest()
    assert (letter.outcome, letter.message_id, letter.answer) == (
        Outcome.ACCEPTED,
        "<1@smtp-relay.mailin.fr>",
        "queued",
    )
    assert letter.email_uuid == str(uuid)
    assert brevo.taken[0]["to"] == [{"email": "ann@example.com"}]


def test_a_refused_key_is_recorded_in_brevos_own_words(path: Path, store: Store, brevo: BrevoServer) -> None:
    brevo.mood = 401

    with pytest.raises(Exception, match="Key not found") as caught:
        recorder(path, brevo.behind).send_messages([message()])

    assert caught.value.status_code == 401  # type: ignore[attr-defined]
    [letter] = store.newest()
    assert letter.outcome is Outcome.ERROR
    assert "401" in letter.answer
    assert "Key not found" in letter.answer


def test_an_e_mail_is_recorded_before_it_is_sent(path: Path, store: Store) -> None:
    """A worker that is killed while it sends must leave the letter behind, without an answer."""
    seen: list[Outcome] = []
    look = {"look": lambda: seen.extend(letter.outcome for letter in store.newest())}
    backend = recorder(path, {"BACKEND": f"{__name__}.Looking", "OPTIONS": look})

    backend.send_messages([message()])

    assert seen == [Outcome.WAITING]


def test_of_several_messages_those_that_the_provider_named_were_accepted(path: Path, store: Store) -> None:
    """The backend behind raised at the second of three; the first had gone out."""
    backend = recorder(path, {"BACKEND": f"{__name__}.BreaksAtSecond"})

    with pytest.raises(OSError, match="at the second"):
        backend.send_messages(
            [message("one@example.com"), message("two@example.com"), message("three@example.com")]
        )

    assert [letter.outcome for letter in reversed(store.newest())] == [
        Outcome.ACCEPTED,
        Outcome.ERROR,
        Outcome.ERROR,
    ]


def test_with_nothing_behind_it_only_records(path: Path, store: Store) -> None:
    assert recorder(path, None).send_messages([message(), message("bob@example.com")]) == 2

    assert [letter.outcome for letter in store.newest()] == [Outcome.KEPT, Outcome.KEPT]


def test_open_and_close_reach_the_connection_behind(path: Path, smtp_server: SMTPServer) -> None:
    """One thread keeps its backend open: three messages must share one connection."""
    backend = recorder(path, smtp_server.behind)

    assert backend.open() is True
    assert backend.open() is False
    for _ in range(3):
        backend.send_messages([message()])
    backend.close()

    assert len(smtp_server.taken) == 3
    assert len(smtp_server.sessions) == 1
    assert backend.connection is None


def test_what_is_asked_of_the_recorder_is_answered_by_the_backend_behind(
    path: Path, brevo: BrevoServer
) -> None:
    """The engine recognises a provider that knows idempotency keys by ``esp_name``."""
    backend = recorder(path, brevo.behind)

    assert backend.esp_name == "Brevo"
    assert backend.api_key == "a key of the tests"
    assert backend.alias == "post"
    assert not hasattr(recorder(path, None), "esp_name")


def test_the_engine_sees_brevo_through_the_recorder(path: Path, brevo: BrevoServer) -> None:
    recipe = {"BACKEND": "postroom.mailbox.EmailBackend", "OPTIONS": {"path": path, "behind": brevo.behind}}
    mailer = mailers.Mailer("post", recipe)

    sent = mailer.send(message(), "2f6c3c1e-0000-4000-8000-000000000000")
    mailer.close()

    assert mailer.keyed
    assert mailer.reports
    assert sent.message_id == "<1@smtp-relay.mailin.fr>"
    assert "2f6c3c1e-0000-4000-8000-000000000000" in str(brevo.taken[0]["headers"])


def test_the_backend_behind_gets_the_engines_time_out(path: Path) -> None:
    """Django's SMTP backend waits for ever unless it is told otherwise."""
    behind = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": {"host": "127.0.0.1"}}

    backend = recorder(path, behind)

    assert isinstance(backend.inner, SMTPBackend)
    assert backend.timeout == 60


def test_arguments_of_get_connection_reach_the_backend_behind(path: Path) -> None:
    """Django 5.2 gives every backend ``username`` and ``password``, and None where it has none."""
    options = {"host": "127.0.0.1", "username": "from the settings"}
    behind = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}

    backend = EmailBackend(path=path, behind=behind, alias="post", username=None, use_tls=True)

    assert backend.username == "from the settings"
    assert backend.use_tls is True


def test_a_description_without_a_backend_is_refused(path: Path) -> None:
    with pytest.raises(SettingsError, match="BACKEND"):
        recorder(path, {"OPTIONS": {}})


def test_the_e_mail_goes_out_although_the_file_cannot_be_written(
    tmp_path: Path, smtp_server: SMTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder's name is taken by a file. Said once, not once an e-mail."""
    (tmp_path / "taken").write_text("not a folder")
    backend = recorder(tmp_path / "taken" / "mailbox.sqlite3", smtp_server.behind)

    with caplog.at_level(logging.WARNING, "postroom"):
        assert [backend.send_messages([message()]) for _ in range(3)] == [1, 1, 1]

    assert len(smtp_server.taken) == 3
    assert [record.getMessage().split()[0] for record in caplog.records] == ["mailbox_unavailable"]


def test_the_e_mail_goes_out_although_the_file_is_garbage(path: Path, smtp_server: SMTPServer) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and long enough to be looked at" * 100)

    assert recorder(path, smtp_server.behind).send_messages([message()]) == 1
    assert len(smtp_server.taken) == 1


def test_a_file_deleted_between_two_e_mails_is_begun_again(path: Path, store: Store) -> None:
    backend = recorder(path, None)
    backend.send_messages([message("one@example.com")])
    for file in path.parent.iterdir():
        file.unlink()

    backend.send_messages([message("two@example.com")])

    assert [letter.recipients for letter in store.newest()] == [("two@example.com",)]


def test_a_message_that_cannot_be_written_as_mime_fails_where_it_would_without_us(
    path: Path, store: Store, smtp_server: SMTPServer
) -> None:
    """A line break in a subject is for the backend behind to refuse, and the letter shows that it did."""
    composed = message(subject="Hello\nBcc: everybody@example.com")

    with pytest.raises(ValueError, match=r"[Nn]ewline|linefeed"):
        recorder(path, smtp_server.behind).send_messages([composed])

    assert smtp_server.taken == []
    [letter] = store.newest(with_source=True)
    assert letter.outcome is Outcome.ERROR
    assert letter.source == b""


def test_a_message_so_odd_that_it_cannot_be_recorded_is_passed_on(path: Path, store: Store) -> None:
    seen: list[object] = []
    backend = recorder(path, {"BACKEND": f"{__name__}.Looking", "OPTIONS": {"look": lambda: seen.append(1)}})
    composed = message()
    composed.extra_headers = None  # type: ignore[assignment]
    composed.to = 17  # type: ignore[assignment]

    assert backend.send_messages([composed]) == 1
    assert seen == [1]
    assert store.newest() == []


def test_many_sender_threads_record_every_e_mail(
    path: Path, store: Store, smtp_server: SMTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread has a backend of its own, as the senders of a delivery process do."""
    monkeypatch.setattr("postroom.mailbox.store.BUSY_SECONDS", 60)

    def send(number: int) -> None:
        with recorder(path, smtp_server.behind) as backend:
            for turn in range(5):
                backend.send_messages([message(f"{number}.{turn}@example.com")])

    threads = [threading.Thread(target=send, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    letters = store.newest()
    assert len(smtp_server.taken) == len(letters) == 80
    assert {letter.outcome for letter in letters} == {Outcome.ACCEPTED}
    assert len({letter.recipients for letter in letters}) == 80


def test_recording_opens_no_connection_of_django(path: Path) -> None:
    """
    Sending threads hold no database connection. Outside ``django_db`` every query of Django
    raises here, so passing is the proof.
    """
    assert recorder(path, None).send_messages([message()]) == 1


def test_the_dotted_path_of_the_settings_is_the_recorder() -> None:
    assert import_string("postroom.mailbox.EmailBackend") is EmailBackend
    assert set(recording.BACKENDS) == {
        "postroom.mailbox.EmailBackend",
        f"{EmailBackend.__module__}.{EmailBackend.__qualname__}",
    }


def test_the_pages_read_the_file_that_the_settings_name(path: Path) -> None:
    mailer = {"BACKEND": "postroom.mailbox.EmailBackend", "OPTIONS": {"path": str(path)}}

    with override_settings(POSTROOM={"MAILERS": {"post": mailer}}):
        found = configured_store()

    assert found is not None
    assert found.path == path
    assert configured_store() is None  # the suite's own mailers are in memory


def test_sqlite_errors_do_not_leak_from_the_recorder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the file for longer than we wait: the e-mail goes out all the same."""
    monkeypatch.setattr("postroom.mailbox.store.BUSY_SECONDS", 0.05)
    backend = recorder(path, None)
    backend.send_messages([message()])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert backend.send_messages([message()]) == 1
    finally:
        holder.close()


class Raising(BaseEmailBackend):
    def __init__(self, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self.error = error

    def send_messages(self, email_messages: Any) -> int:
        raise self.error


class Returning(BaseEmailBackend):
    def __init__(self, result: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.result = result

    def send_messages(self, email_messages: Any) -> int:
        return self.result  # type: ignore[return-value]


class Looking(BaseEmailBackend):
    def __init__(self, look: Any, **options: Any) -> None:
        super().__init__(**options)
        self.look = look

    def send_messages(self, email_messages: Any) -> int:
        self.look()
        return len(email_messages)


class Status:
    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.status = {"queued"}


class BreaksAtSecond(BaseEmailBackend):
    def send_messages(self, email_messages: list[EmailMessage]) -> int:  # type: ignore[override]
        email_messages[0].anymail_status = Status("<first@provider>")  # type: ignore[attr-defined]
        raise OSError("at the second")
