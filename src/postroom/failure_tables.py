"""
What is known about providers, mail servers and client libraries, as tables.

Owns the classes of failure, what follows from each, and the facts that lead to them. A new fact
is a new row, and every row has a test. How a row is found is written in ``failures.py``.

Client libraries are named by strings and never imported: none of them need be installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class FailureClass(StrEnum):
    """What kind of failure; stands in ``DeliveryEvent.error_class`` and ``OutboundEmail.reason``."""

    TRANSIENT = "transient"
    """Nothing was accepted; the same may work later."""

    UNCERTAIN = "uncertain"
    """The e-mail had left, or may have, and no answer that can be read came back."""

    RATE_LIMITED = "rate_limited"
    """Too fast for the provider, or greylisted."""

    QUOTA = "quota"
    """Our account with the provider has nothing left."""

    CONFIG = "config"
    """Our key, sender, address of the API or reputation: no e-mail will pass until somebody acts."""

    COMPOSE = "compose"
    """The code of the site that writes the message raised."""

    PERMANENT_MESSAGE = "permanent_message"
    """This message will never be taken: ours to fix. Says nothing about the recipient."""

    PERMANENT_RECIPIENT = "permanent_recipient"
    """This address will never be served."""

    DUPLICATE = "duplicate"
    """The provider has seen this idempotency key before."""

    EXPIRED = "expired"
    """Too late to be sent."""

    WORKER_LOST = "worker_lost"
    """The delivery process died, or hung, with the e-mail in hand."""

    UNKNOWN = "unknown"
    """Not in the tables. Taken for uncertain, because something may have left."""


class Fate(StrEnum):
    """Which verb of the outbox settles the attempt."""

    RESCHEDULE = "reschedule"
    FAIL = "fail"
    DOUBT = "doubt"
    DUPLICATE = "duplicate"
    """Accepted if an earlier attempt with the key ended in doubt, else again with a new key."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a class of failure, whoever reported it."""

    fate: Fate
    strike: bool
    wait: float | None = None


CONSEQUENCES: Final[Mapping[FailureClass, Consequence]] = {
    FailureClass.TRANSIENT: Consequence(Fate.RESCHEDULE, strike=True),
    FailureClass.UNCERTAIN: Consequence(Fate.DOUBT, strike=True),
    FailureClass.RATE_LIMITED: Consequence(Fate.RESCHEDULE, strike=False, wait=30),
    FailureClass.QUOTA: Consequence(Fate.RESCHEDULE, strike=False, wait=900),
    FailureClass.CONFIG: Consequence(Fate.RESCHEDULE, strike=False, wait=60),
    FailureClass.COMPOSE: Consequence(Fate.RESCHEDULE, strike=False, wait=600),
    FailureClass.PERMANENT_MESSAGE: Consequence(Fate.FAIL, strike=True),
    FailureClass.PERMANENT_RECIPIENT: Consequence(Fate.FAIL, strike=True),
    FailureClass.DUPLICATE: Consequence(Fate.DUPLICATE, strike=True),
    FailureClass.EXPIRED: Consequence(Fate.FAIL, strike=False),
    FailureClass.WORKER_LOST: Consequence(Fate.DOUBT, strike=True),
    FailureClass.UNKNOWN: Consequence(Fate.DOUBT, strike=True),
}

# HTTP: most telling first: the provider's code, its words, the status

