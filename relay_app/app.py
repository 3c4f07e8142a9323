"""The Flask application of one relay: settings, hub, routes.

There is no module-level application: gunicorn calls ``create_app`` in the worker,
after the fork and after the standard library is patched.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response

from relay_app import facts, lock, log
from relay_app.banner import banner
from relay_app.core import events, guard, platforms
from relay_app.core.allowlist import AllowlistFault
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError, InstanceRefused
from relay_app.core.guard import Facts, Level, LockState
from relay_app.process import (
    AS_ROOT,
    is_root,
    raise_file_limit,
    read_allowlist,
    start_faults,
)
from relay_app.transport.hub import Hub
from relay_app.version import version
from relay_app.web.routes import blueprint

GC_THRESHOLDS = (50_000, 20, 100)
"""A full collection stops the loop for 10 µs per connection, so it has to be rare;
what the frame path makes is freed by its reference counts."""


class Relay:
    """What hangs on the application: the hub, its right to serve, how it presents itself.

    Args:
        config: The settings as they were asked for.
        hub: With the settings as this process can keep them.
    """

    def __init__(self, config: Config, hub: Hub) -> None:
        self.config = config
        self.hub = hub
        self._served_by = 0
        self._refused_in = 0

    def claim(self, workers: int | None = None) -> None:
        """Make sure that this process, and no other one, serves with this registry.

        Args:
            workers: The server's own count, where it is known.

        Raises:
            InstanceRefused: Another process serves, or is going to.
        """
        held = lock.held()
        siblings: tuple[int, ...] = ()
        if held is not None:
            # Who was refused before does not hold up a request again.
            waits = self._refused_in != os.getpid()
            report = held.claim(lock.RETRY_S if waits else 0.0)
            if report.state is LockState.THEIRS:
                pid = report.holder.pid if report.holder else None
                siblings = (pid or 0,)
        serves = platforms.not_serving(os.environ) is None
        verdict = guard.judge(
            Facts(
                workers=workers,
                workers_from="the server's own configuration",
                siblings=siblings,
                serving=serves,
            )
        )
        if verdict.refused:
            raise InstanceRefused(verdict.message(), verdict.codes)
        self._served_by = os.getpid()

    def read_allowlist(self) -> None:
        """Read the file of allowed server-ids again; keep the old list if it is broken.

        Who is connected stays connected. Waits for the disk: not for the event loop.
        """
        path = self.config.server_ids_file
        if path is None:
            return
        try:
            allowed = read_allowlist(path)
        except AllowlistFault as fault:
            log.emit(events.AllowlistKept(detail=fault.fault))
            return
        self.hub.allowed = allowed
        log.emit(events.AllowlistRead(allowed=len(allowed)))

    def only_here(self) -> Response | None:
        """Answer 503 instead of a view's answer in a process that may not serve.

        The relay's own worker has made its claim before it listens. A server that loads
        the application first and forks then has several processes with a registry each.
        """
        if self._served_by == os.getpid():
            return None
        try:
            self.claim()
        except InstanceRefused as fault:
            if self._refused_in != os.getpid():
                self._refused_in = os.getpid()
                seen = fault.message.splitlines()[1]
                log.emit(events.InstanceRefused(fault.codes[0], seen))
            return Response(
                "another process of this server has the registry; run one worker\n",
                503,
                content_type="text/plain; charset=utf-8",
            )
        self._say_findings()
        return None

    def _say_findings(self) -> None:
        for sentence in self.config.unknown:
            log.emit(events.SettingUnknown(detail=sentence))
        here = platforms.detect(os.environ)
        if here is not None:
            log.emit(
                events.InstancePlatform(
                    platform=here.name,
                    instance=_plain(here.instance),
                    revision=_plain(here.revision),
                )
            )
        for finding in self.hub.verdict.findings:
            kind = (
                events.GuardFinding
                if finding.level is Level.FINE
                else events.GuardWarning
            )
            log.emit(
                kind(code=finding.code, verdict=finding.level.name, detail=finding.seen)
            )

    def announce(self, addresses: Sequence[Any]) -> None:
        """Say that the relay is ready, in the log, and to a person who looks on.

        Args:
            addresses: What the listeners are bound to.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        listen = [_address(address) for address in addresses]
        self._say_findings()
        if is_root():
            log.emit(events.RunsAsRoot(detail=AS_ROOT))
        allowed = self.hub.config.max_connections
        if allowed < self.config.max_connections:
            log.emit(events.SettingReduced(max_connections=allowed))
        log.emit(
            events.ServerStarted(
                listen=", ".join(listen),
                version=self.hub.version,
                instance_id=self.hub.instance_id,
                guard=self.hub.verdict.level.name,
                max_connections=allowed,
                max_frame_bytes=self.config.max_frame_bytes,
            )
        )
        if sys.stderr is not None and (
            self.config.log_format == "text" or sys.stderr.isatty()
        ):
            print(
                banner(self.hub.config, self.hub, listen), file=sys.stderr, flush=True
            )


def _address(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _plain(variable: str) -> str | None:
    """Give what a platform calls something, if it looks like a name."""
    value = os.environ.get(variable, "") if variable else ""
    name = value.rpartition("/")[2]  # some give a path, or a URL that ends in it
    return name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) else None


def create_app(config: Config | None = None) -> Flask:
    """Make the application.

    Args:
        config: The settings; ``None``, for a server that calls this, reads them from
            the environment.

    Raises:
        ConfigError: A setting cannot be used.
        InstanceRefused: The guard says no.
        SystemExit: Either of them for a server: 3 in gunicorn, which stops on it, else
            78. The message is on standard error.
    """
    if config is not None:
        return _make(config)
    try:
        return _make(Config.from_environ(os.environ))
    except (ConfigError, InstanceRefused) as fault:
        print(fault, file=sys.stderr, flush=True)
        in_gunicorn = "gunicorn.arbiter" in sys.modules
        sys.exit(guard.EXIT_REFUSED_IN_GUNICORN if in_gunicorn else guard.EXIT_REFUSED)


def _make(config: Config) -> Flask:
    log.configure(config.log_format, config.log_level)
    verdict = guard.judge(facts.gather(config, os.environ, workers=1))
    if verdict.level is Level.REFUSE:
        raise InstanceRefused(verdict.message(), verdict.codes)
    faults = start_faults(config)
    if faults:
        raise ConfigError(faults)
    fitted, _ = config.within_file_limit(raise_file_limit())
    app = Flask("relay_app", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the contract has an order
    relay = Relay(config, Hub(fitted, verdict, version()))
    app.extensions["relay"] = relay
    if config.server_ids_file is not None:
        relay.hub.allowed = read_allowlist(config.server_ids_file)
    app.before_request(relay.only_here)
    app.register_blueprint(blueprint)
    return app
