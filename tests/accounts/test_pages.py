"""Register, check your e-mail, log in and out: what a person sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.messages import constants
from django.core import mail
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

import postroom
from postroom.accounts import browser as session
from postroom.accounts import verification
from postroom.accounts.models import Registration
from postroom.accounts.registration import register
from postroom.models import EventType, OutboundEmail, State
from tests.accounts.conftest import (
    ADDRESS,
    OTHER_PASSWORD,
    PASSWORD,
    Hashes,
    is_logged_in,
    log_in,
    received,
    register_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


def text_of(answer: HttpResponse) -> str:
    return answer.content.decode()


def seen(answer: HttpResponse, *typed: str) -> tuple[Any, ...]:
    """What an observer can compare: status, names of headers, body without its CSRF token and what was typed."""
    body = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", text_of(answer))
    for word in typed:
        body = body.replace(word, "…")
    return answer.status_code, sorted(answer.headers), answer.headers.get("Location"), body


class TestRegister:
    """W1."""

    def test_it_leads_to_the_waiting_page(self, client: Client):
        answer = register_in(client)

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/check-email/")
        assert Registration.objects.get().address == ADDRESS
        assert mail.outbox == []

    def test_no_mail_goes_out_in_the_request(self, client: Client):
        register_in(client)

        assert mail.outbox == []
        assert len(received()) == 1

    @pytest.mark.parametrize("method", ["get", "head"])
    def test_looking_writes_nothing(self, client: Client, method: str):
        assert getattr(client, method)("/accounts/register/").status_code == 200
        assert not Registration.objects.exists()
        assert not client.session.keys()

    def test_a_refusal_keeps_the_address_and_not_the_password(self, client: Client):
        answer = register_in(client, "ann", "secret-but-short")

        body = text_of(answer)
        assert answer.status_code == 200
        assert 'value="ann"' in body
        assert "secret-but-short" not in body
        assert not Registration.objects.exists()

    def test_the_summary_counts_and_links_the_fields(self, client: Client, settings: Any):
        settings.AUTH_PASSWORD_VALIDATORS = [
            {
                "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
                "OPTIONS": {"min_length": 12},
            }
        ]

        body = text_of(register_in(client, "ann", "short"))

        assert "Two things need a change" in body
        assert 'href="#id_email"' in body
        assert 'href="#id_password"' in body
        assert body.count('aria-invalid="true"') == 2
        assert re.search(r'class="error-summary" role="alert" tabindex="-1" autofocus', body)
        assert body.count("E-mail address: ") == 1

    def test_the_rule_for_passwords_is_said_from_the_start(self, client: Client, settings: Any):
        settings.AUTH_PASSWORD_VALIDATORS = [
            {
                "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
                "OPTIONS": {"min_length": 12},
            }
        ]

        assert "12 characters or more. A sentence is good." in text_of(client.get("/accounts/register/"))

    def test_a_password_like_the_address_is_refused_by_the_sites_rules(self, client: Client, settings: Any):
        settings.AUTH_PASSWORD_VALIDATORS = [
            {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"}
        ]

        assert register_in(client, "annabella@example.com", "annabella").status_code == 200
        assert not Registration.objects.exists()

    @pytest.mark.parametrize(
        ("address", "password"),
        [
            ("", ""),
            ("ann@example.com\r\nBcc: eve@example.com", PASSWORD),
            ("ann@example.com", "x" * 1025),
            ("ann@example.com", "null\x00null"),
            ("ann\x00@example.com", PASSWORD),
            ("a" * 300 + "@example.com", PASSWORD),
            ("ann@" + "ü" * 200 + ".com", PASSWORD),
        ],
    )
    def test_bad_input_is_a_page_and_nothing_else(self, client: Client, address: str, password: str):
        answer = register_in(client, address, password)

        assert answer.status_code == 200
        assert "need" in text_of(answer)
        assert not Registration.objects.exists()

    def test_spaces_in_a_password_count(self, client: Client):
        register_in(client, password=f" {PASSWORD} ")

        assert verification.has_password(Registration.objects.get(), f" {PASSWORD} ")

    def test_fields_it_does_not_know_are_ignored(self, client: Client):
        fields = {
            "email": ADDRESS,
            "password": PASSWORD,
            "is_staff": "1",
            "username": "root",
            "next": "//evil",
        }

        assert client.post("/accounts/register/", fields)["Location"] == "/accounts/check-email/"
        assert not get_user_model().objects.get().is_staff

    def test_who_is_logged_in_is_sent_home(self, client: Client, make_user: Callable[..., Any]):
        client.force_login(make_user())

        assert client.get("/accounts/register/").status_code == 303
        assert register_in(client, "new@example.com").status_code == 303
        assert not Registration.objects.exists()

    def test_the_answer_is_the_same_for_every_address(self, make_user: Callable[..., Any]):
        make_user("confirmed@example.com")
        make_user("disabled@example.com", is_active=False)
        make_user("foreign@example.com", verified=None)
        register("waiting@example.com", PASSWORD)

        answers, pages = set(), set()
        for who in ("nobody", "confirmed", "disabled", "foreign", "waiting"):
            browser, address = Client(), f"{who}@example.com"
            answers.add(repr(seen(register_in(browser, address), address)))
            pages.add(repr(seen(browser.get("/accounts/check-email/"), address)))

        assert len(answers) == 1
        assert len(pages) == 1

    def test_a_form_of_the_site_is_used(self, client: Client, settings: Any):
        settings.POSTROOM_ACCOUNTS = {"REGISTRATION_FORM": f"{__name__}.WithConsent"}

        assert "consent" in text_of(register_in(client))
        assert not Registration.objects.exists()

    @pytest.mark.parametrize("method", ["put", "delete", "patch"])
    def test_other_methods_are_refused(self, client: Client, method: str):
        assert getattr(client, method)("/accounts/register/").status_code == 405


def make_consent_form() -> type:
    from django import forms

    from postroom.accounts.forms import RegistrationForm

    class WithConsent(RegistrationForm):
        consent = forms.BooleanField()

    return WithConsent


WithConsent = make_consent_form()


class TestCheckEmail:
    """W2."""

    def test_it_needs_a_receipt(self, client: Client):
        answer = client.get("/accounts/check-email/")

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/register/")

    def test_another_browser_has_no_receipt(self, client: Client, other_browser: Client):
        register_in(client)

        assert other_browser.get("/accounts/check-email/").status_code == 303

    def test_it_names_the_address_and_shows_the_card(self, client: Client):
        body = text_of(client.get(register_in(client)["Location"]))

        assert "<h1>Check your email</h1>" in body
        assert f'<bdi class="address">{ADDRESS}</bdi>' in body
        assert 'data-url="/accounts/api/check-email-status/"' in body
        assert 'data-step="confirmed"' in body

    def test_it_works_without_a_script(self, client: Client):
        register_in(client)
        waiting = text_of(client.get("/accounts/check-email/"))
        received()
        sent = text_of(client.get("/accounts/check-email/"))

        assert "Preparing your email" in waiting
        assert "Email sent" in sent
        assert "Check again" in sent
        assert "http-equiv" not in sent.lower().replace('http-equiv="content', "")

    @pytest.mark.parametrize(("report", "is_over"), [(EventType.DELIVERED, False), (EventType.BOUNCED, True)])
    def test_an_address_that_cannot_receive_it_gets_the_way_on_and_no_advice_for_waiting(
        self, client: Client, report: EventType, is_over: bool
    ):
        """The card said "use another address" and offered no way to; above it stood "Please open the link"."""
        register_in(client)
        received()
        postroom.note(Registration.objects.get().email, report)

        body = text_of(client.get("/accounts/check-email/"))
        shown = re.sub(r"<(p|details)\b[^>]* hidden>.*?</\1>", "", body, flags=re.DOTALL)

        assert ("Register again" in shown) is is_over
        assert ("Please open the link in it" in shown) is not is_over
        assert ("Nothing there?" in shown) is not is_over

    def test_a_message_that_was_stopped_asks_nobody_to_open_its_link(self, client: Client):
        """Beside "This message was not sent" stood "Please open the link in it", and tips for finding it."""
        register_in(client)
        postroom.cancel(Registration.objects.get().email, actor="anna")

        body = text_of(client.get("/accounts/check-email/"))
        shown = re.sub(r"<(p|details)\b[^>]* hidden>.*?</\1>", "", body, flags=re.DOTALL)

        assert "This message was not sent" in shown
        assert "Register again" in shown
        assert "Please open the link in it" not in shown
        assert "Nothing there?" not in shown

    def test_who_gets_nothing_finds_the_way_to_another_e_mail(self, client: Client):
        """The card says "ask for another one" where nobody can tell whether it went out, and nothing said how."""
        register_in(client)
        now = timezone.now()
        OutboundEmail.objects.update(state=State.UNCERTAIN, uncertain_since=now, settled_at=now)

        body = text_of(client.get("/accounts/check-email/"))

        assert "ask for another one" in body
        assert re.search(
            r'<details.*If nothing comes, <a href="/accounts/register/">register again</a>', body, re.DOTALL
        )

    def test_it_turns_to_confirmed_when_that_happened_elsewhere(self, client: Client):
        register_in(client)
        verification.confirm(Registration.objects.get(), password=PASSWORD)

        body = text_of(client.get("/accounts/check-email/"))

        assert "<h1>Your address is confirmed</h1>" in body
        assert "<title>Your address is confirmed – " in body
        assert "Check your email" not in body
        assert 'href="/accounts/login/"' in body

    def test_who_typed_a_strangers_address_does_not_learn_that_the_stranger_confirmed(self, client: Client):
        """Both registered the same address; only the owner's page turns to confirmed."""
        register_in(client, password=OTHER_PASSWORD)
        owners = register(ADDRESS, PASSWORD)

        verification.confirm(owners, password=PASSWORD)

        assert "confirmed</h1>" not in text_of(client.get("/accounts/check-email/"))
        assert client.get("/accounts/api/check-email-status/").json()["status"] != "completed"

    def test_after_its_time_it_leads_to_a_new_start_and_says_why(self, client: Client, monkeypatch: Any):
        register_in(client)
        later = timezone.now().timestamp() + 25 * 3600
        monkeypatch.setattr(session.time, "time", lambda: later)

        answer = client.get("/accounts/check-email/")

        assert answer["Location"] == "/accounts/register/?over"
        assert "too old to be shown" in text_of(client.get(answer["Location"]))

    def test_the_newest_registration_is_shown(self, client: Client):
        register_in(client, "first@example.com")
        register_in(client, "second@example.com")

        body = text_of(client.get("/accounts/check-email/"))

        assert "second@example.com" in body
        assert "first@example.com" not in body

    def test_a_session_keeps_the_newest_ten(self, client: Client):
        for number in range(12):
            register_in(client, f"ann{number}@example.com")

        assert len(client.session["postroom_accounts"]["registrations"]) == 10

    def test_the_session_holds_no_secret(self, client: Client):
        register_in(client)
        attempt = Registration.objects.get()

        held = repr(dict(client.session))
        for secret in (PASSWORD, attempt.password, attempt.nonce, verification.token(attempt)):
            assert secret not in held


