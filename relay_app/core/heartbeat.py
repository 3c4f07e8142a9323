"""When to ping a connection and when to give it up, from moments alone.

Every connection is pinged at its own interval, busy or not; each interval is
drawn anew so that ten thousand connections of one second do not stay in step.
Any byte from the peer counts as life. ``waiting_since`` is the moment of the
oldest ping after which nothing has been heard: a later ping does not move it, so
a dead peer is given up one pong wait after the first ping it missed.

Source: docs/protocol.md "Timers".
"""

from __future__ import annotations

import enum

JITTER = 0.1
"""Share by which one interval may be longer or shorter."""


class Beat(enum.Enum):
    """What to do with a connection now."""

    WAIT = "wait"
    PING = "ping"
    GIVE_UP = "give up"


def next_ping_at(now: float, interval_s: float, draw: float) -> float:
    """Choose the moment of the next ping.

    Args:
        now: Monotonic seconds.
        interval_s: The setting, over 0.
        draw: A random number, 0 to 1.
    """
    return now + interval_s * (1 - JITTER + 2 * JITTER * draw)


def still_waiting(heard_at: float, waiting_since: float | None) -> float | None:
    """Drop the wait if anything was heard after it began.

    Returns: ``waiting_since``, or ``None`` when the peer has shown life.
    """
    if waiting_since is not None and heard_at > waiting_since:
        return None
    return waiting_since


def beat(
    now: float, ping_at: float, waiting_since: float | None, pong_wait_s: float
) -> Beat:
    """Decide for one connection.

    Args:
        now: Monotonic seconds.
        ping_at: When the next ping is due.
        waiting_since: As ``still_waiting`` returned it.
        pong_wait_s: Seconds of silence after a ping that end the connection.
    """
    if waiting_since is not None and now >= waiting_since + pong_wait_s:
        return Beat.GIVE_UP
    if now >= ping_at:
        return Beat.PING
    return Beat.WAIT


def look_again_at(
    ping_at: float, waiting_since: float | None, pong_wait_s: float
) -> float:
    """Tell when ``beat`` can next say anything but WAIT."""
    if waiting_since is None:
        return ping_at
    return min(ping_at, waiting_since + pong_wait_s)
