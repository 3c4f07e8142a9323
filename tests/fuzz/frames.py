"""The frame parser under any bytes, cut anywhere, against two other readers.

One is ``judged``: the rules written down a second time, for a stream that is there
as a whole, without a thought for speed. The other is the ``websockets`` library, for
everything that comes before the first fault or close.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol

from relay_app.core.close_codes import Close, may_stand_on_the_wire
from relay_app.core.errors import BadPayload, PeerError, ProtocolError, TooBig
from relay_app.transport.websocket import FRAGMENT_BYTES, MAX_FRAGMENTS, FrameParser
from tests.fuzz.source import Source
from tests.peers import frame

LIMITS = (1, 20, 125, 126, 300, 4000, 65535, 70_000)
FAULTS = (ProtocolError, TooBig, BadPayload)
HEAD_BYTES = 14
"""The longest head of a frame, its mask included."""

OVERHEAD_BYTES = 1024
"""What the parser's empty fields may take beside what was fed to it."""

KEPT = [name for name in FrameParser.__slots__ if name != "handler"]

Event = tuple[str, Any]


class Recorder:
    """Writes down what a parser says, and stops it where the input says so."""

    def __init__(self, stops: int = 0) -> None:
        self.seen: list[Event] = []
        self._stops = stops
        self._messages = 0

    def _message(self, kind: str, payload: bytes) -> bool:
        assert type(payload) is bytes, "a payload that somebody else could change"
        self.seen.append((kind, payload))
        self._messages += 1
        return bool(self._stops >> self._messages % 8 & 1)

    def on_message(self, payload: bytes) -> bool:
        return self._message("text", payload)

    def on_binary(self, payload: bytes) -> bool:
        return self._message("binary", payload)

    def on_ping(self, payload: bytes) -> None:
        self.seen.append(("ping", payload))

    def on_pong(self) -> None:
        self.seen.append(("pong", None))

    def on_close(self, code: int) -> None:
        self.seen.append(("close", code))


def held_bytes(parser: FrameParser) -> int:
    """Count the memory of everything that a parser keeps between two feeds."""
    return sum(sys.getsizeof(getattr(parser, name)) for name in KEPT)


@dataclass
class Outcome:
    """What came of a stream."""

    seen: list[Event]
    fault: Close | None
    is_amid: bool
    messages: int


def parsed(chunks: list[bytes], limit: int, stops: int = 0) -> Outcome:
    """Feed chunks to the parser, as a connection does, and look at its memory."""
    recorder = Recorder(stops)
    parser = FrameParser(limit, recorder)
    fed = 0
    fault = None
    try:
        for chunk in chunks:
            again = parser.feed(chunk)
            while again:
                again = parser.feed(b"")
            fed += len(chunk)
            held = held_bytes(parser)
            # A growing buffer has an eighth in reserve.
            assert held <= fed * 9 // 8 + OVERHEAD_BYTES, (held, fed)
    except PeerError as caught:
        assert type(caught) in FAULTS, caught
        fault = caught.close
    return Outcome(recorder.seen, fault, parser.is_amid_message, parser.messages)


@dataclass
class Judgement:
    """What has to come of a stream.

    Attributes:
        seen: What is to be delivered.
        faults: Closes of which one has to come; none for no fault.
        at: Where the frame that is at fault or not complete begins.
        is_amid: Whether something has begun and not ended.
        messages: How many were complete.
        undisputed: Bytes before the first fault or close.
    """

    seen: list[Event] = field(default_factory=list)
    faults: set[Close] = field(default_factory=set)
    at: int = 0
    is_amid: bool = False
    messages: int = 0
    undisputed: int | None = None


