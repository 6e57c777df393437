"""
Delivery inside a web process in development, while no worker is heard of.

Owns who may begin it (``DEBUG`` only, one thread a database) and when it steps back.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from django.conf import settings
from django.db import router
from django.db.models import QuerySet
from django.utils import timezone

from postroom import delivery
from postroom.models import UNSETTLED, OutboundEmail, WorkerHeartbeat
from postroom.worker import Worker

logger = logging.getLogger("postroom")

HEARD_WITHIN_SECONDS = 60
"""A worker that wrote no heartbeat for longer is gone."""

SUFFIX = "-web"
"""Ends the name of a worker that lives in a web process."""


def is_heard(using: str | None = None) -> bool:
    """Whether a delivery process has written its heartbeat lately and said no goodbye."""
    return _heard(using or router.db_for_write(WorkerHeartbeat)).exists()


def deliver_while_nobody_does(using: str) -> None:
    """
    In development: deliver in a thread of this process while no worker is heard of.

    Called by the doorbell's thread after a commit; prints one line that says so.
    """
    with _embedded_lock:
        if _embedded.get(using) or not settings.DEBUG:
            return
        _embedded[using] = True
    threading.Thread(target=_embed, args=(using,), name="postroom-embedded", daemon=True).start()


def _embed(using: str) -> None:
    """Deliver while there is nobody else; a worker that died a moment ago still counts as heard."""
    name = f"{delivery.worker_name()}{SUFFIX}"
    try:
        while is_heard(using):
            if not OutboundEmail.objects.using(using).filter(state__in=UNSETTLED).exists():
                return
            time.sleep(HEARD_WITHIN_SECONDS / 30)
        logger.warning(
            "no worker is heard of, so this process delivers itself (DEBUG): manage.py postroom_worker"
        )
        Worker(using=using, concurrency=4, name=name, keep_on=lambda: not _somebody_else(using, name)).run()
    finally:
        _embedded[using] = False
        delivery.close_connections()


def _somebody_else(using: str, name: str) -> bool:
    """Whether a worker delivers, or another web process does: of those the first by name goes on."""
    others = [heard for heard in _heard(using).values_list("name", flat=True) if heard != name]
    return any(not other.endswith(SUFFIX) or other < name for other in others)


def _heard(using: str) -> QuerySet[WorkerHeartbeat]:
    lately = timezone.now() - timedelta(seconds=HEARD_WITHIN_SECONDS)
    return WorkerHeartbeat.objects.using(using).filter(seen_at__gte=lately, stopped_at__isnull=True)


_embedded: dict[str, bool] = {}
_embedded_lock = threading.Lock()
