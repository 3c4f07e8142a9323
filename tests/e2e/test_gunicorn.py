"""gunicorn's configuration, and the Procfile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS

from tests.e2e.gunicorn import ROOT, environment
from tests.peers import get
from tests.waiting import DEADLINE_S, wait_until


def chain(pid: int) -> list[int]:
    """A process and its first child, and so on down."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(chain(int(children[0])) if children else [])]


@pytest.mark.parametrize("to_all", [False, True], ids=["to the relay", "to everybody"])
def test_procfile_serves_and_ends_with_its_signal(to_all: bool) -> None:
    """As a process manager runs it: through a shell, on a port of the manager's choice."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bin_dir = os.path.dirname(sys.executable)
    assert shutil.which("gunicorn", path=bin_dir)
    env = environment(
        {}, {"PORT": str(port), "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    )
    with tempfile.NamedTemporaryFile("r") as printed:

        def output() -> str:
            return Path(printed.name).read_text()

        def serves() -> bool:
            assert process.poll() is None, output()
            try:
                return get(("127.0.0.1", port), "/readyz")[0] == 200
            except OSError:
                return False

        with open(printed.name, "a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "honcho", "--no-colour", "start", "web"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(serves, output)
            (started,) = re.findall(r"web\.1 started \(pid=(\d+)\)", output())
            *_, master, _ = chain(int(started))
            if to_all:
                process.terminate()
            else:
                os.kill(master, signal.SIGTERM)
            code = process.wait(DEADLINE_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(DEADLINE_S)
        assert "server.stopped" in output()
        assert "SIGKILL" not in output()
        if to_all:
            assert code == 128 + signal.SIGTERM  # honcho's own, for its own signal
        else:
            assert "web.1 stopped (rc=0)" in output()
            assert code == 0


def test_every_public_name_of_the_configuration_is_a_setting() -> None:
    """gunicorn ignores unknown names silently, so a typo would go unseen."""
    script = (
        "import runpy; names = runpy.run_path('gunicorn.conf.py');"
        "print(*[n for n in names if not n.startswith('_')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    names = set(done.stdout.split())
    assert names <= {setting.name for setting in KNOWN_SETTINGS}
    assert {"workers", "worker_class", "wsgi_app", "bind", "nworkers_changed"} <= names
