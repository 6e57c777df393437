"""
Registrations and confirmed addresses.

Two facts, two tables. A ``Registration`` is an *attempt*: somebody typed an address and a
password. An ``AccountEmail`` says which account an address belongs to and since when that is
confirmed. Whether the account may be used at all (``is_active``) stays the site's own word.
"""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from postroom.accounts.addresses import MAX_LENGTH

if TYPE_CHECKING:
    from datetime import datetime


def new_nonce() -> str:
    """Return 16 random bytes in hexadecimal."""
    return secrets.token_hex(16)


class How(models.TextChoices):
    """How an address was confirmed."""

    LINK = "link", _("The link in the e-mail")
    IMPORTED = "imported", _("Known from before")
    ADMIN = "admin", _("By hand")


class AccountEmail(models.Model):
    """
    The address of an account. One account an address, whatever its spelling.

    An account without such a row is one that the site had before: ``is_active`` decides alone.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="postroom_address"
    )
    address = models.CharField(_("address"), max_length=MAX_LENGTH)
    """As typed; e-mails go here."""

    canonical = models.CharField(max_length=MAX_LENGTH, unique=True)
    """As compared, see ``addresses.canonical``."""

    verified_at = models.DateTimeField(_("confirmed at"), null=True, blank=True)
    """Since when we know that the owner of the account reads this mailbox."""

    how = models.CharField(max_length=8, choices=How.choices, blank=True)
    created_account = models.BooleanField(default=False)
    """Whether registration created the account. Only such a one may be given a password by an attempt, or purged."""

    class Meta:
        verbose_name = _("address of an account")
        verbose_name_plural = _("addresses of accounts")

    def __str__(self) -> str:
        return self.address

    @property
    def is_free(self) -> bool:
        """
        Whether an attempt may still become this account: we created it, and nobody has ever
        confirmed it or been inside. Every other account is *taken*, confirmed or not.
        """
        entered = getattr(self.user, "last_login", None)
        return self.created_account and self.verified_at is None and entered is None


class RegistrationQuerySet(models.QuerySet["Registration"]):
    """Questions that read as sentences."""

    def of(self, address: str) -> Self:
        """Attempts with this canonical address."""
        return self.filter(canonical=address)

    def open(self) -> Self:
        """Attempts that were neither confirmed nor voided."""
        return self.filter(consumed_at=None, voided_at=None)

    def live(self, now: datetime | None = None) -> Self:
        """Open attempts whose time is not over."""
        return self.open().filter(expires_at__gt=now or timezone.now())


class Registration(models.Model):
    """
    One attempt to register: always written, whether the address was free or taken.

    Several may coexist for one address. Confirming one gives the account *its* password and voids
    the others, so nobody can plant a password in front of the owner of a mailbox.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    """Names the attempt in its link."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    """The account that this attempt may become; null where the address was taken."""

    address = models.CharField(_("address"), max_length=MAX_LENGTH)
    """As typed."""

    canonical = models.CharField(max_length=MAX_LENGTH)
    """As compared, see ``addresses.canonical``."""

    password = models.CharField(max_length=128, blank=True)
    """Hash of the password chosen; empty once the attempt is confirmed or void."""

    language = models.CharField(max_length=35, blank=True)
    time_zone = models.CharField(max_length=64, blank=True)
    nonce = models.CharField(max_length=32, default=new_nonce, editable=False)
    """Part of what the link's token is made of: the table alone, or the key alone, makes no link."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    """End of the attempt, of its link and of its receipt. In whole seconds."""

    consumed_at = models.DateTimeField(null=True, blank=True)
    """When its link was used."""

    voided_at = models.DateTimeField(null=True, blank=True)
    """When another attempt for the address was confirmed."""

    email = models.ForeignKey(
        "postroom.OutboundEmail", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    """The message about this attempt; null once the outbox has been pruned."""

    objects: ClassVar[RegistrationQuerySet] = RegistrationQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("registration")
        verbose_name_plural = _("registrations")
        indexes = [
            models.Index(fields=["canonical", "created_at"], name="postroom_registered"),
            models.Index(fields=["expires_at"], name="postroom_registration_ends"),
        ]

    def __str__(self) -> str:
        return f"{self.id.hex[:4]} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def is_live(self) -> bool:
        """Whether this attempt can still be confirmed."""
        return self.consumed_at is None and self.voided_at is None and not self.is_expired

    @property
    def is_expired(self) -> bool:
        """Whether the time of this attempt is over."""
        return self.expires_at <= timezone.now()
