"""Servers that know nothing of our configuration: at most one process serves, and loudly.

Each is the real program. What is answered with 200 comes from one process; a start that
cannot be has a code of the guard, a code to exit with that says more than 1, and no
traceback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.gunicorn import Gunicorn, environment, gunicorn
from tests.peers import ask
from tests.servers import program
from tests.waiting import DEADLINE_S, wait_until

APP = "relay_app.app:create_app()"
RELAY_WORKER = ["-k", "relay_app.transport.worker.RelayWorker"]
FIRST_LINE = "ERROR: multi-instance deploy detected, relay registry is in-memory"
SCREEN = 24
"""Lines of a terminal."""

GUNICORN = [sys.executable, "-m", "gunicorn", "--no-control-socket"]
FORKS = [
    pytest.param(
        "gunicorn",
        [
            *GUNICORN,
            *("-b", "fd://{fd}", "-w", "2", "--preload"),
            *("--access-logfile", "-", "--access-logformat", "[pid: %(p)s] %(s)s"),
            APP,
        ],
        id="gunicorn-preload",
    ),
    *(
        pytest.param(
            "uwsgi",
            [
                *("uwsgi", "--http-socket", "fd://{fd}", "--module", APP),
                *("--need-app", "--die-on-term", "--processes", "2", *args),
            ],
            id=" ".join(["uwsgi", *args]),
        )
        for args in ([], ["--master"], ["--master", "--lazy-apps"])
    ),
]
"""Servers that fork twice: what it takes, and the command."""

SINGLE = {
    "flask": lambda port: ["--app", APP, "run", "-p", str(port)],
    "waitress-serve": lambda port: [
        *("--listen", f"127.0.0.1:{port}", "--call", "relay_app.app:create_app")
    ],
}
"""Servers of one process, by their program's name."""


def installed(name: str) -> str:
    """Find a program that is beside this Python, or else anywhere."""
    beside = shutil.which(name, path=os.path.dirname(sys.executable))
    return beside or program(name)


def health(address: tuple[str, int]) -> tuple[int, bytes]:
    """Ask for /healthz on a connection of its own, whichever server it is.

    Returns: The status and the body.
    """
    status, _, body = ask(address, b"GET /healthz HTTP/1.0\r\n\r\n")
    return status, body


class Foreign(Gunicorn):
    """A server that the test has a socket for; ``{fd}`` in its words stands for that."""

    @staticmethod
    def _start(
        command: list[str], fd: int, log: IO[bytes], environ: dict[str, str], cwd: Path
    ) -> subprocess.Popen[bytes]:
        words = [word.replace("{fd}", str(fd)) for word in command]
        return Gunicorn._start(words, fd, log, environ, cwd)

    def stop(self) -> None:
        """End it and all that it has started."""
        super().stop()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def foreign(
    command: list[str], cwd: Path, **options: Any
) -> AbstractContextManager[Gunicorn]:
    """Run a server for the length of a block, where our configuration is not found."""
    return gunicorn(kind=Foreign, command=command, cwd=cwd, **options)


def assert_refused(output: str, code: str) -> None:
    """Look whether somebody who knows nothing of this would know what to do."""
    lines = output.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(FIRST_LINE))
    assert f"[{code}]" in lines[at + 1]
    assert lines[at + 2].startswith("What breaks: ")
    assert lines[at + 3].startswith("Fix: ")
    assert len(lines) <= SCREEN
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["-w", "2"], "SI-102"),
        (["-w", "2", *RELAY_WORKER], "SI-101"),
        (["-w", "3", "--preload", *RELAY_WORKER], "SI-101"),
        (RELAY_WORKER, "SI-101"),
    ],
)
def test_gunicorn_with_more_workers_ends(
    args: list[str], code: str, tmp_path: Path
) -> None:
    """With our worker before there is any; with its own when the second one starts."""
    extra = {} if "-w" in args else {"WEB_CONCURRENCY": "2"}
    command = [*GUNICORN, "-b", "fd://{fd}", *args, APP]
    with foreign(command, tmp_path, extra=extra) as server:
        assert server.wait() == 3
        assert_refused(server.output, code)
        assert ("by WEB_CONCURRENCY or" in server.output) == bool(extra)
        assert "server.started" not in server.output


