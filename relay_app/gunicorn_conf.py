"""gunicorn's configuration, whole: ``gunicorn -c python:relay_app.gunicorn_conf``.

It is a module of the package so that an installed relay has it as well; the
``gunicorn.conf.py`` of a checkout takes all of it from here. Every public name is
a setting of gunicorn.
"""

from __future__ import annotations

import math as _math

from relay_app.hooks import load_config as _load_config
from relay_app.hooks import nworkers_changed, on_starting, post_fork, pre_exec
from relay_app.process import raise_file_limit as _raise_file_limit

_config, _heads = _load_config().within_file_limit(_raise_file_limit())

wsgi_app = "relay_app.app:create_app()"
bind = [str(_config.listen)]

# One worker: the registry is in its memory. The hooks refuse any other number.
workers = 1
worker_class = "relay_app.transport.worker.RelayWorker"
threads = 1
preload_app = False
reuse_port = False
control_socket_disable = True

# Requests that are at their head; WebSockets leave this pool.
worker_connections = _heads

# Seconds without a sign of life after which the worker counts as stuck. It gives
# one every second whatever the WebSockets do, so this cuts none of them.
timeout = 30
# The master kills at exactly this age, so it lies well behind the drain.
graceful_timeout = _math.ceil(_config.drain_s) + 15

# The relay writes its own events; gunicorn speaks up only when something is wrong.
loglevel = "warning"
accesslog = None
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"relay": {"()": "relay_app.log.Formatter"}},
    "filters": {"relay": {"()": "relay_app.log.Filter"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "relay",
            "filters": ["relay"],
            "stream": "ext://sys.stderr",
        }
    },
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {
            "level": "WARNING",
            "handlers": ["stderr"],
            "propagate": False,
        }
    },
}

__all__ = [
    "accesslog",
    "bind",
    "control_socket_disable",
    "graceful_timeout",
    "logconfig_dict",
    "loglevel",
    "nworkers_changed",
    "on_starting",
    "post_fork",
    "pre_exec",
    "preload_app",
    "reuse_port",
    "threads",
    "timeout",
    "worker_class",
    "worker_connections",
    "workers",
    "wsgi_app",
]
