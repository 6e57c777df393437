"""
Probes for load balancers and supervisors; open to all, they tell nothing that is secret.
"""

from django.urls import path

from postroom.views.health import live, ready

app_name = "postroom_health"
urlpatterns = [
    path("live", live, name="live"),
    path("ready", ready, name="ready"),
]