@pytest.mark.parametrize(("name", "command"), FORKS)
def test_one_of_two_processes_serves(
    name: str, command: list[str], tmp_path: Path
) -> None:
    """The other one answers 503, or does not come up; one of them has said why."""
    if name == command[0]:
        command = [installed(name), *command[1:]]
    with foreign(command, tmp_path, measured=True) as server:
        lazy = "--lazy-apps" in command
        said = "[SI-102]" if lazy else "instance.refused"
        served: list[str] = []

        def both_seen() -> bool:
            status, body = health(server.address)
            if status == 200:
                served.append(json.loads(body)["instance_id"])
            else:
                assert status == 503
                assert b"run one worker" in body
            return len(served) >= 5 and said in server.output

        wait_until(both_seen, lambda: server.output)
        assert len(set(served)) == 1
        lines = server.output.splitlines()
        pids = {
            re.findall(r"\[pid: <?(\d+)", line)[0]
            for line in lines
            if line.startswith("[pid: ") and re.search(r"(/1\.0|\]) 200\b", line)
        }
        assert len(pids) == 1
        if not lazy:
            refused = server.named("instance.refused")
            assert {event["code"] for event in refused} == {"SI-104"}
            assert {event["level"] for event in refused} == {"error"}
            assert f"(pid {pids.pop()})" in refused[0]["detail"]
        assert "Traceback" not in server.output


def test_gunicorn_with_one_worker_serves_until_a_second_is_asked_for(
    tmp_path: Path,
) -> None:
    """gunicorn's own worker cannot carry a WebSocket, so nobody is cut when it ends."""
    command = [*GUNICORN, "-b", "fd://{fd}", "-w", "1", APP]
    with foreign(command, tmp_path, measured=True) as server:
        assert health(server.address)[0] == 200
        server.signal(signal.SIGTTIN)
        assert server.wait() == 3
        assert_refused(server.output, "SI-102")


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_gunicorn_with_our_worker_has_our_hooks(
    preload: list[str], tmp_path: Path
) -> None:
    """What would start a second worker does nothing; the connection stays."""
    conf = tmp_path / "theirs.py"
    conf.write_text("def when_ready(server):\n    print('theirs ran', flush=True)\n")
    flags = ["-w", "1", "-c", str(conf), "--reload", *preload, *RELAY_WORKER]
    command = [*GUNICORN, "-b", "fd://{fd}", *flags, APP]
    with foreign(command, tmp_path) as server:
        server.ready()
        binary, phone, _ = server.pair()
        before = server.workers()
        for count, number in enumerate(
            (signal.SIGTTIN, signal.SIGHUP, signal.SIGUSR2), start=1
        ):
            server.signal(number)
            wait_until(
                lambda count=count: len(server.named("instance.refused")) == count,
                lambda: server.output,
            )
        codes = [event["code"] for event in server.named("instance.refused")]
        assert codes == ["SI-105", "SI-106", "SI-106"]
        assert "theirs ran" in server.output
        assert "reload is ignored" in server.output
        wait_until(lambda: server.workers() == before)
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


@pytest.mark.parametrize("name", SINGLE)
def test_second_server_of_one_process_is_refused(name: str, tmp_path: Path) -> None:
    """The first serves; the second goes before it tries for its port."""
    path = installed(name)
    settings = {"PUBLIC_HOST": "relay.test", "STATE_DIR": str(tmp_path / "state")}
    command = [path, *SINGLE[name](0)]
    with foreign(command, tmp_path, measured=True, **settings) as first:
        url = re.compile(r"on http://127\.0\.0\.1:(\d+)")
        wait_until(lambda: url.search(first.output), lambda: first.output)
        port = int(url.findall(first.output)[0])
        assert health(("127.0.0.1", port))[0] == 200
        with socket.create_server(("127.0.0.1", 0)) as taken:
            second = subprocess.run(
                [path, *SINGLE[name](taken.getsockname()[1])],
                env=environment(settings),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
        assert second.returncode == 78
        output = second.stdout + second.stderr
        assert_refused(output, "SI-102")
        assert f"process {first.process.pid} on {socket.gethostname()}" in output
        assert "in use" not in output, "it has tried to bind"
        assert health(("127.0.0.1", port))[0] == 200
