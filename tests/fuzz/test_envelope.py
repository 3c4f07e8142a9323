"""Envelopes and phones' messages against the standard library's JSON."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import envelope


def test_messages_of_the_corpus_are_judged_as_by_another() -> None:
    """The corpus with which a fuzzer begins passes as it is."""
    for seed in envelope.seeds():
        envelope.check(seed)


@settings(max_examples=200)
@given(
    st.builds(
        lambda kind, rest: bytes((kind,)) + rest,
        st.integers(1, 3),
        st.binary(min_size=4, max_size=120),
    )
)
def test_messages_of_any_shape_are_judged_as_by_another(data: bytes) -> None:
    """The same are refused; what passes is verbatim, the last of two keys counts."""
    envelope.check(data)


@pytest.mark.parametrize("depth", [510, 511, 512, 513])
@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"\\ud800":', b"}"), (b'["]}",', b"]")]
)
def test_messages_at_the_edge_of_the_depth_are_judged_as_by_another(
    depth: int, opening: bytes, closing: bytes
) -> None:
    """A phone's 512 pass, bare and wrapped, with and without the slow way."""
    message = opening * depth + b"1" + closing * depth
    envelope.check_phone(message)
    for conn_id in (b'"a"', b'7,"conn_id":"a"'):
        envelope.check_envelope(b'{"conn_id":%b,"frame":%b}' % (conn_id, message))
