"""The guard under a real gunicorn: one worker and no way round it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gunicorn import Gunicorn, gunicorn
from tests.peers import ask, get, upgrade_request
from tests.waiting import wait_until

FIRST_LINE = (
    "ERROR: multi-instance deploy detected, relay registry is in-memory and cannot share "
    "state across replicas."
)


def refused(*args: str, **options: Any) -> tuple[int, str]:
    """Start a relay that must refuse; it has never served anything.

    Returns: Exit code, and what was printed.
    """
    relay = Gunicorn(*args, **options)
    try:
        code = relay.wait()
        output = relay.output
        # Nobody took a connection from the socket that it was handed.
        with socket.create_connection(relay.address) as probe:
            probe.settimeout(0.05)
            with pytest.raises(TimeoutError):
                probe.recv(1)
        assert "server.started" not in output
        return code, output
    finally:
        relay.stop()


def second_of(first: Gunicorn) -> list[str]:
    """Make the argument with which a relay would listen where another one does."""
    return ["-b", f"127.0.0.1:{first.address[1]}"]


@pytest.mark.parametrize(
    ("args", "extra", "source"),
    [
        (["--workers", "2"], {}, "the command line"),
        (["-w", "2"], {}, "the command line"),
        (["-w", "2", "--preload"], {}, "the command line"),
        ([], {"GUNICORN_CMD_ARGS": "-w 2"}, "GUNICORN_CMD_ARGS"),
        (
            [],
            {"GUNICORN_CMD_ARGS": "--workers=2", "WEB_CONCURRENCY": "2"},
            "GUNICORN_CMD_ARGS",
        ),
    ],
)
def test_two_workers_are_refused_before_the_bind(
    args: list[str], extra: dict[str, str], source: str
) -> None:
    """Exit 3, the message to the letter without a bypass, and where the number is from."""
    code, output = refused(*args, extra=extra)
    assert code == 3
    lines = output.splitlines()
    assert lines[0] == FIRST_LINE
    assert "[SI-101]" in lines[1]
    assert source in lines[1]
    assert len(lines) == 4


def test_configuration_that_says_two_workers_is_refused(tmp_path: Path) -> None:
    """A file that takes ours and changes the one thing that matters."""
    conf = tmp_path / "mine.py"
    conf.write_text("from relay_app.gunicorn_conf import *\nworkers = 2\n")
    code, output = refused(command=[sys.executable, "-m", "gunicorn", "-c", str(conf)])
    assert (code, "the configuration file" in output) == (3, True)


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({"PYRYCODE_RELAY_REPLICAS": "2"}, "SI-202"),
        ({"PYRYCODE_RELAY_PRODUCTION": "1"}, "SI-401"),
        ({"FLY_APP_NAME": "a"}, "SI-401"),
        ({"DYNO": "web.1"}, "SI-401"),
    ],
)
def test_replicas_are_refused_with_the_bypass_named(
    environ: dict[str, str], code: str
) -> None:
    """Exit 3 and the first line with its last sentence."""
    exit_code, output = refused(extra=environ)
    assert exit_code == 3
    lines = output.splitlines()
    assert lines[0] == (
        f"{FIRST_LINE} Set PYRYCODE_RELAY_SINGLE_INSTANCE=1 to bypass "
        "(NOT recommended for production)."
    )
    assert f"[{code}]" in lines[1]


@pytest.mark.parametrize(
    ("environ", "verdict", "codes"),
    [
        ({"WEB_CONCURRENCY": "2"}, "FINE", ["SI-101w"]),
        (
            {"DYNO": "web.1", "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "true"},
            "FINE",
            ["SI-402"],
        ),
        (
            {"FLY_APP_NAME": "a", "PYRYCODE_RELAY_SINGLE_INSTANCE": "1"},
            "WARN",
            ["SI-401"],
        ),
        ({"DYNO": "run.1"}, "FINE", ["SI-001"]),
    ],
)
def test_what_is_fine_serves_with_one_worker(
    environ: dict[str, str], verdict: str, codes: list[str]
) -> None:
    """The health route shows the verdict, the log one line per finding."""
    with gunicorn(extra=environ) as relay:
        relay.ready()
        assert relay.health()["guard"] == {"verdict": verdict, "codes": codes}
        assert [e["code"] for e in relay.named("instance.finding")] == codes
        assert len(relay.workers()) == 1


def test_preload_is_neutralised() -> None:
    """One worker that loads the application itself; a warning says so."""
    with gunicorn("--preload") as relay:
        relay.ready()
        assert "preload_app is ignored" in relay.output
        binary, phone, _ = relay.pair()
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_settings_that_cannot_be_used_exit_78_with_all_faults() -> None:
    """No traceback, no value."""
    code, output = refused(
        extra={"PYRYCODE_RELAY_DRAIN_S": "hunter2", "PORT": "hunter2"}
    )
    assert code == 78
    assert "PYRYCODE_RELAY_DRAIN_S: must be" in output
    assert "PORT: must be" in output
    assert "hunter2" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(
    "number", [signal.SIGTTIN, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTOU]
)
def test_signals_that_would_change_the_workers_change_nothing(
    number: int, group: bool
) -> None:
    """The one worker stays, live connections too, and the log is loud.

    A terminal that closes signals the worker as well.
    """
    with gunicorn() as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        before = relay.workers()
        if group:
            os.killpg(relay.process.pid, number)
        else:
            relay.signal(number)
        wait_until(lambda: relay.named("instance.refused"), lambda: relay.output)
        assert relay.named("instance.refused")[0]["level"] == "error"
        wait_until(lambda: relay.workers() == before)
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_hup_reads_the_allowed_server_ids_again(tmp_path: Path) -> None:
    """Nobody is cut, no second worker is made; a broken file changes nothing."""
    file = tmp_path / "ids"
    file.write_text("id\n")
    with gunicorn(SERVER_IDS_FILE=file) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        before = relay.workers()
        file.write_text("id\nbroken line\n")
        relay.signal(signal.SIGHUP)
        wait_until(lambda: relay.named("allowlist.kept"), lambda: relay.output)
        assert ask(relay.address, upgrade_request("server", "new"))[0] == 403
        file.write_text("new\n")
        os.killpg(relay.process.pid, signal.SIGHUP)
        wait_until(lambda: relay.named("allowlist.read"), lambda: relay.output)
        relay.pair("new")
        assert ask(relay.address, upgrade_request("client", "id"))[0] == 403
        phone.send("1")
        assert binary.recv_json()["frame"] == 1
        assert relay.workers() == before
        assert not relay.named("instance.refused")


@pytest.mark.parametrize("content", ["", "two ids\n", None])
def test_allowed_server_ids_that_cannot_be_read_refuse_the_start(
    content: str | None, tmp_path: Path
) -> None:
    """78 before the bind: a closed relay must not come up open."""
    file = tmp_path / "ids"
    if content is not None:
        file.write_text(content)
    code, output = refused(extra={"PYRYCODE_RELAY_SERVER_IDS_FILE": str(file)})
    assert code == 78
    assert "PYRYCODE_RELAY_SERVER_IDS_FILE: " in output
    assert "two" not in output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused as root")
def test_root_in_production_is_refused_before_the_bind() -> None:
    """Exit 78, with the way out."""
    production = {
        "PYRYCODE_RELAY_PRODUCTION": "1",
        "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "1",
    }
    code, output = refused(extra=production)
    assert code == 78
    assert "PYRYCODE_RELAY_ALLOW_ROOT=1" in output


def test_second_worker_beside_a_living_one_is_refused(tmp_path: Path) -> None:
    """A configuration whose hooks let a second worker through still cannot serve twice."""
    conf = tmp_path / "sly.py"
    conf.write_text(
        "from relay_app.gunicorn_conf import *\n"
        "def when_ready(server):\n"
        "    server.spawn_worker()\n"
        "    server.spawn_worker()\n"
    )
    with gunicorn(command=[sys.executable, "-m", "gunicorn", "-c", str(conf)]) as relay:
        assert relay.wait() == 3
        assert FIRST_LINE in relay.output
        assert "[SI-104]" in relay.output


def test_settings_that_would_replace_the_worker_do_nothing(tmp_path: Path) -> None:
    """A warning line each; the worker stays, and so does the connection."""
    loaded = tmp_path / "loaded_by_the_relay.py"
    loaded.write_text("")
    conf = tmp_path / "mine.py"
    conf.write_text(
        "from relay_app.gunicorn_conf import *\n"
        "def post_worker_init(worker):\n"
        "    import loaded_by_the_relay\n"
    )
    flags = ["--max-requests", "3", "--reload", "--reuse-port", "-k", "sync"]
    with gunicorn(
        *flags,
        command=[sys.executable, "-m", "gunicorn", "-c", str(conf)],
        extra={"PYTHONPATH": str(tmp_path)},
    ) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        before = relay.workers()
        for _ in range(10):
            assert get(relay.address, "/healthz")[0] == 200
        began = relay.health()["uptime_seconds"]
        loaded.write_text("changed = True\n")
        warnings = [
            event["message"].partition(" is ignored: ")[0]
            for event in relay.named("gunicorn.error")
            if event["level"] == "warning"
        ]
        assert sorted(warnings) == [
            "max_requests",
            "reload",
            "reuse_port",
            "worker_class",
        ]
        code, output = refused(*flags, *second_of(relay))
        assert (code, "[SI-102]" in output) == (3, True)
        # gunicorn would look at its files once in a second.
        wait_until(lambda: relay.health()["uptime_seconds"] >= began + 2)
        assert relay.workers() == before
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_control_socket_cannot_add_a_worker(tmp_path: Path) -> None:
    """gunicorn's own command asks for one."""
    control = tmp_path / "control"
    conf = tmp_path / "mine.py"
    conf.write_text(
        "from relay_app.gunicorn_conf import *\n"
        "control_socket_disable = False\n"
        f"control_socket = {str(control)!r}\n"
    )
    with gunicorn(command=[sys.executable, "-m", "gunicorn", "-c", str(conf)]) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        before = relay.workers()
        wait_until(control.exists, lambda: relay.output)
        gunicornc = shutil.which("gunicornc", path=os.path.dirname(sys.executable))
        assert gunicornc
        asked = subprocess.run(
            [gunicornc, "-s", str(control), "-j", "-c", "worker add"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(asked.stdout)["total"] == 1
        (event,) = relay.named("instance.refused")
        assert (event["code"], event["level"]) == ("SI-105", "error")
        wait_until(lambda: relay.workers() == before)
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


# A second start


def test_second_start_with_the_same_public_host_is_refused(tmp_path: Path) -> None:
    """On another port, before it is bound; two public hosts are two relays."""
    settings = {"STATE_DIR": str(tmp_path), "PUBLIC_HOST": "one.test"}
    with gunicorn(**settings) as first:
        first.ready()
        code, output = refused(**settings)
        assert code == 3
        lines = output.splitlines()
        assert len(lines) == 4
        assert lines[0] == FIRST_LINE
        holder = f"process {first.process.pid} on {socket.gethostname()}, started "
        assert holder in lines[1]
        assert "[SI-102]" in lines[1]
        serve = [sys.executable, "-m", "relay_app", "serve"]
        code, output = refused(command=serve, **settings)
        assert (code, "[SI-102]" in output) == (78, True)
        assert "Traceback" not in output
        with gunicorn(**settings | {"PUBLIC_HOST": "two.test"}) as other:
            other.ready()
        assert get(first.address, "/readyz")[0] == 200


def test_second_start_without_a_state_directory_is_refused() -> None:
    """An abstract socket stands for the file."""
    settings = {"PUBLIC_HOST": "one.test"}
    nowhere = ["env"]
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "XDG_RUNTIME_DIR"):
        nowhere += ["-u", variable]
    command = [*nowhere, sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    with gunicorn(command=command, **settings) as first:
        first.ready()
        code, output = refused(command=command, **settings)
        assert (code, "[SI-102]" in output) == (3, True)
        assert f"process {first.process.pid} on {socket.gethostname()}" in output


def test_environment_that_gunicorn_is_given_counts() -> None:
    """It comes into the process's own only after the guard has judged."""
    code, output = refused("-e", "PYRYCODE_RELAY_REPLICAS=2")
    assert (code, "[SI-202]" in output) == (3, True)
    code, output = refused("-e", "PYRYCODE_RELAY_REPLICAS=hunter2")
    assert (code, "PYRYCODE_RELAY_REPLICAS: must be" in output) == (78, True)
    assert "hunter2" not in output
    name = ["-e", "PYRYCODE_RELAY_PUBLIC_HOST=one.test"]
    with gunicorn(*name) as first:
        wait_until(lambda: first.named("server.started"), lambda: first.output)
        code, output = refused(*name)
        assert (code, "[SI-102]" in output) == (3, True)


def test_second_start_waits_for_an_orphan_that_drains() -> None:
    """A supervisor that starts the relay again after its master was killed succeeds."""
    spans = {"DRAIN_S": 300, "CLOSE_TIMEOUT_S": 300}
    with gunicorn(**spans) as first:
        first.ready()
        mute = first.binary()
        mute.sync()
        first.signal(signal.SIGKILL)
        first.wait()
        with gunicorn(*second_of(first)) as second:
            wait_until(lambda: second.named("server.started"), lambda: second.output)
            (stopped,) = first.named("server.stopped")
            assert stopped["time"] <= second.named("server.started")[0]["time"]
            assert get(first.address, "/readyz")[0] == 200


def test_second_start_beside_an_orphan_that_does_not_go_is_refused() -> None:
    """What a killed master has left behind counts for as long as it is there."""
    with gunicorn() as first:
        first.ready()
        (worker,) = first.workers()
        os.kill(worker, signal.SIGSTOP)
        first.signal(signal.SIGKILL)
        first.wait()
        try:
            code, output = refused(*second_of(first))
        finally:
            os.kill(worker, signal.SIGCONT)
        assert (code, "[SI-102]" in output) == (3, True)
        assert "a worker that it left behind is still draining" in output
        wait_until(lambda: first.named("server.stopped"), lambda: first.output)
