"""
Situations of the delivery processes: none is running (D10), one is alive but stuck (D12), or steps over
what somebody else has locked (D21), or dies of an e-mail (D61).
"""

from __future__ import annotations

from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from postroom.ops.diagnosis import Diagnosis, Level
from postroom.ops.facts import CAP, Facts, Killer, Worker
from postroom.ops.locks import LOOKED_AT
from postroom.ops.phrases import backlog, people, sections, stale_ones
from postroom.ops.words import ago, clock, duration, number
from postroom.outbox import POISON_LOSSES


def no_worker(facts: Facts) -> Diagnosis | None:
    """D10: nobody delivers. Killed, said goodbye, or never heard of."""
    if facts.alive or facts.is_between_runs:
        return None
    last = facts.workers[0] if facts.workers else None
    return Diagnosis(
        code="D10",
        level=Level.STOPPED,
        headline=_("No delivery process is running."),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [_last_heard(last, facts.now)]),
            (_("People"), people(facts)),
            (_("Do"), _start(facts)),
            (_("Then"), _resumes(facts)),
            (_("Look"), _where_it_died(last)),
            (_("Looked at"), [_looked_at(facts)]),
        ),
    )


def _last_heard(last: Worker | None, now: datetime) -> str:
    if last is None:
        return _("No worker has ever been heard on this database.")
    beat = last.beat
    if beat.stopped_at:
        text = _("The last worker, {name}, said goodbye at {at} ({ago}).")
        told = text.format(name=beat.name, at=clock(beat.stopped_at, now), ago=ago(beat.stopped_at, now))
        return (
            f"{told} {_('Its reason: {reason}.').format(reason=beat.stop_reason)}"
            if beat.stop_reason
            else told
        )
    version = _(" (version {version})").format(version=beat.version) if beat.version else ""
    return ngettext(
        "The last worker, {name}{version}, was heard at {at} ({ago}) and said no goodbye: killed, frozen,"
        " out of memory, or the host is gone. {n} e-mail is still in its hands.",
        "The last worker, {name}{version}, was heard at {at} ({ago}) and said no goodbye: killed, frozen,"
        " out of memory, or the host is gone. {n} e-mails are still in its hands.",
        last.held,
    ).format(
        name=beat.name,
        version=version,
        at=clock(beat.seen_at, now),
        ago=ago(beat.seen_at, now),
        n=number(last.held),
    )


def _start(facts: Facts) -> list[str]:
    """Name the command; where nobody came for hours, the two between which only a person can choose."""
    plain = "python manage.py postroom_worker"
    if not facts.stale:
        return [_("{command}        (safe at any time, any number)").format(command=plain)]
    return [
        _("{command} --release-stale        (unless a backup was restored: sends all that waits)").format(
            command=plain
        ),
        _("{command}        (after a restore: sets aside what may have gone out already)").format(
            command=plain
        ),
    ]


def _resumes(facts: Facts) -> list[str]:
    lines = []
    if facts.in_hand:
        lines.append(
            ngettext(
                "The {n} in hand is taken back first: closed if a report proves it, else repeated if that is safe.",
                "The {n} in hand are taken back first: closed if a report proves them, else repeated if that is safe.",
                facts.in_hand,
            ).format(n=number(facts.in_hand))
        )
    if facts.due:
        lines.append(
            ngettext(
                "The {n} that is due follows at once.",
                "The {n} that are due follow, the urgent first.",
                facts.due,
            ).format(n=number(facts.due, cap=CAP))
        )
    if facts.later:
        lines.append(
            ngettext(
                "The {n} that is due later goes out when its time comes.",
                "The {n} that are due later go out when their time comes.",
                facts.later,
            ).format(n=number(facts.later, cap=CAP))
        )
    if facts.stale:
        lines.append(stale_ones(facts))
    return lines


def _where_it_died(last: Worker | None) -> list[str]:
    if last is None or last.state != "silent":
        return []
    host = last.beat.host or last.beat.name.rpartition("/")[0]
    text = _("on {host}: journalctl -u 'postroom-*' -n 50; dmesg -T | grep -i 'killed process'")
    return [text.format(host=host)]


def _looked_at(facts: Facts) -> str:
    return _(
        "{database} ({ms} ms). Did you start a worker that is not listed? Then it looks at another database:"
        " compare its first line with this one."
    ).format(database=facts.database, ms=f"{facts.database_ms:.0f}")


