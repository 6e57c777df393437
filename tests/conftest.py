"""
What every test stands on.

**Databases.** One run covers all three. ``default`` is SQLite in a file of its own (with WAL, so that
threads and processes see what they would see in production); ``postgres`` and ``mariadb`` are servers
that are started when a collected test names them, and ended with the run; the clock of the latter
stands at +06:00. The conformance tests mark ``django_db(databases=["default", "postgres", "mariadb"])``
and take the fixture ``database``, which gives one alias after the other for ``using=``; beside
``default`` each sees the one that it is about. ``POSTROOM_TEST_DATABASE=postgres://...`` (or mysql://...)
turns it round: then ``default`` itself is that database, for everything.

**What a machine lacks** is named by a skip with a sentence. With ``CI`` set it is an error, and
so is any other skip: a run that left something out is not green.

**The network** ends at this machine: a connection or a name beyond loopback is refused.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import hypothesis
import pytest
from django.conf import settings
from django.utils import timezone
from hypothesis.configuration import set_hypothesis_home_dir

from tests import brokers, servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

T = TypeVar("T")
IN_CI = bool(os.environ.get("CI"))

SERVERS = {
    "postgres": "There is no PostgreSQL server on this machine: apt install postgresql",
    "mariadb": "There is no MariaDB server on this machine: apt install mariadb-server",
}
"""The databases of ``settings`` that may be lacking, and what to do about it."""


class BeyondLoopback(OSError):
    """A test tried to reach another machine."""


def _is_here(host: object) -> bool:
    if host in (None, "", b"", "localhost", "testserver") or host == socket.gethostname():
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _refuse_the_world() -> None:
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: object) -> None:
        if not _is_here(host):
            raise BeyondLoopback(f"This test reaches for {host}; tests stay on this machine.")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            check(address[0])
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            check(address[0])
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return resolve(host, *args, **kwargs)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[method-assign]
    socket.getaddrinfo = guarded_getaddrinfo
    _refuse_it_to_libcurl(check)


def _refuse_it_to_libcurl(check: Callable[[object], None]) -> None:
    """It asks Python for no socket, so it is asked where it is told its address."""
    from postroom.exchange import Exchange

    prepare = Exchange.prepare

    def guarded_prepare(self: Exchange, curl: Any) -> None:
        check(urlsplit(self.proxy or self.url).hostname)
        prepare(self, curl)

    Exchange.prepare = guarded_prepare  # type: ignore[method-assign]


def pytest_configure() -> None:
    _refuse_the_world()
    set_hypothesis_home_dir("var/cache/hypothesis")
    # Slow is the machine, not the example: two cores may be shared by five processes here.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile(
        "postroom", deadline=None, print_blob=True, suppress_health_check=slow
    )
    hypothesis.settings.load_profile("postroom")


def _lacking(sentence: object) -> NoReturn:
    if IN_CI:
        pytest.fail(str(sentence), pytrace=False)
    pytest.skip(str(sentence))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    alias = _database_of(item)
    if alias in SERVERS and alias not in settings.DATABASES:
        _lacking(SERVERS[alias])


def _database_of(item: pytest.Item) -> str:
    """Return the alias that the fixture ``database`` gives to this test; empty: it does not ask for one."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("database", "")) if callspec else ""


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Let each mark name only what is here, and what its test is about: the others would be emptied, too."""
    for item in items:
        mark = item.get_closest_marker("django_db")
        named = mark.kwargs.get("databases") if mark else None
        if mark and named and set(named) & set(SERVERS):
            alias = _database_of(item)
            mine = [name for name in named if name in settings.DATABASES]
            mine = [name for name in mine if name in ("default", alias) or alias not in named]
            item.add_marker(pytest.mark.django_db(**{**mark.kwargs, "databases": mine}), append=False)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("\nCI is set, and tests were skipped: this run has failed.")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.PostgreSQL]:
    """A PostgreSQL of this run; ``create_database()`` gives a journey one of its own, as a URL."""
    yield from _running(servers.postgresql())


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.MariaDB]:
    """A MariaDB of this run, at +06:00; ``create_database()`` gives a journey one of its own, as a URL."""
    yield from _running(servers.mariadb())


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[str]:
    """A RabbitMQ of this run, as a URL: it takes many seconds to start."""
    yield from _running(brokers.rabbitmq())


@pytest.fixture(scope="module")
def redis() -> Iterator[brokers.Redis]:
    """A Redis of this module's own."""
    yield from _running(brokers.redis())


def _running(server: AbstractContextManager[T]) -> Iterator[T]:
    try:
        with server as running:
            yield running
    except servers.ServerMissing as missing:
        _lacking(missing)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest,
    django_db_modify_db_settings_parallel_suffix: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Give SQLite a file, and start the servers that a collected test asks for."""
    default = settings.DATABASES["default"]
    if default["ENGINE"].endswith("sqlite3"):
        default["TEST"]["NAME"] = str(tmp_path_factory.mktemp("sqlite") / "default.sqlite3")
    named = {alias for item in request.session.items for alias in _named(item)}
    for alias, fixture in {"postgres": "postgresql", "mariadb": "mariadb"}.items():
        if alias in named and alias in settings.DATABASES:
            server = request.getfixturevalue(fixture)
            settings.DATABASES[alias].update(HOST=server.host, PORT=server.port)


def _named(item: pytest.Item) -> list[str]:
    mark = item.get_closest_marker("django_db")
    return list(mark.kwargs.get("databases") or ()) if mark else []


@pytest.fixture(params=["default", "postgres", "mariadb"], ids=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    """The alias of one database after the other, for ``using=``; needs the mark named above."""
    return str(request.param)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """
    A real browser without a window. Ends with its module: as long as it lives, its thread counts
    as one with a running event loop, in which ``asyncio.run`` and the ORM would refuse to work
    (the latter is let through).
    """
    try:
        executable = servers.chromium_executable()
    except servers.ServerMissing as missing:
        _lacking(missing)
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(
            executable_path=executable, args=list(servers.CHROMIUM_ARGUMENTS), timeout=90_000
        )
        yield browser
        browser.close()


@pytest.fixture
def clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one and the same moment for the whole test: "41 s ago" stays so, however long it is kept waiting."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with a space in its name, for whatever a test unpacks or starts."""
    folder = tmp_path / "a b"
    folder.mkdir()
    return folder
