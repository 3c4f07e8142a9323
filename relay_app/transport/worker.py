"""The gunicorn worker: accepts, keeps its heartbeat, drains on SIGTERM.

Differences from gevent-websocket's worker, which it extends:

* the pool bounds requests that are at their head, not WebSockets, which leave it;
* SIGTERM starts the drain at once and is harmless when it comes twice (a platform
  may signal every process, and the master signals its worker as well); SIGQUIT,
  which the master sends on a second signal, ends the drain's waiting; SIGINT,
  SIGUSR2, SIGTTIN and SIGTTOU are the master's business alone, since a terminal or a
  supervisor sends them to both; SIGHUP lets the allowed server-ids be read again;
* a master that died is answered by a short drain, not by an exit that cuts everybody;
* the listener stays open during the drain, so that probes see ``/readyz`` fail;
* it refuses to run beside another worker, whichever server or configuration made it,
  and looks after the lock of this relay;
* a gunicorn that was not given our configuration gets those of our hooks that are
  still of use when it has started.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import gevent
from gevent.event import Event
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.workers.base import Worker

from relay_app import lock, log
from relay_app.core import events, guard
from relay_app.core.errors import InstanceRefused
from relay_app.core.guard import Facts
from relay_app.transport.handler import Handler
from relay_app.transport.listener import Listener

_JOB_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)

NOTIFY_S = 1.0
"""How often the master is told that this worker lives; oftener if its limit is short."""

ORPHAN_DRAIN_S = 2.0
"""How long a worker whose master was killed may drain: whoever restarts the relay waits
for it, see ``lock.ORPHAN_RETRY_S``."""

LOOK_S = 5.0
"""How often to look whether the lock is still there."""

HOOKS = "relay_app.hooks"
LOOKS = {
    lock.Look.TAKEN_AGAIN: "SI-102",
    lock.Look.LOST: "SI-102",
    lock.Look.UNUSABLE: "SI-601",
}
"""The guard's code for what a look may show."""


def _hook_in(cfg: Any) -> None:
    """Give a gunicorn without our configuration the hooks that are still of use.

    By name, since they are in a layer above. What it would have done when it is ready
    it does after ours; what it would have done on USR2 has no place any more.
    """
    theirs = cfg.when_ready
    cfg.set("when_ready", f"{HOOKS}.on_starting")
    ours = cfg.when_ready

    def when_ready(server: Any) -> None:
        ours(server)
        theirs(server)

    cfg.set("when_ready", when_ready)
    cfg.set("pre_exec", f"{HOOKS}.pre_exec")


