"""Processes that do a part of a measurement, and what was measured, in short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import service


def spread(times_s: Sequence[float]) -> dict[str, float]:
    """Give p50, p99 and the most, in milliseconds, and how many there were."""
    ordered = sorted(times_s)
    if not ordered:
        return {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    return {
        "count": len(ordered),
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1000,
        "max_ms": ordered[-1] * 1000,
    }


class Helper:
    """A process of ours that is told something and answers, a line of JSON each.

    Args:
        words: Behind ``python -m``.
        cores: To run on; ``None`` for any.
    """

    def __init__(self, *words: str, cores: set[int] | None = None) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores or before)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=service.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, before)

    def tell(self, what: Any) -> None:
        """Send one line."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Read one line.

        Raises:
            RuntimeError: It ended instead; its traceback is on standard error.
        """
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a helper ended with {self.process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.close()
            self.process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def helper(*words: str, cores: set[int] | None = None) -> Iterator[Helper]:
    """Run a helper for the length of a block, from when it is ready."""
    it = Helper(*words, cores=cores)
    try:
        it.hear()
        yield it
    finally:
        it.stop()


@dataclass
class Samples:
    """Moments and what was measured at each."""

    at: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)

    def add(self, began: float) -> None:
        """Take note that what began then is done."""
        self.took_s.append(time.perf_counter() - began)
        self.at.append(began)

    def within(self, began: float, ended: float) -> dict[str, float]:
        """Give the spread of what began in an interval."""
        pairs = list(zip(self.at, self.took_s, strict=False))
        return spread([took for at, took in pairs if began <= at < ended])