class TestStatusAPI:
    """Contract 3.6: the receipt alone decides what is told."""

    URL = "/accounts/api/check-email-status/"

    def test_it_has_the_keys_of_the_original_and_the_newer_ones(self, client: Client):
        register_in(client)

        answer = client.get(self.URL)

        told = answer.json()
        assert told["status"] == "pending"
        assert {"status", "created_at", "sent_at", "retry_count", "error_message"} <= told.keys()
        assert {
            "detail",
            "type",
            "headline",
            "body",
            "poll_after",
            "terminal",
            "next",
            "error_code",
        } <= told.keys()
        assert told["type"] == "verification"
        assert "no-store" in answer["Cache-Control"]
        assert "Cookie" in answer["Vary"]

    def test_it_goes_from_pending_to_sent_to_completed(self, client: Client):
        register_in(client)
        words = [client.get(self.URL).json()["status"]]
        received()
        words.append(client.get(self.URL).json()["status"])
        verification.confirm(Registration.objects.get(), password=PASSWORD)
        done = client.get(self.URL).json()

        assert [*words, done["status"]] == ["pending", "sent", "completed"]
        assert done["next"] == "/accounts/login/"
        assert done["terminal"] is True

    def test_whoever_has_no_receipt_gets_one_and_the_same_answer(
        self, client: Client, other_browser: Client, make_user: Callable[..., Any]
    ):
        make_user("known@example.com")
        make_user("disabled@example.com", is_active=False)
        register_in(other_browser, "waiting@example.com")
        stranger = Client()
        register_in(stranger, "stranger@example.com")
        stranger.session.flush()
        stranger.cookies["sessionid"] = "0" * 32

        answers = {
            repr((answer.status_code, sorted(answer.headers), answer.content))
            for browser in (client, stranger)
            for query in (
                "",
                "?email=known@example.com",
                "?email=waiting@example.com&type=verification",
                "?email=%00",
            )
            for answer in [browser.get(self.URL + query)]
        }

        assert len(answers) == 1
        assert client.get(self.URL).status_code == 404
        assert client.get(self.URL).json() == {"status": "none"}

    def test_the_address_asked_for_changes_nothing(self, client: Client):
        register_in(client)

        told = client.get(self.URL).json()
        assert client.get(self.URL, {"email": "bob@example.com", "type": "verification"}).json() == told

    @pytest.mark.parametrize("wrong", ["password", "", "verification\x00", "📮"])
    def test_a_wrong_type_is_an_error_whoever_asks(self, client: Client, wrong: str):
        without = client.get(self.URL, {"type": wrong})
        register_in(client)
        with_receipt = client.get(self.URL, {"type": wrong})

        assert without.status_code == with_receipt.status_code == 400
        assert without.content == with_receipt.content
        assert without.json()["status"] == "error"

    def test_it_is_for_reading(self, client: Client):
        assert client.post(self.URL).status_code == 405

    @pytest.mark.parametrize("zone", ["Europe/Vienna", "No/Where", "../../etc/passwd", "\x00", "x" * 5000])
    def test_a_zone_that_is_none_does_no_harm(self, client: Client, zone: str):
        register_in(client)
        received()

        assert client.get(self.URL, {"zone": zone}).status_code == 200

    def test_asking_writes_nothing(self, client: Client, django_assert_num_queries: Any):
        register_in(client)
        before = dict(client.session)

        for _ in range(3):
            client.get(self.URL)

        assert dict(client.session) == before


