"""The waits of a binary, and when it gives up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.client.backoff import JITTER, MAX_CONFLICTS, STEPS_S, BackOff


def middle() -> float:
    """No jitter."""
    return 0.5


def test_waits_follow_the_contract() -> None:
    """1, 2, 4, 8, 16, 30 s, and 30 s from then on."""
    back_off = BackOff(middle)
    assert [back_off.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


@given(st.floats(0, 1), st.integers(0, 9))
def test_jitter_stays_within_a_fifth(draw: float, step: int) -> None:
    """Whatever the dice say."""
    back_off = BackOff(lambda: draw)
    waits = [back_off.next_s() for _ in range(step + 1)]
    plain = STEPS_S[min(step, len(STEPS_S) - 1)]
    assert plain * (1 - JITTER) - 1e-9 <= waits[-1] <= plain * (1 + JITTER) + 1e-9


def test_retry_after_counts_when_it_is_longer() -> None:
    """And it is not scaled."""
    back_off = BackOff(middle, scale=0.5)
    assert back_off.next_s(0.1) == 0.5
    assert back_off.next_s(7) == 7


@pytest.mark.parametrize(
    ("code", "open_s", "received", "expected"),
    [
        (1001, 0.1, True, 1),
        (1001, 5.0, False, 1),
        (1001, 4.9, False, 4),
        (4409, 9.0, False, 4),
    ],
)
def test_good_connection_sets_the_wait_back(
    code: int, open_s: float, received: bool, expected: float
) -> None:
    """Received anything, or stood for five seconds; a 4409 never counts as good."""
    back_off = BackOff(middle)
    assert [back_off.next_s(), back_off.next_s()] == [1, 2]
    back_off.ended(code, open_s, received)
    assert back_off.next_s() == expected


def test_gives_up_after_eight_conflicts_in_a_row() -> None:
    """Anything else between them starts the count anew."""
    back_off = BackOff(middle)
    for interrupt in (back_off.failed, lambda: back_off.ended(1006, 0.0, False)):
        for _ in range(MAX_CONFLICTS - 1):
            back_off.ended(4409, 0.1, False)
        assert not back_off.gave_up
        interrupt()
    for _ in range(MAX_CONFLICTS):
        assert not back_off.gave_up
        back_off.ended(4409, 0.1, False)
    assert back_off.gave_up
