"""
The testing checklist of the original design: twelve boxes, twelve tests with their names.

The original could tick none of some of them; why is told by the docstrings.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.journeys.shop import PASSWORD, Shop, Visitor
from tests.journeys.stage import eventually

pytestmark = pytest.mark.timeout(180)

CONGRATULATIONS = "Congratulations! Your account has been activated successfully."


@pytest.fixture
def visitor(shop: Shop) -> Visitor:
    """Somebody new."""
    return shop.visitor()


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """An address of this test alone."""
    return f"{request.node.name.removeprefix('test_')[:40]}@example.com"


def is_active(shop: Shop, address: str) -> bool:
    """Whether the account may log in, as the table has it."""
    ((active,),) = shop.select(f"SELECT is_active FROM accounts_account WHERE email = '{address}'")
    return bool(active)


# User registration


def test_registration_form_responds_instantly(shop: Shop, visitor: Visitor, address: str) -> None:
    """Before anybody was asked to send anything: there is no worker here at all."""
    shop.worker.kill()

    answer = visitor.register(address)

    assert answer.headers["Location"] == "/accounts/check-email/"
    assert visitor.status()["status"] == "pending"
    assert shop.calls(address) == []


def test_email_status_shows_pending_then_sent(shop: Shop, visitor: Visitor, address: str) -> None:
    """The original's page stopped with an error at "sent"."""
    with shop.frozen_worker():
        visitor.register(address)
        heard: list[dict[str, Any]] = [visitor.status()]

    eventually("it is sent", lambda: heard.append(visitor.status()) or heard[-1]["status"] == "sent")

    assert list(dict.fromkeys(status["status"] for status in heard)) == ["pending", "sent"]
    assert heard[0]["sent_at"] is None
    assert heard[-1]["sent_at"] >= heard[0]["created_at"]


def test_user_receives_email(shop: Shop, visitor: Visitor, address: str) -> None:
    """One, with the subject that it always had, in text and HTML with the same link."""
    visitor.register(address)
    visitor.waits_for("delivered")

    (letter,) = shop.letters(address)
    assert letter["subject"] == "Please activate your account"
    assert letter["to"] == [address]
    assert shop.url + shop.link(address) in letter["text"]
    assert shop.url + shop.link(address) in letter["html"]
    assert shop.accepted(address) == 1


def test_status_updates_to_completed_after_activation(shop: Shop, visitor: Visitor, address: str) -> None:
    """The original's page could not show it, asked on for minutes, and lost the time of sending."""
    visitor.register(address)
    sent = visitor.waits_for("delivered")

    visitor.confirm(shop.link(address))

    completed = visitor.status()
    assert (completed["status"], completed["terminal"]) == ("completed", True)
    assert completed["sent_at"] == sent["sent_at"]
    assert completed["next"] == "/accounts/login/"


# Email verification


def test_verification_link_works(shop: Shop, visitor: Visitor, address: str) -> None:
    """One click in the browser that registered; used again it says so, and is no error."""
    visitor.register(address)
    link = shop.link(address)

    page = visitor.open(link)
    assert f'Confirm <bdi class="address">{address}</bdi>' in page.text
    answer = visitor.confirm(link)

    assert answer.headers["Location"] == "/accounts/login/?command=activated"
    assert "Your account is already activated. You can log in." in visitor.open(link).text


def test_account_becomes_active(shop: Shop, visitor: Visitor, address: str) -> None:
    """By the click, not by the sending and not by looking at the link."""
    visitor.register(address)
    visitor.open(shop.link(address))
    assert not is_active(shop, address)

    visitor.confirm(shop.link(address))

    assert is_active(shop, address)


def test_user_can_log_in_without_invalid_credentials_message(
    shop: Shop, visitor: Visitor, address: str
) -> None:
    """Neither before the confirmation, when it would be untrue, nor after."""
    visitor.register(address)
    before = visitor.login(address)
    assert before.headers["Location"] == "/accounts/check-email/?first"
    assert "Your password is right." in visitor.open(before.headers["Location"]).text
    visitor.confirm(shop.link(address))

    page = visitor.get("/accounts/login/?command=activated")
    assert CONGRATULATIONS in page.text
    assert "not correct" not in page.text
    assert f'value="{address}"' in page.text
    assert visitor.login(address).headers["Location"] == "/"
    assert f"Hello <bdi>{address}</bdi>" in visitor.get("/").text


def test_messages_are_properly_cleared(shop: Shop, visitor: Visitor, address: str) -> None:
    """
    The original threw away every message that waited. One that has nothing to do with the
    activation survives it, is shown once, and none of the activation's shows up later.
    """
    visitor.register(address)
    visitor.post("/tour/mood/", page="/", mood="instant")
    visitor.confirm(shop.link(address))
    assert CONGRATULATIONS in visitor.get("/accounts/login/?command=activated").text

    visitor.login(address)

    assert "The provider is now: instant." in visitor.get("/").text
    again = visitor.get("/").text
    assert "The provider is now: instant." not in again
    assert CONGRATULATIONS not in again
    assert CONGRATULATIONS not in shop.visitor().get("/accounts/login/?command=activated").text


# Error handling


def test_failed_email_sends_show_error_message(shop: Shop, visitor: Visitor, address: str) -> None:
    """In a sentence of ours, never the provider's."""
    shop.provider.mood("bounces", seconds=0, report_after=0)
    visitor.register(address)

    failed = visitor.waits_for("bounced")

    assert failed["status"] == "failed"
    assert failed["headline"] == f"{address} cannot receive our email"
    assert failed["error_message"] == "The address does not accept our message."
    assert "550" not in str(failed)
    assert failed["headline"] in visitor.get("/accounts/check-email/").text


def test_retry_mechanism_works_for_temporary_failures(shop: Shop, visitor: Visitor, address: str) -> None:
    """ "Try again later": never called failed meanwhile, and sent once."""
    shop.provider.mood("5xx", seconds=0)
    visitor.register(address)
    eventually("it is being retried", lambda: visitor.status()["retry_count"])

    shop.provider.mood("instant")
    status = visitor.waits_for("delivered")

    *refused, taken = [call["status"] for call in shop.calls(address)]
    assert set(refused) == {503}
    assert taken == 201
    assert status["retry_count"] == len(refused)


def test_invalid_activation_tokens_show_error(shop: Shop, visitor: Visitor, address: str) -> None:
    """With a way on: the original sent people to a form that then said "address taken"."""
    visitor.register(address)
    link = shop.link(address)
    uid, token = link.split("/")[-3:-1]
    other = shop.visitor()
    other.register(f"other-{address}"[-60:])
    foreign = shop.link(f"other-{address}"[-60:]).split("/")[-2]

    for wrong in (f"{uid}/{token[:-1]}", f"{uid}/{foreign}", f"x/{token}", "MQ/set-password", f"{uid}/é%00'"):
        page = visitor.open(f"/accounts/activate/{wrong}/")
        assert page.status_code == 410
        assert "This link is no longer valid" in page.text
        assert "Send me a new link" in page.text
        assert f'value="{address}"' in page.text
    assert not is_active(shop, address)
    assert "Confirm" in visitor.open(link).text


def test_database_fallback_works_when_redis_is_unavailable(
    shop: Shop, visitor: Visitor, address: str
) -> None:
    """There is no Redis here, and nothing falls back: the table is the queue."""
    assert not re.search(r"redis|celery", shop.environment.get("CELERY_BROKER_URL", ""))

    visitor.register(address, PASSWORD)

    visitor.waits_for("delivered")
