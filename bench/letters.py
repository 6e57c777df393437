"""The one letter that everybody sends: a confirmation, as text and HTML, from Django templates."""

from __future__ import annotations

from functools import cache

from django.core.mail import EmailMultiAlternatives
from django.template import Context, Engine, Template

SUBJECT = "Please confirm your address, {{ name }}"
TEXT = """Hello {{ name }},

somebody, hopefully you, has asked for an account with this address at Factors.
If it was you, open this page and confirm it:

  {{ link }}

The link can be used once and ends in 24 hours. If it was not you, do nothing: without
your confirmation the account never comes to life, and nobody writes to you again.

Number of this letter: {{ number }}

Factors, 12 Example Road, Exampleton
"""
HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Please confirm your address</title>
<meta name="color-scheme" content="light dark"></head>
<body style="margin:0;padding:0;background:#f4f4f4;font-family:system-ui,sans-serif;line-height:1.5">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0"><tr><td align="center" style="padding:24px">
<table role="presentation" width="600" cellpadding="0" cellspacing="0" style="background:#fff;padding:24px">
<tr><td><h1 style="font-size:22px;margin:0 0 16px">Hello {{ name }}</h1>
<p>somebody, hopefully you, has asked for an account with this address at Factors.
If it was you, open this page and confirm it:</p>
<p style="margin:24px 0"><a href="{{ link }}" style="background:#1a5fb4;color:#fff;padding:12px 20px;text-decoration:none">Confirm my address</a></p>
<p style="color:#555">The link can be used once and ends in 24 hours. If it was not you, do nothing: without
your confirmation the account never comes to life, and nobody writes to you again.</p>
{% for line in lines %}<p style="color:#777;font-size:13px">{{ forloop.counter }}. {{ line }}</p>{% endfor %}
<p style="color:#777;font-size:13px">Number of this letter: {{ number }}</p></td></tr></table>
</td></tr></table></body></html>
"""
LINES = (
    "Factors, 12 Example Road, Exampleton",
    "You get this letter because your address was typed at our shop.",
)


def address(number: int) -> str:
    """Return the one recipient of letter *number*; by it the provider knows a letter that comes twice."""
    return f"person{number}@example.com"


def message(number: int) -> EmailMultiAlternatives:
    """Write letter *number*."""
    subject, text, html = _templates()
    name = f"Person {number}"
    link = f"https://shop.example/accounts/activate/{number}/d3b-{number:032x}/"
    context = Context({"name": name, "link": link, "number": number, "lines": LINES}, autoescape=False)
    letter = EmailMultiAlternatives(
        subject=subject.render(context),
        body=text.render(context),
        from_email="Factors <shop@example.com>",
        to=[address(number)],
    )
    letter.attach_alternative(html.render(Context({**context.flatten(), "autoescape": True})), "text/html")
    return letter


@cache
def _templates() -> tuple[Template, Template, Template]:
    engine = Engine()
    return engine.from_string(SUBJECT), engine.from_string(TEXT), engine.from_string(HTML)
