"""gunicorn's hooks: the guard before the port is bound, and one worker for good.

They run in the master, where the standard library is not patched, so they import
only ``core``, ``log``, and what gathers the guard's facts. What each hook sees, in
gunicorn's order:

* ``nworkers_changed`` with no old value: before the pid file and the port, after
  file, environment and flags are merged. A refusal here ends the start.
* ``on_starting``: pins the count of workers, and replaces what the master does on
  HUP, TTIN, TTOU, WINCH and on a second signal to stop.
* ``post_fork``: a worker has been made.
* ``pre_exec``: USR2, in a forked copy of the master, which is ended.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from relay_app import facts, lock, log, process
from relay_app.core import events, guard
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import Level, Verdict


def load_config() -> Config:
    """Read the settings for gunicorn's configuration file.

    Raises:
        SystemExit: 78, with all faults on standard error.
    """
    config = _config(os.environ)
    log.configure(config.log_format, config.log_level)
    return config


def _config(environ: Mapping[str, str]) -> Config:
    try:
        return Config.from_environ(environ)
    except ConfigError as fault:
        print(fault, file=sys.stderr, flush=True)
        sys.exit(guard.EXIT_REFUSED)


def _judge(server: Any, siblings: tuple[int, ...]) -> Verdict:
    # gunicorn puts what its --env says into the environment only after this.
    environ = {**os.environ, **server.cfg.env}
    return guard.judge(
        facts.gather(
            _config(environ),
            environ,
            workers=server.cfg.workers,
            workers_from=guard.workers_from(
                sys.argv[1:], os.environ, server.cfg.workers
            ),
            siblings=siblings,
            addresses=server.cfg.address,
        )
    )


def _refuse(verdict: Verdict) -> None:
    """End this process, master or worker, with the guard's message.

    Raises:
        SystemExit: 3, on which a gunicorn master stops as well.
    """
    print(verdict.message(), file=sys.stderr, flush=True)
    sys.exit(guard.EXIT_REFUSED_IN_GUNICORN)


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    """Judge the start. Later on the count stays at one, see ``on_starting``.

    Raises:
        SystemExit: Before anything is bound: 3 for the guard's refusal, 78 for what
            this process cannot start with.
    """
    if old is None:
        verdict = _judge(server, ())
        if verdict.level is Level.REFUSE:
            _refuse(verdict)
        faults = process.start_faults(_config({**os.environ, **server.cfg.env}))
        if faults:
            print(ConfigError(faults), file=sys.stderr, flush=True)
            sys.exit(guard.EXIT_REFUSED)
        held = lock.held()
        if held is not None:
            held.introduce()
        _neutralise(server)


WORKER_CLASS = "relay_app.transport.worker.RelayWorker"
"""By name, since the master does not import it before gunicorn does."""

_NEUTRALISED = {
    # Imported before the fork, the application would meet the standard library
    # unpatched. With one worker there is nothing to gain by it.
    "preload_app": "the relay is loaded in its worker",
    "reload": "it would cut every connection when a file changes; restart instead",
    "reuse_port": "two servers on one port would each have a registry",
    "max_requests": "a worker that is replaced would cut every connection",
}
"""Settings of gunicorn that are set back, and why."""


def _neutralise(server: Any) -> None:
    """Set back what is of no use here and could do harm; say so, once for each."""
    for name, why in _NEUTRALISED.items():
        if getattr(server.cfg, name):
            server.cfg.set(name, server.cfg.settings[name].default)
            server.log.warning("%s is ignored: %s", name, why)
    if "RelayWorker" not in (base.__name__ for base in server.worker_class.__mro__):
        server.cfg.set("worker_class", WORKER_CLASS)
        server.worker_class = server.cfg.worker_class
        server.log.warning(
            "worker_class is ignored: only the relay's own worker takes WebSockets"
        )


def on_starting(server: Any) -> None:
    """Pin the count, and take over what the master does on some signals."""
    server.__class__ = _with_one_worker(type(server))
    server.handle_hup = lambda: _refuse_reload(server)
    server.handle_ttin = server.handle_ttou = _refuse_another_count
    server.handle_winch = lambda: None  # a daemon would stop its worker
    server.handle_int = lambda: _stop(server)
    server.handle_term = lambda: _stop(server)


def _with_one_worker(arbiter: type) -> type:
    """Make a class of the master's in which the count of workers cannot be changed.

    The control socket changes it from a thread of its own, so putting it back would
    leave a moment in which the master may act on it.
    """
    one = property(lambda server: 1, lambda server, value: _refuse_another_count())
    return type(arbiter.__name__, (arbiter,), {"num_workers": one})


def _refuse_another_count() -> None:
    log.emit(
        events.InstanceRefused(
            code="SI-105",
            detail="asked for another number of workers while running; staying at one",
        )
    )


def _refuse_reload(server: Any) -> None:
    """Answer HUP: gunicorn would start a second worker beside the living one.

    Where there is a file of allowed server-ids, the worker is told to read it again.
    Without one nothing can be read again, and that is said.
    """
    if _config({**os.environ, **server.cfg.env}).server_ids_file is not None:
        for pid in list(server.WORKERS):
            os.kill(pid, signal.SIGHUP)
        return
    log.emit(
        events.InstanceRefused(
            code="SI-106",
            detail="reload (HUP) ignored: it would run two workers at once; restart instead",
        )
    )


def _stop(server: Any) -> None:
    """Stop with a drain, on SIGINT as on SIGTERM; a second one of either hurries.

    While it waits for the worker, the master looks only for a quit, so a second
    signal is put into its queue as one.
    """

    def hurry(sig: int, frame: Any) -> None:
        server.SIG_QUEUE.put_nowait(signal.SIGQUIT)

    signal.signal(signal.SIGINT, hurry)
    signal.signal(signal.SIGTERM, hurry)
    raise StopIteration


def post_fork(server: Any, worker: Any) -> None:
    """Judge again in the new worker, which sees its living siblings.

    A SIGTERM that comes while the worker boots would be taken by the handler it
    has from the master, and be lost: the master would wait for its whole time
    limit. So the worker's own is set first.

    Raises:
        SystemExit: 3, before anything is served.
    """
    signal.signal(signal.SIGTERM, worker.handle_exit)
    signal.signal(signal.SIGQUIT, worker.handle_quit)
    verdict = _judge(server, tuple(sorted(server.WORKERS)))
    if verdict.level is Level.REFUSE:
        _refuse(verdict)


def pre_exec(server: Any) -> None:
    """End the forked copy that USR2 asked for; the running master serves on."""
    log.emit(
        events.InstanceRefused(
            code="SI-106",
            detail="binary upgrade (USR2) refused: it would run two relays at once; restart instead",
        )
    )
    os._exit(guard.EXIT_REFUSED)
