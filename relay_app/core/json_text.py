"""Is this one JSON value? The judge for everything that is spliced or sliced.

msgspec walks the text in C without building an object, and two things it does
are not what the contract asks for:

* it does not look at UTF-8 inside strings, so that is checked first;
* it refuses an escaped lone surrogate (``"\\ud800"``), which RFC 8259 §8.2
  allows. Only when msgspec has refused, the text is tried again with such
  escapes replaced by harmless text of the same length.

Depth is bounded by the contract, not by the interpreter: a text that could be
too deep has more than ``MAX_DEPTH`` opening brackets, which is counted in C,
and only then the depth itself is worked out.
"""

from __future__ import annotations

import itertools
import json
import re

import msgspec

MAX_DEPTH = 512
"""Nesting of arrays and objects in one value; exactly this many pass."""

MAX_MEMBERS = 4096
"""Members of an object that ``members`` looks at: it takes 3 µs for each, and a
message could hold fifty thousand."""

_SHORTEST_TOO_DEEP = 2 * (MAX_DEPTH + 1)
"""Bytes: fewer cannot hold so many brackets with their partners."""

_SYNTAX = msgspec.json.Decoder(msgspec.Raw)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Numbers stay text: Python refuses to convert integers of over 4300 digits.
_SCAN = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
_SURROGATE = re.compile(rb"\\u[dD][89A-Fa-f][0-9A-Fa-f]{2}")
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")


class NotJson(Exception):
    """The text is not what RFC 8259 calls a JSON text, or it is too deep."""


def check_utf8(text: bytes) -> None:
    """Refuse what is not UTF-8.

    Raises:
        NotJson: A byte sequence that RFC 3629 forbids.
    """
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            raise NotJson("not UTF-8") from None


def check(text: bytes) -> None:
    """Accept exactly one JSON value, with white space round it.

    No NaN, no trailing data, no byte order mark, no raw control character, no
    nesting over ``MAX_DEPTH``.

    Args:
        text: The whole message.

    Raises:
        NotJson: With a reason from a fixed set.

    Source: RFC 8259 §2; docs/protocol.md "Routing envelope".
    """
    check_utf8(text)
    try:
        _SYNTAX.decode(text)
    except msgspec.MsgspecError:
        check_syntax(without_surrogates(text))
    except RecursionError:
        raise NotJson("nested too deep") from None
    if len(text) >= _SHORTEST_TOO_DEEP:
        check_depth(text, MAX_DEPTH)


def check_syntax(text: bytes) -> None:
    """Accept what msgspec accepts.

    Raises:
        NotJson: Not one JSON value, or deeper than the interpreter follows.
    """
    try:
        _SYNTAX.decode(text)
    except msgspec.MsgspecError:
        raise NotJson("not one JSON value") from None
    except RecursionError:
        raise NotJson("nested too deep") from None


def without_surrogates(text: bytes) -> bytes:
    """Replace escaped surrogates by harmless text of the same length."""
    # Pairs of backslashes first, from the left: what is left of a run starts an escape.
    return _SURROGATE.sub(b"______", text.replace(b"\\\\", b"__"))


def check_depth(text: bytes, limit: int) -> None:
    """Refuse a valid JSON text whose arrays and objects nest over ``limit``.

    Raises:
        NotJson: Too deep.
    """
    if _openings(text, b"[", limit) + _openings(text, b"{", limit) <= limit:
        return
    brackets = _STRING.sub(b"", text).translate(_STEPS, _NOT_BRACKETS)
    if brackets and max(itertools.accumulate(memoryview(brackets).cast("b"))) > limit:
        raise NotJson("nested too deep")


def _openings(text: bytes, bracket: bytes, limit: int) -> int:
    """Count a bracket, up to ``limit + 1``; ``count`` takes 13 times as long on 64 KiB."""
    return len(text) - len(text.replace(bracket, b"", limit + 1))


def members(text: bytes, max_depth: int) -> dict[str, bytes]:
    """Cut the members of a JSON object out of its text, verbatim.

    Of a key that stands there twice the last one counts. Escapes in keys are
    resolved. This is the slow and complete way, for texts on which the fast one
    has given up.

    Args:
        text: Valid UTF-8, nothing else is known of it.
        max_depth: Nesting of the whole text; exactly this many pass.

    Returns: key → its value's text, without white space round it.

    Raises:
        NotJson: Not an object, too deep, too many members, or no JSON at all.
    """
    check_syntax(without_surrogates(text))
    check_depth(text, max_depth)
    # One character per byte, so that positions in the string are positions in
    # the text. The text is known to be valid, so no look ahead can run off it.
    chars = text.decode("latin-1")
    at = _skip_space(chars, 0)
    if chars[at] != "{":
        raise NotJson("not an object")
    found: dict[str, bytes] = {}
    at = _skip_space(chars, at + 1)
    for _ in range(MAX_MEMBERS):
        if chars[at] == "}":
            return found
        start = at
        at = _skip_value(chars, at)
        key = json.loads(text[start:at])
        at = _skip_space(chars, _skip_space(chars, at) + 1)
        start = at
        at = _skip_value(chars, at)
        found[key] = text[start:at]
        at = _skip_space(chars, at)
        if chars[at] == ",":
            at = _skip_space(chars, at + 1)
    raise NotJson("too many members")


def _skip_value(chars: str, at: int) -> int:
    end: int = _SCAN(chars, at)[1]
    return end


def _skip_space(chars: str, at: int) -> int:
    while chars[at] in " \t\r\n":
        at += 1
    return at
