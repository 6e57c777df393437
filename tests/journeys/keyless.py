"""A provider that speaks like Brevo and does not recognise repeats, as most of them do not."""

from anymail.backends.brevo import EmailBackend as Brevo


class EmailBackend(Brevo):
    """Brevo's API without its idempotency keys."""

    esp_name = "Keyless"
