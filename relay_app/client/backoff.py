"""When a binary dials again, and when it stops trying. Pure: no clock, no sleep.

A failed attempt or a lost connection makes the next wait longer, up to 30 s. A
connection that proved good sets the wait back. Only one thing ends the trying:
``MAX_CONFLICTS`` times in a row the relay said that another binary holds the id.

Source: docs/protocol.md "How real peers behave".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay_app.core.close_codes import Close

STEPS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits in seconds, one after the other; the last one repeats."""

JITTER: Final = 0.2
"""Each wait is up to this part shorter or longer, so that not all come back at once."""

MAX_CONFLICTS: Final = 8
"""Closes with 4409 in a row after which a binary gives up."""

GOOD_AFTER_S: Final = 5.0
"""A connection that stood so long proved good, even if nothing came over it."""


class BackOff:
    """The waits of one binary.

    Args:
        random: Gives numbers from 0 up to 1.
        scale: Factor on every wait of ours, for tests; a relay's Retry-After is
            not scaled.
    """

    def __init__(self, random: Callable[[], float], scale: float = 1.0) -> None:
        self._random = random
        self._scale = scale
        self._step = 0
        self._conflicts = 0

    @property
    def gave_up(self) -> bool:
        """Whether the last ``MAX_CONFLICTS`` attempts all ended with 4409."""
        return self._conflicts >= MAX_CONFLICTS

    def failed(self) -> None:
        """Take note of an attempt that did not lead to a connection."""
        self._conflicts = 0

    def ended(self, code: int, open_s: float, received: bool) -> None:
        """Take note of a connection that was open and has ended.

        Args:
            code: Its close code. 4409 never counts as good, however long the
                relay took to find out.
            open_s: Seconds that it stood.
            received: Whether any message came over it.
        """
        if code == Close.SERVER_ID_CLAIMED.code:
            self._conflicts += 1
            return
        self._conflicts = 0
        if received or open_s >= GOOD_AFTER_S:
            self._step = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Give the next wait in seconds, and move on to a longer one.

        Args:
            at_least_s: The relay's Retry-After; 0 for none.
        """
        wait_s = STEPS_S[min(self._step, len(STEPS_S) - 1)] * self._scale
        self._step += 1
        return max(wait_s * (1 + JITTER * (2 * self._random() - 1)), at_least_s)
