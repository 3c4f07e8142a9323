"""What a judge's index of results means for the relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.autobahn.cases import COMPRESSION, INFORMATIONAL, NON_STRICT

OK = "OK"

Results = Mapping[str, Mapping[str, Any]]
"""Case → ``behavior``, ``behaviorClose``, ``remoteCloseCode``, and more."""


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        counts: Cases that are as they have to be, by how the judge called them.
        faults: A line for each of the others.
    """

    counts: Mapping[str, int]
    faults: Sequence[str]

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"autobahn: {sum(counts.values()) + len(self.faults)} cases, "
            f"{counts[OK]} OK, "
            f"{counts['NON-STRICT']} non-strict as declared, "
            f"{counts['INFORMATIONAL']} informational, "
            f"{counts['UNIMPLEMENTED']} without compression, "
            f"{len(self.faults)} failed"
        )


def results_of(index: Mapping[str, Results]) -> Results:
    """Take the results out of an index, whatever the judge calls the server."""
    return {case: result for cases in index.values() for case, result in cases.items()}


def judge(results: Results, asked: Sequence[str]) -> Verdict:
    """Judge every case that was asked for, and any other one that ran."""
    counts = dict.fromkeys((OK, "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"), 0)
    faults = []
    for case in [*asked, *sorted(results.keys() - set(asked))]:
        result = results.get(case)
        if result is None:
            faults.append(f"{case:<8} did not run")
            continue
        behavior, close = result["behavior"], result["behaviorClose"]
        if case in asked and _is_fine(case, behavior, close):
            counts[behavior] += 1
            continue
        said = "" if case in asked else "  was not asked for"
        code = result.get("remoteCloseCode")
        faults.append(f"{case:<8} {behavior:<14} close {close:<17} code {code}{said}")
    return Verdict(counts, faults)


def _is_fine(case: str, behavior: str, close: str) -> bool:
    if case in COMPRESSION:
        return (behavior, close) == ("UNIMPLEMENTED", OK)
    if case in INFORMATIONAL and behavior == "INFORMATIONAL":
        return close in (OK, "INFORMATIONAL")
    if case in NON_STRICT and behavior == "NON-STRICT":
        return close == OK
    return behavior == close == OK
