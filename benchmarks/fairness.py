"""``python -m benchmarks fairness``: what one phone that floods costs all the others.

In one run, on one relay: some phones play ping-pong with their binary, alone, and then
beside a phone of the same binary that sends as much as the relay takes. That is done
with a binary that reads as fast as it can, with one that reads a bounded number of
bytes a second, and with one that needs time for every message. Meanwhile a pair on
another server-id plays as well, and somebody asks for the health. At last a crowd of
phones floods binaries of their own.

Every byte of the ping-pong and of the single flooder is compared. The exit status is 1
if one was not as it was sent, or if the health took longer than a second.

The relay has one core. All that plays by the clock is one process on another, the
neighbours and the crowd are processes of their own. So a round trip includes what the
generator itself needs for a flood, and the numbers are an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import dial, report, service
from benchmarks.flood import BINARIES, SIZE, Phase
from benchmarks.helpers import Samples, helper

NEIGHBOUR_PAUSE_S = 0.005
HEALTH_PAUSE_S = 0.05
HEALTH_MOST_S = 1.0
"""What the health may take; more is a fault."""


class Watch:
    """A pair on another server-id, and somebody who asks for the health.

    Args:
        port: Of the relay.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.pair, self.health = Samples(), Samples()
        self.faults = 0
        self._over = threading.Event()
        jobs = (self._play, self._ask_for_health)
        self._threads = [threading.Thread(target=self._run, args=[job]) for job in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both, after what they are at."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, job: Any) -> None:
        try:
            job()
        except OSError as fault:
            print(f"a neighbour failed: {fault!r}", file=sys.stderr)
            self.faults += 1

    def _play(self) -> None:
        (binary, (phone,)), wire = dial.dial_relay(
            self.port, f"neighbour-{os.getpid()}", 1, SIZE
        )
        with binary, phone:
            number = 0
            while not self._over.wait(NEIGHBOUR_PAUSE_S):
                began = time.perf_counter()
                phone.sendall(wire.phone_sends(0, number))
                up = wire.binary_sees(0, number)
                self.faults += dial.read_exactly(binary, len(up)) != up
                binary.sendall(wire.binary_sends(0, number))
                down = wire.phone_sees(0, number)
                self.faults += dial.read_exactly(phone, len(down)) != down
                self.pair.add(began)
                number += 1

    def _ask_for_health(self) -> None:
        while not self._over.wait(HEALTH_PAUSE_S):
            began = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", self.port, timeout=dial.WAIT_S)
            connection.request("GET", "/healthz")
            self.faults += connection.getresponse().status != 200
            connection.close()
            self.health.add(began)


def phases(options: argparse.Namespace) -> list[Phase]:
    """List what is to be measured, each group behind its own "alone"."""
    rest = (options.seconds, options.slow_mb, options.busy_us, options.pause_ms)
    found = [
        Phase(binary, flood, 0, *rest)
        for binary in options.binaries
        for flood in (0, *options.sizes)
    ]
    if options.crowd:
        found.append(Phase("fast", 0, options.crowd, *rest))
    return found


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all phases on one relay.

    Returns: For each its name, settings, and what each group saw.
    """
    cores = sorted(os.sched_getaffinity(0))
    served, others = (cores[0], set(cores[1:])) if len(cores) > 1 else (None, None)
    generator = "benchmarks.flood"
    found: list[dict[str, Any]] = []
    with service.relay(served) as relay:
        port = str(relay.port)
        words = (generator, "play", port, str(options.phones), *map(str, relay.pids))
        with helper(*words, cores=others) as player:
            watch = Watch(relay.port)
            try:
                for phase in phases(options):
                    found.append({"name": phase.name, **asdict(phase)})
                    if phase.crowd:
                        size = str(phase.crowd)
                        with helper(generator, "crowd", port, size, cores=others):
                            player.tell(asdict(phase))
                            found[-1] |= player.hear()
                    else:
                        player.tell(asdict(phase))
                        found[-1] |= player.hear()
            finally:
                watch.stop()
    alone: dict[str, dict[str, Any]] = {}
    for one in found:
        span = one.pop("began"), one.pop("ended")
        one["pair"] = watch.pair.within(*span)
        one["health"] = watch.health.within(*span)
    found[-1]["faults"]["corrupt"] += watch.faults
    for one in found:
        if not one["flood"] and not one["crowd"]:
            alone[one["binary"]] = one
        base = alone.get(one["binary"], one)
        one["ratio"] = {
            group: {
                figure: one[group][figure] / base[group][figure]
                for figure in ("p50_ms", "p99_ms", "max_ms")
                if base[group][figure]
            }
            for group in ("polite", "pair")
        }
    return found


def faults(found: Sequence[dict[str, Any]]) -> int:
    """Count what was not as it was sent, and health that came too late."""
    wrong = 0
    for one in found:
        wrong += sum(one["faults"].values())
        wrong += one["health"]["max_ms"] > HEALTH_MOST_S * 1000
        wrong += not one["polite"]["count"]
    return wrong


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    groups = ("polite", "pair", "health")
    head = "".join(f"{name + ' p50':>12}{'p99':>8}{'max':>8}" for name in groups)
    print(
        f"\n{'round trips in ms':<20}{'flood msg/s':>12}{'busy':>6}{'load':>6}"
        f"{'unread':>8}{head}   × alone: polite, pair"
    )
    for one in found:
        figures = "".join(
            f"{one[name]['p50_ms']:>12.2f}{one[name]['p99_ms']:>8.2f}{one[name]['max_ms']:>8.1f}"
            for name in groups
        )
        ratios = "  ".join(
            "/".join(f"{value:.1f}" for value in one["ratio"][name].values())
            for name in ("polite", "pair")
        )
        print(
            f"{one['name']:<20}{one['flood_messages_per_s']:>12.0f}"
            f"{one['relay_busy']:>6.0%}{one['generator_busy']:>6.0%}"
            f"{one['binary_unread_kib']:>8.0f}{figures}   {ratios}"
        )
    wrong = faults(found)
    print(f"\n{'FAULTS: ' if wrong else 'lost, changed, late health: '}{wrong}")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks fairness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="busy, load: how much of their cores the relay and the generator used. "
        "unread: most KiB that lay unread in the binary's own kernel buffer, which no "
        "relay can pass. The last columns are p50/p99/max as multiples of the same "
        "binary's phase without a flooder, of the same run.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=2.0, help="each phase is measured (2)")
    add("--phones", type=int, default=15, help="polite phones (15)")
    add("--sizes", type=int, nargs="*", default=[128, 4096, 65536], metavar="BYTES")
    add("--binaries", nargs="+", choices=BINARIES, default=list(BINARIES))
    add("--slow-mb", type=float, default=20.0, help="a second, of a slow binary (20)")
    add("--busy-us", type=float, default=50.0, help="a message, of a busy binary (50)")
    add("--pause-ms", type=float, default=0.0, help="of a polite phone (0)")
    add("--crowd", type=int, default=500, help="flooders of the last phase; 0 for none")
    add("--json", type=Path, metavar="FILE", help="write everything there as well")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Measure, print. Returns: 1 for a fault."""
    options = arguments(argv)
    began = datetime.now().astimezone()
    where = report.machine()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    report.show_head(settings, where)
    found = measure(options)
    show(found)
    if options.json is not None:
        document = {
            "date": began.isoformat(timespec="seconds"),
            "machine": where,
            "settings": settings,
            "phases": found,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if faults(found) else 0
