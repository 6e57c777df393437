"""Brevo's API with two places to die at: before the call, and between the answer and who waits for it."""

from typing import Any

from anymail.backends.brevo import EmailBackend as Brevo

from tests.journeys.perils import places


class Keyed(Brevo):
    """A provider that knows a repeat by its key."""

    def send_messages(self, email_messages: Any) -> int:
        """Die before, or after, the messages are sent."""
        places.reached("before the call")
        count: int = super().send_messages(email_messages)
        places.reached("after the answer")
        return count


class Keyless(Keyed):
    """The same without keys, as most providers are."""

    esp_name = "Keyless"
