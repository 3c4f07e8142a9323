"""RFC 6455 framing: bytes in, messages and control frames out, and back.

No socket and no clock is in here; ``connection`` owns those. ``FrameParser`` is
the server's side: it takes masked frames and refuses everything else.

What one ``feed`` sees is the rest of the last one and the new bytes. Three kinds
of rest there are:

* nothing: the last feed ended with a frame;
* ``_rest``: bytes that are not parsed yet, because a frame's head is not there
  in full (at most 13 bytes) or because the handler said stop (at most one
  receive);
* ``_body``: the masked payload of one frame whose head is read. It grows as bytes
  arrive; nothing is ever allocated from a declared length.

A message in fragments grows in ``_fragments`` until its last one. A length is
checked against the limit as soon as the head is read, fragments summed, so a
message over the limit ends in ``TooBig`` before its bytes are buffered.

Every error is a ``PeerError`` whose ``close`` says with what the connection has
to end; the parser is of no use after one.
"""

from __future__ import annotations

import struct
from typing import Protocol

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # C, where built

from relay_app.core.close_codes import NO_STATUS, may_stand_on_the_wire
from relay_app.core.errors import BadPayload, ProtocolError, TooBig

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

_FIN = 0x80
_MASKED = 0x80
_MAX_CONTROL_BYTES = 125

MAX_FRAGMENTS = 4096
"""Fragments of one message beside those that its bytes pay for. Real peers send none;
with the limit on bytes alone a message could be made of endless empty ones."""

FRAGMENT_BYTES = 32
"""How many bytes pay for one more fragment of a message."""

MESSAGES_PER_FEED = 512
"""Frames that are handled before others get their turn: one to two milliseconds."""


class Handler(Protocol):
    """Who is told what came in. Nothing in here may wait or switch."""

    def on_message(self, payload: bytes) -> bool:
        """Take one whole TEXT message, its UTF-8 not checked. True stops this feed."""

    def on_binary(self, payload: bytes) -> bool:
        """Take one whole BINARY message. True stops this feed."""

    def on_ping(self, payload: bytes) -> None:
        """Take a ping; it has to be answered with the same payload."""

    def on_pong(self) -> None:
        """Take a pong, asked for or not."""

    def on_close(self, code: int) -> None:
        """Take the peer's close; 1005 for an empty one.

        A peer may break the rules and send more: replace the handler.
        """


