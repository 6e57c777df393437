"""What deploy/ offers can be copied: units that systemd takes, and commands that exist with the options they are given."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from http.client import HTTPConnection
from pathlib import Path

import pytest

from postroom.conf import Config
from tests.journeys.stage import eventually
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def unit(path: Path) -> RawConfigParser:
    parsed = RawConfigParser()
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text())
    return parsed


def services() -> dict[str, str]:
    """The services of the compose file, each with its text."""
    _head, _, rest = COMPOSE.partition("\nservices:\n")
    body = rest.partition("\nvolumes:\n")[0]
    parts = re.split(r"^  (\w+):$", body, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of deploy/ that starts something of ours: where it stands, and its words."""
    for path in UNITS:
        yield path.name, shlex.split(unit(path)["Service"]["ExecStart"])
    for line in (DEPLOY / "Procfile").read_text().splitlines():
        name, _, command = line.partition(":")
        yield f"Procfile {name}", shlex.split(command)
    for name, text in services().items():
        if found := re.search(r"^    command: \[(.+)\]$", text, re.MULTILINE):
            yield f"compose {name}", [word.strip().strip('"') for word in found[1].split(",")]
    yield "Dockerfile", json.loads((DEPLOY / "Dockerfile").read_text().rpartition("\nCMD ")[2])


COMMANDS = dict(commands())


@functools.cache
def help_of(*words: str) -> str:
    """What ``python WORDS --help`` prints; the three ways to deploy have most commands in common."""
    done = subprocess.run(
        [sys.executable, *words, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "PORT": "8000"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("where", COMMANDS)
def test_each_command_exists_with_every_option_that_it_is_given(where: str) -> None:
    python, *words = COMMANDS[where]
    assert Path(python).name == "python"

    text = help_of(*words)

    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in text


def test_each_kind_of_process_is_in_each_of_the_three() -> None:
    for sign in ("uvicorn", "postroom_worker", "worker --loglevel", "beat --loglevel"):
        wanted = [where for where, words in COMMANDS.items() if sign in " ".join(words)]
        assert {where.split()[0].partition("-")[0] for where in wanted} >= {"postroom", "Procfile", "compose"}


@pytest.mark.parametrize("where", ["compose web", "Procfile web"])
def test_the_web_believes_the_proxy_that_says_https(where: str, tmp_path: Path) -> None:
    """
    Neither proxy speaks from 127.0.0.1, the only address that uvicorn believes by itself: every page
    was redirected to https, and from there to itself for ever.
    """
    port = free_port()
    words = [word.replace("$PORT", str(port)) for word in COMMANDS[where][1:]]
    words[words.index("--port") + 1] = str(port)
    words[words.index("--host") + 1] = "127.0.0.1"
    production = {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "DEBUG": "off",
        "SITE_URL": "https://shop.example",
        "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
        "DEFAULT_FROM_EMAIL": "shop@shop.example",
        "BREVO_API_KEY": "none",
        "BREVO_WEBHOOK_SECRET": "hook:secret",
        "VAR_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    web = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, **production},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually("the web answers", lambda: status_from_elsewhere(port, "/healthz/live")) == 200
        assert status_from_elsewhere(port, "/accounts/login/") == 200
    finally:
        web.kill()
        web.wait()


def status_from_elsewhere(port: int, path: str) -> int:
    """The status of a page, asked from an address that is not 127.0.0.1; 0 while nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60, source_address=("127.0.0.2", 0))
    try:
        connection.request("GET", path, headers={"Host": "shop.example", "X-Forwarded-Proto": "https"})
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_whoever_delivers_is_given_longer_than_it_takes_to_stop() -> None:
    """A service manager that kills after ten seconds turns each deploy into e-mails in doubt."""
    stop = Config().STOP_SECONDS
    worker = unit(DEPLOY / "systemd" / "postroom-worker@.service")["Service"]
    grace = re.search(r"^    stop_grace_period: (\w+)$", services()["worker"], re.MULTILINE)

    assert seconds(worker["TimeoutStopSec"]) >= stop + 5
    assert grace
    assert seconds(grace[1]) >= stop + 5
    assert worker.get("KillSignal", "SIGTERM") == "SIGTERM"
    celery = unit(DEPLOY / "systemd" / "postroom-celery.service")["Service"]
    assert seconds(celery["TimeoutStopSec"]) >= 20 + Config().ATTEMPT_SECONDS


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_comes_back_after_every_end_and_is_started_with_the_host(path: Path) -> None:
    parsed = unit(path)

    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Install"]["WantedBy"] == "multi-user.target"
    assert "root" not in parsed["Service"].get("User", "root")


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="There is no systemd here: apt install systemd"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit(path: Path, tmp_path: Path) -> None:
    """Only what the machine of the test cannot have is replaced: the shop's Python, and its user."""
    text = path.read_text().replace("/srv/shop/.venv/bin/python", "/bin/true")
    copy = tmp_path / path.name.replace("@", "@1")
    copy.write_text(re.sub(r"^User=.*\n", "", text, flags=re.MULTILINE))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr, done.stderr


def test_the_compose_file_is_whole() -> None:
    """Its own reader is not at hand in the tests: shape, anchors and names are looked at one by one."""
    found = services()

    assert set(found) == {"database", "redis", "migrate", "web", "worker", "celery", "beat"}
    assert "\t" not in COMPOSE
    for line in COMPOSE.splitlines():
        assert (len(line) - len(line.lstrip())) % 2 == 0
        assert line.count("[") == line.count("]")
        assert line.count('"') % 2 == 0
    for name in set(found) - {"database", "redis"}:
        assert "    <<: *shop\n" in found[name]
        assert "    command: [" in found[name]
    for name, text in found.items():
        for other in re.findall(r"^      (\w+): \{ condition:", text, re.MULTILINE):
            assert other in found, f"{name} waits for {other}"
    assert (DEPLOY / re.search(r"dockerfile: deploy/(\w+)", COMPOSE)[1]).is_file()  # type: ignore[index]


def test_images_are_names_and_no_addresses() -> None:
    images = re.findall(r"^ +image: (\S+)$", COMPOSE, re.MULTILINE)
    images += re.findall(r"^FROM (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)

    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[a-z]+:[\w-]+(\.[\w-]+)?", image)


def test_the_image_copies_what_is_there() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()


def test_the_page_on_operations_names_every_unit() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()

    for path in UNITS:
        assert path.stem in page
