"""
Marks the places of the worker's path: after the claim, and inside the transactions that write events.

``in the transaction of <event>`` is reached when the events of that type have been written and not
yet committed, whatever statement wrote them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created

from tests.journeys.perils import places

EVENTS = ("claimed", "accepted", "doubted", "rescheduled", "rescued")


class PerilsConfig(AppConfig):
    """Where a worker may die."""

    name = "tests.journeys.perils"
    label = "perils"

    def ready(self) -> None:
        from postroom import carrier, outbox

        if os.environ.get("JOURNEY_SENDERS") == "threads":
            carrier.is_available = lambda: False
        outbox.claim = _then("after the claim", outbox.claim)
        connection_created.connect(_watch, dispatch_uid="perils")


def _then(place: str, verb: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    @wraps(verb)
    def watched(*args: Any, **kwargs: Any) -> list[Any]:
        if found := verb(*args, **kwargs):
            places.reached(place)
        return found

    return watched


def _watch(connection: Any, **_: object) -> None:
    connection.execute_wrappers.append(_after_events)


def _after_events(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    answer = execute(sql, params, many, context)
    if sql.startswith("INSERT INTO") and "postroom_deliveryevent" in sql:
        for event in EVENTS:
            if event in _flat(params):
                places.reached(f"in the transaction of {event}")
    return answer


def _flat(params: Any) -> set[str]:
    """Every text among the parameters; psycopg gets whole columns as lists."""
    found: set[str] = set()
    for value in params or ():
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, (list, tuple)):
            found |= _flat(value)
    return found
