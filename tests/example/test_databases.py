"""The shop on a database server: the same path as on SQLite, and the operator's view of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.example.running import PASSWORD, PATIENCE_SECONDS, Shop, Visitor, eventually, manage, open_shop

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database as ``DATABASE_URL`` names it; MariaDB's clock stands at +06:00."""
    return str(request.getfixturevalue(request.param).create_database())


@pytest.fixture
def shop(url: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose POSTROOM settings are those of any first start."""
    with open_shop(tmp_path / "var", DATABASE_URL=url) as shop:
        yield shop


def test_whole_path_on_a_database_server(shop: Shop, url: str) -> None:
    """
    Register, read, confirm, log in, buy. Read in the zone of the server, +06:00 on MariaDB, the
    clock said of every e-mail that it was due hours ago, and of every lease that it was over.
    """
    shop.provider("/_mood", {"mood": "instant"})
    with Visitor(shop.url) as ann:
        ann.registers()
        eventually(lambda: ann.status()["detail"] == "delivered")
        [letter] = ann.mailbox()
        link = re.search(r"http\S+/accounts/activate/\S+", letter["text"])
        assert link
        ann.get(link[0], timeout=PATIENCE_SECONDS)
        confirmed = ann.submit("/accounts/activate/", form_on="/accounts/activate/?opened")
        home = ann.submit("/accounts/login/", username=ann.address, password=PASSWORD)
        order = ann.submit("/buy/twelve/", form_on="/")
        eventually(lambda: len(ann.mailbox()) == 2)

    assert "Congratulations! Your account has been activated successfully." in confirmed.text
    assert f"Hello <bdi>{ann.address}</bdi>" in home.text
    assert 'class="email-status"' in order.text
    assert len(shop.accepted()) == len(set(shop.accepted())) == 2
    doctor = manage(shop.var, "postroom_doctor", DATABASE_URL=url)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "Traceback" not in shop.terminal
