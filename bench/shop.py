"""
``python -m bench.shop``: the example's registration view, called in this process.

The twin *without mail* does all the same but ``outbox.enqueue``: it gets a row that is there already.
Passwords are hashed by MD5 where the view's own cost is the question, since Argon2's 50 ms and more
would hide a millisecond; by Argon2 where the question is what its time tells.
"""

from __future__ import annotations

import os
import time
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import hashers  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from bench import talk  # noqa: E402
from postroom import outbox  # noqa: E402
from postroom.models import OutboundEmail  # noqa: E402

settings.ALLOWED_HOSTS = ["*"]
enqueue = outbox.enqueue
twin: list[OutboundEmail] = []


def migrate() -> dict[str, Any]:
    """Make the tables."""
    call_command("migrate", verbosity=0)
    return {}


def hash_with(argon2: bool) -> dict[str, Any]:
    """Choose how passwords are hashed from now on."""
    name = "Argon2PasswordHasher" if argon2 else "MD5PasswordHasher"
    settings.PASSWORD_HASHERS = [f"django.contrib.auth.hashers.{name}"]
    hashers.get_hashers.cache_clear()  # type: ignore[attr-defined]
    hashers.get_hashers_by_algorithm.cache_clear()  # type: ignore[attr-defined]
    return {}


def register(address: str, mail: bool = True) -> dict[str, Any]:
    """Post the form and return how long the answer took, in ms."""
    if not twin:
        twin.append(enqueue("bench.none", {}, due_at=None, expires_in=None))
    outbox.enqueue = enqueue if mail else (lambda *args, **kwargs: twin[0])
    client = Client(HTTP_HOST=settings.SITE_URL.partition("://")[2])
    began = time.perf_counter()
    answer = client.post(
        "/accounts/register/",
        {"email": address, "password": "correct horse battery staple"},
        secure=settings.SITE_URL.startswith("https"),
    )
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 303:
        raise RuntimeError(f"registration answered {answer.status_code}: {answer.content[:300]!r}")
    return {"ms": took}


if __name__ == "__main__":
    talk.serve({"migrate": migrate, "hash_with": hash_with, "register": register})
