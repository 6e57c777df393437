"""
Attempts as tests play them: promise, take, answer, and look what the table says.

Each verb takes the alias of a database, so that one test serves all of them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from postroom import outbox, testing
from postroom.failures import FailureClass, Fate, Verdict
from postroom.ledger import Result
from postroom.models import DeliveryEvent, OutboundEmail

WORKER, MAILER = "host/1", "provider"


def verdict(
    fate: Fate, failure: FailureClass, *, strike: bool = True, retry_after: float | None = None
) -> Verdict:
    """What ``judge`` might say."""
    return Verdict(
        failure=failure,
        fate=fate,
        strike=strike,
        retry_after=retry_after,
        detail="told by a test",
        fingerprint="f00df00df00d",
    )


NO_ANSWER = verdict(Fate.DOUBT, FailureClass.UNCERTAIN)
NOT_NOW = verdict(Fate.RESCHEDULE, FailureClass.TRANSIENT)
RATE_LIMITED = verdict(Fate.RESCHEDULE, FailureClass.RATE_LIMITED, strike=False, retry_after=30)
NEVER = verdict(Fate.FAIL, FailureClass.PERMANENT_MESSAGE)
KEY_KNOWN = verdict(Fate.DUPLICATE, FailureClass.DUPLICATE)


def put(database: str, **options: Any) -> OutboundEmail:
    """Promise an e-mail."""
    return outbox.enqueue("tests.letter", {"n": 1}, using=database, **options)


def take(database: str, limit: int = 1, *, keyed: bool = True, **options: Any) -> list[OutboundEmail]:
    """Claim what is due."""
    chosen = {"worker": WORKER, "mailer": MAILER, **options}
    return outbox.claim(limit, keyed=keyed, using=database, **chosen)


def put_and_take(database: str, *, keyed: bool = True, **options: Any) -> OutboundEmail:
    """Promise an e-mail and claim that very one."""
    email = put(database, **options)
    return take_again(email, keyed=keyed)


def take_again(email: OutboundEmail, *, keyed: bool = True, **options: Any) -> OutboundEmail:
    """Claim this e-mail, due or not."""
    (taken,) = take(str(email._state.db), keyed=keyed, only=email.pk, **options)
    return taken


def answer(email: OutboundEmail, says: Verdict | None = None, **fields: Any) -> Result:
    """How the attempt ended: with *says*, or with an acceptance."""
    return Result(email=email, verdict=says, recipient="ada@example.com", **fields)


def lose_worker(email: OutboundEmail) -> OutboundEmail:
    """Let the lease of a claimed e-mail run out and take it back."""
    using = str(email._state.db)
    let_time_pass(using, timedelta(minutes=1))
    outbox.rescue(worker="host/2", using=using)
    return table(email)


def table(email: OutboundEmail) -> OutboundEmail:
    """Return the row as the table has it now."""
    return OutboundEmail.objects.using(str(email._state.db)).get(pk=email.pk)


def history(email: OutboundEmail) -> list[str]:
    """Return the events of an e-mail in their order, as ``type:state after it``."""
    events = DeliveryEvent.objects.using(str(email._state.db)).filter(email=email).order_by("pk")
    return [f"{event.type}:{event.state}" for event in events]


def let_time_pass(database: str, duration: timedelta) -> None:
    """Make every row of *database* older, as if the clock had gone on."""
    testing.let_time_pass(duration, using=database)