ANSWER_CODES: Final[Mapping[tuple[str, str], FailureClass]] = {
    # Brevo (SDK 2.x, enum of error codes). Newer SDKs type it as free text: others fall to the status.
    ("code", "not_enough_credits"): FailureClass.QUOTA,
    ("code", "unauthorized"): FailureClass.CONFIG,
    ("code", "permission_denied"): FailureClass.CONFIG,
    ("code", "account_under_validation"): FailureClass.CONFIG,
    ("code", "method_not_allowed"): FailureClass.CONFIG,
    ("code", "duplicate_parameter"): FailureClass.DUPLICATE,
    ("code", "duplicate_request"): FailureClass.DUPLICATE,
    ("code", "invalid_parameter"): FailureClass.PERMANENT_MESSAGE,
    ("code", "missing_parameter"): FailureClass.PERMANENT_MESSAGE,
    ("code", "out_of_range"): FailureClass.PERMANENT_MESSAGE,
    ("code", "document_not_found"): FailureClass.PERMANENT_MESSAGE,  # the template
    ("code", "bad_request"): FailureClass.PERMANENT_MESSAGE,
    ("code", "unprocessable_entity"): FailureClass.PERMANENT_MESSAGE,
    ("code", "not_acceptable"): FailureClass.PERMANENT_MESSAGE,
    # Resend. The concurrent request holds the same key and may be accepted: a new key would repeat it.
    ("name", "rate_limit_exceeded"): FailureClass.RATE_LIMITED,
    ("name", "daily_quota_exceeded"): FailureClass.QUOTA,
    ("name", "monthly_quota_exceeded"): FailureClass.QUOTA,
    ("name", "invalid_from_address"): FailureClass.CONFIG,
    ("name", "invalid_idempotent_request"): FailureClass.DUPLICATE,
    ("name", "concurrent_idempotent_requests"): FailureClass.UNCERTAIN,
    # Postmark (postmarkapp.com/developer/api/overview#error-codes). Anymail makes 406, and 300 about
    # a recipient, AnymailRecipientsRefused.
    ("ErrorCode", "10"): FailureClass.CONFIG,
    ("ErrorCode", "300"): FailureClass.PERMANENT_MESSAGE,
    ("ErrorCode", "400"): FailureClass.CONFIG,
    ("ErrorCode", "401"): FailureClass.CONFIG,
    ("ErrorCode", "405"): FailureClass.QUOTA,
    ("ErrorCode", "412"): FailureClass.CONFIG,
    ("ErrorCode", "413"): FailureClass.CONFIG,
}
"""(field of the JSON answer, its value) → class."""

ANSWER_TEXTS: Final[tuple[tuple[str, str, FailureClass], ...]] = (
    # Brevo says it like this of a recipient (github.com/getbrevo/brevo-node/issues/40).
    ("400", r"not valid in (to|cc|bcc)\b", FailureClass.PERMANENT_RECIPIENT),
    ("400", r"\bsender\b", FailureClass.CONFIG),
    ("422", r"'From'", FailureClass.CONFIG),  # Postmark
    ("401", r"maximum credits exceeded", FailureClass.QUOTA),  # SendGrid
)
"""(status, words that the provider's message contains, class). Goes before ANSWER_CODES."""

HTTP_STATUSES: Final[tuple[tuple[str, FailureClass], ...]] = (
    ("2??", FailureClass.UNCERTAIN),  # it said yes, but not in a form that can be read
    ("3??", FailureClass.CONFIG),
    ("401", FailureClass.CONFIG),
    ("402", FailureClass.QUOTA),
    ("403", FailureClass.CONFIG),
    ("404", FailureClass.CONFIG),  # a missing template says so in its code; else the URL is wrong
    ("405", FailureClass.CONFIG),
    ("407", FailureClass.CONFIG),
    ("408", FailureClass.TRANSIENT),
    ("409", FailureClass.UNCERTAIN),  # says nothing about whether the other request was accepted
    ("421", FailureClass.TRANSIENT),
    ("425", FailureClass.TRANSIENT),
    ("429", FailureClass.RATE_LIMITED),
    ("4??", FailureClass.PERMANENT_MESSAGE),
    ("503", FailureClass.TRANSIENT),
    # Cloudflare, in front of Brevo: it could not reach the API. 520, 522 and 524 do not say that.
    ("521", FailureClass.TRANSIENT),
    ("523", FailureClass.TRANSIENT),
    ("525", FailureClass.TRANSIENT),
    ("526", FailureClass.TRANSIENT),
    ("5??", FailureClass.UNCERTAIN),  # 500, 502, 504: the API may have taken it before it broke
)

TOO_LARGE: Final = frozenset({413, 414, 431})
"""Refusals of the message itself that a proxy may utter in HTML."""

