"""
One HTTP request and its answer: what libcurl is told, and what it says, in the words of requests.

``carrier`` carries it out. Which way an exchange can break, and whether a byte of the request may
have left by then, is known here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from postroom import mailers
from postroom.conf import config

if TYPE_CHECKING:
    import pycurl
    import requests

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NothingLeft(ConnectionError):
    """Not one byte of the request was on its way: the provider cannot have taken the e-mail."""


class Exchange:
    """One request and its answer, as libcurl asks for the one and tells the other."""

    def __init__(self, asked: requests.PreparedRequest, *, waits: Any, verify: Any, cert: Any) -> None:
        """Raise requests' InvalidSchema or InvalidURL where *asked* names no place to go to."""
        self.url = asked.url or ""
        _check_place(self.url)
        self.proxy = ""
        self.connect_seconds, self.idle_seconds = waits if isinstance(waits, tuple) else (waits, waits)
        self.moved_at = time.monotonic()
        """When the last byte went either way."""
        self._asked, self._verify, self._cert = asked, verify, cert
        body = asked.body
        self._body = body.encode() if isinstance(body, str) else body or b""
        self._given = 0
        self.begun = not self._body
        """Whether a byte may have left; libcurl asks for the body when it writes the head."""
        self._head: list[bytes] = []
        self._content: list[bytes] = []

    def prepare(self, curl: pycurl.Curl) -> None:
        """Tell *curl* what to do; raises requests' InvalidHeader."""
        import pycurl

        curl.setopt(pycurl.URL, self.url)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROXY, self.proxy)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.HTTPHEADER, self._header_lines())
        curl.setopt(pycurl.ACCEPT_ENCODING, "")  # all that this libcurl can read
        curl.setopt(pycurl.HEADERFUNCTION, self._hear_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._hear)
        # The smallest there is: each request under way has one of its own, of 64 KiB otherwise.
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 16 * 1024)
        curl.setopt(pycurl.MAXAGE_CONN, mailers.IDLE_SECONDS)
        # The whole is bounded so that a drip does not stay for ever; what moves nothing, the carrier ends.
        curl.setopt(pycurl.TIMEOUT_MS, int(2000 * config().ATTEMPT_SECONDS))
        if self.connect_seconds:
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(int(self.connect_seconds * 1000), 1))
        if self._body:
            curl.setopt(pycurl.POST, 1)
            # Through a function, and without one to rewind: so libcurl cannot send it a second time.
            curl.setopt(pycurl.POSTFIELDSIZE_LARGE, len(self._body))
            curl.setopt(pycurl.READFUNCTION, self._give)
        curl.setopt(pycurl.CUSTOMREQUEST, self._asked.method)
        self._prove(curl)

    def _prove(self, curl: pycurl.Curl) -> None:
        """Say who is believed, and who we are, as requests' ``verify`` and ``cert`` say it."""
        import pycurl

        if not self._verify:
            curl.setopt(pycurl.SSL_VERIFYPEER, 0)
            curl.setopt(pycurl.SSL_VERIFYHOST, 0)
        else:
            named = isinstance(self._verify, (str, os.PathLike))
            trusted = os.fspath(self._verify) if named else mailers.authorities()
            # Only these: libcurl has a file and a directory of its own besides.
            curl.unsetopt(pycurl.CAINFO)
            curl.unsetopt(pycurl.CAPATH)
            curl.setopt(pycurl.CAPATH if _is_directory(trusted) else pycurl.CAINFO, trusted)
        if self._cert:
            both = isinstance(self._cert, (tuple, list))
            certificate, key = self._cert if both else (self._cert, self._cert)
            curl.setopt(pycurl.SSLCERT, os.fspath(certificate))
            curl.setopt(pycurl.SSLKEY, os.fspath(key))

    def _header_lines(self) -> list[bytes]:
        import requests
        from requests.utils import check_header_validity

        lines = [b"Expect:"]  # a request that waits for "100 Continue" is a wait more
        names = {"content-length", "accept-encoding"}  # libcurl's to write
        headers: Mapping[Any, Any] = self._asked.headers
        for given, value in headers.items():
            name = _native(given)
            if value is None or name.lower() in names:
                continue
            check_header_validity((given, value))
            text = _native(value)
            try:
                lines.append((f"{name}: {text}" if text else f"{name};").encode("latin-1"))
            except UnicodeEncodeError as error:
                raise requests.exceptions.InvalidHeader(f"The header {name!r} is not latin-1.") from error
            names.add(name.lower())
        # What libcurl would say by itself: that it is libcurl, takes anything, and sends a form.
        lines += [
            f"{name}:".encode()
            for name in ("User-Agent", "Accept", "Content-Type")
            if name.lower() not in names
        ]
        return lines

    # --- what libcurl calls ---------------------------------------------------------------------

    def _give(self, most: int) -> bytes:
        self.begun, self.moved_at = True, time.monotonic()
        piece = self._body[self._given : self._given + most]
        self._given += len(piece)
        return piece

    def _hear_header(self, line: bytes) -> None:
        self.moved_at = time.monotonic()
        starts = line.startswith(b"HTTP/1.")
        if self._head and not self._head[-1].strip() and not starts:
            return  # it comes after the body, and says nothing that may replace what came before
        if starts:
            self._head.clear()  # a "100 Continue", or a proxy, spoke before
        self._head.append(line)

    def _hear(self, piece: bytes) -> None:
        self.moved_at = time.monotonic()
        self._content.append(piece)

    # --- how it ended ---------------------------------------------------------------------------

    def answer(self, curl: pycurl.Curl) -> requests.Response:
        """
        Return what was answered.

        Raises requests' TooManyRedirects for a redirect, ContentDecodingError for a status that is none.
        """
        import pycurl
        import requests
        from requests.structures import CaseInsensitiveDict
        from requests.utils import get_encoding_from_headers

        status, *lines = [line.decode("latin-1").strip() for line in self._head]
        fields = [line.partition(":") for line in lines if line]
        response = requests.Response()
        response.status_code = curl.getinfo(pycurl.RESPONSE_CODE)
        response.reason = status.partition(" ")[2].partition(" ")[2]
        response.url = self.url
        response.headers = CaseInsensitiveDict({name: value.strip() for name, _, value in fields})
        response.encoding = get_encoding_from_headers(response.headers)
        response.request = self._asked
        response._content = b"".join(self._content)
        response._content_consumed = True  # type: ignore[attr-defined] # so that close() finds nothing to close
        if status.split()[1:2] != [str(response.status_code)]:
            # libcurl reads "HTTP/2.0 429" in an answer of HTTP/1 as 200.
            raise requests.exceptions.ContentDecodingError(f"This is no status: {status[:60]!r}")
        if response.status_code in REDIRECTS and "location" in response.headers:
            raise requests.TooManyRedirects("Redirects are not followed.", response=response)
        return response

    def failure(self, code: int, words: str) -> requests.RequestException:
        """Return the error of requests that means what libcurl's *code* means."""
        import pycurl
        import requests

        # Two of these classes mean that nothing left, whatever their cause: never once it has begun.
        timeout = requests.ReadTimeout if self.begun else requests.ConnectTimeout
        proxy = requests.ConnectionError if self.begun else requests.exceptions.ProxyError
        kinds: dict[int, type[requests.RequestException]] = {
            pycurl.E_OPERATION_TIMEDOUT: timeout,
            pycurl.E_COULDNT_RESOLVE_PROXY: proxy,
            pycurl.E_SSL_CONNECT_ERROR: requests.exceptions.SSLError,
            pycurl.E_PEER_FAILED_VERIFICATION: requests.exceptions.SSLError,
            pycurl.E_PARTIAL_FILE: requests.exceptions.ChunkedEncodingError,
            pycurl.E_BAD_CONTENT_ENCODING: requests.exceptions.ContentDecodingError,
        }
        if not self.begun and code == pycurl.E_URL_MALFORMAT:
            return requests.exceptions.InvalidURL(words)
        failure = kinds.get(code, requests.ConnectionError)(words or f"libcurl error {code}")
        failure.__cause__ = (ConnectionError if self.begun else NothingLeft)(*failure.args)
        return failure


def _native(text: Any) -> Any:
    return text.decode("latin-1") if isinstance(text, bytes) else text


def _check_place(url: str) -> None:
    import requests

    where = urlsplit(url)
    if where.scheme not in ("http", "https"):
        raise requests.exceptions.InvalidSchema(f"This is not an HTTP address: {url!r}")
    if not where.hostname:  # libcurl would look for one further behind
        raise requests.exceptions.InvalidURL(f"No host is named in {url!r}")


@lru_cache
def _is_directory(path: str) -> bool:
    """Looked at once: it is asked for every request."""
    return Path(path).is_dir()
