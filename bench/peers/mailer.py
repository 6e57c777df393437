"""django-mailer, as it comes: one process, one after the other, a lock file a host."""

from __future__ import annotations

import os

from bench.peers import frame

frame.configure(
    ["mailer"],
    EMAIL_BACKEND="mailer.backend.DbBackend",
    MAILER_EMAIL_BACKEND="anymail.backends.brevo.EmailBackend",
    MAILER_LOCK_PATH=os.environ["BENCH_LOCK"],
    MAILER_EMPTY_QUEUE_SLEEP=1,
)

from mailer.models import Message  # noqa: E402

from bench import letters  # noqa: E402


def enqueue(number: int) -> None:
    """Put one letter into its table."""
    letters.message(number).send()


def left() -> int:
    """Return how many it has not sent."""
    return Message.objects.count()


if __name__ == "__main__":
    frame.main(enqueue, left)
