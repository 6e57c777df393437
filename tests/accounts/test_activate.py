"""The link in the browser: what opening it does (nothing), what confirms, and what a scanner achieves (nothing)."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from postroom.accounts import browser as session
from postroom.accounts import verification
from postroom.accounts.models import AccountEmail, Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import (
    ADDRESS,
    OTHER_PASSWORD,
    PASSWORD,
    is_logged_in,
    link_in,
    received,
    register_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpResponse

pytestmark = pytest.mark.django_db

PAGE = "/accounts/activate/?opened"


def path_of(attempt: Registration) -> str:
    return verification.link(attempt).removeprefix("http://testserver")


def facts() -> list[Any]:
    """Every row of ours that the use of a link could change."""
    rows = [Registration.objects.order_by("pk"), AccountEmail.objects.order_by("pk")]
    return [[*found.values()] for found in rows] + [[*get_user_model().objects.order_by("pk").values()]]


def text_of(answer: HttpResponse) -> str:
    return answer.content.decode()


class TestOpening:
    """GET changes nothing and takes the token out of the URL."""

    def test_the_token_leaves_the_url_at_once(self, client: Client, attempt: Registration):
        answer = client.get(path_of(attempt))

        assert (answer.status_code, answer["Location"]) == (303, PAGE)
        assert answer["Referrer-Policy"] == "no-referrer"
        assert "no-store" in answer["Cache-Control"]
        assert answer["X-Robots-Tag"] == "noindex"
        assert verification.token(attempt) not in repr(dict(client.session)) + text_of(client.get(PAGE))

    @pytest.mark.parametrize("method", ["get", "head", "options"])
    @pytest.mark.parametrize("registered_here", [True, False])
    def test_a_hundred_looks_change_nothing(
        self, client: Client, other_browser: Client, method: str, registered_here: bool
    ):
        register_in(client)
        browser = client if registered_here else other_browser
        path = path_of(Registration.objects.get())
        before = facts()

        for _ in range(50):
            getattr(browser, method)(path)
            getattr(browser, method)(PAGE)

        assert facts() == before
        assert not is_logged_in(browser)

    @pytest.mark.parametrize("header", ["Purpose", "Sec-Purpose"])
    @pytest.mark.parametrize("value", ["prefetch", "prefetch;prerender", "Prefetch"])
    def test_fetching_ahead_opens_nothing(
        self, client: Client, attempt: Registration, header: str, value: str
    ):
        answer = client.get(path_of(attempt), headers={header: value})

        assert answer.status_code == 204
        assert not client.session.keys()

    def test_head_opens_nothing(self, client: Client, attempt: Registration):
        assert client.head(path_of(attempt)).status_code == 303
        assert not client.session.keys()

    def test_a_bad_token_writes_no_session(self, client: Client, attempt: Registration):
        answer = client.get(path_of(attempt)[:-3] + "/")

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/activate/?invalid")
        # Asked first: looking at the session of the test client makes one.
        assert not Session.objects.exists()
        assert not client.session.keys()

    @pytest.mark.parametrize("method", ["post", "put", "delete"])
    def test_the_link_is_for_reading_and_stays_out_of_the_log(
        self, attempt: Registration, method: str, caplog: pytest.LogCaptureFixture
    ):
        answer = getattr(Client(enforce_csrf_checks=True), method)(path_of(attempt))

        assert answer.status_code == 405
        assert verification.token(attempt) not in caplog.text


class TestRegisteringBrowser:
    """One click."""

    @pytest.fixture
    def path(self, client: Client) -> str:
        register_in(client)
        return link_in(received()[0])

    def test_one_click_confirms_and_leads_to_the_login_with_the_address(self, client: Client, path: str):
        page = text_of(client.get(path, follow=True))
        answer = client.post("/accounts/activate/")
        login = text_of(client.get(answer["Location"]))

        assert 'type="password"' not in page
        assert f'Confirm <bdi class="address">{ADDRESS}</bdi>' in page
        assert (answer.status_code, answer["Location"]) == (303, "/accounts/login/?command=activated")
        assert "Congratulations! Your account has been activated successfully." in login
        assert f'value="{ADDRESS}"' in login
        assert get_user_model().objects.get().is_active
        assert not is_logged_in(client)

    def test_the_session_gets_a_new_key(self, client: Client, path: str):
        client.get(path)
        before = client.session.session_key

        client.post("/accounts/activate/")

        assert client.session.session_key != before
        assert client.get("/accounts/check-email/").status_code == 200

    def test_a_site_may_log_in_at_once(self, client: Client, path: str, settings: Any):
        settings.POSTROOM_ACCOUNTS = {"LOGIN_AFTER_VERIFICATION": True}
        client.get(path)

        assert client.post("/accounts/activate/")["Location"] == "/accounts/profile/"
        assert is_logged_in(client)

    def test_a_second_click_says_that_it_is_done(self, client: Client, path: str):
        client.get(path)
        client.post("/accounts/activate/")

        for answer in (client.post("/accounts/activate/"), client.get(path, follow=True)):
            assert answer.status_code == 200
            assert "Your account is already activated. You can log in." in text_of(answer)

    def test_without_the_link_nothing_is_confirmed(self, client: Client):
        """The receipt shows who registered, not who reads the mailbox."""
        register_in(client)

        assert client.post("/accounts/activate/").status_code == 400
        assert AccountEmail.objects.get().verified_at is None

    def test_another_attempt_of_the_same_browser_does_not_do(self, client: Client, path: str):
        """The link belongs to somebody else's attempt for the same address; the receipt to one's own."""
        theirs = register(ADDRESS, OTHER_PASSWORD)

        client.get(path_of(theirs))

        assert client.post("/accounts/activate/").status_code == 200
        assert AccountEmail.objects.get().verified_at is None


class TestElsewhere:
    """The password chosen at registration, which logs in."""

    def test_the_page_asks_for_it_and_says_why(self, client: Client, attempt: Registration):
        page = text_of(client.get(path_of(attempt), follow=True))

        assert "You registered in another browser, so please type the password you chose." in page
        assert 'type="password"' in page
        assert "Confirm and log in" in page

    def test_the_password_confirms_and_logs_in(self, client: Client, attempt: Registration):
        client.get(path_of(attempt))
        before = client.session.session_key

        answer = client.post("/accounts/activate/", {"password": PASSWORD})

        assert (answer.status_code, answer["Location"]) == (303, "/accounts/profile/")
        assert is_logged_in(client)
        assert client.session.session_key != before
        assert get_user_model().objects.get().check_password(PASSWORD)

    def test_a_wrong_one_is_refused_and_the_link_survives(self, client: Client, attempt: Registration):
        client.get(path_of(attempt))

        wrong = client.post("/accounts/activate/", {"password": "wrong"})
        right = client.post("/accounts/activate/", {"password": PASSWORD})

        assert wrong.status_code == 200
        assert "Your link still works." in text_of(wrong)
        assert right.status_code == 303

    def test_somebody_elses_login_stays(
        self, client: Client, attempt: Registration, make_user: Callable[..., Any]
    ):
        bob = make_user("bob@example.com")
        client.force_login(bob)

        page = text_of(client.get(path_of(attempt), follow=True))
        answer = client.post("/accounts/activate/", {"password": PASSWORD})

        assert "bob@example.com" in page
        assert answer["Location"] == PAGE
        assert client.session["_auth_user_id"] == str(bob.pk)
        done = text_of(client.get(PAGE))
        assert "already activated" in done
        # A button "Log in" led home, where Bob was greeted.
        assert "<bdi>bob@example.com</bdi> is logged in, and stays so." in done
        assert '<a class="button"' not in done
        assert AccountEmail.objects.get(address=ADDRESS).verified_at is not None

    def test_a_link_used_elsewhere_is_calm(self, client: Client, confirmed: Registration):
        answer = client.get(path_of(confirmed), follow=True)

        assert answer.status_code == 200
        assert "Your account is already activated. You can log in." in text_of(answer)
        assert client.post("/accounts/activate/", {"password": PASSWORD}).status_code == 200
        assert not is_logged_in(client)


class TestLinkOver:
    """W6 offers to register again, and does not tell whose the link was."""

    def over(self, attempt: Registration) -> str:
        attempt.expires_at = timezone.now().replace(microsecond=0) - timedelta(minutes=1)
        attempt.save()
        return path_of(attempt)

    def test_an_expired_link_offers_a_new_start_with_the_address(self, client: Client, attempt: Registration):
        answer = client.get(self.over(attempt), follow=True)

        body = text_of(answer)
        assert answer.status_code == 410
        assert "This link is no longer valid" in body
        assert 'action="/accounts/register/"' in body
        assert f'value="{ADDRESS}"' in body

    def test_a_link_that_runs_out_while_the_page_is_open(self, client: Client, attempt: Registration):
        client.get(path_of(attempt))
        self.over(attempt)

        assert client.post("/accounts/activate/", {"password": PASSWORD}).status_code == 410

    def test_registering_again_gives_a_link_that_works(self, client: Client, attempt: Registration):
        client.get(self.over(attempt))

        register_in(client)

        client.get(link_in(received()[-1]))
        assert client.post("/accounts/activate/").status_code == 303

    @pytest.mark.parametrize(
        "path",
        [
            "/accounts/activate/MQ/c9x-0123456789abcdef0123456789abcdef/",
            "/accounts/activate/%F0%9F%93%AE/%00/",
            "/accounts/activate/AAAA/BBBB/",
            "/accounts/activate/",
            "/accounts/activate/?invalid",
        ],
    )
    def test_what_is_no_link_gets_the_same_page_without_an_address(
        self, client: Client, attempt: Registration, path: str
    ):
        """The first one is a link of the original: they still lie in mailboxes on the day of the change."""
        answer = client.get(path, follow=True)

        assert answer.status_code == 410
        assert ADDRESS not in text_of(answer)

    def test_a_bad_link_is_called_bad_also_after_a_good_one(self, client: Client, attempt: Registration):
        client.get(path_of(attempt))

        assert client.get("/accounts/activate/AAAA/BBBB/", follow=True).status_code == 410

    def test_the_browser_that_registered_finds_its_address_filled_in(self, client: Client):
        register_in(client)

        assert f'value="{ADDRESS}"' in text_of(client.get("/accounts/activate/?invalid"))

    def test_the_account_is_gone(self, client: Client, attempt: Registration):
        path = path_of(attempt)
        client.get(path)
        get_user_model().objects.get().delete()

        assert client.get(path, follow=True).status_code == 410
        assert client.get(PAGE).status_code == 400


class TestCookies:
    """A browser that keeps none is told so, and what helps."""

    def test_without_cookies_the_page_behind_the_link_says_so(self, attempt: Registration):
        Client().get(path_of(attempt))

        answer = Client().get(PAGE)

        assert answer.status_code == 400
        assert "This browser did not keep the cookie" in text_of(answer)
        assert Client().post("/accounts/activate/").status_code == 400

    def test_an_opened_link_is_good_for_an_hour(
        self, client: Client, attempt: Registration, monkeypatch: pytest.MonkeyPatch
    ):
        client.get(path_of(attempt))
        later = time.time() + 3601
        monkeypatch.setattr(session.time, "time", lambda: later)

        assert client.get(PAGE).status_code == 400


class Page(HTMLParser):
    """Every link and every form of a page, as a scanner sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[tuple[str, str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in found}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "form":
            self.forms.append((given.get("method", "get"), given.get("action", ""), {}))
        elif tag == "input" and self.forms and "name" in given:
            self.forms[-1][2][given["name"]] = given.get("value", "")


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_scanner_that_follows_everything_and_types_nothing_activates_nothing(
    client: Client, attempt: Registration, rounds: int
):
    """
    Mail scanners follow links, run scripts, and press the buttons of every form as it stands, days
    before the owner of the mailbox looks.
    """
    scanner = Client(enforce_csrf_checks=True)
    [message] = received()
    before, pressed = facts(), []
    for _ in range(rounds):
        seen, waiting = set(), [*re.findall(r"http://testserver(\S+)", message.body)]
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = scanner.get(path, follow=True)
            here = answer.request["PATH_INFO"]
            page = Page(text_of(answer))
            waiting += [urljoin(here, link) for link in page.links if not link.startswith(("#", "http"))]
            for method, action, fields in page.forms:
                pressed.append(action)
                getattr(scanner, method)(urljoin(here, action), fields, follow=True)

    assert pressed == [PAGE] * rounds
    assert facts() == before
    assert not is_logged_in(scanner)


def test_after_the_scanner_the_owner_confirms_as_if_nothing_had_been(client: Client):
    register_in(client)
    path = link_in(received()[0])
    scanner = Client()
    scanner.get(path)
    scanner.post("/accounts/activate/")

    client.get(path)

    assert client.post("/accounts/activate/").status_code == 303


def test_the_waiting_page_turns_to_completed_when_confirmed_elsewhere(client: Client, other_browser: Client):
    register_in(client)
    other_browser.get(link_in(received()[0]))
    other_browser.post("/accounts/activate/", {"password": PASSWORD})

    told = client.get("/accounts/api/check-email-status/").json()

    assert (told["status"], told["next"]) == ("completed", "/accounts/login/")


def test_after_a_whole_run_no_usable_link_lies_anywhere(client: Client):
    """Sessions decoded, outbox, events, attempts: a dump of everything opens no account."""
    from django.apps import apps

    register_in(client)
    attempt = Registration.objects.get()
    client.get(link_in(received()[0]))

    dump = repr([[*model._base_manager.values()] for model in apps.get_models()])
    dump += repr([row.get_decoded() for row in Session.objects.all()])

    assert str(attempt.id) in dump
    assert verification.token(attempt) not in dump
    assert PASSWORD not in dump
