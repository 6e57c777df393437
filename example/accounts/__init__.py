"""Who shops: accounts that log in by address."""
