"""EmailStatus, as far as the original's text lets one infer it."""

from __future__ import annotations

from django.db import models


class EmailStatus(models.Model):
    """What the original knows of an e-mail."""

    user_id = models.IntegerField(db_index=True)
    email_type = models.CharField(max_length=20)
    status = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)
    retry_count = models.IntegerField(default=0)
    error_message = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"{self.user_id} {self.status}"
