"""The e-mails of the shop, written when they are sent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.urls import reverse

from example.shop.models import Order
from postroom import Withdraw, composer, render, site_url

if TYPE_CHECKING:
    from django.core.mail import EmailMessage


@composer("shop.order_confirmation", lane="urgent", expires_in=timedelta(days=2))
def order_confirmation(order_id: str) -> EmailMessage:
    """What was bought, to the customer's address of the moment."""
    order = Order.objects.select_related("customer", "product").filter(pk=UUID(order_id)).first()
    if order is None:
        raise Withdraw("order_gone")
    link = site_url() + reverse("order", args=[order.pk])
    return render("shop/order_confirmation", {"order": order, "link": link}, to=[order.customer.email])