def stuck_worker(facts: Facts) -> Diagnosis | None:
    """D12: alive, but its loop does not come round. Only then STOPPED when no other one turns."""
    stuck = [worker for worker in facts.alive if worker.state == "stuck"]
    if not stuck:
        return None
    all_stuck = len(stuck) == len(facts.alive)
    return Diagnosis(
        code="D12",
        level=Level.STOPPED if all_stuck else Level.LATE,
        headline=ngettext(
            "{n} of {all} delivery process is alive but stuck.",
            "{n} of {all} delivery processes are alive but stuck.",
            len(facts.alive),
        ).format(n=len(stuck), all=len(facts.alive)),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [_no_turn(worker, facts.now) for worker in stuck]),
            (_("People"), people(facts)),
            (_("Do"), [_stop(worker) for worker in stuck] + [_("python manage.py postroom_worker")]),
            (_("Then"), _resumes(facts)),
            (_("Not"), [_("do not start another one instead: the stuck one keeps what it has in hand.")]),
        ),
    )


def _no_turn(worker: Worker, now: datetime) -> str:
    beat = worker.beat
    since = beat.last_turn_at or beat.started_at
    text = _("{name} is alive (heartbeat {seen}) but has not finished a turn for {time}")
    told = text.format(
        name=beat.name, seen=ago(beat.seen_at, now), time=duration((now - since).total_seconds())
    )
    return told + (_(": it is in {doing}.").format(doing=beat.doing) if beat.doing else ".")


def _stop(worker: Worker) -> str:
    host, _slash, pid = worker.beat.name.rpartition("/")
    return _("on {host}: kill {pid}; if it stays, kill -9 {pid} is safe").format(
        host=worker.beat.host or host, pid=worker.beat.pid or pid
    )


def locked_rows(facts: Facts) -> Diagnosis | None:
    """D21: overdue e-mails are locked by a session that is no worker; all workers step over them in silence."""
    if not facts.stepped_over:
        return None
    lock = facts.row_lock
    unknown = [_("The database does not show us who: a transaction that was begun and is not ended.")]
    return Diagnosis(
        code="D21",
        level=Level.LATE,
        headline=ngettext(
            "{n} due e-mail is locked by somebody else and is stepped over.",
            "{n} due e-mails are locked by somebody else and are stepped over.",
            facts.stepped_over,
        ).format(n=number(facts.stepped_over, cap=LOOKED_AT)),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), list(lock.why) if lock else unknown),
            (_("People"), people(facts)),
            (_("Do"), [_("ask whoever it is to end the transaction; else:"), *lock.do] if lock else []),
            (_("Then"), [_("They go out at once.")]),
            (_("Not"), [_("do not restart workers: they are well, and go out of its way.")]),
        ),
    )


def worker_killer(facts: Facts) -> Diagnosis | None:
    """D61: workers die with the same e-mail in hand, again and again."""
    if not facts.killers:
        return None
    worst = facts.killers[0]
    return Diagnosis(
        code="D61",
        level=Level.LATE,
        headline=_("E-mail {id} ({kind}) has lost {n} delivery processes.").format(
            id=worst.short_id, kind=worst.kind, n=worst.losses
        ),
        summary=(backlog(facts),),
        sections=sections(
            (_("Why"), [_killed(killer, facts.now) for killer in facts.killers[:3]]),
            (
                _("People"),
                [_("What was in hand beside it is repeated with its keys, or held as uncertain.")],
            ),
            (
                _("Do"),
                [
                    _("find out what kills: dmesg -T | grep -i 'killed process' on the host named above."),
                    _("then mend the composer of {kind}, or give the worker memory.").format(kind=worst.kind),
                ],
            ),
            (
                _("Then"),
                [
                    _(
                        "It is tried alone, and given up as uncertain after {n} losses; all others go on."
                    ).format(n=POISON_LOSSES)
                ],
            ),
            (_("Not"), [_("do not retry it before it is mended: a retry forgets the losses.")]),
        ),
    )


def _killed(killer: Killer, now: datetime) -> str:
    text = _("{id} ({kind}) lost {n} workers, {worker} the latest, taken back at {at}. Now: {state}.")
    return text.format(
        id=killer.short_id,
        kind=killer.kind,
        n=killer.losses,
        worker=killer.worker or "?",
        at=clock(killer.last, now),
        state=killer.state,
    )
