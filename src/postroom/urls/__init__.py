"""
The mountable parts of postroom, each with its own name space; ``include("postroom.urls")`` is all of them.
"""

from __future__ import annotations

from typing import Any

from django.urls import include, path


def __getattr__(name: str) -> Any:
    """Build ``urlpatterns`` when asked for: who mounts one part alone does not import the others."""
    if name != "urlpatterns":
        raise AttributeError(name)
    return [
        path("", include("postroom.urls.operator")),
        path("", include("postroom.urls.status")),
        path("healthz/", include("postroom.urls.health")),
        path("webhooks/", include("postroom.urls.webhooks")),
    ]
