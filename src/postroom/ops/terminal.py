"""
A diagnosis as a terminal shows it: the first line is enough, the rest says why and what to do.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from django.utils.translation import gettext as _

from postroom.ops.diagnosis import Diagnosis
from postroom.ops.words import clock

INDENT: Final = 10
HEADLINE_WIDTH: Final = 84


def as_text(diagnosis: Diagnosis, *, width: int = 120) -> str:
    """Return the diagnosis as lines of at most *width* characters; commands in it are never broken."""
    code = "" if diagnosis.code == "OK" else diagnosis.code
    first = f"{diagnosis.level:<{INDENT}}{diagnosis.headline}"
    lines = [f"{first:<{HEADLINE_WIDTH}}  {code:<3}  {clock(diagnosis.at, diagnosis.at)}"]
    lines += _block("", diagnosis.summary, width)
    for section in diagnosis.sections:
        lines += _block(section.label, section.lines, width)
    lines += _block(_("Also"), diagnosis.also, width)
    return "\n".join(lines)


def _block(label: str, texts: Sequence[str], width: int) -> list[str]:
    """Return *texts* indented; the label stands before the first line, and above it where it is too long."""
    lines = [line for text in texts for line in _wrapped(text, width - INDENT)]
    if not lines:
        return []
    head = f"  {label}  ".ljust(INDENT)
    indented = [" " * INDENT + line for line in lines]
    return [head + lines[0], *indented[1:]]


def _wrapped(text: str, width: int) -> list[str]:
    """Break a sentence; a line with a gap of spaces in it is laid out already, a command stays whole."""
    if "   " in text or "python manage.py" in text:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
