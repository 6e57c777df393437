"""The pages of the shop."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from example.shop import orders
from example.shop.models import Order, Product
from postroom import receipt


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show what there is to buy."""
    return render(request, "shop/home.html", {"products": Product.objects.all()})


@require_POST
def buy(request: HttpRequest, slug: str) -> HttpResponse:
    """Buy one thing, and show where its e-mail is. A visitor has to log in first."""
    product = get_object_or_404(Product, slug=slug)
    if not request.user.is_authenticated:
        return redirect(f"{reverse('login')}?next={reverse('home')}")
    order = orders.buy(product, request.user)
    if order.confirmation:
        receipt(request, order.confirmation, address=order.customer.email, type="order")
    return redirect("order", order_id=order.pk)


@login_required
@require_safe
def order(request: HttpRequest, order_id: UUID) -> HttpResponse:
    """Show an order of one's own, with the status of its e-mail."""
    found = get_object_or_404(
        Order.objects.select_related("customer", "product", "confirmation"),
        pk=order_id,
        customer=request.user,
    )
    # In another browser than the one that bought: whose order it is may see its e-mail, too.
    email = found.confirmation
    ticket = receipt(request, email, address=found.customer.email, type="order") if email else None
    return render(request, "shop/order.html", {"order": found, "receipt": ticket})
