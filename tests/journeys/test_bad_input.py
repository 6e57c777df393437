"""
What nobody should send, and what should never be away: a sentence that says what to do, never a 500.

Over HTTP, against the running shop, through its contract.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.shop import PASSWORD, Shop, open_shop

pytestmark = pytest.mark.timeout(180)

CRLF = "\r\nBcc: everybody@example.com"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"email": "ann"}, "Enter a valid email address."),
        ({"email": "ann@localhost"}, "Enter a valid email address."),
        ({"email": f"ann@example.com{CRLF}"}, "Enter a valid email address."),
        ({"email": "ann@example.com\0"}, "Null characters are not allowed."),
        ({"email": "a" * 300 + "@example.com"}, "at most 254 characters"),
        ({"email": ""}, "This field is required."),
        ({"password": "short"}, "must contain at least 12 characters"),
        ({"password": "123456789012345"}, "entirely numeric"),
        ({"password": "x" * 2000}, "at most 1024 characters"),
        ({"password": ""}, "This field is required."),
    ],
)
def test_a_registration_that_cannot_be_meant_says_why(
    shop: Shop, fields: dict[str, str], sentence: str
) -> None:
    """What was typed is kept, but for the password; nothing is written."""
    before = len(shop.states())

    answer = shop.visitor().post(
        "/accounts/register/", **{"email": "typed@example.com", "password": PASSWORD, **fields}
    )

    assert answer.status_code == 200
    assert sentence in answer.text
    assert fields.get("email", "typed@example.com").split("\r")[0].strip("\0") in answer.text
    assert PASSWORD not in answer.text
    assert len(shop.states()) == before


@pytest.mark.parametrize("field", ["password", "next", "name", "csrfmiddlewaretoken"])
def test_line_breaks_in_a_field_reach_no_header(shop: Shop, field: str) -> None:
    """Unknown fields are ignored; a password may be anything; the e-mail goes to one address."""
    address = f"{field.lower()}@broken-lines.example.com"
    visitor = shop.visitor()
    fields = {"email": address, "password": PASSWORD, field: f"{PASSWORD}{CRLF}"}
    answer = (
        visitor.request("POST", "/accounts/register/", data=fields)
        if field.startswith("csrf")
        else visitor.post("/accounts/register/", **fields)
    )

    assert answer.status_code == (403 if field.startswith("csrf") else 303)
    assert "Bcc" not in str(answer.headers)
    if answer.status_code == 303:
        visitor.waits_for("delivered")
        (letter,) = shop.letters(address)
        assert letter["to"] == [address]
        assert "everybody@example.com" not in str(letter)


def test_a_forged_host_is_refused_and_reaches_no_e_mail(shop: Shop) -> None:
    """Links are built from the site's own address, whatever a request says."""
    for path in ("/", "/accounts/register/", "/accounts/login/", "/healthz/live"):
        for host in ("evil.example", "evil.example:80@127.0.0.1", "a b", "."):
            assert shop.visitor().get(path, headers={"Host": host}).status_code == 400
    visitor = shop.visitor()
    forwarded = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    visitor.session.headers.update(forwarded)
    visitor.register("ann@forged.example.com")
    visitor.waits_for("delivered")
    assert "evil" not in str(shop.letters("ann@forged.example.com"))


def test_the_status_api_tells_nobody_anything_who_holds_no_receipt(shop: Shop) -> None:
    """Known, unknown, verified or nonsense: the same bytes. A wrong type is an error whoever asks."""
    path = "/accounts/api/check-email-status/"
    holder, stranger = shop.visitor(), shop.visitor()
    holder.register("ann@asked.example.com")
    holder.waits_for("delivered")
    asked = [
        "",
        "?email=ann@asked.example.com",
        "?email=nobody@example.com",
        "?email=%00",
        "?type=verification&email=x",
        "?zone=../etc/passwd",
        "?zone=%00",
    ]

    answers = [stranger.get(path + query) for query in asked]

    assert {(answer.status_code, answer.content) for answer in answers} == {(404, b'{"status": "none"}')}
    for visitor in (holder, stranger):
        for kind in ("order", "", "%00", "verification%0d%0a"):
            assert visitor.get(f"{path}?type={kind}").status_code == 400
    for zone in ("../etc/passwd", "%00", "Mars/Olympus", "x" * 5000):
        assert holder.get(f"{path}?zone={zone}").json()["detail"] == "delivered"
    assert stranger.request("POST", path).status_code in (403, 405)


def test_links_that_are_none(shop: Shop) -> None:
    """Whatever stands in the URL: the page that offers a new link, or that there is no such page."""
    for uid in ("x", "A" * 22, "é", "%00", "..", "' OR 1=1", "A" * 4000):
        for token in ("x", "A" * 22, "é", "%00", "set-password"):
            answer = shop.visitor().open(f"/accounts/activate/{uid}/{token}/")
            assert answer.status_code in (404, 410)
    for path in (
        "/mail/status/x/",
        "/mail/status/00000000-0000-0000-0000-000000000000/",
        "/orders/x/",
        "/mailbox/99999999999999999999/",
        "/buy/nothing/",
    ):
        assert shop.visitor().get(path).status_code in (404, 405)


