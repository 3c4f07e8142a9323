"""Waiting for a condition, with a deadline. No test sleeps for a fixed time."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

import gevent

UNIT_S = float(os.environ.get("RELAY_TEST_UNIT_S", "1.0"))
"""One time unit. Raise it on a machine that is very slow; nothing else depends on speed."""

POLL_S = 0.005
"""Between two looks at a condition; others run meanwhile."""

DEADLINE_S = 20 * UNIT_S


def wait_until(
    condition: Callable[[], object],
    said: Callable[[], str] = lambda: "condition not met",
    deadline_s: float = DEADLINE_S,
) -> None:
    """Let others run until a condition holds.

    Raises:
        AssertionError: With what ``said`` says, when the deadline has passed.
    """
    ends_at = monotonic() + deadline_s
    while not condition():
        if monotonic() > ends_at:
            raise AssertionError(said())
        gevent.sleep(POLL_S)
