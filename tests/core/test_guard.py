"""The guard: each row of its table, the message to the letter, the bypass."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import guard
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import CERTAIN, Facts, Level, Verdict, judge

FIRST_LINE = (
    "ERROR: multi-instance deploy detected, relay registry is in-memory and cannot share "
    "state across replicas. Set PYRYCODE_RELAY_SINGLE_INSTANCE=1 to bypass "
    "(NOT recommended for production)."
)
ASSERTED = {"PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "true"}
BYPASS = {"PYRYCODE_RELAY_SINGLE_INSTANCE": "1"}
PRODUCTION = {"PYRYCODE_RELAY_PRODUCTION": "1"}
FLY = {"FLY_APP_NAME": "a"}
HEROKU = {"DYNO": "web.1"}


def verdict(environ: dict[str, str], **facts: Any) -> Verdict:
    """Judge an environment, with one worker unless said otherwise."""
    facts.setdefault("workers", 1)
    return judge(Facts(environ=environ, config=Config.from_environ(environ), **facts))


@pytest.mark.parametrize(
    ("environ", "facts", "level", "codes"),
    [
        ({}, {}, Level.FINE, ()),
        ({}, {"workers": None}, Level.FINE, ()),
        (FLY | {"RELEASE_COMMAND": "1"}, {"workers": 9}, Level.FINE, ("SI-001",)),
        ({"DYNO": "run.1"}, {}, Level.FINE, ("SI-001",)),
        (PRODUCTION, {"serving": False, "workers": 9}, Level.FINE, ("SI-001",)),
        ({}, {"workers": 2}, Level.REFUSE, ("SI-101",)),
        ({}, {"workers": 0}, Level.REFUSE, ("SI-101",)),
        (BYPASS | ASSERTED, {"workers": 2}, Level.REFUSE, ("SI-101",)),
        ({"WEB_CONCURRENCY": "2"}, {}, Level.FINE, ("SI-101w",)),
        ({"WEB_CONCURRENCY": "2"}, {"workers": 2}, Level.REFUSE, ("SI-101",)),
        ({"WEB_CONCURRENCY": "1"}, {}, Level.FINE, ()),
        ({"WEB_CONCURRENCY": "many"}, {}, Level.FINE, ()),
        ({"WEB_CONCURRENCY": "9" * 5000}, {}, Level.FINE, ("SI-101w",)),
        ({}, {"siblings": (7, 8)}, Level.REFUSE, ("SI-104",)),
        (BYPASS, {"siblings": (7,)}, Level.REFUSE, ("SI-104",)),
        ({"PYRYCODE_RELAY_REPLICAS": "1"}, {}, Level.FINE, ()),
        ({"PYRYCODE_RELAY_REPLICAS": "2"}, {}, Level.REFUSE, ("SI-202",)),
        (ASSERTED | {"PYRYCODE_RELAY_REPLICAS": "2"}, {}, Level.REFUSE, ("SI-202",)),
        (BYPASS | {"PYRYCODE_RELAY_REPLICAS": "2"}, {}, Level.WARN, ("SI-202",)),
        (FLY, {}, Level.REFUSE, ("SI-401",)),
        (HEROKU, {}, Level.REFUSE, ("SI-401",)),
        (PRODUCTION, {}, Level.REFUSE, ("SI-401",)),
        (PRODUCTION | ASSERTED, {}, Level.FINE, ("SI-402",)),
        (FLY | ASSERTED, {}, Level.FINE, ("SI-402",)),
        (HEROKU | ASSERTED, {}, Level.FINE, ("SI-402",)),
        (HEROKU | BYPASS, {}, Level.WARN, ("SI-401",)),
        (
            FLY | {"PYRYCODE_RELAY_REPLICAS": "3"},
            {},
            Level.REFUSE,
            ("SI-202", "SI-401"),
        ),
    ],
)
def test_judge_row(
    environ: dict[str, str], facts: dict[str, Any], level: Level, codes: tuple[str, ...]
) -> None:
    """One row of the table: what is set, what follows."""
    found = verdict(environ, **facts)
    assert (found.level, found.codes) == (level, codes)


def test_message_first_line_is_to_the_letter() -> None:
    """The line that an operator searches for, then three lines."""
    lines = verdict({"PYRYCODE_RELAY_REPLICAS": "2"}).message().splitlines()
    assert lines[0] == FIRST_LINE
    assert len(lines) == 4
    assert "PYRYCODE_RELAY_REPLICAS says 2 replicas [SI-202]" in lines[1]
    assert "4404" in lines[2]
    assert lines[3].startswith("Fix: ")


@pytest.mark.parametrize("facts", [{"workers": 2}, {"siblings": (7,)}])
def test_message_of_two_workers_offers_no_bypass(facts: dict[str, Any]) -> None:
    """What is wrong with certainty has no last sentence."""
    text = verdict({}, **facts).message()
    assert text.splitlines()[0] == FIRST_LINE.partition(" Set ")[0]
    assert "SINGLE_INSTANCE=1" not in text


def test_message_names_the_fix_of_this_platform_and_the_other_refusals() -> None:
    """The first refusal in full, the others as one line each."""
    text = verdict(HEROKU | {"PYRYCODE_RELAY_REPLICAS": "3"}).message()
    assert text.splitlines()[3].startswith("Fix: heroku ps:scale web=1")
    assert text.splitlines()[4].startswith("Also: Heroku")
    assert "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE=true" in text


def test_message_without_a_refusal_is_our_own_bug() -> None:
    """Only a refusal has a message."""
    with pytest.raises(AssertionError):
        verdict({}).message()


def test_bypassed_refusal_is_loud() -> None:
    """The warning says that it is a bypass."""
    (finding,) = verdict(HEROKU | BYPASS).findings
    assert finding.seen.startswith("BYPASSED by PYRYCODE_RELAY_SINGLE_INSTANCE")


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        (["-c", "x", "--workers", "2"], {}, "command line"),
        (["--workers=2"], {}, "command line"),
        (["-w2"], {}, "command line"),
        ([], {"GUNICORN_CMD_ARGS": "-c x -w 2"}, "GUNICORN_CMD_ARGS"),
        (["-c", "x"], {}, "configuration file"),
    ],
)
def test_workers_from_says_where_the_number_comes_from(
    argv: list[str], environ: dict[str, str], words: str
) -> None:
    """The operator is sent to the right place."""
    assert words in guard.workers_from(argv, environ)


ENVIRONMENTS = st.dictionaries(
    st.sampled_from(
        [
            "PYRYCODE_RELAY_REPLICAS",
            "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE",
            "PYRYCODE_RELAY_PRODUCTION",
            "FLY_APP_NAME",
            "DYNO",
            "RELEASE_COMMAND",
            "WEB_CONCURRENCY",
            "STRAY",
        ]
    ),
    st.sampled_from(["1", "2", "true", "web.1", "web.x", "run.2", "", "x y", "٣"]),
)


@given(ENVIRONMENTS, st.integers(0, 3), st.booleans())
def test_judge_any_environment(
    environ: dict[str, str], workers: int, sibling: bool
) -> None:
    """Never raises, is deterministic, names code and fix; the bypass only ever softens."""
    facts: dict[str, Any] = {"workers": workers, "siblings": (7,) if sibling else ()}
    try:
        found = verdict(environ, **facts)
    except ConfigError:
        return
    assert found == verdict(environ, **facts)
    for finding in found.refused:
        assert finding.code.startswith("SI-") and finding.fix
    bypassed = verdict(environ | BYPASS, **facts)
    assert bypassed.level <= found.level
    certain = {finding.code for finding in found.refused} & CERTAIN
    assert certain <= {finding.code for finding in bypassed.refused}
