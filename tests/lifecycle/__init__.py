"""Histories nobody thought of: the outbox under random verbs, crashes and clocks."""
