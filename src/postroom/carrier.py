"""
Carries the HTTP requests of Anymail over one asyncio loop.

Anymail builds the payload and reads the answer, in code that waits where it stands; ``Carrier``
takes the place of its ``requests.Session``. ``run()`` lets that code run in a greenlet, which
steps aside at the one place where it waits for the network. So a loop in one thread has thousands
of ordinary, unchanged sends in flight, and nobody has to write one of them twice.

Hides libcurl and greenlet. Both are optional: without them, threads send.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import resource
import time
from asyncio import events
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from postroom import mailers
from postroom.exchange import Exchange

if TYPE_CHECKING:
    import pycurl
    import requests

logger = logging.getLogger("postroom")

T = TypeVar("T")

SPARE_DESCRIPTORS = 256
"""What a process opens besides its connections: files, the database, connections being closed."""


def is_available() -> bool:
    """Whether greenlet and a pycurl that knows asyncio (7.49) are installed; the extra ``brevo`` brings both."""
    if not all(importlib.util.find_spec(name) for name in ("pycurl", "greenlet")):
        return False
    return hasattr(importlib.import_module("pycurl"), "AsyncCurlMulti")


def new_loop(connections: int) -> asyncio.AbstractEventLoop:
    """Return an event loop that is fit for so many connections."""
    _allow_descriptors(connections + SPARE_DESCRIPTORS)
    return asyncio.SelectorEventLoop()


async def run(function: Callable[..., T], *args: Any) -> T:
    """Run *function*, which may call ``wait_for``, beside everything else in this loop."""
    from greenlet import greenlet

    child = greenlet(function)
    waits_for = _without_loop(child.switch, *args)
    while not child.dead:
        try:
            answer = await waits_for
        except BaseException as error:  # noqa: BLE001 - it belongs to the one who waits, whatever it is
            waits_for = _without_loop(child.throw, error)
        else:
            waits_for = _without_loop(child.switch, answer)
    result: T = waits_for
    return result


def wait_for(awaitable: Awaitable[T]) -> T:
    """Step aside until *awaitable* is done and return its result, or raise its error. Only inside ``run``."""
    from greenlet import getcurrent

    result: T = getcurrent().parent.switch(awaitable)
    return result


def _without_loop(step: Callable[..., Any], *args: Any) -> Any:
    """To code that knows nothing of loops there is none: Django would refuse a receiver its database."""
    loop = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return step(*args)
    finally:
        events._set_running_loop(loop)


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files, which is 1,024 on most machines, as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reach = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < reach:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reach, hard))
    if reach < wanted:
        logger.warning(
            "postroom.W011 open_files limit=%s wanted=%s: fewer e-mails can be in flight. Write LimitNOFILE=%s in the "
            "unit (ulimit -n), or --concurrency %s",
            reach,
            wanted,
            2 * wanted,
            max(reach - SPARE_DESCRIPTORS, 1),
        )


class Carrier:
    """
    Stands where a ``requests.Session`` stood: the same call, the same answer, the same errors.

    Follows no redirect, and sends nothing a second time: libcurl would, where a connection that was
    kept open ends without an answer. What broke becomes the error of requests that means the same;
    its cause is NothingLeft where that is certain. One for all sends of a loop; up to *connections*
    are shared and kept open for ``mailers.IDLE_SECONDS``.
    """

    def __init__(self, connections: int = 100) -> None:
        self._connections = connections
        self._multi: pycurl.AsyncCurlMulti | None = None
        self._idle: list[pycurl.Curl] = []
        self._used_at = 0.0
        # Looked for once: asking the environment at every request costs more than the request.
        self.is_in_a_proxied_place = any(name.lower().endswith("_proxy") for name in os.environ)

    def stand_in_for(self, session: requests.Session) -> CarriedSession:
        """Return what carries the requests of *session*."""
        return CarriedSession(self, session)

    async def perform(self, exchange: Exchange) -> requests.Response:
        """Carry out *exchange* and return the answer; raises what requests would raise."""
        import pycurl

        curl = self._idle.pop() if self._idle else pycurl.Curl()
        watch: _Watch | None = None
        try:
            exchange.prepare(curl)
            ended = self._opened().add_handle(curl)
            if exchange.idle_seconds:
                watch = _Watch(exchange, ended)
            await ended
        except pycurl.error as error:
            failure = exchange.failure(*error.args)
            raise failure from failure.__cause__ or error
        finally:
            self._used_at = time.monotonic()
            if watch:
                watch.cancel()
        answer = exchange.answer(curl)
        # One that failed or was given up may be in libcurl's hands still.
        curl.reset()
        self._idle.append(curl)
        return answer

    @property
    def is_stale(self) -> bool:
        """Whether connections are open that are too old to be used again."""
        return self._multi is not None and time.monotonic() - self._used_at > mailers.IDLE_SECONDS

    async def close(self) -> None:
        """Close every connection; the next request opens a new one."""
        multi, self._multi = self._multi, None
        if multi:
            await multi.aclose()
        self._idle.clear()

    def _opened(self) -> pycurl.AsyncCurlMulti:
        import pycurl

        if self._multi is None:
            self._multi = pycurl.AsyncCurlMulti()
            # Left to itself, libcurl keeps four times as many as there are requests under way in that moment.
            self._multi.setopt(pycurl.M_MAXCONNECTS, self._connections)
        return self._multi


class CarriedSession:
    """What Anymail's backend has for a session: what *session* is set up to do, it does."""

    def __init__(self, carrier: Carrier, session: requests.Session) -> None:
        self._carrier, self._session = carrier, session
        self.headers = session.headers

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        files: Any = None,
        auth: Any = None,
        timeout: Any = None,
        **others: Any,
    ) -> requests.Response:
        """Do what ``requests.Session.request`` does; returns its Response."""
        import requests
        from requests.structures import CaseInsensitiveDict

        session = self._session
        simple = url.isascii() and " " not in url and isinstance(data, (str, bytes))
        if simple and not (params or files or auth or others or session.params or session.auth):
            # What prepare_request would make of it, at a tenth of the price.
            asked = requests.PreparedRequest()
            asked.method, asked.url, asked.body = method.upper(), url, data
            told: Any = session.headers
            asked.headers, asked.hooks = CaseInsensitiveDict(told), session.hooks
            asked.headers.update(headers or {})
        else:
            asked = session.prepare_request(
                requests.Request(
                    method.upper(),
                    url,
                    headers=headers,
                    files=files,
                    data=data,
                    params=params,
                    auth=auth,
                    **others,
                )
            )
        exchange = Exchange(asked, waits=timeout, verify=session.verify, cert=session.cert)
        if session.proxies or (session.trust_env and self._carrier.is_in_a_proxied_place):
            exchange.proxy = _proxy_for(exchange.url, session)
        response = wait_for(self._carrier.perform(exchange))
        hooks: Any = requests.hooks
        answer: requests.Response = hooks.dispatch_hook(
            "response",
            asked.hooks,
            response,
            timeout=timeout,
            verify=session.verify,
            cert=session.cert,
            stream=False,
            proxies=session.proxies,
        )
        return answer

    def close(self) -> None:
        """Do nothing: the connections belong to the carrier, and others are using them."""


class _Watch:
    """
    Ends an exchange that moves nothing for as long as its read time-out says.

    While it connects, libcurl watches. Its own bound for slow transfers knows whole seconds only.
    """

    def __init__(self, exchange: Exchange, ended: asyncio.Future[Any]) -> None:
        self._exchange, self._ended = exchange, ended
        self._look_in(exchange.idle_seconds)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look_in(self, seconds: float) -> None:
        self._timer = self._ended.get_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        import requests

        exchange = self._exchange
        if self._ended.done():
            return
        if not exchange.begun:
            self._look_in(exchange.idle_seconds)
        elif (left := exchange.moved_at + exchange.idle_seconds - time.monotonic()) > 0:
            self._look_in(left)
        else:
            self._ended.set_exception(
                requests.ReadTimeout(f"Nothing was answered for {exchange.idle_seconds:g} s.")
            )


def _proxy_for(url: str, session: requests.Session) -> str:
    """Return the proxy that *session* or the environment names for *url*; empty: none."""
    from requests.utils import select_proxy

    settings = session.merge_environment_settings(url, {}, None, None, None)
    return select_proxy(url, settings["proxies"]) or ""
