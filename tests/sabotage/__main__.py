"""
``python -m tests.sabotage [WORD]``: try every sabotage, or those with WORD in their name.

Each on a copy of its own, with the few tests that have to notice. First the same tests have to
be green without any. Exit code 1 if a sabotage survives, or if a patch no longer applies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.sabotage.patches import SABOTAGES, DoesNotApplyError, Sabotage

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "example", "pyproject.toml", "manage.py")
TIME_LIMIT_SECONDS = 300
"""For one run of pytest; a test that waits for what the sabotage took away ends sooner by itself."""

GREEN, RED = 0, 1
"""Pytest's exit codes; every other one says that the tests could not be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What pytest said about a copy."""

    exit_code: int
    said: str
    seconds: float

    @property
    def is_proof(self) -> bool:
        """Whether every test began: an error on the way there is none of a test's doing."""
        failed, stopped = (re.search(f"^{word} ", self.said, re.MULTILINE) for word in ("FAILED", "ERROR"))
        return not stopped and (self.exit_code == GREEN or (self.exit_code == RED and failed is not None))

    def is_red(self, test: str) -> bool:
        """Whether *test*, or one case of it, failed."""
        return re.search(rf"^FAILED {re.escape(test)}(?=[\[\s]|$)", self.said, re.MULTILINE) is not None


def main(words: list[str]) -> int:
    """Try the sabotages with one of *words* in their names, all where there is none; return the exit code."""
    chosen = [one for one in SABOTAGES if not words or any(word in one.name for word in words)]
    if not chosen:
        print(f"No sabotage is called like that. There are: {', '.join(one.name for one in SABOTAGES)}")
        return 1
    with scratch_copy() as copy:
        unharmed = run(copy, {test for one in chosen for test in one.tests})
    if unharmed.exit_code != GREEN:
        print(f"{unharmed.said}\nThe tests are not green without a sabotage, so red would prove nothing.")
        print(f"0 passed, {len(chosen)} failed")
        return 1
    print(f"{'green':<10}without a sabotage  {unharmed.seconds:.1f} s", flush=True)
    caught = sum(is_caught(sabotage) for sabotage in chosen)
    print(f"{caught} passed, {len(chosen) - caught} failed")
    return 0 if caught == len(chosen) else 1


def is_caught(sabotage: Sabotage) -> bool:
    """Try one, print its line, and return whether every test that should notice did."""
    try:
        with scratch_copy() as copy:
            sabotage.apply(copy / "src" / "postroom")
            harmed = run(copy, sabotage.tests)
    except DoesNotApplyError as error:
        print(f"STALE     {error}", flush=True)
        return False
    silent = [test for test in sabotage.tests if not harmed.is_red(test)]
    if not harmed.is_proof:
        print(harmed.said)
    verdict = ("SURVIVED" if silent else "caught") if harmed.is_proof else "NOT RUN"
    shown = (silent or sabotage.tests)[0]
    print(f"{verdict:<10}{sabotage.name:<36}{shown}  {harmed.seconds:.1f} s", flush=True)
    return verdict == "caught"


@contextmanager
def scratch_copy() -> Iterator[Path]:
    """Copy what the tests need of the checkout; gone with the block."""
    with tempfile.TemporaryDirectory(prefix="postroom-sabotage-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "var"))
            else:
                shutil.copy(source, copy / name)
        yield copy


def run(copy: Path, tests: Iterable[str]) -> Run:
    """Run *tests* on the package in *copy*."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rfE", *sorted(tests)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    # Before whatever postroom is installed. Nothing is compiled twice, so nothing need be kept.
    paths = {"PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=inherited | paths,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Run(exit_code=-1, said=f"not within {TIME_LIMIT_SECONDS} s", seconds=TIME_LIMIT_SECONDS)
    return Run(exit_code=done.returncode, said=done.stdout, seconds=time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
