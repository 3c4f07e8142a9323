"""Faults as they happen: killed processes, resets, lost descriptors, a clock that jumps."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import gevent
import pytest

from tests.e2e.gunicorn import FAST, ROOT, Gunicorn, gunicorn
from tests.peers import CUT, Peer, ask, frame, get, upgrade_request
from tests.servers import program
from tests.waiting import DEADLINE_S, UNIT_S, wait_until


@contextmanager
def client(relay: Gunicorn, kind: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``pyrycode-relay binary`` or ``phone`` as a process of its own."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "relay_app", kind, "--server-id", "id"),
            *("--url", relay.url, *words),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def binaries(relay: Gunicorn) -> int:
    """How many binaries the relay has."""
    count: int = relay.health()["connected_binaries"]
    return count


def test_binary_process_killed_comes_back_and_claims_again() -> None:
    """No ghost keeps the server-id, and its phones are told that it is another one now."""
    with gunicorn(**FAST | {"GRACE_PERIOD_S": 30 * UNIT_S}) as relay:
        relay.ready()
        with client(relay, "binary", "--echo") as binary:
            wait_until(lambda: binaries(relay) == 1)
            phone = relay.phone()
            phone.send("1")
            assert phone.recv() == "1"
            binary.send_signal(signal.SIGKILL)
            wait_until(lambda: binaries(relay) == 0)
            phone.sync()  # it stays in the grace period
        with client(relay, "binary", "--echo"):
            assert phone.ending() == (4404, "binary reclaimed server-id")
            again = relay.phone()
            again.send("2")
            assert again.recv() == "2"
            again.drop()
            wait_until(lambda: relay.health()["connected_phones"] == 0)


def test_phone_process_killed_is_told_once_as_1001() -> None:
    """The binary gets one close notice, and the place is free again."""
    with gunicorn(MAX_PHONES_PER_SERVER=1) as relay:
        relay.ready()
        binary = relay.binary()
        with client(relay, "phone") as phone:
            assert phone.stdin is not None
            phone.stdin.write('"here"\n')
            phone.stdin.flush()
            conn_id = binary.recv_json()["conn_id"]
            phone.send_signal(signal.SIGKILL)
            assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1001}
        other = relay.phone()
        other.send("1")
        assert binary.recv_json()["frame"] == 1
        binary.sync()
        assert binary.inbox == []


def test_worker_killed_everybody_comes_back() -> None:
    """A new worker serves, the binary's program claims again, a phone can reach it."""
    with gunicorn() as relay:
        relay.ready()
        with client(relay, "binary", "--echo"):
            wait_until(lambda: binaries(relay) == 1)
            phone = relay.phone()
            (worker,) = relay.workers()
            os.kill(worker, signal.SIGKILL)
            assert phone.ending() == CUT
            wait_until(lambda: len(relay.named("server.started")) == 2)
            wait_until(lambda: binaries(relay) == 1)
            again = relay.phone()
            again.send("1")
            assert again.recv() == "1"


def test_binary_process_stopped_past_its_heartbeat_comes_back() -> None:
    """SIGSTOP looks like a machine that sleeps: its claim ends, and begins anew."""
    spans = {"HEARTBEAT_INTERVAL_S": 0.3 * UNIT_S, "HEARTBEAT_TIMEOUT_S": 0.3 * UNIT_S}
    with gunicorn(**FAST | spans | {"GRACE_PERIOD_S": 30 * UNIT_S}) as relay:
        relay.ready()
        with client(relay, "binary", "--echo") as binary:
            wait_until(lambda: binaries(relay) == 1)
            phone = gevent.spawn(relay.phone().ending)  # it answers pings
            binary.send_signal(signal.SIGSTOP)
            wait_until(lambda: relay.named("heartbeat.missed"))
            wait_until(lambda: binaries(relay) == 0)
            assert not phone.ready()
            binary.send_signal(signal.SIGCONT)
            wait_until(lambda: binaries(relay) == 1)
            (closed,) = relay.named("connection.closed")[:1]
            assert (closed["leg"], closed["close_code"]) == ("server", 1011)
            assert phone.get() == (4404, "binary reclaimed server-id")


HEAD = upgrade_request("client", "id")
TEXT_FRAME = frame(0x81, b'"0123456789"')
STAGES: dict[str, bytes] = {
    "before a byte": b"",
    "amid the head": HEAD[:40],
    "behind the head": HEAD,
    "amid a frame's head": HEAD + TEXT_FRAME[:1],
    "amid a payload": HEAD + TEXT_FRAME[:10],
    "amid fragments": HEAD + frame(0x01, b"[") + frame(0x00, b"1"),
    "behind a message": HEAD + TEXT_FRAME,
    "behind a close": HEAD + frame(0x88, struct.pack("!H", 1000)),
    "behind a fault": HEAD + b"\xff\xff\xff",
    "unknown server-id": upgrade_request("client", "none"),
    "refused": upgrade_request("client", "id", user_agent=None),
}


