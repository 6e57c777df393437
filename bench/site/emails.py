"""The composers of the bench."""

from __future__ import annotations

from django.core.mail import EmailMessage

from bench import letters
from postroom import composer


@composer("bench.letter")
def letter(number: int) -> EmailMessage:
    """Write letter *number*."""
    return letters.message(number)


@composer("bench.urgent", lane="urgent")
def urgent(number: int) -> EmailMessage:
    """Write letter *number*, for somebody who waits."""
    return letters.message(number)
