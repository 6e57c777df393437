"""
Where providers report what became of an e-mail.
"""

from django.urls import path

from postroom.views.webhooks import brevo

app_name = "postroom_webhooks"
urlpatterns = [path("brevo/tracking/", brevo, name="brevo")]
