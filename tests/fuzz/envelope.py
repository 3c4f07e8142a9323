"""Envelopes and phones' messages under any bytes, judged by the standard library's JSON.

The judge reads with ``json``, strictly, numbers kept as their text and objects as
rows of pairs, so that nothing that stands in a message is lost or converted. What
``docs/protocol.md`` says of the keys is written down a second time in ``judged``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

from relay_app.core import envelope
from relay_app.core.envelope import Envelope
from relay_app.core.errors import BadPayload, MalformedEnvelope
from tests.fuzz.source import Source

MAX_DEPTH = 512
WHITE = b" \t\r\n"
CONN_ID = "client-a-00000000"

FAULTS = {
    "not UTF-8",
    "not one JSON value",
    "nested too deep",
    "not an object",
    "too many members",
    "no conn_id",
    "conn_id is not a string",
    "close_code is not an integer",
    "close_code out of range",
    "neither frame nor close_code",
}
"""Everything that a log line may say of a malformed envelope."""


class Number(str):
    """A number's own text."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"


class Int(Number):
    """An integer literal."""


class Float(Number):
    """A literal with a fraction or an exponent."""


class Object:
    """An object's members in their order, repeated ones too.

    Compared by a digest: five hundred levels are more than the interpreter compares.
    """

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = members
        self.digest = hashlib.sha256(repr(members).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Object({self.digest})"

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)


_JUDGE = json.JSONDecoder(
    parse_int=Int,
    parse_float=Float,
    parse_constant=_refuse,
    object_pairs_hook=Object,
)


class NotOne(Exception):
    """Not one JSON value."""


def depth(text: str) -> int:
    """Count the deepest nesting, one character at a time."""
    deepest = now = 0
    in_string = is_escaped = False
    for char in text:
        if in_string:
            in_string = is_escaped or char != '"'
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            now += 1
            deepest = max(deepest, now)
        elif char in "]}":
            now -= 1
    return deepest


def read(message: bytes, max_depth: int) -> Any:
    """Read one JSON value.

    Raises:
        NotOne: RFC 8259 does not call it one, or it nests deeper.
    """
    try:
        text = message.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise NotOne from None
    if depth(text) > max_depth:
        raise NotOne
    try:
        start = len(text) - len(text.lstrip(WHITE.decode()))
        value, end = _JUDGE.raw_decode(text, start)
    except ValueError:
        raise NotOne from None
    if text[end:].strip(WHITE.decode()):
        raise NotOne
    return value


def judged(message: bytes) -> dict[str, Any] | None:
    """Say what an envelope means; None for a malformed one.

    Source: docs/protocol.md "Routing envelope".
    """
    try:
        whole = read(message, MAX_DEPTH + 1)
    except NotOne:
        return None
    if type(whole) is not Object:
        return None
    last = dict(whole.members)
    conn_id, code = last.get("conn_id"), last.get("close_code")
    # A number's text is a string of another class.
    if conn_id is not None and type(conn_id) is not str:
        return None
    if code is not None and type(code) is not Int:
        return None
    number = 0 if code is None else int(code) if len(code) < 9 else 1 << 32
    if conn_id:
        if not 0 <= number <= 65535:
            return None
        if last.get("frame") is None and not number:
            return None
    elif type(last.get("push_wake")) is not Object:
        return None
    return {"conn_id": conn_id, "frame": last.get("frame"), "close_code": number}


def check_envelope(message: bytes) -> None:
    """Compare what the relay makes of a binary's message with the judge.

    Raises:
        AssertionError: They differ.
    """
    expected = judged(message)
    try:
        received = envelope.decode(message)
    except MalformedEnvelope as fault:
        assert fault.fault in FAULTS, fault.fault
        if expected is not None and expected["conn_id"]:
            raise AssertionError(f"refused: {fault.fault}") from None
        if expected is not None and 0 <= expected["close_code"] <= 65535:
            raise AssertionError(f"refused a wake: {fault.fault}") from None
        return
    assert expected is not None, "accepted a malformed envelope"
    assert type(received) is Envelope
    assert (received.conn_id or "") == (expected["conn_id"] or "")
    if received.conn_id:
        assert received.close_code in (None, expected["close_code"])
        assert (received.close_code or 0) == expected["close_code"]
        check_verbatim(bytes(received.frame), expected["frame"], message)


def check_verbatim(frame: bytes, value: Any, message: bytes) -> None:
    """Check that a frame stands in a message as it is and has the value it should."""
    if value is None:
        assert frame == b"", "a frame out of nothing"
        return
    assert frame in message, "not verbatim"
    assert frame.strip(WHITE) == frame, "white space round the frame"
    # It has been read as a part of the envelope already, so the depth is in order.
    assert read(frame, MAX_DEPTH) == value, "another frame than the last one"


def check_phone(message: bytes) -> None:
    """Compare what the relay makes of a phone's message with the judge.

    Raises:
        AssertionError: They differ, or the message could be more than a frame.
    """
    try:
        value = read(message, MAX_DEPTH)
        expected = True
    except NotOne:
        expected = False
    try:
        envelope.check_frame(message)
        accepted = True
    except BadPayload:
        accepted = False
    assert accepted is expected, f"accepted: {accepted}"
    if not accepted:
        return
    wrapped = envelope.prefix(CONN_ID) + message + envelope.SUFFIX
    spliced = read(wrapped, MAX_DEPTH + 1)
    assert spliced == Object([("conn_id", CONN_ID), ("frame", value)]), "spliced"
    if value is not None:
        # What a phone may send can be sent back.
        received = envelope.decode(wrapped)
        assert (received.conn_id, received.close_code) == (CONN_ID, None)
        assert bytes(received.frame) == message.strip(WHITE)


