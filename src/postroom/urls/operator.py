"""
The pages of the operator; staff only.
"""

from django.urls import path

from postroom.views.operator import email, overview

app_name = "postroom_operator"
urlpatterns = [
    path("", overview, name="overview"),
    path("<uuid:uuid>/", email, name="email"),
]
