"""The two messages: what they say, to whom, and when they are not sent."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone, translation

from postroom.accounts import emails, verification
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import ADDRESS, OTHER_PASSWORD, PASSWORD, link_in, received

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


def html_of(message: Any) -> str:
    return str(message.alternatives[0][0])


def words_in(html: str) -> str:
    body = re.sub(r"(?s)<head>.*</head>|<[^>]+>", " ", html)
    return " ".join(body.replace("&#x27;", "'").split())


def test_the_verification_mail_holds_the_link_in_full_in_both_parts(attempt: Registration):
    [message] = received()

    link = verification.link(attempt)
    assert message.to == [ADDRESS]
    assert message.subject == "Confirm your address for testserver"
    assert link in message.body
    assert f'href="{link}"' in html_of(message)
    assert link in words_in(html_of(message))


def test_it_says_how_long_the_link_works_in_words_and_absolutely(attempt: Registration):
    [message] = received()

    until = attempt.expires_at.strftime("%Y, %H:%M (UTC)")
    for part in (" ".join(message.body.split()), words_in(html_of(message))):
        assert "24 hours" in part
        assert until in part


def test_both_parts_say_the_same(attempt: Registration, make_user: Callable[..., Any]):
    make_user("bob@example.com")
    register("bob@example.com", PASSWORD)

    for message in received():
        spoken = words_in(html_of(message))
        for paragraph in message.body.partition("\n-- \n")[0].split("\n\n"):
            assert " ".join(paragraph.split()) in spoken


def test_a_taken_address_is_told_so_at_the_address_of_the_account(make_user: Callable[..., Any]):
    """Never at the spelling that was typed (CVE-2019-19844)."""
    make_user("Ann@example.com")
    register("ANN@EXAMPLE.COM", PASSWORD)

    [message] = received()

    assert message.to == ["Ann@example.com"]
    assert message.subject == "You already have an account at testserver"
    assert "http://testserver/accounts/login/" in message.body
    assert "/activate/" not in message.body + html_of(message)


def test_a_foreign_account_is_told_at_its_own_column(make_user: Callable[..., Any]):
    make_user("Ann@bücher.example", verified=None)
    register("ann@BÜCHER.example", PASSWORD)

    assert received()[0].to == ["Ann@bücher.example"]


def test_every_address_in_a_message_is_on_this_site(attempt: Registration, make_user: Callable[..., Any]):
    """A picture from elsewhere, or a rewritten link, would hand the token to a third party."""
    make_user("bob@example.com")
    register("bob@example.com", PASSWORD)

    for message in received():
        html = html_of(message)
        links = re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", html)
        assert links
        assert {urlsplit(link).netloc for link in links} == {"testserver"}
        assert "<img" not in html


def test_the_html_part_names_its_language_and_knows_the_dark(attempt: Registration):
    [message] = received()

    html = html_of(message)
    assert '<html lang="en" dir="ltr">' in html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "prefers-color-scheme: dark" in html


def test_the_message_is_in_the_language_of_the_registration():
    """The worker speaks another language than the visitor did."""
    with translation.override("de"):
        register(ADDRESS, PASSWORD, time_zone="Europe/Vienna")

    [message] = received()

    assert message.subject == "Bitte bestätigen Sie Ihre Adresse für testserver"
    assert "24 Stunden" in message.body
    assert "(Europe/Vienna)" in message.body
    assert '<html lang="de"' in html_of(message)
    assert translation.get_language() == "en"


def test_a_name_with_an_ampersand_is_written_as_it_is(attempt: Registration, settings: Any):
    settings.POSTROOM = {**settings.POSTROOM, "SITE_NAME": "Tea & Sons"}

    [message] = received()

    assert message.subject == "Confirm your address for Tea & Sons"
    assert "Tea & Sons" in message.body
    assert "Tea &amp; Sons" in html_of(message)


def test_links_are_built_from_the_configured_url_alone(attempt: Registration, settings: Any):
    settings.POSTROOM = settings.POSTROOM | {"SITE_URL": "https://shop.example"}

    [message] = received()

    assert f"https://shop.example/accounts/activate/{verification.uid(attempt)}/" in message.body
    assert "testserver" not in message.body


def test_it_carries_the_headers_of_an_automatic_message(attempt: Registration):
    message = received()[0].message()

    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"]
    assert message["Message-ID"]


def test_a_second_composition_has_the_same_link(attempt: Registration):
    first = emails.verification_email(str(attempt.id))
    second = emails.verification_email(str(attempt.id))

    assert link_in(first) == link_in(second)


def test_the_names_of_the_original_templates_are_there(attempt: Registration, tmp_path: Any, settings: Any):
    folder = tmp_path / "postroom" / "accounts" / "emails"
    folder.mkdir(parents=True)
    (folder / "verification.txt").write_text(
        "{{ user.email }} {{ protocol }}://{{ domain }}{% url 'activate' uid token %}"
    )
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]

    [message] = received()

    assert message.body.strip() == f"{ADDRESS} {verification.link(attempt)}"


class TestNothingToSend:
    """What became pointless while it waited is not sent, and the row says why."""

    def reason(self, attempt: Registration) -> tuple[str, str]:
        assert received() == []
        assert attempt.email is not None
        attempt.email.refresh_from_db()
        return attempt.email.state, attempt.email.reason

    def test_confirmed_meanwhile(self, attempt: Registration):
        sibling = register(ADDRESS, OTHER_PASSWORD)
        verification.confirm(attempt, registering_browser=True)

        assert self.reason(sibling) == ("cancelled", "verified")

    def test_confirmed_while_this_attempt_was_being_written(self, attempt: Registration):
        """The confirmation looked for siblings before this one was there, so it is not void."""
        AccountEmail.objects.update(verified_at=timezone.now())

        assert self.reason(attempt) == ("cancelled", "verified")

    def test_the_time_of_the_link_is_over(self, attempt: Registration):
        Registration.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

        assert self.reason(attempt) == ("cancelled", "expired")

    def test_the_account_is_gone(self, attempt: Registration):
        email = attempt.email
        get_user_model().objects.get().delete()
        attempt.email = email

        assert self.reason(attempt) == ("cancelled", "registration_gone")

    def test_the_account_that_had_the_address_is_gone(self, make_user: Callable[..., Any]):
        user = make_user()
        attempt = register(ADDRESS, PASSWORD)
        user.delete()

        assert self.reason(attempt) == ("cancelled", "account_gone")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(86400, "24 hours"), (900, "15 minutes"), (60, "1 minute"), (7200, "2 hours"), (5400, "90 minutes")],
)
def test_durations_in_words(seconds: int, words: str):
    assert emails.in_words(timedelta(seconds=seconds)) == words


def test_the_composers_are_registered_under_stable_names():
    """Rows of the outbox name them; a rename would leave waiting messages without a composer."""
    assert emails.verification_email.kind == "accounts.verification"
    assert emails.already_registered_email.kind == "accounts.already_registered"
