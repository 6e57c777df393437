"""
Who writes an e-mail, and when: a composer, at sending time.

An e-mail in the outbox is a *kind* and JSON arguments. ``@composer`` gives a kind its function;
``compose(row)`` calls it in the language and time zone of the one who asked, and fixes the bytes
there, so that nothing lazy leaves this module.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate, parseaddr
from functools import lru_cache
from typing import Any, Generic, ParamSpec
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.mail import EmailAlternative, EmailMessage, EmailMultiAlternatives
from django.template import Context, TemplateDoesNotExist
from django.template.backends.django import Template as DjangoTemplate
from django.template.loader import get_template, render_to_string
from django.utils import timezone, translation
from django.utils.encoding import punycode
from django.utils.functional import Promise
from django.utils.translation import gettext

from postroom import outbox
from postroom.conf import config
from postroom.exceptions import ArgumentsNotJSON, PostroomError, UnknownKind
from postroom.models import Lane, OnUncertain, OutboundEmail

P = ParamSpec("P")

_composers: dict[str, Composer[Any]] = {}


class Withdraw(PostroomError):
    """Raised by a composer: there is nothing to send, and the word says why (``Withdraw("verified")``)."""

    @property
    def reason(self) -> str:
        return str(self) or "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer(Generic[P]):
    """A kind of e-mail: the function that writes it, and how urgent and how long-lived it is."""

    kind: str
    write: Callable[P, EmailMessage]
    lane: str = "normal"
    expires_in: dt.timedelta | None = None
    on_uncertain: str = "hold"
    options: Mapping[str, Any] | None = None

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> OutboundEmail:
        """
        Promise this e-mail, in the caller's transaction; the arguments are the composer's own, by name.

        Raises ArgumentsNotJSON for a value that JSON cannot carry: pass ids, not objects.
        """
        if args:
            raise TypeError(f"{self.kind}: pass the arguments by name, they are stored by name.")
        return outbox.enqueue(self.kind, _as_json(self.kind, kwargs), **self._chosen(self.lane))

    def bulk_enqueue(self, arguments: Iterable[Mapping[str, Any]]) -> list[uuid.UUID]:
        """
        Promise thousands of this e-mail, all or none, in the caller's transaction; return their UUIDs in order.

        *arguments* holds the composer's arguments for each of them, and may be a generator. A
        *normal* kind goes into the lane *bulk*, so that nobody waits behind it; ``using(lane=…)``
        says otherwise. Raises ArgumentsNotJSON as ``enqueue`` does; then nothing is promised.
        """
        rows = (_as_json(self.kind, each) for each in arguments)
        lane = "bulk" if self.lane == "normal" else self.lane
        return outbox.bulk_enqueue(self.kind, rows, **self._chosen(lane))

    def _chosen(self, lane: str) -> dict[str, Any]:
        return {
            "lane": lane,
            "expires_in": self.expires_in,
            "on_uncertain": self.on_uncertain,
            **(self.options or {}),
        }

    def using(self, **options: Any) -> Composer[P]:
        """Return this composer with other options of ``outbox.enqueue`` (``due_at``, ``expires_at``, ``lane`` …)."""
        return Composer(
            kind=self.kind,
            write=self.write,
            lane=self.lane,
            expires_in=self.expires_in,
            on_uncertain=self.on_uncertain,
            options={**(self.options or {}), **options},
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> EmailMessage:
        """Write the message now and return it, for previews and tests; nothing is sent."""
        return self.write(*args, **kwargs)


def composer(
    kind: str,
    *,
    lane: str = "normal",
    expires_in: dt.timedelta | None = None,
    on_uncertain: str = "hold",
) -> Callable[[Callable[P, EmailMessage]], Composer[P]]:
    """
    Make a function that returns an ``EmailMessage`` the composer of *kind*.

    *kind* is a stable name (``"shop.order_confirmation"``): it stands in the table, so a renamed
    function keeps it. The function runs in a worker, later, without a request.
    """
    Lane[lane.upper()], OnUncertain(on_uncertain)

    def register(write: Callable[P, EmailMessage]) -> Composer[P]:
        known = _composers.get(kind)
        if known and known.write.__qualname__ != write.__qualname__:
            raise PostroomError(f"Two composers claim the kind {kind!r}: {known.write!r} and {write!r}.")
        made = Composer(kind=kind, write=write, lane=lane, expires_in=expires_in, on_uncertain=on_uncertain)
        _composers[kind] = made
        return made

    return register


def kinds() -> frozenset[str]:
    """Return every kind that this process can write."""
    return frozenset(_composers)


def compose(email: OutboundEmail, *, mime: bool = True) -> EmailMessage:
    """
    Write the message of *email*, in its language and time zone.

    What comes back is ready for any thread: headers are strings, and it carries the row's stable
    Message-ID, so that a repeat is the same message. With *mime* ``message()`` has been called
    once, so that whatever is wrong with it is known now. A mailer that writes its own payload from
    the fields needs no MIME: writing it takes 1.2 ms, the letter and that payload 0.3 ms (3 KB,
    Django 6.1, 2026-11).
    Raises Withdraw, UnknownKind, ValueError for a header that holds a line end, or whatever the
    composer raises.
    """
    found = _composers.get(email.kind)
    if found is None:
        raise UnknownKind(
            f"No composer for kind {email.kind!r} in this process (it knows {', '.join(sorted(_composers)) or 'none'}). "
            "The e-mail waits for code that has it."
        )
    with _surroundings(email):
        message = found.write(**email.args)
        if not isinstance(message, EmailMessage):
            raise TypeError(
                f"The composer of {email.kind!r} returned {type(message).__name__}, not an EmailMessage."
            )
        _complete(message, email)
        _check_headers(message)
        if mime:
            message.message()
    return message


def render(
    template: str,
    context: Mapping[str, Any],
    *,
    to: Sequence[str],
    subject: str | None = None,
    from_email: str | None = None,
    reply_to: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> EmailMultiAlternatives:
    """
    Write a message from the templates ``NAME.subject.txt``, ``NAME.txt`` and, if there is one, ``NAME.html``.

    White space in the subject is folded, so that no value can begin a header of its own. Values are
    escaped in the HTML alone.
    """
    values = dict(context)
    if subject is None:
        subject = _render_text(f"{template}.subject.txt", values)
    message = EmailMultiAlternatives(
        subject=" ".join(subject.split()),
        body=_render_text(f"{template}.txt", values).strip() + "\n",
        from_email=from_email,
        to=list(to),
        reply_to=list(reply_to or ()) or None,
        headers=dict(headers or {}),
    )
    try:
        html = render_to_string(f"{template}.html", values)
    except TemplateDoesNotExist as error:
        # Only the absence of this very template means "text only"; one that it includes is a fault.
        if error.args and error.args[0] != f"{template}.html":
            raise
        return message
    message.attach_alternative(html, "text/html")
    return message


def _render_text(name: str, values: dict[str, Any]) -> str:
    """Render a template that is no HTML: Django escapes in every file, and "O&#x27;Hara" is no name."""
    template = get_template(name)
    if isinstance(template, DjangoTemplate):
        return str(template.template.render(Context(values, autoescape=False)))
    return template.render(values)


def _complete(message: EmailMessage, email: OutboundEmail) -> None:
    """Add what every message of the outbox carries, and turn lazy strings into strings."""
    message.subject = str(message.subject)
    message.body = str(message.body)
    message.from_email = str(message.from_email or settings.DEFAULT_FROM_EMAIL)
    for field in ("to", "cc", "bcc", "reply_to"):
        # Django and Anymail take a user for its address, if it says it; what is written down is text.
        setattr(message, field, [str(address) for address in getattr(message, field) if address])
    if not message.recipients():
        raise ValueError(f"The composer of {email.kind!r} named no recipient.")
    headers = {name.lower() for name in message.extra_headers}
    defaults = {
        "Message-ID": f"<{email.uuid.hex}.{email.epoch}@{_domain_of(message.from_email)}>",
        "Date": formatdate(),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
    }
    for name, value in defaults.items():
        if name.lower() not in headers:
            message.extra_headers[name] = value
    message.extra_headers = {
        name: str(value) if isinstance(value, Promise) else value
        for name, value in message.extra_headers.items()
    }
    if isinstance(message, EmailMultiAlternatives):
        message.alternatives = [
            EmailAlternative(str(content) if isinstance(content, Promise) else content, mimetype)
            for content, mimetype in message.alternatives
        ]


def _check_headers(message: EmailMessage) -> None:
    """Raise ValueError for a header that holds another one, and for text that no charset has."""
    fields: dict[str, Sequence[Any]] = {
        "Subject": [message.subject],
        "From": [message.from_email],
        "To": message.to,
        "Cc": message.cc,
        "Bcc": message.bcc,
        "Reply-To": message.reply_to,
        **{name: [name, value] for name, value in message.extra_headers.items()},
    }
    for name, values in fields.items():
        for value in map(str, values):
            if "\n" in value or "\r" in value:
                raise ValueError(f"The header {' '.join(name.split())!r} holds a line end (newline).")
            value.encode()
    str(message.body).encode()
    for content, _ in getattr(message, "alternatives", ()):
        if isinstance(content, str):
            content.encode()


@lru_cache(maxsize=64)  # a site writes from few addresses, and parsing one takes as long as a template
def _domain_of(address: str) -> str:
    """Return the domain of *address* as a Message-ID may hold it: in ASCII."""
    domain = parseaddr(address)[1].rpartition("@")[2]
    try:
        return punycode(domain) or "localhost"
    except UnicodeError:
        return "localhost"


@contextmanager
def _surroundings(email: OutboundEmail) -> Iterator[None]:
    """The language and the zone of the one who asked; a zone that no longer exists gives the site's."""
    try:
        zone: dt.tzinfo | None = ZoneInfo(email.time_zone) if email.time_zone else None
    except (ZoneInfoNotFoundError, ValueError):
        zone = None
    with translation.override(email.language or settings.LANGUAGE_CODE), timezone.override(zone):
        yield


