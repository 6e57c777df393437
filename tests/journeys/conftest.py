"""A stage on SQLite, one on PostgreSQL and one on MariaDB, and the shop that is open all day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.journeys.shop import Shop, open_shop
from tests.journeys.stage import Stage, set_stage


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def stage(
    request: pytest.FixtureRequest, scratch: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Stage]:
    """One stage on each database."""
    if request.param == "sqlite":
        url = f"sqlite://{scratch / 'outbox.sqlite3'}"
    else:
        url = request.getfixturevalue(request.param).create_database()
    with django_db_blocker.unblock(), set_stage(scratch, url) as prepared:
        yield prepared


@pytest.fixture
def stage_on_postgresql(
    request: pytest.FixtureRequest, scratch: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Stage]:
    """A stage on PostgreSQL, where connections can be counted."""
    url = request.getfixturevalue("postgresql").create_database()
    with django_db_blocker.unblock(), set_stage(scratch, url) as prepared:
        yield prepared


@pytest.fixture(scope="session")
def open_all_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop that the journeys of people share; take ``shop``."""
    folder = tmp_path_factory.mktemp("shop") / "a b"
    folder.mkdir()
    with open_shop(folder) as shop:
        yield shop


@pytest.fixture
def shop(open_all_day: Shop) -> Iterator[Shop]:
    """The shop with a quick provider and a worker that works. Bring an address of your own."""
    open_all_day.tidy()
    yield open_all_day
    open_all_day.tidy()
