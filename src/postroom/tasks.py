"""
Celery as a host of the engine: the task that drains, the doorbell that calls it, the step that needs neither.

The table is the queue. A message to the broker is a *ring* and nothing else, so a ring that is
lost, late or doubled loses, delays or doubles no e-mail: it is acknowledged early, never retried,
has no result, and expires. The *step* lives in the main process of every ``celery worker`` that
consumes our queue, sends what is overdue on its own clock, and asks no broker for it.

Celery is imported here and nowhere else; ``autodiscover_tasks()`` is all that a site does.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, Final

from billiard import current_process
from celery import Celery, bootsteps, shared_task, signals
from django.db import router
from django.dispatch import Signal
from django.utils import timezone
from kombu import Producer

from postroom import carrier, delivery, doorbell, mailers, ops, outbox, retention
from postroom.conf import config
from postroom.models import OutboundEmail
from postroom.statements import clock
from postroom.worker import Worker

logger = logging.getLogger("postroom")

DRAIN_SECONDS: Final = 20
"""How long one ``drain`` claims; then it finishes what it has in hand and rings for the next one."""

OVERDUE_SECONDS: Final = 5
"""The step takes what the drains have left for so long; without a broker it waits for nobody."""

RING_EXPIRES_SECONDS: Final = 300
"""A ring older than that is not worth a task; long enough for hosts whose clocks differ."""

CROWD: Final = 1000
"""With more messages than that in the queue nobody consumes it, and no ring is added for a while."""

CROWD_SECONDS: Final = 30

BROKER_SECONDS: Final = 0.5
"""The longest wait for one answer of the broker, whatever the site's own settings allow."""

IDLE_SECONDS: Final = 10
"""A connection that was idle for longer is opened anew: its broker may have been replaced meanwhile."""

ALERT_SECONDS: Final = 60
"""Mail that is overdue by more, or refused for longer, is told to whoever watches the log."""

PRUNE_SECONDS: Final = 60

QUIET: Final[dict[str, Any]] = {
    "ignore_result": True,
    "acks_late": False,
    "reject_on_worker_lost": False,
    "max_retries": 0,
    "soft_time_limit": None,
}
"""Of every task of ours, whatever the site's defaults are."""

alerted = Signal()
"""Arguments: ``diagnosis`` (ops.Diagnosis). Sent by ``alert`` each time that mail is late or stands still."""


# --- tasks --------------------------------------------------------------------------------------


@shared_task(name="postroom.drain", time_limit=DRAIN_SECONDS + config().ATTEMPT_SECONDS + 30, **QUIET)
def drain(using: str | None = None) -> None:
    """
    Deliver what is due in database *using*, for DRAIN_SECONDS at most, and ring once if something is left.

    Any number may run at once: claims decide. One that finds nothing ends after one look.
    """
    using = using or router.db_for_write(OutboundEmail)
    try:
        if not _anything_due(using):
            return
        worker = Worker(
            using=using,
            until_empty=True,
            claim_seconds=DRAIN_SECONDS,
            heartbeat=False,
            keep_on=lambda: not _closing(),
        )
        with _sigterm_later(worker):
            worker.run()
        # What is due although there was nothing to claim is held back, by a pause or in doubt with another
        # mailer: the next drain could not claim it either, nor the one that it would call.
        if not worker.found_nothing and not _closing() and _anything_due(using):
            doorbell.ring(using)
    finally:
        delivery.close_connections()


@shared_task(name="postroom.rescue", time_limit=120, **QUIET)
def rescue(using: str | None = None) -> None:
    """Take back the e-mails of workers that are gone, and ring for what is overdue."""
    using = using or router.db_for_write(OutboundEmail)
    try:
        while outbox.rescue(worker=f"{delivery.worker_name()}-beat", using=using):
            pass
        if _anything_due(using):
            doorbell.ring(using)
    finally:
        delivery.close_connections()


@shared_task(name="postroom.prune", time_limit=2 * PRUNE_SECONDS, **QUIET)
def prune(using: str | None = None) -> None:
    """Delete what was settled RETENTION_DAYS ago, in short transactions, for PRUNE_SECONDS at most."""
    using = using or router.db_for_write(OutboundEmail)
    before = timezone.now() - timedelta(days=config().RETENTION_DAYS)
    try:
        deleted = retention.prune_all(before=before, seconds=PRUNE_SECONDS, using=using)
    finally:
        delivery.close_connections()
    if deleted:
        logger.info("pruned emails=%s", deleted)


