"""Django's own user with a UUID for its key."""
