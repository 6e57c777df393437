"""Each check fires for its mistake, with a hint that says what to type, and is silent otherwise."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.checks import CheckMessage
from django.core.checks.registry import registry
from django.core.mail.backends.locmem import EmailBackend
from django.db import connections
from django.test import override_settings
from django.utils.log import AdminEmailHandler

from postroom import carrier, checks
from postroom.models import OutboundEmail

SMTP = "django.core.mail.backends.smtp.EmailBackend"
OUTBOX = "postroom.backends.OutboxEmailBackend"
MAILBOX = "postroom.mailbox.EmailBackend"
BREVO = "anymail.backends.brevo.EmailBackend"

Fires = Callable[..., list[CheckMessage]]


def site(mailers: dict[str, Any] | None = None, **more: Any) -> override_settings:
    """A site that sends with *mailers* (by default SMTP), with other settings beside."""
    postroom = {"SEND_WITH": ["provider"], "SITE_URL": "https://shop.example", **more.pop("POSTROOM", {})}
    given = {"provider": {"BACKEND": SMTP}} if mailers is None else mailers
    if django.VERSION >= (6, 1):
        return override_settings(POSTROOM=postroom, MAILERS=given, **more)
    return override_settings(POSTROOM=postroom | {"MAILERS": given}, **more)


def ids(found: list[CheckMessage]) -> list[str]:
    return [message.id or "" for message in found]


def ours(*, deploy: bool = False) -> list[CheckMessage]:
    """What all checks of the engine say; Django's own ask the database."""
    return [
        message
        for check in registry.get_checks(include_deployment_checks=deploy)
        if check.__module__ == checks.__name__
        for message in check(app_configs=None)
    ]


def test_the_settings_of_the_suite_are_right() -> None:
    assert ours() == []


def test_a_right_production_site_is_left_alone() -> None:
    with site(DEBUG=False):
        assert ours(deploy=True) == []


def test_no_check_needs_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """``manage.py check`` runs in a build where there is none."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a check asked the database")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refuse)
    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.connect", refuse)

    for check in (value for name, value in vars(checks).items() if name.startswith("check_")):
        check()


def test_an_unknown_setting_is_an_error_and_no_traceback() -> None:
    with override_settings(POSTROOM={"SENDWITH": ["provider"]}):
        found = ours()

    assert ids(found) == ["postroom.E001"]
    assert "Did you mean 'SEND_WITH'?" in found[0].msg
    assert found[0].hint


def test_the_outbox_may_not_deliver_to_itself() -> None:
    with site({"provider": {"BACKEND": OUTBOX}}):
        found = checks.check_mailers()

    assert ids(found) == ["postroom.E002"]
    assert "SEND_WITH" in str(found[0].hint)


def test_a_loop_behind_the_mailbox_is_seen() -> None:
    with site({"provider": {"BACKEND": MAILBOX, "OPTIONS": {"behind": {"BACKEND": OUTBOX}}}}):
        assert ids(checks.check_mailers()) == ["postroom.E002"]


def test_an_unknown_alias_is_named_with_those_that_exist() -> None:
    with site({"brevo": {"BACKEND": SMTP}}):
        found = checks.check_mailers()

    assert ids(found) == ["postroom.E003"]
    assert "'provider'" in found[0].msg
    assert "known: brevo" in found[0].msg


@pytest.mark.parametrize("path", ["shop.nowhere.Backend", f"{__name__}.NotABackend"])
def test_a_mailer_must_be_a_mail_backend_that_can_be_imported(path: str) -> None:
    with site({"provider": {"BACKEND": path}}):
        found = checks.check_mailers()

    assert ids(found) == ["postroom.E004"]
    assert path in str(found[0].hint)


class NotABackend:
    """Something importable that sends no mail."""


class Special(EmailBackend):
    """A site's own backend."""


def test_a_backend_of_the_sites_own_is_fine() -> None:
    with site({"provider": {"BACKEND": f"{__name__}.Special"}}):
        assert checks.check_mailers() == []


