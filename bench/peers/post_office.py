"""django-post-office, as it comes: one process, five threads, a lock file a host."""

from __future__ import annotations

import os
import sys

from bench.peers import frame

frame.configure(
    ["post_office"],
    EMAIL_BACKEND="post_office.EmailBackend",
    POST_OFFICE={"BACKENDS": {"default": "anymail.backends.brevo.EmailBackend"}},
)

from post_office.models import STATUS, Email  # noqa: E402

from bench import letters  # noqa: E402


def enqueue(number: int) -> None:
    """Put one letter into its table."""
    letters.message(number).send()


def left() -> int:
    """Return how many it has not sent."""
    return Email.objects.exclude(status=STATUS.sent).count()


if __name__ == "__main__":
    if sys.argv[1] == "send_queued_mail":
        sys.argv += ["--lockfile", os.environ["BENCH_LOCK"]]
    frame.main(enqueue, left)
