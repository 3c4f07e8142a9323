"""The sweep: how often, what it survives, and when it judges nobody."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from relay_app.core.config import Config
from relay_app.transport import sweeper
from relay_app.transport.connection import Pool
from relay_app.transport.sweeper import Sweeper, period_s
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, 1.0),
        ({"grace_period_s": 0.0}, 1.0),
        ({"grace_period_s": 0.5}, 0.1),
        ({"conflict_probe_s": 0.05}, 0.02),
    ],
)
def test_period_follows_the_shortest_span(
    overrides: dict[str, float], expected: float
) -> None:
    """Five looks within the shortest span, at most one a second; 0 means off."""
    assert period_s(Config(**overrides)) == expected


class Stub:
    """A connection as far as the sweep looks."""

    def __init__(self, due_at: float) -> None:
        self.due_at = due_at
        self.checks: list[float] = []
        self.cuts = 0
        self.broken = False

    def check(self, now: float) -> None:
        if self.broken:
            raise RuntimeError("a bug")
        self.checks.append(now)

    def cut(self) -> None:
        self.cuts += 1


def make(*stubs: Any, tick: Any = lambda now: None) -> Sweeper:
    """A sweeper over stubs."""
    pool = Pool(Config(grace_period_s=0.1))
    pool.connections.update(stubs)
    return Sweeper(pool, tick)


def test_sweep_looks_only_at_what_is_due() -> None:
    """A comparison for all but a few."""
    due, later = Stub(10.0), Stub(10.1)
    make(due, later).sweep(10.0)
    assert (due.checks, later.checks) == ([10.0], [])


def test_sweep_survives_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    """A connection whose check fails is cut; a tick that fails is logged."""
    broken, good = Stub(0.0), Stub(0.0)
    broken.broken = True

    def tick(now: float) -> None:
        raise RuntimeError(now)

    make(broken, good, tick=tick).sweep(1.0)
    assert (broken.cuts, good.checks) == (1, [1.0])
    lines = [json.loads(line)["where"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["sweep", "tick"]


def test_sweep_that_comes_late_judges_nobody_but_never_twice_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a stop of the process the readers have one turn first, and only one."""
    ticks: list[float] = []
    swept = make(tick=ticks.append)
    monkeypatch.setattr(sweeper, "LATE_S", -1.0)
    rounds: list[int] = []

    def counted(seconds: float) -> None:
        rounds.append(len(ticks))
        gevent.sleep(0)

    stand_in = SimpleNamespace(sleep=counted, spawn=gevent.spawn)
    monkeypatch.setattr(sweeper, "gevent", stand_in)
    swept.start()
    wait_until(lambda: len(rounds) > 6)
    swept.stop()
    swept.stop()
    assert rounds[:6] == [0, 0, 1, 1, 2, 2]
