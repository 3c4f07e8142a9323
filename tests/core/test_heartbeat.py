"""Heartbeats, with invented moments."""

from relay_app.core.heartbeat import (
    Beat,
    beat,
    look_again_at,
    next_ping_at,
    still_waiting,
)


def test_next_ping_at_stays_within_ten_percent() -> None:
    """The interval is drawn from 90 % to 110 %."""
    assert next_ping_at(100.0, 30.0, 0.0) == 127.0
    assert next_ping_at(100.0, 30.0, 0.5) == 130.0
    assert round(next_ping_at(100.0, 30.0, 1.0), 9) == 133.0


def test_beat_silent_peer_is_pinged_then_given_up() -> None:
    """Wait, ping, wait, give up one pong wait after the ping."""
    assert beat(10.0, ping_at=30.0, waiting_since=None, pong_wait_s=5.0) is Beat.WAIT
    assert beat(30.0, ping_at=30.0, waiting_since=None, pong_wait_s=5.0) is Beat.PING
    assert beat(34.9, ping_at=60.0, waiting_since=30.0, pong_wait_s=5.0) is Beat.WAIT
    assert beat(35.0, ping_at=60.0, waiting_since=30.0, pong_wait_s=5.0) is Beat.GIVE_UP


def test_beat_second_ping_does_not_move_the_end() -> None:
    """With a wait longer than the interval, a later ping gives no new time."""
    assert beat(60.0, ping_at=60.0, waiting_since=30.0, pong_wait_s=45.0) is Beat.PING
    assert (
        beat(75.0, ping_at=90.0, waiting_since=30.0, pong_wait_s=45.0) is Beat.GIVE_UP
    )


def test_still_waiting_any_later_byte_is_life() -> None:
    """A byte after the ping ends the wait; one before it, or none, does not."""
    assert still_waiting(31.0, 30.0) is None
    assert still_waiting(29.0, 30.0) == 30.0
    assert still_waiting(30.0, 30.0) == 30.0
    assert still_waiting(99.0, None) is None


def test_look_again_at_is_the_earlier_of_both() -> None:
    """Nothing can change before."""
    assert look_again_at(30.0, None, 5.0) == 30.0
    assert look_again_at(60.0, 30.0, 5.0) == 35.0
    assert look_again_at(60.0, 30.0, 50.0) == 60.0