class RelayWorker(GeventWebSocketWorker):  # type: ignore[misc]
    """One worker, and the only one. See the module's docstring."""

    # Made when the worker boots; a signal may come before.
    wsgi: Any = None
    _stopping: Event | None = None
    _reread: Event | None = None
    _orphaned = False

    server_class = Listener
    wsgi_handler = Handler

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse any other count than one, in the master, once for all workers.

        gunicorn calls it before the first fork. Two workers that refused one after the
        other would make its master fall over the second one.

        Raises:
            SystemExit: 3, before anything is served.
        """
        if cfg.on_starting.__module__ != HOOKS:
            _hook_in(cfg)
            if cfg.reload:
                cfg.set("reload", False)
                log.warning("reload is ignored: it would cut every connection")
        origin = guard.workers_from(sys.argv[1:], os.environ, cfg.workers)
        verdict = guard.judge(Facts(workers=cfg.workers, workers_from=origin))
        if verdict.refused:
            print(verdict.message(), file=sys.stderr, flush=True)
            sys.exit(guard.EXIT_REFUSED_IN_GUNICORN)

    def init_process(self) -> None:
        """Make the events that signals set, then become a worker."""
        self._reread = Event()
        self._stopping = stopping = Event()
        if not self.alive:
            stopping.set()
        super().init_process()

    def init_signals(self) -> None:
        """Take signals as the module's docstring says."""
        super().init_signals()
        for number in (signal.SIGINT, signal.SIGUSR2, *_JOB_SIGNALS):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, self.handle_hup)

    def run(self) -> None:
        """Serve until told to stop, drain, and return.

        Raises:
            SystemExit: 3, before anything is served: this is not the only worker.
        """
        relay = self.wsgi.extensions["relay"]
        try:
            relay.claim(self.cfg.workers)
        except InstanceRefused as fault:
            print(fault, file=sys.stderr, flush=True)
            sys.exit(guard.EXIT_REFUSED_IN_GUNICORN)
        gevent.get_hub().print_exception = log.unplanned
        Handler.handshake_timeout_s = relay.hub.config.handshake_timeout_s
        servers = [self._server(listener) for listener in self.sockets]
        relay.hub.start()
        for server in servers:
            server.start()
        relay.announce([server.address for server in servers])
        beside = [
            gevent.spawn(self._look_after_lock),
            gevent.spawn(self._read_allowlist_on_hup, relay),
        ]
        # gunicorn gives half of its time limit here, and 0 where there is none.
        notify_s = min(NOTIFY_S, self.timeout or NOTIFY_S)
        while self.alive and self._stopping is not None:
            self.notify()
            self._stopping.wait(notify_s)
        drain = gevent.spawn(
            relay.hub.drain, ORPHAN_DRAIN_S if self._orphaned else None
        )
        while not drain.ready():
            self.notify()
            drain.join(notify_s)
        gevent.killall(beside)
        for server in servers:
            server.close()

    def _look_after_lock(self) -> None:
        """Take the lock again when it was deleted; drain if another relay has it."""
        held = lock.held()
        before = lock.Look.INTACT
        while held is not None:
            try:
                # A file system that hangs must not hold up the loop.
                seen = gevent.get_hub().threadpool.apply(held.look)
            except Exception as exc:
                log.error("lock", exc)
                seen = before
            lasts = seen is before is lock.Look.UNUSABLE
            if seen is not lock.Look.INTACT and not lasts:
                log.emit(events.LockDeleted(code=LOOKS[seen], detail=seen.value))
            before = seen
            if seen is lock.Look.LOST:
                self._stop()
                return
            gevent.sleep(LOOK_S)

    def _read_allowlist_on_hup(self, relay: Any) -> None:
        reread = self._reread
        while reread is not None:
            reread.wait()
            reread.clear()
            try:
                gevent.get_hub().threadpool.apply(relay.read_allowlist)
            except Exception as exc:
                log.error("allowlist", exc)

    def _server(self, listener: Any) -> Listener:
        listener.setblocking(True)
        return self.server_class(
            listener,
            application=self.wsgi,
            max_heads=self.worker_connections,
            log=None,
            error_log=None,
            handler_class=self.wsgi_handler,
            environ={"wsgi.multithread": True, "wsgi.multiprocess": False},
        )

    def notify(self) -> None:
        """Tell the master that this worker lives; drain if there is no master."""
        Worker.notify(self)
        if self.ppid != os.getppid():
            self._orphaned = True
            self._stop()

    def _stop(self) -> None:
        self.alive = False
        if self._stopping is not None:
            self._stopping.set()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take SIGTERM: stop serving, drain. It may come while the worker boots."""
        self._stop()

    def handle_hup(self, sig: int, frame: Any) -> None:
        """Take SIGHUP: read the allowed server-ids again. Harmless without such a file."""
        if self._reread is not None:
            self._reread.set()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Take SIGQUIT: stop serving, and do not wait for anybody."""
        self._stop()
        if self.wsgi is not None:  # else it boots, and has nobody to wait for
            self.wsgi.extensions["relay"].hub.hurry()

    def handle_abort(self, sig: int, frame: Any) -> None:
        """Take SIGABRT: the master gave this worker up because its loop is stuck."""
        sys.exit(1)
