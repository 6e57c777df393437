"""Tests of the accounts; mirrors src/postroom/accounts."""
