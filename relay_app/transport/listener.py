"""Accepts connections: bounded, and patient when descriptors run out.

gevent's server stops to accept while its pool is full, so a stranger who opens
connections and says nothing would keep everybody out until those run into their
deadline. Here the oldest request head is given up instead, before the pool is full.

When the process or the machine has no descriptor left, gevent's server would print a
traceback for every attempt. Here one event says so, and accepting pauses: what is
connected goes on, and who dials waits in the backlog.
"""

from __future__ import annotations

import errno
from typing import Any

from gevent.pool import Pool as GreenletPool
from gunicorn.workers.ggevent import PyWSGIServer

from relay_app import log
from relay_app.core import events
from relay_app.core.policy import Heads

ACCEPT_PAUSE_S = 0.5
"""How long to wait after an accept that failed, before the next one."""

HEADS_PER_SOURCE = 8
"""One source may have one in so many of all places for request heads."""


class Listener(PyWSGIServer):  # type: ignore[misc]
    """One listening socket of the worker.

    ``heads`` are the requests that are being read; handlers enter and leave it.
    """

    # Accepted in one turn of the loop. gevent's 100 lets as many heads be served before
    # any frame moves: round trips under a flood of requests were five times as long.
    max_accept = 8

    def __init__(self, listener: Any, max_heads: int, **options: Any) -> None:
        super().__init__(listener, spawn=GreenletPool(max_heads), **options)
        # The pool has some places more, for what is accepted while one is given up.
        usable = max(max_heads - max_heads // 8, 1)
        self.heads: Heads[Any] = Heads(usable, max(max_heads // HEADS_PER_SOURCE, 1))
        self._pause: Any = None

    def do_read(self) -> Any:
        """Accept one connection.

        Returns: Socket and address; ``None`` when there is none, or none can be had.
        """
        try:
            return super().do_read()
        except OSError as fault:
            if fault.errno in self.fatal_errors:
                raise
            if fault.errno != errno.ECONNABORTED:
                self._pause_accepting(fault)
            return None

    def _pause_accepting(self, fault: OSError) -> None:
        reason = errno.errorcode.get(fault.errno or 0, "unknown")
        log.emit(events.AcceptPaused(reason=reason))
        self.stop_accepting()
        if self._pause is None:
            self._pause = self.loop.timer(ACCEPT_PAUSE_S)
        self._pause.start(self._go_on)

    def _go_on(self) -> None:
        if self.started:
            self.start_accepting()

    def close(self) -> None:
        """Close the listening socket; what was accepted goes on."""
        if getattr(self, "_pause", None) is not None:
            self._pause.stop()
            self._pause.close()
            self._pause = None
        super().close()
