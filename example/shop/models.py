"""What can be bought, and what was."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.utils import timezone


class Product(models.Model):
    """One thing to buy."""

    slug = models.SlugField(primary_key=True)
    name = models.CharField(max_length=60)
    description = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=7, decimal_places=2)

    class Meta:
        ordering = ("price",)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """Somebody bought one thing (pretended to)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="orders")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    price = models.DecimalField(max_digits=7, decimal_places=2)
    """What it cost that day."""

    created_at = models.DateTimeField(default=timezone.now, editable=False)
    confirmation = models.ForeignKey(
        "postroom.OutboundEmail", null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    """The e-mail about this order; null once the outbox has been pruned."""

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Order {self.number}"

    @property
    def number(self) -> str:
        """What people call this order."""
        return self.id.hex[:8].upper()


GOODS = (
    ("two", "Two", "The only even one among the primes, so it is in half of everything.", Decimal("2.00")),
    ("three", "Three", "Add up the digits and you know whether it is in there.", Decimal("3.00")),
    ("seven", "Seven", "Hard to spot, and worth it. Comes with a rule for testing.", Decimal("7.00")),
    ("twelve", "Twelve", "A dozen in one: divides by two, three, four and six.", Decimal("12.00")),
    ("sixty", "Sixty", "An antique from Babylon. Still ticking in every clock.", Decimal("60.00")),
    ("common", "Greatest common factor", "Made to measure for two numbers of yours.", Decimal("99.00")),
)
"""The assortment: slug, name, description, price."""
