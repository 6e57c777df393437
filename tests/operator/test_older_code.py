"""A worker that was not restarted after a migration says so, and mail goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.operator.commands import manage


def test_a_worker_of_older_code_says_that_the_tables_are_newer(scratch: Path) -> None:
    """Between migrate and the restart of the last worker mail must go on; who forgets the restart is told."""
    path = scratch / "shop.sqlite3"
    settings = f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(path)!r}}}}}"
    assert manage("migrate", settings=settings, folder=scratch)[0] == 0
    code, text, _seconds = manage("postroom_worker", "--until-empty", settings=settings, folder=scratch)
    assert (code, "newer code" in text) == (0, False)

    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('postroom', '9999_later', '2099-01-01')"
        )
        database.commit()
    code, text, _seconds = manage("postroom_worker", "--until-empty", settings=settings, folder=scratch)

    assert code == 0
    assert "(postroom.W014)" in text
    assert "made by newer code (9999_later): restart this worker with it." in text
    assert "stopped" in text


def test_a_worker_of_newer_code_refuses_tables_that_are_older(scratch: Path) -> None:
    path = scratch / "shop.sqlite3"
    settings = f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(path)!r}}}}}"
    assert manage("migrate", "postroom", "0001", settings=settings, folder=scratch)[0] == 0

    code, text, _seconds = manage("postroom_worker", "--until-empty", settings=settings, folder=scratch)

    assert code == 1
    assert "(postroom.E010)" in text
    assert "missing or old. Run: python manage.py migrate postroom" in text
