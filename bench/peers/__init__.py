"""Others that do the same work, each in an environment of its own, as it comes and as its README says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COMMON = ("django==5.2.19", "django-anymail==15.2", "psycopg[binary]==3.3.9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How one of them is installed and run. All send through Anymail's Brevo backend but the original."""

    name: str
    requirements: Sequence[str]
    sender: Sequence[str]
    """Arguments of its sending process."""

    once: bool
    """Whether the sender ends by itself when it has nothing to do, and is started again by a timer."""

    broker: bool = False
    oldest_python: tuple[int, int] = (3, 11)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="post_office",
            requirements=[*COMMON, "django-post-office==3.12.0"],
            sender=["send_queued_mail"],
            once=True,
        ),
        Peer(
            name="mailer",
            requirements=[*COMMON, "django-mailer==2.3.2"],
            sender=["send_mail"],
            once=True,
        ),
        Peer(
            name="reliable_outbox",
            requirements=[*COMMON, "django-reliable-outbox==0.1.1"],
            sender=["outbox_worker", "--concurrency", "4", "--lease", "5"],
            once=False,
            oldest_python=(3, 12),
        ),
        Peer(
            name="celery_task",
            requirements=[*COMMON, "celery[redis]==5.7.0", "redis==8.1.0", "requests==2.34.2"],
            sender=["--worker--"],
            once=False,
            broker=True,
        ),
    )
}
