"""The worker under a real gunicorn: signals, drain, replacement."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import shutil
import signal
import sys
from pathlib import Path

import gevent
import pytest

from relay_app.transport.worker import RelayWorker
from tests.e2e.gunicorn import FAST, Gunicorn, gunicorn
from tests.peers import CUT, Peer, get
from tests.waiting import UNIT_S, wait_until


def test_worker_killed_is_replaced_and_serves() -> None:
    """Everybody is cut, and finds the new one."""
    with gunicorn() as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        (worker,) = relay.workers()
        killed = datetime.datetime.now(datetime.UTC)
        os.kill(worker, signal.SIGKILL)
        assert phone.ending() == CUT
        assert binary.ending() == CUT
        wait_until(
            lambda: len(relay.named("server.started")) == 2, lambda: relay.output
        )
        again = relay.named("server.started")[1]["time"]
        took = datetime.datetime.fromisoformat(again) - killed
        assert took.total_seconds() < 2 * UNIT_S
        binary, phone, _ = relay.pair()
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_master_killed_drains_the_worker() -> None:
    """An orphan does not serve on."""
    with gunicorn(**FAST) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        relay.signal(signal.SIGKILL)
        assert phone.ending() == (1001, "shutting down")
        assert binary.ending() == (1001, "shutting down")
        wait_until(lambda: relay.named("server.stopped"), lambda: relay.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("group", [False, True])
def test_stop_under_traffic_closes_everybody_and_exits_0(
    number: int, group: bool
) -> None:
    """Close frames arrive whether the master is signalled or, as by a terminal, all."""
    with gunicorn(**FAST) as relay:
        relay.ready()
        pairs = [relay.pair(f"id-{n}") for n in range(5)]
        rounds: list[int] = []

        def talk(binary: Peer, phone: Peer, conn_id: str) -> None:
            with contextlib.suppress(AssertionError, OSError):
                while True:
                    phone.send('"ping"')
                    assert binary.recv_json()["frame"] == "ping"
                    binary.send(f'{{"conn_id":"{conn_id}","frame":"pong"}}')
                    assert phone.recv() == '"pong"'
                    rounds.append(1)

        talkers = [gevent.spawn(talk, *pair) for pair in pairs]
        wait_until(lambda: len(rounds) > 100)
        if group:
            os.killpg(relay.process.pid, number)
        else:
            relay.signal(number)
        gevent.joinall(talkers)
        for binary, phone, _ in pairs:
            assert phone.ending() == (1001, "shutting down")
            assert binary.ending() == (1001, "shutting down")
        assert relay.wait() == 0
        (stopped,) = relay.named("server.stopped")
        assert stopped["cut"] == 0
        assert "Traceback" not in relay.output


def test_drain_refuses_newcomers_and_shows_it() -> None:
    """/readyz fails, /livez stays, upgrades get 503."""
    with gunicorn(**FAST | {"DRAIN_S": 3.0 * UNIT_S}) as relay:
        relay.ready()
        peers = [relay.binary(str(n)) for n in range(3)]
        for peer in peers:
            peer.sync()
        relay.signal(signal.SIGTERM)
        wait_until(lambda: get(relay.address, "/readyz")[0] == 503)
        assert get(relay.address, "/livez")[0] == 200
        assert relay.health()["role"] == "draining"
        for peer in peers:
            assert peer.ending() == (1001, "shutting down")
        assert relay.wait() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_wait(second: int) -> None:
    """The exit code stays 0."""
    with gunicorn(DRAIN_S=300, CLOSE_TIMEOUT_S=300) as relay:
        relay.ready()
        peers = [relay.binary(str(n)) for n in range(3)]
        for peer in peers:
            peer.sync()
        relay.signal(signal.SIGTERM)
        wait_until(lambda: relay.named("server.draining"), lambda: relay.output)
        relay.signal(second)
        assert relay.wait() == 0
        wait_until(lambda: relay.named("server.stopped"))


def test_peers_that_do_not_answer_are_cut_in_time() -> None:
    """The drain ends; nobody can hold the process."""
    with gunicorn(DRAIN_S=1.2 * UNIT_S, CLOSE_TIMEOUT_S=300) as relay:
        relay.ready()
        mute = relay.binary()
        mute.sync()
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        assert relay.named("server.stopped")[0]["cut"] == 1
        assert mute.ending() == (1001, "shutting down")


def test_worker_that_hangs_is_replaced() -> None:
    """It was stopped, so it gives no sign of life, and cannot serve beside the new one."""
    with gunicorn("--timeout", "1") as relay:
        relay.ready()
        (worker,) = relay.workers()
        os.kill(worker, signal.SIGSTOP)
        wait_until(
            lambda: len(relay.named("server.started")) == 2, lambda: relay.output
        )
        assert worker not in relay.workers()
        binary, phone, _ = relay.pair()
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


# The lock


def looking_often(tmp_path: Path) -> tuple[list[str], Path]:
    """Configure a relay that looks after its lock all the time.

    Returns: The command, and its state directory.
    """
    conf = tmp_path / "mine.py"
    conf.write_text(
        "from relay_app.gunicorn_conf import *\n"
        "from relay_app.transport import worker\n"
        "worker.LOOK_S = 0.02\n"
    )
    return [sys.executable, "-m", "gunicorn", "-c", str(conf)], tmp_path / "state"


def test_lock_that_was_deleted_is_taken_again(tmp_path: Path) -> None:
    """An error line, and a second relay is still refused."""
    command, state = looking_often(tmp_path)
    with gunicorn(command=command, STATE_DIR=str(state)) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        before = {path.name for path in state.iterdir()}
        assert len(before) == 2
        state.rename(tmp_path / "gone")  # at once, or it would be filled again
        shutil.rmtree(tmp_path / "gone")
        wait_until(lambda: relay.named("instance.lock"), lambda: relay.output)
        event = relay.named("instance.lock")[0]
        assert (event["code"], event["level"]) == ("SI-102", "error")
        assert {path.name for path in state.iterdir()} == before
        second = Gunicorn("-b", f"127.0.0.1:{relay.address[1]}", STATE_DIR=str(state))
        try:
            assert second.wait() == 3
            assert "[SI-102]" in second.output
        finally:
            second.stop()
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_lock_that_another_process_took_ends_the_relay(tmp_path: Path) -> None:
    """Everybody is told; a new worker is not tried for long."""
    command, state = looking_often(tmp_path)
    with gunicorn(command=command, STATE_DIR=str(state), **FAST) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        (lock,) = (p for p in state.iterdir() if ".registry." not in p.name)
        theirs = state / "theirs"
        with theirs.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            theirs.rename(lock)
            assert phone.ending() == (1001, "shutting down")
            assert binary.ending() == (1001, "shutting down")
            assert relay.wait() == 3
        (event,) = relay.named("instance.lock")
        assert (event["code"], event["level"]) == ("SI-102", "error")
        assert "another process" in event["detail"]
        assert "[SI-102]" in relay.output
        assert len(relay.named("server.started")) == 1


@pytest.mark.parametrize("handler", ["handle_exit", "handle_quit", "handle_hup"])
def test_signal_while_the_worker_boots_is_taken(handler: str) -> None:
    """It may come before anything of the worker is made; a stop is not forgotten."""
    worker = RelayWorker.__new__(RelayWorker)
    getattr(worker, handler)(0, None)
    assert getattr(worker, "alive", None) is (
        None if handler == "handle_hup" else False
    )
