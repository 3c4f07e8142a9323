"""Every byte that the load puts on the wire, and expects from it, made ahead of time.

A payload names its phone and its place in a cycle of messages, so a reader that
knows the cycle knows each byte that has to come next. All messages of one kind
have the same length, which makes places in a stream a matter of division.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import Protocol

_OPEN = b'{"v":2,"type":"noise_msg","data":"'
_CLOSE = b'"}'
_INDEX_DIGITS = 4
_SEQUENCE_DIGITS = 8

INDEX = slice(len(_OPEN), len(_OPEN) + _INDEX_DIGITS)
"""Where a payload names its phone."""

MIN_PAYLOAD_BYTES = len(_OPEN) + _INDEX_DIGITS + _SEQUENCE_DIGITS + len(_CLOSE)

_FILLER_BYTES = 1 << 17
_FILLER = bytes(
    random.Random(1).choices(
        (string.ascii_letters + string.digits + "+/").encode(), k=_FILLER_BYTES
    )
)


def payload(phone: int, sequence: int, size: int) -> bytes:
    """Make a phone's frame.

    Shape: ``{"v":2,"type":"noise_msg","data":"<phone><sequence><filler>"}``

    Args:
        phone: 0 to 9999.
        sequence: 0 to 99999999; the filler depends on it as well.
        size: Bytes in all, at least ``MIN_PAYLOAD_BYTES``.
    """
    room = size - MIN_PAYLOAD_BYTES
    if room < 0:
        raise ValueError(f"a payload has at least {MIN_PAYLOAD_BYTES} bytes")
    at = (phone * 4093 + sequence * 61) % (_FILLER_BYTES // 2)
    filler = (_FILLER[at:] + _FILLER * (room // _FILLER_BYTES + 1))[:room]
    return b"%s%04d%08d%s%s" % (_OPEN, phone, sequence, filler, _CLOSE)


def text_frame(message: bytes, mask: bytes | None = None) -> bytes:
    """Make a whole TEXT frame.

    Args:
        message: UTF-8.
        mask: Four bytes for a client, ``None`` for the server.

    Source: RFC 6455 §5.2, §5.3.
    """
    size = len(message)
    if size < 126:
        head = bytes((0x81, size))
    elif size < 65536:
        head = b"\x81\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + size.to_bytes(8, "big")
    if mask is None:
        return head + message
    pad = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(message, "big") ^ int.from_bytes(pad, "big")
    return (
        bytes((head[0], head[1] | 0x80))
        + head[2:]
        + mask
        + masked.to_bytes(size, "big")
    )


CLOSE_FRAME = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A client's close, 1000, under a mask of zeros."""


def _mask(phone: int, sequence: int) -> bytes:
    return (0x9E3779B1 * (phone * 8191 + sequence + 1) & 0xFFFFFFFF).to_bytes(4, "big")


class Wire(Protocol):
    """How one message looks at each of the four ends it passes."""

    key: slice
    """Where a message that the binary sees names its phone."""

    def key_of(self, phone: int) -> bytes:
        """Give what stands there."""

    def phone_sends(self, phone: int, sequence: int) -> bytes:
        """Give a message as it leaves the phone."""

    def binary_sees(self, phone: int, sequence: int) -> bytes:
        """Give the same message as it reaches the binary."""

    def binary_sends(self, phone: int, sequence: int) -> bytes:
        """Give a message as it leaves the binary."""

    def phone_sees(self, phone: int, sequence: int) -> bytes:
        """Give the same message as it reaches the phone."""


@dataclass
class RelayWire:
    """Masked frames on the way in, envelopes on the binary's leg.

    Args:
        conn_ids: By phone, all of one length.
        size: Of a phone's payload.
    """

    conn_ids: list[str]
    size: int

    def __post_init__(self) -> None:
        """Find where the conn_id stands in what the binary sees."""
        seen = self.binary_sees(0, 0)
        start = seen.index(self.conn_ids[0].encode())
        self.key = slice(start, start + len(self.conn_ids[0]))

    def key_of(self, phone: int) -> bytes:
        """Give the phone's conn_id."""
        return self.conn_ids[phone].encode()

    def _envelope(self, phone: int, sequence: int) -> bytes:
        inner = payload(phone, sequence, self.size)
        return b'{"conn_id":"%s","frame":%s}' % (self.key_of(phone), inner)

    def phone_sends(self, phone: int, sequence: int) -> bytes:
        """Give a masked frame."""
        return text_frame(payload(phone, sequence, self.size), _mask(phone, sequence))

    def binary_sees(self, phone: int, sequence: int) -> bytes:
        """Give an envelope."""
        return text_frame(self._envelope(phone, sequence))

    def binary_sends(self, phone: int, sequence: int) -> bytes:
        """Give a masked envelope."""
        return text_frame(self._envelope(phone, sequence), _mask(phone, sequence))

    def phone_sees(self, phone: int, sequence: int) -> bytes:
        """Give a bare frame."""
        return text_frame(payload(phone, sequence, self.size))


@dataclass
class PumpWire:
    """Bare payloads everywhere: the pump knows no protocol.

    Args:
        size: Of a payload.
    """

    size: int

    def __post_init__(self) -> None:
        """Say where the index stands."""
        self.key = INDEX

    def key_of(self, phone: int) -> bytes:
        """Give the digits of the phone's index."""
        return b"%04d" % phone

    def phone_sends(self, phone: int, sequence: int) -> bytes:
        """Give the payload."""
        return payload(phone, sequence, self.size)

    binary_sees = binary_sends = phone_sees = phone_sends


HELLO_BYTES = 16


def pump_hello(role: str, phone: int, size: int) -> bytes:
    """Say to the pump who connects: ``B`` or ``P``, the index, the size of all messages."""
    return f"{role}{phone:04d}{size:011d}".encode()