def test_used_and_foreign_links(shop: Shop) -> None:
    """A used one is no error; somebody else's asks for the password that only they know."""
    ann, ben = shop.visitor(), shop.visitor()
    for visitor, name in ((ann, "ann"), (ben, "ben")):
        visitor.register(f"{name}@links.example.com")
    link = shop.link("ann@links.example.com")

    foreign = ben.confirm(link, password="a sentence of ben and not of ann")
    assert foreign.status_code == 200
    assert "Your link still works." in foreign.text
    assert ann.confirm(link).status_code == 303
    assert "Your account is already activated. You can log in." in ben.open(link).text


def test_a_browser_without_cookies_is_told_so(shop: Shop) -> None:
    """It cannot register, log in or confirm, and learns why."""
    ann = shop.visitor()
    ann.register("ann@cookies.example.com")
    link = shop.link("ann@cookies.example.com")
    sentence = "This browser did not keep the cookie"

    opened = shop.visitor().get(link)
    assert opened.headers["Location"] == "/accounts/activate/?opened"
    assert sentence in shop.visitor().get(opened.headers["Location"]).text
    for path, fields in (
        ("/accounts/register/", {"email": "kept@example.com", "password": PASSWORD}),
        ("/accounts/login/", {"username": "kept@example.com", "password": PASSWORD}),
        ("/accounts/activate/", {"password": PASSWORD}),
    ):
        answer = shop.visitor().request("POST", path, data=fields)
        assert answer.status_code == 403
        assert sentence in answer.text
        assert ("kept@example.com" in answer.text) == (len(fields) == 2)
        assert PASSWORD not in answer.text


@contextmanager
def folder_away(shop: Shop) -> Iterator[None]:
    """SQLite's file and its folder are not there."""
    database = shop.folder / "database"
    away = database.rename(shop.folder / "away")
    yield
    away.rename(database)


@contextmanager
def file_away(shop: Shop) -> Iterator[None]:
    """The folder is there, and SQLite begins an empty file in it."""
    with folder_away(shop):
        made = shop.folder / "database"
        made.mkdir()
        yield
        # SQLite takes its own -wal and -shm away meanwhile.
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def read_only(shop: Shop) -> Iterator[None]:
    """PostgreSQL takes no writes, as a replica after a failover."""
    _administer(shop, "ALTER DATABASE {} SET default_transaction_read_only = on")
    yield
    _administer(shop, "ALTER DATABASE {} RESET default_transaction_read_only")


@contextmanager
def not_there(shop: Shop) -> Iterator[None]:
    """PostgreSQL knows no database of this name."""
    _administer(shop, "ALTER DATABASE {0} RENAME TO {0}_away")
    yield
    _administer(shop, "ALTER DATABASE {0}_away RENAME TO {0}")


def _administer(shop: Shop, sql: str) -> None:
    import psycopg

    url, name = shop.environment["DATABASE_URL"].rsplit("/", 1)
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE '{name}%'"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(end.encode())
        connection.execute(sql.format(name).encode())
        connection.execute(end.encode())


@pytest.mark.parametrize(
    ("kind", "accidents"),
    [("sqlite", (folder_away, file_away)), ("postgresql", (read_only, not_there))],
)
def test_without_a_database_the_form_is_kept(
    request: pytest.FixtureRequest, scratch: Path, kind: str, accidents: tuple[Any, ...]
) -> None:
    """503 and what was typed, and as soon as the database is back the same form goes through."""
    (scratch / "database").mkdir()
    url = f"sqlite:///{scratch / 'database' / 'shop.sqlite3'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgresql").create_database()
    with open_shop(scratch, database_url=url, worker=False) as shop:
        for number, accident in enumerate(accidents):
            visitor, address = shop.visitor(), f"kept-{number}@example.com"
            token = visitor.get("/accounts/register/").text.partition('csrfmiddlewaretoken" value="')[2][:64]
            fields = {"email": address, "password": PASSWORD, "csrfmiddlewaretoken": token}
            with accident(shop):
                answer = visitor.request("POST", "/accounts/register/", data=fields)
                status = visitor.get("/accounts/api/check-email-status/")
                alive, ready = visitor.get("/healthz/live"), visitor.get("/healthz/ready")
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "Our database does not answer. Nothing was saved." in answer.text
            assert address in answer.text
            assert PASSWORD not in answer.text
            assert status.status_code in (404, 503)
            assert alive.status_code == 200
            # Who can only read takes no registration, and is not ready for visitors.
            assert ready.status_code == 503

            assert visitor.request("POST", "/accounts/register/", data=fields).status_code == 303
        assert len(shop.states()) == len(accidents)
        assert "Internal Server Error" not in shop.said()
