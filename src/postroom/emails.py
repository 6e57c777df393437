"""The engine's own e-mails: one, with which an operator tries whether mail arrives."""

from __future__ import annotations

from datetime import timedelta

from django.core.mail import EmailMessage
from django.utils import timezone
from django.utils.translation import gettext as _

from postroom.composing import composer


@composer("postroom.test", lane="urgent", expires_in=timedelta(hours=1))
def trial_email(address: str, asked_at: str) -> EmailMessage:
    """Write the e-mail of ``postroom_test ADDRESS``; *asked_at* is an instant in ISO format."""
    written_at = timezone.localtime()
    body = _(
        "This is a test of postroom, asked for by hand.\n\n"
        "asked for   {asked_at}\n"
        "written     {written_at}\n\n"
        "If you can read this, e-mail from this site arrives. Nothing has to be done."
    )
    return EmailMessage(
        subject=_("Test: e-mail from this site arrives"),
        body=body.format(asked_at=asked_at, written_at=f"{written_at:%Y-%m-%d %H:%M:%S %Z}") + "\n",
        to=[address],
    )