WAIT_HEADERS: Final = ("x-sib-ratelimit-reset", "retry-after", "ratelimit-reset")
"""Seconds, or for Retry-After also a date. Brevo sends the first with *every* answer."""

LONGEST_WAIT_SECONDS: Final = 3600.0
"""What a provider asks for is heard up to here: it may also be mistaken."""

# SMTP: RFC 5321, RFC 3463 and the IANA registry of enhanced codes

SMTP_REPLIES: Final[tuple[tuple[str, str, str, FailureClass], ...]] = (
    ("data", "2??", "*", FailureClass.UNCERTAIN),  # smtplib knows only 250 as a yes
    ("*", "454", "4.7.*", FailureClass.TRANSIENT),
    ("*", "*", "4.4.7", FailureClass.EXPIRED),
    ("*", "*", "4.7.*", FailureClass.RATE_LIMITED),
    ("*", "*", "4.*", FailureClass.TRANSIENT),
    ("mail", "*", "5.1.*", FailureClass.CONFIG),  # of the sender
    ("*", "*", "5.1.7", FailureClass.CONFIG),
    ("*", "*", "5.1.8", FailureClass.CONFIG),
    ("*", "*", "5.1.*", FailureClass.PERMANENT_RECIPIENT),
    ("*", "*", "5.2.2", FailureClass.TRANSIENT),  # mailbox full: soft, whatever its first digit
    ("*", "*", "5.2.3", FailureClass.PERMANENT_MESSAGE),
    ("*", "*", "5.2.*", FailureClass.PERMANENT_RECIPIENT),
    ("*", "*", "5.3.4", FailureClass.PERMANENT_MESSAGE),
    ("auth", "5??", "*", FailureClass.CONFIG),
    ("connect", "5??", "*", FailureClass.CONFIG),
    ("*", "*", "5.5.*", FailureClass.PERMANENT_MESSAGE),
    ("*", "*", "5.6.*", FailureClass.PERMANENT_MESSAGE),
    ("*", "*", "5.7.*", FailureClass.CONFIG),  # policy about the sender, SPF/DKIM/DMARC, "blocked"
    ("*", "53[0458]", "*", FailureClass.CONFIG),
    ("*", "552", "*", FailureClass.TRANSIENT),  # old servers mean "too many recipients", RFC 5321 4.5.3.1.10
    ("mail", "55[0136]", "*", FailureClass.CONFIG),
    ("data", "55[0136]", "*", FailureClass.PERMANENT_MESSAGE),  # the recipients had passed
    ("*", "55[0136]", "*", FailureClass.PERMANENT_RECIPIENT),
    ("*", "521", "*", FailureClass.PERMANENT_RECIPIENT),
    ("*", "4??", "*", FailureClass.TRANSIENT),
    ("*", "5??", "*", FailureClass.PERMANENT_MESSAGE),
    ("data", "*", "*", FailureClass.UNCERTAIN),  # nonsense after the final dot
    ("*", "*", "*", FailureClass.TRANSIENT),
)
"""
(stage, reply code, enhanced code, class); the first row that fits. The enhanced code goes first
because its first digit wins and its second says whose fault it is.
"""

SMTP_STAGES: Final[Mapping[str, str]] = {
    "SMTPConnectError": "connect",
    "SMTPHeloError": "connect",
    "SMTPAuthenticationError": "auth",
    "SMTPSenderRefused": "mail",
    "SMTPRecipientsRefused": "rcpt",
    "SMTPDataError": "data",
}

HOPE: Final = (
    FailureClass.TRANSIENT,
    FailureClass.RATE_LIMITED,
    FailureClass.CONFIG,
    FailureClass.EXPIRED,
    FailureClass.PERMANENT_MESSAGE,
    FailureClass.PERMANENT_RECIPIENT,
)
"""Where every recipient was refused, the most hopeful refusal decides."""

# Exceptions: where an attempt broke that brought no answer

