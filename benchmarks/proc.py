"""What the kernel says of a process tree: processor time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cpu:
    """Processor time since the start of the processes, in seconds.

    ``total_s`` comes from ``schedstat`` and is exact; ``user_s`` and ``system_s``
    come from ``stat`` in steps of a tick, and serve to divide the total.
    """

    total_s: float
    user_s: float
    system_s: float

    def __sub__(self, before: Cpu) -> Cpu:
        """Give the time between two samples, divided as ``stat`` says."""
        total = self.total_s - before.total_s
        user, system = self.user_s - before.user_s, self.system_s - before.system_s
        share = user / (user + system) if user + system else 0.0
        return Cpu(total, total * share, total * (1 - share))


def tree(root: int) -> list[int]:
    """Give a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(_stat(int(entry))[1])
            except OSError:
                continue  # it ended between the listing and the look
            children.setdefault(parent, []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu(pids: Sequence[int]) -> Cpu:
    """Read the processor time of all threads of some processes."""
    total_ns, user, system = 0, 0, 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((task / "schedstat").read_text().split()[0])
        fields = _stat(pid)
        user += int(fields[11])
        system += int(fields[12])
    return Cpu(total_ns / 1e9, user * _TICK_S, system * _TICK_S)


def own_cpu() -> Cpu:
    """Read the processor time of this process."""
    times = os.times()
    return Cpu(time.process_time(), times.user, times.system)


def rss_bytes(pid: int) -> int:
    """Read the resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """Give the fields of ``stat`` from the third on: a name may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
