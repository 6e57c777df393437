"""Many people at once, a worker that dies again and again, and a provider that drops its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.journeys.shop import Shop, open_shop
from tests.journeys.stage import eventually

pytestmark = pytest.mark.timeout(240)

PEOPLE = 60
KILLS = 5


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def crowded(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Shop]:
    """A shop of its own on each database: here people wait in dozens."""
    kind = str(request.param)
    url = "" if kind == "sqlite" else request.getfixturevalue(kind).create_database()
    with open_shop(scratch, database_url=url, POSTROOM_LEASE_SECONDS="3", POSTROOM_CONCURRENCY="6") as shop:
        yield shop


def test_sixty_registrations_survive_five_dead_workers(crowded: Shop) -> None:
    """
    Each worker is killed with e-mails in hand, some of which the provider has taken; every other
    time it drops its answers as well. It reports nothing, so that only the keys can tell. All sixty
    e-mails arrive, none of them twice.
    """
    shop = crowded
    addresses = [f"person-{number}@example.com" for number in range(PEOPLE)]

    with ThreadPoolExecutor(max_workers=6) as crowd:
        answers = [crowd.submit(register, shop, address) for address in addresses]
        for kill in range(KILLS):
            shop.provider.mood("no-reports" if kill % 2 else "takes-it-and-drops", seconds=0.6, report="")
            known = len(shop.provider.calls())
            eventually("e-mails are in flight", lambda known=known: len(shop.provider.calls()) >= known + 4)
            shop.worker.kill()
            shop.start_worker()
        shop.provider.mood("no-reports", seconds=0.1)
        assert [answer.result() for answer in answers] == ["/accounts/check-email/"] * PEOPLE
    eventually("everything is settled", shop.all_settled)

    calls = shop.provider.calls()
    accepted = Counter(call["email"] for call in calls if call["accepted"])
    assert len(accepted) == PEOPLE
    assert set(accepted.values()) == {1}
    assert sorted(call["to"][0] for call in calls if call["accepted"]) == sorted(addresses)
    assert Counter(shop.states()) == {"accepted": PEOPLE}
    assert len(calls) > PEOPLE
    assert {call["outcome"] for call in calls} == {"accepted", "duplicate_parameter"}


def register(shop: Shop, address: str) -> str:
    """Register and return where the answer leads."""
    visitor = shop.visitor()
    return visitor.register(address).headers.get("Location", "")
