"""The deploy files: one copy, the assertion, time for the drain, and a guard that agrees."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay_app.core import neighbours
from relay_app.core.config import PREFIX, SETTINGS, Config
from relay_app.core.guard import (
    EXIT_REFUSED,
    EXIT_REFUSED_IN_GUNICORN,
    Facts,
    Level,
    LockReport,
    LockState,
    Verdict,
    judge,
)
from relay_app.core.neighbours import Surroundings
from relay_app.core.platforms import PLATFORMS
from tests.e2e.gunicorn import Gunicorn
from tests.servers import program

ROOT = Path(__file__).resolve().parent.parent
ASSERTION = PREFIX + "ASSERT_SINGLE_INSTANCE"
GUNICORNS_S = 15
"""What gunicorn waits longer than the drain before it kills a worker."""

PLATFORM = {row.name: row for row in PLATFORMS}
SECOND = {
    "Heroku": {"DYNO": "web.2"},
    "Heroku or Dokku": {"DYNO": "web.2"},
    "Scalingo": {"CONTAINER": "web-2"},
}
"""What those of the platforms below that show it set for a second copy."""


@dataclass(frozen=True)
class Deploy:
    """What a deploy file says.

    Args:
        file: Its path.
        environ: The variables that it sets.
        copies: How many it runs.
        stop_s: Between SIGTERM and the kill; ``None`` where the platform decides.
        command: What it starts; empty where the image knows.
        platforms: Rows of the table that it is for; none for plain hosts.
    """

    file: str
    environ: dict[str, str]
    copies: int
    stop_s: float | None
    command: list[str] = field(default_factory=list)
    platforms: tuple[str, ...] = ()


def read(file: str) -> str:
    """The text of a file of the checkout."""
    return (ROOT / file).read_text()


def seconds(text: str) -> float:
    """A span as Compose writes it."""
    found = re.fullmatch(r"([0-9]+)s", text)
    assert found, text
    return float(found[1])


def procfile() -> Deploy:
    """Heroku and what is like it."""
    (line,) = read("Procfile").splitlines()
    process_type, _, command = line.partition(": ")
    assert process_type == "web"
    env, *words = shlex.split(command)
    assert env == "env"
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    return Deploy(
        "Procfile",
        settings,
        copies=1,  # a line is a type of process, not a number of them
        stop_s=None,
        command=words[len(settings) :],
        platforms=("Heroku", "Heroku Fir", "Heroku or Dokku", "Scalingo"),
    )


def app_json() -> Deploy:
    """An app of Heroku or Dokku that is made from the checkout."""
    app = json.loads(read("app.json"))
    assert list(app["formation"]) == ["web"]
    return Deploy(
        "app.json",
        {name: said["value"] for name, said in app["env"].items()},
        app["formation"]["web"]["quantity"],
        stop_s=None,
        platforms=("Heroku", "Heroku or Dokku"),
    )


def fly() -> Deploy:
    """One machine."""
    said = tomllib.loads(read("fly.toml"))
    return Deploy(
        "fly.toml",
        said["env"],
        said["http_service"]["min_machines_running"],
        said["kill_timeout"],
        platforms=("Fly",),
    )


def render() -> Deploy:
    """One instance with a disk."""
    (service,) = yaml.safe_load(read("render.yaml"))["services"]
    return Deploy(
        "render.yaml",
        {variable["key"]: variable["value"] for variable in service["envVars"]},
        service["numInstances"],
        service["maxShutdownDelaySeconds"],
        platforms=("Render",),
    )


def compose() -> Deploy:
    """One container."""
    services = yaml.safe_load(read("compose.yaml"))["services"]
    relay = services["relay"]
    assert list(services) == ["relay"]
    return Deploy(
        "compose.yaml",
        relay["environment"],
        relay["deploy"]["replicas"],
        seconds(relay["stop_grace_period"]),
    )


def pod() -> dict[str, Any]:
    """The specification of the pod."""
    deployment, service = yaml.safe_load_all(read("deploy/kubernetes.yaml"))
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    found: dict[str, Any] = template["spec"]
    return found


def kubernetes() -> Deploy:
    """A Deployment of one pod."""
    deployment, _ = yaml.safe_load_all(read("deploy/kubernetes.yaml"))
    (container,) = pod()["containers"]
    return Deploy(
        "deploy/kubernetes.yaml",
        {row["name"]: row["value"] for row in container["env"] if "value" in row},
        deployment["spec"]["replicas"],
        pod()["terminationGracePeriodSeconds"],
        platforms=("Kubernetes",),
    )


def unit_lines(name: str) -> list[str]:
    """Every value that the unit's ``[Service]`` gives a setting, in order."""
    service = read("deploy/pyrycode-relay.service").partition("[Service]\n")[2]
    service = service.partition("\n[")[0]
    return re.findall(rf"^{name}=(.*)$", service, re.MULTILINE)


