"""
The tags of postroom's pages: the status card of an e-mail, and what the base template needs.
"""

from __future__ import annotations

import re

from django import template
from django.template import Context
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from postroom import composing
from postroom.models import OutboundEmail
from postroom.status import Receipt, Status, describe, email_of, status_url

register = template.Library()

_LINKED = "linked:"

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:ms|s|min|h|days?)\b)")


@register.simple_tag
def site_name() -> str:
    """Return what this site is called."""
    return composing.site_name()


@register.simple_tag(takes_context=True)
def postroom_css(context: Context) -> SafeString:
    """Link the style sheet, unless this page has it already."""
    return _once(context, '<link rel="stylesheet" href="{}">', "postroom/postroom.css")


@register.simple_tag(takes_context=True)
def email_status(
    context: Context,
    receipt: Receipt | OutboundEmail | None = None,
    *,
    url: str = "",
    status: Status | None = None,
    confirm: bool = False,
    next_label: str = "",
) -> SafeString:
    """
    Show the live status card of one e-mail: ``{% email_status receipt %}``.

    With *url* and *status* an app that knows more (an address confirmed meanwhile) tells its own
    story; *confirm* adds the step "Confirmed" and waits for it. Shows nothing where there is nothing
    to show: the receipt is empty, or its e-mail is gone. Brings style sheet and script once a page.
    """
    told = status or _describe(receipt, confirm=confirm)
    if told is None:
        return SafeString("")
    if not url and receipt:
        url = status_url(receipt)
    card = render_to_string(
        "postroom/_email_status.html",
        {"status": told, "url": url, "next_label": next_label or gettext("Continue")},
    )
    script = _once(context, '<script src="{}" defer></script>', "postroom/email-status.js")
    return postroom_css(context) + card + script


@register.filter
def unbroken(text: object) -> str:
    """Keep a number and its unit on one line: ``3.1 s``, ``5 min``."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", str(text))


def _describe(receipt: Receipt | OutboundEmail | None, *, confirm: bool) -> Status | None:
    if isinstance(receipt, Receipt):
        email = email_of(receipt.uuid)
        return describe(email, address=receipt.address, type=receipt.type, confirm=confirm) if email else None
    return describe(receipt, confirm=confirm) if receipt else None


def _once(context: Context, tag: str, path: str) -> SafeString:
    """Return the tag the first time that this page asks for it. (A second one would do no harm.)"""
    linked = context.render_context.dicts[0]  # the lowest: it is shared by the templates of one page
    if linked.get(_LINKED + path):
        return SafeString("")
    linked[_LINKED + path] = path
    return format_html(tag, static(path))