EXCEPTIONS: Final[Mapping[str, FailureClass]] = {
    # No connection, so nothing left.
    "requests.ConnectTimeout": FailureClass.TRANSIENT,
    "requests.ProxyError": FailureClass.TRANSIENT,  # urllib3: only before the proxy let us through
    "urllib3.NewConnectionError": FailureClass.TRANSIENT,
    "builtins.ConnectionRefusedError": FailureClass.TRANSIENT,
    "socket.gaierror": FailureClass.TRANSIENT,
    "ssl.SSLCertVerificationError": FailureClass.TRANSIENT,
    "postroom.NothingLeft": FailureClass.TRANSIENT,  # libcurl had not begun with it
    # The request had left, or part of it.
    "requests.ReadTimeout": FailureClass.UNCERTAIN,
    "requests.ChunkedEncodingError": FailureClass.UNCERTAIN,
    "requests.ContentDecodingError": FailureClass.UNCERTAIN,
    "requests.SSLError": FailureClass.UNCERTAIN,
    "urllib3.ProtocolError": FailureClass.UNCERTAIN,
    "builtins.ConnectionError": FailureClass.UNCERTAIN,  # reset, aborted, broken pipe
    "builtins.TimeoutError": FailureClass.UNCERTAIN,
    "ssl.SSLError": FailureClass.UNCERTAIN,
    # The client refused before it connected.
    "requests.InvalidURL": FailureClass.CONFIG,
    "requests.MissingSchema": FailureClass.CONFIG,
    "requests.InvalidSchema": FailureClass.CONFIG,
    "requests.InvalidHeader": FailureClass.CONFIG,  # a key with a line end in it
    "requests.TooManyRedirects": FailureClass.CONFIG,
    "django.ImproperlyConfigured": FailureClass.CONFIG,  # and Anymail's ConfigurationError
    "anymail.AnymailUnsupportedFeature": FailureClass.PERMANENT_MESSAGE,
    "anymail.AnymailSerializationError": FailureClass.PERMANENT_MESSAGE,
    "anymail.AnymailInvalidAddress": FailureClass.PERMANENT_RECIPIENT,
    "anymail.AnymailRecipientsRefused": FailureClass.PERMANENT_RECIPIENT,
}
"""
package.Class, also of a base class or of the error underneath. TRANSIENT wins over all others:
requests and urllib3 wrap a refused and a reset connection in the same class, and only the inner
error tells that nothing left.
"""

CONNECTING: Final = frozenset(
    {
        ("socket", "create_connection"),
        ("socket", "getaddrinfo"),
        ("urllib3", "create_connection"),
        # A time-out of the handshake comes out of requests as a ReadTimeout (urllib3 2.8, 2026-11).
        ("ssl", "do_handshake"),
    }
)
"""(package, function): an error from in there came before the first byte of the e-mail."""

PLACES: Final[tuple[tuple[str, str, str, FailureClass], ...]] = (
    ("smtplib", "data", "*", FailureClass.UNCERTAIN),  # RFC 1047: lost around the final dot
    ("smtplib", "mail", "SMTPNotSupportedError", FailureClass.PERMANENT_MESSAGE),  # SMTPUTF8
    ("smtplib", "*", "SMTPNotSupportedError", FailureClass.CONFIG),  # no AUTH, no STARTTLS
    ("smtplib", "login", "SMTPException", FailureClass.CONFIG),  # no mechanism in common
    ("smtplib", "*", "UnicodeEncodeError", FailureClass.PERMANENT_MESSAGE),
    ("smtplib", "*", "*", FailureClass.TRANSIENT),
    ("django", "prep_address", "*", FailureClass.PERMANENT_MESSAGE),  # Django 6
    ("django", "sanitize_address", "*", FailureClass.PERMANENT_MESSAGE),  # Django 5.2
    ("anymail", "build_message_payload", "*", FailureClass.PERMANENT_MESSAGE),
    ("anymail", "get_request_params", "*", FailureClass.CONFIG),  # an address of the API that is none
    ("anymail", "run_pre_send", "*", FailureClass.COMPOSE),  # the site's receiver of pre_send
)
"""(package, function, class of the error, class of the failure), for errors without a row above."""

COMPOSE_STEPS: Final = (30, 120, 600, 3600)
"""Seconds after the first, second … failure of a composer; the last one for all that follow."""
