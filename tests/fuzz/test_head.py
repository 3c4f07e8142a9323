"""Request heads that are made to be read in two ways."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import head
from tests.fuzz.source import Source
from tests.local_relay import local_relay
from tests.peers import upgrade_request

BEHIND = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request that somebody before the relay might take for a body."""


def test_heads_of_the_corpus_are_judged_as_rfc_9112_does() -> None:
    """The corpus with which a fuzzer begins passes as it is."""
    for seed in head.seeds():
        head.check(seed)


SHAPES = st.builds(
    lambda kind, rest: bytes((kind,)) + rest,
    st.integers(0, 2),
    st.binary(min_size=2, max_size=80),
)


@settings(max_examples=200)
@given(SHAPES)
def test_heads_of_any_bytes_are_judged_as_rfc_9112_does(data: bytes) -> None:
    """A request as it came, or a refusal in words of our own."""
    head.check(data)


def _answers(address: tuple[str, int], data: bytes) -> bytes:
    """Send, and read everything until the relay has closed."""
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while more := sock.recv(65536):
            answer += more
    return answer


def test_heads_that_smuggle_get_one_answer_and_no_second_request() -> None:
    """Refused, or taken for the one request of its connection: nothing hides behind it."""
    wrong = {}
    with local_relay() as relay:
        for shape in head.shapes():
            answer = _answers(relay.address, shape + b"0\r\n\r\n" + BEHIND)
            is_refused = answer[9:12].decode() in head.STATUSES
            must_be = head.judged(shape) == "refuse"
            if answer.count(b"HTTP/1.1 ") != 1 or (must_be and not is_refused):
                wrong[shape] = answer
    assert not wrong


def test_heads_of_any_bytes_get_one_answer_and_are_no_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever comes, the relay answers once, and logs no error of its own."""
    with local_relay() as relay:

        @settings(max_examples=100)
        @given(SHAPES)
        def answered(data: bytes) -> None:
            shape = head.built(Source(data)) + head.END
            answer = _answers(relay.address, shape + BEHIND)
            assert answer.count(b"HTTP/1.1 ") == 1

        answered()
    assert "internal.error" not in capsys.readouterr().err


def test_request_behind_an_upgrade_is_no_request() -> None:
    """What follows a 101 is frames: this is none, so it ends the connection with 1002."""
    with local_relay() as relay:
        relay.binary()
        answer = _answers(relay.address, upgrade_request("client", "id") + BEHIND)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\n\r\n\x88" in answer
    assert b"\x03\xea" in answer


@pytest.mark.parametrize(
    "field", [{"content_length": "5"}, {"transfer_encoding": "chunked"}]
)
def test_upgrade_that_declares_a_body_is_refused(field: dict[str, str]) -> None:
    """Where frames begin may not depend on who reads the head."""
    with local_relay() as relay:
        relay.binary()
        request = upgrade_request("client", "id", **field)
        answer = _answers(relay.address, request + b"0\r\n\r\n" + BEHIND)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
