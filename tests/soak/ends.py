"""A peer that costs little, and the ways in which peers leave."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

from tests.peers import CLOSE, PING, TEXT, frame, upgrade_request
from tests.waiting import DEADLINE_S

ABRUPT = 1006


class Refused(Exception):
    """The relay did not upgrade: no place, or no server-id."""


class End:
    """One end of a WebSocket on a plain socket.

    ``code`` is the close code that was read, ``ABRUPT`` for an end without one.

    Args:
        address: Of the relay.
        leg: ``server`` or ``client``.
        server_id: To claim or to name.
        source: Address of loopback to dial from.
    """

    def __init__(
        self,
        address: tuple[str, int],
        leg: str,
        server_id: str,
        source: str = "127.0.0.1",
    ) -> None:
        self.code: int | None = None
        self._rest = b""
        self.sock = socket.create_connection(address, DEADLINE_S, (source, 0))
        try:
            self.sock.sendall(upgrade_request(leg, server_id))
            while b"\r\n\r\n" not in self._rest:
                self._receive()
        except OSError:
            self.sock.close()
            raise
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if b" 101 " not in head[:16]:
            self.sock.close()
            raise Refused

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError
        self._rest += data

    def send(self, text: bytes) -> None:
        """Send a TEXT message."""
        self.sock.sendall(frame(0x81, text))

    def messages(self) -> Iterator[bytes]:
        """Read messages to the end of the connection; answer pings and the close."""
        try:
            while True:
                opcode, payload = self._frame()
                if opcode == TEXT:
                    yield payload
                elif opcode == PING:
                    self.sock.sendall(frame(0x8A, payload))
                elif opcode == CLOSE:
                    self.code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                    self.sock.sendall(frame(0x88, payload))
                    return
        except OSError:
            if self.code is None:
                self.code = ABRUPT

    def _need(self, size: int) -> None:
        while len(self._rest) < size:
            self._receive()

    def _frame(self) -> tuple[int, bytes]:
        self._need(2)
        length, at = self._rest[1], 2
        if length == 126:
            self._need(4)
            length, at = struct.unpack_from("!H", self._rest, 2)[0], 4
        elif length == 127:
            self._need(10)
            length, at = struct.unpack_from("!Q", self._rest, 2)[0], 10
        self._need(at + length)
        opcode, payload = self._rest[0] & 15, self._rest[at : at + length]
        self._rest = self._rest[at + length :]
        return opcode, payload

    def leave(self, how: random.Random) -> None:
        """Go in one of the ways in which peers go."""
        way = how.choice(("close", "fin", "reset", "half", "fault"))
        try:
            if way == "close":
                self.sock.sendall(frame(0x88, struct.pack("!H", 1000)))
            elif way == "reset":
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif way == "half":
                self.sock.shutdown(socket.SHUT_WR)
            elif way == "fault":
                self.sock.sendall(b"\xff" + how.randbytes(20))
        except OSError:
            pass  # the relay was first
        self.sock.close()
