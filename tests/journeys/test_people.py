"""
People at the shop: what they see in a real browser while real processes send their e-mail.

The provider's log and the mailbox are the judges. Every page is collected for what a browser
complains about: a policy that is broken, a script that fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.journeys.shop import PASSWORD, Shop
from tests.journeys.stage import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.timeout(180)

PREPARING = "Preparing your email"
SENDING = "Sending…"
CHECKING = "Checking whether it went out"
SENT = "Email sent"
ARRIVED = "It has arrived at example.com"
CONFIRMED = "Your address is confirmed"
CONGRATULATIONS = "Congratulations! Your account has been activated successfully."

REMEMBER = """
const headline = document.querySelector("[data-part=headline]");
window.headlines = [headline.textContent];
new MutationObserver(() => window.headlines.push(headline.textContent))
  .observe(headline, {childList: true, characterData: true, subtree: true});
"""
"""What the card says from now on. A reload would forget it, which is the point."""


class Browsers:
    """Browsers of different people. What one of them complains about is kept."""

    def __init__(self, chromium: Browser, shop: Shop, folder: Path) -> None:
        self._chromium, self._shop, self._folder = chromium, shop, folder
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def another(self, *, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Page:
        """Return a page in a browser that has never been here."""
        context = self._chromium.new_context(
            base_url=self._shop.url,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )
        context.set_default_timeout(60_000)
        context.on("console", lambda line: self._hear(line.text) if line.type == "error" else None)
        context.on("weberror", lambda failure: self._hear(str(failure.error)))
        self._contexts.append(context)
        return context.new_page()

    def _hear(self, complaint: str) -> None:
        self.complaints.append(complaint)

    def picture(self, page: Page, name: str) -> None:
        """Keep a picture of the whole page, and see to it that nothing has to be scrolled sideways."""
        page.screenshot(path=self._folder / f"{name}.png", full_page=True)
        assert page.viewport_size is not None
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]

    def close(self) -> None:
        """Close them all."""
        for context in self._contexts:
            context.close()


@pytest.fixture
def browsers(chromium: Browser, shop: Shop, tmp_path: Path) -> Iterator[Browsers]:
    """Browsers; those with scripts must have nothing to complain about when the test ends."""
    opened = Browsers(chromium, shop, tmp_path)
    try:
        yield opened
    finally:
        opened.close()
    assert opened.complaints == []


def register(page: Page, address: str) -> None:
    """Register as a person does, and be at the waiting page."""
    page.goto("/")
    page.get_by_role("link", name="Register", exact=True).first.click()
    page.get_by_label("E-mail address").fill(address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.get_by_role("heading", name="Check your email").wait_for()


def says(page: Page, headline: str) -> None:
    """Wait until the card says it, by itself."""
    page.locator("[data-part=headline]").get_by_text(headline, exact=True).wait_for()


def has_said(page: Page, headline: str) -> None:
    """Wait until the card has said it since REMEMBER, whatever it says by now."""
    eventually(f"the card says {headline}", lambda: headline in page.evaluate("window.headlines"))


def steps(page: Page) -> dict[str, str]:
    """Return the state of each step."""
    return {
        str(item.get_attribute("data-step")): str(item.get_attribute("data-state"))
        for item in page.locator(".steps li").all()
    }


def in_mailbox(page: Page, subject: str) -> Page:
    """Open the mailbox with the newest e-mail, in a tab beside the page."""
    mailbox = page.context.new_page()
    mailbox.goto("/mailbox/")
    mailbox.get_by_role("heading", name=subject).wait_for()
    return mailbox


def buy(page: Page) -> None:
    """Buy the first thing of the shop. By the keyboard: the strip above may grow while a mouse button is down."""
    page.get_by_role("button", name=re.compile("Buy")).first.press("Enter")
    page.get_by_role("heading", name="Thank you").wait_for()


def test_the_whole_path_in_the_browser_that_registered(browsers: Browsers, shop: Shop) -> None:
    """
    Nothing is reloaded from the first paint to "It has arrived". The worker is frozen while the
    page loads, so that the first state is to be seen, too.
    """
    address = "ann@example.com"
    # The page asks once a second; each state stays for longer than a busy machine may keep it from asking.
    shop.provider.mood(seconds=6, report_after=6)
    page = browsers.another()

    with shop.frozen_worker():
        register(page, address)
        page.evaluate(REMEMBER)
        assert steps(page) == {"saved": "done", "sent": "now", "arrived": "todo", "confirmed": "todo"}
        browsers.picture(page, "1-saved")
    has_said(page, SENDING)
    browsers.picture(page, "2-sending")
    has_said(page, SENT)
    browsers.picture(page, "3-sent")
    says(page, ARRIVED)
    browsers.picture(page, "4-arrived")
    assert page.evaluate("window.headlines") == [PREPARING, SENDING, SENT, ARRIVED]
    assert page.title().startswith(ARRIVED)
    assert steps(page) == {"saved": "done", "sent": "done", "arrived": "done", "confirmed": "now"}

    mailbox = in_mailbox(page, "Please activate your account")
    browsers.picture(mailbox, "5-mailbox")
    with mailbox.expect_popup() as popup:
        mailbox.get_by_role("link", name="Confirm link").click()
    confirm = popup.value
    confirm.get_by_role("heading", name=f"Confirm {address}").wait_for()
    assert confirm.url == f"{shop.url}/accounts/activate/?opened"
    assert confirm.locator("input:not([type=hidden])").count() == 0
    browsers.picture(confirm, "6-confirm")
    confirm.get_by_role("button", name="Confirm").click()

    confirm.get_by_text(CONGRATULATIONS).wait_for()
    assert confirm.get_by_label("E-mail address").input_value() == address
    browsers.picture(confirm, "7-login")
    says(page, CONFIRMED)
    confirm.get_by_label("Password").fill(PASSWORD)
    confirm.get_by_role("button", name="Log in").click()
    confirm.get_by_text(f"Hello {address}").wait_for()
    browsers.picture(confirm, "8-shop")

    shop.provider.mood("instant")
    buy(confirm)
    says(confirm, ARRIVED)
    browsers.picture(confirm, "9-order")
    assert steps(confirm) == {"saved": "done", "sent": "done", "arrived": "done"}
    (letter, _) = shop.letters(address)
    assert "Thank you" in letter["text"]
    assert shop.accepted(address) == 2
    orders = f"SELECT confirmation_id FROM shop_order o JOIN accounts_account a ON a.id = o.customer_id AND a.email = '{address}'"
    ((confirmation,),) = shop.select(orders)
    assert confirmation


def test_another_browser_is_asked_for_the_password_and_the_first_one_notices(
    browsers: Browsers, shop: Shop
) -> None:
    """Registered at the desk, confirmed on the phone."""
    address = "ben@example.com"
    desk, phone = browsers.another(scheme="dark"), browsers.another(width=320, scheme="dark")
    register(desk, address)
    says(desk, ARRIVED)
    desk.evaluate("window.stays = true")

    phone.goto(shop.link(address))
    phone.get_by_text("You registered in another browser").wait_for()
    phone.get_by_label("Password").fill("a sentence that somebody guesses")
    phone.get_by_role("button", name="Confirm and log in").click()
    phone.get_by_role("alert").wait_for()
    browsers.picture(phone, "1-wrong-password")
    phone.get_by_label("Password").fill(PASSWORD)
    phone.get_by_role("button", name="Confirm and log in").click()
    phone.get_by_text(f"Hello {address}").wait_for()
    browsers.picture(phone, "2-shop")

    says(desk, CONFIRMED)
    desk.get_by_role("heading", name=CONFIRMED, level=1).wait_for()
    assert desk.title().startswith(CONFIRMED)
    assert steps(desk)["confirmed"] == "done"
    assert desk.evaluate("window.stays")
    browsers.picture(desk, "3-confirmed")
    desk.get_by_role("link", name="Log in").last.click()
    assert desk.get_by_label("E-mail address").input_value() == address


def test_the_whole_path_without_javascript(browsers: Browsers, shop: Shop) -> None:
    """Every page says what was true when it was asked for, and has a way to ask again."""
    address = "cat@example.com"
    page = browsers.another(width=320, scripts=False)
    with shop.frozen_worker():
        register(page, address)
        assert page.locator("[data-part=headline]").inner_text() == PREPARING
        browsers.picture(page, "1-saved")

    def arrived() -> bool:
        page.get_by_role("link", name="Check again").click()
        return page.locator("[data-part=headline]").inner_text() == ARRIVED

    eventually("it has arrived", arrived)
    mailbox = in_mailbox(page, "Please activate your account")
    page.goto(str(mailbox.get_by_role("link", name="Confirm link").get_attribute("href")))
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text(CONGRATULATIONS).wait_for()
    assert page.get_by_label("E-mail address").input_value() == address
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text(f"Hello {address}").wait_for()
    browsers.picture(page, "2-shop")
    buy(page)
    eventually("the order's e-mail has arrived", arrived)
    browsers.picture(page, "3-order")


def test_a_taken_address_gets_the_same_page_and_a_true_e_mail(browsers: Browsers, shop: Shop) -> None:
    """Who types somebody else's address learns nothing; the owner learns that it was tried."""
    owner, address = shop.visitor(), "dan@example.com"
    owner.register(address)
    owner.confirm(shop.link(address))
    owner.login(address)
    stranger, newcomer = browsers.another(), browsers.another()
    other = "new@example.com"

    register(stranger, address)
    register(newcomer, other)
    for page in (stranger, newcomer):
        says(page, ARRIVED)

    def text(page: Page, typed: str) -> str:
        return page.locator("body").inner_text().replace(typed, "ADDRESS")

    assert text(stranger, address) == text(newcomer, other)
    assert stranger.title() == newcomer.title()
    taken, *_ = shop.letters(address)
    assert "You already have an account" in taken["subject"]
    assert "Nothing about it was changed." in taken["text"]
    assert "/activate/" not in taken["text"] + taken["html"]
    assert f"Hello <bdi>{address}" in owner.get("/").text
    assert shop.visitor().login(address, "a sentence of the stranger").status_code == 200


