"""Label of the app."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The shop's user model."""

    name = "example.accounts"
    label = "accounts"
    verbose_name = "Customers"
    default_auto_field = "django.db.models.BigAutoField"
