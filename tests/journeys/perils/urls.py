"""The pages that links in the e-mails of registration lead to."""

from django.urls import include, path

urlpatterns = [path("accounts/", include("postroom.accounts.urls"))]
