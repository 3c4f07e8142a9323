"""The application: one per process, refused by the guard, and how it presents itself."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import pytest

from relay_app import app as app_module
from relay_app.app import create_app
from relay_app.core.config import Config
from relay_app.core.errors import ConfigError, InstanceRefused


@pytest.fixture(autouse=True)
def thawed() -> object:
    """Undo what a start does to the garbage collector."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_create_app_reads_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a config the settings come from the environment."""
    monkeypatch.setenv("PYRYCODE_RELAY_MAX_PHONES_PER_SERVER", "3")
    app = create_app()
    assert app.extensions["relay"].hub.config.max_phones_per_server == 3


def test_create_app_with_a_config_raises_what_is_wrong() -> None:
    """Whoever embeds it decides what to do about it."""
    with pytest.raises(InstanceRefused) as caught:
        create_app(Config(replicas=2))
    assert caught.value.codes == ("SI-202",)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("PYRYCODE_RELAY_MAX_PHONES_PER_SERVER", "none", "must be phones"),
        ("PYRYCODE_RELAY_REPLICAS", "2", "[SI-202]"),
    ],
)
def test_create_app_for_a_server_ends_the_process(
    variable: str,
    value: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under any server: a message and an exit code, no traceback."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)
    with pytest.raises(SystemExit) as caught:
        create_app()
    assert caught.value.code == 3
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter")
    with pytest.raises(SystemExit) as caught:
        create_app()
    assert caught.value.code == 78
    assert capsys.readouterr().err.count(text) == 2


def test_process_that_does_not_hold_the_registry_answers_503(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A server that forks after it has loaded the application has several registries."""
    app = create_app(Config())
    here = app.test_client()
    assert here.get("/healthz").status_code == 200
    elsewhere = os.fork()
    if not elsewhere:
        os._exit(app.test_client().get("/healthz").status_code == 503)
    assert os.waitstatus_to_exitcode(os.waitpid(elsewhere, 0)[1]) == 1
    assert "SI-104" in capfd.readouterr().err
    assert here.get("/healthz").status_code == 200


def test_claim_refuses_a_server_with_two_workers() -> None:
    """The relay's own worker knows what a foreign configuration says."""
    relay = create_app(Config()).extensions["relay"]
    with pytest.raises(InstanceRefused) as caught:
        relay.claim(2)
    assert caught.value.codes == ("SI-101",)
    relay.claim(1)


def test_platform_and_its_names_are_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two copies in one log can be told apart; what is no name is left out."""
    monkeypatch.setenv("FLY_APP_NAME", "relay")
    monkeypatch.setenv("FLY_MACHINE_ID", "e2865013b04986")
    monkeypatch.setenv("FLY_MACHINE_VERSION", "no name \n at all")
    config = Config(assert_single_instance=True)
    create_app(config).extensions["relay"].announce([("127.0.0.1", 80)])
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (found,) = [r for r in records if r["event"] == "instance.platform"]
    assert (found["platform"], found["instance"]) == ("Fly", "e2865013b04986")
    assert "revision" not in found


def test_announce_logs_findings_and_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line per finding and unknown variable, then the start."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    config = Config.from_environ(
        {
            "PYRYCODE_RELAY_REPLICAS": "2",
            "PYRYCODE_RELAY_SINGLE_INSTANCE": "1",
            "PYRYCODE_RELAY_PRODUCTION": "1",
            "PYRYCODE_RELAY_ALLOW_ROOT": "1",
            "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "1",
            "PYRYCODE_RELAY_DRAIN": "1",
            "PYRYCODE_RELAY_MAX_CONNECTIONS": "1000000",
        }
    )
    relay = create_app(config).extensions["relay"]
    relay.announce([("127.0.0.1", 80), ("::1", 81, 0, 0), "/run/x"])
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(record["level"], record["event"]) for record in records] == [
        ("warning", "setting.unknown"),
        ("warning", "instance.finding"),
        ("info", "instance.finding"),
        ("warning", "process.root"),
        ("warning", "setting.reduced"),
        ("info", "server.started"),
    ]
    assert records[-1]["listen"] == "127.0.0.1:80, [::1]:81, unix:/run/x"
    assert records[-1]["guard"] == "WARN"
    assert records[-1]["max_connections"] == records[4]["max_connections"] < 1_000_000


def test_root_in_production_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings fault that names the way out; behind the guard's own refusal."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    asserted = Config(production=True, assert_single_instance=True)
    with pytest.raises(ConfigError) as fault:
        create_app(asserted)
    assert "PYRYCODE_RELAY_ALLOW_ROOT=1" in str(fault.value)
    with pytest.raises(InstanceRefused):
        create_app(Config(production=True))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    create_app(asserted)


def test_read_allowlist_keeps_the_old_one_when_the_new_one_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was in force stays in force, and the log says which line is at fault."""
    file = tmp_path / "ids"
    file.write_text("one\n")
    relay = create_app(Config(server_ids_file=str(file))).extensions["relay"]
    assert relay.hub.allows("one")
    assert not relay.hub.allows("two")
    file.write_text("two\nthree four\n")
    relay.read_allowlist()
    assert relay.hub.allows("one")
    file.write_text("two\n")
    relay.read_allowlist()
    assert relay.hub.allows("two")
    assert not relay.hub.allows("one")
    kept, read = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert kept["event"] == "allowlist.kept"
    assert kept["detail"] == "line 2 has more than one entry"
    assert (read["event"], read["allowed"]) == ("allowlist.read", 1)
    create_app(Config()).extensions["relay"].read_allowlist()
    assert capsys.readouterr().err == ""


def test_broken_allowlist_refuses_the_start(tmp_path: Path) -> None:
    """A relay that was to be closed must not come up open."""
    with pytest.raises(ConfigError) as fault:
        create_app(Config(server_ids_file=str(tmp_path / "none")))
    assert "PYRYCODE_RELAY_SERVER_IDS_FILE: cannot be read" in str(fault.value)


def test_announce_to_a_person_shows_the_banner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With text logs somebody is looking."""
    create_app(Config(log_format="text")).extensions["relay"].announce(
        [("127.0.0.1", 80)]
    )
    assert "pyrycode-relay is ready" in capsys.readouterr().err


def test_announce_without_standard_error_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay that was started with the stream closed serves all the same."""
    relay = create_app(Config()).extensions["relay"]
    monkeypatch.setattr(sys, "stderr", None)
    relay.announce([("127.0.0.1", 80)])


def test_garbage_collector_is_told_what_stays() -> None:
    """What the start made is never looked at again."""
    create_app(Config(log_level="error")).extensions["relay"].announce(
        [("127.0.0.1", 80)]
    )
    assert gc.get_threshold() == app_module.GC_THRESHOLDS
    assert gc.get_freeze_count() > 1000
