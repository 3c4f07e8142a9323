"""Framing: what comes out does not depend on how the bytes were cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core.close_codes import Close
from relay_app.core.errors import PeerError
from relay_app.transport import websocket
from relay_app.transport.websocket import (
    FRAGMENT_BYTES,
    MAX_FRAGMENTS,
    MESSAGES_PER_FEED,
    FrameParser,
    close_code,
    close_frame,
    pong_frame,
    text_head,
)
from tests.peers import frame

LIMIT = 70_000
MASK = b"\x01\x80\xff\x5a"


class Recorder:
    """Writes down what the parser says. ``stop_at`` messages stop the feed."""

    def __init__(self, stop_at: frozenset[int] = frozenset()) -> None:
        self.seen: list[tuple[str, object]] = []
        self.stop_at = stop_at
        self.messages = 0

    def on_message(self, payload: bytes) -> bool:
        self.seen.append(("message", payload))
        self.messages += 1
        return self.messages in self.stop_at

    def on_binary(self, payload: bytes) -> bool:
        self.seen.append(("binary", payload))
        self.messages += 1
        return self.messages in self.stop_at

    def on_ping(self, payload: bytes) -> None:
        self.seen.append(("ping", payload))

    def on_pong(self) -> None:
        self.seen.append(("pong", None))

    def on_close(self, code: int) -> None:
        self.seen.append(("close", code))


def run(
    chunks: list[bytes], limit: int = LIMIT, stop_at: frozenset[int] = frozenset()
) -> Recorder:
    """Feed chunks until the end or the first fault, which is written down too."""
    recorder = Recorder(stop_at)
    parser = FrameParser(limit, recorder)
    try:
        for chunk in chunks:
            again = parser.feed(chunk)
            while again:
                again = parser.feed(b"")
    except PeerError as fault:
        recorder.seen.append(("fault", fault.close))
    return recorder


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame with a real mask."""
    covered = bytes(byte ^ MASK[n % 4] for n, byte in enumerate(payload))
    return frame(first, covered, mask=MASK)


@pytest.mark.parametrize("length", [0, 1, 5, 125, 126, 127, 65535, 65536, LIMIT])
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_feed_whole_message_of_any_length(length: int, first: int) -> None:
    """TEXT and BINARY, each length form, exactly the limit."""
    payload = bytes(n % 251 for n in range(length))
    kind = "message" if first == 0x81 else "binary"
    assert run([masked(first, payload)]).seen == [(kind, payload)]


@pytest.mark.parametrize(
    ("data", "close"),
    [
        (frame(0x81, b"x", mask=None), Close.PROTOCOL_ERROR),
        (frame(0x89, b"x", mask=None), Close.PROTOCOL_ERROR),
        (frame(0xC1, b"x"), Close.PROTOCOL_ERROR),
        (frame(0xA2, b"x"), Close.PROTOCOL_ERROR),
        (frame(0x91, b"x"), Close.PROTOCOL_ERROR),
        (frame(0x83, b"x"), Close.PROTOCOL_ERROR),
        (frame(0x87, b""), Close.PROTOCOL_ERROR),
        (frame(0x8B, b""), Close.PROTOCOL_ERROR),
        (frame(0x8F, b""), Close.PROTOCOL_ERROR),
        (frame(0x09, b""), Close.PROTOCOL_ERROR),
        (frame(0x89, b"x" * 126), Close.PROTOCOL_ERROR),
        (frame(0x88, b"\x03"), Close.PROTOCOL_ERROR),
        (frame(0x88, struct.pack("!H", 1005)), Close.PROTOCOL_ERROR),
        (frame(0x88, struct.pack("!H", 999)), Close.PROTOCOL_ERROR),
        (frame(0x88, struct.pack("!H", 1000) + b"\xff"), Close.BAD_PAYLOAD),
        (frame(0x80, b"x"), Close.PROTOCOL_ERROR),
        (frame(0x00, b"x"), Close.PROTOCOL_ERROR),
        (frame(0x01, b"x") + frame(0x81, b"y"), Close.PROTOCOL_ERROR),
        (frame(0x01, b"x") + frame(0x02, b"y"), Close.PROTOCOL_ERROR),
        (b"\x81\xfe\x00\x7d" + b"\0" * 200, Close.PROTOCOL_ERROR),
        (b"\x81\xff" + struct.pack("!Q", 65535) + b"\0" * 200, Close.PROTOCOL_ERROR),
        (b"\x81\xff" + struct.pack("!Q", 1 << 63) + b"\0" * 200, Close.PROTOCOL_ERROR),
        (b"\x81\xff" + struct.pack("!Q", 1 << 62) + b"\0" * 4, Close.TOO_BIG),
        (b"\x81\xff" + struct.pack("!Q", LIMIT + 1) + b"\0" * 4, Close.TOO_BIG),
        (frame(0x01, b"x" * LIMIT) + b"\x80\x81\0\0\0\0", Close.TOO_BIG),
        (frame(0x01, b"") * 1 + frame(0x00, b"") * MAX_FRAGMENTS, Close.PROTOCOL_ERROR),
    ],
)
def test_feed_what_rfc_6455_forbids_is_a_fault(data: bytes, close: Close) -> None:
    """Each fault has its close; nothing is delivered with it."""
    assert run([data]).seen == [("fault", close)]


