"""
The sentences that a visitor reads about an e-mail, as data.

Owns which situation is called what and how it is told (SAYS), the labels of the steps, and how
instants and waits are put into words. Which situation an e-mail is in, ``status.py`` decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from django.utils import formats, timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Says:
    """What one situation is called and how it is told; *bare* where the text names what is not known."""

    word: str
    detail: str
    headline: str | Promise
    body: str | Promise = ""
    bare_headline: str | Promise = ""
    bare_body: str | Promise = ""
    error_code: str | None = None


_REJECTED_BODY = _("The mailbox does not exist or refuses mail. Check the spelling or use another address.")
_REJECTED = (
    _("{address} cannot receive our email"),
    _REJECTED_BODY,
    _("This address cannot receive our email"),
)

SAYS: Final[Mapping[str, Says]] = {
    "queued": Says(
        "pending",
        "queued",
        _("Preparing your email"),
        _("Your message to {address} is saved and will go out in a moment. You can leave this page."),
        bare_body=_("Your message is saved and will go out in a moment. You can leave this page."),
    ),
    "scheduled": Says(
        "pending",
        "queued",
        _("Your email is saved"),
        _("Your message to {address} goes out {wait}. You can leave this page."),
        bare_body=_("Your message goes out {wait}. You can leave this page."),
    ),
    "late": Says(
        "pending",
        "late",
        _("This takes longer than usual"),
        _(
            "Your message to {address} is saved. "
            "It goes out as soon as our mail service runs again; you need not stay."
        ),
        bare_body=_(
            "Your message is saved. It goes out as soon as our mail service runs again; you need not stay."
        ),
    ),
    "delayed": Says(
        "pending",
        "delayed",
        _("Our mail service is not available"),
        _(
            "Your message to {address} is saved. "
            "We send it as soon as the service is back. You can close this page."
        ),
        bare_body=_(
            "Your message is saved. We send it as soon as the service is back. You can close this page."
        ),
    ),
    "sending": Says("pending", "sending", _("Sending…")),
    "slow": Says(
        "pending",
        "slow",
        _("Still handing it over"),
        _("This takes longer than usual. You need not do anything."),
    ),
    "retrying": Says(
        "pending",
        "retrying",
        _("Still trying to send"),
        _("Our mail service did not take the message yet. We try again {wait}; you need not do anything."),
    ),
    "composing": Says(
        "pending",
        "retrying",
        _("Still preparing your email"),
        _("Something on our side went wrong. We try again {wait}; you need not do anything."),
    ),
    "again": Says("pending", "again", _("Trying once more"), _("Nothing had gone out; we try again now.")),
    "again_in_doubt": Says(
        "pending",
        "again",
        _("Trying once more"),
        _("We could not tell whether the first one went out. If two arrive, either is good."),
    ),
    "repeating": Says(
        "pending",
        "uncertain",
        _("Checking whether it went out"),
        _(
            "We handed the message over but got no receipt. "
            "We find out by ourselves; you need not do anything."
        ),
    ),
    "uncertain": Says(
        "pending",
        "uncertain",
        _("Checking whether it went out"),
        _(
            "We handed the message over but got no receipt. "
            "If it does not arrive in a few minutes, ask for another one. If two arrive, either is good."
        ),
    ),
    "withdrawn": Says(
        "pending",
        "withdrawn",
        _("This message was not sent"),
        _("It was stopped before it went out."),
    ),
    "accepted": Says(
        "sent",
        "accepted",
        _("Email sent"),
        _("Our mail service took the message for {address} at {at}. It usually arrives within a minute."),
        bare_body=_("Our mail service took the message. It usually arrives within a minute."),
    ),
    "accepted_quiet": Says(
        "sent",
        "accepted",
        _("Email sent"),
        _(
            "Our mail service took the message for {address} at {at}. "
            "That no word of its arrival has come back yet is normal."
        ),
        bare_body=_(
            "Our mail service took the message. That no word of its arrival has come back yet is normal."
        ),
    ),
    "accepted_unreported": Says(
        "sent",
        "accepted",
        _("Email sent"),
        _("Our mail service took the message at {at}. We are not told when it arrives."),
        bare_body=_("Our mail service took the message. We are not told when it arrives."),
    ),
    "deferred": Says(
        "sent",
        "deferred",
        _("Your mail provider asks us to wait"),
        _("{domain} has not taken the message yet. It is retried automatically."),
        bare_body=_("It has not taken the message yet. It is retried automatically."),
    ),
    "soft_bounced": Says(
        "sent",
        "delayed",
        _("Your mail provider has not taken it yet"),
        _("{domain} refused the message for now. It may still arrive; if not, use another address."),
        bare_body=_("It refused the message for now. It may still arrive; if not, use another address."),
    ),
    "delivered": Says(
        "sent",
        "delivered",
        _("It has arrived at {domain}"),
        _("Look in the inbox, then spam or promotions."),
        bare_headline=_("It has arrived at your mail provider"),
    ),
    "complained": Says(
        "sent",
        "complained",
        _("This address asked us not to write"),
        _("Use another address."),
    ),
    "soft_bounced_for_good": Says(
        "failed",
        "bounced",
        _("Your mail provider did not take our email"),
        _("{domain} refused the message for three days. Use another address."),
        bare_body=_("It refused the message for three days. Use another address."),
        error_code="address_rejected",
    ),
    "bounced": Says("failed", "bounced", *_REJECTED, error_code="address_rejected"),
    "refused": Says("failed", "refused", *_REJECTED, error_code="blocked"),
    "rejected": Says("failed", "refused", *_REJECTED, error_code="address_rejected"),
    "broken": Says(
        "failed",
        "broken",
        _("Our mail service could not deliver the email"),
        _("It had taken the message but did not pass it on. This is our fault."),
        error_code="not_sent",
    ),
    "failed": Says(
        "failed",
        "failed",
        _("We could not send the email"),
        _("Nothing was sent to you. This is our fault."),
        error_code="not_sent",
    ),
    "expired": Says(
        "failed",
        "expired",
        _("This message came too late"),
        _("It could not go out in time, so we did not send it."),
        error_code="not_sent",
    ),
    "expired_link": Says(
        "failed",
        "expired",
        _("This message came too late"),
        _("Its link would no longer work, so we did not send it."),
        error_code="not_sent",
    ),
    "verified": Says("completed", "verified", _("Your address is confirmed"), _("You can log in now.")),
}
"""Every situation of an e-mail and what is said in it."""

ERRORS: Final[Mapping[str, str | Promise]] = {
    "not_sent": _("The message could not be sent."),
    "address_rejected": _("The address does not accept our message."),
    "blocked": _("The address does not accept our message."),
}
"""
A sentence for each error code. Bounced and refused read the same, so that nobody learns whom we
have blocked.
"""

STEPS: Final[Mapping[str, str | Promise]] = {
    "saved": _("Saved"),
    "sent": _("Sent"),
    "arrived": _("Arrived"),
    "confirmed": _("Confirmed"),
}

STEP_STATES: Final[Mapping[str, str | Promise]] = {
    "done": _("done"),
    "now": _("next"),
    "todo": _("not yet"),
    "failed": _("failed"),
}


def fill(text: str | Promise, bare: str | Promise, values: Mapping[str, str]) -> str:
    """Return *text* with its *values*, or *bare* where one of those that it names is not known."""
    if bare and any(not value and f"{{{name}}}" in str(text) for name, value in values.items()):
        text = bare
    return str(text).format(**values)


def clock(instant: datetime, now: datetime, time_zone: tzinfo | str | None) -> str:
    """
    Return the time of day, with the date unless it is today's.

    In the visitor's own zone the bare time; where that is not known, or its name is none, in the
    active zone and with the name of it.
    """
    zone = zone_named(time_zone) if isinstance(time_zone, str) else time_zone
    local = timezone.localtime(instant, zone)
    text = f"{local:%H:%M}" if zone else f"{local:%H:%M %Z}"
    if local.date() == timezone.localtime(now, zone).date():
        return text
    return gettext("{time} on {date}").format(time=text, date=formats.date_format(local, "DATE_FORMAT"))


def zone_named(name: str) -> tzinfo | None:
    """Return the zone that a browser named, or None for what is no zone."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def wait(seconds: float) -> str:
    """Return how long it will be, in words that stay true while they are read."""
    if seconds <= 3:
        return gettext("in a moment")
    if seconds < 90:
        count = math.ceil(seconds / 5) * 5
        return ngettext("in {count} second", "in {count} seconds", count).format(count=count)
    if seconds < 90 * 60:
        count = math.ceil(seconds / 60)
        return ngettext("in {count} minute", "in {count} minutes", count).format(count=count)
    if seconds < 36 * 3600:
        count = math.ceil(seconds / 3600)
        return ngettext("in {count} hour", "in {count} hours", count).format(count=count)
    count = math.ceil(seconds / 86400)
    return ngettext("in {count} day", "in {count} days", count).format(count=count)
