"""What the supervisor says, word for word; what happens between is the narrator's."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from example import loopback
from example.processes import Ended, how_it_ended


def real_mail(settings: Any) -> str:
    """Return the first line of a shop whose e-mails reach people; empty where they do not."""
    to_play = "and to real people. To play:"
    if settings.BREVO_API_KEY and not loopback.is_loopback(settings.BREVO_API_URL or "https://api.brevo.com"):
        return f"REAL MAIL: BREVO_API_KEY is set, so e-mails go to Brevo {to_play} BREVO_API_KEY= make run"
    if settings.BREVO_API_URL and not loopback.is_loopback(settings.BREVO_API_URL):
        host = urlsplit(settings.BREVO_API_URL).hostname
        return f"REAL MAIL: BREVO_API_URL is set, so e-mails go to {host} {to_play} BREVO_API_URL= make run"
    if settings.SMTP and not loopback.is_loopback(f"//{settings.SMTP['host']}"):
        return f"REAL MAIL: EMAIL_URL is set, so e-mails go to {settings.SMTP['host']} {to_play} EMAIL_URL= make run"
    return ""


def nothing_leaves(settings: Any) -> bool:
    """Whether the provider is played: only then does no e-mail leave this machine."""
    return not settings.BREVO_API_KEY and not settings.SMTP and loopback.is_loopback(settings.PROVIDER_URL)


def set_up(name: str, text: str, seconds: float) -> str:
    """Return one of the lines that count up while the shop is set up."""
    return f"  {name:<10}  {text:<39}{max(round(seconds), 1):>2} s"


def open_now(settings: Any, *, pids: dict[str, int], operator: str, is_new: bool) -> str:
    """
    Return the addresses, the processes and what to try; *operator* is how to log in as one.

    Says that nothing leaves this machine only where the provider is played.
    """
    url, plays = os.environ["SITE_URL"] + "/", "provider" in pids
    lines = [
        f"{'The shop is open. ' if is_new else ''}{'Nothing leaves this machine. ' if plays else ''}Ctrl-C closes it.",
        "",
        f"  shop       {url:<34} start here: register{' with any address' if plays else ''}",
    ]
    if settings.DEBUG:
        lines.append(f"  mailbox    {url + 'mailbox/':<34} every e-mail of the shop ends up here")
        lines.append(f"  operator   {url + 'postroom/':<34} {operator}")
    at_once = settings.POSTROOM.get("CONCURRENCY", 32)
    lines += ["", f"  web        pid {pids['web']:<7} answers, never sends"]
    lines.append(f"  worker     pid {pids['worker']:<7} sends, {at_once} at once, no broker needed")
    if plays:
        needs = "plays Brevo; needs 3 s an e-mail (other moods: in the mailbox)"
        lines.append(f"  provider   pid {pids['provider']:<7} {needs}")
    # Nobody is asked to kill what sends e-mails to real people.
    if loopback.is_loopback(settings.PROVIDER_URL):
        lines += ["", 'Now break it: register, and while the page says "Sending", run', ""]
        lines.append(f"    kill -9 {pids['worker']}")
    return "\n".join([*lines, ""])


def open_again(seconds: float, emails: int, waiting: int) -> str:
    """Return the first line of every start but the first."""
    return f"postroom: the shop is open again ({seconds:.0f} s). {e_mails(emails)} in the outbox, {waiting} waiting."


def last_words(ended: Ended) -> str:
    """Say which process ended at the start and what it printed last."""
    words = "\n".join(f"  {line}" for line in ended.child.last_words) or "  (nothing)"
    return (
        f"{ended.child.name} {how_it_ended(ended.code)}. Its last words:\n{words}\n"
        "The other processes were stopped."
    )


def closed_at_once(in_hand: int) -> str:
    """Return the last line after a second Ctrl-C."""
    if not in_hand:
        return "closing at once. Nothing was in hand."
    was, them = ("was", "it") if in_hand == 1 else ("were", "them")
    return (
        f"closing at once: {e_mails(in_hand)} {was} in hand; "
        f"the next start takes {them} back and asks the provider by key."
    )


def e_mails(number: int) -> str:
    """Count e-mails in words."""
    return f"{number} e-mail" if number == 1 else f"{number} e-mails"


def outcomes(states: list[str]) -> str:
    """Say what became of the e-mails that were in hand."""
    accepted = states.count("accepted")
    if accepted == len(states):
        return "accepted"
    rest = len(states) - accepted
    return f"{accepted} accepted, {rest} left for the next start" if accepted else "left for the next start"
