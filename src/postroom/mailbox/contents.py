"""
What is inside a letter: its text, its HTML, its headers, its attachments, its link.

Reads MIME and trusts none of it: whatever an e-mail holds, each function returns something that
can be shown.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_URL: Final = re.compile(r"https?://[^\s<>\"']+")
_CONFIRMS: Final = re.compile(r"activat|confirm|verif", re.IGNORECASE)
_HEAD: Final = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)
_DOCTYPE: Final = re.compile(r"\s*<!doctype[^>]*>", re.IGNORECASE)
_NEW_TAB: Final = '<base target="_blank">'


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The link of an e-mail that a person would follow."""

    url: str
    confirms: bool
    """Its path looks like one that confirms an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that comes with an e-mail."""

    name: str
    type: str
    size: int
    """Bytes, decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A letter, taken apart."""

    text: str
    html: str
    """As it was sent; see ``framed_html`` for what may be shown."""

    headers: tuple[tuple[str, str], ...]
    """In their order, unfolded and decoded; a name may come twice."""

    attachments: tuple[Attachment, ...]
    pictures: tuple[tuple[str, str], ...]
    """Content-ID and ``data:`` URL of each inline picture."""

    def header_dict(self) -> dict[str, str]:
        """Return the headers as a mapping; the values of one that comes twice are joined by a comma."""
        joined: dict[str, str] = {}
        for name, value in self.headers:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined


def read(source: bytes) -> Contents:
    """Take a message apart. Never raises: what cannot be read is empty."""
    message = BytesParser(policy=policy.default).parsebytes(source)
    assert isinstance(message, EmailMessage)
    return Contents(
        text=_body(message, "plain"),
        html=_body(message, "html"),
        headers=_headers(message),
        attachments=tuple(_attachments(message)),
        pictures=tuple(_pictures(message)),
    )


def find_link(contents: Contents, site_url: str) -> Link | None:
    """
    Return the first link to the site itself, one that confirms an address before all others;
    from the text, or from the HTML where there is no text.

    The host is compared, so that no e-mail can put a foreign link under our button.
    """
    host = urlsplit(site_url).netloc.lower()
    urls = [url for url in _urls(contents) if host and _netloc(url) == host]
    confirming = [url for url in urls if _CONFIRMS.search(urlsplit(url).path)]
    if not urls:
        return None
    return Link(url=(confirming or urls)[0], confirms=bool(confirming))


def framed_html(contents: Contents) -> str:
    """
    Return the HTML for a sandboxed frame: links open a new tab, inline pictures are inlined.

    Makes nothing safe by itself: the policy with which it is served does (``views.html``).
    """
    page = contents.html
    for content_id, url in contents.pictures:
        page = page.replace(f"cid:{content_id}", url)
    # Behind <head> or the doctype: before them it would turn the page to quirks mode.
    opening = _HEAD.search(page) or _DOCTYPE.match(page)
    end = opening.end() if opening else 0
    return page[:end] + _NEW_TAB + page[end:]


def _body(message: EmailMessage, subtype: str) -> str:
    try:
        part = message.get_body((subtype,))
    except (AttributeError, KeyError):  # a multipart that names a type and holds no parts
        return ""
    return _decoded(part).replace("\r\n", "\n") if part is not None else ""


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset("utf-8"), errors="replace")
    except LookupError:
        return payload.decode("utf-8", errors="replace")


def _headers(message: EmailMessage) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((name, str(value)) for name, value in message.items())
    except Exception:  # noqa: BLE001 - Python's parsers of structured headers raise many things on malformed ones
        return tuple((name, str(value)) for name, value in message.raw_items())


def _attachments(message: EmailMessage) -> Iterable[Attachment]:
    for part in message.walk():
        if part.get_content_disposition() == "attachment":
            payload = part.get_payload(decode=True)
            yield Attachment(
                name=part.get_filename() or part.get_content_type(),
                type=part.get_content_type(),
                size=len(payload) if isinstance(payload, bytes) else len(str(part)),
            )


def _pictures(message: EmailMessage) -> Iterable[tuple[str, str]]:
    for part in message.walk():
        content_id = str(part.get("Content-ID", "")).strip().strip("<>")
        payload = part.get_payload(decode=True)
        if content_id and part.get_content_maintype() == "image" and isinstance(payload, bytes):
            yield content_id, f"data:{part.get_content_type()};base64,{base64.b64encode(payload).decode()}"


def _urls(contents: Contents) -> list[str]:
    if contents.text.strip():
        return [url.rstrip(".,;:!?)]}*_") for url in _URL.findall(contents.text)]
    finder = _LinkFinder()
    finder.feed(contents.html)
    return [url for url in finder.urls if _URL.fullmatch(url)]


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


class _LinkFinder(HTMLParser):
    """Collects the targets of links, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.urls += [value for name, value in attrs if name == "href" and value]