class TestLogin:
    """W7."""

    def test_a_confirmed_person_gets_in(self, client: Client, confirmed: Registration):
        before = client.session.session_key
        answer = log_in(client)

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/profile/")
        assert is_logged_in(client)
        assert client.session.session_key != before

    def test_the_refusal_says_nothing_about_why(self, client: Client, make_user: Callable[..., Any]):
        make_user("confirmed@example.com")
        make_user("disabled@example.com", is_active=False)
        register("waiting@example.com", PASSWORD)

        pages = set()
        for who in ("nobody", "confirmed", "disabled", "waiting"):
            address = f"{who}@example.com"
            pages.add(repr(seen(log_in(Client(), address, "wrong"), address)))

        [page] = pages
        assert "E-mail address or password is not correct." in page

    def test_register_then_login_gives_the_same_page_for_free_and_taken(self, make_user: Callable[..., Any]):
        """Who registers a stranger's address and logs in must not learn whether it was taken."""
        make_user("taken@example.com")
        make_user("disabled@example.com", is_active=False)

        pages = set()
        for who in ("new", "taken", "disabled"):
            address = f"{who}@example.com"
            register_in(Client(), address)
            elsewhere = Client()
            answer = log_in(elsewhere, address)
            pages.add(repr((seen(answer, address), seen(elsewhere.get(answer["Location"]), address))))

        [page] = pages
        assert "Confirm your address first" in page

    def test_the_right_password_before_the_confirmation_is_no_invalid_credential(
        self, client: Client, attempt: Registration
    ):
        answer = client.post("/accounts/login/", {"username": ADDRESS, "password": PASSWORD}, follow=True)

        body = text_of(answer)
        assert "<h1>Confirm your address first</h1>" in body
        assert 'class="email-status"' in body
        assert "not correct" not in body
        assert not is_logged_in(client)

    def test_a_failure_costs_two_hashes_over_http(self, client: Client, hashes: Hashes):
        log_in(client)

        assert len(hashes) == 2

    def test_the_address_is_filled_in_for_the_browser_that_registered(
        self, client: Client, other_browser: Client
    ):
        register_in(client)

        assert f'value="{ADDRESS}"' in text_of(client.get("/accounts/login/"))
        assert ADDRESS not in text_of(other_browser.get("/accounts/login/"))

    def test_a_refusal_keeps_the_name_and_not_the_password(self, client: Client):
        body = text_of(log_in(client, "bob@example.com", "my secret password"))

        assert 'value="bob@example.com"' in body
        assert "my secret password" not in body

    @pytest.mark.parametrize("good", ["/orders/7/", "/accounts/x?y=1", "http://testserver/orders/"])
    def test_it_goes_on_to_where_the_person_wanted(self, client: Client, confirmed: Registration, good: str):
        assert log_in(client, next=good)["Location"] == good

    @pytest.mark.parametrize(
        "evil",
        [
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "http:///evil.example",
            "///evil.example",
            "https:evil.example",
        ],
    )
    def test_it_never_leads_to_another_site(self, client: Client, confirmed: Registration, evil: str):
        assert log_in(client, next=evil)["Location"] == "/accounts/profile/"

    def test_next_stays_https(self, confirmed: Registration):
        browser = Client()

        answer = browser.post(
            "/accounts/login/",
            {"username": ADDRESS, "password": PASSWORD, "next": "http://testserver/orders/"},
            secure=True,
        )

        assert answer["Location"] == "/accounts/profile/"

    def test_next_survives_a_refusal(self, client: Client):
        page = text_of(client.get("/accounts/login/?next=/orders/"))
        again = text_of(log_in(client, next="/orders/"))

        assert 'name="next" value="/orders/"' in page
        assert 'name="next" value="/orders/"' in again

    def test_command_verification_leads_to_the_waiting_page(self, client: Client):
        register_in(client)

        answer = client.get("/accounts/login/?command=verification&email=x@example.com&async=true")

        assert answer["Location"] == "/accounts/check-email/"

    def test_command_verification_without_a_receipt_is_a_plain_notice(self, client: Client):
        answer = client.get(f"/accounts/login/?command=verification&email={ADDRESS}&async=true")

        body = text_of(answer)
        assert answer.status_code == 200
        assert "open the link in the e-mail" in body
        assert ADDRESS not in body

    def test_command_activated_congratulates_only_where_it_is_true(
        self, client: Client, other_browser: Client
    ):
        register_in(client)
        early = text_of(client.get("/accounts/login/?command=activated"))
        verification.confirm(Registration.objects.get(), password=PASSWORD)

        assert "Congratulations!" not in early
        assert "Congratulations! Your account has been activated successfully." in text_of(
            client.get("/accounts/login/?command=activated")
        )
        assert "Congratulations!" not in text_of(other_browser.get("/accounts/login/?command=activated"))

    def test_the_receipt_survives_the_login(self, client: Client):
        """The waiting tab beside it must still turn to confirmed."""
        register_in(client)
        verification.confirm(Registration.objects.get(), password=PASSWORD)
        log_in(client)

        assert client.get("/accounts/api/check-email-status/").json()["status"] == "completed"

    def test_who_is_logged_in_is_sent_home(self, client: Client, make_user: Callable[..., Any]):
        client.force_login(make_user())

        assert client.get("/accounts/login/")["Location"] == "/accounts/profile/"

    @pytest.mark.parametrize("fields", [{}, {"username": ADDRESS}, {"username": "x" * 300, "password": "y"}])
    def test_bad_input_costs_no_hash(self, client: Client, hashes: Hashes, fields: dict[str, str]):
        assert client.post("/accounts/login/", fields).status_code == 200
        assert hashes == []


