"""A user model with as little as Django allows, under other names."""
