"""Reads one request head, strictly, and upgrades only when a route asks for it.

gevent's server has no deadline for a request head and accepts what RFC 9112 does
not, and gevent-websocket answers 101 before the application runs. So this handler
reads the head itself, under one deadline and one bound, lets h11 judge it, and
puts a callable into the WSGI environment with which a route accepts the upgrade
after its own checks. The 101 itself is written by gevent-websocket's handler; its
WebSocket object is never made, ``connection`` takes the descriptor over.

One connection carries one request: every response says ``Connection: close``, and
nothing behind a head is ever read as a second request, so there is nothing that
a smuggled one could reach.

``environ`` keys of our own: ``relay.headers``, the header fields as they came, a
list of (lower-case name, value) in bytes; ``relay.has_body``; ``relay.accept``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import socket
from _socket import socket as PlainSocket
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import h11
from gevent import pywsgi
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from relay_app import log
from relay_app.core import policy

MAX_HEAD_BYTES = 16384
"""Request line and header fields together."""

MAX_HEADERS = 100

MAX_LINGER_BYTES = 65536
"""What is read away behind a refused head, so that the answer is not lost to a reset."""

LINGER_S = 1.0

_RECEIVE_BYTES = 4096
_LONE_LF = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\r\n[ \t]")

Accepted = tuple[PlainSocket, bytes]
"""The connection's socket, non-blocking and not gevent's, and the bytes that came
behind the head."""


class HeadFault(Exception):
    """A request head that cannot be served.

    Args:
        status: The status line's code and phrase.
        detail: One line for the client, from a fixed set of words.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


