"""
What a failed attempt means: try again, when, or give up.

Callers ask ``judge(error)`` about an attempt to send, ``judge_compose(error)`` about one to
write the message, and ``backoff(strike)``. Which HTTP and SMTP codes and which exceptions of
which library lie behind the answers is known here and in ``failure_tables.py`` and nowhere else.
The one question behind all of them is whether the provider may have taken the e-mail; where
that is open the answer is *uncertain*, never *failed*.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import smtplib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import TYPE_CHECKING

from django.utils import timezone

from postroom.conf import config
from postroom.failure_tables import (
    ANSWER_CODES,
    ANSWER_TEXTS,
    COMPOSE_STEPS,
    CONNECTING,
    CONSEQUENCES,
    EXCEPTIONS,
    HOPE,
    HTTP_STATUSES,
    LONGEST_WAIT_SECONDS,
    PLACES,
    SMTP_REPLIES,
    SMTP_STAGES,
    TOO_LARGE,
    WAIT_HEADERS,
    FailureClass,
    Fate,
)
from postroom.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "FailureClass",
    "Fate",
    "Verdict",
    "backoff",
    "compose_backoff",
    "judge",
    "judge_compose",
    "redact",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an error means for the e-mail."""

    failure: FailureClass
    fate: Fate
    strike: bool
    """Whether it uses up the budget of attempts."""

    retry_after: float | None
    """Seconds that the provider asked for, or the class's own wait; None: ``backoff(strike)``."""

    detail: str
    """For operators: class, code, and the provider's own words on one line of at most 500
    characters, without addresses, links and keys."""

    fingerprint: str
    """12 hex digits, the same for failures that look the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    failure: FailureClass
    code: str = ""
    words: str = ""
    wait: float | None = None


def judge(error: BaseException) -> Verdict:
    """
    Return what the *error* of an attempt to send means.

    FAIL and RESCHEDULE only where the provider certainly has not taken the e-mail; what is not in
    the tables is UNKNOWN, in doubt. A 2xx that cannot be read (HTML, truncated JSON, JSON without
    an id) is in doubt too. An *empty* 201 never comes here: Anymail 15.2 takes it as accepted
    without an id. An id in ``message.anymail_status`` proves the acceptance whatever was raised
    after it; the caller looks there first.
    """
    finding = _from_smtp(error) or _from_table(error) or _from_answer(error)
    return _verdict(error, finding or _Finding(failure=FailureClass.UNKNOWN))


def judge_compose(error: BaseException) -> Verdict:
    """
    Return what the *error* of a composer means: COMPOSE, tried again without a strike.

    The detail names the exception and the line of the composer. How long to wait is
    ``compose_backoff``, which needs to know how often it failed before.
    """
    place = _composer_line(error)
    return Verdict(
        failure=FailureClass.COMPOSE,
        fate=Fate.RESCHEDULE,
        strike=False,
        retry_after=None,
        detail=redact(f"{type(error).__name__}: {_said(error)}", limit=350)
        + (f" (at {place[:140]})" if place else ""),
        fingerprint=_fingerprint(type(error).__name__, place),
    )


def backoff(strike: int) -> timedelta:
    """
    Return how long to wait after strike number *strike* (from 1).

    Doubles from BACKOFF_BASE_SECONDS up to BACKOFF_CAP_SECONDS. Half of it is fixed and half
    drawn, so that e-mails that failed together do not all come back together.
    """
    doublings = min(max(strike, 1) - 1, 40)
    step = min(config().BACKOFF_BASE_SECONDS * 2**doublings, config().BACKOFF_CAP_SECONDS)
    return timedelta(seconds=step / 2 + random.uniform(0, step / 2))  # noqa: S311 - no secret


def compose_backoff(failures_in_a_row: int) -> timedelta:
    """Return how long to wait after a composer failed *failures_in_a_row* times (from 1)."""
    return timedelta(seconds=COMPOSE_STEPS[min(max(failures_in_a_row, 1), len(COMPOSE_STEPS)) - 1])


def _from_smtp(error: BaseException) -> _Finding | None:
    """Read the reply that an SMTP server gave."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        # Where every recipient was refused, the most hopeful refusal decides.
        refusals = [_from_reply("rcpt", *reply) for reply in error.recipients.values()]
        return min(refusals, key=lambda refusal: HOPE.index(refusal.failure), default=None)
    stage = SMTP_STAGES.get(type(error).__name__)
    if isinstance(error, smtplib.SMTPResponseException) and stage is not None:
        return _from_reply(stage, error.smtp_code, error.smtp_error)
    return None  # also the plain SMTPResponseException: smtplib's own, no reply of the server


