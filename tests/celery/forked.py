"""
What the pool of ``celery worker`` does beside the step: it forks while another thread is busy.

Each function ends the process with 0 where a child can do its work, and not where it would wait for
a lock whose owner was left behind in the parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import django
from django.core.mail.backends.base import BaseEmailBackend

CHILD_SECONDS = 20
busy, enough = threading.Event(), threading.Event()


class Slow(BaseEmailBackend):
    """Takes its time to be made, where the step makes it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        if threading.current_thread().name == "step":
            busy.set()
            enough.wait()


def while_a_mailer_is_made() -> NoReturn:
    """Fork while the step opens its mailer; the child opens one, too."""
    django.setup()
    from postroom.mailers import Mailer

    def make() -> None:
        Mailer("slow", {"BACKEND": f"{__name__}.{Slow.__name__}"}).backend  # noqa: B018 - made when asked for

    _fork_beside(make, make)


def while_the_tls_context_is_made() -> NoReturn:
    """Fork while the step loads the authorities; the child needs them, too."""
    django.setup()
    from postroom import mailers

    load = mailers._tls_context

    def slowly() -> Any:
        busy.set()
        enough.wait()
        return load()

    def make() -> None:
        mailers._tls_context = slowly  # type: ignore[assignment]
        mailers.shared_tls_context()

    def make_in_child() -> None:
        mailers._tls_context = load
        mailers.shared_tls_context()

    _fork_beside(make, make_in_child)


def before_the_first_fork() -> NoReturn:
    """Make the step, and then by hand what its thread makes; nothing may be left to import."""
    django.setup()
    from celery import Celery

    from postroom import tasks
    from postroom.worker import Worker

    app = Celery("site", broker="memory://", fixups=[])
    app.steps["worker"].add(tasks.Sweeper)
    app.Worker(pool="prefork", concurrency=1)
    before = set(sys.modules)
    worker = Worker(name="x/1-celery")
    worker._senders.stop()
    sys.exit(", ".join(sorted(set(sys.modules) - before)) or 0)


def _fork_beside(step: Callable[[], object], child: Callable[[], object]) -> NoReturn:
    threading.Thread(target=step, name="step", daemon=True).start()
    busy.wait()
    if not (pid := os.fork()):
        signal.alarm(CHILD_SECONDS)
        child()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    enough.set()
    sys.exit(os.waitstatus_to_exitcode(status))
