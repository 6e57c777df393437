"""
What mail servers do to links before anybody reads the e-mail: none of it may confirm an address.

They ask with HEAD and GET, again and again; some run a real browser, follow where it leads, run the
scripts and submit every form as it stands. What they do not do is type a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.journeys.shop import PASSWORD, Shop
from tests.journeys.stage import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.timeout(180)


def what_stands(shop: Shop, since: int) -> dict[str, list[tuple[Any, ...]]]:
    """
    Return all rows of postroom and of the accounts, as far as a visitor could change them. E-mails
    up to the number *since* are other people's: the worker and the provider may still be at them.
    """
    tables = [name for name in shop.tables() if name.startswith(("postroom_", "accounts_", "shop_"))]
    tables.remove("postroom_workerheartbeat")
    which = {
        "postroom_outboundemail": f"WHERE id > {since}",
        "postroom_deliveryevent": f"WHERE email_id > {since}",
    }
    return {
        name: sorted(shop.select(f"SELECT * FROM {name} {which.get(name, '')}"), key=repr) for name in tables
    }


def newest_email(shop: Shop) -> int:
    """Return the highest number that an e-mail of the shop has."""
    return max((number for (number,) in shop.select("SELECT id FROM postroom_outboundemail")), default=0)


def test_asking_for_the_link_changes_nothing(shop: Shop) -> None:
    """HEAD and GET twenty times each, with and without cookies, and what else may come."""
    ann, scanner = shop.visitor(), shop.visitor()
    since = newest_email(shop)
    ann.register("ann@scanned.example.com")
    link = shop.link("ann@scanned.example.com")
    ann.waits_for("delivered")
    # The provider tells of a request, too, and in any order.
    reported = f"SELECT id FROM postroom_deliveryevent WHERE email_id > {since} AND occurred_at IS NOT NULL"
    eventually("both reports are in", lambda: len(shop.select(reported)) == 2)
    before = what_stands(shop, since)
    assert before["postroom_outboundemail"]
    assert before["postroom_deliveryevent"]

    for _ in range(20):
        assert scanner.request("HEAD", link).status_code == 303
        assert scanner.open(link).status_code == 200
    for method in ("OPTIONS", "POST", "PUT", "DELETE"):
        assert scanner.request(method, link).status_code == 405
    for purpose in ("prefetch", "prefetch;prerender"):
        assert ann.get(link, headers={"Sec-Purpose": purpose}).status_code == 204
    assert ann.open(link).status_code == 200

    assert what_stands(shop, since) == before
    assert ann.status()["status"] == "sent"


def test_a_browser_that_submits_every_form_activates_nothing(shop: Shop, chromium: Browser) -> None:
    """It does everything but type. The person comes afterwards, and the link still works."""
    ben = shop.visitor()
    ben.register("ben@scanned.example.com")
    link = shop.link("ben@scanned.example.com")
    ben.waits_for("delivered")
    context = chromium.new_context(base_url=shop.url)
    context.set_default_timeout(60_000)

    submitted = submit_every_form(context.new_page(), link)
    context.close()

    forms = {"/accounts/activate/?opened", "/accounts/login/", "/accounts/register/"}
    assert forms <= set(submitted)
    assert ben.status()["status"] == "sent"
    first = shop.visitor().login("ben@scanned.example.com")
    assert first.headers["Location"] == "/accounts/check-email/?first"
    elsewhere = shop.visitor()
    assert elsewhere.confirm(link, password=PASSWORD).headers["Location"] == "/"
    eventually("it is confirmed", lambda: ben.status()["status"] == "completed")


def submit_every_form(page: Page, link: str) -> list[str]:
    """
    Open the link and the pages about accounts that it leads to; submit every form, by script and by
    its button. Return where the forms went.
    """
    page.goto(link)
    leads_to = page.eval_on_selector_all("a[href*='/accounts/']", "all => all.map(link => link.href)")
    targets = []
    for address in dict.fromkeys([page.url, *leads_to]):
        page.goto(address)
        for number in range(page.locator("form").count()):
            for press in ("form => form.submit()", "form => form.querySelector('button').click()"):
                page.goto(address)
                form = page.locator("form").nth(number)
                targets.append(str(form.get_attribute("action")))
                with page.expect_navigation():
                    form.evaluate(press)
    return targets
