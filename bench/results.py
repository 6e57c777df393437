"""What a row says: figures with their samples, and the machine they come from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.figures import Interval

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a table."""

    name: str
    """Stable within its row."""

    label: str
    value: float | None
    """None: it could not be measured; ``note`` says why."""

    unit: str = ""
    low: float | None = None
    high: float | None = None
    target: float | None = None
    better: str = ""
    """``"more"`` or ``"less"``: on which side of the target it should be."""

    samples: list[Any] = field(default_factory=list)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.better == "more" else self.value <= self.target


@dataclass(slots=True, kw_only=True)
class Row:
    """One question and the figures that answer it."""

    name: str
    title: str
    figures: list[Figure]
    seconds: float = 0.0
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as ``results.json`` holds it."""
        figures = [{**asdict(figure), "met": figure.met} for figure in self.figures]
        return {
            "name": self.name,
            "title": self.title,
            "seconds": round(self.seconds, 1),
            "error": self.error,
            "figures": figures,
        }


def figure(name: str, label: str, interval: Interval, samples: Sequence[Any] = (), **more: Any) -> Figure:
    """Make a figure of a median and its interval."""
    return Figure(
        name=name,
        label=label,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        samples=list(samples),
        **more,
    )


def machine() -> dict[str, Any]:
    """Return the facts without which no number means anything."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {
            name: _version(name) for name in ("django", "django-anymail", "pycurl", "psycopg", "celery")
        },
        "git": _git("rev-parse", "HEAD"),
        "git_changed": changed(ROOT),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "executable": Path(sys.executable).name,
        "load_before": list(os.getloadavg()),
    }


def changed(root: Path) -> bool:
    """Whether the code that is measured differs from the commit that is named, new files included."""
    return bool(_git("status", "--porcelain", "--", "src", "bench", "example", root=root))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git(*command: str, root: Path | None = None) -> str:
    done = subprocess.run(["git", *command], capture_output=True, text=True, check=False, cwd=root or ROOT)
    return done.stdout.strip()
