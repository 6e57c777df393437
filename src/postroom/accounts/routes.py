"""Where the pages are: ``reverse()`` for a site that mounted ``urls`` or ``urls_plain``."""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse


def url(name: str, *args: str) -> str:
    """Return the path of one of our pages, by its name in ``urls``."""
    try:
        return reverse(f"postroom_accounts:{name}", args=args)
    except NoReverseMatch:
        return reverse(name, args=args)
