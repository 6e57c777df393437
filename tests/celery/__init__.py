"""Celery as a host of the engine: its tasks, its doorbell, its step."""
