"""An environment of its own for each peer, made once under ``var/bench`` with pip and kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def python_of(oldest: tuple[int, int]) -> str:
    """Return a Python that is new enough: this one where it is; raises LookupError."""
    if sys.version_info >= oldest:
        return sys.executable
    for minor in range(oldest[1], oldest[1] + 4):
        for found in (
            f"python{oldest[0]}.{minor}",
            *Path.home().glob(f".pyenv/versions/{oldest[0]}.{minor}.*/bin/python3"),
        ):
            try:
                done = subprocess.run([str(found), "-c", ""], capture_output=True, check=False)
            except OSError:
                continue
            if not done.returncode:
                return str(found)
    raise LookupError(f"there is no Python {oldest[0]}.{oldest[1]} or newer on this machine")


def environment(name: str, requirements: Sequence[str], var: Path, python_from: str = sys.executable) -> Path:
    """Return the Python of the environment that holds *requirements* and nothing else; made where missing."""
    stamp = hashlib.sha256("\n".join([python_from, sys.version, *requirements]).encode()).hexdigest()[:8]
    home = var / "environments" / f"{name}-{stamp}"
    python = home / "bin" / "python"
    done = home / "complete"
    if not done.exists():
        subprocess.run([python_from, "-m", "venv", "--clear", str(home)], check=True, capture_output=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requirements,
        ]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise OSError(f"{name} cannot be installed: {made.stderr.strip()[-400:]}")
        done.touch()
    return python
