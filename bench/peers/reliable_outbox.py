"""django-reliable-outbox with a job that sends one letter: four threads, a lease of 5 s."""

from __future__ import annotations

import threading
from typing import Any

from bench.peers import frame

frame.configure(["reliable_outbox"])

from anymail.backends.brevo import EmailBackend  # noqa: E402
from reliable_outbox import job  # noqa: E402
from reliable_outbox.models import OutboxMessage  # noqa: E402

from bench import letters  # noqa: E402

_thread = threading.local()


@job(retries=5, backoff="exponential", name="bench.letter")
def letter(number: int) -> None:
    """Send one letter, over a connection that its thread keeps open."""
    backend: Any = getattr(_thread, "backend", None)
    if backend is None:
        backend = _thread.backend = EmailBackend()
        backend.open()
    backend.send_messages([letters.message(number)])


def enqueue(number: int) -> None:
    """Put one job into its table."""
    letter.enqueue(number)


def left() -> int:
    """Return how many it has not sent."""
    return OutboxMessage.objects.exclude(status="delivered").count()


if __name__ == "__main__":
    frame.main(enqueue, left)
