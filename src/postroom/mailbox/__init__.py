"""
The development mailbox: every e-mail that a mailer was given, and what the mailer answered.

``EmailBackend`` stands in front of any mail backend and writes down what passes; the pages of
``urls.py`` show it, with ``DEBUG`` only. Knows nothing of the outbox but its events, and keeps
its own SQLite file, so that a sending thread needs no database connection for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.mailbox.recorder import EmailBackend

__all__ = ["EmailBackend"]


def __getattr__(name: str) -> type[EmailBackend]:
    """Load the backend on first use: this package is imported while Django still sets up its apps."""
    if name == "EmailBackend":
        from postroom.mailbox.recorder import EmailBackend

        return EmailBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
