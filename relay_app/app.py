"""The Flask application of one relay: settings, hub, routes.

There is no module-level application: gunicorn calls ``create_app`` in the worker,
after the fork and after the standard library is patched.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

from flask import Flask

from relay_app import log
from relay_app.banner import banner
from relay_app.core import events, guard
from relay_app.core.config import Config
from relay_app.core.errors import InstanceRefused
from relay_app.core.guard import Facts, Level
from relay_app.process import raise_file_limit
from relay_app.transport.hub import Hub
from relay_app.version import version
from relay_app.web.routes import blueprint

GC_THRESHOLDS = (50_000, 20, 100)
"""A full collection stops the loop for 10 µs per connection, so it has to be rare;
what the frame path makes is freed by its reference counts."""


class Relay:
    """What hangs on the application: the hub, and how it presents itself.

    Args:
        config: The settings as they were asked for.
        hub: With the settings as this process can keep them.
    """

    def __init__(self, config: Config, hub: Hub) -> None:
        self.config = config
        self.hub = hub

    def announce(self, addresses: Sequence[Any]) -> None:
        """Say that the relay is ready, in the log, and to a person who looks on.

        Args:
            addresses: What the listeners are bound to.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        listen = [_address(address) for address in addresses]
        for sentence in self.config.unknown:
            log.emit(events.SettingUnknown(detail=sentence))
        allowed = self.hub.config.max_connections
        if allowed < self.config.max_connections:
            log.emit(events.SettingReduced(max_connections=allowed))
        for finding in self.hub.verdict.findings:
            kind = (
                events.GuardFinding
                if finding.level is Level.FINE
                else events.GuardWarning
            )
            log.emit(
                kind(code=finding.code, verdict=finding.level.name, detail=finding.seen)
            )
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
        if self.config.log_format == "text" or sys.stderr.isatty():
            print(
                banner(self.hub.config, self.hub, listen), file=sys.stderr, flush=True
            )


def _address(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def create_app(config: Config | None = None) -> Flask:
    """Make the application.

    Args:
        config: The settings; ``None`` reads them from the environment.

    Raises:
        ConfigError: A setting cannot be used.
        InstanceRefused: The guard says no; inside gunicorn the start ends with 3.
    """
    if config is None:
        config = Config.from_environ(os.environ)
    log.configure(config.log_format, config.log_level)
    verdict = guard.judge(Facts(environ=os.environ, config=config, workers=1))
    if verdict.level is Level.REFUSE:
        raise InstanceRefused(verdict.message(), verdict.codes)
    fitted, _ = config.within_file_limit(raise_file_limit())
    app = Flask("relay_app", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the contract has an order
    app.extensions["relay"] = Relay(config, Hub(fitted, verdict, version()))
    app.register_blueprint(blueprint)
    return app
