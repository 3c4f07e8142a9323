"""Judging an environment as a start in it would, and leaving nothing behind."""

import os
import sys
from pathlib import Path

import pytest

from relay_app import lock, preflight, process
from relay_app.core.config import Config
from relay_app.core.guard import Level, LockState
from relay_app.core.platforms import PLATFORMS, Platform
from relay_app.report import Judgement

UNUSABLE = [
    {"PYRYCODE_RELAY_DRAIN_S": "x"},
    {"WEB_CONCURRENCY": "x"},
    {"GUNICORN_CMD_ARGS": "--nonsense"},
    {"GUNICORN_CMD_ARGS": "--bind fd://x"},
    {"GUNICORN_CMD_ARGS": "--chdir /nowhere/at/all"},
    {"GUNICORN_CMD_ARGS": "--workers many"},
    {"GUNICORN_CMD_ARGS": "--bind 'not closed"},
    {"GUNICORN_CMD_ARGS": "-k not.there.AtAll"},
]
USABLE = [
    {},
    {"PYRYCODE_RELAY_NAME": "Zoë", "GUNICORN_CMD_ARGS": "--name Zoë"},
    {"GUNICORN_CMD_ARGS": "--chdir / --workers 2"},
    {"GUNICORN_CMD_ARGS": "-k sync"},
]


def judge(environ: dict[str, str]) -> Judgement:
    """Judge variables only; whatever they are, this process is as it was."""
    before = dict(os.environ), list(sys.argv), Path.cwd()
    judged = preflight.judge(environ, elsewhere=True)
    assert (dict(os.environ), list(sys.argv), Path.cwd()) == before
    assert lock.held() is None
    return judged


@pytest.mark.parametrize("environ", UNUSABLE)
def test_unusable_settings_are_faults(environ: dict[str, str]) -> None:
    """One each, by name."""
    judged = judge(environ)
    assert judged.exit_code == 78
    assert [fault.partition(":")[0] for fault in judged.faults] == list(environ)


@pytest.mark.parametrize("environ", USABLE)
def test_usable_settings_reach_the_guard(
    environ: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """gunicorn's worker count is that of the environment; nothing is printed."""
    judged = judge(environ)
    assert judged.faults == ()
    many = "--workers" in environ.get("GUNICORN_CMD_ARGS", "")
    assert judged.verdict.codes == (("SI-101",) if many else ())
    assert capfd.readouterr() == ("", "")


def test_own_environment_takes_the_lock_for_a_moment(tmp_path: Path) -> None:
    """By the address that gunicorn would bind, wherever that was said."""
    environ = {
        "PYRYCODE_RELAY_STATE_DIR": str(tmp_path),
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:18081",
    }
    assert preflight.judge(environ).verdict.codes == ()
    assert lock.held() is None
    name = lock.identity(Config(), [("127.0.0.1", 18081)])
    other = lock.InstanceLock(name, str(tmp_path))
    try:
        assert other.take(lambda _: 0.0).state is LockState.OURS
        assert preflight.judge(environ).verdict.codes == ("SI-102",)
        assert preflight.judge(environ, elsewhere=True).verdict.codes == ()
    finally:
        other.release()


def test_environment_that_gunicorn_is_given_is_judged() -> None:
    """It becomes a part of the process's own."""
    given = "-e PYRYCODE_RELAY_REPLICAS="
    assert judge({"GUNICORN_CMD_ARGS": given + "2"}).verdict.codes == ("SI-202",)
    (fault,) = judge({"GUNICORN_CMD_ARGS": given + "x"}).faults
    assert fault.startswith("PYRYCODE_RELAY_REPLICAS: ")


@pytest.mark.parametrize("row", PLATFORMS, ids=lambda row: row.name)
def test_proxy_of_every_platform_is_remarked_on(row: Platform) -> None:
    """A warning that does not keep from starting, until a proxy is named."""
    asserted = {**dict(row.example), "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "1"}
    judged = judge(asserted)
    assert judged.exit_code == 0
    named = "PYRYCODE_RELAY_TRUSTED_PROXIES"
    given = {**asserted, "GUNICORN_CMD_ARGS": f"-e {named}=192.0.2.0/24"}
    expected = [] if row.proxy is None else [("proxy", Level.WARN)]
    assert [(r.about, r.level) for r in judged.remarks] == expected
    for environ in ({**asserted, named: "192.0.2.0/24"}, given):
        assert [r.level for r in judge(environ).remarks] == [Level.FINE] * len(expected)


STRICT = {
    "PYRYCODE_RELAY_PRODUCTION": "1",
    "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "1",
}


@pytest.mark.parametrize(
    ("uid", "environ", "levels"),
    [
        (0, {}, [Level.WARN]),
        (0, STRICT, [Level.REFUSE]),
        (0, {**STRICT, "PYRYCODE_RELAY_ALLOW_ROOT": "1"}, [Level.WARN]),
        (1000, STRICT, []),
    ],
)
def test_root_is_judged_as_serve_would(
    uid: int,
    environ: dict[str, str],
    levels: list[Level],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its words; of another environment's user nothing is known."""
    monkeypatch.setattr("os.geteuid", lambda: uid)
    environ = {**environ, "PYRYCODE_RELAY_STATE_DIR": str(tmp_path)}
    judged = preflight.judge(environ)
    about = [r for r in judged.remarks if r.about == "user"]
    assert [r.level for r in about] == levels
    refused = process.root_fault(judged.config)
    assert (judged.exit_code == 78) == (refused is not None)
    assert (refused in [r.seen for r in about]) == (refused is not None)
    assert judge(environ).remarks == ()


def test_file_of_server_ids_is_read_as_serve_would(tmp_path: Path) -> None:
    """Where this host is looked at; its content stays inside."""
    file = tmp_path / "ids"
    environ = {
        "PYRYCODE_RELAY_STATE_DIR": str(tmp_path),
        "PYRYCODE_RELAY_SERVER_IDS_FILE": str(file),
    }
    (fault,) = process.start_faults(Config.from_environ(environ))
    judged = preflight.judge(environ)
    (remark,) = (r for r in judged.remarks if r.about == "file")
    assert (remark.level, remark.seen, judged.exit_code) == (Level.REFUSE, fault, 78)
    assert judge(environ).remarks == ()
    file.write_text("one-server-id\n")
    judged = preflight.judge(environ)
    assert not [r for r in judged.remarks if r.about == "file"]
    assert judged.exit_code == 0
