"""Where providers report to. What a report means is known in ``feedback.py``."""

from postroom.feedback import brevo_webhook as brevo

__all__ = ["brevo"]