class TestLogout:
    """POST only; ends the session on the server, and with it the receipts."""

    def test_it_ends_the_session(self, client: Client):
        register_in(client)
        verification.confirm(Registration.objects.get(), password=PASSWORD)
        log_in(client)

        answer = client.post("/accounts/logout/")

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/login/")
        assert not is_logged_in(client)
        assert client.get("/accounts/api/check-email-status/").status_code == 404

    def test_a_link_does_not_log_out(self, client: Client, make_user: Callable[..., Any]):
        client.force_login(make_user())

        assert client.get("/accounts/logout/").status_code == 405
        assert is_logged_in(client)


def test_the_messages_of_the_site_are_left_alone(client: Client, confirmed: Registration, rf: Any):
    """The original cleared every waiting message at activation; somebody else's were lost with them."""
    from django.contrib.messages.storage.cookie import CookieStorage

    request = rf.get("/")
    storage = CookieStorage(request)
    storage.add(constants.INFO, "Your order was sent.")
    response = HttpResponse()
    storage.update(response)
    client.cookies["messages"] = response.cookies["messages"].value

    log_in(client)

    assert client.cookies["messages"].value


@pytest.mark.parametrize("path", ["/accounts/register/", "/accounts/login/", "/accounts/activate/?opened"])
def test_every_page_keeps_out_of_caches_and_search_engines(client: Client, path: str):
    answer = client.get(path)

    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Robots-Tag"] == "noindex"
    assert answer["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/accounts/register/", "/accounts/login/"])
def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(client: Client, path: str):
    body = text_of(client.get(path))

    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", body)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', body)
    assert '<html lang="en"' in body
