"""
``python -m tests.chaos``: a storm over workers on a database of your choice, and what was left of the mail.

Prints a table and the seed; exit code 1 where a promise was broken. The database and the
provider are its own and end with it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Let the storm go and return the exit code."""
    chosen = _arguments(argv)
    _set_up()
    from tests.chaos.storm import Plan, rage
    from tests.journeys.stage import set_stage

    plan = Plan(
        kills=chosen.kills,
        workers=chosen.workers,
        mails=chosen.mails,
        seed=secrets.randbelow(10**6) if chosen.seed is None else chosen.seed,
        keyed=chosen.keys,
    )
    print(
        f"{plan.kills} kills over {plan.workers} workers and {plan.letters} e-mails or more on {chosen.database}, "
        f"{'with' if plan.keyed else 'without'} idempotency keys, seed {plan.seed}",
        flush=True,
    )
    with (
        tempfile.TemporaryDirectory(prefix="postroom-chaos-") as folder,
        _database(chosen.database, Path(folder)) as url,
        set_stage(Path(folder), url) as stage,
    ):
        outcome = rage(stage, plan)
        if chosen.keep_logs:
            _keep(stage.folder, Path(chosen.keep_logs))
    for name, value in rows(outcome):
        print(f"  {name:<44} {value}")
    for sentence in outcome.judgement.violations[:40]:
        print(f"BROKEN  {sentence}")
    print("broken" if outcome.judgement.violations else "sound", f"(seed {plan.seed})")
    return 1 if outcome.judgement.violations else 0


def rows(outcome: object) -> list[tuple[str, object]]:
    """Return the table of *outcome*."""
    from tests.chaos.storm import Outcome

    assert isinstance(outcome, Outcome)
    found = outcome.judgement
    return [
        ("kills", outcome.kills),
        ("workers frozen beyond their lease", outcome.freezes),
        ("e-mails promised", found.promised),
        ("lost", len(found.lost)),
        ("unexpected", len(found.unexpected)),
        ("arrived twice", found.twice),
        ("taken by the provider", found.taken),
        ("accepted, by our own tables", found.states["accepted"]),
        ("uncertain", found.states["uncertain"]),
        ("  of these never taken", found.uncertain_and_not_taken),
        ("failed / cancelled", f"{found.states['failed']} / {found.states['cancelled']}"),
        ("claims", found.claims),
        ("calls to the provider", found.calls),
        ("attempts without a known answer", found.unanswered),
        ("  of these put in doubt", found.in_doubt),
        ("e-mails marked uncertain for a time", found.marked),
        ("in hand when their worker died", found.rescued),
        ("seconds of storm", f"{outcome.storm_seconds:.1f}"),
        ("seconds from the last kill to the last settled", f"{outcome.settle_seconds:.1f}"),
        ("broken promises", len(found.violations)),
    ]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mariadb"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--mails", type=int, default=0, help="twenty a kill unless given")
    parser.add_argument("--seed", type=int, help="drawn, and printed, unless given")
    parser.add_argument(
        "--keys", action=argparse.BooleanOptionalAction, default=True, help="a provider that knows repeats"
    )
    parser.add_argument("--keep-logs", metavar="FOLDER", default="", help="copy every log there")
    return parser.parse_args(argv)


def _set_up() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    from tests import servers

    if name == "sqlite":
        yield f"sqlite://{folder / 'outbox.sqlite3'}"
        return
    with getattr(servers, name)() as server:
        yield server.create_database()


def _keep(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        (target / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
