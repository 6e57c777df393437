"""
Register, confirm, log in, with whatever user model the settings name.

Not collected by itself: ``tests/accounts/test_user_models.py`` runs it once for each model.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import call_command
from django.test import Client

import postroom
from postroom.accounts.models import AccountEmail, Registration

pytestmark = pytest.mark.django_db

ADDRESS, PASSWORD = "ann@example.com", "a quiet sentence about rivers"


@pytest.fixture
def arrived() -> Any:
    """Register Ann in a browser; return the browser and the path of her link."""
    browser = Client()
    answer = browser.post("/accounts/register/", {"email": ADDRESS, "password": PASSWORD})
    assert answer.status_code == 303
    postroom.drain()
    found = re.search(r"http://testserver(/accounts/activate/\S+)", mail.outbox[-1].body)
    assert found
    return browser, found[1]


def test_one_click_then_login(arrived: Any):
    browser, path = arrived
    browser.get(path)

    assert browser.post("/accounts/activate/")["Location"] == "/accounts/login/?command=activated"
    answer = browser.post("/accounts/login/", {"username": ADDRESS, "password": PASSWORD})
    assert answer.status_code == 303
    assert browser.session["_auth_user_id"] == str(get_user_model().objects.get().pk)


def test_elsewhere_by_password(arrived: Any):
    _browser, path = arrived
    elsewhere = Client()
    elsewhere.get(path)

    assert elsewhere.post("/accounts/activate/", {"password": "wrong"}).status_code == 200
    assert elsewhere.post("/accounts/activate/", {"password": PASSWORD}).status_code == 303
    assert elsewhere.session["_auth_user_id"] == str(get_user_model().objects.get().pk)


def test_before_the_confirmation(arrived: Any):
    browser, _path = arrived

    answer = browser.post("/accounts/login/", {"username": ADDRESS, "password": PASSWORD}, follow=True)

    assert "Confirm your address first" in answer.content.decode()
    assert "_auth_user_id" not in browser.session


def test_a_second_registration_of_a_confirmed_address(arrived: Any):
    browser, path = arrived
    browser.get(path)
    browser.post("/accounts/activate/")

    Client().post("/accounts/register/", {"email": ADDRESS.upper(), "password": "another sentence"})
    postroom.drain()

    assert mail.outbox[-1].subject == "You already have an account at testserver"
    assert get_user_model().objects.get().check_password(PASSWORD)
    assert Registration.objects.latest("created_at").user is None


def test_an_account_that_the_site_had_before(arrived: Any):
    model = get_user_model()
    column = model.get_email_field_name()
    user = model(**{model.USERNAME_FIELD: "bob@example.com", column: "bob@example.com"})
    user.set_password(PASSWORD)
    user.save()

    browser = Client()
    assert (
        browser.post("/accounts/login/", {"username": "BOB@example.com", "password": PASSWORD}).status_code
        == 303
    )
    Client().post("/accounts/register/", {"email": "bob@example.com", "password": "another sentence"})
    assert Registration.objects.get(canonical="bob@example.com").user is None
    assert not AccountEmail.objects.filter(user=user).exists()


def test_the_migrations_fit():
    call_command("makemigrations", "postroom_accounts", check=True, dry_run=True, verbosity=0)
