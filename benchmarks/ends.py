"""The two ends of the load: non-blocking sockets under one epoll."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Sequence

from benchmarks.check import READ_BYTES

MESSAGES_PER_WRITE = 16
"""In a flood: what one phone, or the binary, says at once."""


class End:
    """One connection of the load: it writes what the kernel takes, and what it reads is judged.

    Args:
        sock: Non-blocking from here on.
        poll: Told when to wake this end.
    """

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._poll = poll
        self._waiting = memoryview(b"")
        self._behind: list[bytes] = []
        self._wants_to_write = False
        self.take: Callable[[bytes], None] = lambda data: None
        self.produce: Callable[[], None] | None = None
        poll.register(sock, select.EPOLLIN)

    def on_readable(self) -> None:
        """Read once."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the connection was closed")
        self.take(data)

    def on_writable(self) -> None:
        """Write what waits, then let the producer go on."""
        if self._waiting:
            self._push()
        elif self.produce is not None:
            self.produce()
        else:
            self.want_to_write(False)

    def want_to_write(self, wanted: bool) -> None:
        """Ask to be woken when there is room, or not any more."""
        if wanted is not self._wants_to_write:
            self._wants_to_write = wanted
            mask = select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN
            self._poll.modify(self.sock, mask)

    def write(self, data: bytes | memoryview) -> int:
        """Write once. Returns: Bytes that the kernel took."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def send(self, data: bytes) -> None:
        """Write now, or behind what waits."""
        if self._waiting:
            self._behind.append(data)
            return
        self._waiting = memoryview(data)
        self._push()

    def _push(self) -> None:
        self._waiting = self._waiting[self.write(self._waiting) :]
        if not self._waiting and self._behind:
            self._waiting = memoryview(b"".join(self._behind))
            self._behind.clear()
        self.want_to_write(bool(self._waiting))


class Flood:
    """One end that repeats its cycle of messages for as long as it may.

    Args:
        end: Who writes.
        messages: The cycle, all of one length.
        allowed: Gives the number of messages that may have been sent by now.
    """

    def __init__(
        self, end: End, messages: Sequence[bytes], allowed: Callable[[], int]
    ) -> None:
        block = b"".join(messages)
        self._end = end
        self._length = len(messages[0])
        self._cycle = len(block)
        self._most = self._length * MESSAGES_PER_WRITE
        self._stream = memoryview(block * (2 + self._most // len(block)))
        self._allowed = allowed
        self.sent_bytes = 0
        end.produce = self.go_on
        end.want_to_write(True)

    @property
    def sent(self) -> int:
        """Messages that were begun."""
        return -(-self.sent_bytes // self._length)

    def go_on(self) -> None:
        """Write up to ``MESSAGES_PER_WRITE`` messages, or wait until that is allowed."""
        # A message that was begun is always ended.
        room = max(self._allowed(), self.sent) * self._length - self.sent_bytes
        if room <= 0:
            self._end.want_to_write(False)
            return
        at = self.sent_bytes % self._cycle
        self.sent_bytes += self._end.write(
            self._stream[at : at + min(room, self._most)]
        )
