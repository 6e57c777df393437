"""Buying: an order and the promise of its e-mail, both or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from example.shop.emails import order_confirmation
from example.shop.models import Order, Product

if TYPE_CHECKING:
    from example.accounts.models import Account


@transaction.atomic
def buy(product: Product, customer: Account) -> Order:
    """Write an order and promise the e-mail about it; return the order."""
    order = Order.objects.create(customer=customer, product=product, price=product.price)
    order.confirmation = order_confirmation.enqueue(order_id=str(order.pk))
    order.save(update_fields=["confirmation"])
    return order
