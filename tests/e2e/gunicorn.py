"""A real gunicorn with the real configuration, on a socket that the test has bound."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.peers import Peer, get
from tests.waiting import DEADLINE_S, UNIT_S, wait_until

ROOT = Path(__file__).parent.parent.parent
PREFIX = "PYRYCODE_RELAY_"

FAST = {
    "GRACE_PERIOD_S": 0.4 * UNIT_S,
    "CONFLICT_PROBE_S": 0.3 * UNIT_S,
    "MESSAGE_TIMEOUT_S": 0.3 * UNIT_S,
    "WRITE_TIMEOUT_S": 0.4 * UNIT_S,
    "CLOSE_TIMEOUT_S": 0.4 * UNIT_S,
    "DRAIN_S": 1.5 * UNIT_S,
}
"""Spans short enough for a test, the heartbeat's left alone."""


def environment(
    settings: dict[str, Any], extra: dict[str, str] | None = None
) -> dict[str, str]:
    """Make the environment of a relay: nothing of ours but what the test sets."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, "GUNICORN", "FLY_", "DYNO", "WEB_CONC"))
        and name != "PORT"
    }
    ours = {PREFIX + "RATE_PER_MINUTE": "0", PREFIX + "ADMIN_LISTEN": ""}
    ours |= {
        PREFIX + name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in settings.items()
    }
    return clean | ours | (extra or {})


class Gunicorn:
    """A relay under gunicorn.

    Args:
        args: More words for gunicorn's command line.
        command: What to run instead of gunicorn with the checkout's configuration.
        extra: More of the environment, names in full.
        measured: What it costs is looked at, so coverage, which keeps data for every
            greenlet that ever was, stays out of it.
        settings: Settings of ours, names without the prefix.
    """

    def __init__(
        self,
        *args: str,
        command: list[str] | None = None,
        extra: dict[str, str] | None = None,
        cwd: Path = ROOT,
        measured: bool = False,
        **settings: Any,
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = f"ws://127.0.0.1:{self.address[1]}"
        self.peers: list[Peer] = []
        fd = self.listener.fileno()
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115
        command = command or [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            "gunicorn.conf.py",
        ]
        environ = environment({"LISTEN": f"fd://{fd}", **settings}, extra)
        if measured:
            for name in [name for name in environ if name.startswith("COVERAGE_")]:
                del environ[name]
        # The relay has a descriptor of its own: two that share a position would
        # overwrite what is being read.
        with open(self._log.name, "ab") as log:
            self.process = self._start([*command, *args], fd, log, environ, cwd)

    @staticmethod
    def _start(
        command: list[str], fd: int, log: IO[bytes], environ: dict[str, str], cwd: Path
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environ,
            cwd=cwd,
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        """Everything that was printed so far."""
        return Path(self._log.name).read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        lines = self.output.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [event for event in self.events if event.get("event") == name]

    def ready(self) -> Gunicorn:
        """Wait until the worker serves, then let go of the listener."""
        wait_until(
            lambda: self.named("server.started") or self.process.poll() is not None,
            lambda: self.output,
        )
        assert self.process.poll() is None, self.output
        self.listener.close()
        assert get(self.address, "/readyz")[0] == 200
        return self

    def workers(self) -> list[int]:
        """Process ids of the master's children."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def rss_kib(self) -> int:
        """Resident memory of the worker."""
        (worker,) = self.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    def health(self) -> dict[str, Any]:
        """What /healthz says."""
        answer: dict[str, Any] = json.loads(get(self.address, "/healthz")[2])
        return answer

    def binary(self, server_id: str = "id") -> Peer:
        """Dial as a binary."""
        return self._dial("server", server_id)

    def phone(self, server_id: str = "id") -> Peer:
        """Dial as a phone."""
        return self._dial("client", server_id)

    def _dial(self, leg: str, server_id: str) -> Peer:
        peer = Peer.dial(self.url, leg, server_id)
        self.peers.append(peer)
        return peer

    def pair(self, server_id: str = "id") -> tuple[Peer, Peer, str]:
        """Dial as both, and learn the phone's conn_id."""
        binary, phone = self.binary(server_id), self.phone(server_id)
        phone.send('"hello"')
        return binary, phone, binary.recv_json()["conn_id"]

    def signal(self, number: int) -> None:
        """Send the master a signal."""
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Wait for the master's end and give its exit code."""
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        """End it, whatever it does."""
        for peer in self.peers:
            peer.drop()
        self.listener.close()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise AssertionError(self.output) from None
        self._log.close()


@contextmanager
def gunicorn(
    *args: str, kind: type[Gunicorn] = Gunicorn, **options: Any
) -> Iterator[Gunicorn]:
    """Run a relay for the length of a block; show what it printed when the block fails."""
    relay = kind(*args, **options)
    try:
        yield relay
    except BaseException:
        print(relay.output, file=sys.stderr)
        raise
    finally:
        relay.stop()