def test_an_address_that_bounces_gets_a_way_on_before_your_eyes(browsers: Browsers, shop: Shop) -> None:
    """What belongs to waiting goes, what helps comes, and nothing was reloaded."""
    shop.provider.mood(seconds=1, report="hard_bounce", report_after=1)
    page = browsers.another(width=320)
    register(page, "gus@example.com")
    page.evaluate("window.stays = true")
    again = page.get_by_role("link", name="Register again")
    assert not again.is_visible()

    says(page, "gus@example.com cannot receive our email")

    again.wait_for()
    assert not page.get_by_text("Please open the link in it").is_visible()
    assert not page.get_by_text("Nothing there?").is_visible()
    assert page.evaluate("window.stays")
    browsers.picture(page, "bounced")
    again.click()
    page.get_by_role("heading", name="Create an account").wait_for()


def test_registration_answers_while_the_provider_hangs(shop: Shop) -> None:
    """The answer must be there while the provider's is not; how long either takes is no matter here."""
    shop.provider.mood("hangs")
    first, second = shop.visitor(), shop.visitor()

    answers = [first.register("eve@example.com")]
    eventually("the provider was asked", lambda: shop.calls("eve@example.com"))
    answers.append(second.register("fay@example.com"))
    eventually("the provider was asked again", lambda: shop.calls("fay@example.com"))
    hanging = [*shop.calls("eve@example.com"), *shop.calls("fay@example.com")]

    assert [call["answered"] for call in hanging] == [None, None]
    assert [answer.headers["Location"] for answer in answers] == ["/accounts/check-email/"] * 2
    assert second.status()["detail"] == "sending"
    shop.provider.mood("instant")
    shop.worker.kill()
    shop.start_worker()
    for visitor in (first, second):
        visitor.waits_for("delivered")
    assert shop.accepted("eve@example.com") == shop.accepted("fay@example.com") == 1


