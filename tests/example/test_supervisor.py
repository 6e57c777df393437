"""Opening and closing: what the terminal says, and that nothing is left running."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from example.loopback import holder, listen, listen_near, port_of
from example.terminal import nothing_leaves, open_again, real_mail
from tests.example.running import ROOT, Shop, Visitor, environment, eventually, lives, open_shop


def pids(shop: Shop) -> list[int]:
    return [shop.pid(name) for name in ("web", "worker", "provider")]


@pytest.mark.timeout(240)
def test_ctrl_c_lets_the_worker_finish_and_the_second_start_is_short(tmp_path: Path) -> None:
    with open_shop(tmp_path / "var") as shop, Visitor(shop.url) as ann:
        children = pids(shop)
        shop.provider("/_mood", {"mood": "default", "seconds": 10})
        ann.registers()
        eventually(shop.accepted)
        shop.interrupt()

        assert shop.ends() == 0
        shop.says(
            r"closing: 1 e-mail in hand … accepted\. Stopped after \d+ s, nothing left running, 0 e-mails waiting\."
        )
        assert not any(map(lives, children))

    with open_shop(tmp_path / "var") as again:
        again.says(r"^postroom: the shop is open again \(\d+ s\)\. 1 e-mail in the outbox, 0 waiting\.")
        assert "setting up" not in again.terminal
        assert "database" not in again.terminal


@pytest.mark.timeout(240)
def test_second_ctrl_c_closes_at_once(tmp_path: Path) -> None:
    with (
        open_shop(tmp_path / "var", POSTROOM_STOP_SECONDS="3600") as shop,
        Visitor(shop.url) as ann,
    ):
        children = pids(shop)
        shop.provider("/_mood", {"mood": "hangs"})
        ann.registers()
        eventually(lambda: shop.provider("/_log"))
        shop.interrupt()
        shop.says(r"closing: 1 e-mail in hand")
        shop.interrupt()

        assert shop.ends() == 0  # the first Ctrl-C would have waited for an hour
        shop.says(
            r"closing at once: 1 e-mail was in hand; the next start takes it back and asks the provider by key\."
        )
        assert not any(map(lives, children))


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux kills children with their parent.")
@pytest.mark.timeout(240)
def test_supervisor_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with open_shop(tmp_path / "var") as shop:
        children = pids(shop)
        shop.process.kill()

        eventually(lambda: not any(map(lives, children)))


@pytest.mark.timeout(240)
def test_port_8000_taken_gives_the_next_one_and_links_follow(tmp_path: Path) -> None:
    with ExitStack() as held:
        with suppress(OSError):  # somebody else holds it, which is as good
            held.enter_context(listen(8000))
        shop = held.enter_context(open_shop(tmp_path / "var"))
        if shop.url.endswith(":8000"):  # but has let go meanwhile: so now it is this shop that holds it
            shop = held.enter_context(open_shop(tmp_path / "second"))
        ann = held.enter_context(Visitor(shop.url))
        shop.says(rf"port 8000 is taken, so the shop is at {shop.url}/")
        assert shop.url != "http://127.0.0.1:8000"
        ann.registers()

        assert f"{shop.url}/accounts/activate/" in eventually(ann.mailbox)[0]["text"]


def refused(var: Path, *arguments: str, **changes: str) -> str:
    """Start a shop that must not open; return its one sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "example", *arguments],
        cwd=ROOT,
        env=environment(var, **changes),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_names_the_holder(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        sentence = refused(tmp_path, PORT=str(port))

        assert sentence.startswith(
            f"postroom: port {port} is taken (pid {os.getpid()}). Choose another: make run PORT="
        )
        assert holder(port) == os.getpid()
        with listen_near(port) as near:
            assert port_of(near) != port


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["--port", "8124"], "make run PORT=8124"),
        (["--port=8124"], "make run PORT=8124"),
        (["8124"], "make run PORT=8124"),
        (["--verbose"], "make run PORT=9001"),
    ],
)
def test_an_argument_is_refused_with_what_to_type_instead(
    tmp_path: Path, arguments: list[str], instead: str
) -> None:
    """It was ignored without a word, and the shop stood at another port than asked for."""
    sentence = refused(tmp_path, *arguments)

    assert sentence.startswith("postroom: the shop takes no arguments, only variables")
    assert " ".join(arguments) in sentence
    assert sentence.endswith(instead)