def _from_reply(stage: str, code: int, reply: bytes | str) -> _Finding:
    words = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
    match = re.match(r"([245]\.\d{1,3}\.\d{1,3})\b", words)
    enhanced = match[1] if match else ""
    failure = next(
        row_class
        for row_stage, row_code, row_enhanced, row_class in SMTP_REPLIES
        if fnmatchcase(stage, row_stage)
        and fnmatchcase(str(code), row_code)
        and fnmatchcase(enhanced, row_enhanced)
    )
    return _Finding(failure=failure, code=f"{code} {enhanced}".strip(), words=words[len(enhanced) :].strip())


def _from_answer(error: BaseException) -> _Finding | None:
    """Read the HTTP answer that the client library kept in its exception."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if not isinstance(status, int):
        return None
    body = _json(response)
    code, words = _code(body), _words(body)
    failure = _class_of_answer(status, body, words)
    text = words or f"not JSON: {_start_of(response)}" if body is None else words
    return _Finding(
        failure=failure,
        code=" ".join(filter(None, (f"HTTP {status}", code))),
        words=text,
        wait=_asked_wait(failure, getattr(response, "headers", {})),
    )


def _class_of_answer(status: int, body: Mapping[str, object] | None, words: str) -> FailureClass:
    if not 200 <= status < 300:
        for row_status, pattern, failure in ANSWER_TEXTS:
            if row_status == str(status) and re.search(pattern, words, re.IGNORECASE):
                return failure
        for field, value in (body or {}).items():
            if (field, str(value).lower()) in ANSWER_CODES:
                return ANSWER_CODES[field, str(value).lower()]
    failure = next(row for pattern, row in HTTP_STATUSES if fnmatchcase(str(status), pattern))
    if failure == FailureClass.PERMANENT_MESSAGE and body is None and status not in TOO_LARGE:
        return FailureClass.CONFIG  # every provider's API speaks JSON: something in between answered
    return failure


def _json(response: object) -> Mapping[str, object] | None:
    try:
        body = json.loads(getattr(response, "text", ""))
    except (ValueError, TypeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _code(body: Mapping[str, object] | None) -> str:
    found = (
        next((body[field] for field in ("code", "name", "ErrorCode") if field in body), "") if body else ""
    )
    return str(found)[:60]


def _words(body: Mapping[str, object] | None) -> str:
    """Return the provider's message, wherever in its answer it keeps it."""
    for field in ("message", "Message", "error", "detail"):
        if body and isinstance(body.get(field), str):
            return str(body[field])
    errors = body.get("errors") if body else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return _words(errors[0])
    return ""


_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def _start_of(response: object) -> str:
    text = _MARKUP.sub(" ", str(getattr(response, "text", ""))[:4000])
    return redact(text, limit=120) or "an empty body"


