"""The command itself: usage, ``serve`` and ``check``, mostly as a process of its own."""

import dataclasses
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay_app import lock
from relay_app.cli import main
from relay_app.core.config import PREFIX, SETTINGS, Config
from relay_app.core.guard import LockState
from relay_app.core.guard_codes import CODES
from relay_app.core.platforms import PLATFORMS, ROWS, Platform
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
    """No checkout is needed, WEB_CONCURRENCY does not matter, no second one of its name
    starts beside it; SIGTERM is exit code 0.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = port_of(listener)
    words = ("serve", "--listen", f"127.0.0.1:{port}")
    with Command(*words, env={"WEB_CONCURRENCY": "4"}, cwd=tmp_path) as command:
        command.until_said("server.started")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert json.load(answer)["version"].startswith(PACKAGE)
        env = {"PYRYCODE_RELAY_LISTEN": words[2]}
        second = run("serve", env=env)
        assert second.wait() == 78 and "[SI-102]" in second.err[1], second.said()
        assert f"process {command.process.pid} " in second.err[1]
        assert invoke("check", env=env).exit_code == 78
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
    ("arguments", "code"), [("--check-config", 0), ("--nonsense", 78)]
)
def test_serve_exits_as_gunicorn_does(arguments: str, code: int) -> None:
    """Its flags count; what it cannot use is a fault of the settings."""
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

PRODUCTION = {"PYRYCODE_RELAY_PRODUCTION": "1"}
ASSERTED = {"PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "1"}
AT_START = [row.code for row in CODES.values() if row.at_start]


def invoke(
    *words: str, env: Mapping[str, str] | None = None, given: str | bytes = ""
) -> Result:
    """A command in this process, without anything here that a relay would read."""
    foreign: dict[str, str | None] = dict.fromkeys(set(os.environ) - set(environ()))
    return CliRunner().invoke(main, words, input=given, env=foreign | dict(env or {}))


def check(*words: str, given: str | bytes = "", **env: str) -> dict[str, Any]:
    """``check --json``, parsed."""
    done = invoke("check", "--json", *words, env=env, given=given)
    report: dict[str, Any] = json.loads(done.stdout)
    keys = ["verdict", "codes", "findings", "settings_faults", "unknown", "exit_code"]
    assert list(report) == [*keys, "table", "remarks", "platform"]
    assert done.exit_code == report["exit_code"] and not done.stderr
    assert [row["code"] for row in report["table"]] == AT_START
    return report


BEST = "WARN" if os.geteuid() == 0 else "FINE"
"""The best verdict on this host: root is warned."""


def test_check_without_anything_is_fine() -> None:
    """One worker, no platform, and every code has its line; once for real."""
    report = check()
    assert (report["verdict"], report["codes"], report["exit_code"]) == (BEST, [], 0)
    assert not any(row["seen"] for row in report["table"])
    assert report["platform"] is None
    shown = run("check")
    assert shown.wait() == 0
    assert shown.out[0] == f"{BEST}: the relay would start here (exit code 0)"
    assert [line.split()[:2] for line in shown.out[3:15]] == [
        [c, "-"] for c in AT_START
    ]
    assert "  all have their default" in shown.out


def test_check_judges_gunicorns_effective_workers() -> None:
    """WEB_CONCURRENCY is overruled by the configuration, GUNICORN_CMD_ARGS is not."""
    report = check(WEB_CONCURRENCY="4")
    assert (report["verdict"], report["codes"], report["exit_code"]) == (
        BEST,
        ["SI-101w"],
        0,
    )
    report = check(GUNICORN_CMD_ARGS="--workers=2")
    assert (report["verdict"], report["codes"], report["exit_code"]) == (
        "REFUSE",
        ["SI-101"],
        78,
    )
    finding = report["findings"][0]
    assert finding["level"] == "REFUSE" and "GUNICORN_CMD_ARGS" in finding["seen"]
    row = report["table"][AT_START.index("SI-101")]
    assert row["verdict"] == "REFUSE"
    assert (row["seen"], row["fix"]) == ([finding["seen"]], [finding["fix"]])


def test_check_warns_when_the_guard_is_bypassed() -> None:
    """WARN is exit code 0."""
    allowed = {"PYRYCODE_RELAY_SINGLE_INSTANCE": "1", "PYRYCODE_RELAY_ALLOW_ROOT": "1"}
    report = check(**PRODUCTION, **allowed)
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
    report = check(GUNICORN_CMD_ARGS=arguments)
    assert report["settings_faults"] == [
        "GUNICORN_CMD_ARGS: must be flags that gunicorn accepts"
    ]
    assert report["exit_code"] == 78
    assert "7e1" not in str(report)


@pytest.mark.parametrize("command", ["check", "serve"])
def test_address_that_gunicorn_would_fall_over_is_a_fault(command: str) -> None:
    """gunicorn looks at it only when it binds."""
    done = invoke(command, env={"GUNICORN_CMD_ARGS": "--bind secret:port:x"})
    assert done.exit_code == 78
    assert "GUNICORN_CMD_ARGS: --bind must be HOST:PORT" in done.output
    assert "secret" not in done.output


def test_check_as_text_names_and_never_shows() -> None:
    """Findings with their fix, changed settings and unknown variables by name."""
    env = {**PRODUCTION, "PYRYCODE_RELAY_PUBLIC_HOST": "secret.example"}
    env |= {"PORT": "9187", "PYRYCODE_RELAY_LISTEN": "127.0.0.1:9186"}
    env |= {"PYRYCODE_RELAY_GRACE_PERIOD": "9185", "PYRYCODE_RELAY_DRAIN_S": "10"}
    done = invoke("check", env=env)
    assert done.exit_code == 78
    assert "SI-401  REFUSE" in done.stdout and "fix: " in done.stdout
    assert (
        "  differ from their default: PORT, PYRYCODE_RELAY_PUBLIC_HOST, PYRYCODE_RELAY_PRODUCTION"
    ) in done.stdout.splitlines()
    assert "did you mean PYRYCODE_RELAY_GRACE_PERIOD_S?" in done.stdout
    secrets = ("secret", "9187", "9186", "9185")
    assert not any(value in done.output for value in secrets)


def test_check_with_unusable_settings() -> None:
    """78, every fault by name; the guard is not judged on half of the facts."""
    report = check(PYRYCODE_RELAY_DRAIN_S="secret", PORT="")
    assert (report["verdict"], report["exit_code"], report["findings"]) == (
        "REFUSE",
        78,
        [],
    )
    assert len(report["settings_faults"]) == 2
    assert "secret" not in str(report)
    shown = invoke("check", env={"PYRYCODE_RELAY_DRAIN_S": "secret"})
    assert shown.exit_code == 78 and "secret" not in shown.output
    assert "  not judged: see below" in shown.stdout.splitlines()
    assert "cannot be used: PYRYCODE_RELAY_DRAIN_S" in shown.stdout


def test_check_survives_a_variable_that_is_not_text() -> None:
    """Its name is shown with escapes, whatever the locale."""
    done = run("check", env={"PYRYCODE_RELAY_\udcff": "1", "LC_ALL": "C"})
    assert done.wait() == 0
    assert any("is not a setting" in line for line in done.out)


def test_check_takes_the_lock_for_a_moment_and_says_who_has_it() -> None:
    """Nothing is left behind by it, whatever it found."""
    listen = {"PYRYCODE_RELAY_LISTEN": "127.0.0.1:18080"}
    name = lock.identity(Config.from_environ(listen))
    mine = lock.InstanceLock(name, os.environ["RUNTIME_DIRECTORY"])
    for _ in range(2):
        assert check(**listen)["exit_code"] == 0
        try:
            assert mine.take(lambda _: 0.0).state is LockState.OURS
            report = check(**listen)
            elsewhere = check("--platform", "fly", **listen, **ASSERTED)
        finally:
            mine.release()
        assert (report["codes"], report["exit_code"]) == (["SI-102"], 78)
        assert f"process {os.getpid()} on " in report["findings"][0]["seen"]
        assert elsewhere["exit_code"] == 0


# check --explain


@pytest.mark.parametrize("code", CODES)
def test_check_explains_every_code(code: str) -> None:
    """However it is written; with and without JSON, and nothing is judged."""
    row = CODES[code]
    done = invoke("check", "--explain", code.swapcase(), env=PRODUCTION)
    assert done.exit_code == 0 and done.stdout.startswith(f"{code}: ")
    words = " ".join(done.stdout.split())
    for text in (row.signal, row.verdict, row.meaning, row.fix):
        assert text in words
    covers = "turns a refusal into a warning" in words
    assert covers == row.bypass
    assert max(map(len, done.stdout.splitlines())) <= 80
    told = json.loads(invoke("check", "--json", "--explain", code).stdout)
    assert told == {**dataclasses.asdict(row), "platform": None, "pin": None}


def test_check_explains_with_the_pin_of_the_platform() -> None:
    """For the codes that the platform has a say in; wherever it was recognised."""
    fly = next(row for row in PLATFORMS if row.name == "Fly")
    for words, given in (
        (("--platform", "FLY"), ""),
        (("--env-file", "-"), "FLY_APP_NAME=secret"),
    ):
        done = invoke("check", "--explain", "SI-401", *words, given=given)
        assert f"On Fly\n  {fly.pin}" in done.stdout
        assert "secret" not in done.output
        told = invoke("check", "--json", "--explain", "SI-401", *words, given=given)
        assert json.loads(told.stdout)["pin"] == fly.pin
        other = invoke("check", "--explain", "SI-101", *words, given=given)
        assert "On Fly" not in other.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--explain", "SI-999"], list(CODES)),
        (["--platform", "Skynet"], [row.name for row in PLATFORMS]),
        (["--platform", ""], ["Kubernetes"]),
        (["--env-file", "/nowhere/at/all"], ["there is no such file"]),
        (["--env-file", ""], ["there is no such file"]),
        (["--env-file", "/"], ["it is a directory"]),
    ],
)
def test_check_refuses_what_it_does_not_know(
    words: list[str], named: list[str]
) -> None:
    """Exit code 2 and one line that says what there is."""
    done = invoke("check", *words)
    assert done.exit_code == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert all(name in done.stderr for name in named)


# check --env-file and --platform


@pytest.mark.parametrize("row", PLATFORMS, ids=lambda row: row.name)
def test_check_judges_as_if_deployed(row: Platform) -> None:
    """Each platform wants the assertion and is content with it; no screen is too small."""
    for words, given in (((), ""), (("--env-file", "-"), "A=1\n")):
        words = ("--platform", row.name.upper(), *words)
        bare = check(*words, given=given)
        assert (bare["exit_code"], bare["platform"]) == (78, row.name)
        assert "SI-401" in bare["codes"]
        given += "".join(f"{name}={value}\n" for name, value in ASSERTED.items())
        env = {} if "-" in words else ASSERTED
        asserted = check(*words, given=given, **env)
        assert (asserted["exit_code"], asserted["platform"]) == (0, row.name)
        proxy = [remark["fix"] for remark in asserted["remarks"]]
        assert proxy == ([row.proxy.to_set] if row.proxy else [])
    shown = invoke("check", "--platform", row.name)
    lines = shown.stdout.splitlines()
    assert f"Platform: {row.name}" in lines
    words_shown = " ".join(shown.stdout.split())
    for text in (row.pin, row.scale, row.in_a_deploy):
        assert " ".join(text.split()) in words_shown
    assert len(lines) < 40 and max(map(len, lines)) <= 80


def test_check_says_when_the_variables_are_another_platforms() -> None:
    """The environment is not turned into something else."""
    done = invoke("check", "--platform", "nomad", env={"FLY_APP_NAME": "x"})
    assert "those of Fly all the same" in done.stderr and done.exit_code == 78
    done = invoke("check", "--platform", "fly", env={"FLY_APP_NAME": ""})
    assert "those of no platform all the same" in done.stderr and done.exit_code == 0


def test_check_reads_the_pipe_of_env() -> None:
    """For real, in the three ways that the help shows."""
    script = (
        'env | "$0" -m relay_app check --env-file -; echo $?; '
        'env -0 | "$0" -m relay_app check --json --env-file - --platform fly; echo $?'
    )
    env = {"GUNICORN_CMD_ARGS": "-w 7", "LC_ALL": "C", "A_SECRET": "secret\nsecret"}
    done = run("sh", "-c", script, sys.executable, env=env, program=False)
    assert done.wait() == 0 and not done.err, done.said()
    assert done.out.count("78") == 2 and "secret" not in done.said()
    assert done.out[0].startswith("REFUSE")
    assert any("set to 7 workers by GUNICORN_CMD_ARGS" in line for line in done.out)
    assert any('"SI-401"' in line for line in done.out)


def test_check_takes_a_file_for_the_whole_environment(tmp_path: Path) -> None:
    """Nothing of this process is mixed in, and it keeps its own."""
    file = tmp_path / ".env"
    file.write_text("PYRYCODE_RELAY_REPLICAS=1\nWEB_CONCURRENCY=2\n")
    before, where = dict(os.environ), Path.cwd()
    here = {**PRODUCTION, "GUNICORN_CMD_ARGS": "-w 2", "PYRYCODE_RELAY_DRAIN_S": "x"}
    report = check("--env-file", str(file), **here)
    assert (report["exit_code"], report["codes"]) == (0, ["SI-101w"])
    file.write_text('export GUNICORN_CMD_ARGS="--workers 3 --chdir /"\n')
    report = check("--env-file", str(file))
    assert (report["exit_code"], report["codes"]) == (78, ["SI-101"])
    assert (dict(os.environ), Path.cwd()) == (before, where)
    text = invoke("check", "--env-file", str(file)).stdout
    for code in ("SI-102", "SI-104", "SI-203", "SI-601"):
        assert f"{code}  -       not looked at" in text


def test_check_warns_of_lines_by_number() -> None:
    """A line that says nothing, and a file that does."""
    done = invoke("check", "--env-file", "-", given="A=1\nsecret\n" + "'secret\n" * 9)
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        *(
            f"warning: --env-file: line {number} is not NAME=value and is skipped"
            for number in range(2, 7)
        ),
        "warning: --env-file: 5 more lines are skipped",
    ]
    done = invoke("check", "--env-file", "-", given="# secret\n")
    assert done.stderr == "warning: --env-file sets no variable\n"


SECRET = "hunter2"
NAMES = [
    *(setting.variable for setting in SETTINGS),
    *(name for row in ROWS for name, _ in row.example),
    *("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "SENDFILE"),
    *("PYRYCODE_RELAY_NO_SETTING", "RELEASE_COMMAND", "POD_NAME", "POD_INDEX"),
    *("PATH", "HOME", "HOSTNAME", "SUPERVISOR_PROCESS_NAME"),
]
NOT_LINES = [
    f"PYRYCODE_RELAY_{SECRET}+/==",
    f"PYRYCODE_RELAY_TOKEN:{SECRET}==",
    f"'PYRYCODE_RELAY_A={SECRET}'=1",
    f"PYRYCODE_RELAY_\x1b[31m{SECRET}=1",
    f"A='{SECRET}",
    f'PYRYCODE_RELAY_DRAIN_S="{SECRET}" {SECRET}',
    f"{SECRET}",
    f"export {SECRET}",
    f"declare -x {SECRET}={SECRET}",
    f"= {SECRET}",
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"], ids=["lf", "crlf", "nul"])
@pytest.mark.parametrize("shape", ["{}", "'{}'", '"{}"', '{{"a": "x # {}"}}', "1 {}"])
def test_check_never_shows_a_value(shape: str, end: str) -> None:
    """Of no variable, on its own or in a crowd, in no form of the output."""
    lines = [f"{name}={shape.format(SECRET)}" for name in NAMES]
    unharmed = [line for line in lines if not line.startswith(PREFIX)]
    unharmed = [
        line for line in unharmed if not line.startswith(("PORT", "GUNI", "WEB"))
    ]
    for given in (lines, lines[::-1] + NOT_LINES, unharmed + NOT_LINES):
        text = end.join(given) + end
        for words in ((), ("--json",), ("--explain", "SI-401")):
            done = invoke("check", "--env-file", "-", *words, given=text)
            assert done.exit_code in (0, 78), done.output
            assert SECRET not in done.output


def test_relay_of_serve_is_ready_for_both_ends() -> None:
    """The whole of it once: the health page counts what ``binary`` opened."""
    with Relay() as relay:
        with Command("binary", "--server-id", "s1", "--url", relay.url) as held:
            held.until_said("connected")
            wait_until(lambda: relay.health()["connected_binaries"] == 1)
            assert held.signal(signal.SIGTERM) == 0
        wait_until(lambda: relay.health()["connected_binaries"] == 0)
        relay.stop()
