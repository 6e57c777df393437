"""
What a visitor waits for the mail: the view that queues one against its twin that does not.

For each illness of the provider and of the broker. A worker runs beside it.
"""

from __future__ import annotations

import importlib.util
import itertools
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.figures import abba, paired_difference
from bench.results import Figure, figure
from bench.rows import Options
from bench.stage import Stage
from bench.talk import Child

SITE = {
    "SECRET_KEY": "bench-9f3d1c7a5b2e8d4f6a0c9b8e7d6f5a4c3b2a1d0e",
    "SITE_URL": "https://shop.example",
    "DEFAULT_FROM_EMAIL": "shop@example.com",
    "DEBUG": "off",
    "BREVO_API_KEY": "bench",
    "BREVO_WEBHOOK_SECRET": "hook:secret",
    "POSTROOM_ACCOUNTS_LIMITS": "off",
    "POSTROOM_LOAD_TEST": "1",
    "ALLOWED_HOSTS": "shop.example",
}
PROVIDERS = {"provider at 0 s": 0.0, "provider at 30 s": 30.0, "provider dead": -1.0}
BROKERS = {"Redis up": "up", "Redis refused": "refused", "Redis hanging": "hanging"}


@contextmanager
def shop(stage: Stage, *, delay: float, broker: str = "") -> Iterator[Child]:
    """Run the shop in one process and a worker beside it, with a provider and a broker of that health."""
    with ExitStack() as parts:
        provider = parts.enter_context(stage.provider())
        provider.reset(delay=delay)
        more = dict(SITE)
        if broker:
            more |= {
                "POSTROOM_DOORBELL": "celery",
                "CELERY_BROKER_URL": parts.enter_context(_broker(stage, broker)),
            }
        env = stage.environment(provider, stage.empty_database(), **more)
        dead = "https://127.0.0.1:9/v3/"
        env |= {
            "BREVO_API_URL": dead if delay < 0 else stage.url(provider),
            "DJANGO_SETTINGS_MODULE": "example.settings",
        }
        child = parts.enter_context(stage.child([sys.executable, "-m", "bench.shop"], name="shop", env=env))
        child.ask("migrate")
        worker = {**env, "POSTROOM_DOORBELL": "notify"}
        parts.enter_context(stage.worker(worker))
        yield child


@contextmanager
def _broker(stage: Stage, health: str) -> Iterator[str]:
    if health == "up":
        with stage.redis() as url:
            yield url
    else:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            if health == "hanging":  # the kernel takes the connection, nobody ever answers
                listener.listen(1000)
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def ask(stage: Stage, options: Options) -> list[Figure]:
    """Answer with two figures a case: what is usual, and the worst."""
    cases = [(name, delay, "") for name, delay in PROVIDERS.items()]
    with_celery = importlib.util.find_spec("celery") and importlib.util.find_spec("postroom.tasks")
    if with_celery:
        cases += [(name, 0.0, health) for name, health in BROKERS.items()]
    found: list[Figure] = []
    for name, delay, broker in cases:
        with shop(stage, delay=delay, broker=broker) as child:
            child.ask("hash_with", argon2=False)
            found += _case(name, child, options.pairs(500, 25))
    if not with_celery:
        found.append(
            Figure(
                name="broker",
                label="with a broker",
                value=None,
                note="no Celery doorbell in this version or environment",
            )
        )
    return found


def _case(name: str, child: Child, pairs: int) -> list[Figure]:
    numbers = itertools.count()

    def post(mail: bool) -> float:
        return float(child.ask("register", address=f"p{next(numbers)}@example.com", mail=mail)["ms"])

    for _ in range(10):
        post(True), post(False)
    ours, theirs = abba(lambda: post(True), lambda: post(False), pairs)
    key = name.replace(" ", "_").lower()
    usual = paired_difference(ours, theirs)
    return [
        figure(
            f"{key}_median", f"{name}: median of the paired differences", usual,
            [[round(a, 3), round(b, 3)] for a, b in zip(ours, theirs, strict=True)],
            unit="ms", target=3, better="less",
        ),
        Figure(
            name=f"{key}_worst", label=f"{name}: worst of {pairs}, less the worst without mail",
            value=max(ours) - max(theirs), unit="ms", target=100, better="less",
        ),
    ]  # fmt: skip