def unit() -> Deploy:
    """A service of systemd, which is no template and so runs once."""
    (command,) = unit_lines("ExecStart")
    (stop,) = unit_lines("TimeoutStopSec")
    return Deploy(
        "deploy/pyrycode-relay.service",
        dict(line.split("=", 1) for line in unit_lines("Environment")),
        copies=1,
        stop_s=float(stop),
        command=shlex.split(command),
    )


DEPLOYS: tuple[Callable[[], Deploy], ...] = (
    procfile,
    app_json,
    fly,
    render,
    compose,
    kubernetes,
    unit,
)
each = pytest.mark.parametrize("deploy", DEPLOYS, ids=lambda deploy: deploy.__name__)


def surroundings(deploy: Deploy) -> list[dict[str, str]]:
    """What its platforms set for a lone copy; nothing on a plain host."""
    return [dict(PLATFORM[name].example) for name in deploy.platforms] or [{}]


def verdict(environ: dict[str, str], **facts: Any) -> Verdict:
    """Judge an environment with one worker."""
    return judge(
        Facts(environ=environ, config=Config.from_environ(environ), workers=1, **facts)
    )


@each
def test_runs_one_copy_and_says_so(deploy: Callable[[], Deploy]) -> None:
    """The count and the assertion stand in one file."""
    said = deploy()
    assert said.copies == 1
    assert said.environ[ASSERTION] == "true"
    assert said.environ.get(PREFIX + "REPLICAS", "1") == "1"


@each
def test_its_settings_exist(deploy: Callable[[], Deploy]) -> None:
    """Each is known and has a value that can be used."""
    said = deploy()
    known = {setting.variable for setting in SETTINGS}
    ours = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", read(said.file)))
    # Named in a comment as what a Service of that name would set.
    ours -= {PREFIX + "PORT"} if said.file == "deploy/kubernetes.yaml" else set()
    assert ours <= known
    assert Config.from_environ(said.environ).unknown == ()


@each
def test_asks_for_no_second_worker(deploy: Callable[[], Deploy]) -> None:
    """Neither by a variable nor by a flag."""
    said = deploy()
    assert not re.search(r"WEB_CONCURRENCY|GUNICORN_CMD|--workers", read(said.file))
    assert not [word for word in said.command if word.startswith("-w")]


@each
def test_leaves_time_for_the_drain(deploy: Callable[[], Deploy]) -> None:
    """Also if gunicorn has to wait for as long as it does at most."""
    stop_s = deploy().stop_s
    if stop_s is not None:
        assert stop_s > Config().drain_s + GUNICORNS_S


@each
def test_guard_lets_it_start(deploy: Callable[[], Deploy]) -> None:
    """With what the platform sets besides."""
    said = deploy()
    for around in surroundings(said):
        found = verdict(around | said.environ)
        assert found.level is Level.FINE, found.findings
        assert "SI-402" in found.codes


@each
def test_guard_wants_its_assertion(deploy: Callable[[], Deploy]) -> None:
    """Without it the start is refused, so it is there for a reason."""
    said = deploy()
    for around in surroundings(said):
        environ = around | said.environ
        del environ[ASSERTION]
        assert [finding.code for finding in verdict(environ).refused] == ["SI-401"]


@each
def test_guard_refuses_a_second_copy(deploy: Callable[[], Deploy]) -> None:
    """Where the platform numbers it, where the file counts, and always on one host."""
    said = deploy()
    for around, name in zip(surroundings(said), said.platforms, strict=False):
        if name in SECOND:
            found = verdict(around | said.environ | SECOND[name])
            assert [finding.code for finding in found.refused] == ["SI-201"]
    for around in surroundings(said):
        found = verdict(around | said.environ | {PREFIX + "REPLICAS": "2"})
        assert [finding.code for finding in found.refused] == ["SI-202"]
        theirs = LockReport(LockState.THEIRS)
        found = verdict(around | said.environ, lock=theirs)
        assert [finding.code for finding in found.refused] == ["SI-102"]


