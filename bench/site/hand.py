"""``python -m bench.site.hand``: what the harness does with postroom, by its public functions."""

from __future__ import annotations

import os
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.site.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import Count  # noqa: E402

from bench import letters, talk  # noqa: E402
from bench.site import emails  # noqa: E402
from postroom import delivery, outbox  # noqa: E402
from postroom.ledger import Result  # noqa: E402
from postroom.models import UNSETTLED, DeliveryEvent, OutboundEmail, State  # noqa: E402


def migrate() -> dict[str, Any]:
    """Make the tables."""
    call_command("migrate", verbosity=0)
    return {}


def enqueue(count: int, start: int = 0, kind: str = "letter", atomic: bool = False) -> dict[str, Any]:
    """Enqueue letters one at a time, each in autocommit or all in one transaction."""
    composer = getattr(emails, kind)
    began = time.perf_counter()
    if atomic:
        with transaction.atomic():
            for number in range(start, start + count):
                composer.enqueue(number=number)
    else:
        for number in range(start, start + count):
            composer.enqueue(number=number)
    return {"seconds": time.perf_counter() - began}


def bulk(count: int, start: int = 0, lane: str = "normal", kind: str = "letter") -> dict[str, Any]:
    """Enqueue letters in one go; ``bulk`` says whether by bulk_enqueue, which a version may lack."""
    composer = getattr(emails, kind)
    numbers = ({"number": number} for number in range(start, start + count))
    if not hasattr(composer, "bulk_enqueue"):
        return enqueue(count, start, kind, atomic=True) | {"bulk": False}
    began = time.perf_counter()
    composer.using(lane=lane).bulk_enqueue(numbers)
    return {"seconds": time.perf_counter() - began, "bulk": True}


def one(number: int, kind: str = "letter") -> dict[str, Any]:
    """Enqueue one letter; the instant is taken right before and right after the commit."""
    composer = getattr(emails, kind)
    before = time.monotonic()
    composer.enqueue(number=number)
    return {"before": before, "committed_at": time.monotonic()}


def settled(seconds: float = 60) -> dict[str, Any]:
    """Wait until nothing is unsettled, then tell how the e-mails ended and how many events were written."""
    deadline = time.monotonic() + seconds
    while OutboundEmail.objects.filter(state__in=UNSETTLED).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    states = dict(OutboundEmail.objects.values_list("state").annotate(Count("pk")))
    return {"states": states, "left": sum(states.get(state, 0) for state in UNSETTLED)}


def events() -> dict[str, Any]:
    """Tell how many events of each type there are."""
    return {"types": dict(DeliveryEvent.objects.values_list("type").annotate(Count("pk")))}


def accepted() -> dict[str, Any]:
    """Tell how many were accepted."""
    return {"count": OutboundEmail.objects.filter(state=State.ACCEPTED).count()}


def clear() -> dict[str, Any]:
    """Empty the tables."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("TRUNCATE postroom_outboundemail CASCADE")
        else:
            DeliveryEvent.objects.all().delete()
            OutboundEmail.objects.all().delete()
    return {}


def query(sql: str) -> dict[str, Any]:
    """Run one statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return {"rows": cursor.fetchall() if cursor.description else []}


COPY = """
INSERT INTO {table} ({names}) SELECT {values} FROM {table} AS one, generate_series({first}, {last}) AS n
WHERE one.id = {id} {more}
"""


def grow(rows: int, state: str, lane: int = 1) -> dict[str, Any]:
    """
    Fill the table with copies of one e-mail: ``pending``, or ``accepted`` with the events it had.

    The first one went the public way. PostgreSQL only.
    """
    one_email = emails.letter.using(lane={0: "urgent", 1: "normal", 2: "bulk"}[lane]).enqueue(number=0)
    if state == "accepted":
        claim_and_settle(0)
    with connection.cursor() as cursor:
        first = one_email.pk + 1
        changed = {
            "id": "n",
            "uuid": "gen_random_uuid()",
            "args": "jsonb_build_object('number', n)",
            "message_id": "one.message_id || n" if state == "accepted" else "one.message_id",
        }
        cursor.execute(_copy(OutboundEmail, changed, first, first + rows - 2, f"{one_email.pk}"))
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('postroom_outboundemail', 'id'), %s)", [first + rows]
        )
        for event in list(DeliveryEvent.objects.filter(email=one_email).values_list("pk", flat=True)):
            changed = {
                "id": "nextval(pg_get_serial_sequence('postroom_deliveryevent', 'id'))",
                "email_id": "n",
            }
            cursor.execute(_copy(DeliveryEvent, changed, first, first + rows - 2, f"{event}"))
        cursor.execute("VACUUM ANALYZE postroom_outboundemail")
        cursor.execute("VACUUM ANALYZE postroom_deliveryevent")
    return {"rows": OutboundEmail.objects.count()}


def _copy(model: Any, changed: dict[str, str], first: int, last: int, one: str) -> str:
    names = [field.column for field in model._meta.concrete_fields]
    values = [changed.get(name, f'one."{name}"') for name in names]
    return COPY.format(
        table=model._meta.db_table,
        names=", ".join(f'"{name}"' for name in names),
        values=", ".join(values),
        first=first,
        last=last,
        id=one,
        more="",
    )


def claim_and_settle(count: int) -> dict[str, Any]:
    """Enqueue letters, then claim and settle what is due, without sending; the time of the second, a mail."""
    with transaction.atomic():
        for number in range(count):
            emails.letter.enqueue(number=number)
    began, done = time.perf_counter(), 0
    while claimed := outbox.claim(100, worker="bench/1", mailer="provider", keyed=True):
        done += len(claimed)
        results = [
            Result(
                email=email,
                message_id=f"<{email.pk}@bench>",
                recipient=letters.address(email.pk),
                duration_ms=1,
            )
            for email in claimed
        ]
        delivery.settle(results)
    return {"ms": (time.perf_counter() - began) / max(done, 1) * 1000, "count": done}


if __name__ == "__main__":
    talk.serve(
        {
            "migrate": migrate,
            "enqueue": enqueue,
            "bulk": bulk,
            "one": one,
            "settled": settled,
            "events": events,
            "accepted": accepted,
            "clear": clear,
            "grow": grow,
            "claim_and_settle": claim_and_settle,
            "query": query,
        }
    )
