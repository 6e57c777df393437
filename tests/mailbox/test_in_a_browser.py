"""The mailbox in a real Chromium: an e-mail that attacks does nothing, and its link works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.mailbox.store import Outcome
from tests.mailbox.far_sides import EVIL_SUBJECT, evil, message, recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from pytest_django.fixtures import Settings
    from pytest_django.live_server_helper import LiveServer

    from postroom.mailbox.store import Store

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("mailbox")]


@pytest.fixture(params=[320, 1280], ids=["phone", "desk"])
def page(
    request: pytest.FixtureRequest,
    chromium: Browser,
    live_server: LiveServer,
    mailbox: None,
    settings: Settings,
) -> Iterator[Page]:
    """A page of the narrowest and one of a usual width, on the site's own host."""
    settings.POSTROOM = {**settings.POSTROOM, "SITE_URL": live_server.url}
    context = chromium.new_context(viewport={"width": request.param, "height": 800}, base_url=live_server.url)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def test_an_e_mail_that_attacks_does_nothing_and_its_link_works(page: Page, path: Path, store: Store) -> None:
    recorder(path, None).send_messages([evil()])

    page.goto("/mailbox/1/")
    frame = page.frame_locator("iframe")
    frame.locator("#read").wait_for()

    assert EVIL_SUBJECT in page.locator("h2").inner_text()
    assert page.title().startswith(EVIL_SUBJECT)
    assert frame.locator("body").get_attribute("id") is None
    assert frame.locator("body").evaluate("() => self.origin") == "null"

    frame.locator("#clear").click()
    with page.expect_popup() as opened:
        frame.locator("#link").click()
    opened.value.wait_for_function("document.title === 'Landed, scripts run'")
    assert opened.value.url.endswith("/accounts/activate/MQ/abc-def/")
    assert len(store.newest()) == 1
    assert page.locator("iframe").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]  # type: ignore[index]


def test_what_happens_while_somebody_looks_appears_without_a_reload(
    page: Page, path: Path, store: Store
) -> None:
    post = recorder(path, None)
    page.goto("/mailbox/")
    page.get_by_text("No e-mail yet.").wait_for()

    post.send_messages([message(subject="The first")])
    page.get_by_role("heading", name="The first").wait_for()
    page.evaluate("window.stays = true")
    store.answer(1, Outcome.ERROR, answer="OSError: cut")
    page.get_by_text("OSError: cut").wait_for()
    post.send_messages([message(subject="The second")])
    page.get_by_role("link", name="The second").wait_for()

    assert page.get_by_role("heading", name="The first").is_visible()
    assert page.locator(".letters a[aria-current]").inner_text().startswith("The first")
    assert page.evaluate("window.stays")


def test_the_button_opens_the_link_and_no_policy_is_broken(
    page: Page, path: Path, live_server: LiveServer
) -> None:
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text))
    composed = message()
    composed.body = f"Hello,\n\n{live_server.url}/accounts/activate/MQ/abc-def/\n"
    recorder(path, None).send_messages([composed])

    page.goto("/mailbox/")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Confirm link").click()
    opened.value.wait_for_function("document.title === 'Landed, scripts run'")

    for part in ("Text", "Source", "Headers"):
        page.get_by_role("link", name=part, exact=True).click()
        page.wait_for_load_state()
    assert [line for line in complaints if "favicon" not in line and "404" not in line] == []
