"""
``python -m tests.chaos.forks``: starts workers that need not import anything any more.

A worker of Django's costs a second of CPU before its first look at the table, and here two hundred
are killed. So one process imports everything once, opens nothing, and forks: each child runs
``postroom_worker`` like any other, with a log of its own. Commands come by standard input, a line
each: ``start LOG``, ``kill PID``, ``stop PID``, ``freeze PID``, ``thaw PID``, ``quit``. The answer
is a line of JSON that also names the children that ended without being told to.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from datetime import timedelta
from typing import Any, NoReturn

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGTERM,
    "freeze": signal.SIGSTOP,
    "thaw": signal.SIGCONT,
}
PRELOADED = (
    "anymail.backends.brevo",
    "postroom.management.commands.postroom_worker",
    "postroom.worker",
    "tests.journeys.emails",
)
WHERE_INSTALLED = ("pycurl", "greenlet", "psycopg", "postroom.carrier", "postroom.senders")

REPEAT_WITHOUT_KEY = timedelta(seconds=2)
"""The outbox waits ten minutes before the one repeat without a key; no storm lasts as long."""


def main() -> None:
    """Serve until ``quit`` or the end of the input; then everything that was forked dies too."""
    import importlib

    import django

    django.setup()
    for name in PRELOADED:
        importlib.import_module(name)
    for name in WHERE_INSTALLED:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    outbox = importlib.import_module("postroom.outbox")
    outbox.REPEAT_WITHOUT_KEY = REPEAT_WITHOUT_KEY  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()
    alive: dict[int, str] = {}
    _answer({"ready": True})
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb == "quit":
            break
        _answer(_obey(verb, argument, alive))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _obey(verb: str, argument: str, alive: dict[int, str]) -> dict[str, Any]:
    ended = _reap(alive)
    if verb == "start":
        pid = os.fork()
        if not pid:
            _be_a_worker(argument)
        alive[pid] = argument
        return {"pid": pid, "ended": ended}
    pid = int(argument)
    if pid in alive:
        os.kill(pid, SIGNALS[verb])
        if verb in ("kill", "stop"):
            _, status = os.waitpid(pid, 0)
            del alive[pid]
            return {"status": os.waitstatus_to_exitcode(status), "ended": ended}
    return {"status": None, "ended": ended}


def _reap(alive: dict[int, str]) -> list[str]:
    """Name those that ended by themselves."""
    gone = []
    for pid, log in list(alive.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            del alive[pid]
            gone.append(f"{log} ended by itself, exit code {os.waitstatus_to_exitcode(status)}")
    return gone


def _be_a_worker(log: str) -> NoReturn:
    from django.core.management import execute_from_command_line

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        execute_from_command_line(["manage.py", "postroom_worker"])
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the log has to say it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _answer(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
