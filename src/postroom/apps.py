"""Label, system checks, and the search for every app's composers."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.signals import request_started
from django.utils.module_loading import module_has_submodule
from django.utils.translation import gettext_lazy as _


class PostroomConfig(AppConfig):
    """The delivery engine."""

    name = "postroom"
    label = "postroom"
    verbose_name = _("Postroom")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("postroom.checks")
        import_module("postroom.signals")
        import_module("postroom.backends")
        find_composers()
        if settings.DEBUG:
            request_started.connect(_deliver_in_development, dispatch_uid="postroom.development")


def _deliver_in_development(**_: object) -> None:
    """This process answers requests: if nobody else delivers, it does, once something was enqueued."""
    doorbell = import_module("postroom.doorbell")
    embedded = import_module("postroom.embedded")
    doorbell.on_ring.append(embedded.deliver_while_nobody_does)
    request_started.disconnect(dispatch_uid="postroom.development")


def find_composers() -> None:
    """Import ``emails.py`` of every installed app, so that its composers are known."""
    for app in apps.get_app_configs():
        if app.module is None or not module_has_submodule(app.module, "emails"):
            continue
        name = f"{app.name}.emails"
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"postroom imports {name} at start because composers of e-mails live there, and that failed: "
                f"{error}. If the module has nothing to do with postroom, give it another name."
            ) from error
