"""``python -m bench.loop``: one Anymail backend, kept open, in a plain loop. The practical limit, without an outbox."""

from __future__ import annotations

import os
import time
from typing import Any

import django
from django.conf import settings

from bench import letters, talk

settings.configure(
    SECRET_KEY="bench",
    USE_TZ=True,
    INSTALLED_APPS=[],
    ANYMAIL={
        "BREVO_API_KEY": "bench",
        "BREVO_API_URL": os.environ["BENCH_PROVIDER_URL"],
        "REQUESTS_TIMEOUT": 60,
    },
)
django.setup()

from anymail.backends.brevo import EmailBackend  # noqa: E402

backend = EmailBackend()
backend.open()


def send(count: int, start: int = 0) -> dict[str, Any]:
    """Write and send *count* letters, one after the other."""
    began = time.perf_counter()
    for number in range(start, start + count):
        backend.send_messages([letters.message(number)])
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    talk.serve({"send": send})
