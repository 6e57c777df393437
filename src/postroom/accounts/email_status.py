"""
What the original design called ``EmailStatus``: read-only, with its seven names.

There it was a table with one row that everybody overwrote. Here the e-mails and what happened to
them are kept by postroom, and this is a view of them for support staff and for code that asked
for it by that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from postroom import PostroomError
from postroom.accounts import progress
from postroom.accounts.models import Registration

if TYPE_CHECKING:
    from datetime import datetime

    from postroom.accounts.usermodel import Account


class ReadOnly(PostroomError, TypeError):
    """The state of an e-mail is written by what happens to it, not by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailStatus:
    """How the newest e-mail of one type to one account stands."""

    user: Account
    email_type: str
    status: str
    """``pending``, ``sent``, ``failed`` or ``completed``."""

    created_at: datetime
    sent_at: datetime | None
    """When the provider took it; confirming the address does not change this."""

    retry_count: int
    error_message: str | None

    @classmethod
    def for_user(cls, user: Account, email_type: str = progress.TYPE) -> EmailStatus | None:
        """Return the status of the newest e-mail of this type, None where there is none."""
        if email_type != progress.TYPE:
            return None
        attempts = Registration.objects.filter(user=user, email__isnull=False).select_related("email")
        # The confirmed attempt, where there is one, is the account; else the newest one counts.
        attempt = attempts.exclude(consumed_at=None).first() or attempts.order_by("-created_at").first()
        told = progress.of(attempt) if attempt is not None else None
        if told is None:
            return None
        return cls(
            user=user,
            email_type=email_type,
            status=told.word,
            created_at=told.created_at,
            sent_at=told.sent_at,
            retry_count=told.retry_count,
            error_message=told.error_message,
        )

    def save(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse."""
        raise ReadOnly("EmailStatus is read-only: postroom writes the state of an e-mail as it happens.")
