"""
The pages of the development mailbox: ``path("mailbox/", include("postroom.mailbox.urls"))``.
"""

from django.urls import path

from postroom.mailbox import views

app_name = "postroom_mailbox"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("<int:letter_id>/", views.overview, name="letter"),
    path("<int:letter_id>/html/", views.html, name="html"),
    path("<int:letter_id>/source.eml", views.source, name="source"),
    path("<int:letter_id>/report/", views.report, name="report"),
    path("clear/", views.clear, name="clear"),
    path("api/messages/", views.messages, name="api"),
]
