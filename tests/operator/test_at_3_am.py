"""The page for the night knows every code that the doctor can print, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postroom.ops import situations

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "at-3-am.md").read_text()
PARAGRAPHS = dict(re.findall(r"^## (D\d\d) [^\n]+\n(.+?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CODES = sorted(
    {
        code
        for module in (ROOT / "src" / "postroom" / "ops").glob("*.py")
        for code in re.findall(r'code(?::[^=]+)?\s*=\s*"(D\d\d)"', module.read_text())
    }
)


def test_every_code_has_its_paragraph_and_every_paragraph_its_code() -> None:
    assert sorted(PARAGRAPHS) == CODES
    assert len(CODES) >= len(situations.SITUATIONS)


@pytest.mark.parametrize("code", CODES)
def test_a_paragraph_says_what_one_sees_what_it_means_what_to_type_and_what_not_to_do(code: str) -> None:
    text = PARAGRAPHS[code]

    assert text.startswith("You see")
    for words in (r"\bmeans\b", r"\b[Tt]ype\b", r"\bDo not\b"):
        assert re.search(words, text), words


def test_the_codes_stand_in_the_order_in_which_they_are_asked() -> None:
    """The page is read from the top at night, as the doctor asks."""
    asked = [re.search(r"(D\d\d)", str(situation.__doc__)) for situation in situations.SITUATIONS]

    in_order = [match[1] for match in asked if match]

    assert len(in_order) == len(situations.SITUATIONS)
    assert [code for code in PARAGRAPHS if code in in_order] == in_order


def test_every_command_on_the_page_exists() -> None:
    commands = {path.stem for path in (ROOT / "src/postroom/management/commands").glob("postroom_*.py")}

    named = set(re.findall(r"\b(postroom_[a-z]+)\b", PAGE))

    assert named - {"postroom_email"} <= commands
    assert "postroom_doctor" in named
