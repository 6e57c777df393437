"""The whole path in the example, in its own processes, with the provider's log as the judge."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.example.running import (
    PASSWORD,
    PATIENCE_SECONDS,
    ROOT,
    Shop,
    Visitor,
    environment,
    eventually,
    manage,
    open_shop,
    setting,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One shop for all tests of this module."""
    with open_shop(tmp_path_factory.mktemp("a shop") / "var") as shop:
        yield shop


@pytest.fixture
def ann(shop: Shop) -> Iterator[Visitor]:
    with Visitor(shop.url) as ann:
        yield ann


@pytest.fixture(autouse=True)
def _instant(shop: Shop) -> None:
    """Each begins with an empty hand: an e-mail that the test before left behind was counted as one of its own."""
    shop.provider("/_mood", {"mood": "instant"})
    eventually(shop.has_settled)


def test_first_start_counts_up_and_ends_with_three_addresses_and_a_pid_to_kill(shop: Shop) -> None:
    terminal = shop.terminal

    assert re.search(r"^postroom: first start, setting up", terminal)
    assert re.search(r"^  database +\S.*example\.sqlite3, new +\d+ s$", terminal, re.MULTILINE)
    assert re.search(r"^  shop +6 things to buy, 1 operator +\d+ s$", terminal, re.MULTILINE)
    for name, path in (("shop", ""), ("mailbox", "mailbox/"), ("operator", "postroom/")):
        assert f"  {name:<9}  {shop.url}/{path} " in terminal
    assert f"    kill -9 {shop.pid('worker')}\n" in terminal
    assert "operator@example.com  three-in-the-morning" in terminal


def test_register_read_confirm_log_in_buy(shop: Shop, ann: Visitor) -> None:
    assert ann.registers().url == f"{shop.url}/accounts/check-email/"
    eventually(lambda: ann.status()["detail"] == "delivered")
    [letter] = ann.mailbox()
    assert letter["subject"] == "Please activate your account"
    link = re.search(r"http\S+/accounts/activate/\S+", letter["text"])
    assert link
    ann.get(link[0], timeout=PATIENCE_SECONDS)
    confirmed = ann.submit("/accounts/activate/", form_on="/accounts/activate/?opened")
    assert "Congratulations! Your account has been activated successfully." in confirmed.text

    home = ann.submit("/accounts/login/", username=ann.address, password=PASSWORD)
    order = ann.submit("/buy/twelve/", form_on="/")

    assert f"Hello <bdi>{ann.address}</bdi>" in home.text
    assert 'class="email-status"' in order.text
    eventually(lambda: len(ann.mailbox()) == 2)
    confirmation = ann.mailbox()[0]
    assert "Twelve, € 12.00" in confirmation["text"]
    assert order.url in confirmation["text"]
    assert re.search(r"&quot;|&amp;|&#", confirmation["text"]) is None


def test_strip_tells_facts(shop: Shop, ann: Visitor) -> None:
    assert ">Register</a>" in ann.page("/tour/").text
    ann.registers()
    eventually(lambda: ann.status()["detail"] == "delivered")

    strip = ann.page("/tour/").text

    assert re.search(
        r"The next page was ready \d+ ms after you pressed the button; the provider needed \d+\.\d s", strip
    )
    assert re.search(r"It arrived at \d\d:\d\d:\d\d UTC", strip)
    assert re.findall(r'data-state="(\w+)"', strip)[:4] == ["done", "now", "todo", "todo"]


def test_strip_can_be_hidden_and_shown_again(ann: Visitor) -> None:
    hidden = ann.submit("/tour/hide/", form_on="/").text
    shown = ann.submit("/tour/hide/", form_on="/").text

    assert "You are trying postroom" not in hidden
    assert "You are trying postroom" in shown


def test_buying_asks_to_log_in_first(shop: Shop, ann: Visitor) -> None:
    assert ann.submit("/buy/two/", form_on="/").url == f"{shop.url}/accounts/login/?next=/"


def test_mood_button_changes_the_provider(shop: Shop, ann: Visitor) -> None:
    ann.submit("/tour/mood/", form_on="/", mood="bounces")
    ann.registers()

    assert eventually(lambda: ann.status()["detail"] in ("bounced", "refused"))
    assert "The provider: bounces" in ann.page("/mailbox/").text


