"""The judge of the judge's results, on indexes that are made up."""

from __future__ import annotations

import pytest

from tests.autobahn.cases import ALL, COMPRESSION, INFORMATIONAL, NON_STRICT, SHORT
from tests.autobahn.verdict import judge, results_of


def result(behavior: str = "OK", close: str = "OK") -> dict[str, object]:
    """What an index has for one case, as far as it is read."""
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": 1000}


def test_cases_are_all_that_the_judge_has_and_the_short_ones_are_of_every_section() -> (
    None
):
    """301 cases of sections 1 to 7, 9 and 10, 216 on compression; none is left out."""
    assert len(set(ALL)) == len(ALL) == 301 + 216
    assert len(COMPRESSION) == 216
    assert set(SHORT) | NON_STRICT.keys() | INFORMATIONAL.keys() <= set(ALL)
    sections = {case.split(".")[0] for case in ALL}
    assert {case.split(".")[0] for case in SHORT} == sections


def test_judge_of_what_is_as_declared_finds_no_fault_and_counts_it() -> None:
    """OK, and a declared case as it was declared, or OK after all."""
    index = {
        "any agent": {
            "1.1.1": result(),
            "6.4.1": result("NON-STRICT"),
            "6.4.2": result(),
            "7.1.6": result("INFORMATIONAL", "INFORMATIONAL"),
            "12.1.1": result("UNIMPLEMENTED"),
        }
    }
    results = results_of(index)
    verdict = judge(results, tuple(results))
    assert verdict.faults == []
    assert str(verdict) == (
        "autobahn: 5 cases, 2 OK, 1 non-strict as declared, 1 informational, "
        "1 without compression, 0 failed"
    )


@pytest.mark.parametrize(
    ("case", "behavior", "close"),
    [
        ("1.1.1", "FAILED", "OK"),
        ("1.1.1", "OK", "FAILED"),
        ("1.1.1", "OK", "UNCLEAN"),
        ("1.1.1", "OK", "WRONG CODE"),
        ("1.1.1", "OK", "FAILED BY CLIENT"),
        ("1.1.1", "NON-STRICT", "OK"),
        ("1.1.1", "INFORMATIONAL", "INFORMATIONAL"),
        ("1.1.1", "OK", "INFORMATIONAL"),
        ("1.1.1", "UNIMPLEMENTED", "OK"),
        ("6.4.1", "NON-STRICT", "UNCLEAN"),
        ("6.4.1", "FAILED", "OK"),
        ("6.4.1", "INFORMATIONAL", "OK"),
        ("7.1.6", "FAILED", "INFORMATIONAL"),
        ("7.1.6", "INFORMATIONAL", "UNCLEAN"),
        ("12.1.1", "OK", "OK"),
        ("12.1.1", "UNIMPLEMENTED", "UNCLEAN"),
    ],
)
def test_judge_of_a_result_that_is_not_declared_finds_a_fault(
    case: str, behavior: str, close: str
) -> None:
    """A failure, an unclean close, leniency beyond what is declared, compression."""
    verdict = judge({case: result(behavior, close)}, [case])
    (fault,) = verdict.faults
    assert fault.split()[0] == case
    assert behavior in fault
    assert close in fault
    assert str(verdict).endswith("1 failed")


def test_judge_of_a_case_that_did_not_run_finds_a_fault() -> None:
    """What is missing is not forgiven, and neither is all of it."""
    (fault,) = judge({"1.1.1": result()}, ["1.1.1", "1.1.2"]).faults
    assert fault == "1.1.2    did not run"
    assert len(judge({}, ALL).faults) == len(ALL)


def test_judge_of_a_case_that_was_not_asked_for_finds_a_fault() -> None:
    """The list here has to be the judge's own."""
    (fault,) = judge({"1.1.1": result(), "9.9.1": result()}, ["1.1.1"]).faults
    assert fault.startswith("9.9.1")
    assert fault.endswith("was not asked for")
