"""Environment variables: each does what it says, and a bad value is one sentence, not a wall."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example.running import PATIENCE_SECONDS, ROOT, environment, manage, setting

PRODUCTION = {
    "DEBUG": "off",
    "SECRET_KEY": "kept-by-nobody-0123456789" * 2,
    "SITE_URL": "https://shop.example",
    "DEFAULT_FROM_EMAIL": "shop@shop.example",
    "BREVO_API_KEY": "xkeysib-1",
    "BREVO_WEBHOOK_SECRET": "hook:secret",
}


def sentence(var: Path, **changes: str) -> str:
    """Return what settings that are refused say."""
    done = subprocess.run(
        [sys.executable, "-c", "import example.settings"],
        cwd=ROOT,
        env=environment(var, **changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"PORT": "many"}, "PORT=many is no port. Type a number from 1 to 65535"),
        ({"PORT": "70000"}, "PORT=70000 is no port"),
        ({"DEBUG": "maybe"}, "DEBUG=maybe is neither yes nor no. Type DEBUG=on or DEBUG=off"),
        (
            {"SITE_URL": "shop.example"},
            "SITE_URL=shop.example is no address of a site. Type for example SITE_URL=https",
        ),
        ({"SITE_URL": "https://shop.example/path"}, "is no address of a site"),
        ({"SITE_URL": "http://[::1"}, "SITE_URL is no URL"),
        ({"BREVO_API_URL": "http://127.0.0.1:9025/"}, "does not end in /v3/"),
        ({"BREVO_WEBHOOK_SECRET": "secret"}, "BREVO_WEBHOOK_SECRET is no user:password pair"),
        ({"DATABASE_URL": "oracle://x/y"}, "DATABASE_URL begins with oracle. Type sqlite:///"),
        ({"DATABASE_URL": "oracle://x/y"}, "or mysql://…"),
        ({"DATABASE_URL": "postgres://localhost"}, "DATABASE_URL names no database"),
        ({"DATABASE_URL": "mysql://ann:x@db"}, "DATABASE_URL names no database"),
        ({"DATABASE_URL": "ann:hunter2@db/shop"}, "DATABASE_URL has no scheme. Type sqlite:///"),
        ({"TIME_ZONE": "Mars/X"}, "TIME_ZONE=Mars/X is no time zone. Type for example TIME_ZONE=Europe"),
        ({"TIME_ZONE": "../etc"}, "TIME_ZONE=../etc is no time zone"),
        ({"SITE_URL": "https://shop.example?a=1"}, "SITE_URL is more than scheme and host"),
        ({"DEFAULT_FROM_EMAIL": ""}, "DEFAULT_FROM_EMAIL= is not one e-mail address. Type for example"),
        ({"DEFAULT_FROM_EMAIL": "Factors"}, "DEFAULT_FROM_EMAIL=Factors is not one e-mail address"),
        ({"DEFAULT_FROM_EMAIL": "a@b.example, c@d.example"}, "is not one e-mail address"),
        (
            {"DEFAULT_FROM_EMAIL": "a@b.example\r\nBcc: c@d.example"},
            "DEFAULT_FROM_EMAIL is more than one line",
        ),
        (
            {"EMAIL_URL": "smtp://mail.example?tls=maybe"},
            "EMAIL_URL says neither yes nor no to tls. Type ?tls=1",
        ),
        ({"EMAIL_URL": "smtp://mail.example?tls"}, "EMAIL_URL says neither yes nor no to tls"),
        ({"EMAIL_URL": "smtps://mail.example?tls=1"}, "Type only one of them"),
        ({"POSTROOM_CONCURRENCY": "0.5"}, "POSTROOM_CONCURRENCY=0.5 is no whole number"),
        ({"POSTROOM_ACCOUNTS_LIMITS": "some"}, "POSTROOM_ACCOUNTS_LIMITS=some is neither yes nor no"),
        ({"EMAIL_URL": "mail.example:25"}, "EMAIL_URL is not understood. Type for example EMAIL_URL=smtp://"),
        (
            {"POSTROOM_CONCURENCY": "8"},
            "POSTROOM_CONCURENCY is no setting. Did you mean POSTROOM_CONCURRENCY?",
        ),
        ({"POSTROOM_CONCURRENCY": "eight"}, "POSTROOM_CONCURRENCY=eight is no number"),
        ({"POSTROOM_LEASE_SECONDS": "-1"}, "POSTROOM_LEASE_SECONDS=-1 is not more than 0"),
        ({"POSTROOM_DOORBELL": "bell"}, "POSTROOM_DOORBELL=bell is none of none, notify, celery"),
        ({"VAR_DIR": "/proc/nowhere"}, "/proc/nowhere cannot be made"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    assert says in sentence(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"DATABASE_URL": "ann:hunter2@db/shop"},
        {"DATABASE_URL": "postgres://ann:hunter2/3@db/shop"},
        {"EMAIL_URL": "smtp://ann:hunter2/3@mail.example"},
        {"SITE_URL": "https://ann:hunter2@shop.example"},
    ],
)
def test_no_refusal_shows_a_password(tmp_path: Path, changes: dict[str, str]) -> None:
    assert "hunter2" not in sentence(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SECRET_KEY": "django-insecure-" + "kept-by-nobody-0123456789" * 2}, "this one can be guessed"),
        ({"SECRET_KEY": "abcd" * 15}, "this one can be guessed"),
        ({"SECRET_KEY": ""}, "SECRET_KEY must be 40 characters or more"),
        ({"SITE_URL": "http://shop.example"}, "links must be https. Type SITE_URL=https://shop.example"),
        ({"BREVO_API_KEY": ""}, "nobody plays the provider"),
        ({"BREVO_WEBHOOK_SECRET": ""}, "type BREVO_WEBHOOK_SECRET=user:password"),
    ],
)
def test_without_debug_what_only_development_may_do_is_refused(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    assert says in sentence(tmp_path, **{**PRODUCTION, **changes})


def test_without_debug_a_sender_must_be_named(tmp_path: Path) -> None:
    values = {name: value for name, value in PRODUCTION.items() if name != "DEFAULT_FROM_EMAIL"}

    assert "DEFAULT_FROM_EMAIL=you@your.domain" in sentence(tmp_path, **values)


def test_production_passes_every_check_and_has_no_mailbox(tmp_path: Path) -> None:
    checked = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)

    assert checked.returncode == 0, checked.stderr
    assert "postroom.mailbox" not in setting(tmp_path, "s.INSTALLED_APPS", **PRODUCTION)
    assert setting(tmp_path, "[s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME]", **PRODUCTION) == [
        "__Host-sessionid",
        "__Host-csrftoken",
    ]
    assert setting(tmp_path, "s.ALLOWED_HOSTS", **PRODUCTION) == ["shop.example"]


def test_development_passes_every_check_and_needs_no_migration(tmp_path: Path) -> None:
    assert manage(tmp_path, "check", "--fail-level", "WARNING").returncode == 0
    written = manage(tmp_path, "makemigrations", "--check", "--dry-run")

    assert written.returncode == 0, written.stdout


def test_secrets_are_made_up_once_and_kept_from_others(tmp_path: Path) -> None:
    first, second = (setting(tmp_path, "[s.SECRET_KEY, s.BREVO_WEBHOOK_SECRET]") for _ in range(2))

    assert first == second
    assert len(first[0]) >= 50
    assert (tmp_path / "secrets.env").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["example.sqlite3", "mailbox.sqlite3"])
def test_databases_are_kept_from_others_also_those_that_were_not(tmp_path: Path, name: str) -> None:
    older = tmp_path / f"{name}-wal"
    older.touch(0o644)

    setting(tmp_path, "s.DEBUG")

    assert [path.stat().st_mode & 0o777 for path in (tmp_path / name, older)] == [0o600, 0o600]


def test_probes_are_answered_at_an_address_of_the_machine_and_nothing_else_is(tmp_path: Path) -> None:
    code = (
        "import django; django.setup(); from django.test import Client; client = Client();"
        "print([client.get(path, secure=path == '/', headers={'host': host}).status_code"
        " for path, host in (('/healthz/live', '127.0.0.1'), ('/healthz/live', '10.0.0.7:8000'), ('/', '127.0.0.1'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(tmp_path, DJANGO_SETTINGS_MODULE="example.settings", **PRODUCTION),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[200, 200, 400]", done.stderr


def test_environment_wins_over_what_was_made_up(tmp_path: Path) -> None:
    setting(tmp_path, "s.SECRET_KEY")

    assert setting(tmp_path, "s.SECRET_KEY", SECRET_KEY="mine") == "mine"


@pytest.mark.parametrize(
    ("url", "engine", "name"),
    [
        ("sqlite:////srv/shop.sqlite3", "django.db.backends.sqlite3", "/srv/shop.sqlite3"),
        (
            "postgres://ann:p%40ss@db.example:5433/shop?sslmode=require",
            "django.db.backends.postgresql",
            "shop",
        ),
        ("mysql://ann:p%40ss@db.example:3307/shop", "django.db.backends.mysql", "shop"),
        ("mariadb://ann:p%40ss@db.example/shop", "django.db.backends.mysql", "shop"),
    ],
)
def test_database_url(tmp_path: Path, url: str, engine: str, name: str) -> None:
    database = setting(tmp_path, "s.DATABASES['default']", DATABASE_URL=url)

    assert (database["ENGINE"], database["NAME"]) == (engine, name)
    if "@" in url:
        assert (database["USER"], database["PASSWORD"], database["HOST"]) == ("ann", "p@ss", "db.example")
    if "sslmode" in url:
        assert database["OPTIONS"] == {"sslmode": "require"}


def test_mariadb_holds_every_letter_cuts_nothing_off_and_speaks_utc(tmp_path: Path) -> None:
    """Whoever left its defaults alone got none of that; what the URL says goes before."""
    url = "mysql://ann:x@db.example/shop?connect_timeout=5&ssl_ca=/srv/ca.pem"

    options = setting(tmp_path, "s.DATABASES['default']['OPTIONS']", DATABASE_URL=url)

    assert (options["charset"], options["isolation_level"]) == ("utf8mb4", "read committed")
    assert "TRADITIONAL" in options["init_command"]
    assert "time_zone = '+00:00'" in options["init_command"]
    assert (options["connect_timeout"], options["ssl_ca"]) == (5, "/srv/ca.pem")


def test_sqlite_waits_its_turn(tmp_path: Path) -> None:
    options = setting(tmp_path, "s.DATABASES['default']['OPTIONS']")

    assert options["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in options["init_command"]


@pytest.mark.parametrize(
    ("changes", "aliases"),
    [
        ({}, ["brevo"]),
        ({"EMAIL_URL": "smtp://mail.example"}, ["smtp"]),
        ({"EMAIL_URL": "smtp://mail.example", "BREVO_API_KEY": "k"}, ["brevo", "smtp"]),
        ({"EMAIL_URL": "smtp://mail.example", "BREVO_API_URL": "http://127.0.0.1:9/v3/"}, ["brevo", "smtp"]),
    ],
)
def test_mailers_in_order(tmp_path: Path, changes: dict[str, str], aliases: list[str]) -> None:
    assert setting(tmp_path, "s.POSTROOM['SEND_WITH']", **changes) == aliases


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:9025/v3/"),
        ({"BREVO_API_KEY": "k"}, "https://api.brevo.com/v3/"),
        ({"BREVO_API_KEY": "k", "BREVO_API_URL": "http://127.0.0.1:9/v3/"}, "http://127.0.0.1:9/v3/"),
        ({"BREVO_API_URL": "http://127.0.0.1:9/v3/"}, "http://127.0.0.1:9/v3/"),
    ],
)
def test_where_brevo_is(tmp_path: Path, changes: dict[str, str], url: str) -> None:
    assert setting(tmp_path, "s.PROVIDER_URL", **changes) == url


def test_smtp_url(tmp_path: Path) -> None:
    smtp = setting(tmp_path, "s.SMTP", EMAIL_URL="smtp://ann:p%40ss@mail.example:587?tls=1")

    assert (smtp["host"], smtp["port"], smtp["username"], smtp["password"]) == (
        "mail.example",
        587,
        "ann",
        "p@ss",
    )
    assert (smtp["use_tls"], smtp["use_ssl"]) == (True, False)
    assert setting(tmp_path, "s.SMTP['port']", EMAIL_URL="smtps://mail.example") == 465


@pytest.mark.parametrize(
    ("value", "is_on"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("off", False)],
)
def test_tls_is_a_yes_or_a_no(tmp_path: Path, value: str, is_on: bool) -> None:
    assert setting(tmp_path, "s.SMTP['use_tls']", EMAIL_URL=f"smtp://mail.example?tls={value}") is is_on


def test_postroom_variables_become_settings(tmp_path: Path) -> None:
    changed = setting(tmp_path, "s.POSTROOM", POSTROOM_CONCURRENCY="8", POSTROOM_LEASE_SECONDS="2.5")

    assert (changed["CONCURRENCY"], changed["LEASE_SECONDS"]) == (8, 2.5)


def test_links_follow_port_and_site_url(tmp_path: Path) -> None:
    assert setting(tmp_path, "s.POSTROOM['SITE_URL']", PORT="8123") == "http://127.0.0.1:8123"
    assert (
        setting(tmp_path, "s.POSTROOM['SITE_URL']", SITE_URL="https://shop.example/")
        == "https://shop.example"
    )


def test_every_variable_of_the_example_file_is_read_and_every_one_read_is_in_it() -> None:
    listed = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    code = "".join(path.read_text() for path in ROOT.glob("example/*.py"))
    read = set(re.findall(r"(?:text|flag|generated|_split)\(\s*\"([A-Z_]+)\"", code))
    inner = {name for name in read if name.startswith("POSTROOM_")}

    assert {name for name in listed if not name.startswith("POSTROOM_")} == read - inner