@pytest.mark.timeout(240)
def test_worker_killed_by_the_button_is_replaced_and_nothing_arrives_twice(shop: Shop, ann: Visitor) -> None:
    """Killed while it waits for the provider, which has taken the e-mail by then."""
    # Long enough to press the button meanwhile; the report has to be there before the next worker, in ten seconds.
    shop.provider("/_mood", {"mood": "default", "seconds": 7})
    before = len(shop.accepted())
    ann.registers()
    eventually(lambda: len(shop.accepted()) > before)

    page = ann.submit("/tour/kill-worker/", form_on="/").text
    killed = re.search(r"kill -9 (\d+): the worker is dead", page)
    assert killed
    shop.says(
        rf"run       worker {killed[1]} died \(SIGKILL\) with 1 e-mail in hand; a new one starts in 10 s"
    )
    shop.says(rf"worker    pid (?!{killed[1]})\d+")
    eventually(lambda: ann.status()["detail"] == "delivered")

    shop.says(r"delivered: it had gone out before the worker died")
    assert len(shop.accepted()) == before + 1
    assert len(set(shop.accepted())) == len(shop.accepted())
    eventually(shop.has_settled)
    assert "the provider's answer was lost on the way" in ann.page("/tour/").text


def test_terminal_shows_ids_and_no_address(shop: Shop, ann: Visitor) -> None:
    ann.registers()
    shop.says(r"web       registered in \d+ ms; e-mail [0-9a-f]{4} is in the outbox")
    shop.says(r"provider  [0-9a-f]{4} delivered")

    live = shop.terminal.partition("kill -9")[2]
    assert "@" not in live
    assert "activate" not in live


def test_another_name_of_this_machine_leads_to_site_url(shop: Shop) -> None:
    host = shop.url.removeprefix("http://").replace("127.0.0.1", "localhost")

    answer = requests.get(
        f"{shop.url}/accounts/login/?next=/x",
        headers={"Host": host},
        allow_redirects=False,
        timeout=PATIENCE_SECONDS,
    )

    assert (answer.status_code, answer.headers["Location"]) == (302, f"{shop.url}/accounts/login/?next=/x")


def test_forged_host_is_refused(shop: Shop) -> None:
    assert (
        requests.get(f"{shop.url}/", headers={"Host": "evil.example"}, timeout=PATIENCE_SECONDS).status_code
        == 400
    )


def test_every_page_has_a_policy(shop: Shop) -> None:
    for path in ("/", "/accounts/register/", "/accounts/login/", "/mailbox/", "/healthz/live"):
        headers = requests.get(shop.url + path, timeout=PATIENCE_SECONDS).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path


def test_tour_posts_need_a_token(shop: Shop) -> None:
    for path in ("/tour/kill-worker/", "/tour/mood/", "/buy/two/"):
        assert requests.post(shop.url + path, timeout=PATIENCE_SECONDS).status_code == 403, path


def test_operator_sees_the_operator_page_and_nobody_else(shop: Shop, ann: Visitor) -> None:
    assert ann.page("/postroom/").url != f"{shop.url}/postroom/" or ann.page("/postroom/").status_code in (
        403,
        404,
    )

    ann.submit("/accounts/login/", username="operator@example.com", password="three-in-the-morning")

    assert ann.page("/postroom/").status_code == 200
    assert re.findall(r'data-state="(\w+)"', ann.page("/tour/").text)[5] == "done"


def test_commands_in_another_terminal_speak_of_the_same_shop(shop: Shop) -> None:
    running = shop.provider("/_mood")

    assert setting(shop.var, "s.SITE_URL") == shop.url
    assert (
        requests.get(setting(shop.var, "s.PROVIDER_URL")[:-3] + "_mood", timeout=PATIENCE_SECONDS).json()
        == running
    )


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux shows command lines under /proc.")
def test_webhook_secret_is_not_in_the_simulators_command_line(shop: Shop) -> None:
    secret = setting(shop.var, "s.BREVO_WEBHOOK_SECRET").partition(":")[2]
    command = Path(f"/proc/{shop.pid('provider')}/cmdline").read_text()

    assert "example.brevo" in command
    assert secret not in command


def test_databases_of_a_running_shop_are_its_owners_alone(shop: Shop) -> None:
    files = list(shop.var.glob("*.sqlite3*"))

    assert {"example.sqlite3", "mailbox.sqlite3"} <= {file.name for file in files}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


STRIP = """
import django; django.setup()
from django.test import Client
print(Client().get("/tour/", headers={"host": "127.0.0.1:8000"}).content.decode())
"""


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables that nobody has written to, for those who only read a page."""
    var = tmp_path_factory.mktemp("unused")
    assert manage(var, "migrate", "--verbosity", "0").returncode == 0
    return var


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "Any address will do: nothing leaves this machine."),
        ({"BREVO_API_KEY": "k"}, "e-mails go to real people."),
        ({"BREVO_API_URL": "https://127.example/v3/"}, "e-mails go to real people."),
        ({"EMAIL_URL": "smtp://mail.example"}, "e-mails go to real people."),
        ({"EMAIL_URL": "smtp://localhost"}, "e-mails may go to real people."),
    ],
)
def test_strip_tells_whom_e_mails_reach(unused: Path, changes: dict[str, str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRIP],
        cwd=ROOT,
        env=environment(unused, DJANGO_SETTINGS_MODULE="example.settings", **changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )

    assert says in done.stdout
    assert ("nothing leaves" in done.stdout) is not bool(changes)