def end_by_fin(sock: socket.socket) -> None:
    """Close as a program that ends does."""


def end_by_reset(sock: socket.socket) -> None:
    """Cut with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end_by_half(sock: socket.socket) -> None:
    """End the own direction, and read what still comes."""
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass


def descriptors(pid: int) -> list[str]:
    """The sockets of a process."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return sorted(name for name in found if name.startswith("socket:"))


def test_every_end_at_every_stage_gives_everything_back() -> None:
    """FIN, reset and half close wherever they come; a pair beside them sees no error.

    There are few places, so that one that was not given back is missed at once.
    """
    with gunicorn(**FAST, MAX_CONNECTIONS=6) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        (worker,) = relay.workers()
        before = descriptors(worker)
        for _ in range(2):
            for stage, data in STAGES.items():
                for end in (end_by_fin, end_by_reset, end_by_half):
                    for after_answer in (False, True):
                        with socket.create_connection(relay.address, DEADLINE_S) as s:
                            s.sendall(data)
                            if after_answer and data.startswith(HEAD):
                                assert s.recv(12) == b"HTTP/1.1 101", stage
                            with contextlib.suppress(OSError):
                                end(s)  # the relay may have been first
                        wait_until(
                            lambda: relay.health()["connected_phones"] == 1,
                            lambda at=stage: f"a phone is left: {at}",
                        )
            phone.send("1")
            while binary.recv_json().get("frame") != 1:
                pass
        wait_until(
            lambda: descriptors(worker) == before,
            lambda: f"{len(descriptors(worker))} descriptors, {len(before)} before",
        )
        rest = [relay.phone() for _ in range(4)]
        for one in rest:
            one.sync()
        assert ask(relay.address, HEAD)[0] == 503
        assert not relay.named("internal.error")
        assert "Traceback" not in relay.output


def test_peer_that_ignores_our_close_is_cut() -> None:
    """A half-open close ends after its time, at the relay's side."""
    with gunicorn(**FAST) as relay:
        relay.ready()
        with socket.create_connection(relay.address, DEADLINE_S) as silent:
            silent.sendall(upgrade_request("client", "none"))
            began = monotonic()
            while silent.recv(4096):
                pass
            assert monotonic() - began < DEADLINE_S / 2
        wait_until(lambda: relay.named("connection.closed"))
        (closed,) = relay.named("connection.closed")
        assert closed["close_code"] == 4404


PEERS = 500
IDS = 100


def test_stop_under_traffic_of_500_spreads_the_closes() -> None:
    """Each gets its close frame, not all in one instant; exit 0 within the drain."""
    with gunicorn(measured=True, DRAIN_S=3.0 * UNIT_S) as relay:
        relay.ready()
        pairs = [
            (relay.binary(f"id{n}"), [relay.phone(f"id{n}") for _ in range(4)])
            for n in range(IDS)
        ]
        peers = [peer for binary, phones in pairs for peer in (binary, *phones)]
        assert len(peers) == PEERS
        text = frame(0x81, b'"traffic"')

        def talk(phone: Peer) -> None:
            while phone.end is None:
                try:
                    phone.raw(text)
                except OSError:
                    return
                gevent.idle()

        talkers = [gevent.spawn(talk, phones[0]) for _, phones in pairs]
        ends = [
            gevent.spawn(lambda peer=peer: (peer.ending(), monotonic()))
            for peer in peers
        ]
        wait_until(lambda: all(b.inbox for b, _ in pairs))
        began = monotonic()
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        assert monotonic() - began < 3.0 * UNIT_S + 5
        gevent.joinall([*ends, *talkers])
        assert {end.value[0] for end in ends} == {(1001, "shutting down")}
        times = sorted(end.value[1] for end in ends)
        closed = relay.named("connection.closed")
        assert sum(event.get("folded", 1) for event in closed) == PEERS
        window_s = 3.0 * UNIT_S - 1
        assert times[-1] - times[0] > window_s / 2
        quarters = [int(4 * (at - times[0]) / (times[-1] - times[0])) for at in times]
        assert max(quarters.count(n) for n in range(4)) < PEERS / 2
        stopped = relay.named("server.stopped")[0]
        assert stopped["cut"] == 0


