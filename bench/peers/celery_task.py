"""
The task with which it began, as its description says: ``.delay()`` in the view, ``requests.post`` in
the task, Redis as broker and as result backend, ``--concurrency=4``.
"""

from __future__ import annotations

import os
import sys

from bench.peers import frame

BROKER = os.environ.get("BENCH_BROKER_URL", "redis://127.0.0.1:6379/0")

frame.configure(["bench.peers.status"])

import requests  # noqa: E402
from celery import Celery  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench import letters  # noqa: E402
from bench.peers.status.models import EmailStatus  # noqa: E402

app = Celery("factors_Ecom", broker=BROKER, backend=BROKER)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    result_serializer="json",
    timezone="Asia/Dhaka",
    task_time_limit=30 * 60,
    task_soft_time_limit=25 * 60,
)


def send_brevo_email(to: str, subject: str, text: str, html: str) -> bool:
    """Post one message; True where Brevo took it."""
    answer = requests.post(
        f"{frame.API_URL}smtp/email",
        json={
            "sender": {"email": "shop@example.com", "name": "Factors"},
            "to": [{"email": to}],
            "subject": subject,
            "textContent": text,
            "htmlContent": html,
        },
        headers={"api-key": "bench"},
        timeout=60,
    )
    return answer.status_code == 201


@app.task(bind=True, name="accounts.tasks.send_activation_email", max_retries=3, default_retry_delay=60)
def send_activation_email(self, user_id, domain, protocol="http"):  # type: ignore[no-untyped-def]
    """Send the activation e-mail and write the status."""
    try:
        letter = letters.message(user_id)
        html = str(letter.alternatives[0][0])
        if send_brevo_email(letter.to[0], letter.subject, letter.body, html):
            EmailStatus.objects.update_or_create(
                user_id=user_id,
                email_type="verification",
                defaults={"status": "sent", "sent_at": timezone.now(), "retry_count": 0},
            )
        else:
            EmailStatus.objects.update_or_create(
                user_id=user_id,
                email_type="verification",
                defaults={"status": "failed", "error_message": "Brevo API failed", "retry_count": 0},
            )
    except Exception as error:
        raise self.retry(exc=error, countdown=60 * 2**self.request.retries) from error
    return "success"


def enqueue(number: int) -> None:
    """Do what the original's view does."""
    EmailStatus.objects.create(user_id=number, email_type="verification", status="pending")
    send_activation_email.delay(number, "shop.example", "https")


def left() -> int:
    """Return how many it has not sent."""
    return EmailStatus.objects.exclude(status="sent").count()


if __name__ == "__main__":
    if sys.argv[1] == "--worker--":
        app.worker_main(["worker", "--loglevel=info", "--concurrency=4"])
    else:
        frame.main(enqueue, left)
