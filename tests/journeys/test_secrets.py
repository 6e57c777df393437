"""
After a full run: what lies in the tables and what stands in the logs is of no use to a thief.

The development mailbox is not searched: its letters are the e-mails, links and all.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.journeys.shop import LINK, PASSWORD, Shop
from tests.journeys.stage import eventually

pytestmark = pytest.mark.timeout(180)

WRONG_PASSWORD = "a sentence that is wrong everywhere"
ADDRESSES = ("ann", "ben", "cat")


@dataclass(kw_only=True)
class Run:
    """What is left of a run."""

    links: list[str]
    dump: str
    logs: str


@pytest.fixture(scope="module")
def run(open_all_day: Shop) -> Iterator[Run]:
    """
    Ann goes the whole way; Ben, whose e-mail is refused at first, has opened his link and no more;
    Cat's link, opened by nobody, is as good as ever; somebody else tries Ann's address.
    """
    shop = open_all_day
    shop.tidy()
    ann, ben, cat, stranger = (shop.visitor() for _ in range(4))
    addresses = [f"{name}@secret.example.com" for name in ADDRESSES]
    ann.register(addresses[0])
    ann.waits_for("delivered")
    ann.confirm(shop.link(addresses[0]))
    ann.login(addresses[0], WRONG_PASSWORD)
    ann.login(addresses[0])
    ann.post("/buy/two/", page="/")
    eventually("the order's e-mail is out", lambda: shop.accepted(addresses[0]) == 2)
    shop.provider.mood("5xx", seconds=0, next=1)
    ben.register(addresses[1])
    ben.waits_for("delivered")
    shop.visitor().confirm(shop.link(addresses[1]), password=WRONG_PASSWORD)
    stranger.request("POST", shop.link(addresses[1]))
    cat.register(addresses[2])
    cat.waits_for("delivered")
    cat.request("HEAD", shop.link(addresses[2]))
    stranger.register(addresses[0])
    stranger.waits_for("delivered")
    letters = [letter for address in addresses for letter in shop.letters(address)]
    links = [link for letter in letters for link in LINK.findall(letter["text"])]
    yield Run(links=links, dump=dump(shop), logs=shop.said())
    shop.tidy()


def dump(shop: Shop) -> str:
    """Return every table as text, and what the sessions hold."""
    lines = []
    for table in shop.tables():
        for row in shop.select(f"SELECT * FROM {table}"):
            cells = [
                bytes(cell).decode(errors="replace") if isinstance(cell, (bytes, memoryview)) else str(cell)
                for cell in row
            ]
            lines.append(f"{table} | {' | '.join(cells)}")
    sessions = [decoded(value) for (value,) in shop.select("SELECT session_data FROM django_session")]
    return "\n".join([*lines, *map(json.dumps, sessions)])


def decoded(session: str) -> dict[str, object]:
    """Return what a session holds; Django signs it, compresses it, and does not encrypt it."""
    data = session.split(":", maxsplit=1)[0]
    raw = base64.urlsafe_b64decode(data.lstrip(".") + "=" * (-len(data.lstrip(".")) % 4))
    found: dict[str, object] = json.loads(zlib.decompress(raw) if data.startswith(".") else raw)
    return found


def test_no_table_and_no_log_holds_a_link_or_a_password(run: Run) -> None:
    """Neither one that works still nor one that was used: who reads a backup or a log gets in nowhere."""
    tokens = {link.split("/")[-2] for link in run.links}
    assert len(tokens) == 3

    for place in (run.dump, run.logs):
        for secret in (*run.links, *tokens, PASSWORD, WRONG_PASSWORD):
            assert secret not in place
    assert "ben@secret.example.com" in run.dump
    assert '"opened"' in run.dump
    assert re.search(r"rescheduled email=[0-9a-f-]{36} kind=accounts.verification", run.logs)


def test_no_log_holds_an_address(run: Run) -> None:
    """Logs go to places where addresses must not go."""
    assert "claimed email=" in run.logs
    assert "registered ms=" in run.logs
    assert "@secret.example.com" not in run.logs
    assert not [name for name in ADDRESSES if f"{name}@" in run.logs or f"{name}%40" in run.logs]
