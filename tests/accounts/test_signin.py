"""The authentication backend: who gets in, and that every failure costs the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.backends import BaseBackend
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from postroom.accounts import signin
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import ADDRESS, OTHER_PASSWORD, PASSWORD, Hashes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


def enter(name: str, password: str) -> tuple[Any, Registration | None]:
    request = RequestFactory().post("/")
    return authenticate(request, username=name, password=password), signin.unconfirmed(request)


@pytest.mark.parametrize("name", [ADDRESS, "ANN@Example.com", " ann@example.com "])
def test_a_confirmed_account_enters_by_any_spelling_of_its_address(confirmed: Registration, name: str):
    assert enter(name, PASSWORD) == (confirmed.user, None)


def test_an_account_from_before_enters_by_its_address_and_by_its_name(make_user: Callable[..., Any]):
    user = make_user(verified=None, username="operator")

    assert enter(ADDRESS, OTHER_PASSWORD)[0] == user
    assert enter("operator", OTHER_PASSWORD)[0] == user


def test_an_address_that_two_foreign_accounts_share_means_neither(make_user: Callable[..., Any]):
    make_user(verified=None, username="one")
    make_user(verified=None, username="two")

    assert enter(ADDRESS, OTHER_PASSWORD)[0] is None
    assert enter("two", OTHER_PASSWORD)[0] is not None


def test_the_address_in_a_foreign_column_does_not_beat_a_confirmed_one(
    confirmed: Registration, make_user: Callable[..., Any]
):
    """Somebody wrote Ann's address into the profile of another account."""
    make_user(verified=None, username="eve")

    assert enter(ADDRESS, PASSWORD)[0] == confirmed.user
    assert enter(ADDRESS, OTHER_PASSWORD)[0] is None


@pytest.mark.parametrize("state", ["disabled", "unconfirmed", "foreign inactive"])
def test_the_right_password_of_an_account_that_may_not_enter_is_refused(
    make_user: Callable[..., Any], state: str
):
    values: dict[str, Any] = {
        "disabled": {"is_active": False},
        "unconfirmed": {"verified": False},
        "foreign inactive": {"verified": None, "is_active": False},
    }[state]
    make_user(**values)

    assert enter(ADDRESS, OTHER_PASSWORD) == (None, None)


def test_the_password_of_an_unconfirmed_attempt_is_recognised(attempt: Registration):
    assert enter(ADDRESS, PASSWORD) == (None, attempt)
    assert enter(ADDRESS, "wrong") == (None, None)


def test_so_is_that_of_an_attempt_for_a_taken_address(make_user: Callable[..., Any]):
    make_user()
    attempt = register(ADDRESS, PASSWORD)

    assert enter(ADDRESS, PASSWORD) == (None, attempt)
    assert enter(ADDRESS, OTHER_PASSWORD)[0] is not None


def test_an_attempt_whose_time_is_over_is_not_recognised(attempt: Registration):
    Registration.objects.update(expires_at=timezone.now())

    assert enter(ADDRESS, PASSWORD) == (None, None)


def test_a_success_costs_one_hash(confirmed: Registration, hashes: Hashes, make_user: Callable[..., Any]):
    user = get_user_model().objects.get()
    user.set_password(PASSWORD)
    user.save()
    hashes.clear()

    assert enter(ADDRESS, PASSWORD)[0] == user
    assert len(hashes) == 1


@pytest.mark.parametrize("backends", ["ours alone", "with Django's behind"])
@pytest.mark.parametrize("password", [PASSWORD, OTHER_PASSWORD, "wrong", ""])
def test_every_failure_costs_two_hashes_and_the_same_statements(
    hashes: Hashes, make_user: Callable[..., Any], settings: Any, password: str, backends: str
):
    """What takes longer for one address than for another tells them apart."""
    if backends == "ours alone":
        settings.AUTHENTICATION_BACKENDS = [signin.BACKEND]
    make_user("disabled@example.com", is_active=False)
    make_user("foreign@example.com", verified=None, is_active=False)
    make_user("taken@example.com", password="quite another")
    register("taken@example.com", "still another")
    register("new@example.com", PASSWORD)
    costs, asked = {}, {}

    for who in ("disabled", "foreign", "taken", "new", "nobody"):
        hashes.clear()
        with CaptureQueriesContext(connection) as captured:
            assert enter(f"{who}@example.com", password)[0] is None
        costs[who] = len(hashes)
        asked[who] = len(captured)

    assert set(costs.values()) == {2}
    assert len(set(asked.values())) == 1


def test_a_name_that_is_no_address_is_left_to_the_backends_behind(settings: Any):
    settings.AUTHENTICATION_BACKENDS = [signin.BACKEND, f"{__name__}.Directory"]

    assert enter("somebody", "anything")[0].username == "somebody"
    assert enter("somebody@example.com", "anything")[0] is None


class Directory(BaseBackend):
    """A directory of the company that knows everybody."""

    def authenticate(self, request: Any, username: str = "", password: str = "") -> Any:
        return get_user_model()(username=username)


@pytest.mark.parametrize("credentials", [{"username": ADDRESS}, {"password": PASSWORD}, {"code": "123456"}])
def test_other_credentials_are_not_ours(credentials: dict[str, str], hashes: Hashes, settings: Any):
    settings.AUTHENTICATION_BACKENDS = [signin.BACKEND]

    assert authenticate(None, **credentials) is None
    assert hashes == []


@pytest.mark.parametrize(
    "name", ["@", "a@" + "ü" * 70, "x" * 5000 + "@example.com", "ann@example.com\x00"[:-1] + "."]
)
def test_no_name_is_an_accident(name: str):
    assert enter(name, PASSWORD) == (None, None)


def test_the_row_of_an_account_counts_when_it_is_found_by_its_name(
    make_user: Callable[..., Any], settings: Any
):
    """A login by name must not get around the confirmation of the address."""
    settings.AUTHENTICATION_BACKENDS = [signin.BACKEND]
    make_user(username="ann", verified=False)

    assert enter("ann", OTHER_PASSWORD)[0] is None
    AccountEmail.objects.update(verified_at=timezone.now())
    assert enter("ann", OTHER_PASSWORD)[0] is not None
