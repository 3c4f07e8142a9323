"""Starts what is measured, on a socket bound here, and stops it by its id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from benchmarks import proc

ROOT = Path(__file__).resolve().parent.parent
START_S = 15.0
STOP_S = 10.0

_SETTINGS = {
    "ADMIN_LISTEN": "",
    "CLOSE_TIMEOUT_S": "2",
    "DRAIN_S": "0.5",
    # A ping in the middle of a stream of messages would be one message too many.
    "HEARTBEAT_INTERVAL_S": "3600",
    "GRACE_PERIOD_S": "0",
    "LOG_LEVEL": "warning",
    "MAX_CONNECTIONS": "100000",
    "MAX_PHONES_PER_SERVER": "64",
    "RATE_PER_MINUTE": "0",
}


@dataclass(frozen=True)
class Service:
    """Something that listens on loopback.

    Args:
        port: Of 127.0.0.1.
        pid: The process started here.
        pids: It and its descendants.
    """

    port: int
    pid: int
    pids: Sequence[int]

    @property
    def worker(self) -> int:
        """The process that does the work: the youngest of the tree."""
        return self.pids[-1]


class StartFailed(Exception):
    """A service did not come up; the text has what it said."""


@contextmanager
def relay(core: int | None) -> Iterator[Service]:
    """Run the relay as it is run in earnest: gunicorn with ``gunicorn.conf.py``.

    Args:
        core: Processor to keep it on; ``None`` for any.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        environ = {
            f"PYRYCODE_RELAY_{name}": value
            for name, value in {
                **_SETTINGS,
                "LISTEN": f"fd://{listener.fileno()}",
            }.items()
        }
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
        with _running(command, environ, listener, core, workers=1) as service:
            yield service


@contextmanager
def pump(core: int | None) -> Iterator[Service]:
    """Run the floor, see ``benchmarks.pump``.

    Args:
        core: As for ``relay``.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        command = [sys.executable, "-m", "benchmarks.pump", str(listener.fileno())]
        with _running(command, {}, listener, core, workers=0) as service:
            yield service


@contextmanager
def _running(
    command: list[str],
    environ: dict[str, str],
    listener: socket.socket,
    core: int | None,
    workers: int,
) -> Iterator[Service]:
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG")
        if name in os.environ
    }
    with tempfile.TemporaryFile() as said:
        with kept_on(core):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**kept, **environ},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        port = listener.getsockname()[1]
        listener.close()
        pids = [process.pid]
        try:
            deadline = time.monotonic() + START_S
            while len(pids) <= workers or (workers and not _is_healthy(port)):
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise StartFailed(said.read().decode(errors="replace"))
                time.sleep(0.05)
                pids = proc.tree(process.pid)
            yield Service(port, process.pid, pids)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                for pid in reversed(proc.tree(process.pid)):
                    os.kill(pid, 9)
                process.wait()


@contextmanager
def kept_on(core: int | None) -> Iterator[None]:
    """Keep what is started meanwhile on one processor; affinity is inherited."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
