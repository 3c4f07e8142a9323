"""The application: one per process, refused by the guard, and how it presents itself."""

from __future__ import annotations

import gc
import json

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
    monkeypatch.setenv("PYRYCODE_RELAY_MAX_PHONES_PER_SERVER", "none")
    with pytest.raises(ConfigError):
        create_app()


def test_create_app_refuses_what_the_guard_refuses() -> None:
    """Under any server: where gunicorn's hooks did not run, the application says no."""
    with pytest.raises(InstanceRefused) as caught:
        create_app(Config(replicas=2))
    assert caught.value.codes == ("SI-202",)


def test_announce_logs_findings_and_start(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per finding and unknown variable, then the start."""
    config = Config.from_environ(
        {
            "PYRYCODE_RELAY_REPLICAS": "2",
            "PYRYCODE_RELAY_SINGLE_INSTANCE": "1",
            "PYRYCODE_RELAY_PRODUCTION": "1",
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
        ("warning", "setting.reduced"),
        ("warning", "instance.finding"),
        ("info", "instance.finding"),
        ("info", "server.started"),
    ]
    assert records[-1]["listen"] == "127.0.0.1:80, [::1]:81, unix:/run/x"
    assert records[-1]["guard"] == "WARN"
    assert records[-1]["max_connections"] == records[1]["max_connections"] < 1_000_000


def test_announce_to_a_person_shows_the_banner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With text logs somebody is looking."""
    create_app(Config(log_format="text")).extensions["relay"].announce(
        [("127.0.0.1", 80)]
    )
    assert "pyrycode-relay is ready" in capsys.readouterr().err


def test_garbage_collector_is_told_what_stays() -> None:
    """What the start made is never looked at again."""
    create_app(Config(log_level="error")).extensions["relay"].announce(
        [("127.0.0.1", 80)]
    )
    assert gc.get_threshold() == app_module.GC_THRESHOLDS
    assert gc.get_freeze_count() > 1000
