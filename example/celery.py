"""
Celery for the shop: ``celery -A example worker``, ``celery -A example beat``.

Everything it needs is in ``example.settings``; postroom's task, step and doorbell come by themselves.
"""

from __future__ import annotations

import os
import sys

from celery import Celery

from example import broker, environment

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

environment.read_file(environment.BASE_DIR / ".env")
for note in broker.notes():
    print(f"postroom: {note}", file=sys.stderr)


class Factors(Celery):
    """Keeps no results, whatever CELERY_RESULT_BACKEND says: the outbox knows what became of an e-mail."""

    backend_cls = "disabled"


app = Factors("example")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
