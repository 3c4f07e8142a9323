"""gunicorn's hooks: the guard before the port is bound, and one worker for good.

They run in the master, where the standard library is not patched, so they import
only ``core`` and ``log``. What each hook sees, in gunicorn's order:

* ``nworkers_changed`` with no old value: before the pid file and the port, after
  file, environment and flags are merged. A refusal here ends the start.
* ``on_starting``: replaces what the master does on HUP, and on a second signal.
* ``pre_fork``, ``post_fork``: a worker is about to be made, or has been.
* ``nworkers_changed`` with an old value: TTIN, TTOU or a reload; the count goes
  back to one and nothing else happens.
* ``pre_exec``: USR2, in a forked copy of the master, which is ended.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from relay_app import log
from relay_app.core import events, guard
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import Facts, Level, Verdict


def load_config() -> Config:
    """Read the settings for gunicorn's configuration file.

    Raises:
        SystemExit: 78, with all faults on standard error.
    """
    try:
        config = Config.from_environ(os.environ)
    except ConfigError as fault:
        print(fault, file=sys.stderr, flush=True)
        sys.exit(guard.EXIT_REFUSED)
    log.configure(config.log_format, config.log_level)
    return config


def _judge(server: Any, siblings: tuple[int, ...]) -> Verdict:
    return guard.judge(
        Facts(
            environ=os.environ,
            config=Config.from_environ(os.environ),
            workers=server.cfg.workers,
            workers_from=guard.workers_from(sys.argv[1:], os.environ),
            siblings=siblings,
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
    """Judge the start; later on, keep the count at one.

    Raises:
        SystemExit: 3, before anything is bound.
    """
    if old is None:
        verdict = _judge(server, ())
        if verdict.level is Level.REFUSE:
            _refuse(verdict)
        if server.cfg.preload_app:
            # Imported before the fork, the application would meet the standard
            # library unpatched. With one worker there is nothing to gain by it.
            server.cfg.set("preload_app", False)
            server.log.warning(
                "preload_app is ignored: the relay is loaded in its worker"
            )
    elif new != 1:
        # The setter calls this hook again, so the attribute behind it is set.
        server._num_workers = 1
        log.emit(
            events.InstanceRefused(
                code="SI-105",
                detail=f"asked to change to {new} workers while running; staying at one",
            )
        )


def on_starting(server: Any) -> None:
    """Take over what the master does on HUP and on repeated signals."""
    server.handle_hup = lambda: _refuse_reload(server)
    server.handle_int = lambda: _stop(server)
    server.handle_term = lambda: _stop(server)


def _refuse_reload(server: Any) -> None:
    """Ignore HUP: gunicorn would start a second worker beside the living one."""
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
