"""The site of the accidents has no pages."""

urlpatterns: list[object] = []
