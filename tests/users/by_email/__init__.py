"""A user model that logs in by address, as most custom ones do."""
