"""What is one JSON value, and what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import json_text
from relay_app.core.json_text import MAX_DEPTH, NotJson

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "text",
    [
        b"1",
        b"-0",
        b"1e999",
        b'""',
        b" {} \r\n\t",
        '"ü€😀"'.encode(),
        rb'"\ud800"',
        rb'"\\ud800 \ud800\u00e9"',
        b'{"a":' + b"1" * 5000 + b"}",
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH,
        b'"' + b"[" * 5000 + b'"',
        b"[" + b"[]," * 2000 + b"1]",
        b'["' + b'\\"[' * 2000 + b'"]',
    ],
)
def test_check_valid_value_passes(text: bytes) -> None:
    """RFC 8259's values pass, lone surrogate escapes and all."""
    json_text.check(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{}{}",
        b"{},",
        b'{},"conn_id":"x"',
        b"NaN",
        b"[Infinity]",
        b"01",
        b"\xef\xbb\xbf{}",
        b'"\x01"',
        b'"\\x"',
        b'"\\u12"',
        b'"',
        b"[1,]",
        b"{'a':1}",
        b"\xff",
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b"// no\n1",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'["\\ud800",' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"]",
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 100_000,
        rb'["\ud800",' + b"[" * 100_000,
    ],
)
def test_check_anything_else_is_refused(text: bytes) -> None:
    """Trailing data, NaN, a BOM, control characters, bad UTF-8, too deep: refused."""
    with pytest.raises(NotJson):
        json_text.check(text)


@given(JSON, st.booleans())
def test_check_accepts_what_json_writes(value: object, ascii_only: bool) -> None:
    """Whatever a JSON library writes passes, escapes included."""
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")
    json_text.check(text)


@given(
    st.binary(max_size=40)
    | st.text(alphabet='[]{}",:\\u0d8 \n1e-tfn', max_size=30).map(str.encode)
)
def test_check_agrees_with_the_standard_library(text: bytes) -> None:
    """Any bytes are judged as a second JSON implementation judges them."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(text.decode(), parse_constant=refuse)
        expected = not text.startswith(b"\xef\xbb\xbf")
    except ValueError:
        expected = False
    try:
        json_text.check(text)
        accepted = True
    except NotJson:
        accepted = False
    assert accepted is expected


def test_members_cuts_values_out_verbatim() -> None:
    """Values keep their spelling, the last of two keys counts, keys lose their escapes."""
    text = ' {"a" : [1, 2 ] ,"ü":1e5,"\\u0061":"x\\ud800" , "b":{}}\n'.encode()
    assert json_text.members(text, 9) == {"a": rb'"x\ud800"', "ü": b"1e5", "b": b"{}"}
    assert json_text.members(b"{ }", 9) == {}


def test_members_of_too_many_is_refused() -> None:
    """The slow way is for texts of a size that a person would write."""
    many = b",".join(b'"%d":0' % n for n in range(json_text.MAX_MEMBERS))
    assert len(json_text.members(b"{%s}" % many[: many.rindex(b",")], 9)) == (
        json_text.MAX_MEMBERS - 1
    )
    with pytest.raises(NotJson):
        json_text.members(b"{%s}" % many, 9)


@pytest.mark.parametrize("text", [b"[]", b"1", b"", b"{", b'{"a":[[[1]]]}'])
def test_members_of_no_object_is_refused(text: bytes) -> None:
    """Only an object of at most the given depth has members."""
    with pytest.raises(NotJson):
        json_text.members(text, 3)
