"""User models that the accounts must get along with, each in a project of its own."""
