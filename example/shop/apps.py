"""Label of the app, and Celery for the processes that ring."""

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class ShopConfig(AppConfig):
    """The shop."""

    name = "example.shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if settings.POSTROOM["DOORBELL"] == "celery":
            # Only where somebody rings: it costs every other process a third of a second.
            import_module("example.celery")
