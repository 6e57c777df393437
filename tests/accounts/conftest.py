"""What the tests of the accounts share: people, their browsers, their mailboxes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core import mail
from django.test import Client
from django.utils import timezone

import postroom
from postroom.accounts import verification
from postroom.accounts.models import AccountEmail, How, Registration
from postroom.accounts.registration import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.core.mail import EmailMultiAlternatives
    from django.http import HttpResponse

ADDRESS = "ann@example.com"
PASSWORD = "a quiet sentence about rivers"
OTHER_PASSWORD = "another sentence, about hills"

Hashes = list[str]


class CountingHasher(MD5PasswordHasher):
    """MD5, as in all tests, that keeps count of its work."""

    done: Hashes = []

    def encode(self, password: str, salt: str) -> str:
        """Hash, and note it."""
        self.done.append(password)
        return super().encode(password, salt)


@pytest.fixture
def hashes(settings: Any) -> Iterator[Hashes]:
    """What was hashed since the beginning of the test; ``clear()`` begins anew."""
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]
    CountingHasher.done.clear()
    yield CountingHasher.done
    CountingHasher.done.clear()


@pytest.fixture
def attempt(db: None) -> Registration:
    """Ann has registered and not confirmed."""
    return register(ADDRESS, PASSWORD)


@pytest.fixture
def confirmed(attempt: Registration) -> Registration:
    """Ann has registered and confirmed."""
    verification.confirm(attempt, registering_browser=True)
    attempt.refresh_from_db()
    return attempt


@pytest.fixture
def make_user(db: None) -> Callable[..., Any]:
    """Make an account with this address; *verified*: with a confirmed row of ours, None: without a row."""

    def make(address: str = ADDRESS, *, verified: bool | None = True, **values: Any) -> Any:
        name = values.pop("username", address)
        password = values.pop("password", OTHER_PASSWORD)
        user = get_user_model()(username=name, email=address, **values)
        user.set_password(password)
        user.save()
        if verified is not None:
            moment = timezone.now() if verified else None
            AccountEmail.objects.create(
                user=user, address=address, canonical=address.lower(), verified_at=moment, how=How.ADMIN
            )
        return user

    return make


@pytest.fixture
def other_browser() -> Client:
    """A browser that has not registered anything."""
    return Client()


def register_in(browser: Client, address: str = ADDRESS, password: str = PASSWORD) -> HttpResponse:
    """Fill in the registration form."""
    return browser.post("/accounts/register/", {"email": address, "password": password})


def log_in(browser: Client, name: str = ADDRESS, password: str = PASSWORD, **fields: str) -> HttpResponse:
    """Fill in the login form."""
    return browser.post("/accounts/login/", {"username": name, "password": password, **fields})


def received() -> list[EmailMultiAlternatives]:
    """Deliver what waits in the outbox; return what has arrived, oldest first."""
    postroom.drain()
    return mail.outbox


def link_in(message: Any) -> str:
    """Return the path of the confirmation link in a message."""
    found = re.search(r"http://testserver(/accounts/activate/[^\s/]+/[^\s/]+/)", message.body)
    assert found, message.body
    return found[1]


def is_logged_in(browser: Client) -> bool:
    """Whether this browser has a login."""
    return "_auth_user_id" in browser.session
