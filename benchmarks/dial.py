"""Connects phones and binaries, to the relay or to the pump."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

from benchmarks.frames import (
    CLOSE_FRAME,
    PumpWire,
    RelayWire,
    payload,
    pump_hello,
    text_frame,
)

WAIT_S = 10.0
TOGETHER = 32
"""Upgrades that are under way at a time."""

_UPGRADE = (
    "GET {path} HTTP/1.1\r\n"
    "Host: 127.0.0.1\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "User-Agent: pyry/bench\r\n"
    "x-pyrycode-server: {server_id}\r\n"
    "{extra}\r\n"
)


def request(role: str, server_id: str) -> bytes:
    """Make an upgrade request.

    Args:
        role: ``binary`` or ``phone``.
        server_id: Claimed or joined.
    """
    path, extra = {
        "binary": ("/v1/server", "x-pyrycode-version: bench\r\n"),
        "phone": ("/v1/client", "x-pyrycode-token: 0123456789abcdef\r\n"),
    }[role]
    return _UPGRADE.format(path=path, server_id=server_id, extra=extra).encode()


def connect(port: int) -> socket.socket:
    """Open a connection that waits ``WAIT_S`` at most for anything."""
    sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Receive ``size`` bytes.

    Raises:
        ConnectionError: The stream ended before.
    """
    got = bytearray()
    while len(got) < size:
        data = sock.recv(size - len(got))
        if not data:
            raise ConnectionError("the connection was closed")
        got += data
    return bytes(got)


def read_upgrade(sock: socket.socket) -> None:
    """Receive the answer to an upgrade request, and nothing behind it.

    Raises:
        ConnectionError: It was refused.
    """
    got = bytearray()
    while not got.endswith(b"\r\n\r\n"):
        # Peeking finds the end, so that no byte of a frame behind it is taken.
        seen = sock.recv(4096, socket.MSG_PEEK)
        if not seen:
            break
        end = (bytes(got[-3:]) + seen).find(b"\r\n\r\n")
        got += sock.recv(len(seen) if end < 0 else end + 4 - min(len(got), 3))
    if not got.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"not upgraded: {bytes(got[:200])!r}")


def upgrade(port: int, role: str, server_ids: Sequence[str]) -> list[socket.socket]:
    """Open one WebSocket per server-id, ``TOGETHER`` at a time."""
    opened: list[socket.socket] = []
    for at in range(0, len(server_ids), TOGETHER):
        part = server_ids[at : at + TOGETHER]
        socks = [connect(port) for _ in part]
        for sock, server_id in zip(socks, part, strict=True):
            sock.sendall(request(role, server_id))
        for sock in socks:
            read_upgrade(sock)
        opened += socks
    return opened


def hang_up(socks: Sequence[socket.socket]) -> None:
    """Close WebSockets in order: our close, the relay's, the end of the stream."""
    for sock in socks:
        sock.sendall(CLOSE_FRAME)
    for sock in socks:
        answer = read_exactly(sock, 4)
        if answer != b"\x88\x02\x03\xe8" or sock.recv(1):
            raise ConnectionError(f"not the answer to a close: {answer!r}")
        sock.close()


Ends = tuple[socket.socket, list[socket.socket]]
"""The binary and its phones."""


def dial_relay(
    port: int, server_id: str, phones: int, size: int
) -> tuple[Ends, RelayWire]:
    """Connect a binary and its phones, and learn the phones' conn_ids.

    The relay does not say who connects, so each phone says one thing first.
    """
    (binary,) = upgrade(port, "binary", [server_id])
    socks = upgrade(port, "phone", [server_id] * phones)
    conn_ids = []
    for index, sock in enumerate(socks):
        hello = payload(index, 0, 64)
        sock.sendall(text_frame(hello, b"mask"))
        head = read_exactly(binary, 2)
        size_of_it = (
            head[1] if head[1] < 126 else int.from_bytes(read_exactly(binary, 2), "big")
        )
        envelope = json.loads(read_exactly(binary, size_of_it))
        if envelope["frame"] != json.loads(hello):
            raise ConnectionError("a phone's hello arrived changed")
        conn_ids.append(envelope["conn_id"])
    return (binary, socks), RelayWire(conn_ids, size)


def dial_pump(port: int, phones: int, size: int) -> tuple[Ends, PumpWire]:
    """Connect both kinds of end to the pump."""
    socks = []
    for role, index in [("B", 0), *(("P", index) for index in range(phones))]:
        sock = connect(port)
        sock.sendall(pump_hello(role, index, size))
        read_exactly(sock, 1)
        socks.append(sock)
    return (socks[0], socks[1:]), PumpWire(size)
