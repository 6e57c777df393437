"""Twenty at once, on real connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from postroom.accounts import verification
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import ADDRESS, PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

AT_ONCE = 20


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run *work* twenty times at the same moment, each on a connection of its own; an error is a result."""
    gate = threading.Barrier(AT_ONCE)
    results: list[Any] = [None] * AT_ONCE

    def run(number: int) -> None:
        try:
            gate.wait(30)
            results[number] = work(number)
        except Exception as error:  # noqa: BLE001 - an error is a result, and is looked at
            results[number] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_twenty_confirmations_have_one_effect():
    attempt = register(ADDRESS, PASSWORD)

    def click(_number: int) -> int:
        return _posted(attempt)

    answers = at_once(click)

    assert sorted(answers) == [200] * (AT_ONCE - 1) + [303]
    assert attempt.email is not None
    assert attempt.email.events.filter(type="verified").count() == 1


def test_twenty_attempts_for_one_address_confirmed_at_once_have_one_winner():
    attempts = [register(ADDRESS, f"{PASSWORD} {number}") for number in range(AT_ONCE)]

    outcomes = at_once(lambda number: verification.confirm(attempts[number], registering_browser=True))

    won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, verification.Confirmed)]
    assert len(won) == 1
    assert [o for o in outcomes if not isinstance(o, verification.Confirmed)] == [
        verification.AlreadyConfirmed()
    ] * (AT_ONCE - 1)
    assert get_user_model().objects.get().check_password(f"{PASSWORD} {won[0]}")
    assert Registration.objects.filter(consumed_at__isnull=False).count() == 1
    assert Registration.objects.filter(voided_at__isnull=False).count() == AT_ONCE - 1


def test_twenty_registrations_of_one_new_address_share_one_account():
    attempts = at_once(lambda number: register(ADDRESS, PASSWORD))

    assert not [attempt for attempt in attempts if isinstance(attempt, Exception)]
    user = AccountEmail.objects.get().user
    assert get_user_model().objects.get() == user
    assert {attempt.user_id for attempt in attempts} == {user.pk}
    assert Registration.objects.count() == AT_ONCE


def _posted(attempt: Registration) -> int:
    browser = Client()
    browser.get(verification.link(attempt).removeprefix("http://testserver"))
    return browser.post("/accounts/activate/", {"password": PASSWORD}).status_code
