"""The relay's application with one more route, which shows what the process holds."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any

from flask import Flask
from gevent.hub import Hub
from gevent.threadpool import _WorkerGreenlet
from greenlet import greenlet

from relay_app.app import create_app as create_relay


def _is_ours(thing: object) -> bool:
    """Tell whether it is a greenlet that lives and not one of gevent's loops and threads."""
    # By type, since a weak proxy whose object has gone has nothing else.
    if not issubclass(type(thing), greenlet) or isinstance(
        thing, (Hub, _WorkerGreenlet)
    ):
        return False
    return bool(thing) and thing.parent is not None


def figures(relay: Any) -> dict[str, int]:
    """Count what has to be given back, from inside the worker."""
    hub = relay.hub
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return {
        "greenlets": sum(map(_is_ours, gc.get_objects())),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "server_ids": len(hub.registry),
        "phones": hub.registry.phones,
        "connections": len(hub.pool.connections),
        "places": hub.gate.taken,
        "sources": hub.gate.sources,
        "buckets": len(hub.limiter),
        "queued_bytes": hub.pool.budget.used_bytes,
        "unfinished_bytes": hub.pool.unfinished_bytes,
        "rss_kib": int(resident[1]) if resident else 0,
    }


def create_app() -> Flask:
    """Make the application for gunicorn."""
    app = create_relay()
    relay = app.extensions["relay"]
    app.add_url_rule("/_figures", "figures", lambda: figures(relay))
    return app