def test_descriptor_limit_pauses_accepting_and_it_recovers() -> None:
    """Who is connected goes on, the log has a line and not a flood, nothing spins."""
    with gunicorn() as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        (worker,) = relay.workers()
        open_now = max(int(number) for number in os.listdir(f"/proc/{worker}/fd"))
        soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_now + 1, hard))
        waiting = [socket.create_connection(relay.address, 20) for _ in range(3)]
        wait_until(lambda: relay.named("accept.paused"), lambda: relay.output)
        before = cpu_ticks(worker)
        for number in range(20):
            phone.send(str(number))
            assert binary.recv_json()["frame"] == number
        waiting[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting[0].recv(1)
        assert cpu_ticks(worker) - before < 100
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
        assert get(relay.address, "/healthz")[0] == 200
        for sock in waiting:
            sock.close()
        paused = relay.named("accept.paused")
        assert {event["reason"] for event in paused} == {"EMFILE"}
        assert len(paused) <= 3
        assert "Traceback" not in relay.output


def cpu_ticks(pid: int) -> int:
    """Processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


READERS = 300
TOTAL_BYTES = 16 << 20
SOCKET_BYTES = 16 << 10
"""What a connection costs beside its outbox, generously."""


def test_phones_that_never_read_cost_their_bound_and_no_more() -> None:
    """Memory stays below the formula of docs/operations.md; a phone that reads is served."""
    with gunicorn(
        measured=True,
        MAX_PHONES_PER_SERVER=READERS + 1,
        OUTBOX_MAX_BYTES=128 << 10,
        OUTBOX_TOTAL_BYTES=TOTAL_BYTES,
        WRITE_TIMEOUT_S=60.0,
    ) as relay:
        relay.ready()
        binary = relay.binary()
        good = relay.phone()
        deaf = [relay.phone() for _ in range(READERS)]
        conn_ids = []
        for number, phone in enumerate([good, *deaf]):
            phone.send(str(number))
            conn_ids.append(binary.recv_json()["conn_id"])
        before_kib = relay.rss_kib()
        filler = "x" * 32_000
        most_kib = before_kib
        for _ in range(16):
            for conn_id in conn_ids:
                text = f'{{"conn_id":"{conn_id}","frame":"{filler}"}}'
                binary.raw(frame(0x81, text.encode()))
            assert good.recv() == f'"{filler}"'
            most_kib = max(most_kib, relay.rss_kib())
        bound_kib = (TOTAL_BYTES + READERS * SOCKET_BYTES) >> 10
        assert most_kib - before_kib < bound_kib + (16 << 10)
        binary.sync()
        assert get(relay.address, "/healthz")[0] == 200
        assert relay.health()["connected_binaries"] == 1


LIBFAKETIME = re.compile(r"LD_PRELOAD=(\S*libfaketime\S*)")


def fake_clock(offset: Path) -> dict[str, str]:
    """Make the environment in which a file says how far off the wall clock is."""
    asked = [program("faketime"), "-f", "+0s", "env"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    found = LIBFAKETIME.search(said)
    assert found is not None, said
    return {
        "LD_PRELOAD": found[1],
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def test_clock_stepped_back_by_an_hour_changes_nothing(tmp_path: Path) -> None:
    """Spans go by the monotonic clock: nobody is cut, and grace ends in its time."""
    offset = tmp_path / "offset"
    offset.write_text("+0s")
    spans = {"HEARTBEAT_INTERVAL_S": 0.3 * UNIT_S, "HEARTBEAT_TIMEOUT_S": 2.0 * UNIT_S}
    # The library breaks the system call behind the master's time.sleep.
    conf = tmp_path / "conf.py"
    conf.write_text(
        "import select as _select\nimport time as _time\n"
        "_time.sleep = lambda s: _select.select([], [], [], s)\n"
        "from relay_app.gunicorn_conf import *\n"
    )
    command = [sys.executable, "-m", "gunicorn", "-c", str(conf)]
    extra = fake_clock(offset)
    with gunicorn(command=command, extra=extra, **FAST | spans) as relay:
        relay.ready()
        binary, phone, _ = relay.pair()
        offset.write_text("-3600s")
        relay.phone("none").ending()
        wait_until(lambda: relay.named("connection.closed"))
        closed = relay.named("connection.closed")[-1]
        started = relay.named("server.started")[0]
        assert closed["time"] < started["time"]  # the clock did go back
        assert 0 <= closed["duration_s"] < DEADLINE_S
        phone.send("1")
        assert binary.recv_json()["frame"] == 1
        assert not relay.named("heartbeat.missed")
        binary.drop()
        wait_until(lambda: relay.named("claim.grace_ended"), lambda: relay.output)
        assert phone.ending() == (4404, "no server with that id")
