"""``python -m tests.autobahn``: let Autobahn|Testsuite judge the relay's transport.

Run it from the root of the repository. A real gunicorn serves the echo, and the judge's
fuzzing client tries every case on it, or with ``--short`` those that cost little. The
first run fetches the judge from PyPI. The exit code is 1 if a case is not as it has to be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.autobahn.cases import ALL, SHORT
from tests.autobahn.echo import PATH
from tests.autobahn.judges import AUTOBAHN, KOSOKU, REPORTS, Judge, JudgeFailed
from tests.autobahn.verdict import Verdict, judge, results_of
from tests.e2e.gunicorn import ROOT, Gunicorn, gunicorn
from tests.waiting import wait_until

LARGEST_BYTES = 16 << 20
"""The largest message of part 9."""

APP = "tests.autobahn.echo:create_app()"


def descriptors(relay: Gunicorn) -> int:
    """Count the worker's open descriptors."""
    (worker,) = relay.workers()
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


def faults_of(relay: Gunicorn, before: int) -> list[str]:
    """Say what the relay itself shows of its peers' faults: nothing, if all is well.

    Args:
        relay: After the judge is done.
        before: Its descriptors, before.
    """
    faults = []
    if relay.named("internal.error") or "Traceback" in relay.output:
        faults.append("the relay has logged a bug of its own")
    try:
        wait_until(lambda: descriptors(relay) <= before)
    except AssertionError:
        faults.append(f"{descriptors(relay) - before} descriptors are left")
    return faults


def try_relay(judges: Judge, asked: tuple[str, ...]) -> tuple[Verdict, list[str]]:
    """Start the echo, and let it be judged.

    Returns: What the judge found, and what the relay itself shows.

    Raises:
        JudgeFailed: There is no result.
    """
    with gunicorn(
        APP, measured=True, MAX_FRAME_BYTES=LARGEST_BYTES, DRAIN_S=1
    ) as relay:
        relay.ready()
        before = descriptors(relay)
        index = judges.try_cases(relay.url + PATH, asked)
        return judge(results_of(index), asked), faults_of(relay, before)


def main() -> int:
    """Judge, and say how it went."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.autobahn", description=__doc__
    )
    parser.add_argument("--short", action="store_true", help="half a minute at most")
    parser.add_argument("--judge", choices=(AUTOBAHN, KOSOKU), help="and no other one")
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="only these: 6.4.1 9.3.1"
    )
    said = parser.parse_args()
    asked = tuple(said.cases) or (SHORT if said.short else ALL)
    unknown = set(asked) - set(ALL)
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    try:
        judges = Judge(said.judge)
        print(f"judge: {judges.name}", flush=True)
        verdict, own = try_relay(judges, asked)
    except JudgeFailed as fault:
        print(fault)
        return 1
    for line in [*verdict.faults, *own]:
        print(f"  {line}")
    if verdict.faults:
        print(f"  each case has its page in {REPORTS.relative_to(ROOT)}/")
    print(verdict)
    return 1 if verdict.faults or own else 0


if __name__ == "__main__":
    sys.exit(main())
