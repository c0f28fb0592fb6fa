"""The connections to AWS that the clients of all services share.

botocore gives each client connections of its own, loads the certificate authorities again for each connection (15 ms of
computing, a dozen times for a list of 1,000 instances), and connects when it sends. A handler of its event
``before-send`` may send a request in its place; `Transport` does, with one TLS context, over connections of which the
first are opened while botocore is still being imported. Through a proxy, botocore itself sends.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rackctl.background import in_background
from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from ssl import SSLContext

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 20


class Transport:
    """Sends what botocore has signed. ``ca_bundle`` is a file or directory of authorities, empty for the usual ones."""

    def __init__(self, ca_bundle: str = "") -> None:
        self.ca_bundle = ca_bundle
        self._endpoints: dict[tuple[str, str], _Endpoint] = {}
        self._authorities: Future[SSLContext] | None = None
        self._lock = threading.Lock()

    def open(self, url: str) -> None:
        """Begin to connect to an endpoint where no connection is idle; the next request takes it, or its error."""
        if _is_proxied(url):
            return
        if urlsplit(url).scheme == "https":
            self._context()
        # Imported now, not in the thread that connects: it would take turns with what the caller imports next.
        import urllib3.connection  # noqa: F401

        self._endpoint(url).open()

    def __call__(self, *, request: Any, **_: Any) -> Any:
        """Send a request and return its response, or None for one that botocore has to send itself.

        Raises botocore's errors, by which it decides whether to ask again.
        """
        from http.client import HTTPException
        from ssl import SSLError

        from botocore import exceptions as b
        from botocore.awsrequest import AWSResponse
        from urllib3 import HTTPResponse
        from urllib3 import exceptions as u

        if _is_proxied(request.url):
            return None
        endpoint, url = self._endpoint(request.url), urlsplit(request.url)
        try:
            connection = endpoint.take()
        except (SSLError, u.SSLError) as error:
            raise b.SSLError(endpoint_url=request.url, error=error) from error
        except u.NewConnectionError as error:  # which urllib3 makes a kind of ConnectTimeoutError
            raise b.EndpointConnectionError(endpoint_url=request.url, error=error) from error
        except (TimeoutError, u.ConnectTimeoutError) as error:
            raise b.ConnectTimeoutError(endpoint_url=request.url, error=error) from error
        except (OSError, u.HTTPError) as error:
            raise b.EndpointConnectionError(endpoint_url=request.url, error=error) from error
        try:
            connection.request(
                request.method,
                f"{url.path or '/'}{'?' if url.query else ''}{url.query}",
                body=request.body,
                headers=request.headers,
                chunked=request.headers.get("Transfer-Encoding") in {"chunked", b"chunked"},
                preload_content=False,
                decode_content=False,
            )
            answer = connection.getresponse()
            if request.stream_output:  # an object of a few kilobytes, read now to have the connection back
                body = BytesIO(answer.read())
                answer = HTTPResponse(body, answer.headers, answer.status, preload_content=False, decode_content=False)
            response = AWSResponse(request.url, answer.status, answer.headers, answer)
            if not request.stream_output:
                _ = response.content
        except (TimeoutError, u.ReadTimeoutError) as error:
            connection.close()
            raise b.ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except (OSError, HTTPException, u.HTTPError) as error:
            connection.close()
            raise b.ConnectionClosedError(endpoint_url=request.url, error=error, request=request) from error
        endpoint.give_back(connection)
        return response

    def _endpoint(self, url: str) -> _Endpoint:
        scheme, address = urlsplit(url)[:2]
        with self._lock:
            if (scheme, address) not in self._endpoints:
                self._endpoints[scheme, address] = _Endpoint(url, self._context)
            return self._endpoints[scheme, address]

    def _context(self) -> Future[SSLContext]:
        """Return the TLS context of all connections, which is made once, in a thread of its own."""
        with self._lock:
            if self._authorities is None:
                self._authorities = in_background(self._read_authorities, "read certificate authorities")
            return self._authorities

    def _read_authorities(self) -> SSLContext:
        import ssl

        import certifi

        bundle = self.ca_bundle or certifi.where()
        file, directory = (None, bundle) if Path(bundle).is_dir() else (bundle, None)
        try:
            context = ssl.create_default_context(cafile=file, capath=directory)
        except OSError as error:  # ssl's own errors among them
            raise UsageError(
                f"cannot read certificate authorities from {bundle}: {error.strerror or error}",
                hint="check AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and ca_bundle in the AWS config file",
            ) from error
        context.hostname_checks_common_name = False
        return context


class _Endpoint:
    """The connections to one address: those that are idle, and one that is being opened ahead."""

    def __init__(self, url: str, context: Callable[[], Future[SSLContext]]) -> None:
        self._url = urlsplit(url)
        self._context = context
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self._ahead: SimpleQueue[Future[Any]] = SimpleQueue()
        weakref.finalize(self, _close_all, self._idle, self._ahead)

    def open(self) -> None:
        if self._idle.empty():
            self._ahead.put(in_background(self._connect, f"connect {self._url.netloc}"))

    def take(self) -> Any:
        with suppress(Empty):
            while not (idle := self._idle.get_nowait()).is_connected:
                idle.close()
            return idle
        with suppress(Empty):
            return self._ahead.get_nowait().result()
        return self._connect()

    def give_back(self, connection: Any) -> None:
        """Keep a connection, unless its last response has closed it."""
        if not connection.is_closed:
            self._idle.put(connection)

    def _connect(self) -> Any:
        from urllib3.connection import HTTPConnection, HTTPSConnection

        assert self._url.hostname
        connection: HTTPConnection = (
            HTTPSConnection(
                self._url.hostname,
                self._url.port,
                timeout=CONNECT_TIMEOUT,
                cert_reqs="CERT_REQUIRED",
                ssl_context=self._context().result(),
            )
            if self._url.scheme == "https"
            else HTTPConnection(self._url.hostname, self._url.port, timeout=CONNECT_TIMEOUT)
        )
        connection.connect()
        connection.timeout = READ_TIMEOUT
        return connection


def _close_all(idle: SimpleQueue[Any], ahead: SimpleQueue[Future[Any]]) -> None:
    with suppress(Empty):
        while True:
            idle.get_nowait().close()
    with suppress(Empty):
        while True:
            ahead.get_nowait().add_done_callback(lambda opened: opened.exception() or opened.result().close())


def _is_proxied(url: str) -> bool:
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return bool(proxies.keys() & {"http", "https", "all"}) and not proxy_bypass(urlsplit(url).netloc)