@shared_task(name="postroom.alert", time_limit=60, **QUIET)
def alert(using: str | None = None) -> None:
    """
    Say at level ERROR, and by the signal ``alerted``, that mail stands still, or is overdue by ALERT_SECONDS.

    For so long a provider may refuse it, too.

    A worker tells it, so it says nothing when all of them are gone: for that, ask from outside.
    """
    try:
        diagnosis = ops.diagnose(using)
    finally:
        delivery.close_connections()
    facts = diagnosis.facts
    lag = facts.lag_seconds if facts else 0
    # What was refused waits for its next attempt and is not overdue, however long the provider is down.
    waited = max(lag, facts.refused_seconds if facts and diagnosis.code == "D31" else 0)
    if diagnosis.level == ops.Level.OK or (diagnosis.level == ops.Level.LATE and waited < ALERT_SECONDS):
        return
    logger.error(
        "alert code=%s level=%s lag_seconds=%.0f: %s",
        diagnosis.code,
        diagnosis.level,
        lag,
        diagnosis.headline,
        extra={"code": diagnosis.code, "lag_seconds": lag},
    )
    alerted.send_robust(sender=alert, diagnosis=diagnosis)


@contextmanager
def _sigterm_later(worker: Worker) -> Iterator[None]:
    """
    Let SIGTERM end a child of the pool only once what *worker* has in hand is settled; a second one at once.

    Celery means it for the main process alone, but systemd's default and a ``kill`` of the process
    group send it to all: a child would end on the spot, and whatever it has in flight would be in doubt.
    """
    if not current_process().daemon or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        heard.append(number)
        worker.stop(signal.Signals(number).name)

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if heard and not _closing():  # it was meant for this child: an autoscaler takes it away
            signal.raise_signal(signal.SIGTERM)


def _anything_due(using: str) -> bool:
    return OutboundEmail.objects.using(using).due(clock(using)).exists()


# --- the doorbell -------------------------------------------------------------------------------


def publish(using: str) -> None:
    """
    Put one ring for database *using* into the broker; the doorbell "celery".

    Raises whatever the broker's library raises, within about a second, and is called by the
    doorbell's thread only. Without a broker it opens no socket: the step does the work.
    """
    app = drain.app
    if has_no_broker(app):
        return
    line = _line_of(app)
    if time.monotonic() < line.crowded_until:
        return
    try:
        line.ring(using)
    except BaseException:
        _drop_line()
        raise


def has_no_broker(app: Celery) -> bool:
    """Whether *app* has a broker in its own memory only, so that a message would reach nobody."""
    return _transport(app) == "memory"


def broker_trouble() -> str:
    """Return why the broker's URL cannot be used, without its password; empty where it can."""
    app = drain.app
    if app.main is None or app.main == "default":
        return "this process has no Celery app, so rings would go to amqp://localhost."
    try:
        connection = app.connection_for_write()
        connection.transport  # noqa: B018 - raises where there is none of that name
        return "" if connection.hostname or _transport(app) == "memory" else "its URL names no host."
    except Exception as error:  # noqa: BLE001 - kombu, urllib and the transport's library each raise their own
        return f"{type(error).__name__} of its URL."


def bell_to_try() -> Callable[[], str]:
    """
    Return what tells why no ring can be published now: a sentence without passwords, or nothing.

    Loads the broker's library and touches no network; what is returned does, on a line of its own.
    A name that is not resolved may take it longer than BROKER_SECONDS.
    """
    app, trouble = drain.app, broker_trouble()
    if trouble:
        return lambda: f"Celery's broker cannot be used: {trouble}"
    if has_no_broker(app):
        return str
    return partial(_try, _Line(app))


def _try(line: _Line) -> str:
    began = time.perf_counter()
    try:
        line.connection.ensure_connection(max_retries=1, timeout=BROKER_SECONDS, interval_start=0)
        line.connection.default_channel  # noqa: B018 - with Redis only a channel opens the socket
    except Exception as error:  # noqa: BLE001 - whatever kombu's transports raise
        where = f"{line.connection.transport_cls} at {line.connection.hostname}:{line.connection.port}"
        took = (time.perf_counter() - began) * 1000
        return f"{where} does not take rings: {type(error).__name__} after {took:.0f} ms."
    finally:
        line.close()
    return ""