def test_newer_database_is_kept_and_named(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "example.sqlite3")
    database.execute(
        "create table django_migrations (id integer primary key, app text, name text, applied text)"
    )
    database.execute("insert into django_migrations values (1, 'postroom', '0999_of_tomorrow', '2030-01-01')")
    database.commit()
    database.close()

    sentence = refused(tmp_path)

    assert sentence.endswith("was made by a newer version. Keep it: git pull. Start over: make fresh")
    assert "example.sqlite3" in sentence


def test_something_else_in_the_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "example.sqlite3").write_text("This is a letter, not a database." * 100)

    assert "cannot be used: file is not a database" in refused(tmp_path)


def test_another_database_that_is_away_is_not_made_anew_by_forgetting_ours(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))

        sentence = refused(tmp_path, DATABASE_URL=f"postgres://ann@127.0.0.1:{deaf.getsockname()[1]}/shop")

    assert "shop at 127.0.0.1 cannot be used: " in sentence
    assert sentence.endswith("Another one: DATABASE_URL=…, or: DATABASE_URL= make run (SQLite)")
    assert "make fresh" not in sentence


@pytest.mark.timeout(240)
def test_crash_at_the_start_tells_its_last_words_and_stops_the_others(tmp_path: Path) -> None:
    sentence = refused(tmp_path, WEB_CONCURRENCY="many")

    assert sentence.startswith("web ended with code 1. Its last words:\n")
    assert "many" in sentence
    assert sentence.endswith("The other processes were stopped.")


def settings(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"BREVO_API_KEY": "", "BREVO_API_URL": "", "SMTP": None, "PROVIDER_URL": "", **changes}
    )


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({}, ""),
        (
            {"BREVO_API_KEY": "xkeysib-1"},
            "REAL MAIL: BREVO_API_KEY is set, so e-mails go to Brevo and to real people.",
        ),
        ({"BREVO_API_KEY": "k", "BREVO_API_URL": "http://127.0.0.1:9/v3/"}, ""),
        (
            {"BREVO_API_URL": "https://b.example/v3/"},
            "REAL MAIL: BREVO_API_URL is set, so e-mails go to b.example",
        ),
        ({"SMTP": {"host": "mail.example"}}, "REAL MAIL: EMAIL_URL is set, so e-mails go to mail.example"),
        ({"SMTP": {"host": "localhost"}}, ""),
    ],
)
def test_real_mail_is_said_in_capitals(changes: dict[str, Any], begins: str) -> None:
    said = real_mail(settings(**changes))

    assert said.startswith(begins)
    assert bool(said) == bool(begins)


@pytest.mark.parametrize(
    ("changes", "leaves"),
    [
        ({"PROVIDER_URL": "http://127.0.0.1:9025/v3/"}, False),
        ({"PROVIDER_URL": "https://api.brevo.com/v3/", "BREVO_API_KEY": "k"}, True),
        ({"PROVIDER_URL": "https://b.example/v3/"}, True),
        ({"SMTP": {"host": "mail.example"}}, True),
        ({"SMTP": {"host": "localhost"}}, True),
    ],
)
def test_only_a_played_provider_keeps_everything_on_this_machine(
    changes: dict[str, Any], leaves: bool
) -> None:
    assert nothing_leaves(settings(**changes)) is not leaves


def test_one_e_mail_is_counted_as_one() -> None:
    assert "1 e-mail in the outbox, 1 waiting." in open_again(3, 1, 1)
    assert "2 e-mails in the outbox, 0 waiting." in open_again(3, 2, 0)
