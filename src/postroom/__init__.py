"""
Django e-mail that nobody waits for, no crash loses, and no page lies about.

The public names are resolved on first use, so that ``import postroom`` works before Django's
apps are ready. Everything else is private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.composing import Composer, Withdraw, composer, render, site_name, site_url
    from postroom.delivery import deliver_one, drain
    from postroom.exceptions import PostroomError
    from postroom.outbox import cancel, enqueue, note, resend, retry
    from postroom.status import Status, describe, receipt, status_url

__version__ = "0.2.0"

_HOME = {
    "Composer": "composing",
    "PostroomError": "exceptions",
    "Status": "status",
    "Withdraw": "composing",
    "cancel": "outbox",
    "composer": "composing",
    "deliver_one": "delivery",
    "describe": "status",
    "drain": "delivery",
    "enqueue": "outbox",
    "note": "outbox",
    "receipt": "status",
    "render": "composing",
    "resend": "outbox",
    "retry": "outbox",
    "site_name": "composing",
    "site_url": "composing",
    "status_url": "status",
}

__all__ = [
    "Composer",
    "PostroomError",
    "Status",
    "Withdraw",
    "cancel",
    "composer",
    "deliver_one",
    "describe",
    "drain",
    "enqueue",
    "note",
    "receipt",
    "render",
    "resend",
    "retry",
    "site_name",
    "site_url",
    "status_url",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'postroom' has no attribute {name!r}")
    return getattr(import_module(f"postroom.{_HOME[name]}"), name)
