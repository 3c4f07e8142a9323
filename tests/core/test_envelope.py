"""The routing envelope: verbatim both ways, and every malformed one has a name."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import envelope
from relay_app.core.close_codes import Close
from relay_app.core.envelope import Envelope
from relay_app.core.errors import BadPayload, MalformedEnvelope
from tests.core.test_json_text import JSON

Shown = tuple[str | None, bytes, int, bytes]


def shown(received: Envelope) -> Shown:
    """Make an envelope comparable."""
    return (
        received.conn_id,
        bytes(received.frame),
        received.close_code or 0,
        bytes(received.push_wake) if not received.conn_id else b"",
    )


def test_prefix_and_suffix_wrap_a_frame_to_the_byte() -> None:
    """Keys in the contract's order, no space outside the frame."""
    wrapped = envelope.prefix("client-a-0") + b' {"x" : 1 } ' + envelope.SUFFIX
    assert wrapped == b'{"conn_id":"client-a-0","frame": {"x" : 1 } }'


def test_close_notice_has_no_frame_key() -> None:
    """A close notice is conn_id and close_code and nothing else."""
    assert (
        envelope.close_notice("client-a-0", 1001)
        == b'{"conn_id":"client-a-0","close_code":1001}'
    )


def test_check_frame_bad_payload_closes_1007() -> None:
    """A phone's message that is no JSON value ends that phone with 1007."""
    with pytest.raises(BadPayload) as caught:
        envelope.check_frame(b'{},"conn_id":"x"')
    assert caught.value.close is Close.BAD_PAYLOAD
    envelope.check_frame(b"[1]")


DEEPEST = b"[" * 512 + b"]" * 512


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"conn_id":"a","frame":1}', ("a", b"1", 0, b"")),
        (b' { "conn_id" : "a" , "frame" : {"x": 1 } } ', ("a", b'{"x": 1 }', 0, b"")),
        (b'{"frame":[1],"x":{"y":[]},"conn_id":"a"}', ("a", b"[1]", 0, b"")),
        (
            b'{"conn_id":"a","conn_id":"b","frame":1,"frame":"two"}',
            ("b", b'"two"', 0, b""),
        ),
        (b'{"conn_id":5,"conn_id":"b","frame":1}', ("b", b"1", 0, b"")),
        (b'{"conn_id":"b","close_code":"x","close_code":4401}', ("b", b"", 4401, b"")),
        (rb'{"\u0063onn_id":"\u0061","frame":"\ud800"}', ("a", rb'"\ud800"', 0, b"")),
        (b'{"conn_id":"a","close_code":4401}', ("a", b"", 4401, b"")),
        (b'{"conn_id":"a","frame":null,"close_code":1}', ("a", b"", 1, b"")),
        (
            b'{"conn_id":"a","frame":true,"close_code":65535}',
            ("a", b"true", 65535, b""),
        ),
        (b'{"conn_id":"a","frame":1,"close_code":0}', ("a", b"1", 0, b"")),
        (b'{"conn_id":"a","frame":"long","close_code":0}', ("a", b'"long"', 0, b"")),
        (b'{"conn_id":"a","frame":1,"close_code":null}', ("a", b"1", 0, b"")),
        (b'{"conn_id":"a","frame":1,"close_code":-0}', ("a", b"1", 0, b"")),
        (b'{"conn_id":"a","frame":1,"push_wake":[]}', ("a", b"1", 0, b"")),
        (b'{"push_wake":{"platform":"fcm"}}', (None, b"", 0, b'{"platform":"fcm"}')),
        (b'{"conn_id":null,"push_wake":{}}', (None, b"", 0, b"{}")),
        (b'{"conn_id":"","frame":1,"push_wake":{}}', ("", b"1", 0, b"{}")),
        (b'{"conn_id":5,"conn_id":"","push_wake":{}}', ("", b"", 0, b"{}")),
        (b'{"conn_id":"a","frame":' + DEEPEST + b"}", ("a", DEEPEST, 0, b"")),
        ('{"conn_id":"ü","frame":"ü"}'.encode(), ("ü", '"ü"'.encode(), 0, b"")),
    ],
)
def test_decode_wellformed_envelope(message: bytes, expected: Shown) -> None:
    """What the contract allows is read, the frame verbatim."""
    assert shown(envelope.decode(message)) == expected


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"conn_id":"a"}',
        b'{"conn_id":"a","frame":null}',
        b'{"conn_id":"a","close_code":0}',
        b'{"conn_id":"a","close_code":true}',
        b'{"conn_id":"a","close_code":4401.0}',
        b'{"conn_id":"a","close_code":4e3}',
        b'{"conn_id":"a","close_code":"4401"}',
        b'{"conn_id":"a","frame":1,"close_code":-1}',
        b'{"conn_id":"a","frame":1,"close_code":65536}',
        b'{"conn_id":"a","frame":1,"close_code":' + b"9" * 5000 + b"}",
        b'{"conn_id":"a","frame":1,"close_code":[]}',
        b'{"conn_id":7,"frame":1}',
        b'{"conn_id":["a"],"frame":1,"x":' + b"9" * 5000 + b"}",
        b'{"conn_id":null,"frame":1}',
        b'{"conn_id":"","push_wake":[]}',
        b'{"conn_id":"","push_wake":null}',
        b'{"push_wake":"x"}',
        b'{"frame":1}',
        b'{"conn_id":"a","frame":1}{}',
        b'{"conn_id":"a","frame":1} x',
        b'{"conn_id":"a","frame":NaN}',
        b'{"conn_id":"a","frame":"\xff"}',
        b'{"conn_id":"a","frame":"\x00"}',
        b'{"conn_id":"a","frame":[' + DEEPEST + b"]}",
        b'{"conn_id":7,"conn_id":"a","frame":[' + DEEPEST + b"]}",
        b'{"conn_id":"a","frame":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"conn_id":7,"frame":' + b"[" * 100_000,
    ],
)
def test_decode_malformed_envelope_is_named(message: bytes) -> None:
    """Everything else is malformed, and the fault's words are our own."""
    with pytest.raises(MalformedEnvelope) as caught:
        envelope.decode(message)
    assert len(caught.value.fault) < 40


