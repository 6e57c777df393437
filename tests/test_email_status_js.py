"""email-status.js under node's own runner: its clock, its network and its page are moved by the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parent / "js"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_script_keeps_its_promises() -> None:
    """The tests are in ``tests/js``; each is a sentence there."""
    run = subprocess.run(
        [str(shutil.which("node")), "--test", "--test-reporter=spec", str(JS / "email_status.test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "tests 0" not in run.stdout
