"""What must not stand in a log: the path of a confirmation link is as good as the link."""

from __future__ import annotations

import logging
import re

LINK = re.compile(r"(/activate/)[^/\s]+/[^/\s?\"']+")


class NoLinks(logging.Filter):
    """Take uid and token out of every path that a record mentions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; never drop it."""
        record.msg = _clean(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_clean(value) for value in record.args)
        return True


def _clean(value: object) -> object:
    return LINK.sub(r"\1…", value) if isinstance(value, str) else value
