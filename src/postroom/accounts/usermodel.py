"""
The site's user model, whatever it is: Django's own, one that logs in by address, one with a UUID key.

Everything that depends on its columns is asked and done here.
"""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q

from postroom.accounts.addresses import canonical, readable

Account = Any
"""An account of the site. Only the site knows its model, so the type checker cannot."""


def email_field() -> str | None:
    """Return the name of the model's e-mail column, None where it has none."""
    model = get_user_model()
    name = model.get_email_field_name()
    return name if name in _columns() else None


def has_activity_flag() -> bool:
    """Whether the model has an ``is_active`` column; Django does not demand one."""
    return "is_active" in _columns()


def create_user(address: str) -> Account:
    """
    Save and return an inactive account without a usable password.

    Where the model logs in by something else than the address, it gets a random name that nobody
    has to know: ``u_`` and 16 hexadecimal digits.
    """
    model = get_user_model()
    values: dict[str, object] = {}
    if email_field() != model.USERNAME_FIELD:
        values[model.USERNAME_FIELD] = f"u_{secrets.token_hex(8)}"
    if has_activity_flag():
        values["is_active"] = False
    column = email_field()
    if column is not None:
        values[column] = address
    user = model(**values)
    user.set_unusable_password()
    user.save()
    return user


def unsaved(address: str) -> Account:
    """Return an account with this address that is not in the database, for rules that look at one."""
    column = email_field()
    return get_user_model()(**({} if column is None else {column: address}))


def accounts_naming(address: str) -> list[Account]:
    """
    Return the accounts whose own e-mail column holds this canonical *address*.

    They need not be ours: the site may have had users before. Django's column is not unique, so
    there may be several.
    """
    column = email_field()
    if column is None:
        return []
    spelt = Q(**{f"{column}__iexact": address}) | Q(**{f"{column}__iexact": readable(address)})
    found = get_user_model()._default_manager.filter(spelt).select_related("postroom_address")
    return [user for user in found if _same(getattr(user, column), address)]


def account_called(name: str) -> Account | None:
    """Return the account with this login name, None where there is none."""
    model = get_user_model()
    named = model._default_manager.filter(**{model.USERNAME_FIELD: name})
    return named.select_related("postroom_address").first()


def _columns() -> set[str]:
    return {field.name for field in get_user_model()._meta.concrete_fields}


def _same(stored: str, address: str) -> bool:
    try:
        return canonical(stored) == address
    except ValueError:
        return False
