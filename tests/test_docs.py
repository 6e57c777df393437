"""What the docs say is looked up in the code, so that it cannot rot."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED_TESTS = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINKS = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def page_id(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    """A promise whose proof was renamed away is a promise without proof."""
    missing = [
        f"{path}::{name}"
        for path, name in NAMED_TESTS.findall(page.read_text())
        if f"def {name}(" not in (ROOT / path).read_text()
    ]

    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINKS.findall(page.read_text()) if not (page.parent / link).exists()]

    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_on_a_page_is_python(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_quickstart_and_readme_show_the_same_settings() -> None:
    """The README's are executed from the built wheel (tests/test_wheel.py); so these are, too."""
    readme = (ROOT / "README.md").read_text()
    quickstart = (ROOT / "docs" / "quickstart.md").read_text()
    [block] = [b for b in re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S) if "INSTALLED_APPS" in b]
    lines = [line.split("  #")[0] for line in block.splitlines() if not line.startswith("#")]

    assert "\n".join(lines) in quickstart


def test_guarantees_name_a_proof_for_each_promise() -> None:
    sections = (ROOT / "docs" / "guarantees.md").read_text().split("\n## ")[1:]

    assert len(sections) >= 6
    for section in sections:
        assert NAMED_TESTS.search(section), section.splitlines()[0]
        assert "**Not promised.**" in section, section.splitlines()[0]


def test_every_command_that_a_page_names_exists() -> None:
    commands = {path.stem for path in (ROOT / "src/postroom").glob("**/management/commands/postroom_*.py")}
    named = {name for page in PAGES for name in re.findall(r"\b(postroom_[a-z]+)\b", page.read_text())}
    tables = {"postroom_outboundemail", "postroom_deliveryevent", "postroom_accounts", "postroom_email"}

    assert named - tables <= commands
