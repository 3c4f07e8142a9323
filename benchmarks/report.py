"""What the rounds gave: least and median of each figure, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

FAULTS = ("lost", "reordered", "repeated", "corrupt")
PACKAGES = ("gevent", "greenlet", "gunicorn", "flask", "msgspec", "websockets")

_TRAFFIC_HEAD = (
    f"{'cell':<21}{'msg/s':>9}{'CPU µs/msg':>12}{'least':>8}{'user':>7}{'system':>8}"
    f"{'× pump':>8}{'busy':>6}{'load':>6}{'p50 µs':>9}{'p99 µs':>9}{'faults':>8}"
)

Round = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Describe where and with what this ran."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str | None:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or None


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Give the median of each figure, its least where less is better, and all faults.

    Shape: ``{"median": {…}, "least": {…}, "faults": {…}, "rounds": […]}``
    """
    names = [
        name
        for name, value in rounds[0].items()
        if isinstance(value, int | float) and name not in FAULTS
    ]
    return {
        "median": {name: statistics.median(r[name] for r in rounds) for name in names},
        "least": {name: min(r[name] for r in rounds) for name in names},
        "faults": {name: sum(r.get(name, 0) for r in rounds) for name in FAULTS},
        "rounds": list(rounds),
    }


def faults(cells: Mapping[str, Mapping[str, Any]]) -> int:
    """Count everything that did not arrive as it was sent."""
    return sum(sum(cell["faults"].values()) for cell in cells.values())


def show_head(settings: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Print what is about to run."""
    packages = ", ".join(
        f"{name} {number}" for name, number in where["packages"].items()
    )
    print(
        f"{where['processor']}, {where['processors']} processors, Linux {where['kernel']}"
    )
    print(f"Python {where['python']}, {packages}")
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    sys.stdout.flush()


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the tables.

    Args:
        results: Name of a cell, ``relay/…`` or ``pump/…`` → its ``summary``.
    """
    traffic = {
        name: cell for name, cell in results.items() if "messages" in cell["median"]
    }
    if traffic:
        print(f"\nTraffic: medians, and the least µs\n{_TRAFFIC_HEAD}")
    for name, cell in traffic.items():
        print(_traffic_row(name, cell, _floor(name, results)))
    for cell in results.values():
        middle, least = cell["median"], cell["least"]
        if "cycles" in middle:
            print(
                f"\nHandshake (connect, upgrade, close): CPU µs {middle['cpu_us']:.0f}, "
                f"least {least['cpu_us']:.0f} (user {middle['user_us']:.0f}, "
                f"system {middle['system_us']:.0f}); {middle['cycles_per_s']:.0f} a second"
            )
        if "kib_per_phone" in middle:
            print(
                f"\nIdle: {middle['phones']:.0f} phones over {middle['server_ids']:.0f} server-ids: "
                f"{middle['kib_per_phone']:.1f} KiB a phone "
                f"(the second half of them {middle['kib_per_phone_second_half']:.1f})\n"
                f"  RSS before {middle['rss_before_kib'] / 1024:.1f} MiB, "
                f"with {middle['rss_with_kib'] / 1024:.1f}, "
                f"after {middle['rss_after_kib'] / 1024:.1f}; "
                f"{middle['idle_busy']:.2%} of a core while nobody speaks"
            )
    wrong = faults(results)
    print(f"\n{'FAULTS: ' if wrong else 'lost, reordered, repeated, corrupt: '}{wrong}")


def _floor(name: str, results: Mapping[str, Mapping[str, Any]]) -> float | None:
    kind, _, cell = name.partition("/")
    pump = results.get(f"pump/{cell}")
    return pump["least"]["cpu_us"] if kind == "relay" and pump is not None else None


def _traffic_row(name: str, cell: Mapping[str, Any], floor_us: float | None) -> str:
    middle, least = cell["median"], cell["least"]
    ratio = "" if floor_us is None else f"{least['cpu_us'] / floor_us:.2f}"
    p50, p99 = (
        f"{middle[key]:.0f}" if key in middle else "" for key in ("p50_us", "p99_us")
    )
    return (
        f"{name:<21}{middle['messages_per_s']:>9.0f}{middle['cpu_us']:>12.2f}"
        f"{least['cpu_us']:>8.2f}{middle['user_us']:>7.2f}{middle['system_us']:>8.2f}"
        f"{ratio:>8}{middle['busy']:>6.0%}{middle['generator_busy']:>6.0%}"
        f"{p50:>9}{p99:>9}{sum(cell['faults'].values()):>8}"
    )
