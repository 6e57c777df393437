"""Registering: the same work for every address, and nothing that an attempt could do to an account."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, models
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from postroom.accounts import verification
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.registration import purge, register
from tests.accounts.conftest import ADDRESS, OTHER_PASSWORD, PASSWORD, Hashes

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


def statements(address: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        register(address, PASSWORD)
    # MariaDB's quotes are others.
    words = (query["sql"].replace("`", '"').split() for query in captured.captured_queries)
    return [" ".join(word[:1] if "SAVEPOINT" in word else word[:3]) for word in words]


def test_a_new_address_gets_an_inactive_account_without_a_password():
    attempt = register(ADDRESS, PASSWORD)

    user = get_user_model().objects.get(email=ADDRESS)
    assert attempt.user == user
    assert not user.is_active
    assert not user.has_usable_password()
    assert user.username.startswith("u_")
    assert len(user.username) == 18
    assert user.postroom_address.verified_at is None


def test_the_address_is_kept_as_typed_and_compared_in_one_form():
    attempt = register("Ann@Example.COM", PASSWORD)

    assert (attempt.address, attempt.canonical) == ("Ann@Example.COM", "ann@example.com")
    assert register("ann@example.com", OTHER_PASSWORD).user == attempt.user
    assert AccountEmail.objects.count() == 1


def test_the_outbox_holds_the_id_of_the_attempt_and_no_secret(attempt: Registration):
    assert attempt.email is not None
    assert attempt.email.kind == "accounts.verification"
    assert attempt.email.args == {"registration_id": str(attempt.id)}
    assert attempt.email.lane == 0
    assert attempt.email.on_uncertain == "repeat"


def test_the_message_ends_ten_minutes_before_its_link(attempt: Registration):
    assert attempt.email is not None
    assert attempt.expires_at - attempt.email.expires_at == timedelta(minutes=10)


@pytest.mark.parametrize(
    "values",
    [
        {"verified": True},
        {"verified": None},
        {"verified": None, "is_active": False},
        {"verified": True, "is_active": False},
        {"verified": False, "is_active": False},
        {"verified": False, "last_login": timezone.now()},
    ],
    ids=[
        "confirmed",
        "foreign",
        "foreign inactive",
        "disabled",
        "foreign unconfirmed",
        "entered unconfirmed",
    ],
)
def test_an_account_that_is_not_a_fresh_one_of_ours_is_taken_and_stays_untouched(
    make_user: Callable[..., Any], values: dict[str, Any]
):
    user = make_user(**values)
    before = get_user_model().objects.values().get(pk=user.pk)

    attempt = register("ANN@example.com", PASSWORD)

    assert attempt.user is None
    assert attempt.email is not None
    assert attempt.email.kind == "accounts.already_registered"
    assert get_user_model().objects.values().get(pk=user.pk) == before
    assert get_user_model().objects.count() == 1


def test_a_foreign_account_is_found_by_any_spelling_of_its_domain(make_user: Callable[..., Any]):
    make_user("ann@bücher.example", verified=None)

    assert register("Ann@BÜCHER.example", PASSWORD).user is None
    assert register("ann@xn--bcher-kva.example", PASSWORD).user is None


def test_registering_hashes_exactly_once_for_every_address(hashes: Hashes, make_user: Callable[..., Any]):
    make_user("taken@example.com")
    counts = []

    for address in ("new@example.com", "new@example.com", "taken@example.com"):
        hashes.clear()
        register(address, PASSWORD)
        counts.append(len(hashes))

    assert counts == [1, 1, 1]


def test_the_password_is_hashed_before_the_transaction(monkeypatch: pytest.MonkeyPatch):
    """On SQLite a hash inside the transaction would keep every other writer waiting."""
    open_transactions = []

    def watched(password: str) -> str:
        open_transactions.append(list(connection.savepoint_ids))
        return make_password(password)

    monkeypatch.setattr("postroom.accounts.registration.make_password", watched)

    register(ADDRESS, PASSWORD)

    assert open_transactions == [[]]


def test_statements_differ_only_by_the_accounts_own_inserts(make_user: Callable[..., Any]):
    """What takes longer for a new address than for a taken one tells them apart."""
    make_user("taken@example.com")
    make_user("foreign@example.com", verified=None)

    new = statements("new@example.com")
    again = statements("new@example.com")
    taken = statements("taken@example.com")
    foreign = statements("foreign@example.com")

    own = [s for s in new if s in ('INSERT INTO "auth_user"', 'INSERT INTO "postroom_accounts_accountemail"')]
    assert len(own) == 2
    assert [s for s in new if s not in own] == taken
    assert again == taken == foreign


def test_language_and_zone_of_the_registration_are_those_of_the_message():
    with translation.override("de"), timezone.override("Asia/Dhaka"):
        attempt = register(ADDRESS, PASSWORD)

    assert attempt.email is not None
    assert (attempt.language, attempt.time_zone) == ("de", "Asia/Dhaka")
    assert (attempt.email.language, attempt.email.time_zone) == ("de", "Asia/Dhaka")


def test_language_and_zone_can_be_given():
    attempt = register(ADDRESS, PASSWORD, language="de", time_zone="Europe/Vienna")

    assert attempt.email is not None
    assert (attempt.email.language, attempt.email.time_zone) == ("de", "Europe/Vienna")


def test_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="label"):
        register("ann@" + "ü" * 70 + ".com", PASSWORD)


def test_nothing_is_written_when_the_message_cannot_be_promised(monkeypatch: pytest.MonkeyPatch):
    """An account without a message could neither log in nor register again."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("postroom.accounts.registration._Attempt._promise", fail)

    with pytest.raises(RuntimeError):
        register(ADDRESS, PASSWORD)
    assert not get_user_model().objects.exists()
    assert not AccountEmail.objects.exists()
    assert not Registration.objects.exists()