def test_a_site_that_has_only_installed_the_app_is_warned_and_not_stopped(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``INSTALLED_APPS = ["postroom"]`` alone must pass ``check``."""
    del settings.POSTROOM
    monkeypatch.setattr("postroom.mailers.has_mailers", lambda: False)

    found = checks.check_mailers()

    assert ids(found) == ["postroom.W009"]
    assert found[0].level < logging.ERROR


def ring(using: str) -> None:
    """A doorbell of a site's own."""


@pytest.mark.parametrize("bell", ["", "none", "notify", f"{__name__}.ring"])
def test_doorbells_that_exist(bell: str) -> None:
    with site(POSTROOM={"DOORBELL": bell}):
        assert checks.check_doorbell() == []


@pytest.mark.parametrize("bell", ["bell", "shop.nowhere.ring", f"{__name__}.SMTP"])
def test_doorbells_that_do_not(bell: str) -> None:
    with site(POSTROOM={"DOORBELL": bell}):
        found = checks.check_doorbell()

    assert ids(found) == ["postroom.E005"]
    assert '"notify"' in str(found[0].hint)


def test_the_celery_doorbell_needs_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with site(POSTROOM={"DOORBELL": "celery"}):
        found = checks.check_doorbell()

    assert ids(found) == ["postroom.E005"]
    assert "django-postroom[celery]" in str(found[0].hint)


@pytest.fixture
def celery_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Let the process have the Celery app that the test describes."""
    from celery import Celery, _state

    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    before = _state._tls.current_app
    made: list[Any] = []

    def make(broker: str, **conf: Any) -> Any:
        app = Celery("site", broker=broker, fixups=[], **conf)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()
    _state._set_current_app(before)


def about_celery() -> list[CheckMessage]:
    with site(POSTROOM={"DOORBELL": "celery"}):
        return checks.check_celery()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://u:p@127.0.0.1:1//", "memory://"])
def test_brokers_that_can_be_used(celery_app: Callable[..., Any], url: str) -> None:
    celery_app(url)

    assert about_celery() == []


@pytest.mark.parametrize("url", ["django://", "redis://u:s3cret@host:port/0"])
def test_a_broker_that_celery_does_not_know_is_found_at_start(
    celery_app: Callable[..., Any], url: str
) -> None:
    """The original's ``django://`` ended each of its sends with a KeyError, and its page said "sent"."""
    celery_app(url)

    found = about_celery()

    assert ids(found) == ["postroom.E008"]
    assert "redis://host" in str(found[0].hint)
    assert "s3cret" not in found[0].msg


def test_a_result_backend_is_told(celery_app: Callable[..., Any]) -> None:
    celery_app("redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1")

    assert ids(about_celery()) == ["postroom.W010"]


def test_a_result_backend_that_no_task_uses_is_not_told(celery_app: Callable[..., Any]) -> None:
    """Whoever did what the hint says was told the same again."""
    app = celery_app("redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1")
    app.conf.task_ignore_result = True

    assert about_celery() == []


def test_more_sends_than_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thousandth send failed with "too many open files", and so did the database."""
    monkeypatch.setattr("resource.getrlimit", lambda what: (256, 1024))
    brevo = {"provider": {"BACKEND": "anymail.backends.brevo.EmailBackend"}}
    with site(brevo, POSTROOM={"CONCURRENCY": 1000}):
        found = checks.check_concurrency()
    with site(brevo, POSTROOM={"CONCURRENCY": 768}):
        assert checks.check_concurrency() == []

    assert ids(found) == ["postroom.W011"]
    assert '"CONCURRENCY"] = 768' in str(found[0].hint)


def test_a_mailer_that_may_wait_for_ever_is_told() -> None:
    smtp = {"BACKEND": SMTP, "OPTIONS": {"timeout": None}}
    with site({"provider": smtp}):
        assert ids(checks.check_concurrency()) == ["postroom.W012"]
    with site({"provider": {"BACKEND": MAILBOX, "OPTIONS": {"behind": smtp}}}):
        assert ids(checks.check_concurrency()) == ["postroom.W012"]
    with site({"provider": {"BACKEND": SMTP, "OPTIONS": {"timeout": 5}}}):
        assert checks.check_concurrency() == []


def test_more_threads_than_a_mailer_is_good_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 is fine for an HTTP provider on one loop; for SMTP it is 3,000 threads and connections."""
    brevo = {"provider": {"BACKEND": "anymail.backends.brevo.EmailBackend"}}
    many = {"CONCURRENCY": 201}
    with site(POSTROOM=many):
        found = checks.check_concurrency()
    with site(brevo, POSTROOM=many):
        on_a_loop = checks.check_concurrency()
        monkeypatch.setattr(carrier, "is_available", lambda: False)
        on_threads = checks.check_concurrency()
    with site(POSTROOM={"CONCURRENCY": 200}):
        assert checks.check_concurrency() == []

    assert ids(found) == ids(on_threads) == ["postroom.W013"]
    assert on_a_loop == []
    assert "200 or fewer" in str(found[0].hint)
    assert "django-postroom[brevo]" in str(on_threads[0].hint)


def test_a_look_at_the_header_of_sqlites_file_takes_away_no_lock(tmp_path: Path) -> None:
    """To open and close the file past SQLite ends the locks of every thread of this process on it."""
    path = tmp_path / "locked.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("CREATE TABLE t (n)")
        own.execute("BEGIN EXCLUSIVE")

        assert checks._is_wal(path) is False

        script = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('CREATE TABLE u (n)')"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr


def test_an_attempt_must_outlive_its_send() -> None:
    with site(POSTROOM={"ATTEMPT_SECONDS": 30, "SEND_TIMEOUT_SECONDS": 60}):
        found = checks.check_times()
    with site(POSTROOM={"ATTEMPT_SECONDS": 60, "SEND_TIMEOUT_SECONDS": 60}):
        assert checks.check_times() == []

    assert ids(found) == ["postroom.E006"]
    assert found[0].hint == 'POSTROOM["ATTEMPT_SECONDS"] = 90'


def test_the_mailbox_has_no_place_in_production(settings: Any) -> None:
    mailbox = {"provider": {"BACKEND": MAILBOX, "OPTIONS": {"path": "x", "behind": None}}}
    with site(mailbox, DEBUG=False):
        assert ids(checks.check_mailbox()) == ["postroom.E007"]
    with site(mailbox, DEBUG=True):
        assert checks.check_mailbox() == []
    with site(DEBUG=False):
        assert checks.check_mailbox() == []

    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "postroom.mailbox"]
    assert ids(checks.check_mailbox()) == ["postroom.E007"]


