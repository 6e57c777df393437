"""The mailbox, the page behind the link of an e-mail, and the webhooks."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def landing(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """Run a script, which a page that inherits the sandbox of the frame cannot."""
    return HttpResponse("<title>Landed</title><script>document.title = 'Landed, scripts run'</script>")


urlpatterns = [
    path("mailbox/", include("postroom.mailbox.urls")),
    path("accounts/activate/<uid>/<token>/", landing),
    path("webhooks/", include("postroom.urls.webhooks")),
]
