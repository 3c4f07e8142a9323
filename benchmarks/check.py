"""Is what arrived what was sent? Byte for byte, at the speed of a comparison in C.

A ``Track`` knows the endless stream that one reader has to see, because the load
repeats a cycle of messages. As long as the stream is right, looking at it is one
``startswith``. Only where it differs are messages looked at one by one, to tell
lost, reordered, repeated and corrupt ones apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

READ_BYTES = 1 << 18
"""Most bytes per read, for which the expected stream is laid out in one piece."""

_RUNS = (64, 8)
"""Messages of one phone that are compared at once where they stand together."""


@dataclass
class Tally:
    """What was wrong, in messages. All zero is the only good result."""

    lost: int = 0
    reordered: int = 0
    repeated: int = 0
    corrupt: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.reordered or self.repeated or self.corrupt)


class Track:
    """The stream of one phone's messages as one reader has to see it.

    Args:
        messages: The cycle, all of one length.
        tally: Where faults are counted.
    """

    def __init__(self, messages: Sequence[bytes], tally: Tally) -> None:
        block = b"".join(messages)
        self.length = len(messages[0])
        self.received_bytes = 0
        self.tally = tally
        self._messages = messages
        self._cycle = len(block)
        self._stream = block * (2 + READ_BYTES // len(block))
        self._at = 0
        # Of a stream that went wrong: a message that has begun, and how it may go on.
        self._begun: bytes | None = None
        self._next = 0
        self._missing: set[int] = set()
        self._places: dict[bytes, int] = {}

    @property
    def received(self) -> int:
        """Whole messages that have arrived, right or wrong."""
        return self.received_bytes // self.length

    def matches(self, data: bytes) -> bool:
        """Take bytes that are exactly those expected; take nothing otherwise."""
        if self._begun is not None or not self._stream.startswith(data, self._at):
            return False
        self._at = (self._at + len(data)) % self._cycle
        self.received_bytes += len(data)
        return True

    def take(self, data: bytes) -> None:
        """Take the next bytes of the stream, at most ``READ_BYTES``."""
        if not self.matches(data):
            self._take_slowly(data)

    def _take_slowly(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._begun is None:
            self._next, inside = divmod(self._at, self.length)
            self._begun = self._stream[self._at - inside : self._at]
        data = self._begun + data
        whole = len(data) - len(data) % self.length
        for at in range(0, whole, self.length):
            self._judge(data[at : at + self.length])
        self._begun = data[whole:]
        start = self._next * self.length
        if self._stream.startswith(self._begun, start):
            self._at = (start + len(self._begun)) % self._cycle
            self._begun = None

    def _judge(self, message: bytes) -> None:
        count = len(self._messages)
        if message == self._messages[self._next]:
            self._missing.discard(self._next)
            self._next = (self._next + 1) % count
            return
        if not self._places:
            self._places = {known: place for place, known in enumerate(self._messages)}
        place = self._places.get(message)
        if place is None:
            self.tally.corrupt += 1
            self._next = (self._next + 1) % count
        elif place in self._missing:
            self._missing.remove(place)
            self.tally.lost -= 1
            self.tally.reordered += 1
        elif (ahead := (place - self._next) % count) <= count // 2:
            self.tally.lost += ahead
            self._missing.update((self._next + step) % count for step in range(ahead))
            self._next = (place + 1) % count
        else:
            self.tally.repeated += 1


class Sorter:
    """The stream that the binary sees: messages of all phones, in any mixture.

    Args:
        tracks: By what a message has at ``key``; all of one length of message.
        key: Where a message names its phone.
        tally: Where messages of nobody are counted, as corrupt.
        on_messages: Told the key and the number of messages that have come.
    """

    def __init__(
        self,
        tracks: dict[bytes, Track],
        key: slice,
        tally: Tally,
        on_messages: Callable[[bytes, int], None] | None = None,
    ) -> None:
        self.received = 0
        self._tracks = tracks
        self._key = key
        self._tally = tally
        self._on_messages = on_messages
        self._length = next(iter(tracks.values())).length
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._rest:
            data = self._rest + data
        length, key = self._length, self._key
        at, end = 0, len(data)
        while (left := (end - at) // length) > 0:
            name = data[at + key.start : at + key.stop]
            track = self._tracks.get(name)
            count = 1
            if track is None:
                self._tally.corrupt += 1
            else:
                for run in _RUNS:
                    if run <= left and track.matches(data[at : at + run * length]):
                        count = run
                        break
                else:
                    track.take(data[at : at + length])
                if self._on_messages is not None:
                    self._on_messages(name, count)
            at += count * length
            self.received += count
        self._rest = data[at:]
