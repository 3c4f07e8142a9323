"""The floor: a gevent loop that receives and sends the same bytes, and nothing else.

Bare loop callbacks on raw sockets: no greenlet, no WebSocket, no JSON, no check.
Messages have one length per connection, so the pump finds a message's end by
division and its phone at a fixed place. What the relay costs beyond this is what
the protocol and Python cost; what this costs is the machine, the kernel and
gevent's loop.

    python -m benchmarks.pump <descriptor of a listening socket>
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from typing import Any

from gevent.hub import get_hub

from benchmarks.frames import HELLO_BYTES, INDEX

_RECEIVE_BYTES = 65536


class Link:
    """One connection.

    Args:
        sock: Non-blocking.
        pump: What it belongs to.
        size: Of every message.
    """

    def __init__(self, sock: socket.socket, pump: Pump, size: int) -> None:
        loop = get_hub().loop
        self.sock = sock
        self.pump = pump
        self.size = size
        self.waiting: deque[memoryview | bytes] = deque()
        self.reader = loop.io(sock.fileno(), 1)
        self.writer = loop.io(sock.fileno(), 2)
        self._rest = b""
        self.reader.start(self._readable)

    def _readable(self) -> None:
        try:
            data = self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._rest:
            data = self._rest + data
        cut = len(data) - len(data) % self.size
        self._rest = data[cut:]
        if cut:
            self.pass_on(data[:cut] if self._rest else data)

    def pass_on(self, data: bytes) -> None:
        """Give whole messages to whom they are for."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Write now, or behind what waits."""
        if not self.waiting:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            self.waiting.append(memoryview(data)[sent:])
            self.writer.start(self._writable)
            self.pump.pause(self)
        else:
            self.waiting.append(data)

    def _writable(self) -> None:
        while self.waiting:
            data = self.waiting[0]
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if sent < len(data):
                self.waiting[0] = memoryview(data)[sent:]
                return
            self.waiting.popleft()
        self.writer.stop()
        self.pump.resume(self)

    def close(self) -> None:
        """End the connection."""
        if self.sock.fileno() < 0:
            return
        for watcher in (self.reader, self.writer):
            watcher.stop()
            watcher.close()
        self.sock.close()
        self.pump.forget(self)


class Phone(Link):
    """Whatever it says goes to the binary."""

    def pass_on(self, data: bytes) -> None:
        """Give all of it to the binary in one write."""
        if self.pump.binary is not None:
            self.pump.binary.send(data)


class Binary(Link):
    """Each of its messages goes to the phone that it names."""

    def pass_on(self, data: bytes) -> None:
        """Give each message to its phone in a write of its own."""
        size, phones = self.size, self.pump.phones
        for at in range(0, len(data), size):
            phone = phones.get(data[at + INDEX.start : at + INDEX.stop])
            if phone is not None:
                phone.send(data[at : at + size])


class Pump:
    """One binary and its phones.

    Args:
        listener: Bound and listening.
    """

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self.binary: Link | None = None
        self.phones: dict[bytes, Link] = {}
        self._listener = listener
        self._accepting: Any = get_hub().loop.io(listener.fileno(), 1)
        self._accepting.start(self._accept)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        # The hello is sent at once after connecting, on loopback: it may be waited for.
        sock.settimeout(5)
        hello = sock.recv(HELLO_BYTES, socket.MSG_WAITALL)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = int(hello[5:])
        if hello[:1] == b"B":
            self.binary = Binary(sock, self, size)
        else:
            self.phones[hello[1:5]] = Phone(sock, self, size)
        sock.send(b"+")

    def pause(self, slow: Link) -> None:
        """Read no phone while the binary does not take what they say."""
        if slow is self.binary:
            for phone in self.phones.values():
                phone.reader.stop()

    def resume(self, slow: Link) -> None:
        """Read the phones again."""
        if slow is self.binary:
            for phone in self.phones.values():
                phone.reader.start(phone._readable)

    def forget(self, link: Link) -> None:
        """Take a closed connection out."""
        if link is self.binary:
            self.binary = None
        self.phones = {
            index: phone for index, phone in self.phones.items() if phone is not link
        }


def main() -> None:
    """Serve until killed."""
    pump = Pump(socket.socket(fileno=int(sys.argv[1])))
    get_hub().join()
    del pump


if __name__ == "__main__":
    main()
