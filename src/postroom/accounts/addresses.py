"""
What an address is, and when two are the same.

Addresses are kept as typed and compared by their *canonical* form. The comparison is made here,
in Python: the case folding of databases differs, and once let a look-alike address receive
somebody else's mail (CVE-2019-19844).
"""

from __future__ import annotations

import unicodedata

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator

MAX_LENGTH = 254
MAX_LOCAL_LENGTH = 64
"""Source: RFC 5321 §4.5.3.1, and the path limit of 256 with its angle brackets."""

_is_email = EmailValidator(allowlist=[])


def canonical(address: str) -> str:
    """
    Return the form by which addresses are compared; raises ValueError for a domain that cannot exist.

    NFKC, trimmed, lower case, the domain in its ASCII (IDNA) form. The local part is lower-cased
    too: strictly it may differ by case, but no mailbox provider of note makes two people of it.
    Dots and +tags stay as they are, because only the owner's server knows what they mean.
    """
    local, at, domain = unicodedata.normalize("NFKC", address).strip().lower().rpartition("@")
    # UnicodeError, raised for an empty or overlong label, is a ValueError.
    ascii_domain = domain.encode("idna").decode("ascii")
    if not domain.isascii() and ascii_domain.encode("ascii").decode("idna") != domain:
        # The two standards of IDNA disagree about some letters: "straße" is "strasse" in the older
        # one, which compares here, and a domain of its own in the newer one, by which mail is sent
        # (RFC 5894 §7.2). The owner of one must not be taken for the owner of the other.
        raise ValueError(f"{domain} is read in two ways; write it in its ASCII form (xn--…).")
    return f"{local}{at}{ascii_domain}"


def validate_address(address: str) -> None:
    """Refuse what no mail server would take, or what is not one plain address: quotes, literals, overlong."""
    _is_email(address)
    local, _at, domain = address.rpartition("@")
    try:
        same = canonical(address)
    except ValueError as error:
        raise _invalid() from error
    # Normalising can bring an "@" or "/" to light that was written in another script.
    _is_email(same)
    if '"' in local or "[" in domain or len(local) > MAX_LOCAL_LENGTH or len(same) > MAX_LENGTH:
        raise _invalid()


def _invalid() -> ValidationError:
    return ValidationError(_is_email.message, code=_is_email.code)


def readable(address: str) -> str:
    """Return the canonical *address* with its domain as people write it: ``ann@bücher.example``."""
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{domain.encode('ascii').decode('idna')}"
    except ValueError:
        return address
