"""``python -m example``: the whole shop in one terminal. Says what is missing before it needs it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {"django": "django", "anymail": "django-anymail", "uvicorn": "uvicorn"}

USAGE = """\
python -m example, or: make run
  opens the shop; Ctrl-C closes it. It takes no arguments but the environment:
  make run PORT=9001      or, without make: PORT=9001 python -m example
  .env.example lists every variable."""


def main(arguments: list[str]) -> int:
    """Check what Python can do, then open the shop; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the sentence is for those who have an older one
        version = ".".join(map(str, sys.version_info[:3]))
        return complain(f"postroom needs Python 3.11 or newer; this is {version}.")
    if arguments and {*arguments} <= {"-h", "--help"}:
        print(USAGE)
        return 0
    if arguments:
        return complain(not_understood(arguments))
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        return complain(f"postroom's shop needs {', '.join(missing)}. Type: make run")
    if find_spec("postroom") is None:
        # Not installed: the package beside this one.
        sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))
    from example.supervisor import run

    return run()


def not_understood(arguments: list[str]) -> str:
    """Return the sentence for arguments, of which the shop has none, with what to type instead."""
    name, _, value = " ".join(arguments).lstrip("-").replace("=", " ").partition(" ")
    port = (value if name.lower() in ("p", "port") else name).strip()
    instead = f"make run PORT={port if port.isdecimal() else 9001}"
    said = " ".join(arguments)
    return f"postroom: the shop takes no arguments, only variables ({said!r}). For another port: {instead}"


def complain(sentence: str) -> int:
    """Print one sentence where errors belong and return the exit code for it."""
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
