"""The routing envelope of the binary's leg: bytes ↔ ``Envelope``.

Phones see bare frames; only the binary's leg carries envelopes. A frame is
spliced in and cut out verbatim: no JSON object is ever built from it.

Phone to binary, nothing is decoded here at all: the phone's message is checked
by ``json_text.check`` and stands between a prefix made once per phone and ``}``.
The check is a matter of security: ``{},"conn_id":"x"`` spliced in unchecked
would give the envelope a second conn_id, and the last one counts.

Binary to phone, one msgspec pass finds the four known keys and checks the rest.
What that pass refuses is looked at once more by ``_decode_slowly``, which has
the last word: it knows the cases in which msgspec is stricter than the contract
(a lone surrogate escape; a key that stands twice, the first time malformed).

Source: docs/protocol.md "Routing envelope".
"""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from relay_app.core import json_text
from relay_app.core.errors import BadPayload, MalformedEnvelope

SUFFIX: Final = b"}"
"""What closes an envelope that ``prefix`` opened."""

MAX_CLOSE_CODE: Final = 65535

ENVELOPE_OVERHEAD: Final = 1024
"""Bytes that a binary's message may be longer than a phone's: room for the envelope."""

_ABSENT: Final = msgspec.Raw()
_NULL: Final = b"null"
_INTEGER: Final = re.compile(rb"-?[0-9]+")
_MAX_DEPTH: Final = json_text.MAX_DEPTH + 1
"""An envelope adds one level to the frame, so that what a phone may send can be sent back."""

_SHORTEST_TOO_DEEP: Final = 2 * (_MAX_DEPTH + 1)


class Envelope(msgspec.Struct, gc=False):
    """One envelope from a binary.

    ``conn_id`` is empty or ``None`` only in a wake request. ``frame`` is the
    value's own text, empty when there is none. ``close_code`` is 0 or ``None``
    for "do not close". An envelope with a conn_id has at least one of the two.
    ``push_wake`` is looked at only without a conn_id, and is an object then.
    """

    conn_id: str | None = None
    frame: msgspec.Raw = _ABSENT
    close_code: int | None = None
    push_wake: msgspec.Raw = _ABSENT


_decode_fast = msgspec.json.Decoder(Envelope).decode


def check_frame(message: bytes) -> None:
    """Check a phone's message before it is spliced into an envelope.

    Args:
        message: One WebSocket message, TEXT or BINARY alike.

    Raises:
        BadPayload: Not UTF-8, not one JSON value, or nested too deep; closes 1007.
    """
    try:
        json_text.check(message)
    except json_text.NotJson:
        raise BadPayload from None


def prefix(conn_id: str) -> bytes:
    """Make what stands before every frame of one phone.

    Shape: ``{"conn_id":"…","frame":``

    Args:
        conn_id: Needs no escaping: the server-id's alphabet has no quote and no
            backslash.
    """
    return b'{"conn_id":"%s","frame":' % conn_id.encode()


def close_notice(conn_id: str, code: int) -> bytes:
    """Make the message that tells a binary that a phone is gone.

    Shape: ``{"conn_id":"…","close_code":<int>}``
    """
    return encode(conn_id, close_code=code)


def encode(conn_id: str, frame: bytes | None = None, close_code: int = 0) -> bytes:
    """Make an envelope as a binary sends it.

    Shape: ``{"conn_id":"…","frame":<value>}``, ``{"conn_id":"…","close_code":<int>}``
    or both, in this order.

    Args:
        conn_id: The phone, as the relay named it.
        frame: One JSON value's text, spliced in verbatim; ``None`` for none.
        close_code: 1 to 65535; 0 for none.
    """
    parts = (
        [prefix(conn_id) + frame]
        if frame is not None
        else [b'{"conn_id":"%s"' % conn_id.encode()]
    )
    if close_code:
        parts.append(b',"close_code":%d' % close_code)
    return b"".join((*parts, SUFFIX))


def decode(message: bytes) -> Envelope:
    """Read one message of a binary.

    Shape: a JSON object with ``conn_id`` and ``frame`` or ``close_code`` or both,
    or with ``push_wake`` alone. Unknown keys are ignored, of a key that stands
    there twice the last one counts, ``null`` is as good as absent.

    Args:
        message: One WebSocket message, TEXT or BINARY alike.

    Returns: An envelope whose ``frame`` is a view of ``message``.

    Raises:
        MalformedEnvelope: Anything else, with a fault from a fixed set of words.
    """
    try:
        json_text.check_utf8(message)
        try:
            envelope = _decode_fast(message)
        except msgspec.MsgspecError:
            return _decode_slowly(message)
        except RecursionError:
            raise json_text.NotJson("nested too deep") from None
        if len(message) >= _SHORTEST_TOO_DEEP:
            json_text.check_depth(message, _MAX_DEPTH)
    except json_text.NotJson as fault:
        raise MalformedEnvelope(str(fault)) from None
    if (
        envelope.conn_id
        and envelope.close_code is None
        and len(envelope.frame) > len(_NULL)
    ):
        return envelope  # all but a few: nothing is left to check
    if bytes(envelope.frame) == _NULL:
        envelope.frame = _ABSENT
    return _checked(envelope)


def _checked(envelope: Envelope) -> Envelope:
    if not envelope.conn_id:
        if not bytes(envelope.push_wake).startswith(b"{"):
            raise MalformedEnvelope("no conn_id")
        return envelope
    code = envelope.close_code or 0
    if not 0 <= code <= MAX_CLOSE_CODE:
        raise MalformedEnvelope("close_code out of range")
    if not code and not envelope.frame:
        raise MalformedEnvelope("neither frame nor close_code")
    return envelope


def _decode_slowly(message: bytes) -> Envelope:
    found = json_text.members(message, _MAX_DEPTH)
    conn_id = found.get("conn_id", _NULL)
    if conn_id != _NULL and not conn_id.startswith(b'"'):
        raise MalformedEnvelope("conn_id is not a string")
    code = found.get("close_code", _NULL)
    if code != _NULL and not _INTEGER.fullmatch(code):
        raise MalformedEnvelope("close_code is not an integer")
    if len(code) > len("-65535"):
        raise MalformedEnvelope("close_code out of range")
    frame = found.get("frame", _NULL)
    return _checked(
        Envelope(
            conn_id=json.loads(conn_id),
            frame=_ABSENT if frame == _NULL else msgspec.Raw(frame),
            close_code=json.loads(code),
            push_wake=msgspec.Raw(found.get("push_wake", b"")),
        )
    )
