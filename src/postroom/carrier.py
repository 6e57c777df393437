"""
Carries the HTTP requests of Anymail over one asyncio loop.

Anymail builds the payload and reads the answer, in code that waits where it stands; ``Carrier``
takes the place of its ``requests.Session``. ``run()`` lets that code run in a greenlet, which
steps aside at the one place where it waits for the network. So a loop in one thread has thousands
of ordinary, unchanged sends in flight, and nobody has to write one of them twice.

Hides aiohttp and greenlet. Both are optional: without them, threads send.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import resource
import ssl
from asyncio import events, sslproto
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from postroom import mailers
from postroom.conf import config

if TYPE_CHECKING:
    import aiohttp
    import requests

logger = logging.getLogger("postroom")

T = TypeVar("T")

TLS_BUFFER_BYTES = 4 * 1024
"""
asyncio reads TLS into 256 KiB a connection; a thousand connections then take 388 MiB, and 154 MiB
with 16 KiB (measured, 2026-11). A provider's answer is smaller than this, and a longer one is read
in pieces.
"""

SPARE_DESCRIPTORS = 256
"""What a process opens besides its connections: files, the database, connections being closed."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def is_available() -> bool:
    """Whether aiohttp and greenlet are installed (the extra ``brevo`` brings both)."""
    return all(importlib.util.find_spec(name) for name in ("aiohttp", "greenlet"))


def new_loop(connections: int) -> asyncio.AbstractEventLoop:
    """Return an event loop that is fit for so many TLS connections."""
    _allow_descriptors(connections + SPARE_DESCRIPTORS)
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
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
        logger.warning("open_files limit=%s wanted=%s: fewer e-mails can be in flight", reach, wanted)


class Carrier:
    """
    Stands where a ``requests.Session`` stood: the same call, the same answer, the same errors.

    Follows no redirect. An error of aiohttp becomes that of requests which means the same, with
    the first one as its cause. One for all sends of a loop; its connections are shared and kept
    open for ``mailers.IDLE_SECONDS``.
    """

    def __init__(self) -> None:
        self._sessions: dict[Any, aiohttp.ClientSession] = {}

    def stand_in_for(self, session: requests.Session) -> CarriedSession:
        """Return what carries the requests of *session*."""
        return CarriedSession(self, session)

    def session(self, verify: Any, cert: Any) -> aiohttp.ClientSession:
        """Return the aiohttp session for these ways to prove who is who; made at its first use."""
        known = self._sessions.get((verify, cert))
        if known is None:
            known = self._sessions[verify, cert] = _new_session(verify, cert)
        return known

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


class CarriedSession:
    """What Anymail's backend has for a session."""

    def __init__(self, carrier: Carrier, session: requests.Session) -> None:
        self._carrier = carrier
        self._verify, self._cert, self._hooks = session.verify, session.cert, session.hooks["response"]
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

        told = {**self.headers, **(headers or {})}
        if params or files or auth or others or not isinstance(data, (str, bytes)):
            request = requests.Request(
                method, url, told, files=files, data=data, params=params, auth=auth, **others
            ).prepare()
            # The length is aiohttp's to write.
            told = {name: value for name, value in request.headers.items() if name != "Content-Length"}
            url, data = request.url or url, request.body
        response = wait_for(self._ask(method, url, told, data, timeout))
        for hook in self._hooks:
            hook(response)
        return response

    def close(self) -> None:
        """Do nothing: the connections belong to the carrier, and others are using them."""

    async def _ask(
        self, method: str, url: str, headers: Mapping[str, Any], data: Any, waits: Any
    ) -> requests.Response:
        import aiohttp
        from yarl import URL

        session = self._carrier.session(self._verify, self._cert)
        try:
            async with session.request(
                method,
                URL(url, encoded=True),
                data=data.encode() if isinstance(data, str) else data,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(waits),
            ) as answer:
                return _response(answer, await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _as_requests(error) from error


def _new_session(verify: Any, cert: Any) -> aiohttp.ClientSession:
    import aiohttp

    connector = aiohttp.TCPConnector(
        limit=0,
        ssl=_tls(verify, cert),
        keepalive_timeout=mailers.IDLE_SECONDS,
        ttl_dns_cache=60,
    )
    # Looked for once: asking the environment at every request costs more than the request.
    proxied = any(name.lower().endswith("_proxy") for name in os.environ)
    return aiohttp.ClientSession(connector=connector, trust_env=proxied, cookie_jar=aiohttp.DummyCookieJar())


def _tls(verify: Any, cert: Any) -> ssl.SSLContext:
    if verify is True and not cert:
        return mailers.shared_tls_context()
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if cert:
        context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
    return context


def _timeout(given: Any) -> aiohttp.ClientTimeout:
    """Requests bounds one connect and one read; the whole is bounded so that a drip does not stay for ever."""
    import aiohttp

    connect, read = given if isinstance(given, tuple) else (given, given)
    return aiohttp.ClientTimeout(total=2 * config().ATTEMPT_SECONDS, sock_connect=connect, sock_read=read)


def _response(answer: aiohttp.ClientResponse, body: bytes) -> requests.Response:
    import requests
    from requests.structures import CaseInsensitiveDict
    from requests.utils import get_encoding_from_headers

    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason or ""
    response.url = str(answer.url)
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = get_encoding_from_headers(response.headers)
    response._content = body
    if answer.status in REDIRECTS and "location" in response.headers:
        raise requests.TooManyRedirects("Redirects are not followed.", response=response)
    return response


def _as_requests(error: Exception) -> requests.RequestException:
    """Return the error of requests that means what this one of aiohttp means."""
    import aiohttp
    import requests

    kinds: tuple[tuple[type[Exception], type[requests.RequestException]], ...] = (
        (aiohttp.ConnectionTimeoutError, requests.ConnectTimeout),
        (aiohttp.ClientConnectorCertificateError, requests.exceptions.SSLError),
        (aiohttp.NonHttpUrlClientError, requests.exceptions.InvalidSchema),
        (aiohttp.InvalidURL, requests.exceptions.InvalidURL),
        (ValueError, requests.exceptions.InvalidHeader),
        (TimeoutError, requests.ReadTimeout),
        (aiohttp.ClientPayloadError, requests.exceptions.ChunkedEncodingError),
    )
    found = next((theirs for ours, theirs in kinds if isinstance(error, ours)), requests.ConnectionError)
    return found(str(error) or type(error).__name__)
