"""The tag of the account pages."""

from __future__ import annotations

from django import template

from postroom.accounts.routes import url

register = template.Library()


@register.simple_tag
def account_url(name: str) -> str:
    """Return the path of an account page, however the site mounted them."""
    return url(name)
