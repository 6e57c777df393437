"""
Keep addresses, links and keys out of what operators read.

Texts of providers and of exceptions quote the recipient, the URL with its token, and sometimes
the key. Hides the patterns; they take rather too much than too little.
"""

from __future__ import annotations

import re


def redact(text: str, limit: int = 500) -> str:
    """Return *text* on one line of at most *limit* characters without addresses, links and keys."""
    text = storable(text)
    if len(text) > 4000:
        text = text[:4000].rsplit(maxsplit=1)[0]
    text = _URL.sub("<url>", text)
    text = _ADDRESS.sub("<address>", text)
    text = _NAMED_SECRET.sub(r"\1\2<key>", text)
    text = _LONG_SECRET.sub("<key>", text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def storable(text: str) -> str:
    """Return *text* without what no database takes: a NUL, half of a surrogate pair."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>]+", re.IGNORECASE)
_ADDRESS = re.compile(
    r"""(?:"[^"\n]{0,64}"|[^\s<>()\[\],;:"@]{1,128})(?:@|%40)(?:\[[^\]\s]*\]|[^\s<>()\[\],;:"'@]+)"""
)
_NAMED_SECRET = re.compile(
    r"\b((?:x-)?api[-_ ]?key|authorization|password|passwd|secret|token|bearer|basic)\b"
    r"([\"']?\s*[:=]\s*[\"']?(?:bearer |basic )?|(?<=bearer)\s+|(?<=basic)\s+)[^\s\"',}]{4,}",
    re.IGNORECASE,
)
_LONG_SECRET = re.compile(r"(?<![\w+=-])(?=[\w+=-]*\d)[\w+=-]{20,}")
