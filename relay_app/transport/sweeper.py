"""One greenlet for all heartbeats, deadlines, grace periods and probes.

A greenlet or a timer for each connection would cost seven times the memory or
thirty times the processor time. The sweep looks at each connection's ``due_at``
only, which is a comparison for all but a few.

When the sweep itself comes late (the process was stopped, or the machine slept)
nothing is judged in that one round: what the peers have sent meanwhile still waits in
the kernel, and the readers have to see it first.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from relay_app import log
from relay_app.core.config import Config
from relay_app.transport.connection import Pool

MAX_PERIOD_S = 1.0
MIN_PERIOD_S = 0.02
LATE_S = 1.0
"""A sweep that comes this much after its time judges nobody."""


def period_s(config: Config) -> float:
    """Choose how often to look: five times within the shortest span, at most once a second."""
    spans = (
        config.grace_period_s,
        config.conflict_probe_s,
        config.heartbeat_interval_s,
        config.heartbeat_timeout_s,
        config.message_timeout_s,
        config.write_timeout_s,
        config.close_timeout_s,
    )
    shortest = min(span for span in spans if span > 0)
    return max(MIN_PERIOD_S, min(MAX_PERIOD_S, shortest / 5))


class Sweeper:
    """Calls ``Connection.check`` and the registry's tick when their time has come.

    Args:
        pool: The connections.
        tick: Lets time pass for everything else; gets monotonic seconds.
    """

    def __init__(self, pool: Pool, tick: Callable[[float], None]) -> None:
        self._pool = pool
        self._tick = tick
        self._period_s = period_s(pool.config)
        self._greenlet: Any = None

    def start(self) -> None:
        """Start sweeping."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop sweeping."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def _run(self) -> None:
        skipped = False
        while True:
            expected = monotonic() + self._period_s
            gevent.sleep(self._period_s)
            now = monotonic()
            # Never twice running: a loop that is always late still has deadlines.
            skipped = now - expected >= LATE_S and not skipped
            if not skipped:
                self.sweep(now)

    def sweep(self, now: float) -> None:
        """Look at everything once.

        Args:
            now: Monotonic seconds.
        """
        for connection in list(self._pool.connections):
            if connection.due_at <= now:
                try:
                    connection.check(now)
                except Exception as exc:
                    log.error("sweep", exc)
                    connection.cut()
        try:
            self._tick(now)
        except Exception as exc:
            log.error("tick", exc)
