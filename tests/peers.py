"""Phones and binaries on an independent client library, and raw sockets for the rest."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import websocket

from tests.waiting import DEADLINE_S

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

CUT = (1006, "")
"""What ``Peer.ending`` gives for a connection that ended without a close frame."""


def headers(leg: str, server_id: str) -> dict[str, str]:
    """The header fields that a real peer sends."""
    common = {"x-pyrycode-server": server_id, "user-agent": "pyry/1.0"}
    if leg == "server":
        return common | {"x-pyrycode-version": "1.0"}
    return common | {"x-pyrycode-token": "a-token", "x-pyrycode-device-name": "a phone"}


class Peer:
    """One end of a WebSocket, as a person at the other side of the relay sees it."""

    def __init__(self, ws: websocket.WebSocket) -> None:
        self.ws = ws
        self.inbox: list[str] = []
        self.end: tuple[int, str] | None = None

    @classmethod
    def dial(
        cls, url: str, leg: str, server_id: str, changes: dict[str, str] | None = None
    ) -> Peer:
        """Connect to ``ws://…/v1/<leg>``, with some header fields changed."""
        fields = headers(leg, server_id) | (changes or {})
        ws = websocket.create_connection(
            f"{url}/v1/{leg}",
            header=[f"{name}: {value}" for name, value in fields.items()],
            suppress_origin=True,
            timeout=DEADLINE_S,
        )
        return cls(ws)

    def send(self, text: str) -> None:
        """Send a TEXT message."""
        self.ws.send(text)

    def send_binary(self, data: bytes) -> None:
        """Send a BINARY message."""
        self.ws.send_binary(data)

    def raw(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self.ws.sock.sendall(data)

    def _next(self) -> tuple[int, bytes]:
        """Read one frame; a close, or the end of the stream, is kept in ``end``."""
        try:
            opcode, frame = self.ws.recv_data_frame(control_frame=True)
        except (websocket.WebSocketConnectionClosedException, OSError):
            self.end = self.end or CUT
            return CLOSE, b""
        if opcode == CLOSE:
            code = struct.unpack("!H", frame.data[:2])[0] if frame.data else 1005
            self.end = (code, frame.data[2:].decode())
        return opcode, frame.data

    def recv(self) -> str:
        """Give the next message; it has to be TEXT."""
        if self.inbox:
            return self.inbox.pop(0)
        while self.end is None:
            opcode, data = self._next()
            assert opcode != BINARY, "the relay sends TEXT only"
            if opcode == TEXT:
                return data.decode()
        raise AssertionError(f"closed with {self.end} while a message was expected")

    def recv_json(self) -> Any:
        """Give the next message, decoded."""
        return json.loads(self.recv())

    def ending(self) -> tuple[int, str]:
        """Read to the end and give the close code and reason; messages go to ``inbox``."""
        while self.end is None:
            opcode, data = self._next()
            if opcode == TEXT:
                self.inbox.append(data.decode())
        self.drop()
        return self.end

    def sync(self) -> None:
        """Ping and wait for that pong: everything sent before has been handled."""
        mark = b"sync"
        self.ws.ping(mark)
        while self.end is None:
            opcode, data = self._next()
            if opcode == TEXT:
                self.inbox.append(data.decode())
            elif opcode == PONG and data == mark:
                return
        raise AssertionError(f"closed with {self.end} while a pong was expected")

    def close(self, code: int = 1000) -> None:
        """Close with a code, wait for the answer."""
        self.ws.send_close(code)
        self.ending()

    def drop(self) -> None:
        """Close the socket without a word."""
        if self.ws.sock is not None:
            self.ws.shutdown()

    def reset(self) -> None:
        """Cut the connection with a reset."""
        self.ws.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.ws.shutdown()


def frame(first: int, payload: bytes, *, mask: bytes | None = b"\0\0\0\0") -> bytes:
    """Make a client's frame by hand; a mask of zeros leaves the payload readable."""
    flag = 0x80 if mask is not None else 0
    if len(payload) < 126:
        head = bytes((first, flag | len(payload)))
    elif len(payload) < 65536:
        head = bytes((first, flag | 126)) + struct.pack("!H", len(payload))
    else:
        head = bytes((first, flag | 127)) + struct.pack("!Q", len(payload))
    return head + (mask or b"") + payload


KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def upgrade_request(leg: str, server_id: str, **changes: str | None) -> bytes:
    """Make an upgrade request by hand.

    Args:
        changes: Header fields to set, or to leave out with ``None``; underscores
            stand for hyphens.
    """
    fields: dict[str, str | None] = {
        "host": "relay.test",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
        **headers(leg, server_id),
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET /v1/{leg} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def ask(address: tuple[str, int], request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes and read the one answer to its end.

    Returns: Status, header fields in lower case, body.
    """
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(request)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return parse_answer(answer)


def parse_answer(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take an HTTP response apart."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    fields = {name.lower(): value for name, value in pairs}
    return int(status.split()[1]), fields, body


def get(address: tuple[str, int], path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path."""
    return ask(address, f"GET {path} HTTP/1.1\r\nHost: relay.test\r\n\r\n".encode())