@given(
    st.from_regex(r"client-[!#-\[\]-~]{1,40}-[0-9a-f]{8}", fullmatch=True),
    st.none() | JSON,
    st.integers(0, 65535),
)
def test_decode_inverts_encode(conn_id: str, value: object, close_code: int) -> None:
    """What a binary writes is what the relay reads, byte for byte."""
    frame = None if value is None else json.dumps(value).encode()
    message = envelope.encode(conn_id, frame, close_code)
    if frame is None and not close_code:
        with pytest.raises(MalformedEnvelope):
            envelope.decode(message)
    else:
        assert shown(envelope.decode(message)) == (
            conn_id,
            frame or b"",
            close_code,
            b"",
        )


KEYS = ["conn_id", "frame", "close_code", "push_wake", "other"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS),
            JSON | st.sampled_from(["a", "", None, 0, 4401, 65536, True, 1.5, {}]),
        ),
        max_size=6,
    )
)
def test_decode_fast_and_slow_way_agree(pairs: list[tuple[str, object]]) -> None:
    """Both ways of reading give the same envelope wherever the fast one gives any."""
    body = ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    message = ("{" + body + "}").encode()

    def attempt(read: object) -> Shown | None:
        try:
            return shown(read(message))  # type: ignore[operator]
        except MalformedEnvelope:
            return None

    assert attempt(envelope.decode) == attempt(envelope._decode_slowly)


@given(st.binary(max_size=200))
def test_decode_any_bytes_give_an_envelope_or_the_documented_error(
    message: bytes,
) -> None:
    """No bytes make anything but an envelope or MalformedEnvelope."""
    try:
        received = envelope.decode(message)
    except MalformedEnvelope:
        return
    assert isinstance(received, msgspec.Struct)
