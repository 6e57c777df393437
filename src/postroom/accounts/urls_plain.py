"""The pages under plain names: ``{% url "login" %}``. Takes these names from a site that has them already."""

from django.urls import path

from postroom.accounts import views

urlpatterns = [
    path("register/", views.register, name="register"),
    path("check-email/", views.check_email, name="check_email"),
    path("api/check-email-status/", views.check_email_status, name="check_email_status"),
    path("activate/", views.activate, name="activate"),
    path("activate/<str:uid>/<str:token>/", views.open_link, name="activate"),
    path("login/", views.login, name="login"),
    path("logout/", views.logout, name="logout"),
]