def test_feed_too_big_is_known_before_it_is_buffered() -> None:
    """The head alone is enough; nothing is allocated from what it declares."""
    parser = FrameParser(100, Recorder())
    with pytest.raises(PeerError) as caught:
        parser.feed(b"\x81\xff" + struct.pack("!Q", 8 << 30) + b"\0" * 4)
    assert caught.value.close is Close.TOO_BIG


def test_feed_fragments_with_control_frames_between() -> None:
    """Control frames may stand between fragments, and are handled at once."""
    data = (
        masked(0x01, b"one ")
        + masked(0x89, b"ping")
        + masked(0x00, b"two ")
        + masked(0x8A, b"")
        + masked(0x80, b"three")
        + masked(0x88, struct.pack("!H", 1000) + b"bye")
    )
    assert run([data]).seen == [
        ("ping", b"ping"),
        ("pong", None),
        ("message", b"one two three"),
        ("close", 1000),
    ]


def test_feed_as_many_fragments_as_allowed() -> None:
    """Exactly the limit of empty ones passes; one more is a fault."""
    first, more, last = frame(0x01, b""), frame(0x00, b""), frame(0x80, b"c")
    for between, kind in ((MAX_FRAGMENTS - 2, "message"), (MAX_FRAGMENTS - 1, "fault")):
        assert [k for k, _ in run([first + more * between + last]).seen] == [kind]


