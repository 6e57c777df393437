"""
The link in the e-mail, and what using it does.

Tokens are *derived*, never stored: HMAC over the attempt with a key of this purpose alone. That
an attempt is used, over or void is asked of its row after the token has proved genuine, and is
never part of the token; so a used link can say "already activated" instead of "invalid".

A link alone confirms nothing. Scanners of mail servers follow links, run scripts and press
buttons; they do not hold the registering browser's session and do not know the password.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.hashers import verify_password
from django.db import router, transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from postroom import PostroomError, note, site_url
from postroom.accounts.models import AccountEmail, How, Registration
from postroom.accounts.routes import url
from postroom.accounts.usermodel import email_field, has_activity_flag

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from postroom.accounts.usermodel import Account

PURPOSE = "postroom.accounts.verification"
"""Names the key. A token made for another purpose never fits here."""

TOKEN_BYTES = 16


class LinkInvalid(PostroomError, ValueError):
    """No attempt goes with this link: garbled, foreign, or of an account that is gone."""


class LinkExpired(PostroomError, ValueError):
    """The link was genuine; its time is over, or another attempt for the address was confirmed."""


class WrongPassword(PostroomError, ValueError):
    """Neither the registering browser nor the password of this attempt: nothing proves the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The attempt has just become the account."""

    user: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyConfirmed:
    """The address was confirmed before; nothing was written."""


def uid(registration: Registration) -> str:
    """Return the attempt's name in its link, 22 characters."""
    return urlsafe_base64_encode(registration.id.bytes)


def token(registration: Registration) -> str:
    """Return the secret of the attempt's link, 22 characters; the same whenever it is asked for."""
    return _token(registration, settings.SECRET_KEY)


def link(registration: Registration) -> str:
    """Return the absolute link for the e-mail, below the site's configured URL."""
    return site_url() + url("activate", uid(registration), token(registration))


def check(uid: str, token: str) -> Registration:
    """Return the attempt that this link belongs to, whatever became of it; raises LinkInvalid."""
    try:
        identifier = uuid.UUID(bytes=urlsafe_base64_decode(uid))
        registration = Registration.objects.get(pk=identifier, user__isnull=False)
    except (ValueError, Registration.DoesNotExist) as error:
        raise LinkInvalid("This is not a link of ours.") from error
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if not any(constant_time_compare(token, _token(registration, key)) for key in keys):
        raise LinkInvalid("This is not a link of ours.")
    return registration


def is_confirmed(registration: Registration) -> bool:
    """Whether there is nothing left to confirm; raises LinkExpired where there is nothing to confirm any more."""
    row = _address(registration).select_related("user").first()
    if registration.consumed_at is not None or (row is not None and not row.is_free):
        return True
    if row is None or not registration.is_live:
        raise LinkExpired("The time of this link is over.")
    return False


def confirm(
    registration: Registration, *, password: str | None = None, registering_browser: bool = False
) -> Confirmed | AlreadyConfirmed:
    """
    Make the attempt's password the account's and its address confirmed; raises LinkExpired.

    The person is proved either by *registering_browser* (the caller has found the attempt in this
    browser's session) or by the *password* chosen at registration; otherwise raises WrongPassword.
    However many ask at once, one is answered Confirmed and the others AlreadyConfirmed.
    """
    if is_confirmed(registration):
        return AlreadyConfirmed()
    if not (registering_browser or has_password(registration, password)):
        raise WrongPassword("That is not the password chosen at registration.")
    with transaction.atomic(using=router.db_for_write(Registration)):
        return _confirm(registration)


def has_password(registration: Registration | None, password: str | None) -> bool:
    """Whether *password* is the one of this attempt. Costs one hash, also where there is nothing to compare."""
    # "!" marks an unusable password: Django then hashes once and answers no.
    hashed = registration.password if registration is not None and registration.password else "!"
    correct, _must_update = verify_password(password, hashed)
    return correct


def _token(registration: Registration, key: str | bytes) -> str:
    # The three parts in front have fixed lengths, so no two attempts give the same input.
    ends = int(registration.expires_at.timestamp()).to_bytes(8, "big")
    value = registration.id.bytes + ends + bytes.fromhex(registration.nonce) + registration.canonical.encode()
    mac = salted_hmac(PURPOSE, value, secret=key, algorithm="sha256").digest()
    return urlsafe_base64_encode(mac[:TOKEN_BYTES])


def _address(registration: Registration) -> QuerySet[AccountEmail]:
    return AccountEmail.objects.filter(user=registration.user_id, canonical=registration.canonical)


def _confirm(registration: Registration) -> Confirmed | AlreadyConfirmed:
    now = timezone.now()
    # This UPDATE is the lock on the address: who comes second waits here and then matches no row.
    won = (
        _address(registration)
        .filter(verified_at=None)
        .update(verified_at=now, how=How.LINK, address=registration.address)
    )
    if not won:
        return AlreadyConfirmed()
    used = Registration.objects.live(now).filter(pk=registration.pk).update(consumed_at=now, password="")
    if not used:
        # Rolls the line above back.
        raise LinkExpired("The time of this link is over.")
    Registration.objects.of(registration.canonical).open().update(voided_at=now, password="")
    user = _activate(registration)
    note(registration.email, "verified")
    return Confirmed(user=user)


def _activate(registration: Registration) -> Account:
    """
    Give the account the password of the attempt, and the address as the attempt spelt it.

    Sessions begun with another password end by that, see ``get_session_auth_hash``.
    """
    user = registration.user
    if user is None:
        raise LinkInvalid("The address of this attempt was taken.")
    values: dict[str, object] = {"password": registration.password}
    if has_activity_flag():
        values["is_active"] = True
    column = email_field()
    if column is not None:
        values[column] = registration.address
    for name, value in values.items():
        setattr(user, name, value)
    user.save(update_fields=list(values))
    return user
