"""Where everything of the shop is."""

from django.conf import settings
from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from example import tour
from example.shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("buy/<slug:slug>/", views.buy, name="buy"),
    path("orders/<uuid:order_id>/", views.order, name="order"),
    path("accounts/", include("postroom.accounts.urls_plain")),
    path("mail/", include("postroom.urls.status")),
    path("postroom/", include("postroom.urls.operator")),
    path("healthz/", include("postroom.urls.health")),
    path("webhooks/", include("postroom.urls.webhooks")),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("example/icon.svg"))),
]
if settings.DEBUG:
    urlpatterns += [
        path("mailbox/", include("postroom.mailbox.urls")),
        path("tour/", tour.strip, name="tour"),
        path("tour/hide/", tour.hide, name="tour_hide"),
        path("tour/mood/", tour.mood, name="tour_mood"),
        path("tour/kill-worker/", tour.kill_worker, name="tour_kill_worker"),
    ]
