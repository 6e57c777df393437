"""E-mails in whose writing something happens."""

import os
import signal
import time

from django.core.mail import EmailMessage

from postroom import composer
from tests.journeys.perils import places


@composer("perils.letter")
def letter(number: int) -> EmailMessage:
    """An e-mail like any other, but one may die while it writes."""
    places.reached("in the composer")
    return EmailMessage(f"Letter {number}", "Text", "shop@example.com", [f"person-{number}@example.com"])


@composer("perils.laborious")
def laborious(number: int) -> EmailMessage:
    """Takes JOURNEY_LABOUR seconds to write, so that others wait behind it."""
    time.sleep(float(os.environ.get("JOURNEY_LABOUR", "0")))
    return letter(number)


@composer("perils.poison")
def poison() -> EmailMessage:
    """Kills whoever writes it, as a library in C may that meets what it cannot bear."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")
