"""The gunicorn worker: accepts, keeps its heartbeat, drains on SIGTERM.

Differences from gevent-websocket's worker, which it extends:

* the pool bounds requests that are at their head, not WebSockets, which leave it;
* SIGTERM starts the drain at once and is harmless when it comes twice (a platform
  may signal every process, and the master signals its worker as well); SIGQUIT,
  which the master sends on a second signal, ends the drain's waiting; SIGINT,
  SIGHUP, SIGUSR2, SIGTTIN and SIGTTOU are the master's business alone, since a
  terminal or a supervisor sends them to both;
* a master that died is answered by a drain, not by an exit that cuts everybody;
* the listener stays open during the drain, so that probes see ``/readyz`` fail.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool as GreenletPool
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import PyWSGIServer

from relay_app.transport.handler import Handler

_JOB_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)

NOTIFY_S = 1.0
"""How often the master is told that this worker lives."""


class RelayWorker(GeventWebSocketWorker):  # type: ignore[misc]
    """One worker, and the only one. See the module's docstring."""

    # Made when the worker boots; a signal may come before.
    _stopping: Event | None = None

    server_class = PyWSGIServer
    wsgi_handler = Handler

    def init_process(self) -> None:
        """Make the events that signals set, then become a worker."""
        self._stopping = stopping = Event()
        if not self.alive:
            stopping.set()
        super().init_process()

    def init_signals(self) -> None:
        """Take signals as the module's docstring says."""
        super().init_signals()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, *_JOB_SIGNALS):
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> None:
        """Serve until told to stop, drain, and return."""
        relay = self.wsgi.extensions["relay"]
        Handler.handshake_timeout_s = relay.hub.config.handshake_timeout_s
        servers = [self._server(listener) for listener in self.sockets]
        relay.hub.start()
        for server in servers:
            server.start()
        relay.announce([server.address for server in servers])
        while self.alive and self._stopping is not None:
            self.notify()
            self._stopping.wait(NOTIFY_S)
        drain = gevent.spawn(relay.hub.drain)
        while not drain.ready():
            self.notify()
            drain.join(NOTIFY_S)
        for server in servers:
            server.close()

    def _server(self, listener: Any) -> PyWSGIServer:
        listener.setblocking(True)
        return self.server_class(
            listener,
            application=self.wsgi,
            spawn=GreenletPool(self.worker_connections),
            log=None,
            error_log=None,
            handler_class=self.wsgi_handler,
            environ={"wsgi.multithread": True, "wsgi.multiprocess": False},
        )

    def notify(self) -> None:
        """Tell the master that this worker lives; drain if there is no master."""
        Worker.notify(self)
        if self.ppid != os.getppid():
            self._stop()

    def _stop(self) -> None:
        self.alive = False
        if self._stopping is not None:
            self._stopping.set()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take SIGTERM: stop serving, drain. It may come while the worker boots."""
        self._stop()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Take SIGQUIT: stop serving, and do not wait for anybody."""
        self._stop()
        self.wsgi.extensions["relay"].hub.hurry()

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Take SIGABRT: the master gave this worker up because its loop is stuck."""
        sys.exit(1)