class _Begun:
    """A message in fragments."""

    def __init__(self, opcode: int, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        self.fragments = 1


def judged(stream: bytes, limit: int) -> Judgement:
    """Say what a stream means, from RFC 6455 §5 and the parser's stated limits."""
    result = Judgement()
    begun: _Begun | None = None
    at = 0
    while True:
        result.at = at
        head = _head(stream, at)
        if head is None:
            result.is_amid = at < len(stream) or begun is not None
            break
        first, length, start, faults = head
        result.faults = faults | _head_faults(first, length, begun, limit)
        if result.faults:
            break
        if len(stream) < start + length:
            result.is_amid = True
            break
        payload = xored(stream[start : start + length], stream[start - 4 : start])
        at = start + length
        opcode, is_final = first & 15, first & 0x80
        if opcode == 9:
            result.seen.append(("ping", payload))
        elif opcode == 10:
            result.seen.append(("pong", None))
        elif opcode == 8:
            if result.undisputed is None:
                result.undisputed = result.at
            result.faults = _close_faults(payload)
            if result.faults:
                break
            code = struct.unpack("!H", payload[:2])[0] if payload else 1005
            result.seen.append(("close", code))
        else:
            if opcode:
                begun = _Begun(opcode, payload)
            else:
                assert begun is not None
                begun.payload += payload
                begun.fragments += 1
            if is_final:
                kind = "text" if begun.opcode == 1 else "binary"
                result.seen.append((kind, begun.payload))
                result.messages += 1
                begun = None
    if result.undisputed is None:
        result.undisputed = result.at
    return result


def xored(payload: bytes, mask: bytes) -> bytes:
    """Put a mask on, or take it off."""
    size = len(payload)
    long_mask = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(long_mask, "big")
    return number.to_bytes(size, "big")


def _head(stream: bytes, at: int) -> tuple[int, int, int, set[Close]] | None:
    """Read first byte, length and where the payload starts; None if it is cut off."""
    if len(stream) < at + 2:
        return None
    first, second = stream[at], stream[at + 1]
    length, start, least = second & 127, at + 2, 0
    if length > 125:
        size, least = (2, 126) if length == 126 else (8, 65536)
        start += size
        if second & 128 and len(stream) < start:
            return None
        length = int.from_bytes(stream[at + 2 : start], "big")
    if not second & 128 or not least <= length < 1 << 63:
        return first, 0, start, {Close.PROTOCOL_ERROR}
    return first, length, start + 4, set()


def _head_faults(
    first: int, length: int, begun: _Begun | None, limit: int
) -> set[Close]:
    """Everything that is wrong with a frame before its payload is looked at."""
    faults = set()
    opcode = first & 15
    is_control = opcode > 7
    if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10):
        faults.add(Close.PROTOCOL_ERROR)
    if is_control:
        if not first & 0x80 or length > 125:
            faults.add(Close.PROTOCOL_ERROR)
        return faults
    whole = length + (len(begun.payload) if begun is not None else 0)
    if whole > limit:
        faults.add(Close.TOO_BIG)
    if (opcode == 0) == (begun is None):
        faults.add(Close.PROTOCOL_ERROR)
    if begun is not None:
        paid = MAX_FRAGMENTS + whole // FRAGMENT_BYTES
        if begun.fragments + 1 > paid:
            faults.add(Close.PROTOCOL_ERROR)
    return faults


def _close_faults(payload: bytes) -> set[Close]:
    if not payload:
        return set()
    if len(payload) == 1:
        return {Close.PROTOCOL_ERROR}
    faults = set()
    if not may_stand_on_the_wire(int.from_bytes(payload[:2], "big")):
        faults.add(Close.PROTOCOL_ERROR)
    try:
        payload[2:].decode("utf-8", "strict")
    except UnicodeDecodeError:
        faults.add(Close.BAD_PAYLOAD)
    return faults


def seen_by_websockets(stream: bytes) -> list[Event]:
    """Read a stream that has no fault with another project's parser."""
    protocol = Protocol(SERVER, max_size=None)
    protocol.receive_data(stream)
    assert protocol.parser_exc is None, repr(protocol.parser_exc)
    seen: list[Event] = []
    begun: list[Any] = []
    for one in protocol.events_received():
        opcode, data = one.opcode, bytes(one.data)  # type: ignore[union-attr]
        if opcode is Opcode.PING:
            seen.append(("ping", data))
        elif opcode is Opcode.PONG:
            seen.append(("pong", None))
        else:
            if opcode is not Opcode.CONT:
                begun = [opcode]
            begun.append(data)
            if one.fin:  # type: ignore[union-attr]
                kind = "text" if begun[0] is Opcode.TEXT else "binary"
                seen.append((kind, b"".join(begun[1:])))
    return seen


# -- from any bytes to a stream and its cuts ---------------------------------


def masked(first: int, payload: bytes, mask: bytes) -> bytes:
    """Make a client's frame with a real mask."""
    return frame(first, xored(payload, mask), mask=mask)


