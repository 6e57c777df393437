"""URLs that the tests reach: every mountable part of postroom once."""

from django.urls import include, path

urlpatterns = [
    path("accounts/", include("postroom.accounts.urls_plain")),
    path("mail/", include("postroom.urls.status")),
    path("postroom/", include("postroom.urls.operator")),
    path("healthz/", include("postroom.urls.health")),
    path("webhooks/", include("postroom.urls.webhooks")),
]
