"""Commands as an operator runs them: in this process, or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.management import CommandError, call_command

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: Any, **options: Any) -> tuple[int, str]:
    """The exit code of a command, and what it printed on both outputs."""
    out = StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=out, **options)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def arguments_of(*arguments: str, settings: str, folder: Path) -> dict[str, Any]:
    """What ``subprocess`` needs to run a command with *settings* added to those of the tests."""
    (folder / "night.py").write_text(f"from tests.settings import *\n{settings}\n")
    return {
        "args": [sys.executable, "-m", "django", *arguments],
        "env": {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "night",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src"), str(ROOT)]),
        },
        "text": True,
    }


def manage(*arguments: str, settings: str, folder: Path) -> tuple[int, str, float]:
    """Run a command in a process of its own: exit code, what it printed, seconds."""
    began = time.monotonic()
    ended = subprocess.run(
        **arguments_of(*arguments, settings=settings, folder=folder),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr, time.monotonic() - began