def parse_head(head: bytes) -> h11.Request:
    """Judge a request head.

    Args:
        head: Everything up to and with the blank line.

    Raises:
        HeadFault: With the status that the fault deserves.

    Source: RFC 9112 §2 to §6; RFC 9110 §5.
    """
    if _LONE_LF.search(head):
        raise HeadFault("400 Bad Request", "a line ends without CR")
    if _FOLDED.search(head):
        raise HeadFault("400 Bad Request", "a folded header line")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as fault:
        if fault.error_status_hint == 501:
            raise HeadFault("501 Not Implemented", "unknown transfer coding") from None
        raise HeadFault("400 Bad Request", "malformed request head") from None
    if not isinstance(event, h11.Request):
        raise HeadFault("400 Bad Request", "malformed request head")
    if event.http_version not in (b"1.1", b"1.0"):
        raise HeadFault("505 HTTP Version Not Supported", "use HTTP/1.1")
    if len(event.headers) > MAX_HEADERS:
        raise HeadFault("431 Request Header Fields Too Large", "too many header fields")
    names = [name for name, _ in event.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise HeadFault("400 Bad Request", "both Transfer-Encoding and Content-Length")
    return event


class Handler(PyWSGIHandler, WebSocketHandler):  # type: ignore[misc]
    """One accepted socket, from its first byte to its response or its upgrade.

    ``handshake_timeout_s`` is set by the worker, once for all.
    """

    handshake_timeout_s = 5.0

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        super().__init__(sock, address, server, rfile=io.BytesIO())
        self._early = b""
        self._has_body = False
        self._upgraded = False
        self.environ: dict[str, Any] = {}

    def handle(self) -> None:
        """Serve the one request of this connection and close it, unless it was upgraded."""
        linger = False
        heads = self.server.heads
        given_up = heads.enter(self, policy.source(self._peer_address()))
        if given_up is not None:
            given_up.give_up()
        try:
            try:
                head = self._read_head(monotonic() + self.handshake_timeout_s)
                if head is None:
                    return
                self._read_request(parse_head(head))
            except HeadFault as fault:
                linger = True
                self._refuse(fault)
                return
            linger = self._has_body
            self.application = self.server.application
            self.handle_one_response()
        except OSError:
            linger = False  # the peer is gone: nobody is left to answer
        except Exception as exc:
            # gevent would print it with its text, which may quote the peer.
            log.error("request", exc)
        finally:
            heads.leave(self)
            if not self._upgraded:
                self._hang_up(linger)
            # The server's own frames keep this object until the greenlet ends.
            self.environ = {}
            self.__dict__.pop("socket", None)

    def give_up(self) -> None:
        """End the connection, called for another one's sake: there are too many.

        The handler's own greenlet sees the end of the stream, and closes.
        """
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    # -- the head -----------------------------------------------------------

    def _read_head(self, deadline: float) -> bytes | None:
        """Receive up to the blank line; what follows it is kept as early bytes.

        Returns: ``None`` when the peer went away before.
        """
        got = bytearray()
        while True:
            left_s = deadline - monotonic()
            if left_s <= 0:
                raise HeadFault("408 Request Timeout", "the request head took too long")
            self.socket.settimeout(left_s)
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                continue
            if not data:
                return None
            searched = max(len(got) - 3, 0)
            got += data
            end = got.find(b"\r\n\r\n", searched) + 4
            if end > 3:
                if end > MAX_HEAD_BYTES:
                    break
                self._early = bytes(got[end:])
                return bytes(got[:end])
            if len(got) > MAX_HEAD_BYTES:
                break
            if _LONE_LF.search(got, searched):
                raise HeadFault("400 Bad Request", "a line ends without CR")
        raise HeadFault(
            "431 Request Header Fields Too Large", "the request head is too large"
        )

    def _read_request(self, request: h11.Request) -> None:
        target = request.target.decode("latin-1")
        if not target.startswith("/"):
            try:
                parts = urlsplit(target)
            except ValueError:
                raise HeadFault("400 Bad Request", "malformed request target") from None
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise HeadFault("400 Bad Request", "malformed request target")
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.command = request.method.decode("ascii")
        self.path = target
        self.request_version = f"HTTP/{request.http_version.decode('ascii')}"
        self.requestline = f"{self.command} {target} {self.request_version}"
        self.close_connection = True
        self.environ = self._environ(list(request.headers))
        self.wsgi_input = pywsgi.Input(self.rfile, 0)

    def _environ(self, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = self.server.get_environ()
        environ["REQUEST_METHOD"] = self.command
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        environ["QUERY_STRING"] = query
        environ["SERVER_PROTOCOL"] = self.request_version
        environ["REMOTE_ADDR"] = self._peer_address()
        environ["wsgi.input"] = self.rfile
        environ["wsgi.input_terminated"] = True
        for name, value in headers:
            if name == b"content-length":
                self._has_body = self._has_body or value.strip(b"0") != b""
            elif name == b"transfer-encoding":
                self._has_body = True
            elif b"_" not in name:
                key = "HTTP_" + name.decode("ascii").upper().replace("-", "_")
                text = value.decode("latin-1")
                environ[key] = f"{environ[key]},{text}" if key in environ else text
        environ["relay.headers"] = headers
        environ["relay.has_body"] = self._has_body
        environ["relay.accept"] = self._accept
        return environ

    def _peer_address(self) -> str:
        address = self.client_address
        return str(address[0]) if isinstance(address, tuple) else ""

    # -- the response -------------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Begin the response; behind an upgrade there is none."""
        if self._upgraded:
            return lambda data: None
        if not status.startswith("101"):
            headers = [*headers, ("Connection", "close")]
        writer: Callable[[bytes], None] = super().start_response(
            status, headers, exc_info
        )
        return writer

    def run_application(self) -> None:
        """Run the application; it is the one that decides about an upgrade."""
        pywsgi.WSGIHandler.run_application(self)

    def process_result(self) -> None:
        """Write what the application returned, unless the socket is not ours any more."""
        if not self._upgraded:
            super().process_result()

    def log_request(self) -> None:
        """Write nothing: a request line can hold what must not be logged."""

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        log.error("request", v)

    def _accept(self, key: str) -> Accepted:
        """Answer 101 and give the connection away.

        Args:
            key: ``Sec-WebSocket-Key``, checked.

        Returns: See ``Accepted``. This handler never touches the socket again.

        Raises:
            OSError: The peer is gone.

        Source: RFC 6455 §4.2.2.
        """
        digest = hashlib.sha1((key + self.GUID).encode("ascii")).digest()
        # Tells gevent-websocket that this response is a handshake.
        self.environ["wsgi.websocket"] = True
        self.start_response(
            "101 Switching Protocols",
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", base64.b64encode(digest).decode("ascii")),
            ],
        )
        self._upgraded = True  # whatever happens now, no response follows
        try:
            self.write(b"")
        except OSError:
            self.socket.close()
            raise
        sock = PlainSocket(fileno=self.socket.detach())
        sock.setblocking(False)
        return sock, self._early

    def _refuse(self, fault: HeadFault) -> None:
        body = fault.detail.encode() + b"\n"
        self.socket.sendall(
            b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (fault.status.encode(), len(body), body)
        )

    def _hang_up(self, linger: bool) -> None:
        try:
            if linger:
                self.socket.shutdown(socket.SHUT_WR)
                deadline = monotonic() + LINGER_S
                swallowed = 0
                while (
                    swallowed < MAX_LINGER_BYTES
                    and (left_s := deadline - monotonic()) > 0
                ):
                    self.socket.settimeout(left_s)
                    data = self.socket.recv(_RECEIVE_BYTES)
                    if not data:
                        break
                    swallowed += len(data)
        except OSError:
            pass  # the peer hung up first
        finally:
            self.socket.close()
