"""The judge of the attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.abuse.verdict import Reading, misses

FINE = Reading(
    attack="any",
    done=1,
    trips=1,
    trip_errors=0,
    longest_trip_s=1.0,
    probes=1,
    probe_errors=0,
    longest_probe_s=1.0,
    growth_kib=32 * 1024,
    descriptors_left=0,
    lines=10,
    bugs=0,
)


def test_misses_of_a_reading_at_every_limit_are_none() -> None:
    """Exactly the limit passes; less than before does too."""
    assert misses(FINE) == []
    assert misses(replace(FINE, growth_kib=-5, descriptors_left=-1)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"done": 0, "lines": 0},
        {"trips": 0},
        {"trip_errors": 1},
        {"longest_trip_s": 1.01},
        {"probes": 0},
        {"probe_errors": 1},
        {"longest_probe_s": 1.01},
        {"growth_kib": 32 * 1024 + 1},
        {"descriptors_left": 1},
        {"lines": 11},
        {"bugs": 1},
    ],
)
def test_misses_of_a_reading_past_one_limit_name_it(change: dict[str, Any]) -> None:
    """Each promise alone makes an attack a miss, and so does a watcher that slept."""
    assert len(misses(replace(FINE, **change))) == 1
