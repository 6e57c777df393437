"""Send again, after postroom_pause."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from postroom import ops, outbox
from postroom.failures import redact
from postroom.management.base import DatabaseCommand
from postroom.ops.words import number, this_person


class Command(DatabaseCommand):
    """End the pause and wake the delivery processes."""

    help = "Go on sending after postroom_pause: what waits goes out, the urgent first. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            ended = outbox.resume(actor=this_person())
            waiting = ops.depth()
            nobody_delivers = not any(worker.is_alive for worker in ops.workers())
        except DatabaseError as error:
            text = f"The switch could not be thrown ({redact(str(error), limit=200)})."
            raise CommandError(text, returncode=2) from None
        if not ended:
            self.stdout.write("Sending was not paused.")
            return
        self.stdout.write(f"Sending goes on; {number(waiting)} due now.")
        if nobody_delivers:
            self.stdout.write("No delivery process is running. Start one: python manage.py postroom_worker")
