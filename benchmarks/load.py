"""The load generator: one process, one thread, epoll, frames made ahead of time.

It is given one job, dials, loads for a while, and prints what it saw as JSON. The
processor time of the relay is read here as well, at the first and the last moment
of the loaded interval, so that nothing else is in it.

    python -m benchmarks.load '{"mode": "pingpong", …}'
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import socket
import sys
import time
from typing import Any

from benchmarks import dial, proc
from benchmarks.check import READ_BYTES
from benchmarks.frames import Wire
from benchmarks.traffic import Cell, Job

SETTLE_S = 0.5
"""After which memory is looked at: greenlets have ended, callbacks have run."""

IDLE_S = 2.0


def load(job: Job) -> dict[str, Any]:
    """Do a job of one of the three traffic modes."""
    ends: dial.Ends
    wire: Wire
    if job.target == "pump":
        ends, wire = dial.dial_pump(job.port, job.phones, job.size)
    else:
        server_id = f"bench-{os.getpid()}"
        ends, wire = dial.dial_relay(job.port, server_id, job.phones, job.size)
    cell = Cell(job, wire, ends)
    # Nothing here makes cycles, and the blocks are large.
    gc.collect()
    gc.disable()
    return cell.run()


def handshake(job: Job) -> dict[str, Any]:
    """Connect, upgrade, close, ``dial.TOGETHER`` at a time."""
    server_id = f"bench-{os.getpid()}"
    (binary,) = dial.upgrade(job.port, "binary", [server_id])
    figures: dict[str, Any] = {}
    for cycles in (dial.TOGETHER, job.phones):  # the first only to warm up
        began, before, own = time.perf_counter(), proc.cpu(job.pids), proc.own_cpu()
        for _ in range(0, cycles, dial.TOGETHER):
            dial.hang_up(dial.upgrade(job.port, "phone", [server_id] * dial.TOGETHER))
            # The binary is told of each phone that went.
            while select.select([binary], [], [], 0)[0]:
                binary.recv(READ_BYTES)
        done = -(-cycles // dial.TOGETHER) * dial.TOGETHER
        elapsed_s = time.perf_counter() - began
        cpu = proc.cpu(job.pids) - before
        figures = {
            "cycles": done,
            "cycles_per_s": done / elapsed_s,
            "cpu_us": cpu.total_s / done * 1e6,
            "user_us": cpu.user_s / done * 1e6,
            "system_us": cpu.system_s / done * 1e6,
            "busy": cpu.total_s / elapsed_s,
            "generator_busy": (proc.own_cpu() - own).total_s / elapsed_s,
        }
    return figures


def idle(job: Job) -> dict[str, Any]:
    """Connect many phones that say nothing, look at the relay's memory, and leave."""
    worker = job.pids[-1]
    servers = -(-job.phones // job.phones_per_server)
    server_ids = [f"bench-{os.getpid()}-{number}" for number in range(servers)]
    binaries = dial.upgrade(job.port, "binary", server_ids)
    rss = [_settled_rss(worker)]
    phones: list[socket.socket] = []
    for part in range(2):
        phones += dial.upgrade(
            job.port,
            "phone",
            [server_ids[i % servers] for i in range(part, job.phones, 2)],
        )
        rss.append(_settled_rss(worker))
    began, before = time.perf_counter(), proc.cpu(job.pids)
    time.sleep(IDLE_S)
    idle_s = (proc.cpu(job.pids) - before).total_s / (time.perf_counter() - began)
    dial.hang_up(phones)
    rss.append(_settled_rss(worker))
    for binary in binaries:
        binary.close()
    first, half, whole, after = rss
    return {
        "phones": job.phones,
        "server_ids": servers,
        "rss_before_kib": first / 1024,
        "rss_with_kib": whole / 1024,
        "rss_after_kib": after / 1024,
        "kib_per_phone": (whole - first) / 1024 / job.phones,
        "kib_per_phone_second_half": (whole - half)
        / 1024
        / (job.phones - job.phones // 2),
        "idle_busy": idle_s,
    }


def _settled_rss(pid: int) -> int:
    time.sleep(SETTLE_S)
    return proc.rss_bytes(pid)


def main() -> None:
    """Do the job that stands in the first argument."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    job = Job(**json.loads(sys.argv[1]))
    do = {"idle": idle, "handshake": handshake}.get(job.mode, load)
    json.dump(do(job), sys.stdout)


if __name__ == "__main__":
    main()