@pytest.fixture
def sqlite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Ask the SQLite check about a file and its options."""

    def ask(name: str = "", **options: object) -> list[str]:
        parts = {"NAME": name or str(tmp_path / "db.sqlite3"), "OPTIONS": options}
        monkeypatch.setattr(connections["default"], "vendor", "sqlite")
        monkeypatch.setattr(connections["default"], "settings_dict", parts)
        return ids(checks.check_sqlite())

    return ask


def test_sqlite_as_django_leaves_it_is_warned_of(sqlite: Callable[..., list[str]]) -> None:
    assert sqlite() == ["postroom.W001", "postroom.W002"]


def test_sqlite_as_it_should_be(sqlite: Callable[..., list[str]]) -> None:
    assert sqlite(transaction_mode="IMMEDIATE", init_command="PRAGMA journal_mode = WAL") == []


def test_sqlite_in_memory_has_no_journal_to_speak_of(sqlite: Callable[..., list[str]]) -> None:
    assert sqlite("file:memorydb_default?mode=memory&cache=shared") == []
    assert sqlite(":memory:") == []


def test_a_file_that_keeps_a_write_ahead_log_already_needs_no_option(
    sqlite: Callable[..., list[str]], tmp_path: Path
) -> None:
    import sqlite3

    path = tmp_path / "wal.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    connection.close()

    assert sqlite(str(path), transaction_mode="IMMEDIATE") == []


@pytest.mark.parametrize("name", ["console", "locmem", "dummy", "filebased"])
def test_a_mailer_that_sends_nothing_is_told_in_production(name: str) -> None:
    path = f"django.core.mail.backends.{name}.EmailBackend"
    with site({"provider": {"BACKEND": path}}, DEBUG=False):
        found = checks.check_backends_send()
    with site({"provider": {"BACKEND": path}}, DEBUG=True):
        assert checks.check_backends_send() == []

    assert ids(found) == ["postroom.W003"]
    assert "provider" in str(found[0].hint)


def test_a_webhook_without_a_secret_is_told() -> None:
    brevo = {"provider": {"BACKEND": BREVO}}
    with site(brevo, ANYMAIL={}):
        found = checks.check_webhook()
    with site(brevo, ANYMAIL={"WEBHOOK_SECRET": "user:password"}):
        assert checks.check_webhook() == []
    with site(brevo, ANYMAIL={}, ANYMAIL_WEBHOOK_SECRET="user:password"):
        assert checks.check_webhook() == []
    with site(ANYMAIL={}):
        assert checks.check_webhook() == []

    assert ids(found) == ["postroom.W004"]
    assert "WEBHOOK_SECRET" in str(found[0].hint)


def test_a_webhook_that_is_not_mounted_needs_no_secret() -> None:
    with site({"provider": {"BACKEND": BREVO}}, ANYMAIL={}, ROOT_URLCONF="postroom.urls.health"):
        assert checks.check_webhook() == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [("", ["postroom.W006"]), ("http://shop.example", ["postroom.W005"]), ("https://shop.example", [])],
)
def test_links_in_emails_need_a_safe_base_in_production(url: str, expected: list[str]) -> None:
    with site(POSTROOM={"SITE_URL": url}, DEBUG=False):
        found = checks.check_site_url()
    with site(POSTROOM={"SITE_URL": url}, DEBUG=True):
        assert checks.check_site_url() == []

    assert ids(found) == expected
    assert all("https://" in str(message.hint) for message in found)


class Elsewhere:
    """A router that puts the outbox into another database than the users."""

    def db_for_write(self, model: type, **hints: object) -> str | None:
        return "postgres" if model is OutboundEmail else None


@pytest.mark.skipif("postgres" not in connections.databases, reason="needs a second database")
def test_an_account_and_its_email_must_be_committed_together() -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Elsewhere"]):
        found = checks.check_router()

    assert ids(found) == ["postroom.W007"]
    assert "DATABASE_ROUTERS" in str(found[0].hint)
    assert checks.check_router() == []


@pytest.fixture
def lone_handler() -> Iterator[Callable[..., None]]:
    """Let exactly one handler write to ADMINS, the one that the test describes."""
    before = [
        (logger, handler)
        for logger in map(logging.getLogger, list(logging.Logger.manager.loggerDict))
        for handler in logger.handlers
        if isinstance(handler, AdminEmailHandler)
    ]
    for logger, handler in before:
        logger.removeHandler(handler)
    target = logging.getLogger("tests.admins")

    def install(**options: str) -> None:
        target.handlers[:] = [AdminEmailHandler(**options)]

    yield install
    target.handlers.clear()
    for logger, handler in before:
        logger.addHandler(handler)


def through_the_outbox(**more: Any) -> override_settings:
    if django.VERSION >= (6, 1):
        mailers = {"default": {"BACKEND": OUTBOX}, "provider": {"BACKEND": SMTP}}
        return site(mailers, ADMINS=["admin@example.com"], **more)
    return site(EMAIL_BACKEND=OUTBOX, ADMINS=[("Admin", "admin@example.com")], **more)


def test_error_mails_must_not_need_the_database_that_is_on_fire(lone_handler: Callable[..., None]) -> None:
    with through_the_outbox():
        lone_handler()
        found = checks.check_error_mails()

    assert ids(found) == ["postroom.W008"]
    assert 'LOGGING["handlers"]["mail_admins"]' in str(found[0].hint)


def test_error_mails_that_go_past_the_outbox_are_fine(lone_handler: Callable[..., None]) -> None:
    with through_the_outbox():
        lone_handler(**({"using": "provider"} if django.VERSION >= (6, 1) else {"email_backend": SMTP}))
        assert checks.check_error_mails() == []


def test_without_admins_there_are_no_error_mails(lone_handler: Callable[..., None]) -> None:
    with through_the_outbox(), override_settings(ADMINS=[]):
        lone_handler()
        assert checks.check_error_mails() == []
