"""What goes wrong around the pages: the database, cookies, old pages, forged hosts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)
from django.test import Client

from postroom.accounts import verification
from postroom.accounts.middleware import DatabaseAwayMiddleware
from postroom.accounts.models import Registration
from postroom.accounts.registration import register
from tests.accounts.conftest import (
    ADDRESS,
    PASSWORD,
    is_logged_in,
    link_in,
    log_in,
    received,
    register_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpResponse

pytestmark = pytest.mark.django_db


def text_of(answer: HttpResponse) -> str:
    return answer.content.decode()


def refuse_writes(execute: Any, sql: str, *rest: Any) -> Any:
    """A database that answers questions and takes nothing: a standby, a full disk, a file of somebody else."""
    if sql.startswith(("INSERT", "UPDATE", "DELETE")):
        raise InternalError("cannot execute in a read-only transaction")
    return execute(sql, *rest)


class TestDatabaseAway:
    """503, with the form kept, by a middleware."""

    @pytest.fixture(autouse=True)
    def middleware(self, settings: Any) -> None:
        name = f"{DatabaseAwayMiddleware.__module__}.{DatabaseAwayMiddleware.__name__}"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, name]

    @pytest.fixture(params=[OperationalError, ProgrammingError, InternalError])
    def away(self, request: pytest.FixtureRequest, middleware: None) -> Iterator[None]:
        """Every statement is refused: no such file, no such table, read only."""

        def refuse(*args: Any) -> None:
            raise request.param("unable to open database file")

        with ExitStack() as stack:
            stack.enter_context(connection.execute_wrapper(refuse))
            yield

    def test_the_registration_form_is_kept_but_for_the_password(self, client: Client, away: None):
        answer = register_in(client)

        body = text_of(answer)
        assert answer.status_code == 503
        assert answer["Retry-After"] == "30"
        assert "Nothing was saved." in body
        assert f'value="{ADDRESS}"' in body
        assert PASSWORD not in body
        assert 'name="csrfmiddlewaretoken"' in body
        assert 'action="/accounts/register/"' in body

    def test_the_login_form_is_kept_as_well(self, client: Client, away: None):
        answer = log_in(client)

        assert answer.status_code == 503
        assert f'value="{ADDRESS}"' in text_of(answer)

    def test_a_link_can_be_opened_again(self, client: Client, away: None, caplog: pytest.LogCaptureFixture):
        answer = client.get("/accounts/activate/AAAAAAAAAAAAAAAAAAAAAA/BBBBBBBBBBBBBBBBBBBBBB/")

        assert answer.status_code == 503
        assert "Try again" in text_of(answer)
        assert "BBBBBB" not in caplog.text

    def test_a_browser_with_a_session_gets_the_page_and_keeps_its_cookie(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ):
        register_in(client)
        cookie = client.cookies["sessionid"].value

        def refuse(*args: Any) -> None:
            raise OperationalError

        with connection.execute_wrapper(refuse):
            answers = [client.get("/accounts/check-email/"), register_in(client, "bob@example.com")]
            told = client.get("/accounts/api/check-email-status/")

        assert [answer.status_code for answer in answers] == [503, 503]
        assert (told.status_code, told.json()["status"]) == (503, "unavailable")
        assert client.cookies["sessionid"].value == cookie
        assert client.get("/accounts/check-email/").status_code == 200

    def test_where_only_writing_is_refused_a_link_can_be_opened_later(
        self, client: Client, attempt: Registration
    ):
        """
        Opening a link writes the session and nothing else, after the view has answered: that was a
        500, and in a browser with a session "Bad Request".
        """
        path = verification.link(attempt).removeprefix("http://testserver")
        client.raise_request_exception = False
        with_session = Client(raise_request_exception=False)
        register_in(with_session)

        with connection.execute_wrapper(refuse_writes):
            answers = [browser.get(path) for browser in (client, with_session)]

        assert [answer.status_code for answer in answers] == [503, 503]
        assert all("Nothing was saved." in text_of(answer) for answer in answers)
        assert client.get(path, follow=True).status_code == 200

    @pytest.mark.django_db(transaction=True)
    def test_where_only_writing_is_refused_a_session_stays_as_it_was(
        self, client: Client, confirmed: Registration
    ):
        """Logging out empties the session before it finds that it cannot be deleted."""
        log_in(client)
        client.raise_request_exception = False

        with connection.execute_wrapper(refuse_writes):
            answer = client.post("/accounts/logout/", headers={"Referer": "http://testserver/orders/"})

        assert answer.status_code == 503
        assert 'href="http://testserver/orders/"' in text_of(answer)
        assert is_logged_in(client)

    def test_the_kept_form_works_once_the_database_is_back(self, client: Client):
        def refuse(*args: Any) -> None:
            raise OperationalError

        with connection.execute_wrapper(refuse):
            register_in(client)

        assert register_in(client).status_code == 303

    def test_it_is_logged_with_its_cause(self, client: Client, caplog: pytest.LogCaptureFixture):
        def refuse(*args: Any) -> None:
            raise OperationalError("unable to open database file")

        with connection.execute_wrapper(refuse):
            register_in(client)

        assert "database away" in caplog.text
        assert "unable to open database file" in caplog.text
        assert ADDRESS not in caplog.text

    @pytest.mark.parametrize("error", [IntegrityError, DatabaseError, ValueError])
    def test_a_fault_of_ours_is_no_outage(self, client: Client, monkeypatch: Any, error: type[Exception]):
        def fail(*args: Any, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr("postroom.accounts.views.registration.register", fail)
        client.raise_request_exception = False

        assert register_in(client).status_code == 500


class TestCSRF:
    """Every form is checked; a refusal explains and keeps what was typed."""

    @pytest.fixture(autouse=True)
    def own_page(self, settings: Any) -> None:
        settings.CSRF_FAILURE_VIEW = "postroom.accounts.views.csrf_failure"

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("/accounts/register/", {"email": ADDRESS, "password": PASSWORD}),
            ("/accounts/login/", {"username": ADDRESS, "password": PASSWORD}),
            ("/accounts/activate/", {"password": PASSWORD}),
            ("/accounts/logout/", {}),
        ],
    )
    def test_every_form_is_checked(self, path: str, fields: dict[str, str]):
        answer = Client(enforce_csrf_checks=True).post(path, fields)

        assert answer.status_code == 403
        assert not Registration.objects.exists()

    def test_a_browser_without_cookies_is_told_so(self):
        answer = register_in(Client(enforce_csrf_checks=True))

        assert "This browser did not keep the cookie" in text_of(answer)
        assert f'value="{ADDRESS}"' in text_of(answer)
        assert PASSWORD not in text_of(answer)

    @pytest.mark.parametrize(
        ("referer", "leads_to"),
        [
            ("http://testserver/orders/?page=2", "http://testserver/orders/?page=2"),
            ("https://evil.example/", "/"),
            ("javascript:alert(1)", "/"),
            (None, "/"),
        ],
    )
    def test_what_cannot_be_kept_leads_back_to_the_page_that_had_the_form(
        self, referer: str | None, leads_to: str
    ):
        """ "Try again" was a link to the address that takes forms only, and that answers 405 with nothing."""
        headers = {"Referer": referer} if referer else {}

        answer = Client(enforce_csrf_checks=True).post("/accounts/logout/", headers=headers)

        assert answer.status_code == 403
        assert f'<a class="button" href="{leads_to}">Try again</a>' in text_of(answer)

    def test_a_page_that_was_open_too_long_can_be_sent_again(self):
        browser = Client(enforce_csrf_checks=True)
        browser.get("/accounts/register/")

        refused = browser.post(
            "/accounts/register/", {"email": ADDRESS, "password": PASSWORD, "csrfmiddlewaretoken": "x" * 32}
        )
        body = text_of(refused)
        token = body.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        again = browser.post(
            "/accounts/register/", {"email": ADDRESS, "password": PASSWORD, "csrfmiddlewaretoken": token}
        )

        assert "the page was open for too long" in body
        assert f'value="{ADDRESS}"' in body
        assert again.status_code == 303


class TestHost:
    """Links are built from SITE_URL; a forged Host is refused before anything happens."""

    def test_a_forged_host_is_refused(self, client: Client):
        answer = client.post(
            "/accounts/register/", {"email": ADDRESS, "password": PASSWORD}, headers={"Host": "evil.example"}
        )

        assert answer.status_code == 400
        assert not Registration.objects.exists()

    def test_a_host_that_is_allowed_but_not_ours_is_in_no_mail(self, client: Client, settings: Any):
        settings.ALLOWED_HOSTS = ["*"]

        client.post(
            "/accounts/register/",
            {"email": ADDRESS, "password": PASSWORD},
            headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"},
        )

        [message] = received()
        assert "evil" not in message.message().as_string()
        assert link_in(message)


@pytest.mark.parametrize("where", ["email", "password", "next", "extra"])
def test_a_line_break_in_any_field_reaches_no_header(client: Client, where: str):
    fields = {"email": ADDRESS, "password": PASSWORD, where: f"{ADDRESS}\r\nBcc: eve@example.com"}

    client.post("/accounts/register/", fields)

    for message in received():
        assert message.recipients() == [ADDRESS]
        assert "eve@example.com" not in message.message().as_string()


def test_a_failing_provider_changes_no_answer(client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch):
    """A reset page elsewhere answered 500 for known addresses only, when mail was down (CVE-2024-45231)."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("provider is away")

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
    register("taken@example.com", PASSWORD)

    answers = {register_in(Client(), address).status_code for address in (ADDRESS, "taken@example.com")}

    assert answers == {303}
