"""
The environment variables of the shop, read once and refused in one sentence.

Values come from the process's environment, else from ``.env``, else from what ``python -m example``
left under ``var/`` (the addresses of a shop that runs, and secrets made up for development).
A value that cannot be meant ends the process with what to type instead, not with a traceback.
"""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from email.utils import getaddresses
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from postroom.conf import DOORBELLS, WHOLE, Config

BASE_DIR = Path(__file__).resolve().parent.parent
ON, OFF = ("1", "on", "true", "yes"), ("0", "off", "false", "no", "")
ENGINES = {
    "sqlite": "sqlite3",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}

NOT_SETTINGS = ("POSTROOM_FIRST_START", "POSTROOM_CONTROL", "POSTROOM_LINES", "POSTROOM_LOAD_TEST")
"""Variables of ours that look like settings of ``POSTROOM``; so do those of the accounts and of the tests."""


def refuse(sentence: str) -> NoReturn:
    """End the process with one sentence."""
    raise SystemExit(f"postroom: {sentence}")


def read_file(path: Path) -> None:
    """Make the ``NAME=value`` lines of *path* defaults of the environment; a missing file says nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{path} cannot be read: {error}.")
    for line in lines:
        name, is_pair, value = line.partition("=")
        if is_pair and not name.lstrip().startswith("#"):
            os.environ.setdefault(name.removeprefix("export ").strip(), value.strip().strip("'\""))


def text(name: str, default: str = "") -> str:
    """Return the value of *name*, without surrounding spaces."""
    return os.environ.get(name, default).strip()


def flag(name: str, default: bool) -> bool:
    """Return a yes or no."""
    value = text(name, "on" if default else "off").lower()
    if value not in ON + OFF:
        refuse(f"{name}={value} is neither yes nor no. Type {name}=on or {name}=off.")
    return value in ON


def port() -> int:
    """Return ``PORT``; 8000 where it is not set."""
    value = text("PORT") or "8000"
    if not value.isdecimal() or not 0 < int(value) < 65536:
        refuse(f"PORT={value} is no port. Type a number from 1 to 65535, for example PORT=8000.")
    return int(value)


def var_dir() -> Path:
    """Return the directory of everything that the shop writes; made where it is missing."""
    path = Path(text("VAR_DIR") or BASE_DIR / "var").absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(
            f"{path} cannot be made ({error.strerror}). Type VAR_DIR=DIRECTORY for one that may be written."
        )
    return path


def generated(name: str, value: str, *, into: Path) -> str:
    """Return variable *name*; where it is not set, *value*, kept in the file *into* for the next process."""
    if not text(name):
        try:
            # One write at the end of a file: processes that start together keep whole lines, and
            # the first one wins when it is read.
            descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, f"{name}={value}\n".encode())
            os.close(descriptor)
        except OSError as error:
            refuse(f"{into} cannot be written ({error.strerror}). Type {name}=… or make it writable.")
        read_file(into)
    return text(name)


def site_url(default: str) -> str:
    """Return ``SITE_URL``: scheme and host, no path."""
    value = text("SITE_URL") or default
    parts = _split("SITE_URL", value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: it may hold a password.
        refuse("SITE_URL is more than scheme and host. Type for example SITE_URL=https://shop.example")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        refuse(f"SITE_URL={value} is no address of a site. Type for example SITE_URL=https://shop.example")
    return f"{parts.scheme}://{parts.netloc}"


def brevo_api_url(default: str) -> str:
    """Return ``BREVO_API_URL``, which ends in ``/v3/``."""
    value = text("BREVO_API_URL") or default
    parts = _split("BREVO_API_URL", value)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.endswith("/v3/"):
        refuse(f"BREVO_API_URL={value} does not end in /v3/. Type for example https://api.brevo.com/v3/")
    return value


def webhook_secret(value: str) -> str:
    """Return *value* where it is a ``user:password`` pair."""
    if not all(value.partition(":")):
        refuse(
            "BREVO_WEBHOOK_SECRET is no user:password pair. Type for example BREVO_WEBHOOK_SECRET=hook:s3cret"
        )
    return value


def sender(default: str) -> str:
    """Return ``DEFAULT_FROM_EMAIL``: one address, with or without a name."""
    value = text("DEFAULT_FROM_EMAIL", default)
    example = "Type for example DEFAULT_FROM_EMAIL=shop@your.domain"
    if "\r" in value or "\n" in value:
        refuse(f"DEFAULT_FROM_EMAIL is more than one line. {example}")
    addresses = [address for _name, address in getaddresses([value])]
    try:
        validate_email(addresses[0] if len(addresses) == 1 else "")
    except ValidationError:
        refuse(f"DEFAULT_FROM_EMAIL={value} is not one e-mail address. {example}")
    return value


def time_zone() -> str:
    """Return ``TIME_ZONE``; UTC where it is not set."""
    value = text("TIME_ZONE") or "UTC"
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        refuse(f"TIME_ZONE={value} is no time zone. Type for example TIME_ZONE=Europe/Berlin")
    return value


def database(default: Path) -> dict[str, Any]:
    """Return ``DATABASE_URL`` as Django's dictionary; where it is not set, SQLite at *default*."""
    value = text("DATABASE_URL") or f"sqlite:///{private(default)}"
    url = _split("DATABASE_URL", value)
    if url.scheme not in ENGINES or ("://" not in value and url.scheme != "sqlite"):
        # Without "://" anything of it may be the password.
        begins = f"begins with {url.scheme}" if "://" in value and url.scheme else "has no scheme"
        examples = "sqlite:////path/shop.sqlite3, postgres://user:password@host/name or mysql://…"
        refuse(f"DATABASE_URL {begins}. Type {examples}.")
    engine = f"django.db.backends.{ENGINES[url.scheme]}"
    name = unquote(url.path[1:])
    if not name:
        refuse("DATABASE_URL names no database: its path is empty.")
    if url.scheme == "sqlite":
        return {"ENGINE": engine, "NAME": name, "OPTIONS": SQLITE_OPTIONS}
    options: dict[str, Any] = dict(parse_qsl(url.query))
    if ENGINES[url.scheme] == "mysql":
        _find_mysql_driver()
        # The driver wants numbers as numbers: ?connect_timeout=5.
        options = MYSQL_OPTIONS | {
            key: int(text) if text.isdecimal() else text for key, text in options.items()
        }
    return {
        "ENGINE": engine,
        "NAME": name,
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        "OPTIONS": options,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    # FULL: with NORMAL a power cut may take back what was committed, and the visitor saw a page.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
}