def test_fly_replaces_its_machine_in_place() -> None:
    """And neither stops it when it is idle nor looks elsewhere for its port."""
    said = tomllib.loads(read("fly.toml"))
    service = said["http_service"]
    assert said["deploy"]["strategy"] == "rolling"
    assert said["kill_signal"] == "SIGTERM"
    assert service["auto_stop_machines"] == "off"
    assert service["internal_port"] == int(said["env"]["PORT"])
    assert [check["path"] for check in service["checks"]] == ["/readyz"]
    limits = service["concurrency"]
    assert limits["type"] == "connections"
    assert min(limits["soft_limit"], limits["hard_limit"]) >= Config().max_connections


def test_render_has_a_disk_and_no_scaling() -> None:
    """The disk is what forbids a second one, and scaling would outweigh the count."""
    (service,) = yaml.safe_load(read("render.yaml"))["services"]
    assert service["disk"]["sizeGB"] >= 1
    assert "scaling" not in service
    assert service["healthCheckPath"] == "/readyz"


def test_compose_writes_nothing_and_may_do_nothing() -> None:
    """Read-only but for temporary files, without capabilities."""
    relay = yaml.safe_load(read("compose.yaml"))["services"]["relay"]
    assert relay["read_only"] is True
    assert relay["tmpfs"] == ["/tmp"]
    assert relay["cap_drop"] == ["ALL"]
    assert "init" not in relay


def test_second_container_of_compose_is_refused() -> None:
    """By its name and the one below it."""
    around = Surroundings(container="app-relay-2")
    (below,) = neighbours.candidates({}, around)
    found = verdict(compose().environ, neighbours=((below, True),))
    assert [finding.code for finding in found.refused] == ["SI-203"]


def test_kubernetes_stops_the_old_pod_first() -> None:
    """Nor does anything scale it, and its service links set nothing of ours."""
    deployment, _ = yaml.safe_load_all(read("deploy/kubernetes.yaml"))
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert pod()["enableServiceLinks"] is False


def test_kubernetes_says_what_the_pod_is_called() -> None:
    """The guard goes by it in a StatefulSet, and sees nothing in it in a Deployment."""
    (container,) = pod()["containers"]
    paths = {
        row["name"]: row["valueFrom"]["fieldRef"]["fieldPath"]
        for row in container["env"]
        if "valueFrom" in row
    }
    assert paths == {
        "POD_NAME": "metadata.name",
        "POD_INDEX": "metadata.labels['apps.kubernetes.io/pod-index']",
    }
    said = dict(PLATFORM["Kubernetes"].example) | kubernetes().environ
    of_a_deployment = said | {"POD_NAME": said["HOSTNAME"], "POD_INDEX": ""}
    assert not list(neighbours.candidates(of_a_deployment, Surroundings()))
    of_a_set = said | {"POD_NAME": "relay-1", "POD_INDEX": "1"}
    (below,) = neighbours.candidates(of_a_set, Surroundings())
    found = verdict(of_a_set, neighbours=((below, True),))
    assert [finding.code for finding in found.refused] == ["SI-203"]


