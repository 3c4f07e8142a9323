"""What an attack may do to the relay, and what it may not."""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEALTH_S = 1.0
MAX_TRIP_S = 1.0
MAX_GROWTH_KIB = 32 * 1024
MAX_LINES = 10
"""Lines of the log for each connection or request, whatever it does."""


@dataclass(frozen=True)
class Reading:
    """What was seen while one attack ran, and once it was over.

    Attributes:
        attack: Its name.
        done: Connections or requests that the attack made.
        trips: Round trips of the well-behaved pair.
        trip_errors: How often the pair lost its connection or its message.
        longest_trip_s: The longest of them, one that was under way counted.
        probes: Answers of ``/healthz``.
        probe_errors: How often there was none, or another than 200.
        longest_probe_s: The longest wait for one.
        growth_kib: Resident memory of the worker, after the attack, over the start.
        descriptors_left: Descriptors of the worker, after it, over those before.
        lines: Lines of the log.
        bugs: Tracebacks and ``internal.error`` events.
    """

    attack: str
    done: int
    trips: int
    trip_errors: int
    longest_trip_s: float
    probes: int
    probe_errors: int
    longest_probe_s: float
    growth_kib: int
    descriptors_left: int
    lines: int
    bugs: int


def misses(reading: Reading) -> list[str]:
    """Say in words what did not hold; nothing where all did.

    A watcher that saw nothing, or an attack that did nothing, is a miss as well.
    """
    checks = {
        "an attack did nothing": reading.done < 1,
        "the pair made no round trip": reading.trips < 1,
        f"the pair saw {reading.trip_errors} errors": reading.trip_errors > 0,
        f"a round trip took {reading.longest_trip_s:.2f} s": (
            reading.longest_trip_s > MAX_TRIP_S
        ),
        "nobody looked at /healthz": reading.probes < 1,
        f"/healthz failed {reading.probe_errors} times": reading.probe_errors > 0,
        f"/healthz took {reading.longest_probe_s:.2f} s": (
            reading.longest_probe_s > MAX_HEALTH_S
        ),
        f"memory grew by {reading.growth_kib // 1024} MiB": (
            reading.growth_kib > MAX_GROWTH_KIB
        ),
        f"{reading.descriptors_left} descriptors are left": reading.descriptors_left
        > 0,
        f"{reading.lines} lines in the log": reading.lines > MAX_LINES * reading.done,
        f"{reading.bugs} bugs in the log": reading.bugs > 0,
    }
    return [words for words, is_missed in checks.items() if is_missed]
