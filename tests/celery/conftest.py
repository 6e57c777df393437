"""The shop with Celery, for each module that takes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.celery.stage import Office, open_office
from tests.servers import PostgreSQL


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Office]:
    """A shop on SQLite, with nobody in it."""
    folder = tmp_path_factory.mktemp("office") / "a b"
    folder.mkdir()
    with django_db_blocker.unblock(), open_office(folder, f"sqlite://{folder / 'shop.sqlite3'}") as opened:
        yield opened


@pytest.fixture(scope="module")
def office_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker, postgresql: PostgreSQL
) -> Iterator[Office]:
    """A shop on PostgreSQL, with nobody in it."""
    folder = tmp_path_factory.mktemp("office") / "a b"
    folder.mkdir()
    with django_db_blocker.unblock(), open_office(folder, postgresql.create_database()) as opened:
        yield opened
