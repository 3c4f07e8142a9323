"""The frame parser against two other readers of the same bytes."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_app.transport.websocket import FrameParser
from tests.fuzz import frames
from tests.fuzz.frames import Recorder


def test_frames_of_the_corpus_are_read_as_two_others_read_them() -> None:
    """The corpus with which a fuzzer begins passes as it is."""
    for seed in frames.seeds():
        frames.check(seed)


@settings(max_examples=200)
@given(
    st.binary(max_size=60)
    | st.builds(
        lambda head, rest: bytes((head | 1,)) + rest,
        st.integers(0, 15),
        st.binary(min_size=8, max_size=300),
    )
)
def test_frames_of_any_bytes_are_read_as_two_others_read_them(data: bytes) -> None:
    """The same messages, the same close, however it is cut; memory as what was fed."""
    frames.check(data)


@pytest.mark.parametrize("limit", [1 << 20, 1 << 40])
@pytest.mark.parametrize("first", [0x81, 0x02])
def test_frame_that_declares_much_costs_what_has_come(first: int, limit: int) -> None:
    """At no moment is more allocated than was fed, whatever the head says."""
    head = bytes((first, 0xFF)) + struct.pack("!Q", limit) + bytes(4)
    rest = head[5:] + b"x" * 1000
    parser = FrameParser(limit, Recorder())
    tracemalloc.start()
    try:
        parser.feed(head[:5])
        parser.feed(rest)
        assert tracemalloc.get_traced_memory()[1] < 8192
    finally:
        tracemalloc.stop()
