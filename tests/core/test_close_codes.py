"""Close codes: to the letter, and which may stand on the wire."""

import pytest

from relay_app.core.close_codes import (
    Close,
    directive_code,
    may_stand_on_the_wire,
    meaning,
)


def test_close_members_match_the_contract() -> None:
    """Codes and reasons are the contract's own."""
    assert {(close.code, close.reason) for close in Close} >= {
        (1000, ""),
        (1001, "shutting down"),
        (1008, "message timeout"),
        (1011, "heartbeat timeout"),
        (1011, "phone backlog full"),
        (1011, "write timeout"),
        (1011, "internal error"),
        (4404, "no server with that id"),
        (4404, "binary reclaimed server-id"),
        (4409, "server-id already claimed"),
        (4429, "too many phones for server-id"),
    }


def test_close_members_never_use_a_final_code() -> None:
    """The relay never tells a phone to stop for good."""
    assert not {close.code for close in Close} & {4401, 4412, 4421, 4426}


@pytest.mark.parametrize("close", list(Close))
def test_close_reasons_fit_a_control_frame(close: Close) -> None:
    """A reason has at most 123 bytes."""
    assert len(close.reason.encode()) <= 123


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        (1, 1000),
        (999, 1000),
        (1000, 1000),
        (1003, 1003),
        (1004, 1000),
        (1005, 1000),
        (1006, 1000),
        (1007, 1007),
        (1014, 1014),
        (1015, 1000),
        (1016, 1000),
        (2999, 1000),
        (3000, 3000),
        (4401, 4401),
        (4999, 4999),
        (5000, 1000),
        (65535, 1000),
    ],
)
def test_directive_code_that_may_not_stand_becomes_1000(code: int, sent: int) -> None:
    """Unusable codes of a directive become 1000; the others go through."""
    assert directive_code(code) == sent
    assert may_stand_on_the_wire(sent)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4404, "no binary holds"),
        (4401, "stops until its user acts"),
        (1005, "without giving a code"),
        (4777, "binary's own"),
        (2222, "not in use"),
    ],
)
def test_meaning_says_what_to_make_of_a_code(code: int, words: str) -> None:
    """A person reads words, not numbers."""
    assert words in meaning(code)
