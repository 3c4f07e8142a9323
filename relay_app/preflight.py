"""Judges an environment as a start in it would: settings, gunicorn's own, guard.

It runs before there is a server, in the process that may become gunicorn's master, so
nothing is patched.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from relay_app import facts, lock, process, report
from relay_app.core import guard, platforms
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import Facts, Level
from relay_app.hooks import WORKER_CLASS
from relay_app.report import Judgement, Remark

if TYPE_CHECKING:
    from gunicorn.app.wsgiapp import WSGIApplication

GUNICORN_CONFIG = "python:relay_app.gunicorn_conf"


def gunicorn() -> WSGIApplication:
    """Make gunicorn's application as if ``gunicorn -c`` with our configuration was typed.

    Returns: With the effective configuration: file, GUNICORN_CMD_ARGS, flags merged.

    Raises:
        ConfigError: gunicorn cannot use a variable of its own. What it would say about
            that has the value in it, so nobody gets to see it.
    """
    try:
        if int(os.environ.get("WEB_CONCURRENCY", "1")) < 0:
            raise ValueError
    except ValueError:
        raise ConfigError(
            ["WEB_CONCURRENCY: must be a whole number, or not set at all"]
        ) from None
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = [sys.argv[0], "-c", GUNICORN_CONFIG]
    quoted = io.StringIO()
    try:
        with contextlib.redirect_stdout(quoted), contextlib.redirect_stderr(quoted):
            application = WSGIApplication(prog="pyrycode-relay serve")
            if application.cfg.worker_class_str != WORKER_CLASS:
                _ = application.cfg.worker_class
    except (SystemExit, Exception):
        raise ConfigError(
            ["GUNICORN_CMD_ARGS: must be flags that gunicorn accepts"]
        ) from None
    try:
        _ = application.cfg.address
    except (RuntimeError, ValueError):
        raise ConfigError(
            ["GUNICORN_CMD_ARGS: --bind must be HOST:PORT, unix:PATH or fd://N"]
        ) from None
    return application


def judge(environ: Mapping[str, str], elsewhere: bool = False) -> Judgement:
    """Judge an environment; the lock is taken for a moment only.

    Args:
        environ: The environment.
        elsewhere: It is not this process's own, so nothing but variables is looked at.
    """
    try:
        config = Config.from_environ(environ)
    except ConfigError as fault:
        return Judgement(environ, faults=fault.faults, elsewhere=elsewhere)
    try:
        with _as_if(environ):
            server = gunicorn().cfg
            workers, addresses = server.workers, server.address
        # What gunicorn's --env says becomes a part of the environment.
        environ = {**environ, **server.env}
        config = Config.from_environ(environ)
    except ConfigError as fault:
        return Judgement(environ, config, faults=fault.faults, elsewhere=elsewhere)
    workers_from = guard.workers_from((), environ, workers)
    remarks = report.about_proxies(config, platforms.detect(environ))
    if elsewhere:
        told = Facts(environ, config, workers, workers_from)
    else:
        remarks += tuple(_about_here(config))
        try:
            told = facts.gather(
                config,
                environ,
                workers=workers,
                workers_from=workers_from,
                addresses=addresses,
                patient=False,
            )
        finally:
            lock.release()
    return Judgement(
        environ, config, guard.judge(told), elsewhere=elsewhere, remarks=remarks
    )


def _about_here(config: Config) -> Iterator[Remark]:
    """Say what else keeps a start from going well in this process's place."""
    as_root = process.root_fault(config)
    for fault in process.start_faults(config):
        yield Remark("user" if fault == as_root else "file", Level.REFUSE, fault)
    if as_root is None and process.is_root():
        yield Remark(
            "user",
            Level.WARN,
            f"the relay {process.AS_ROOT}",
            "run it as a user of its own",
        )


@contextlib.contextmanager
def _as_if(environ: Mapping[str, str]) -> Iterator[None]:
    """Put another environment in place of this process's, and be quiet.

    gunicorn reads the environment at many places, would quote what it was given, and
    goes to a directory that it was told of.
    """
    saved, argv = dict(os.environ), sys.argv
    # What a file says is UTF-8, whatever this process's locale is.
    fitting = {
        name: os.fsdecode(value.encode(errors="surrogateescape"))
        for name, value in environ.items()
    }
    quoted = io.StringIO()
    sys.modules.pop("relay_app.gunicorn_conf", None)  # it keeps what it has read
    try:
        os.environ.clear()
        os.environ.update(fitting)
        with (
            contextlib.redirect_stdout(quoted),
            contextlib.redirect_stderr(quoted),
            contextlib.chdir("."),
        ):
            yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
        sys.argv = argv
