"""
The e-mails about accounts.

Their arguments name an attempt and nothing else: what a message says, and its link, is decided
when it is written, and no secret lies in the outbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.utils import timezone
from django.utils.translation import ngettext

from postroom import Withdraw, composer, render, site_name, site_url
from postroom.accounts import usermodel, verification
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.routes import url

if TYPE_CHECKING:
    from datetime import timedelta

    from django.core.mail import EmailMessage


# "repeat": a second copy does no harm, its link is the same.
@composer("accounts.verification", lane="urgent", on_uncertain="repeat")
def verification_email(registration_id: str) -> EmailMessage:
    """The link that confirms the address, to the address as this attempt spelt it."""
    registration = _attempt(registration_id)
    try:
        if verification.is_confirmed(registration):
            raise Withdraw("verified")
    except verification.LinkExpired as error:
        raise Withdraw("expired") from error
    site = urlsplit(site_url())
    context = {
        "link": verification.link(registration),
        "valid_for": in_words(registration.expires_at - registration.created_at),
        "valid_until": registration.expires_at,
        # What templates of the original design ask for.
        "user": registration.user,
        "uid": verification.uid(registration),
        "token": verification.token(registration),
        "domain": site.netloc,
        "protocol": site.scheme,
    }
    return _message("verification", context, to=registration.address)


@composer("accounts.already_registered", lane="urgent", on_uncertain="repeat")
def already_registered_email(registration_id: str) -> EmailMessage:
    """
    Tell the owner of an account that somebody tried to register with its address.

    Goes to the address that the account has, never to the spelling that was typed.
    """
    registration = _attempt(registration_id)
    address = _address_of_account(registration.canonical)
    if address is None:
        raise Withdraw("account_gone")
    context = {"login_url": site_url() + url("login")}
    return _message("already_registered", context, to=address)


def in_words(duration: timedelta) -> str:
    """Return *duration* in hours, or in minutes where it is under two hours, in the active language."""
    minutes = round(duration.total_seconds() / 60)
    if minutes < 120:
        return ngettext("%(count)d minute", "%(count)d minutes", minutes) % {"count": minutes}
    hours = round(minutes / 60)
    return ngettext("%(count)d hour", "%(count)d hours", hours) % {"count": hours}


def _attempt(registration_id: str) -> Registration:
    """Return the attempt; one that was purged, or went with its account, gets no message."""
    try:
        return Registration.objects.select_related("user").get(pk=registration_id)
    except Registration.DoesNotExist as error:
        raise Withdraw("registration_gone") from error


def _address_of_account(canonical: str) -> str | None:
    row = AccountEmail.objects.filter(canonical=canonical).first()
    if row is not None:
        return row.address
    column = usermodel.email_field()
    owners = usermodel.accounts_naming(canonical)
    return getattr(owners[0], column) if owners and column is not None else None


def _message(name: str, context: dict[str, Any], *, to: str) -> EmailMessage:
    context |= {
        "site_name": site_name(),
        "site_url": site_url(),
        "address": to,
        "zone": timezone.get_current_timezone_name(),
    }
    return render(f"postroom/accounts/emails/{name}", context, to=[to])
