"""The e-mails of the site that the accidents happen to."""

import time
from pathlib import Path

from anymail.signals import post_send
from django.core.mail import EmailMessage
from django.dispatch import receiver

from postroom import composer
from postroom.models import OutboundEmail


@composer("journey.hello", lane="urgent")
def hello(number: int) -> EmailMessage:
    """An e-mail like any other."""
    return EmailMessage(f"Hello {number}", "Text", "shop@example.com", [f"person-{number}@example.com"])


@composer("journey.slow_to_write")
def slow_to_write(marker: str) -> EmailMessage:
    """Say that it is being written, and take as long as the file exists."""
    path = Path(marker)
    path.with_suffix(".begun").touch()
    while path.exists():
        time.sleep(0.02)
    return EmailMessage("At last", "Text", "shop@example.com", ["patient@example.com"])


@composer("journey.poison")
def poison() -> EmailMessage:
    """Cannot be written."""
    raise ZeroDivisionError("this composer is broken")


@receiver(post_send)
def touch_the_database(**_: object) -> None:
    """What a site's own receiver does in the middle of a send: it uses the database."""
    OutboundEmail.objects.filter(pk=1).exists()
