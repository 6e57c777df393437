"""Nothing is served: the engine's checks want to know that."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
