"""Dials a relay, and puts into words what went wrong.

A dial ends in an open WebSocket or in a ``DialFailed``, which has one line of text
for the person who typed the command and says whether trying again makes sense.
No text here holds a token, a server-id or a frame.

Source: docs/protocol.md "Upgrade request".
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.exceptions import InvalidProxy, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from relay_app.core import close_codes

OPEN_TIMEOUT_S: Final = 10.0
"""From the start of a dial to the 101."""

CLOSE_TIMEOUT_S: Final = 3.0
"""For the relay's answer to our close frame."""

CUT: Final = 1006
"""What stands for an end without a close frame (RFC 6455 §7.1.5)."""

MAX_RETRY_AFTER_S: Final = 3600.0
"""What a Retry-After may ask for at most."""

MAX_QUOTED_CHARS: Final = 200
"""What is shown at most of a text that the other side sent."""

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed a little later."""

_SILENT: Final = logging.Logger("relay_app.client", logging.CRITICAL + 1)
"""The library's log would quote headers and frames."""


class BadUrl(ValueError):
    """A ``--url`` that cannot be dialled; the text says what one looks like."""


class DialFailed(Exception):
    """A dial that did not lead to an open WebSocket.

    Args:
        text: One line for a person.
        transient: Whether the same dial may succeed later.
        retry_after_s: Seconds that the relay asked to wait; 0 for none.
    """

    def __init__(
        self, text: str, *, transient: bool = True, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(text)
        self.text = text
        self.transient = transient
        self.retry_after_s = retry_after_s


def endpoint(url: str, path: str) -> str:
    """Make the address to dial from what a person typed.

    Args:
        url: ``ws://``, ``wss://``, ``http://`` or ``https://``, a host, perhaps a
            port, perhaps a path under which a proxy has the relay.
        path: ``/v1/server`` or ``/v1/client``.

    Raises:
        BadUrl: With one line that says what is wrong; never quotes the URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:  # UnicodeError is one too
        raise BadUrl("the host or the port in it is malformed") from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not host or not url.isprintable() or " " in url:
        raise BadUrl("it must look like ws://host:port or wss://host")
    if "@" in parts.netloc:
        raise BadUrl("it has no place for a user name or a password")
    if parts.query or parts.fragment:
        raise BadUrl("it ends with the host, or with a path; no ? and no #")
    shown = f"[{host}]" if ":" in host else host
    shown += "" if port is None else f":{port}"
    return f"{scheme}://{shown}{parts.path.rstrip('/')}{path}"


class _Connection(ClientConnection):
    """A connection that follows no redirect: the headers are for one relay only."""

    def handshake(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().handshake(*args, **kwargs)
        except InvalidStatus as fault:
            raise _refusal(fault) from None


@contextlib.contextmanager
def dial(
    address: str,
    headers: Mapping[str, str],
    *,
    version: str,
    ping_interval_s: float,
    max_message_bytes: int,
    open_timeout_s: float = OPEN_TIMEOUT_S,
) -> Iterator[ClientConnection]:
    """Open a WebSocket to the relay; leaving the context closes it.

    Args:
        address: From ``endpoint``.
        headers: The ``x-pyrycode-…`` fields.
        version: Goes into ``user-agent: pyry/<version>``.
        ping_interval_s: Between two pings; a missing pong ends the connection.
        max_message_bytes: A longer message ends the connection with 1009.
        open_timeout_s: From the start to the 101.

    Raises:
        DialFailed: There is no open WebSocket.
    """
    place = urlsplit(address).netloc
    with contextlib.ExitStack() as stack:
        try:
            link = stack.enter_context(
                connect(
                    address,
                    additional_headers=dict(headers),
                    user_agent_header=f"pyry/{version}",
                    compression=None,
                    proxy=None
                    if _is_loopback(urlsplit(address).hostname or "")
                    else True,
                    open_timeout=open_timeout_s,
                    close_timeout=CLOSE_TIMEOUT_S,
                    ping_interval=ping_interval_s,
                    ping_timeout=ping_interval_s,
                    max_size=max_message_bytes,
                    logger=_SILENT,
                    create_connection=_Connection,
                )
            )
        except (OSError, EOFError, WebSocketException) as fault:
            raise failure(place, fault, open_timeout_s) from None
        yield link


def failure(place: str, fault: Exception, open_timeout_s: float) -> DialFailed:
    """Put into words why a dial did not even get an HTTP answer.

    Args:
        place: Host and port, as they stand in the URL.
        fault: What the library or the system raised.
        open_timeout_s: What the dial was allowed.
    """
    if isinstance(fault, ConnectionRefusedError):
        return DialFailed(
            f"nothing listens on {place}; start the relay there, or check --url"
        )
    if isinstance(fault, socket.gaierror):
        return DialFailed(
            f"the host name in {place} is not known; check --url and the network"
        )
    if isinstance(fault, ssl.SSLCertVerificationError):
        why = printable(fault.verify_message)
        return DialFailed(f"the TLS certificate of {place} cannot be trusted: {why}")
    if isinstance(fault, ssl.SSLError):
        return DialFailed(
            f"{place} does not speak TLS as it should; try ws:// instead of wss://"
        )
    if isinstance(fault, TimeoutError):
        return DialFailed(f"{place} gave no answer within {open_timeout_s:g} s")
    if isinstance(fault, InvalidProxy):
        return DialFailed(
            "the proxy that the environment names cannot be used", transient=False
        )
    if isinstance(fault, OSError) and fault.strerror:
        return DialFailed(f"cannot reach {place}: {fault.strerror.lower()}")
    return DialFailed(
        f"{place} gave no proper answer; is that a relay? one behind TLS needs wss:// in --url"
    )


def printable(text: str) -> str:
    """Make a text that the other side sent fit to be shown: one short line, no controls."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return "".join(
        char if char.isprintable() else "?" for char in line[:MAX_QUOTED_CHARS]
    )


def ending(link: ClientConnection) -> tuple[int, str]:
    """Say how a connection ended.

    Returns: The close code, and one line with its meaning and the reason.
    """
    code = link.close_code or CUT
    reason = printable(link.close_reason or "")
    said = f"; reason: {reason}" if reason else ""
    return code, f"closed {code}: {close_codes.meaning(code)}{said}"


def one_line(frame: bytes) -> bytes:
    """Put a JSON text on one line. Inside its strings there are no line ends."""
    return frame.replace(b"\r", b" ").replace(b"\n", b" ")


def for_terminal(frame: bytes) -> bytes:
    """Put a JSON text on one line that no terminal takes for a command.

    DEL and the C1 controls may stand raw in a JSON string; they become escapes,
    so the text still means the same.
    """
    shown = "".join(
        f"\\u{ord(char):04x}" if "\x7f" <= char <= "\x9f" else char
        for char in frame.decode()
    )
    return one_line(shown.encode())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(fault: InvalidStatus) -> DialFailed:
    response = fault.response
    status = response.status_code
    body = (
        printable((response.body or b"").decode("utf-8", "replace"))
        or "no reason given"
    )
    asked = response.headers.get_all("Retry-After")[:1]
    retry_after_s = float(asked[0]) if asked and asked[0].isdecimal() else 0.0
    return DialFailed(
        f"the relay refused with status {status}: {body}",
        transient=status in _TRANSIENT,
        retry_after_s=min(retry_after_s, MAX_RETRY_AFTER_S),
    )
