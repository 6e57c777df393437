"""The shop in the admin."""

from __future__ import annotations

from django.contrib import admin

from example.shop.models import Order, Product


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """The assortment."""

    list_display = ("name", "price")


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """Orders are made by buying."""

    list_display = ("number", "customer", "product", "price", "created_at")
    readonly_fields = ("customer", "product", "price", "created_at", "confirmation")

    def has_add_permission(self, _request: object) -> bool:
        """Nobody adds an order by hand."""
        return False
