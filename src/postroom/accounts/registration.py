"""
Registering: an attempt is written and a message promised, in one transaction.

What a visitor can observe is the same for every address: one password hash, the same
statements but for the INSERTs of the account itself, one e-mail. Which e-mail it is, only the
owner of the mailbox learns.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, models, router, transaction
from django.utils import timezone, translation
from django.utils.module_loading import import_string

from postroom.accounts import addresses, emails, usermodel
from postroom.accounts.conf import MAIL_ENDS_BEFORE_LINK, config
from postroom.accounts.models import AccountEmail, Registration

if TYPE_CHECKING:
    from postroom.accounts.usermodel import Account
    from postroom.models import OutboundEmail

PURGED_AFTER = timedelta(days=7)
"""How long an attempt is kept after its end, for questions."""


def register(address: str, password: str, *, language: str = "", time_zone: str = "") -> Registration:
    """
    Write an attempt to register and promise its e-mail; return the attempt.

    A new address gets an inactive account without a password of its own, and a message with a
    link. A taken one stays untouched, and its owner is told. *language* and *time_zone* are
    those of the message (empty: the ones in force). Raises ValueError for what is no address.
    """
    canonical = addresses.canonical(address)
    # Hashed before the transaction opens: a hash takes as long as a hundred statements, and
    # SQLite has one writer.
    hashed = make_password(password)
    attempt = _Attempt(address.strip(), canonical, hashed, language, time_zone)
    try:
        return attempt.write()
    except IntegrityError:
        # Two people met at one new address. Its account exists now, and a second look finds it.
        # No savepoint around the account's INSERT: it would be a statement that taken addresses lack.
        return attempt.write()


class _Attempt:
    """The values of an attempt, so that it can be written a second time."""

    def __init__(self, address: str, canonical: str, hashed: str, language: str, time_zone: str) -> None:
        self.address = address
        self.canonical = canonical
        self.hashed = hashed
        self.language = language or translation.get_language() or ""
        self.time_zone = time_zone or timezone.get_current_timezone_name()

    def write(self) -> Registration:
        identifier, expires_at = uuid.uuid4(), _end_of_attempt()
        with transaction.atomic(using=router.db_for_write(Registration)):
            user = self._account()
            return Registration.objects.create(
                id=identifier,
                user=user,
                address=self.address,
                canonical=self.canonical,
                password=self.hashed,
                language=self.language,
                time_zone=self.time_zone,
                expires_at=expires_at,
                email=self._promise(identifier, expires_at, taken=user is None),
            )

    def _account(self) -> Account | None:
        """Return the account that this attempt may become, created where there is none; None: taken."""
        # Both are asked whatever the first one says, so that every address takes the same
        # statements. The row comes last: an account of ours that another registration commits in
        # between is then found with its row, and not taken for one that the site had before.
        others = usermodel.accounts_naming(self.canonical)
        row = AccountEmail.objects.filter(canonical=self.canonical).select_related("user").first()
        if row is not None:
            return row.user if row.is_free else None
        if others:
            return None
        user: Account = import_string(config().CREATE_USER)(self.address)
        AccountEmail.objects.create(
            user=user, address=self.address, canonical=self.canonical, created_account=True
        )
        return user

    def _promise(self, identifier: uuid.UUID, expires_at: datetime, *, taken: bool) -> OutboundEmail:
        composer = emails.already_registered_email if taken else emails.verification_email
        with translation.override(self.language), timezone.override(self.time_zone):
            return composer.using(expires_at=expires_at - MAIL_ENDS_BEFORE_LINK).enqueue(
                registration_id=str(identifier)
            )


def _end_of_attempt() -> datetime:
    # Whole seconds: the link's token is made of this instant, and not every database keeps microseconds.
    end = timezone.now() + timedelta(seconds=config().VERIFICATION_MAX_AGE_SECONDS)
    return end.replace(microsecond=0)


def purge(now: datetime | None = None) -> tuple[int, int]:
    """
    Delete attempts long over and the accounts that never came of them; return how many of each.

    Only accounts that registration created, that were never confirmed and never entered; one by
    one, leaving those that something of the site protects.
    """
    now = now or timezone.now()
    attempts, _by_model = Registration.objects.filter(expires_at__lte=now - PURGED_AFTER).delete()
    unclaimed = AccountEmail.objects.filter(created_account=True, verified_at=None).exclude(
        canonical__in=Registration.objects.values("canonical")
    )
    accounts = sum(_delete_account(row) for row in unclaimed.select_related("user").iterator())
    return attempts, accounts


def _delete_account(row: AccountEmail) -> bool:
    if not row.is_free:
        return False
    try:
        row.user.delete()
    except (models.ProtectedError, models.RestrictedError, IntegrityError):
        # IntegrityError: somebody registered at this very moment.
        return False
    return True