def _as_json(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(kind, name, value) for name, value in values.items()}


def _plain(kind: str, name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, str)):
        return _storable(kind, name, value)
    if isinstance(value, (uuid.UUID, dt.date)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(kind, name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(kind, name, item) for key, item in value.items()}
    raise ArgumentsNotJSON(
        f"{kind}: the argument {name!r} is a {type(value).__name__}, which cannot be stored. "
        "Pass an id and load the object in the composer."
    )


def _storable(kind: str, name: str, value: float | str) -> float | str:
    """Refuse what Python writes as JSON and databases do not read, in words that name the argument."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ArgumentsNotJSON(f"{kind}: the argument {name!r} is {value}, which JSON does not know.")
    if isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value):
        raise ArgumentsNotJSON(
            f"{kind}: the argument {name!r} holds a NUL or half a character, which databases do not store."
        )
    return value


def site_url() -> str:
    """Return the base of every link in an e-mail, without a trailing slash (``POSTROOM["SITE_URL"]``)."""
    base = config().SITE_URL.rstrip("/")
    if not base:
        raise PostroomError(
            "POSTROOM['SITE_URL'] is not set: links in e-mails need it, e.g. https://shop.example."
        )
    return base


def site_name() -> str:
    """Return what pages and e-mails call this site (``POSTROOM["SITE_NAME"]``, else the host of its URL)."""
    return config().SITE_NAME or urlsplit(config().SITE_URL).hostname or gettext("Home")
