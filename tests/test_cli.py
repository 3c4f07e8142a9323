"""The command itself: usage, ``serve`` and ``check``. Each run is a process of its own."""

import importlib.metadata
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.client.commands import Command, Relay, environ, port_of, run
from tests.waiting import wait_until

PACKAGE = importlib.metadata.version("pyrycode-relay")
"""What follows it, in a checkout, changes while somebody works there."""

FIRST_LINE = "ERROR: multi-instance deploy detected, relay registry is in-memory"


def test_version_and_help() -> None:
    """``--version`` is the real build; every command has an example."""
    assert run("--version").out[0].startswith(f"pyrycode-relay {PACKAGE}")
    for words in ([], ["serve"], ["check"], ["binary"], ["phone"], ["demo"]):
        shown = run(*words, "-h")
        assert shown.wait() == 0
        assert any("Example" in line for line in shown.out), shown.said()
        assert any("pyrycode-relay" in line for line in shown.out[1:]), shown.said()
        assert "backoff" not in shown.said()


def test_no_command_is_wrong_usage() -> None:
    """A Procfile that forgot ``serve`` must not look like success."""
    done = run()
    assert done.wait() == 2
    assert any("serve" in line for line in done.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
        (["phone"], "Missing option '--server-id'"),
        (
            ["phone", "--server-id", "a b"],
            "a server-id is 1 to 128 visible ASCII characters",
        ),
        (
            ["phone", "--server-id", ""],
            "a server-id is 1 to 128 visible ASCII characters",
        ),
        (
            ["phone", "--server-id", "x", "--url", "ftp://h"],
            "it must look like ws://host:port",
        ),
        (["phone", "--server-id", "x", "--token", ""], "must be 1 to 4096 bytes"),
        (
            ["phone", "--server-id", "x", "--token", "secret\n"],
            "must be 1 to 4096 bytes",
        ),
        (
            ["phone", "--server-id", "x", "--token", "secret\udcff"],
            "must be 1 to 4096 bytes",
        ),
        (
            ["phone", "--server-id", "x", "--device-name", "n" * 129],
            "must be 1 to 128 bytes",
        ),
        (["phone", "--server-id", "x", "--linger", "-1"], "--linger"),
        (
            ["binary", "--server-id", "x", "--url", "ws://u:secret@h"],
            "no place for a user name",
        ),
        (
            ["binary", "--server-id", "x", "--echo", "--exec", "cat"],
            "exclude each other",
        ),
        (
            ["binary", "--server-id", "x", "--exec", "'cat"],
            "a quote in it is not closed",
        ),
        (["binary", "--server-id", "x", "--exec", " "], "must name a program"),
        (
            ["binary", "--server-id", "x", "--exec", "no-such-program"],
            "program was not found",
        ),
        (["serve", "--listen", "8080"], "must be host:port, [IPv6]:port or fd://N"),
        (["check", "more"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], said: str) -> None:
    """What is wrong and where to read on; exit code 2; no secret is repeated."""
    done = run(*words)
    assert done.wait() == 2
    assert not done.out and len(done.err) == 1, done.said()
    assert said in done.err[0] and "--help" in done.err[0], done.said()
    assert "secret" not in done.said()


# serve


def test_serve_runs_from_anywhere_and_stops(tmp_path: Path) -> None:
    """No checkout is needed; WEB_CONCURRENCY does not matter; SIGTERM is exit code 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = port_of(listener)
    words = ("serve", "--listen", f"127.0.0.1:{port}")
    with Command(*words, env={"WEB_CONCURRENCY": "4"}, cwd=tmp_path) as command:
        command.until_said("server.started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert json.load(answer)["version"].startswith(PACKAGE)
        assert command.signal(signal.SIGTERM) == 0


def test_serve_takes_the_platforms_port() -> None:
    """PORT wins, so a flag beside it is a mistake."""
    done = run("serve", "--listen", "127.0.0.1:8080", env={"PORT": "8081"})
    assert done.wait() == 2
    assert "PORT is set and wins" in done.err[0]


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"GUNICORN_CMD_ARGS": "--workers 2"}, "SI-101"),
        ({"GUNICORN_CMD_ARGS": "-w 0"}, "SI-101"),
        ({"PYRYCODE_RELAY_REPLICAS": "3"}, "SI-202"),
        ({"PYRYCODE_RELAY_PRODUCTION": "1"}, "SI-401"),
    ],
)
def test_serve_refuses_with_78_and_binds_nothing(
    env: dict[str, str], code: str
) -> None:
    """The port is taken already: whoever tried to bind it would complain of that."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = {"PYRYCODE_RELAY_LISTEN": f"127.0.0.1:{port_of(taken)}"}
        done = run("serve", env={**env, **listen})
    assert done.wait() == 78
    assert done.err[0].startswith(FIRST_LINE)
    assert f"[{code}]" in done.err[1] and done.err[3].startswith("Fix: ")
    assert len(done.err) == 4 and not done.out


def test_serve_refuses_settings_by_name() -> None:
    """All of them at once, never a value."""
    env = {"PYRYCODE_RELAY_DRAIN_S": "secret-1", "PYRYCODE_RELAY_LOG_LEVEL": "secret-2"}
    done = run("serve", env=env)
    assert done.wait() == 78
    assert all(any(name in line for line in done.err) for name in env), done.said()
    assert "secret" not in done.said()


@pytest.mark.parametrize("value", ["secret", "", "-1"])
def test_serve_refuses_what_gunicorn_would_fall_over(value: str) -> None:
    """gunicorn reads WEB_CONCURRENCY when it is imported."""
    done = run("serve", env={"WEB_CONCURRENCY": value})
    assert done.wait() == 78
    assert done.err[1] == "  WEB_CONCURRENCY: must be a whole number, or not set at all"


@pytest.mark.parametrize(
    ("arguments", "code"), [("--check-config", 0), ("--nonsense", 2)]
)
def test_serve_exits_as_gunicorn_does(arguments: str, code: int) -> None:
    """Its flags count, and its exit codes pass."""
    assert run("serve", env={"GUNICORN_CMD_ARGS": arguments}).wait() == code


def test_serve_keeps_the_master_small_and_unpatched() -> None:
    """Just before it binds, the master has neither patched modules nor the client's libraries."""
    code = (
        "import sys, relay_app.gunicorn_conf as conf\n"
        "def on_starting(server):\n"
        "    import socket, threading\n"
        "    print(sorted({'rich', 'websockets', 'flask'} & set(sys.modules)),"
        " socket.socket.__module__, threading.get_ident.__module__)\n"
        "    sys.exit(0)\n"
        "conf.on_starting = on_starting\n"
        "sys.argv[1:] = ['serve']\n"
        "from relay_app.cli import main\n"
        "main()\n"
    )
    done = run(sys.executable, "-c", code, program=False)
    assert done.wait() == 0, done.said()
    assert done.out == ["[] socket _thread"]


def test_installed_command_is_the_module() -> None:
    """The console script and ``python -m relay_app`` are one."""
    script = Path(sys.executable).with_name("pyrycode-relay")
    done = subprocess.run(
        [script, "--version"], env=environ(), capture_output=True, text=True
    )
    assert done.stdout.startswith(f"pyrycode-relay {PACKAGE}")


# check


def check(**env: str) -> tuple[dict[str, object], Command]:
    """``check --json``, parsed, and the run itself."""
    done = run("check", "--json", env=env)
    report = json.loads("\n".join(done.out))
    keys = ["verdict", "codes", "findings", "settings_faults", "unknown", "exit_code"]
    assert list(report) == keys
    assert done.wait() == report["exit_code"] and not done.err
    return report, done


def test_check_without_anything_is_fine() -> None:
    """One worker, no platform."""
    report, _ = check()
    assert (report["verdict"], report["codes"], report["exit_code"]) == ("FINE", [], 0)
    shown = run("check")
    assert shown.wait() == 0
    assert shown.out[0] == "FINE: the relay would start here (exit code 0)"
    assert "  all have their default" in shown.out


def test_check_judges_gunicorns_effective_workers() -> None:
    """WEB_CONCURRENCY is overruled by the configuration, GUNICORN_CMD_ARGS is not."""
    report, _ = check(WEB_CONCURRENCY="4")
    assert (report["verdict"], report["codes"], report["exit_code"]) == (
        "FINE",
        ["SI-101w"],
        0,
    )
    report, _ = check(GUNICORN_CMD_ARGS="--workers=2")
    assert (report["verdict"], report["codes"], report["exit_code"]) == (
        "REFUSE",
        ["SI-101"],
        78,
    )
    finding = report["findings"][0]  # type: ignore[index]
    assert finding["level"] == "REFUSE" and "GUNICORN_CMD_ARGS" in finding["seen"]
    assert finding["fix"]


def test_check_warns_when_the_guard_is_bypassed() -> None:
    """WARN is exit code 0."""
    env = {"PYRYCODE_RELAY_PRODUCTION": "1", "PYRYCODE_RELAY_SINGLE_INSTANCE": "1"}
    report, _ = check(**env)
    assert (report["verdict"], report["codes"], report["exit_code"]) == (
        "WARN",
        ["SI-401"],
        0,
    )


@pytest.mark.parametrize(
    "arguments",
    ["--nonsense-7e1", "--workers 7e1", "--bind 7e1 --workers -7", "'7e1", "-h"],
)
def test_check_finds_flags_that_gunicorn_refuses(arguments: str) -> None:
    """What gunicorn would quote is not shown."""
    report, done = check(GUNICORN_CMD_ARGS=arguments)
    assert report["settings_faults"] == [
        "GUNICORN_CMD_ARGS: must be flags that gunicorn accepts"
    ]
    assert report["exit_code"] == 78
    assert "7e1" not in done.said()


def test_check_as_text_names_and_never_shows() -> None:
    """Findings with their fix, changed settings and unknown variables by name."""
    env = {
        "PYRYCODE_RELAY_PRODUCTION": "1",
        "PYRYCODE_RELAY_PUBLIC_HOST": "secret.example",
    }
    env |= {"PORT": "9187", "PYRYCODE_RELAY_LISTEN": "127.0.0.1:9186"}
    env |= {"PYRYCODE_RELAY_GRACE_PERIOD": "9185", "PYRYCODE_RELAY_DRAIN_S": "10"}
    done = run("check", env=env)
    assert done.wait() == 78
    text = done.said()
    assert "SI-401  REFUSE" in text and "fix: " in text
    assert (
        "  differ from their default: PORT, PYRYCODE_RELAY_PUBLIC_HOST, PYRYCODE_RELAY_PRODUCTION"
    ) in done.out
    assert "did you mean PYRYCODE_RELAY_GRACE_PERIOD_S?" in text
    assert not any(value in text for value in ("secret", "9187", "9186", "9185"))


def test_check_with_unusable_settings() -> None:
    """78, every fault by name; the guard is not judged on half of the facts."""
    report, done = check(PYRYCODE_RELAY_DRAIN_S="secret", PORT="")
    assert (report["verdict"], report["exit_code"], report["findings"]) == (
        "REFUSE",
        78,
        [],
    )
    faults = report["settings_faults"]
    assert isinstance(faults, list) and len(faults) == 2
    assert "secret" not in done.said()
    shown = run("check", env={"PYRYCODE_RELAY_DRAIN_S": "secret"})
    assert shown.wait() == 78 and "secret" not in shown.said()
    assert "  not judged: see below" in shown.out
    assert any("cannot be used: PYRYCODE_RELAY_DRAIN_S" in line for line in shown.out)


def test_check_survives_a_variable_that_is_not_text() -> None:
    """Its name is shown with escapes, whatever the locale."""
    done = run("check", env={"PYRYCODE_RELAY_\udcff": "1", "LC_ALL": "C"})
    assert done.wait() == 0
    assert any("is not a setting" in line for line in done.out)


def test_relay_of_serve_is_ready_for_both_ends() -> None:
    """The whole of it once: the health page counts what ``binary`` opened."""
    with Relay() as relay:
        with Command("binary", "--server-id", "s1", "--url", relay.url) as held:
            held.until_said("connected")
            wait_until(lambda: relay.health()["connected_binaries"] == 1)
            assert held.signal(signal.SIGTERM) == 0
        wait_until(lambda: relay.health()["connected_binaries"] == 0)
        relay.stop()
