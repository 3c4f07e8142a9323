"""gunicorn's configuration, and the Procfile's one line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

from gunicorn.config import KNOWN_SETTINGS

from tests.e2e.gunicorn import ROOT, environment
from tests.peers import get
from tests.waiting import wait_until


def test_port_wins_and_the_procfile_starts_it() -> None:
    """The one line of the Procfile, as a platform runs it."""
    line = (ROOT / "Procfile").read_text().strip()
    process_type, _, command = line.partition(": ")
    assert process_type == "web"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bin_dir = os.path.dirname(sys.executable)
    assert shutil.which("gunicorn", path=bin_dir)
    env = environment(
        {}, {"PORT": str(port), "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    )
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=ROOT, env=env, stderr=subprocess.DEVNULL
    )
    try:

        def serves() -> bool:
            try:
                return get(("127.0.0.1", port), "/readyz")[0] == 200
            except OSError:
                assert process.poll() is None
                return False

        wait_until(serves)
    finally:
        process.terminate()
        assert process.wait(20) == 0


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
