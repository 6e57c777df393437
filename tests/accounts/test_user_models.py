"""The whole path with other user models, and the accounts on database servers: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]


RULES = [f"tests/accounts/test_{module}.py" for module in ("registration", "verification", "signin")]


def run_tests(*paths: str, settings: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", *paths, f"--ds={settings}", "-q"]
    path_of_code = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path_of_code, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("model", ["by_email", "by_uuid", "by_handle"])
def test_the_path_works_with_another_user_model(model: str):
    run_tests("tests/users/path.py", settings=f"tests.users.{model}.settings")


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_twenty_at_once_on_a_server(request: pytest.FixtureRequest, server: str):
    """The run itself does it on SQLite; here writers do not wait for each other by themselves."""
    database = request.getfixturevalue(server).create_database()

    run_tests("tests/accounts/test_parallel.py", settings="tests.settings", POSTROOM_TEST_DATABASE=database)


def test_the_rules_hold_on_mariadb(request: pytest.FixtureRequest):
    """Its comparisons know neither case nor accents; whose address is whose is decided before it is asked."""
    database = request.getfixturevalue("mariadb").create_database()

    run_tests(*RULES, settings="tests.settings", POSTROOM_TEST_DATABASE=database)