# -- from any bytes to a message ----------------------------------------------

TOKENS = (
    *b'{ } [ ] , : " \\ 0 1 -1 -0 01 1.5 4e3 1e999 65535 65536 4401'.split(),
    *b'true false null NaN -Infinity "" "a" "\\ud800" "\\ud83d\\ude00" "\\\\ud800"'.split(),
    *b'"conn_id" "frame" "close_code" "push_wake" "\\u0063onn_id" "other"'.split(),
    *b'"conn_id":"a" "frame":[1,{}] "close_code":4401 "push_wake":{}'.split(),
    '"ü€😀"'.encode(),
    b'"\x7f"',
    b'"\x01"',
    b'"\xed\xa0\x80"',
    b"\xef\xbb\xbf",
    b"\xff",
    b" ",
    b"\n",
    b"\x0c",
    b"\0",
    b"9" * 30,
    b"9" * 5000,
    b"[" * 511,
    b"]" * 511,
    b'{"":' * 255,
    b"}" * 255,
)

KEYS = (
    b'"conn_id"',
    b'"frame"',
    b'"close_code"',
    b'"push_wake"',
    rb'"\u0063onn_id"',
    rb'"fr\u0061me"',
    rb'"\udc00"',
    b'"Push_wake"',
)
FITTING = (
    (b'"a"', b'"a"', b'""', b"null", rb'"\u0061"', rb'"\ud800"', b"7"),
    (b"1", b"[1, {}]", b'{"v":2,"v":[ ]}', b"null", rb'"\udead"', b"1e5", b"-0.0"),
    (b"4401", b"0", b"65535", b"65536", b"-1", b"-0", b"null", b"true", b"1.0", b'"1"'),
    (b"{}", b'{"platform":"fcm"}', b"[]", b"null"),
)
"""Values such as the first four keys have, most of them good."""

SPACES = (b"", b"", b"", b" ", b"\r\n", b"\t ", b"\x0b")


def _value(source: Source, level: int = 0) -> bytes:
    """Build a value that is mostly well-formed."""
    kind = source.byte()
    if kind < 40 and level < 6:
        inner = [_value(source, level + 1) for _ in range(kind % 4)]
        return b"[" + source.pick(SPACES).join(inner or [b""]) + b"]"
    if kind < 80 and level < 6:
        return _object(source, kind % 4, level + 1)
    if kind < 100:
        times = source.pick((1, 255, 256, 510, 511, 512, 513))
        return b"[" * times + b"]" * times
    if kind < 130:
        return b"%d" % ((source.byte() << 8 | source.byte()) - 100)
    return source.pick(TOKENS)


def _object(source: Source, members: int, level: int = 0) -> bytes:
    parts = []
    for _ in range(members):
        which = source.byte() % len(KEYS)
        space = source.pick(SPACES)
        is_fitting = source.byte() < 160
        fitting = FITTING[which & 3]
        value = source.pick(fitting) if is_fitting else _value(source, level)
        parts.append(KEYS[which] + space + b":" + space + value)
    return b"{" + b",".join(parts) + b"}"


def built(source: Source) -> bytes:
    """Turn a fuzzer's bytes into a message, in one of three ways."""
    kind = source.byte() % 4
    if kind == 0:
        return source.rest()
    if kind == 1:
        parts = []
        while source:
            parts.append(source.pick(TOKENS))
        return b"".join(parts[:200])
    if kind == 2:
        return _value(source)
    return source.pick(SPACES) + _object(source, source.byte() % 7) + source.rest()[:3]


def check(data: bytes) -> None:
    """Hold both directions to their promises for one input.

    Raises:
        AssertionError: A promise is broken.
    """
    message = built(Source(data))
    check_envelope(message)
    check_phone(message)


def seeds() -> list[bytes]:
    """Make a small corpus: each key, each way of building, each fault."""
    raw = (
        b'{"conn_id":"a","frame":{"v":2,"type":"noise_msg","data":"AAAA"}}',
        b' { "conn_id" : "a" , "frame" : [ 1 ] , "close_code" : 4401 } ',
        b'{"push_wake":{"platform":"fcm","token":"t"}}',
        b'{"conn_id":5,"conn_id":"b","frame":"\\ud800","close_code":null}',
        b'{"conn_id":"a","close_code":65536}',
        b'{},"conn_id":"x"',
        '"ü€😀"'.encode(),
        b"[" * 20 + b"]" * 20,
    )
    tokens = [bytes((1, n)) for n in range(len(TOKENS))]
    values = [bytes((3, 0, 2, 0, 0, 0, 0, 1, 0, 200, n * 8)) for n in range(32)]
    fitting = [bytes((3, 0, 2, 0, 0, 0, 0, n % 4, 0, 0, n // 4)) for n in range(40)]
    return [*(b"\0" + one for one in raw), *tokens, *values, *fitting]
