"""
``python tools/pictures.py``: take the pictures of the README anew, of the real pages.

Opens the example shop in a directory that is thrown away, registers, and waits until the page
says that the e-mail has arrived. Needs what ``make setup-dev`` installs, and a Chromium.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SIZE = {"width": 640, "height": 490}

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.journeys.shop import Shop


def main() -> None:
    """Write one picture for light and one for dark screens."""
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from playwright.sync_api import sync_playwright

    from tests import servers
    from tests.journeys.shop import open_shop

    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_shop(Path(folder)) as shop, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=servers.chromium_executable(), args=list(servers.CHROMIUM_ARGUMENTS)
        )
        for scheme, name in (("light", "waiting.png"), ("dark", "waiting-dark.png")):
            take(browser, shop, scheme, PICTURES / name)
        browser.close()


def take(browser: Browser, shop: Shop, scheme: str, path: Path) -> None:
    """Register, wait for "It has arrived", and take the picture."""
    context = browser.new_context(
        base_url=shop.url,
        viewport=SIZE,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=2,
    )
    page = context.new_page()
    page.goto("/accounts/register/")
    page.get_by_label("E-mail address").fill("ann@example.com")
    page.get_by_label("Password").fill("a sentence that nobody guesses")
    page.get_by_role("button", name="Create account").click()
    page.get_by_role("heading", name="It has arrived at example.com").wait_for()
    page.screenshot(path=path)
    context.close()
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")  # noqa: T201


if __name__ == "__main__":
    main()