def test_an_own_way_to_create_users_is_used(settings: Any):
    settings.POSTROOM_ACCOUNTS = {"CREATE_USER": f"{__name__}.create_with_name"}

    assert register(ADDRESS, PASSWORD).user.first_name == "New"  # type: ignore[union-attr]


def create_with_name(address: str) -> Any:
    user = get_user_model()(username=address, email=address, first_name="New", is_active=False)
    user.set_unusable_password()
    user.save()
    return user


class TestPurge:
    """Deletes what never became anything, and nothing else."""

    LATER = timedelta(days=9)

    def test_attempts_long_over_go_with_the_accounts_that_never_came_of_them(self, attempt: Registration):
        assert purge() == (0, 0)
        assert purge(timezone.now() + self.LATER) == (1, 1)
        assert not get_user_model().objects.exists()

    def test_an_address_can_register_again_after_the_purge(self, attempt: Registration):
        purge(timezone.now() + self.LATER)

        assert register(ADDRESS, PASSWORD).user is not None

    def test_a_confirmed_account_stays(self, confirmed: Registration):
        assert purge(timezone.now() + self.LATER) == (1, 0)
        assert get_user_model().objects.count() == 1

    def test_an_account_with_a_newer_attempt_stays(self, attempt: Registration):
        Registration.objects.update(expires_at=timezone.now() - self.LATER)
        register(ADDRESS, PASSWORD)

        assert purge() == (1, 0)

    @pytest.mark.parametrize("values", [{"verified": False}, {"verified": None}, {"verified": True}])
    def test_an_account_that_we_did_not_create_stays(self, make_user: Callable[..., Any], values: Any):
        """Clean-up jobs elsewhere deleted real people because inactive meant two things."""
        make_user(is_active=False, **values)

        assert purge(timezone.now() + self.LATER) == (0, 0)

    def test_an_account_that_was_ever_entered_stays(self, attempt: Registration):
        get_user_model().objects.update(last_login=timezone.now())

        assert purge(timezone.now() + self.LATER) == (1, 0)

    def test_an_account_that_the_site_protects_stays(
        self, attempt: Registration, monkeypatch: pytest.MonkeyPatch
    ):
        def protect(self: Any) -> None:
            raise models.ProtectedError("orders", set())

        monkeypatch.setattr(get_user_model(), "delete", protect)

        assert purge(timezone.now() + self.LATER) == (1, 0)


def test_voided_and_used_attempts_keep_no_password(attempt: Registration):
    sibling = register(ADDRESS, OTHER_PASSWORD)

    verification.confirm(attempt, registering_browser=True)

    attempt.refresh_from_db()
    sibling.refresh_from_db()
    assert (attempt.password, sibling.password) == ("", "")
