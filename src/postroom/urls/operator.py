"""
The pages of the operator; staff only.
"""

from django.urls import path

from postroom.views.operator import email, overview, pause, resume

app_name = "postroom_operator"
urlpatterns = [
    path("", overview, name="overview"),
    path("pause/", pause, name="pause"),
    path("resume/", resume, name="resume"),
    path("<uuid:uuid>/", email, name="email"),
]