def has_result_backend() -> bool:
    """Whether Celery is told to keep the results of the site's tasks somewhere."""
    conf = drain.app.conf
    return bool(conf.result_backend) and not conf.task_ignore_result


def _transport(app: Celery) -> str:
    return str(app.connection_for_write().transport_cls)


class _Line:
    """One connection to the broker, for one thread: short time-outs, no retries, whatever the site has set."""

    def __init__(self, app: Celery) -> None:
        self.pid, self.used_at, self.crowded_until = os.getpid(), 0.0, 0.0
        self.connection = app.connection_for_write(
            connect_timeout=BROKER_SECONDS, heartbeat=0, transport_options=_short(app)
        )
        self._producer: Producer | None = None

    def ring(self, using: str) -> None:
        """Publish, and look how many messages stand there already."""
        if self._producer is None:
            self.connection.ensure_connection(max_retries=1, timeout=BROKER_SECONDS, interval_start=0)
            self._producer = Producer(self.connection)
        to = {"queue": config().CELERY_QUEUE} if config().CELERY_QUEUE else {}
        drain.apply_async(
            (using,),
            producer=self._producer,
            retry=True,  # without it kombu falls back to retries of its own (6 s)
            retry_policy={"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0},
            expires=RING_EXPIRES_SECONDS,
            ignore_result=True,
            **to,
        )
        self.used_at = time.monotonic()
        if self._waiting() > CROWD:
            self.crowded_until = self.used_at + CROWD_SECONDS

    def _waiting(self) -> int:
        """Return how many messages stand in our queue."""
        channel = self.connection.default_channel
        try:
            return int(channel.queue_declare(queue_name(drain.app), passive=True).message_count)
        except self.connection.channel_errors:
            return 0  # Redis forgets an empty queue

    def close(self) -> None:
        """Give the socket back."""
        try:
            self.connection.release()
        except Exception:  # what is broken may say so in any way its library likes
            logger.debug("doorbell: a connection could not be closed", exc_info=True)


def _short(app: Celery) -> Mapping[str, Any]:
    transport = _transport(app)
    if transport in ("amqp", "amqps", "pyamqp", "librabbitmq"):
        return {"read_timeout": BROKER_SECONDS, "write_timeout": BROKER_SECONDS}
    if transport.startswith(("redis", "sentinel")):
        return {
            "socket_timeout": BROKER_SECONDS,
            "socket_connect_timeout": BROKER_SECONDS,
            "retry_on_timeout": False,
        }
    return {}


def _line_of(app: Celery) -> _Line:
    line: _Line | None = getattr(_own, "line", None)
    if line is not None and line.pid != os.getpid():
        line = None  # the parent's socket: not ours to close
    elif line is not None and line.used_at and time.monotonic() - line.used_at > IDLE_SECONDS:
        crowded_until = line.crowded_until
        line.close()
        line = _Line(app)
        line.crowded_until = crowded_until
    if line is None:
        line = _Line(app)
    _own.line = line
    return line


def _drop_line() -> None:
    if (line := _own.__dict__.pop("line", None)) is not None:
        line.close()


def queue_name(app: Celery) -> str:
    """Return the queue of ``drain``: CELERY_QUEUE, else where *app* routes it."""
    if chosen := config().CELERY_QUEUE:
        return chosen
    destination = app.amqp.router.route({}, drain.name)
    return str(getattr(destination.get("queue"), "name", "") or app.conf.task_default_queue)


# --- the step -----------------------------------------------------------------------------------


class Sweeper(bootsteps.StartStopStep):
    """
    Delivers what is overdue, from the main process of ``celery worker``, on its own clock.

    Begins before the worker looks for its broker, which may be away for as long as it likes. Its
    thread is the only one that holds its connections; children of the pool that are forked later
    inherit neither the thread nor, since connections belong to their thread, what it has open.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        _open_again()
        self._alone = has_no_broker(parent.app)
        self._worker: Worker | None = None
        self._reason = ""
        signals.worker_shutting_down.connect(self._note_signal)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postroom-sweeper", daemon=True)

    def include_if(self, parent: Any) -> bool:
        """Only where our queue is consumed: elsewhere mail may have no way out."""
        return queue_name(parent.app) in parent.app.amqp.queues.consume_from

    def create(self, parent: Any) -> None:
        """
        Import what the thread sends with, before the pool forks.

        A child that is forked while another thread imports a module can never import it: the lock
        of a module stays locked.
        """
        with suppress(Exception):  # settings that cannot be meant: the thread tells of them, again and again
            for alias in mailers.names():
                if mailers.get(alias).carriable and carrier.is_available():
                    for name in ("pycurl", "greenlet"):
                        import_module(name)
        mailers.close_all()

    def start(self, parent: Any) -> None:
        """Begin the thread."""
        if self._alone:
            logger.info("no broker: this worker delivers every e-mail by itself, from the table")
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Let what is in flight finish within STOP_SECONDS; the rest is handed back."""
        self._stop("celery worker stops")
        if self._thread.is_alive():
            self._thread.join(config().STOP_SECONDS + 5)

    def terminate(self, parent: Any) -> None:
        """Somebody is in a hurry: claim nothing more, and leave the rest to whoever rescues."""
        self._stop("celery worker is terminated")

    def _note_signal(self, *, sig: str = "", **_: Any) -> None:
        self._reason = self._reason or sig

    def _stop(self, reason: str) -> None:
        self._reason = self._reason or reason
        _close()
        self._end.set()
        if worker := self._worker:
            worker.stop(self._reason)

    def _goes_on(self) -> bool:
        """Asked by the worker inside at every turn; its goodbye tells what ended the one around it."""
        if not self._end.is_set() and not _closing():
            return True
        if worker := self._worker:
            worker.stop(self._reason)
        return False

    def _run(self) -> None:
        pause = 1
        while not self._end.is_set() and not _closing():
            try:
                if self._tables_are_there() and self._mailers_are_usable():
                    self._deliver()
                    pause = 1
            except Exception:
                # One life of the worker inside: whatever ended it, mail must not stand still for ever.
                logger.exception("step failed; it begins again in %s s", pause)
            finally:
                delivery.close_connections()
            self._end.wait(pause)
            pause = min(pause * 2, CROWD_SECONDS)

    def _deliver(self) -> None:
        self._worker = Worker(
            name=f"{delivery.worker_name()}-celery",
            overdue_seconds=0 if self._alone else OVERDUE_SECONDS,
            keep_on=self._goes_on,
        )
        self._worker.run()

    def _mailers_are_usable(self) -> bool:
        """Celery runs the system checks and does not heed them."""
        for alias in mailers.names():
            if trouble := mailers.trouble(alias):
                text = "postroom.E004 no e-mail leaves this worker, the mailer %r cannot be used: %s"
                logger.error(text, alias, trouble)
                return False
        return True

    def _tables_are_there(self) -> bool:
        """Ask for ours alone: a migration of the site's own that is still to come keeps no mail waiting."""
        found = ops.missing_migrations(router.db_for_write(OutboundEmail))
        missing = [name for name in found if name.startswith("postroom.")]
        if missing:
            logger.error(
                "postroom.E010 the tables of postroom are missing or old (%s); no e-mail leaves this worker. "
                "Run: python manage.py migrate postroom",
                ", ".join(missing),
            )
        return not missing


@signals.celeryd_init.connect(weak=False, dispatch_uid="postroom.step")
def join_worker(*, instance: Any, options: Mapping[str, Any], **_: Any) -> None:
    """Add the step to a ``celery worker`` that is about to be made; refuse what Celery cannot do."""
    pool = str(getattr(options.get("pool_cls") or options.get("pool") or "", "__module__", ""))
    named = str(options.get("pool_cls") or options.get("pool") or instance.app.conf.worker_pool)
    if options.get("autoscale") and ("thread" in pool or named == "threads"):
        raise SystemExit(
            "postroom.E009 celery worker: --autoscale with --pool threads ends in a crash of Celery's. "
            "Write --concurrency=N without --autoscale, or leave out --pool threads."
        )
    instance.app.steps["worker"].add(Sweeper)


@signals.worker_shutting_down.connect(weak=False, dispatch_uid="postroom.close")
def _close(**_: Any) -> None:
    """Tell every drain, also those in children, to hand over."""
    _flag[0] = 1


def _open_again() -> None:
    _flag[0] = 0


def _closing() -> bool:
    return bool(_flag[0])


_flag = mmap.mmap(-1, 1)
"""Shared with the children that the pool forks: whether this worker is about to end."""

_own = threading.local()
