"""Judging an environment as a start in it would, and leaving nothing behind."""

import os
import sys
from pathlib import Path

import pytest

from relay_app import lock, preflight
from relay_app.core.config import Config
from relay_app.core.guard import LockState
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
