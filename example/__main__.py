"""``python -m example``: the whole shop in one terminal. Says what is missing before it needs it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {"django": "django", "anymail": "django-anymail", "uvicorn": "uvicorn"}


def main() -> int:
    """Check what Python can do, then open the shop; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the sentence is for those who have an older one
        version = ".".join(map(str, sys.version_info[:3]))
        return complain(f"postroom needs Python 3.11 or newer; this is {version}.")
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        return complain(f"postroom's shop needs {', '.join(missing)}. Type: make run")
    if find_spec("postroom") is None:
        # Not installed: the package beside this one.
        sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))
    from example.supervisor import run

    return run()


def complain(sentence: str) -> int:
    """Print one sentence where errors belong and return the exit code for it."""
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