class FrameParser:
    """Turns what a client sends into messages.

    Args:
        limit_bytes: Payload of one message, fragments summed; exactly this passes.
        handler: Told of everything in the order in which it was sent. It may be
            replaced at any time, also from within.
    """

    __slots__ = (
        "_body",
        "_first",
        "_fragments",
        "_fragments_begun",
        "_fragments_left",
        "_length",
        "_mask",
        "_rest",
        "handler",
        "limit_bytes",
        "messages",
    )

    def __init__(self, limit_bytes: int, handler: Handler) -> None:
        self.limit_bytes = limit_bytes
        self.handler = handler
        self.messages = 0
        self._rest = b""
        self._body: bytearray | None = None
        self._first = 0
        self._length = 0
        self._mask = b""
        self._fragments: bytearray | None = None
        self._fragments_begun = 0
        self._fragments_left = 0

    @property
    def is_amid_message(self) -> bool:
        """Whether a frame or a fragmented message has begun and is not complete."""
        return bool(self._rest) or self._body is not None or self._fragments is not None

    @property
    def unfinished_bytes(self) -> int:
        """Bytes that are kept of what is not complete."""
        body, fragments = self._body, self._fragments
        return (
            len(self._rest)
            + (len(body) if body is not None else 0)
            + (len(fragments) if fragments is not None else 0)
        )

    def keep(self, data: bytes) -> None:
        """Keep the first bytes of the stream for a later ``feed`` of nothing."""
        self._rest = data

    def feed(self, data: bytes, allowance: int = MESSAGES_PER_FEED) -> bool:
        """Parse what has arrived.

        Args:
            data: The next bytes of the stream; empty to go on after a stop.
            allowance: Frames after which it stops, at least 1.

        Returns: True when it stopped before the end, because the handler asked
        for it or because others should have a turn: feed again before receiving.

        Raises:
            ProtocolError: RFC 6455 forbids what came; closes 1002.
            TooBig: Over the limit; closes 1009.
            BadPayload: A close reason that is not UTF-8; closes 1007.
        """
        at = 0
        if self._body is not None:
            at = self._length - len(self._body)
            if len(data) < at:
                self._body += data
                return False
            self._body += data[:at]
            payload = apply_mask(self._body, self._mask)
            self._body = None
            if self._frame(self._first, payload):
                self._rest = data[at:]
                return True
        elif self._rest:
            data = self._rest + data if data else self._rest
            self._rest = b""
        end = len(data)
        limit = self.limit_bytes
        while end - at >= 2:
            first = data[at]
            length = data[at + 1] - _MASKED
            # Lengths: RFC 6455 §5.2, in as few bytes as they fit.
            if length < 126:
                start = at + 6
                if length < 0:
                    raise ProtocolError
            elif length == 126:
                start = at + 8
                if start > end:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                if length < 126:
                    raise ProtocolError
            else:
                start = at + 14
                if start > end:
                    break
                length = int.from_bytes(data[at + 2 : at + 10], "big")
                if length < 65536 or length >> 63:
                    raise ProtocolError
            if first == 0x81 or first == 0x82:
                if length > limit:
                    raise TooBig
                if self._fragments is not None:
                    raise ProtocolError
            else:
                self._check_head(first, length)
            stop = start + length
            if stop > end:
                if start <= end:
                    self._first = first
                    self._length = length
                    self._mask = data[start - 4 : start]
                    self._body = bytearray(memoryview(data)[start:end])
                    return False
                break
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            at = stop
            allowance -= 1
            if first == 0x81:
                self.messages += 1
                # Looked up anew each time: the handler changes when it closes.
                stopped = self.handler.on_message(payload)
            else:
                stopped = self._frame(first, payload)
            if stopped or not allowance:
                self._rest = data[at:]
                return bool(self._rest) or stopped
        self._rest = data[at:] if at else data
        return False

    def _check_head(self, first: int, length: int) -> None:
        """Judge the head of any frame but a whole TEXT or BINARY message."""
        opcode = first & 0x0F
        if first & 0x70:
            raise ProtocolError  # an RSV bit: no extension was negotiated
        if opcode >= CLOSE:
            if opcode > PONG or not first & _FIN or length > _MAX_CONTROL_BYTES:
                raise ProtocolError
            return
        if opcode > BINARY or (opcode == CONTINUATION) is (self._fragments is None):
            raise ProtocolError
        if self._fragments is None:
            if length > self.limit_bytes:
                raise TooBig
            return
        whole = len(self._fragments) + length
        if whole > self.limit_bytes:
            raise TooBig
        if self._fragments_left + whole // FRAGMENT_BYTES <= 0:
            raise ProtocolError

    def _frame(self, first: int, payload: bytes) -> bool:
        """Handle any frame whose payload is there."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            self._control(opcode, payload)
            return False
        if self._fragments is None:
            if first & _FIN:
                return self._message(first, payload)
            self._fragments = bytearray(payload)
            self._fragments_begun = first
            self._fragments_left = MAX_FRAGMENTS - 1
            return False
        self._fragments += payload
        self._fragments_left -= 1
        if not first & _FIN:
            return False
        whole = bytes(self._fragments)
        self._fragments = None
        return self._message(self._fragments_begun, whole)

    def _message(self, first: int, payload: bytes) -> bool:
        self.messages += 1
        if first & 0x0F == BINARY:
            return self.handler.on_binary(payload)
        return self.handler.on_message(payload)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.handler.on_ping(payload)
        elif opcode == PONG:
            self.handler.on_pong()
        else:
            self.handler.on_close(close_code(payload))


def close_code(payload: bytes) -> int:
    """Read the body of a close frame.

    Returns: The code; 1005 for an empty body.

    Raises:
        ProtocolError: One byte, or a code that may not stand there.
        BadPayload: A reason that is not UTF-8.

    Source: RFC 6455 §5.5.1, §7.4.
    """
    if not payload:
        return NO_STATUS
    if len(payload) == 1:
        raise ProtocolError
    code: int = struct.unpack_from("!H", payload)[0]
    if not may_stand_on_the_wire(code):
        raise ProtocolError
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise BadPayload from None
    return code


def text_head(length: int) -> bytes:
    """Make the head of a TEXT frame of the server: unmasked, whole.

    Args:
        length: Bytes of payload.
    """
    if length < 126:
        return _SHORT_HEADS[length]
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


_SHORT_HEADS = tuple(bytes((0x80 | TEXT, length)) for length in range(126))

PING_FRAME = bytes((_FIN | PING, 0))
"""An empty ping. Any byte of the peer counts as life, so nothing has to come back in it."""


def pong_frame(payload: bytes) -> bytes:
    """Make the answer to a ping.

    Args:
        payload: What the ping had, at most 125 bytes.
    """
    return bytes((_FIN | PONG, len(payload))) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Make a close frame.

    Args:
        code: 1005 makes an empty one.
        reason: At most 123 bytes of UTF-8.
    """
    if code == NO_STATUS:
        return bytes((_FIN | CLOSE, 0))
    body = struct.pack("!H", code) + reason.encode()
    if len(body) > _MAX_CONTROL_BYTES:
        raise ValueError("a close reason has at most 123 bytes")
    return bytes((_FIN | CLOSE, len(body))) + body
