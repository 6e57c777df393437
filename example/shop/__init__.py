"""Factors: six things, orders for them, and the e-mail about an order."""
