"""``python -m benchmarks``: how much the relay costs, per message, phone and handshake.

Run it from the root of the repository. Everything stays on loopback and ends by
itself. benchmarks/README.md says how to read the result.

``python -m benchmarks fairness`` measures another thing; it has a ``--help`` of its
own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import fairness, report, service
from benchmarks.traffic import Job

MODES = ("pingpong", "up", "down")
SIZES = (128, 4096, 65536)
PHONES = (1, 16)
PUMP_PHONES = (16,)
"""With one phone the floor is the wake-up of an idle process."""

JOB_S = 120.0
"""What no job may take."""

RESULTS = Path(__file__).parent / "results"

OTHERS = {"fairness": fairness.main}
"""What is measured in another way, by its name on the command line."""


def cells(only: Sequence[str]) -> list[str]:
    """List what is to run.

    Args:
        only: Beginnings such as ``pingpong``, ``up/128``, ``pump``, ``relay/down``, ``idle``;
            none for all. A beginning without ``relay`` or ``pump`` takes both.

    Returns: ``relay/pingpong/128/1`` and so on, ``relay/handshake``, ``relay/idle``.
    """
    names = [
        f"{target}/{mode}/{size}/{phones}"
        for mode in MODES
        for size in SIZES
        for phones in PHONES
        for target in ("relay", "pump")
        if target == "relay" or phones in PUMP_PHONES
    ]
    names += ["relay/handshake", "relay/idle"]
    return [
        name for name in names if not only or any(_begins(name, part) for part in only)
    ]


def _begins(name: str, part: str) -> bool:
    whole, tail = name + "/", name.partition("/")[2] + "/"
    return whole.startswith(part.rstrip("/") + "/") or tail.startswith(
        part.rstrip("/") + "/"
    )


def run_job(job: Job, core: int | None) -> dict[str, Any]:
    """Run the load generator in a process of its own.

    Raises:
        subprocess.CalledProcessError: It failed; its traceback is on standard error.
    """
    with service.kept_on(core):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(job))],
            cwd=service.ROOT,
            stdout=subprocess.PIPE,
            timeout=JOB_S,
            check=True,
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="half a minute, only to see it work"
    )
    parser.add_argument(
        "--rounds", type=int, help="repetitions of each cell (3; quick: 1)"
    )
    parser.add_argument(
        "--seconds", type=float, help="loaded interval of a cell (1.5; quick: 0.4)"
    )
    parser.add_argument("--phones", type=int, help="idle phones (2000; quick: 500)")
    parser.add_argument(
        "--handshakes", type=int, help="upgrade cycles (2000; quick: 500)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="instead of results/<date>.json"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELL",
        help="such as pingpong/128, down, pump, handshake, idle; may be given again",
    )
    found = parser.parse_args(argv)
    quick = found.quick
    for name, usual, in_haste in (
        ("rounds", 3, 1),
        ("seconds", 1.5, 0.4),
        ("phones", 2000, 500),
        ("handshakes", 2000, 500),
    ):
        if getattr(found, name) is None:
            setattr(found, name, in_haste if quick else usual)
        elif not 0 < getattr(found, name) <= 20000:
            parser.error(f"--{name} must be above 0 and at most 20000")
    if found.seconds > 60:
        parser.error("--seconds must be at most 60")
    if not cells(found.only):
        parser.error("--only names no cell")
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all cells, round by round, so that a slow minute of the machine hits all alike.

    Returns: Name of a cell → ``report.summary`` of its rounds.
    """
    cores = sorted(os.sched_getaffinity(0))
    served, loaded = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    names = cells(options.only)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    warmup_s = min(0.3, options.seconds)
    with ExitStack() as stack:
        running: dict[str, service.Service] = {}
        for target, start in (("relay", service.relay), ("pump", service.pump)):
            if any(name.startswith(target) for name in names):
                running[target] = stack.enter_context(start(served))
        for number in range(options.rounds):
            for name in names:
                target, mode, *rest = name.split("/")
                if mode == "idle":
                    continue
                size, phones = (int(part) for part in rest or (0, options.handshakes))
                at = running[target]
                job = Job(
                    mode,
                    target,
                    at.port,
                    list(at.pids),
                    phones,
                    size,
                    options.seconds,
                    warmup_s,
                )
                _progress(f"round {number + 1} of {options.rounds}: {name}")
                rounds[name].append(run_job(job, loaded))
    if "relay/idle" in rounds:
        for number in range(options.rounds):
            # A process of its own: memory that was used before would hide the phones.
            with service.relay(served) as fresh:
                _progress(
                    f"round {number + 1} of {options.rounds}: {options.phones} idle phones"
                )
                job = Job("idle", "relay", fresh.port, list(fresh.pids), options.phones)
                rounds["relay/idle"].append(run_job(job, loaded))
    _progress("")
    return {name: report.summary(found) for name, found in rounds.items()}


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write. Returns: 1 if anything arrived otherwise than it was sent."""
    name, *rest = sys.argv[1:] or [""]
    if name in OTHERS:
        return OTHERS[name](rest)
    options = arguments()
    began = datetime.now().astimezone()
    settings = {"rounds": options.rounds, "seconds per cell": options.seconds}
    where = report.machine()
    report.show_head(settings, where)
    results = measure(options)
    report.show(results)
    file = options.json or RESULTS / f"{began:%Y-%m-%dT%H-%M-%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "date": began.isoformat(timespec="seconds"),
        "machine": where,
        "settings": settings,
        "cells": results,
    }
    file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {file}")
    return 1 if report.faults(results) else 0


if __name__ == "__main__":
    sys.exit(main())
