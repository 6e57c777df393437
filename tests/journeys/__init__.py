"""Accidents and people: real processes, real servers, the provider's log as the judge."""
