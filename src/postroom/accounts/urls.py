"""The pages in a namespace of their own: ``{% url "postroom_accounts:login" %}``."""

from postroom.accounts.urls_plain import urlpatterns

app_name = "postroom_accounts"

__all__ = ["app_name", "urlpatterns"]
