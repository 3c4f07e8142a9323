"""The guard: each row of its table, the message to the letter, the bypass."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import guard
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import (
    Facts,
    Holder,
    Level,
    LockReport,
    LockState,
    Verdict,
    judge,
)
from relay_app.core.guard_codes import CODES
from relay_app.core.neighbours import Look, Neighbour
from relay_app.core.platforms import ROWS, Platform

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
        (["-c", "x"], {}, "the configuration file"),
        ([], {"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY or the configuration file"),
        ([], {"WEB_CONCURRENCY": "3"}, "the configuration file"),
    ],
)
def test_workers_from_says_where_the_number_comes_from(
    argv: list[str], environ: dict[str, str], words: str
) -> None:
    """The operator is sent to the right place."""
    assert words in guard.workers_from(argv, environ, 2)


POD = Neighbour("pod of a StatefulSet", 2, Look.NAME, ("relay-1.relay",), "kubectl")
UNIT = Neighbour("instance of a systemd template", 2, Look.UNIT, ("r@1.service",), "it")
OURS = LockReport(LockState.OURS, "the state directory")
BY_HOST = LockReport(LockState.OURS, "the state directory", by_public_host=True)
THEIRS = LockReport(
    LockState.THEIRS,
    "the state directory",
    Holder(4711, "vps", "2026-01-02T03:04:05Z", "1.0"),
)
UNUSABLE = [
    LockReport(state, "the state directory")
    for state in (LockState.FORBIDDEN, LockState.UNSUPPORTED, LockState.UNENFORCED)
]


@pytest.mark.parametrize(
    ("facts", "level", "codes"),
    [
        ({"lock": OURS}, Level.FINE, ()),
        ({"lock": None}, Level.FINE, ()),
        ({"lock": THEIRS}, Level.REFUSE, ("SI-102",)),
        ({"lock": LockReport(LockState.THEIRS)}, Level.REFUSE, ("SI-102",)),
        *[({"lock": lock}, Level.WARN, ("SI-601",)) for lock in UNUSABLE],
        ({"neighbours": ((POD, True),)}, Level.REFUSE, ("SI-203",)),
        ({"neighbours": ((POD, False),)}, Level.WARN, ("SI-203",)),
        ({"neighbours": ((UNIT, True),)}, Level.REFUSE, ("SI-203",)),
        ({"neighbours": ((UNIT, True),), "lock": OURS}, Level.REFUSE, ("SI-203",)),
        ({"neighbours": ((UNIT, True),), "lock": BY_HOST}, Level.WARN, ("SI-203",)),
        ({"neighbours": ((POD, True),), "lock": BY_HOST}, Level.REFUSE, ("SI-203",)),
        (
            {"neighbours": ((POD, False), (UNIT, True))},
            Level.REFUSE,
            ("SI-203", "SI-203"),
        ),
    ],
)
def test_judge_what_was_found_outside_the_environment(
    facts: dict[str, Any], level: Level, codes: tuple[str, ...]
) -> None:
    """The lock and the lower neighbours."""
    found = verdict({}, **facts)
    assert (found.level, found.codes) == (level, codes)


def test_held_lock_names_its_holder_and_is_not_bypassed() -> None:
    """Pid, host and start, for the operator at three in the morning."""
    found = verdict(BYPASS, lock=THEIRS)
    assert found.level is Level.REFUSE
    seen = found.message().splitlines()[1]
    for word in ("4711", "vps", "2026-01-02T03:04:05Z", "1.0", "[SI-102]"):
        assert word in seen


def test_holder_that_is_not_known_is_said_so() -> None:
    """A file that was emptied still makes a sentence."""
    assert str(Holder()) == "a process that gave no number on this host"
    assert "still draining" in str(Holder(7, "vps", orphaned=True))


def test_unusable_lock_has_three_texts() -> None:
    """Whoever reads one knows which of the three it is."""
    texts = {verdict({}, lock=lock).findings[0].seen for lock in UNUSABLE}
    assert {text.partition(":")[0] for text in texts} == {
        "no permission",
        "not supported",
        "not enforced",
    }


def test_neighbour_is_bypassed_loudly() -> None:
    """A migration window may overlap."""
    found = verdict(BYPASS, neighbours=((POD, True),))
    assert found.level is Level.WARN
    assert found.findings[0].seen.startswith("BYPASSED")


def test_refusal_fits_a_screen() -> None:
    """Even when everything is wrong at once."""
    environ = {
        "DYNO": "web.2",
        "NOMAD_ALLOC_INDEX": "3",
        "KOYEB_REPLICA_INDEX": "2",
        "PYRYCODE_RELAY_REPLICAS": "2",
        "CLOUD_RUN_TASK_COUNT": "2",
    }
    text = verdict(
        environ, workers=4, siblings=(1, 2), lock=THEIRS, neighbours=((POD, True),)
    ).message()
    assert len(text.splitlines()) <= 24
    assert all(len(line) <= 400 for line in text.splitlines())


# Any environment

PLATFORMS_OWN = sorted(
    {name for row in ROWS for name, _ in row.example}
    | {row.ordinal.variable for row in ROWS if row.ordinal}
    | {name for row in ROWS if row.ordinal for name in row.ordinal.needs}
    | {row.count.variable for row in ROWS if row.count}
    | {row.ordinal.twin for row in ROWS if row.ordinal and row.ordinal.twin}
    | {name for row in ROWS for name, _ in row.not_serving}
    | {name for row in ROWS for name in row.presence}
    | {row.instance for row in ROWS if row.instance}
    | {row.revision for row in ROWS if row.revision}
)
OURS_OWN = [
    "PYRYCODE_RELAY_REPLICAS",
    "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE",
    "PYRYCODE_RELAY_PRODUCTION",
]
STRAYS = ["STRAY", "WEB_CONCURRENCY", "container", "HOSTNAME", "POD_INDEX", "POD_NAME"]
VALUES = st.one_of(
    st.sampled_from(
        [
            "0",
            "1",
            "2",
            "3",
            "true",
            "web.1",
            "web.2",
            "web.x",
            "web-1",
            "web-2",
            "run.2",
            "release.1",
            "build",
            "{}",
            "web-12a34b56d-e78f9",
            "relay-2",
            "max",
            "production",
        ]
    ),
    st.text(max_size=8),
    st.integers(-2, 10**12).map(str),
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(PLATFORMS_OWN + OURS_OWN + STRAYS), VALUES, max_size=8
)
FACTS = st.fixed_dictionaries(
    {
        "workers": st.sampled_from([None, 0, 1, 1, 1, 2]),
        "siblings": st.sampled_from([(), (), (7,), (0,)]),
        "lock": st.sampled_from([None, OURS, BY_HOST, THEIRS, *UNUSABLE]),
        "neighbours": st.lists(
            st.tuples(st.sampled_from([POD, UNIT]), st.booleans()), max_size=2
        ).map(tuple),
    }
)
QUIET = {"workers": 1, "siblings": (), "lock": OURS, "neighbours": ()}


def judged(environ: dict[str, str], facts: dict[str, Any]) -> Verdict:
    """Judge; settings that cannot be read, which would end a start before, are left out."""
    while True:
        try:
            config = Config.from_environ(environ)
        except ConfigError as fault:
            bad = {text.partition(":")[0] for text in fault.faults}
            environ = {k: v for k, v in environ.items() if k not in bad}
        else:
            return judge(Facts(environ=environ, config=config, **facts))


@given(ENVIRONMENTS, FACTS)
def test_judge_any_environment_is_deterministic_and_says_what_to_do(
    environ: dict[str, str], facts: dict[str, Any]
) -> None:
    """Never raises; every finding has its code, every refusal its fix; nothing is changed."""
    before = dict(environ)
    found = judged(environ, facts)
    assert found == judged(dict(reversed(environ.items())), facts)
    assert environ == before
    for finding in found.findings:
        assert finding.code in CODES
        assert finding.seen
    for finding in found.refused:
        assert finding.fix
        assert f"[{finding.code}]" in found.message()
        assert finding.fix in found.message()


@given(ENVIRONMENTS, FACTS)
def test_bypass_only_ever_softens(
    environ: dict[str, str], facts: dict[str, Any]
) -> None:
    """Never worse than without it, and never silent about two workers."""
    environ = {k: v for k, v in environ.items() if k not in OURS_OWN}
    found, bypassed = judged(environ, facts), judged(environ | BYPASS, facts)
    assert bypassed.level <= found.level
    assert bypassed.codes == found.codes
    certain = [finding for finding in found.refused if finding.code < "SI-2"]
    assert certain == list(bypassed.refused)


@given(ENVIRONMENTS)
def test_assertion_never_makes_it_worse_and_hides_no_evidence(
    environ: dict[str, str],
) -> None:
    """It is a promise, not a bypass."""
    environ.pop("PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE", None)
    without = judged(environ, QUIET)
    with_it = judged(environ | ASSERTED, QUIET)
    assert with_it.level <= without.level
    evidence = [finding for finding in without.refused if finding.code != "SI-401"]
    assert evidence == list(with_it.refused)


@given(ENVIRONMENTS)
def test_without_any_signal_everything_is_fine(environ: dict[str, str]) -> None:
    """What is left when every known variable is gone speaks against nothing."""
    known = {*PLATFORMS_OWN, *OURS_OWN}
    left = {name: value for name, value in environ.items() if name not in known}
    assert judged(left, QUIET).level is Level.FINE


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_text_has_a_value(row: Platform) -> None:
    """Values may be secrets in the wrong line; numbers are the exception."""
    secret = "hunter2-hunter2"
    everything = dict.fromkeys((*PLATFORMS_OWN, *STRAYS), secret)
    found = judged(everything | dict(row.example), QUIET)
    assert secret not in repr(found)
