"""What every accident ends with: the checker of the storm, put before the stage that is left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from postroom.models import OutboundEmail
from tests.chaos.checker import Judgement, judge, read
from tests.journeys.stage import ALIAS, Stage


def assert_sound(
    stage: Stage, promised: Iterable[OutboundEmail | str] | None = None, **known: Any
) -> Judgement:
    """
    Fail with every broken promise, and return the figures.

    *promised* are the e-mails, or their UUIDs, whose transactions committed; without it those that
    the table still has. The provider's log judges what was sent; no process may have logged an address.
    """
    names = stage.emails() if promised is None else promised
    judgement = judge(
        read(
            ALIAS,
            stage.provider.calls(),
            acknowledged=frozenset(str(one.uuid) if isinstance(one, OutboundEmail) else one for one in names),
            logs={process.log.name: process.said() for process in (*stage.processes, stage.provider.process)},
            **known,
        )
    )
    judgement.assert_sound()
    return judgement
