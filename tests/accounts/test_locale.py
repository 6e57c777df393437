"""The translation is whole, and the compiled file is the one of the text."""

from __future__ import annotations

import gettext
import re
from pathlib import Path

import postroom.accounts

FOLDER = Path(postroom.accounts.__path__[0]) / "locale" / "de" / "LC_MESSAGES"


def texts() -> dict[str, str]:
    """Read ``django.po``, in which every text stands on one line."""
    found = re.findall(
        r'^msgid "(.+)"\n(?:msgid_plural .*\n)?msgstr(?:\[0\])? "(.*)"$', written(), re.MULTILINE
    )
    return {as_text(source): as_text(target) for source, target in found}


def written() -> str:
    return (FOLDER / "django.po").read_text(encoding="utf-8")


def as_text(quoted: str) -> str:
    return quoted.replace('\\"', '"')


def test_nothing_is_left_in_english():
    empty = [source for source, target in texts().items() if not target]

    assert len(texts()) > 50
    assert empty == []
    assert "fuzzy" not in written()


def test_placeholders_and_markup_are_the_same_on_both_sides():
    parts = re.compile(r"%\(\w+\)[sd]|<[^>]+>")

    for source, target in texts().items():
        assert sorted(parts.findall(source)) == sorted(parts.findall(target)), source


def test_the_compiled_file_is_up_to_date():
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)

    for source, target in texts().items():
        known = compiled.gettext(source)
        assert target in (known, compiled.ngettext(source, "", 1)), source