def test_feed_fragments_are_paid_for_by_their_bytes() -> None:
    """A message of small fragments passes, however many; of tiny ones it does not."""
    for size, kind in ((FRAGMENT_BYTES, "binary"), (FRAGMENT_BYTES // 8, "fault")):
        parts = LIMIT // size
        data = frame(0x02, b"y" * size) + frame(0x00, b"y" * size) * (parts - 2)
        data += frame(0x80, b"z" * size)
        (seen,) = run([data]).seen
        assert seen[0] == kind
        if kind == "binary":
            assert seen[1] == b"y" * size * (parts - 1) + b"z" * size


def test_feed_gives_others_a_turn() -> None:
    """After a number of frames it stops by itself, and goes on when fed again."""
    recorder = Recorder()
    parser = FrameParser(LIMIT, recorder)
    assert parser.feed(frame(0x81, b"1") * (MESSAGES_PER_FEED + 5))
    assert recorder.messages == MESSAGES_PER_FEED
    assert not parser.feed(b"")
    assert recorder.messages == parser.messages == MESSAGES_PER_FEED + 5
    assert not parser.feed(frame(0x81, b"1") * MESSAGES_PER_FEED)


def test_feed_stops_when_the_handler_says_so() -> None:
    """What comes behind is kept, whole, for the next feed."""
    recorder = Recorder(frozenset({1, 2}))
    parser = FrameParser(LIMIT, recorder)
    big = masked(0x81, b"x" * 300)
    assert parser.feed(big[:100]) is False
    assert parser.feed(big[100:] + frame(0x81, b"b") + frame(0x81, b"c")[:3]) is True
    assert recorder.messages == 1
    assert parser.is_amid_message
    assert parser.feed(b"") is True
    assert recorder.messages == 2
    assert parser.feed(b"") is False
    assert parser.feed(frame(0x81, b"c")[3:]) is False
    assert recorder.seen[-1] == ("message", b"c")
    assert not parser.is_amid_message


def test_handler_that_is_replaced_hears_nothing_more() -> None:
    """Messages behind the one that closed the connection go elsewhere."""
    other = Recorder()

    class Once(Recorder):
        def on_message(self, payload: bytes) -> bool:
            parser.handler = other
            return super().on_message(payload)

    first = Once()
    parser = FrameParser(LIMIT, first)
    parser.feed(
        frame(0x81, b"1") + frame(0x81, b"2") + frame(0x01, b"3") + frame(0x80, b"4")
    )
    assert first.seen == [("message", b"1")]
    assert other.seen == [("message", b"2"), ("message", b"34")]


def test_is_amid_message_tells_begun_from_complete() -> None:
    """A part of a head, of a payload or of a fragmented message has begun."""
    parser = FrameParser(LIMIT, Recorder())
    assert not parser.is_amid_message
    whole = frame(0x81, b"x" * 10)
    for cut in (1, 5, 8):
        parser.feed(whole[:cut])
        assert parser.is_amid_message
        parser.feed(whole[cut:])
        assert not parser.is_amid_message
    parser.feed(frame(0x01, b"x"))
    assert parser.is_amid_message


FRAMES = st.one_of(
    st.builds(
        masked, st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80]), st.binary(max_size=300)
    ),
    st.builds(masked, st.sampled_from([0x89, 0x8A]), st.binary(max_size=20)),
    st.builds(
        lambda code: masked(0x88, struct.pack("!H", code)),
        st.sampled_from([1000, 4999, 1005, 7]),
    ),
    st.binary(min_size=1, max_size=12),
)


@given(
    st.lists(FRAMES, max_size=8),
    st.lists(st.integers(1, 40), max_size=30),
    st.frozensets(st.integers(1, 8)),
)
def test_feed_any_bytes_in_any_chunks_give_the_same(
    frames: list[bytes], cuts: list[int], stop_at: frozenset[int]
) -> None:
    """Messages and faults depend on the bytes alone, not on cuts or stops."""
    data = b"".join(frames)
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(data[at : at + cut])
        at += cut
    chunks.append(data[at:])
    whole = run([data], 200).seen
    assert run([chunk for chunk in chunks if chunk], 200, stop_at).seen == whole
    assert run([data[n : n + 1] for n in range(len(data))], 200).seen == whole


def test_text_head_in_each_length_form() -> None:
    """The server's frames are unmasked TEXT, in the shortest form."""
    assert text_head(0) == b"\x81\x00"
    assert text_head(125) == b"\x81\x7d"
    assert text_head(126) == b"\x81\x7e\x00\x7e"
    assert text_head(65535) == b"\x81\x7e\xff\xff"
    assert text_head(65536) == b"\x81\x7f" + struct.pack("!Q", 65536)


def test_control_frames_to_the_byte() -> None:
    """Ping, pong, close with and without a code."""
    assert websocket.PING_FRAME == b"\x89\x00"
    assert pong_frame(b"abc") == b"\x8a\x03abc"
    assert close_frame(1000, "") == b"\x88\x02\x03\xe8"
    assert close_frame(4404, "no") == b"\x88\x04\x11\x34no"
    assert close_frame(1005, "") == b"\x88\x00"
    with pytest.raises(ValueError, match="123"):
        close_frame(1000, "x" * 124)


def test_close_code_of_an_empty_body_is_1005() -> None:
    """No code was given."""
    assert close_code(b"") == 1005
    assert close_code(b"\x11\x34bye") == 4404
