"""What the tests of the mailbox stand on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from postroom.mailbox.store import Store
from tests.mailbox.far_sides import BrevoServer, SMTPServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_django.fixtures import Settings


@pytest.fixture
def smtp_server() -> Iterator[SMTPServer]:
    server = SMTPServer()
    server.controller.start()
    yield server
    server.controller.stop()


@pytest.fixture
def brevo() -> Iterator[BrevoServer]:
    server = BrevoServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The mailbox's file, in a folder that does not exist yet."""
    return tmp_path / "var" / "mailbox.sqlite3"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path)


@pytest.fixture
def mailbox(settings: Settings, path: Path) -> None:
    """A site in development whose mailer records."""
    recording = {"BACKEND": "postroom.mailbox.EmailBackend", "OPTIONS": {"path": str(path)}}
    settings.DEBUG = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "postroom.mailbox"]
    settings.ROOT_URLCONF = "tests.mailbox.urls"
    settings.POSTROOM = {
        "MAILERS": {"post": recording},
        "SEND_WITH": ["post"],
        "SITE_URL": "http://testserver",
    }
