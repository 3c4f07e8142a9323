"""``python -m tests.abuse``: attack a real relay, while a pair goes on talking through it.

Run it from the root of the repository. slowhttptest and wrk are Debian packages; an
attack whose program is missing is left out, in CI it is a miss. It takes about four
minutes, with ``--short`` a third of one. A table says what each attack did; the exit
code is 1 if the relay did not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.abuse.attacks import ATTACKS, SHORT
from tests.abuse.verdict import Reading, misses
from tests.e2e.gunicorn import ROOT, Gunicorn, gunicorn
from tests.servers import program
from tests.waiting import wait_until

SPAN_S, SHORT_SPAN_S = 15.0, 2.0
SETTLE_S = 30.0
BACKLOG = 2048
SAMPLE_S = 0.05


class Watcher:
    """The well-behaved peers, in their process.

    Args:
        port: Where the relay is.
    """

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.watch", str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def take(self) -> dict[str, dict[str, Any]]:
        """Give what was seen since the last time."""
        pipes = self._process
        assert pipes.stdin is not None and pipes.stdout is not None
        pipes.stdin.write("\n")
        pipes.stdin.flush()
        seen: dict[str, dict[str, Any]] = json.loads(pipes.stdout.readline())
        return seen

    def stop(self) -> None:
        """End it."""
        self._process.communicate()


class Peak:
    """The most memory that the relay had, while a block runs."""

    def __init__(self, relay: Gunicorn) -> None:
        self.kib = 0
        self._relay = relay

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again, in a thread."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_S):
                self.kib = max(self.kib, self._relay.rss_kib())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def descriptors(relay: Gunicorn) -> int:
    """Count the worker's open descriptors."""
    (worker,) = relay.workers()
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


def bugs(relay: Gunicorn) -> int:
    """Count what must never be in the log."""
    return relay.output.count("Traceback") + len(relay.named("internal.error"))


class Field:
    """A relay, its watchers, and what it was before anybody attacked.

    Args:
        relay: Ready.
        watcher: Talking already.
    """

    def __init__(self, relay: Gunicorn, watcher: Watcher) -> None:
        self.relay = relay
        self.watcher = watcher
        self.rss_kib = relay.rss_kib()
        # A probe may be on its way.
        self.descriptors = min(descriptors(relay) for _ in range(20))

    def suffer(self, names: Sequence[str], span_s: float) -> tuple[Reading, str]:
        """Run attacks at once, wait until the relay is itself again, and read.

        Returns: The reading, and a line for the table.
        """
        relay = self.relay
        port = relay.address[1]
        lines, found = relay.output.count("\n"), bugs(relay)
        self.watcher.take()
        peak = Peak(relay)
        with peak.watched(), ThreadPoolExecutor(len(names)) as threads:
            runs = [threads.submit(ATTACKS[name], port, span_s) for name in names]
            done = [run.result() for run in runs]
        left = self._settle()
        seen = self.watcher.take()
        trips, probes = seen["trips"], seen["probes"]
        reading = Reading(
            attack=" + ".join(names),
            done=min(done) and sum(done),
            trips=trips["count"],
            trip_errors=trips["errors"],
            longest_trip_s=trips["longest_s"],
            probes=probes["count"],
            probe_errors=probes["errors"],
            longest_probe_s=probes["longest_s"],
            growth_kib=relay.rss_kib() - self.rss_kib,
            descriptors_left=left,
            lines=relay.output.count("\n") - lines,
            bugs=bugs(relay) - found,
        )
        row = (
            f"{reading.attack[:33]:<33} {reading.done:>7} {reading.trips:>6}"
            f" {reading.longest_trip_s * 1000:>8.0f} {reading.longest_probe_s * 1000:>9.0f}"
            f" {(peak.kib - self.rss_kib) / 1024:>8.1f} {reading.growth_kib / 1024:>8.1f}"
            f" {reading.lines:>6}"
        )
        return reading, row

    def _settle(self) -> int:
        """Wait for the descriptors to be as before; give how many are left over."""
        left = 0

        def is_back() -> bool:
            nonlocal left
            left = descriptors(self.relay) - self.descriptors
            return left <= 0

        try:
            wait_until(is_back, deadline_s=SETTLE_S)
        except AssertionError:
            return left
        return 0


HEADINGS = (
    f"{'attack':<33} {'done':>7} {'trips':>6} {'trip ms':>8} {'health ms':>9}"
    f" {'peak MiB':>8} {'left MiB':>8} {'logged':>6}"
)


def available(names: Sequence[str]) -> list[str]:
    """Leave out the attacks whose program is not here.

    Raises:
        pytest.fail.Exception: One is missing in CI.
    """
    found = []
    for name in names:
        tool = name.split()[0].rstrip(",")
        try:
            if tool in ("slowhttptest", "wrk"):
                program(tool)
        except pytest.skip.Exception as missing:
            print(f"{name}: left out, {missing}")
        else:
            found.append(name)
    return found


def main() -> int:
    """Attack, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a third of a minute")
    parser.add_argument("--only", help="attacks whose name has this in it")
    asked = parser.parse_args()
    groups = SHORT if asked.short else tuple((name,) for name in ATTACKS)
    span_s = SHORT_SPAN_S if asked.short else SPAN_S
    handshake_s = 1 if asked.short else 5
    missed: list[str] = []
    count = 0
    with gunicorn(measured=True, HANDSHAKE_TIMEOUT_S=handshake_s, DRAIN_S=1) as relay:
        # As long a queue as in production, where gunicorn itself listens.
        relay.listener.listen(BACKLOG)
        relay.ready()
        watcher = Watcher(relay.address[1])
        try:
            wait_until(lambda: relay.health()["connected_phones"] == 1)
            wait_until(lambda: watcher.take()["trips"]["count"])
            field = Field(relay, watcher)
            print(HEADINGS, flush=True)
            for group in groups:
                names = available(group)
                if not names or (asked.only and asked.only not in " ".join(names)):
                    continue
                reading, row = field.suffer(names, span_s)
                wrong = misses(reading)
                missed += wrong
                count += len(names)
                print(
                    f"{row}  {'ok' if not wrong else 'MISS: ' + '; '.join(wrong)}",
                    flush=True,
                )
        finally:
            watcher.stop()
    if missed or not count:
        print(f"{count} attacks: the relay did NOT hold, {len(missed)} misses")
        return 1
    print(f"{count} attacks: the relay held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