FIRSTS = bytes.fromhex("81 82 01 02 00 80 89 8a 88 81 00 80 c1 83 09 8b")
EDGES = (125, 126, 127, 300, 301, 4000, 65535, 65536, 70_000, 70_001)
DECLARED = (0, 125, 126, 65535, 65536, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TIMES = (2, 30, 520, 1030)
MAX_STREAM_BYTES = 80_000
"""Where no further frame is begun: a fuzzer is worth its inputs a second."""


def built(source: Source) -> bytes:
    """Build a stream that is mostly well-formed."""
    stream = bytearray()
    last = b""
    while source and len(stream) < MAX_STREAM_BYTES:
        first = source.pick(FIRSTS)
        kind = source.byte()
        if kind < 200:
            last = masked(
                first, source.take(kind % 130), source.take(4).ljust(4, b"\5")
            )
        elif kind < 210:
            last = masked(first, b"\x5a" * source.pick(EDGES), b"\1\2\3\4")
        elif kind < 220:
            last = b"%c\xff%b\0\0\0\0" % (
                first,
                struct.pack("!Q", source.pick(DECLARED)),
            )
        elif kind < 225:
            last = b"%c\xfe\0%c\0\0\0\0" % (first, source.byte())
        elif kind < 230:
            last = frame(first, source.take(kind % 10), mask=None)
        elif kind < 240:
            code = struct.pack("!H", 1000 + source.byte() * 16)
            last = masked(0x88, code + source.take(kind % 10), b"\xff\0\xff\0")
        elif kind < 242:
            is_cheap = len(last) < 20 and len(stream) < 10_000
            last *= source.pick(TIMES) if is_cheap else 1
        else:
            last = source.take((kind - 241) % 7 + 1)
        stream += last
    return bytes(stream)


def cut(stream: bytes, sizes: bytes) -> Iterator[bytes]:
    """Cut a stream; the sizes are used round and round, none cuts nothing."""
    at = 0
    least = len(stream) // 500  # or a long one would take seconds
    while at < len(stream):
        size = len(stream) - at
        if sizes:
            wanted = sizes[0]
            sizes = sizes[1:] + sizes[:1]
            # Over 128: pieces as large as receives are.
            size = wanted + 1 if wanted < 128 else (wanted - 127) * 1000
            size = max(size, least)
        yield stream[at : at + size]
        at += size


def check(data: bytes) -> None:
    """Hold the parser to its promises for one input.

    Raises:
        AssertionError: A promise is broken.
    """
    source = Source(data)
    mode = source.byte()
    limit = LIMITS[mode >> 1 & 7]
    sizes = source.take(source.byte() % 16)
    stops = source.byte()
    stream = built(source) if mode & 1 else source.rest()

    whole = parsed([stream], limit)
    pieces = parsed(list(cut(stream, sizes)), limit, stops)
    assert pieces.seen == whole.seen, "what is delivered depends on the cuts"
    assert pieces.fault is whole.fault, "the close depends on the cuts"
    if len(stream) < 200:
        assert parsed([stream[n : n + 1] for n in range(len(stream))], limit) == whole

    for kind, payload in whole.seen:
        if kind in ("text", "binary"):
            assert len(payload) <= limit, "a message over the limit"
        elif kind == "ping":
            assert len(payload) <= 125, "a ping that cannot be answered"

    expected = judged(stream, limit)
    assert whole.seen == expected.seen
    assert whole.messages == expected.messages
    if whole.fault is None:
        assert pieces.is_amid == whole.is_amid
        # Without its mask a head is not there in full, so it may wait.
        is_short = len(stream) < expected.at + HEAD_BYTES
        assert not expected.faults or is_short, f"no fault: {expected.faults}"
        assert whole.is_amid == (expected.is_amid or bool(expected.faults))
    else:
        assert whole.fault in expected.faults, f"{whole.fault}: {expected.faults}"
    _compare_with_websockets(stream[: expected.undisputed], limit)


def _compare_with_websockets(stream: bytes, limit: int) -> None:
    assert seen_by_websockets(stream) == parsed([stream], limit).seen


def seeds() -> list[bytes]:
    """Make a small corpus: each kind of frame, each length form, each kind of fault."""
    plain = [
        frame(0x81, b"hello"),
        frame(0x82, b"x" * 126),
        frame(0x01, b"a") + frame(0x89, b"p") + frame(0x00, b"b") + frame(0x80, b"c"),
        frame(0x88, b"\x03\xe8bye"),
        frame(0x88, b"") + frame(0x81, b"late"),
        frame(0x81, b"x", mask=None),
        b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4),
        b"\x81\xfe\0\x05" + bytes(9),
    ]
    raw = [b"\x08\x03\0\4\x02\0" + stream for stream in plain]
    shaped = [
        b"\x09\x01\x05\xaa" + bytes((first, 3)) + b"abc1234" for first in range(16)
    ]
    edges = [b"\x0f\x02\x80\x07\0" + bytes((0, 200, edge)) for edge in range(10)]
    many = [
        b"\x0f\x01\x40\0" + b"\2\0\4\0" + bytes((0, 240, n)) + b"\5\0" for n in range(4)
    ]
    declared = [b"\x0f\0\0" + bytes((n % 4, 210, n)) for n in range(len(DECLARED))]
    halves = [frame(0x01, b"x" * 10) + frame(0x80, b"y" * n) for n in (10, 11)]
    sums = [b"\x02\0\0" + half for half in halves]
    return [*raw, *shaped, *edges, *many, *declared, *sums]
