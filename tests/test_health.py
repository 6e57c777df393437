"""The probes: a process that lives is not killed, and one that cannot serve gets no visitors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client

from postroom.models import WorkerHeartbeat

pytestmark = pytest.mark.django_db


@contextmanager
def reading_only() -> Iterator[None]:
    """The default database as one that lets nobody write. PostgreSQL forgets it with the savepoint."""
    is_sqlite = connection.vendor == "sqlite"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = ON" if is_sqlite else "SET TRANSACTION READ ONLY")
        try:
            yield
        finally:
            if is_sqlite:
                cursor.execute("PRAGMA query_only = OFF")
            transaction.set_rollback(True)


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection to server at 10.0.0.5 refused for user shop")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", refuse)


@pytest.mark.usefixtures("no_database")
def test_a_process_without_its_database_is_alive(client: Client) -> None:
    """A database that is away for a minute must not get every web process killed."""
    response = client.get("/healthz/live")

    assert response.status_code == 200
    assert response.json() == {"status": "ok"}
    assert response["Cache-Control"] == "no-store"


def test_ready_names_each_check_with_its_time(client: Client) -> None:
    response = client.get("/healthz/ready")

    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert list(response.json()["checks"]) == ["settings", "database", "migrations"]
    for check in response.json()["checks"].values():
        assert check["ok"] is True
        assert check["ms"] >= 0
    assert response["Cache-Control"] == "no-store"


def test_ready_does_not_hang_on_workers(client: Client) -> None:
    """Registrations are saved without a worker: the site serves, the mail goes later."""
    assert not WorkerHeartbeat.objects.exists()

    assert client.get("/healthz/ready").status_code == 200


@pytest.mark.usefixtures("no_database")
def test_ready_says_what_to_do_without_a_database_and_names_no_host(client: Client) -> None:
    response = client.get("/healthz/ready")

    assert response.status_code == 503
    assert response["Cache-Control"] == "no-store"
    database = response.json()["checks"]["database"]
    assert database["ok"] is False
    assert "Bring the database back (OperationalError)" in database["do"]
    assert "10.0.0.5" not in response.content.decode()


def test_ready_refuses_visitors_while_the_database_cannot_be_written(client: Client) -> None:
    """It answers every question, and no registration can be saved."""
    with reading_only():
        response = client.get("/healthz/ready")

    assert response.status_code == 503
    database = response.json()["checks"]["database"]
    assert database["ok"] is False
    assert database["do"].startswith("The database cannot be written.")
    assert client.get("/healthz/live").status_code == 200


def test_ready_names_the_command_when_migrations_are_missing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.views.health.missing_migrations", lambda alias: ["postroom.0001_initial"])

    response = client.get("/healthz/ready")

    assert response.status_code == 503
    assert "python manage.py migrate" in response.json()["checks"]["migrations"]["do"]


def test_ready_says_which_setting_is_wrong(client: Client, settings: Any) -> None:
    settings.POSTROOM = {"SENDWITH": ["provider"]}

    response = client.get("/healthz/ready")

    assert response.status_code == 503
    assert "SEND_WITH" in response.json()["checks"]["settings"]["do"]


@pytest.mark.parametrize("path", ["/healthz/live", "/healthz/ready"])
def test_probes_are_only_read(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405
    assert client.head(path).status_code == 200
