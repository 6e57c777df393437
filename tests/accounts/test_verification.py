"""Tokens, links, and what using one does."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.db import transaction
from django.test import Client
from django.utils import timezone

from postroom.accounts import verification
from postroom.accounts.models import AccountEmail, How, Registration
from postroom.accounts.registration import register
from postroom.accounts.verification import (
    AlreadyConfirmed,
    Confirmed,
    LinkExpired,
    LinkInvalid,
    WrongPassword,
    check,
    confirm,
    token,
    uid,
)
from tests.accounts.conftest import ADDRESS, OTHER_PASSWORD, PASSWORD, Hashes, received

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


def over(attempt: Registration) -> Registration:
    """Let the time of the attempt run out; its link is the one for the new end."""
    attempt.expires_at = timezone.now().replace(microsecond=0) - timedelta(seconds=1)
    attempt.save(update_fields=["expires_at"])
    return attempt


class TestToken:
    """Derived from the attempt and the key of this purpose; 128 bits; stored nowhere."""

    def test_the_link_of_an_attempt_is_always_the_same(self, attempt: Registration):
        first = verification.link(attempt)

        assert verification.link(Registration.objects.get()) == first
        assert first.startswith("http://testserver/accounts/activate/")
        assert len(token(attempt)) == 22

    def test_a_genuine_link_names_its_attempt(self, attempt: Registration):
        assert check(uid(attempt), token(attempt)) == attempt

    def test_the_token_is_in_no_column(self, attempt: Registration):
        attempt.refresh_from_db()

        assert token(attempt) not in repr([*Registration.objects.values(), *AccountEmail.objects.values()])

    @pytest.mark.parametrize("change", ["expires_at", "nonce", "canonical", "id"])
    def test_every_part_of_the_attempt_is_bound(self, attempt: Registration, change: str):
        good = token(attempt)
        values = {
            "expires_at": attempt.expires_at + timedelta(seconds=1),
            "nonce": "0" * 32,
            "canonical": "eve@example.com",
            "id": uuid.uuid4(),
        }
        setattr(attempt, change, values[change])

        assert token(attempt) != good

    def test_a_key_that_was_replaced_still_opens(self, attempt: Registration, settings: Any):
        old = token(attempt)

        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "a new key of the tests, long enough for every check of them"

        assert check(uid(attempt), old) == attempt
        assert token(attempt) != old

    def test_a_key_that_was_dropped_does_not(self, attempt: Registration, settings: Any):
        old = token(attempt)

        settings.SECRET_KEY = "a new key of the tests, long enough for every check of them"

        with pytest.raises(LinkInvalid):
            check(uid(attempt), old)

    def test_a_token_for_another_purpose_does_not_fit(self, attempt: Registration, monkeypatch: Any):
        monkeypatch.setattr(verification, "PURPOSE", "postroom.accounts.reset")
        foreign = token(attempt)
        monkeypatch.undo()

        with pytest.raises(LinkInvalid):
            check(uid(attempt), foreign)

    @pytest.mark.parametrize("made_by", ["default_token_generator", "signing"])
    def test_tokens_of_django_do_not_fit(self, attempt: Registration, made_by: str):
        from django.contrib.auth.tokens import default_token_generator

        foreign = {
            "default_token_generator": default_token_generator.make_token(attempt.user),  # type: ignore[arg-type]
            "signing": signing.dumps(str(attempt.id)),
        }

        with pytest.raises(LinkInvalid):
            check(uid(attempt), foreign[made_by])

    def test_the_token_of_another_attempt_does_not_fit(self, attempt: Registration):
        sibling = register(ADDRESS, PASSWORD)

        with pytest.raises(LinkInvalid):
            check(uid(attempt), token(sibling))

    @pytest.mark.parametrize(
        ("bad_uid", "bad_token"),
        [
            ("MQ", "c9x-0123456789abcdef0123456789abcdef"),
            ("", ""),
            ("%%%", "x"),
            ("ünï", "çödé"),
            ("A" * 22, "A" * 22),
            ("A" * 5000, "B" * 5000),
            ("\x00", "\x00"),
            ("=" * 22, "=" * 22),
        ],
    )
    def test_garbage_is_no_link(self, attempt: Registration, bad_uid: str, bad_token: str):
        for pair in ((bad_uid, bad_token), (uid(attempt), bad_token), (bad_uid, token(attempt))):
            with pytest.raises(LinkInvalid):
                check(*pair)

    @pytest.mark.parametrize("cut", [1, 5, 21])
    def test_a_link_not_copied_whole_is_no_link(self, attempt: Registration, cut: int):
        with pytest.raises(LinkInvalid):
            check(uid(attempt), token(attempt)[:-cut])

    def test_an_attempt_for_a_taken_address_has_no_link_that_works(self, make_user: Callable[..., Any]):
        make_user()
        attempt = register(ADDRESS, PASSWORD)

        with pytest.raises(LinkInvalid):
            check(uid(attempt), token(attempt))


class TestConfirm:
    """One of many wins, the person is proved, and the attempt's own password becomes the account's."""

    def test_the_attempt_becomes_the_account(self, attempt: Registration):
        outcome = confirm(attempt, registering_browser=True)

        user = get_user_model().objects.get()
        assert outcome == Confirmed(user=user)
        assert user.is_active
        assert user.check_password(PASSWORD)
        row = AccountEmail.objects.get()
        assert row.verified_at is not None
        assert (row.how, row.address) == (How.LINK, ADDRESS)

    def test_a_second_time_writes_nothing(self, confirmed: Registration):
        before = [
            *Registration.objects.values(),
            *AccountEmail.objects.values(),
            *get_user_model().objects.values(),
        ]

        assert confirm(confirmed, registering_browser=True) == AlreadyConfirmed()
        assert confirm(confirmed, password="wrong") == AlreadyConfirmed()
        after = [
            *Registration.objects.values(),
            *AccountEmail.objects.values(),
            *get_user_model().objects.values(),
        ]
        assert after == before

    def test_a_stale_copy_of_the_attempt_writes_nothing_either(self, attempt: Registration):
        """Two requests loaded the attempt before either had confirmed it."""
        stale = Registration.objects.select_related("user").get()
        confirm(attempt, registering_browser=True)

        assert verification._confirm(stale) == AlreadyConfirmed()

    def test_the_password_of_the_attempt_proves_the_person(self, attempt: Registration):
        assert isinstance(confirm(attempt, password=PASSWORD), Confirmed)

    @pytest.mark.parametrize("password", [None, "", "wrong", PASSWORD.upper()])
    def test_a_link_without_the_person_confirms_nothing(self, attempt: Registration, password: str | None):
        """Scanners of mail servers follow links, run scripts and press buttons."""
        with pytest.raises(WrongPassword):
            confirm(attempt, password=password)
        assert AccountEmail.objects.get().verified_at is None
        assert not get_user_model().objects.get().is_active

    def test_the_password_is_that_of_this_very_attempt(self, attempt: Registration):
        """Somebody registers first with a password of their own; the owner uses the link of the owner's attempt."""
        planted, owners = attempt, register(ADDRESS, OTHER_PASSWORD)

        with pytest.raises(WrongPassword):
            confirm(owners, password=PASSWORD)
        confirm(owners, password=OTHER_PASSWORD)

        user = get_user_model().objects.get()
        assert user.check_password(OTHER_PASSWORD)
        assert not user.check_password(PASSWORD)
        planted.refresh_from_db()
        assert planted.voided_at is not None
        assert confirm(planted, registering_browser=True) == AlreadyConfirmed()
        assert get_user_model().objects.get().check_password(OTHER_PASSWORD)

    def test_siblings_are_void_by_address_however_it_was_spelt(self, attempt: Registration):
        sibling = register("ANN@EXAMPLE.com", OTHER_PASSWORD)
        stranger = register("bob@example.com", PASSWORD)

        confirm(attempt, registering_browser=True)

        sibling.refresh_from_db()
        stranger.refresh_from_db()
        assert sibling.voided_at is not None
        assert stranger.voided_at is None

    def test_an_older_link_works_as_long_as_none_was_used(self, attempt: Registration):
        """People click the first message that arrives."""
        register(ADDRESS, OTHER_PASSWORD)

        assert isinstance(confirm(attempt, registering_browser=True), Confirmed)

    def test_the_confirmed_spelling_is_the_one_the_message_went_to(self, attempt: Registration):
        confirm(register("Ann@Example.com", PASSWORD), registering_browser=True)

        assert AccountEmail.objects.get().address == "Ann@Example.com"
        assert get_user_model().objects.get().email == "Ann@Example.com"

    @pytest.mark.parametrize("password", [PASSWORD, "wrong"])
    def test_after_its_time_nothing_is_confirmed(self, attempt: Registration, password: str):
        over(attempt)

        with pytest.raises(LinkExpired):
            confirm(attempt, password=password)
        with pytest.raises(LinkExpired):
            confirm(attempt, registering_browser=True)
        assert AccountEmail.objects.get().verified_at is None

    def test_an_attempt_that_ran_out_in_between_leaves_nothing_half_done(self, attempt: Registration):
        stale = Registration.objects.select_related("user").get()
        over(attempt)

        with pytest.raises(LinkExpired), transaction.atomic():
            verification._confirm(stale)
        assert AccountEmail.objects.get().verified_at is None

    def test_a_void_attempt_of_an_unconfirmed_address_is_over(self, attempt: Registration):
        Registration.objects.update(voided_at=timezone.now())
        attempt.refresh_from_db()

        with pytest.raises(LinkExpired):
            confirm(attempt, registering_browser=True)

    def test_an_account_that_was_disabled_is_not_activated_again(self, confirmed: Registration):
        get_user_model().objects.update(is_active=False)

        assert confirm(confirmed, registering_browser=True) == AlreadyConfirmed()
        with pytest.raises(LinkExpired):
            confirm(register(ADDRESS, PASSWORD), registering_browser=True)
        assert not get_user_model().objects.get().is_active

    def test_an_account_that_was_entered_meanwhile_keeps_its_password(self, attempt: Registration):
        """An administrator gave it a password by hand and its owner has been in."""
        user = get_user_model().objects.get()
        user.set_password(OTHER_PASSWORD)
        user.last_login = timezone.now()
        user.save()

        assert confirm(attempt, registering_browser=True) == AlreadyConfirmed()
        assert get_user_model().objects.get().check_password(OTHER_PASSWORD)

    def test_sessions_begun_before_end(self, attempt: Registration):
        browser = Client()
        user = get_user_model().objects.get()
        user.is_active = True
        user.save()
        browser.force_login(user)
        get_user_model().objects.update(last_login=None)

        confirm(attempt, registering_browser=True)

        answer = browser.get("/accounts/register/")
        assert answer.status_code == 200

    def test_using_the_link_proves_that_the_message_arrived(self, attempt: Registration):
        received()
        confirm(attempt, registering_browser=True)

        assert attempt.email is not None
        attempt.email.refresh_from_db()
        assert attempt.email.report == "verified"
        assert attempt.email.events.filter(type="verified").count() == 1

    def test_confirming_costs_one_hash_by_password_and_none_in_the_registering_browser(
        self, attempt: Registration, hashes: Hashes
    ):
        one, other = register("bob@example.com", PASSWORD), register("cid@example.com", PASSWORD)
        hashes.clear()

        confirm(one, registering_browser=True)
        assert len(hashes) == 0
        confirm(other, password=PASSWORD)
        assert len(hashes) == 1

    def test_an_attempt_for_a_taken_address_becomes_nothing(self, make_user: Callable[..., Any]):
        user = make_user()
        attempt = register(ADDRESS, PASSWORD)

        with pytest.raises(LinkExpired):
            confirm(attempt, registering_browser=True)
        user.refresh_from_db()
        assert user.check_password(OTHER_PASSWORD)
