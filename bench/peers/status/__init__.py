"""The one table of the original."""
