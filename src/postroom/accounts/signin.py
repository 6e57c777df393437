"""
Logging in by address, in the same time for every address.

A success costs one password hash. Every failure costs exactly two: the account's password (or a
dummy), then the one of the newest attempt to register (or a dummy). The second one is how a
person who has not confirmed yet is told so instead of "invalid credentials", for a free and for
a taken address alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model, login
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied

from postroom.accounts import usermodel
from postroom.accounts.addresses import canonical
from postroom.accounts.conf import config
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.verification import has_password

if TYPE_CHECKING:
    from django.http import HttpRequest

    from postroom.accounts.usermodel import Account

BACKEND = "postroom.accounts.signin.AddressBackend"


class AddressBackend(ModelBackend):
    """
    Authenticate by address, or by the user model's own login name.

    An address is ours to answer: after a failure no other backend is asked, so that it costs two
    hashes whatever else is installed. Other names are left to the backends behind this one.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> Any:
        if username is None:
            username = kwargs.get(get_user_model().USERNAME_FIELD)
        if username is None or password is None:
            return None
        user, attempt = _account(username), _newest_attempt(username)
        if _password_fits(user, password) and user is not None and self._may_enter(user):
            return user
        if has_password(attempt, password) and request is not None:
            request._postroom_unconfirmed = attempt  # type: ignore[attr-defined]
        if "@" in username:
            raise PermissionDenied
        return None

    def _may_enter(self, user: Account) -> bool:
        """Confirmed, and not disabled. Without a row of ours the site's ``is_active`` decides alone."""
        row = _row(user)
        return (row is None or row.verified_at is not None) and self.user_can_authenticate(user)


def unconfirmed(request: HttpRequest) -> Registration | None:
    """Return the attempt whose password was right in the login that has just failed."""
    return getattr(request, "_postroom_unconfirmed", None)


def admit(request: HttpRequest, user: Account, *, by_password: bool) -> bool:
    """
    Log in the person who has just confirmed, where that is meant; return whether it was done.

    By the password, always; by the one click of the registering browser where the site says so.
    Never in place of somebody else who is logged in here. The session gets a new key anyway.
    """
    if request.user.is_authenticated:
        return False
    if not (by_password or config().LOGIN_AFTER_VERIFICATION):
        request.session.cycle_key()
        return False
    login(request, user, backend=BACKEND)
    return True


def _account(name: str) -> Account | None:
    """
    Return the account that *name* means: whose address it is, else whose login name.

    Asks all of its questions whatever the answers. An address that two foreign accounts share means neither.
    """
    address = _canonical(name)
    row = AccountEmail.objects.filter(canonical=address).select_related("user__postroom_address").first()
    strangers = [user for user in usermodel.accounts_naming(address) if _row(user) is None]
    named = usermodel.account_called(name)
    if row is not None:
        return row.user
    return strangers[0] if len(strangers) == 1 else named


def _newest_attempt(name: str) -> Registration | None:
    return Registration.objects.of(_canonical(name)).live().order_by("-created_at").first()


def _canonical(name: str) -> str:
    try:
        return canonical(name)
    except ValueError:
        return name


def _row(user: Account) -> AccountEmail | None:
    try:
        row: AccountEmail = user.postroom_address
    except ObjectDoesNotExist:
        return None
    return row


def _password_fits(user: Account | None, password: str) -> bool:
    """Whether the account has this password. Costs one hash, also where there is no account."""
    return has_password(None, password) if user is None else user.check_password(password)