MYSQL_OPTIONS = {
    "charset": "utf8mb4",
    # With REPEATABLE READ, the server's own default, workers would lock the gaps between rows, too,
    # and stand in the way of every INSERT.
    "isolation_level": "read committed",
    # What does not fit is an error and not cut off; whatever asks the session for the time gets UTC.
    "init_command": "SET sql_mode = 'TRADITIONAL', time_zone = '+00:00'",
}


def _find_mysql_driver() -> None:
    """Let Django's backend find PyMySQL, which is made without a compiler, where mysqlclient is not installed."""
    if find_spec("MySQLdb"):
        return
    try:
        import pymysql
    except ImportError:
        refuse("DATABASE_URL needs a driver for MySQL and MariaDB. Type pip install pymysql.")
    pymysql.install_as_MySQLdb()


def private(path: Path) -> Path:
    """Keep a SQLite file to its owner, from before there is anything in it; return *path*."""
    # SQLite gives the files beside it the same mode. A directory that cannot be written says so later.
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        for file in path.parent.glob(f"{path.name}*"):
            file.chmod(0o600)
    return path


def smtp_options(timeout: float) -> dict[str, Any] | None:
    """Return ``EMAIL_URL`` as options of Django's SMTP backend, None where it is not set."""
    value = text("EMAIL_URL")
    if not value:
        return None
    url = _split("EMAIL_URL", value)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    if url.scheme not in ("smtp", "smtps") or not url.hostname or set(query) - {"tls"}:
        refuse(
            "EMAIL_URL is not understood. Type for example EMAIL_URL=smtp://user:password@mail.example:587?tls=1"
        )
    tls = query.get("tls", "0").lower()
    if tls not in ON + OFF or not tls:
        refuse(
            "EMAIL_URL says neither yes nor no to tls. Type ?tls=1, or ?tls=0 for a line that anyone can read."
        )
    if url.scheme == "smtps" and tls in ON:
        refuse(
            "EMAIL_URL=smtps://… is TLS from the first byte and ?tls=1 begins it later. Type only one of them."
        )
    return {
        "host": url.hostname,
        "port": url.port or (465 if url.scheme == "smtps" else 25),
        "username": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "use_tls": tls in ON,
        "use_ssl": url.scheme == "smtps",
        "timeout": timeout,
    }


def postroom_settings(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``POSTROOM``: *defaults*, and each ``POSTROOM_<SETTING>`` that is a number or a word."""
    flag("POSTROOM_ACCOUNTS_LIMITS", True)
    known = {field.name: field.default for field in fields(Config)}
    settings = dict(defaults)
    for variable in sorted(os.environ):
        name = variable.removeprefix("POSTROOM_")
        if name == variable or variable in NOT_SETTINGS or name.startswith(("ACCOUNTS_", "TEST_")):
            continue
        if name not in known or not isinstance(known[name], (str, int, float)):
            refuse(f"{variable} is no setting.{_suggestion(name, known)}")
        settings[name] = _as_type_of(known[name], variable)
    if settings.get("DOORBELL") and "." not in settings["DOORBELL"] and settings["DOORBELL"] not in DOORBELLS:
        refuse(f"POSTROOM_DOORBELL={settings['DOORBELL']} is none of {', '.join(DOORBELLS)}.")
    return settings


def _as_type_of(default: object, variable: str) -> str | int | float:
    value = text(variable)
    if isinstance(default, str):
        return value
    try:
        number = float(value)
    except ValueError:
        refuse(f"{variable}={value} is no number. Type for example {variable}={default}")
    if not 0 < number < float("inf"):
        refuse(f"{variable}={value} is not more than 0. Type for example {variable}={default}")
    if variable.removeprefix("POSTROOM_") in WHOLE and not number.is_integer():
        refuse(f"{variable}={value} is no whole number. Type for example {variable}={default}")
    return int(number) if number.is_integer() else number


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean POSTROOM_{close[0]}?" if close else ""


def _split(name: str, value: str) -> Any:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises where the port is no number
    except ValueError:
        # The reason may quote a password.
        refuse(f"{name} is no URL. In a user or password / : @ ? and # are written %2F %3A %40 %3F and %23.")
    return parts


def new_secret() -> str:
    """Return 50 random characters."""
    return secrets.token_urlsafe(38)