def test_the_page_stays_true_when_the_worker_is_killed(browsers: Browsers, shop: Shop) -> None:
    """
    Killed while the page says "Sending". Nobody can say then whether the e-mail went out; the next
    worker finds out by asking with the same key, as soon as the provider is well again.
    """
    address = "gil@example.com"
    shop.provider.mood("no-reports", seconds=60)
    page = browsers.another()
    register(page, address)
    says(page, SENDING)
    page.evaluate(REMEMBER)

    # The next worker is there already: it would be another thing to say if it took half a minute to come.
    shop.provider.mood("5xx", seconds=1)
    dying = shop.worker
    shop.start_worker()
    dying.kill()
    says(page, CHECKING)
    browsers.picture(page, "1-checking")
    eventually("it was asked while it was ill", lambda: len(shop.calls(address)) > 1)
    shop.provider.mood("no-reports", seconds=0)
    says(page, SENT)
    browsers.picture(page, "2-sent")

    first, *repeats = shop.calls(address)
    assert first["outcome"] == "accepted"
    assert {call["outcome"] for call in repeats} == {"service_unavailable", "duplicate_parameter"}
    assert {call["key"] for call in repeats} == {first["key"]}
    assert page.evaluate("window.headlines") == [SENDING, CHECKING, SENT]