def test_kubernetes_probes_and_restricts() -> None:
    """What a restricted namespace asks for; probes on the relay's own routes."""
    (container,) = pod()["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    limits = container["securityContext"]
    assert limits["allowPrivilegeEscalation"] is False
    assert limits["readOnlyRootFilesystem"] is True
    assert limits["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


def instructions(name: str) -> list[str]:
    """What follows a word of the Dockerfile, in order, lines joined."""
    text = read("Dockerfile").replace("\\\n", " ")
    return re.findall(rf"^{name} +(.+)$", text, re.MULTILINE)


def test_image_is_for_nobody_in_particular() -> None:
    """A numeric user as in the pod, signals straight to the relay, no word of a count."""
    assert instructions("FROM") == ["python:3.12-slim AS build", "python:3.12-slim"]
    assert instructions("USER") == ["10001:10001"]
    assert pod()["securityContext"]["runAsUser"] == 10001
    (command,) = instructions("CMD")
    assert json.loads(command) == ["pyrycode-relay", "serve"]
    (variables,) = instructions("ENV")
    said = dict(word.split("=", 1) for word in variables.split())
    assert ASSERTION not in said
    assert Config.from_environ(said).listen.host == "0.0.0.0"
    assert Config.from_environ(said).listen.port == int(instructions("EXPOSE")[0])


def test_image_gets_what_the_package_needs_and_no_compiler() -> None:
    """Everything that is copied is there and not ignored."""
    copied = [
        name
        for line in instructions("COPY")
        if not line.startswith("--from")
        for name in line.split()[:-1]
    ]
    needed = re.findall(
        r"^(?:long_description = file:|license_files =) (.+)$", read("setup.cfg"), re.M
    )
    assert {"pyproject.toml", "setup.cfg", "relay_app", *needed} == set(copied)
    ignored = [line for line in read(".dockerignore").splitlines() if line[:1] != "#"]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    assert not [
        name
        for name in copied
        for line in ignored[1:]
        if line[0] != "!" and fnmatch.fnmatch(name, line)
    ]
    (run,) = instructions("RUN")
    assert "--only-binary :all:" in run
    assert "apt" not in run


def test_unit_leaves_a_refusal_as_it_is() -> None:
    """And starts again after anything else."""
    assert unit_lines("Restart") == ["always"]
    codes = {EXIT_REFUSED, EXIT_REFUSED_IN_GUNICORN}
    (said,) = unit_lines("RestartPreventExitStatus")
    assert {int(code) for code in said.split()} == codes
    assert unit_lines("KillMode") == ["mixed"]


def test_unit_has_a_directory_for_the_lock_and_files_for_everybody() -> None:
    """A user of its own, which may write there and nowhere else."""
    assert unit_lines("DynamicUser") == ["yes"]
    assert unit_lines("RuntimeDirectory") == ["pyrycode-relay"]
    assert unit_lines("ProtectSystem") == ["strict"]
    # The default of 10000 connections needs this many: docs/configuration.md.
    assert int(unit_lines("LimitNOFILE")[0]) >= 11088


def test_unit_is_what_systemd_understands(tmp_path: Path) -> None:
    """As its own program judges it, with a command that is here."""
    analyze = program("systemd-analyze")
    text = read("deploy/pyrycode-relay.service")
    installed = unit().command[0]
    copy = tmp_path / "pyrycode-relay.service"
    copy.write_text(text.replace(f"={installed} ", f"={sys.executable} "))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    # It exits with 0 on a word that it does not know, and says so.
    about_ours = [line for line in done.stderr.splitlines() if "pyrycode" in line]
    assert (done.returncode, about_ours) == (0, []), done.stderr


@contextmanager
def notified(path: Path) -> Iterator[Callable[[], bytes]]:
    """Listen where systemd would, and give a way to take one message or nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)

        def take() -> bytes:
            try:
                return listener.recv(4096)
            except BlockingIOError:
                return b""

        yield take


def serve(path: Path, **settings: str) -> Gunicorn:
    """Start the unit's command as systemd would."""
    words = unit().command[1:]
    assert unit_lines("Type") == ["notify"]
    return Gunicorn(
        command=[sys.executable, "-m", "relay_app", *words],
        extra={"NOTIFY_SOCKET": str(path), **settings},
    )


def test_unit_is_told_that_the_relay_is_ready(tmp_path: Path) -> None:
    """By gunicorn, from the process that systemd has started."""
    path = tmp_path / "notify"
    with notified(path) as take:
        relay = serve(path, **unit().environ, PYRYCODE_RELAY_ALLOW_ROOT="1")
        try:
            relay.ready()
            assert take().startswith(b"READY=1")
        finally:
            relay.stop()
        assert relay.process.returncode == 0


def test_unit_is_told_nothing_when_the_start_is_refused(tmp_path: Path) -> None:
    """And the exit code is one that it does not start again on."""
    path = tmp_path / "notify"
    with notified(path) as take:
        relay = serve(path, **(unit().environ | {PREFIX + "REPLICAS": "2"}))
        try:
            assert relay.wait() == EXIT_REFUSED
            assert take() == b""
        finally:
            relay.stop()
