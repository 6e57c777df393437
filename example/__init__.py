"""Factors: a small shop that uses postroom, and what people try first."""