def _asked_wait(failure: FailureClass, headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the provider asked for, if this class of failure listens to that."""
    heard = {FailureClass.RATE_LIMITED: WAIT_HEADERS, FailureClass.QUOTA: WAIT_HEADERS[1:2]}
    for name in heard.get(failure, WAIT_HEADERS[1:2] if failure == FailureClass.TRANSIENT else ()):
        seconds = _seconds(headers.get(name))
        if seconds is not None:
            return min(max(seconds, 1.0), LONGEST_WAIT_SECONDS)  # 0: the moment that just ended
    return None


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        seconds = _seconds_until(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(value: str | None) -> float:
    try:
        at: datetime = parsedate_to_datetime(value or "")
    except (ValueError, TypeError):
        return math.nan
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - timezone.now()).total_seconds()


def _from_table(error: BaseException) -> _Finding | None:
    """Look the error up by its class, by those underneath, and by the place it came from."""
    chain = list(_chain(error))
    frames = {frame for link in chain for frame in _frames(link)}
    known = [EXCEPTIONS[name] for link in chain for name in _names(link) if name in EXCEPTIONS]
    if frames & CONNECTING or FailureClass.TRANSIENT in known:
        return _Finding(failure=FailureClass.TRANSIENT)
    if any(package == "smtplib" for package, _ in frames):
        known = []  # a bare time-out or reset means different things before and after DATA
    if known:
        return _Finding(failure=_unless_sender(known[0], error))
    for package, function, name, failure in PLACES:
        if fnmatchcase(type(error).__name__, name) and any(
            frame[0] == package and fnmatchcase(frame[1], function) for frame in frames
        ):
            return _Finding(failure=failure)
    return None


def _unless_sender(failure: FailureClass, error: BaseException) -> FailureClass:
    """A malformed address of ours is a setting, not a fault of the recipient."""
    if "anymail.AnymailInvalidAddress" in _names(error) and "`from_email`" in _said(error):
        return FailureClass.CONFIG
    return failure


def _chain(error: BaseException) -> Iterator[BaseException]:
    """
    Yield *error* and what it wraps, outermost first.

    Follows causes, and the ways of requests and urllib3 (``args``, ``reason``), but not
    ``__context__``: a mailer that fell back to another one has the refusal of the first there.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        link = waiting.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, getattr(link, "reason", None), *link.args]


def _names(error: BaseException) -> list[str]:
    return [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__]


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield (package, function) of every frame that the error passed through."""
    traceback = error.__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        yield module.partition(".")[0], traceback.tb_frame.f_code.co_name
        traceback = traceback.tb_next


def _innermost_frame(error: BaseException) -> str:
    frames = list(_frames(error))
    return ":".join(frames[-1]) if frames else ""


def _composer_line(error: BaseException) -> str:
    """Return ``shop/emails.py:23 (function)``: where the site's own code was entered and broke."""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        package, _, rest = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")
        engine = package == "postroom" and not rest.startswith("accounts")
        if not engine and package not in ("django", "contextlib", "functools"):
            file = "/".join(PurePath(code.co_filename).parts[-2:])
            return f"{file}:{traceback.tb_lineno} ({code.co_name})"
        traceback = traceback.tb_next
    return ""


def _verdict(error: BaseException, finding: _Finding) -> Verdict:
    consequence = CONSEQUENCES[finding.failure]
    chain = list(_chain(error))
    names = [type(link).__name__ for link in chain]
    place = finding.code or _innermost_frame(chain[-1])
    return Verdict(
        failure=finding.failure,
        fate=consequence.fate,
        strike=consequence.strike,
        retry_after=consequence.wait if finding.wait is None else finding.wait,
        detail=redact(_describe(chain, finding)),
        fingerprint=_fingerprint(*names, place),
    )


def _describe(chain: list[BaseException], finding: _Finding) -> str:
    """Return the provider's answer, else the error at the bottom under the name of the one on top."""
    name = type(chain[0]).__name__
    if finding.code:
        return f"{name} {finding.code}: {finding.words}".rstrip(": ")
    root = chain[-1]
    inner = f" ({type(root).__name__})" if type(root).__name__ != name else ""
    return f"{name}{inner}: {_said(root)}"


def _said(error: BaseException) -> str:
    """Return the text of *error*, or that it cannot be told."""
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - whoever wrote the exception wrote its __str__, too
        return f"(no text: its __str__ raised {type(failed).__name__})"


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]
