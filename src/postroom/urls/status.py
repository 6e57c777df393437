"""
The status API of the card ``{% email_status %}``; may be mounted alone.
"""

from django.urls import path

from postroom.views.status import status

app_name = "postroom_status"
urlpatterns = [path("status/<uuid:uuid>/", status, name="status")]
