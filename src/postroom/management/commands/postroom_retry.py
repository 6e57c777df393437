"""Send after all what was given up, many at once."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import datetime, time, timedelta
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import DatabaseError
from django.db.models import Count, Max, Min
from django.utils import timezone
from django.utils.dateparse import parse_datetime, parse_time

from postroom import byhand, ops, outbox
from postroom.failures import redact
from postroom.management.base import DatabaseCommand
from postroom.models import OutboundEmail, OutboundEmailQuerySet, State
from postroom.ops.questions import database
from postroom.ops.words import clock, number, person, this_person

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

GROUPS_SHOWN: Final = 20
"""Lines of ``--dry-run``: the largest groups."""


class Command(DatabaseCommand):
    """Retry by kind, time, reason and state; ``--dry-run`` shows what it would be."""

    help = (
        "Send after all what was given up: after the cause is mended. What certainly did not go out cannot arrive "
        "twice by this; with --state uncertain it can. Look first with --dry-run. May be stopped at any time and "
        "repeated. Exit code: 0 done (or nothing to do), 2 not understood, or the database refuses."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--kind", metavar="KIND", help="only e-mails of this kind: shop.order_confirmation"
        )
        parser.add_argument(
            "--since",
            metavar="WHEN",
            help="only those that were given up since then: 2h, 30m, 02:05 (the latest), 2026-11-24T02:05",
        )
        parser.add_argument(
            "--reason", metavar="R", help="only those with this reason, as --dry-run shows them"
        )
        parser.add_argument(
            "--state",
            choices=[str(state) for state in byhand.RETRYABLE],
            default=str(State.FAILED),
            help="failed (default); cancelled; uncertain: each of these may arrive twice",
        )
        parser.add_argument(
            "--actor", metavar="NAME", help="who does this, for the history (default: user@host)"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what it would be, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        since = _instant(options["since"]) if options["since"] else None
        if not (options["dry_run"] or options["kind"] or options["reason"] or since):
            raise CommandError(
                "That would be everything that was ever given up. Say which: --kind, --since or --reason; "
                "to see what there is: --dry-run",
                returncode=2,
            )
        done = 0
        try:
            rows = _chosen(options["kind"], since, options["reason"], options["state"])
            matching = rows.count()
            if not matching:
                self._tell_there_is_none(options, since)
            elif options["dry_run"]:
                self._show(rows, matching, options["state"])
            else:
                for some in byhand.retry_all(rows, actor=options["actor"] or this_person()):
                    done += some
                self._tell(done, matching - done, options["state"])
        except DatabaseError as error:
            said = redact(str(error), limit=200)
            told = f"{_emails(done, 'waits', 'wait')} again; then the database refused: {said}. Repeat the command."
            raise CommandError(told if done else f"Nothing was retried ({said}).", returncode=2) from None
        except KeyboardInterrupt:
            told = f"Stopped: {_emails(done, 'waits', 'wait')} again. Repeat the command for the rest."
            raise CommandError(told, returncode=130) from None

    def _tell_there_is_none(self, options: dict[str, Any], since: datetime | None) -> None:
        """Nothing matches: a typing error in a name must not look like good news."""
        state = options["state"]
        rows = _chosen(None, None, None, state)
        for name in ("kind", "reason"):
            there = dict(rows.order_by().values_list(name).annotate(Count("pk")))
            if options[name] and options[name] not in there and there:
                known = ", ".join(f"{word or '(none)'} ({number(n)})" for word, n in sorted(there.items()))
                text = f"No {state} e-mail has the {name} {options[name]!r}. There are: {known}."
                raise CommandError(text, returncode=2)
        chosen = f" since {clock(since)}" if since else ""
        self.stdout.write(f"Nothing to retry: no e-mail is {state} as asked for{chosen}.")

    def _show(self, rows: OutboundEmailQuerySet, matching: int, state: str) -> None:
        self.stdout.write(f"{_emails(matching, 'would wait', 'would wait')} again. Nothing was changed.")
        groups = (
            rows.order_by()
            .values("kind", "reason")
            .annotate(n=Count("pk"), first=Min("settled_at"), last=Max("settled_at"))
        )
        for group in groups.order_by("-n", "kind")[:GROUPS_SHOWN]:
            first, last = clock(group["first"]), clock(group["last"])
            when = first if first == last else f"{first} to {last}"
            self.stdout.write(
                f"  {number(group['n']):>7}  {group['kind']}  {group['reason'] or '(none)'}  {state} {when}"
            )
        self._warn(matching, state)

    def _tell(self, done: int, left: int, state: str) -> None:
        self.stdout.write(f"{_emails(done, 'waits', 'wait')} again.")
        if left > 0:
            self.stdout.write(f"{number(left)} had changed meanwhile and stayed as they were.")
        self._warn(done, state)
        if pause := outbox.paused():
            who = person(pause.actor)
            self.stdout.write(f"Sending is paused by {who}. To go on: python manage.py postroom_resume")
        elif not any(worker.is_alive for worker in ops.workers()):
            self.stdout.write("No delivery process is running. Start one: python manage.py postroom_worker")

    def _warn(self, n: int, state: str) -> None:
        if n and state == State.UNCERTAIN:
            self.stdout.write("Each of them may have gone out already, and would then arrive a second time.")


def _chosen(
    kind: str | None, since: datetime | None, reason: str | None, state: str
) -> OutboundEmailQuerySet:
    rows = OutboundEmail.objects.using(database()).filter(state=state)
    if kind:
        rows = rows.filter(kind=kind)
    if reason:
        rows = rows.filter(reason=reason)
    return rows.filter(settled_at__gte=since) if since else rows


def _emails(n: int, one: str, many: str) -> str:
    return f"{number(n)} e-mail {one}" if n == 1 else f"{number(n)} e-mails {many}"


def _instant(text: str) -> datetime:
    """Return the instant that *text* means, in the active zone; raises CommandError."""
    now = timezone.now()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    try:
        if match:
            return now - timedelta(**{UNITS[match[2]]: float(match[1])})
        when = parse_datetime(text) or _latest(parse_time(text))
    except (ValueError, OverflowError):
        when = None
    if when is None:
        text = f"--since {text!r} is no time. Say 2h, 30m, 02:05 or 2026-11-24T02:05."
        raise CommandError(text, returncode=2)
    when = when if timezone.is_aware(when) else timezone.make_aware(when)
    if when > now:
        raise CommandError(f"--since {text} has not come yet: it is {clock(now, now)}.", returncode=2)
    return when


def _latest(time_of_day: time | None) -> datetime | None:
    """Return when it was that time last: today, or yesterday."""
    if time_of_day is None:
        return None
    today = timezone.make_aware(datetime.combine(timezone.localdate(), time_of_day.replace(tzinfo=None)))
    return today if today <= timezone.now() else today - timedelta(days=1)
