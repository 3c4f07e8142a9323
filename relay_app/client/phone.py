"""A phone for the command line: a line of input is a frame, a frame is a line of output.

Two threads share one connection: the session's own receives, a second one reads the
input and sends. The input's end is followed by a last wait for answers and by a
close with 1000; the receiver ends with the connection, whoever closed it.

Source: docs/protocol.md "How real peers behave".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from time import monotonic, sleep
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from relay_app.client import wire
from relay_app.core import json_text
from relay_app.core.close_codes import Close

PATH: Final = "/v1/client"

PING_INTERVAL_S: Final = 20.0

MAX_TEXT_CHARS: Final = 131072
"""A real phone closes 1009 on a longer text."""

UNSUPPORTED_DATA: Final = 1003
"""What a real phone closes with on a BINARY message (RFC 6455 §7.4.1)."""

STOP_S: Final = 1.0

_READ_BYTES: Final = 65536


def read_lines(descriptor: int) -> Iterator[bytes]:
    """Give the lines of an input as they come, without their ends.

    Reads the bare descriptor: a thread that waits in a buffered reader holds its
    lock, and Python could not exit beside it.
    """
    rest = b""
    while chunk := os.read(descriptor, _READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


class Phone:
    """One connection of one phone.

    Args:
        address: From ``wire.endpoint``.
        headers: Server-id, token, perhaps a device name.
        version: Goes into the user agent.
        lines: The input; each is one JSON value.
        linger_s: Seconds without a frame, after the input's end, before the close.
        out: Takes each frame that comes in.
        say: Takes messages for the person.
        greeting: What to say once the connection is open; empty for nothing.
    """

    def __init__(
        self,
        address: str,
        headers: dict[str, str],
        *,
        version: str,
        lines: Iterable[bytes],
        linger_s: float,
        out: Callable[[bytes], None],
        say: Callable[[str], None],
        greeting: str = "",
    ) -> None:
        self._address = address
        self._headers = headers
        self._version = version
        self._lines = lines
        self._linger_s = linger_s
        self._out = out
        self._say = say
        self._greeting = greeting
        self._link: ClientConnection | None = None
        self._bad_lines = 0
        self._last_received = 0.0

    def run(self) -> int:
        """Connect once, pass lines and frames on until the connection ends.

        Returns: 0 for a close with 1000 after good lines only, else 1.
        """
        try:
            with wire.dial(
                self._address,
                self._headers,
                version=self._version,
                ping_interval_s=PING_INTERVAL_S,
                max_message_bytes=4 * MAX_TEXT_CHARS,
            ) as link:
                self._link = link
                if self._greeting:
                    self._say(self._greeting)
                threading.Thread(
                    target=self._send_all, args=(link,), daemon=True
                ).start()
                self._receive_all(link)
        except wire.DialFailed as fault:
            self._say(fault.text)
            return 1
        code, text = wire.ending(link)
        self._say(text)
        return 0 if code == Close.NORMAL.code and not self._bad_lines else 1

    def stop(self) -> float:
        """Close the connection from another thread; see ``Session.stop``."""
        if self._link is None:
            return 0.0
        self._link.close()
        return STOP_S

    def _receive_all(self, link: ClientConnection) -> None:
        try:
            while True:
                message = link.recv()
                self._last_received = monotonic()
                if isinstance(message, bytes):
                    link.close(UNSUPPORTED_DATA)
                elif len(message) > MAX_TEXT_CHARS:
                    link.close(Close.TOO_BIG.code)
                else:
                    self._out(message.encode())
        except ConnectionClosed:
            return

    def _send_all(self, link: ClientConnection) -> None:
        number = 0
        try:
            for number, line in enumerate(self._lines, 1):
                self._send(link, number, line)
        except ConnectionClosed:
            return
        except OSError:
            self._bad(f"standard input cannot be read beyond line {number}")
        ends_at = monotonic() + self._linger_s
        while (left_s := ends_at - monotonic()) > 0:
            sleep(left_s)
            ends_at = max(ends_at, self._last_received + self._linger_s)
        link.close()

    def _send(self, link: ClientConnection, number: int, line: bytes) -> None:
        try:
            json_text.check(line)
        except json_text.NotJson as fault:
            self._bad(f"line {number} is {fault}; it was not sent")
        else:
            link.send(line.decode())

    def _bad(self, text: str) -> None:
        self._bad_lines += 1
        self._say(text)
