"""
Opens the shop: provider simulator, worker and web as processes of their own, and tells what happens.

The main thread starts every child, waits at one queue for whatever comes (a line, an end, a
signal, the button of the home page), and is the only one that speaks to the database.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote, urlsplit

from example import control, environment, loopback, terminal
from example.narrator import Narrator, said
from example.processes import Child, Ended, Line, how_it_ended, open_log
from example.reports import WEBHOOK

RESTART_AFTER_SECONDS = 10
STARTS_WITHIN_SECONDS = 60
ARRIVES_WITHIN_SECONDS = 6
SIMULATOR_PORT = 9025

Stop = signal.Signals


class CrashedAtStart(Exception):
    """A child ended before the shop was open."""


def run() -> int:
    """Open the shop and keep it open until Ctrl-C; return the exit code."""
    began = time.monotonic()
    listener, port_note = _choose_addresses()
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    django.setup()
    shop = Shop(began, listener, port_note)
    try:
        return shop.open()
    finally:
        shop.leave_nothing()


def _choose_addresses() -> tuple[socket.socket, str]:
    """
    Take the port, and set PORT and SITE_URL for every process.

    Returns the socket that listens, and a line for the terminal where it is not on port 8000.
    """
    environment.read_file(environment.BASE_DIR / ".env")
    # What a shop that was killed may have left behind is of no use to this one.
    (environment.var_dir() / "running.env").unlink(missing_ok=True)
    wanted, note = environment.port(), ""
    try:
        listener = loopback.listen(wanted)
    except OSError:
        listener = loopback.listen_near(wanted + 1)
        free = loopback.port_of(listener)
        if environment.text("PORT"):
            pid = loopback.holder(wanted)
            by = f" (pid {pid})" if pid else ""
            environment.refuse(f"port {wanted} is taken{by}. Choose another: make run PORT={free}")
        note = f"port {wanted} is taken, so the shop is at http://127.0.0.1:{free}/"
    os.environ["PORT"] = str(loopback.port_of(listener))
    os.environ["SITE_URL"] = environment.site_url(f"http://127.0.0.1:{os.environ['PORT']}")
    return listener, note


class Shop:
    """The processes and the conversation with the terminal."""

    def __init__(self, began: float, listener: socket.socket, port_note: str) -> None:
        from django.conf import settings

        from example import stock

        self._began, self._listener, self._port_note = began, listener, port_note
        self._settings, self._stock = settings, stock
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._log = open_log(settings.VAR_DIR / "run.log")
        self._children: dict[str, Child] = {}
        self._restart_at: dict[str, float] = {}
        self._arrives_by = 0.0
        self._plays = settings.DEBUG and not (
            settings.BREVO_API_KEY or settings.BREVO_API_URL or settings.SMTP
        )
        self._narrator = Narrator(plays_provider=self._plays)
        self._simulator = loopback.listen_near(SIMULATOR_PORT) if self._plays else None
        self._stops = 0

    def open(self) -> int:
        """Prepare, start, tell, and stay; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        warning = terminal.real_mail(self._settings)
        if warning:
            print(warning, flush=True)
        is_new = self._prepare()
        try:
            self._start_all()
        except CrashedAtStart as crash:
            print(crash, file=sys.stderr, flush=True)
            return 1
        if not self._stops:
            self._welcome(is_new)
        while not self._stops:
            self._turn()
        return self._close()

    def leave_nothing(self) -> None:
        """End every process that is left, whatever happened."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.end(1)
        (self._settings.VAR_DIR / "running.env").unlink(missing_ok=True)
        self._log.close()
        self._listener.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stops += 1
        self._queue.put(Stop(number))

    def _prepare(self) -> bool:
        """Tables and stock; return whether this is the first start."""
        from django.db import DatabaseError

        stock, began = self._stock, time.monotonic()
        name = stock.database_name()
        try:
            is_new = stock.migrate()
            tables_took, began = time.monotonic() - began, time.monotonic()
            goods = stock.seed()
        except stock.MadeByNewer:
            environment.refuse(
                f"{name} was made by a newer version. Keep it: git pull. Start over: {_start_over()}"
            )
        except DatabaseError as error:
            reason = str(error).strip().splitlines()[0]
            environment.refuse(
                f"{name} cannot be used: {reason}. Another one: DATABASE_URL=…, or: {_start_over()}"
            )
        if is_new:
            if not environment.text("POSTROOM_FIRST_START"):
                print("postroom: first start, setting up (once; later it takes 3 s)")
            staff = "1 operator" if self._settings.DEBUG else "no operator"
            print(terminal.set_up("database", f"{name}, new", tables_took))
            print(
                terminal.set_up("shop", f"{goods} things to buy, {staff}", time.monotonic() - began),
                flush=True,
            )
        return bool(is_new)

    def _start_all(self) -> None:
        if self._simulator:
            os.environ["BREVO_API_URL"] = f"http://127.0.0.1:{loopback.port_of(self._simulator)}/v3/"
            self._start("provider")
        os.environ[control.VARIABLE] = control.listen(self._kill_worker)
        self._remember_addresses()
        self._start("worker")
        self._start("web")
        self._wait_for(self._everybody_is_there)

    def _remember_addresses(self) -> None:
        """For commands in another terminal: they then speak of the same shop."""
        names = ("PORT", "SITE_URL", *(("BREVO_API_URL",) if self._plays else ()))
        text = "".join(f"{name}={os.environ[name]}\n" for name in names)
        (self._settings.VAR_DIR / "running.env").write_text(text, encoding="utf-8")

    def _start(self, name: str) -> None:
        os.environ["POSTROOM_LINES"] = "1"
        arguments, listener = self._commands()[name]
        sockets = (listener.fileno(),) if listener else ()
        variables = {WEBHOOK: self._webhook()} if name == "provider" else {}
        self._children[name] = Child(name, arguments, self._queue, self._log, sockets, variables)

    def _commands(self) -> dict[str, tuple[list[str], socket.socket | None]]:
        commands: dict[str, tuple[list[str], socket.socket | None]] = {
            "web": (["-m", "example.web", str(self._listener.fileno())], self._listener),
            "worker": ([str(environment.BASE_DIR / "manage.py"), "postroom_worker"], None),
        }
        if self._simulator:
            simulate = ["-m", "example.brevo", "--fd", str(self._simulator.fileno())]
            commands["provider"] = (simulate, self._simulator)
        return commands

    def _webhook(self) -> str:
        """Where the simulator reports; not in its command line, which every user of the machine can read."""
        user, _, password = self._settings.BREVO_WEBHOOK_SECRET.partition(":")
        host = f"127.0.0.1:{os.environ['PORT']}"
        return f"http://{quote(user, safe='')}:{quote(password, safe='')}@{host}/webhooks/brevo/tracking/"

    def _wait_for(self, is_so: Callable[[], bool]) -> None:
        """Take what comes until *is_so*; a child that ends meanwhile ends it all."""
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not self._stops and not is_so():
            try:
                happened = self._queue.get(timeout=0.1)
            except Empty:
                happened = None
            if isinstance(happened, Ended):
                raise CrashedAtStart(terminal.last_words(happened))
            if isinstance(happened, Line):
                self._hear(happened)
            if time.monotonic() > until:
                raise CrashedAtStart(
                    f"The shop did not open within {STARTS_WITHIN_SECONDS} s: see var/run.log."
                )

    def _everybody_is_there(self) -> bool:
        return bool(self._stock.has_heartbeat(self._children["worker"].pid)) and answers(
            os.environ["SITE_URL"]
        )

    def _welcome(self, is_new: bool) -> None:
        if is_new:
            print()
        else:
            counts = self._stock.counts()
            print(terminal.open_again(time.monotonic() - self._began, counts.emails, counts.waiting))
        if self._port_note:
            print(self._port_note)
        pids = {name: child.pid for name, child in self._children.items()}
        operator = f"{self._stock.OPERATOR}  {self._stock.PASSWORD}"
        print(terminal.open_now(self._settings, pids=pids, operator=operator, is_new=is_new), flush=True)

    def _hear(self, line: Line) -> None:
        told = self._narrator.tell(line.child.name, line.text)
        if told:
            print(told, flush=True)

    def _turn(self) -> None:
        try:
            happened = self._queue.get(timeout=0.2)
        except Empty:
            happened = None
        if isinstance(happened, Line):
            self._hear(happened)
        elif isinstance(happened, Ended):
            self._lose(happened)
        now = time.monotonic()
        for name in [name for name, at in self._restart_at.items() if at <= now]:
            self._restart(name)
        if self._arrives_by and self._arrives_by <= now:
            self._arrives_by, told = 0.0, self._narrator.arrival()
            if told:
                print(told, flush=True)

    def _lose(self, ended: Ended) -> None:
        """Say that a process is gone, and when there will be another one."""
        child, with_it = ended.child, ""
        if child.name == "worker":
            in_hand = self._ask(lambda: self._stock.in_hand(child.pid), [])
            self._narrator.worker_died([uuid[:4] for uuid in in_hand])
            with_it = f" with {terminal.e_mails(len(in_hand))} in hand"
        again = f"a new one starts in {RESTART_AFTER_SECONDS} s"
        print(
            said("run", f"{child.name} {child.pid} {how_it_ended(ended.code)}{with_it}; {again}"), flush=True
        )
        self._restart_at[child.name] = time.monotonic() + RESTART_AFTER_SECONDS

    def _restart(self, name: str) -> None:
        del self._restart_at[name]
        self._start(name)
        if name == "worker":
            self._narrator.worker_started(self._children[name].pid)
            self._arrives_by = time.monotonic() + ARRIVES_WITHIN_SECONDS
        else:
            print(said(name, f"pid {self._children[name].pid}"), flush=True)

    def _kill_worker(self) -> int:
        """Do what the button says; called by the thread that listens."""
        worker = self._children.get("worker")
        if worker is None or not worker.is_running():
            return 0
        worker.kill()
        return worker.pid

    def _ask(self, question: Callable[[], Any], otherwise: Any) -> Any:
        """Ask the database; it may be away, and that must not end the shop."""
        from django.db import DatabaseError

        try:
            return question()
        except DatabaseError:
            return otherwise

    def _close(self) -> int:
        """Worker first: it finishes what it has in hand while provider and web still listen."""
        began = time.monotonic()
        in_hand = self._ask(self._stock.in_hand, [])
        print(
            f"\nclosing: {terminal.e_mails(len(in_hand)) if in_hand else 'nothing'} in hand",
            end="",
            flush=True,
        )
        worker = self._children.get("worker")
        if worker:
            worker.stop()
            if not self._ended(worker, self._settings.POSTROOM.get("STOP_SECONDS", 25) + 5):
                return self._close_at_once(len(in_hand))
        for name in ("web", "provider"):
            if name in self._children:
                self._children[name].stop()
        for name in ("web", "provider"):
            if name in self._children and not self._ended(self._children[name], 6):
                return self._close_at_once(0)
        outcome = (
            f" … {terminal.outcomes(self._ask(lambda: self._stock.became(in_hand), []))}" if in_hand else ""
        )
        waiting = self._ask(
            lambda: f"{terminal.e_mails(self._stock.counts().waiting)} waiting", "the database is away"
        )
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{outcome}. Stopped after {took}, nothing left running, {waiting}.", flush=True)
        return 0

    def _ended(self, child: Child, seconds: float) -> bool:
        """Wait for the end of *child*; kill it when its time is up. False: somebody is in a hurry."""
        until = time.monotonic() + seconds
        while child.is_running():
            if self._stops > 1:
                return False
            if time.monotonic() > until:
                child.kill()
            time.sleep(0.05)
        return True

    def _close_at_once(self, in_hand: int) -> int:
        self.leave_nothing()
        print(f"\n{terminal.closed_at_once(in_hand)}", flush=True)
        return 0


def _start_over() -> str:
    """What to type for an empty database: ``make fresh`` forgets the one under var/ and no other."""
    return "DATABASE_URL= make run (SQLite)" if environment.text("DATABASE_URL") else "make fresh"


def answers(url: str) -> bool:
    """Whether something answers HTTP on our port."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=1)
    try:
        connection.request("GET", "/healthz/live", headers={"Host": urlsplit(url).netloc})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
