"""What is found of a neighbour: in real trees of files, of real servers and processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import dns.exception
import dns.message
import dns.query
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_app.core.config import Config
from relay_app.core.neighbours import Look, Neighbour, Surroundings
from relay_app.facts import DOCKERS_RESOLVER, World, gather
from tests.servers import program
from tests.waiting import wait_until

HOST = socket.gethostname()
CONFIG = Config()
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}

RECORDS = (
    "--host-record=relay-1.relay.ns.test,10.0.0.1",
    "--host-record=relay-1.six.ns.test,fd00::1",
    "--cname=relay-1.alias.ns.test,relay-1.relay.ns.test",
    "--txt-record=relay-1.late.nodata.test,no address here",
    "--host-record=relay-1.late.ns.test,10.0.0.2",
    "--host-record=whole.ns.test,10.0.0.3",
    "--address=/wild.test/10.0.0.9",
    "--ptr-record=3.0.18.172.in-addr.arpa,proj-relay-2.proj_default",
    "--host-record=proj-relay-1,172.18.0.2",
    "--local=/test/",
)
"""What the name server answers. In ``test`` nothing else exists; of every other domain
it refuses to speak."""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A name server on two addresses of loopback; its port."""
    dnsmasq = program("dnsmasq")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts"]
    command += ["--no-resolv", "--bind-interfaces", "--pid-file=", f"--port={port}"]
    command += ["--listen-address=127.0.0.1", f"--listen-address={DOCKERS_RESOLVER}"]
    running = subprocess.Popen(command + list(RECORDS), stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert running.poll() is None, "dnsmasq did not start"
        with contextlib.suppress(OSError, dns.exception.Timeout):
            question = dns.message.make_query("whole.ns.test", "A")
            dns.query.udp(question, DOCKERS_RESOLVER, timeout=0.1, port=port)
            return True
        return False

    try:
        wait_until(answers)
        yield port
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def mute() -> Iterator[int]:
    """A name server that never says anything; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def write(root: Path, **files: str) -> World:
    """Write files under ``root``, with ``__`` for ``/``, and give their world."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return World(str(root))


def named(*names: str) -> Neighbour:
    """A neighbour that is found by name."""
    return Neighbour("pod", 2, Look.NAME, names, "pin")


# The unit and the hosts file.


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/system-relay.slice/relay@2.service\n", "relay@2.service"),
        ("0::/system.slice/relay@2.service/a/b\n", "relay@2.service"),
        (
            "9:cpu:/x\n1:name=systemd:/system.slice/relay.service\n0::/\n",
            "relay.service",
        ),
        ("9:cpu:/a@2.service\n", ""),
        (
            "0::/user.slice/user-501.slice/user@501.service/app.slice/relay@2.service",
            "relay@2.service",
        ),
        # The manager of a user's session is no instance of the relay.
        (
            "0::/user.slice/user-501.slice/user@501.service/app.slice/term-7.scope",
            "term-7.scope",
        ),
        ("0::/system.slice/docker-3f2a.scope", "docker-3f2a.scope"),
        ("0::/docker/3f2a", ""),
        ("0::/", ""),
        ("nonsense\n\n::\n", ""),
        ("", ""),
    ],
)
def test_unit_is_the_innermost_of_the_control_group(
    tmp_path: Path, cgroup: str, unit: str
) -> None:
    """Of systemd's own hierarchy, without what a service made below its unit's group."""
    world = write(tmp_path, proc__self__cgroup=cgroup)
    assert world.surroundings().unit == unit


@pytest.mark.parametrize("hierarchy", ["", "systemd/", "unified/"])
def test_instance_below_is_found_by_its_control_group(
    tmp_path: Path, hierarchy: str
) -> None:
    """A directory beside this instance's own; a file, or one elsewhere, is nothing."""
    beside = "system.slice/system-relay.slice"
    tree = tmp_path / "sys/fs/cgroup" / hierarchy / beside
    cgroup = f"0::/{beside}/relay@2.service/sub\n"
    below = Neighbour("instance", 2, Look.UNIT, ("relay@1.service",), "pin")

    def found() -> bool:
        return write(tmp_path, proc__self__cgroup=cgroup).has(below)

    assert not found()
    (tree / "deeper/relay@1.service").mkdir(parents=True)
    assert not found()
    (tree / "relay@1.service").touch()
    assert not found()
    (tree / "relay@1.service").unlink()
    (tree / "relay@1.service").mkdir()
    assert found()


def test_names_of_this_host_are_those_on_its_lines_of_the_hosts_file(
    tmp_path: Path,
) -> None:
    """Comments, other hosts and lines without a name are passed over."""
    text = (
        "# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n\n10.0.0.9\n"
        f"10.0.0.1\t{HOST}.headless.ns.svc.cluster.local\t{HOST} # {HOST}.comment\n"
        f"10.0.0.2 other.{HOST} {HOST}2\n"
    )
    around = write(tmp_path, etc__hosts=text).surroundings()
    assert around.host_names == (f"{HOST}.headless.ns.svc.cluster.local", HOST)
    assert not around.host_network
    assert around.hostname == HOST


def test_pod_on_its_nodes_network_is_known_by_its_hosts_file(tmp_path: Path) -> None:
    """The kubelet says so in the first line."""
    text = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
    assert write(tmp_path, etc__hosts=text).surroundings().host_network


def test_nothing_to_read_is_no_name_and_no_neighbour(tmp_path: Path) -> None:
    """No files at all, directories in their place, and bytes that are no text."""
    assert World(str(tmp_path)).surroundings() == Surroundings(hostname=HOST)
    for look in Look:
        below = Neighbour("copy", 1, look, ("relay-0", ".."), "pin", "relay")
        assert not World(str(tmp_path)).has(below)
    for name in ("etc/hosts", "etc/resolv.conf", "proc/self/cgroup", "proc/7/environ"):
        (tmp_path / name).mkdir(parents=True)
    world = World(str(tmp_path))
    assert world.surroundings() == Surroundings(hostname=HOST)
    assert not world.has(Neighbour("copy", 1, Look.PROCESS, ("a_0",), "pin", "a"))


# The name service.


def search(tmp_path: Path, port: int, lines: str = "search ns.test") -> World:
    """A world that asks a server, with settings of its own."""
    write(tmp_path, etc__resolv_conf="")
    (tmp_path / "etc/resolv.conf").write_text(f"nameserver 127.0.0.1\n{lines}\n")
    return World(str(tmp_path), port, 5.0)


@pytest.mark.parametrize(
    ("name", "lines", "found"),
    [
        ("relay-1.relay", "search ns.test", True),
        ("relay-1.relay", "domain ns.test", True),
        ("relay-1.relay", "search no.test ns.test\noptions ndots:5", True),
        ("relay-1.relay", "search no.test", False),
        ("relay-1.relay", "", False),
        ("relay-0.relay", "search ns.test\noptions ndots:5", False),
        ("relay-1.relay.ns.test", "search no.test", True),
        ("relay-1.relay.ns.test", "search no.test\noptions ndots:9", True),
        ("relay-1.relay.ns.test.", "search no.test", True),
        ("relay-1.relay.", "search ns.test", False),
        ("relay-1.relay", "search . ns.test", True),
        ("relay-1.six", "search ns.test", True),
        ("relay-1.alias", "search ns.test", True),
        # Known there without an address; refused to be told; not to be asked at all.
        ("relay-1.late", "search nodata.test ns.test\noptions ndots:5", True),
        ("relay-1.late", "search refused.example ns.test\noptions ndots:5", True),
        ("relay-1.late", f"search {'a' * 60}.{'b.' * 92}test ns.test", True),
        # Every name in that domain has an address, so this one's proves nothing.
        ("relay-1.relay", "search wild.test", False),
        ("relay-1.relay", "search wild.test ns.test", True),
        ("a" * 64 + "-1", "search ns.test", False),
        ("relay-1." + "a." * 130, "search ns.test", False),
        ("relay..1", "search ns.test", False),
        ("\udcff-1", "search ns.test", False),
        ("", "search ns.test", False),
    ],
)
def test_pod_below_is_found_as_the_system_would_find_it(
    tmp_path: Path, server: int, name: str, lines: str, found: bool
) -> None:
    """Through each search domain in turn, by an address of either kind."""
    assert search(tmp_path, server, lines).has(named(name)) is found


def test_one_of_several_names_is_enough(tmp_path: Path, server: int) -> None:
    """And none is none."""
    world = search(tmp_path, server)
    assert world.has(named("no", "relay-0.relay", "relay-1.relay"))
    assert not world.has(named())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "search ns.test\n",
        "nameserver\n",
        "nameserver nonsense\n",
        "options ndots:x",
    ],
)
def test_no_name_server_to_ask_is_not_found(tmp_path: Path, text: str) -> None:
    """Whatever the file says, nothing raises."""
    world = search(tmp_path, 9)
    (tmp_path / "etc/resolv.conf").write_text(text)
    assert not world.has(named("relay-1.relay"))
    (tmp_path / "etc/resolv.conf").write_bytes(
        b"nameserver 127.0.0.1\nsearch \xff\xfe\n"
    )
    assert not World(str(tmp_path), 9, 0.1).has(named("relay-1.relay"))


def test_server_that_never_answers_is_given_up_in_time(
    tmp_path: Path, mute: int
) -> None:
    """One span for all names and neighbours together; then nothing is asked any more."""
    limit_s = 0.3
    search(tmp_path, mute, "nameserver 127.0.0.1\nsearch ns.test a.test b.test")
    world = World(str(tmp_path), mute, limit_s)
    started = monotonic()
    for number in range(5):
        assert not world.has(named(f"relay-{number}.relay", f"relay-{number}.other"))
    assert limit_s * 0.9 <= monotonic() - started < limit_s + 1


def test_container_is_told_its_name_and_finds_the_one_below(
    tmp_path: Path, server: int
) -> None:
    """By the name service of its network, from the address in its hosts file."""
    write(tmp_path, etc__hosts=f"127.0.0.1 localhost\n172.18.0.3 {HOST}\n")
    (tmp_path / "etc/resolv.conf").write_text(f"nameserver {DOCKERS_RESOLVER}\n")
    world = World(str(tmp_path), server, 5.0)
    assert world.surroundings().container == "proj-relay-2"
    found = gather(CONFIG, {}, workers=1, world=world).neighbours
    assert [(below.number, there) for below, there in found] == [(2, True)]


@pytest.mark.parametrize("address", ["172.18.0.9", "nonsense", "fe80::1%eth0"])
def test_container_without_a_name_has_none_below(
    tmp_path: Path, server: int, address: str
) -> None:
    """The network does not know it, or the hosts file has something else there."""
    write(tmp_path, etc__hosts=f"{address} {HOST}\n")
    (tmp_path / "etc/resolv.conf").write_text(f"nameserver {DOCKERS_RESOLVER}\n")
    world = World(str(tmp_path), server, 5.0)
    assert world.surroundings().container == ""


def test_pod_gathers_whether_the_one_below_is_there(
    tmp_path: Path, server: int
) -> None:
    """From its environment to the answer."""
    world = search(tmp_path, server)
    for name, there in (("relay-2", True), ("relay-1", False)):
        environ = KUBERNETES | {"HOSTNAME": name}
        found = gather(CONFIG, environ, workers=1, world=world).neighbours
        assert [answer for _, answer in found] == [there]
    assert not gather(CONFIG, {"HOSTNAME": "vps-3"}, workers=1, world=world).neighbours


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hosts=st.text(),
    resolv=st.text(),
    cgroup=st.text(),
    name=st.text(),
    number=st.text(),
)
def test_no_file_and_no_name_keeps_a_relay_from_starting(
    tmp_path: Path,
    server: int,
    hosts: str,
    resolv: str,
    cgroup: str,
    name: str,
    number: str,
) -> None:
    """Nothing raises, whatever is written there."""
    files = {"hosts": hosts, "resolv.conf": f"nameserver 127.0.0.11\n{resolv}"}
    for file, text in files.items():
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / file).write_text(f"1.1.1.1 {HOST}\n{text}", "utf-8")
    write(tmp_path, proc__self__cgroup=f"0::/{cgroup}/{name}@7.service")
    world = World(str(tmp_path), server, 0.5)
    environ = KUBERNETES | {"POD_NAME": name, "POD_INDEX": number}
    environ |= {"SUPERVISOR_PROCESS_NAME": f"{name}_3", "SUPERVISOR_GROUP_NAME": name}
    gather(CONFIG, environ, workers=1, world=world)
    for look in Look:
        world.has(Neighbour("copy", 1, look, (name, hosts, cgroup), "pin", name))


GATHER = """
import sys
from relay_app import facts
from relay_app.core.config import Config
world = facts.World(sys.argv[1])
environ = {"HOSTNAME": "vps-3", "POD_NAME": "relay-2"}
assert facts.gather(Config(), environ, workers=1, world=world).neighbours == ()
assert not [name for name in sys.modules if name.partition(".")[0] == "dns"]
"""


def test_host_without_a_numbered_name_asks_no_name_server(tmp_path: Path) -> None:
    """The library for that is not even loaded."""
    world = f"127.0.0.1 localhost\n10.0.0.1 {HOST}.lan {HOST}\n"
    write(tmp_path, etc__hosts=world, proc__self__cgroup="0::/user.slice/a.scope\n")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 127.0.0.1\nsearch lan\n")
    subprocess.run([sys.executable, "-c", GATHER, str(tmp_path)], check=True)


# Processes.


def test_process_below_is_found_in_its_group_only(tmp_path: Path) -> None:
    """In the environment of any process that may be read."""
    below = Neighbour("process", 1, Look.PROCESS, ("relay_00",), "pin", "relay")
    own = "A=1\0SUPERVISOR_PROCESS_NAME=relay_01\0SUPERVISOR_GROUP_NAME=relay\0"
    other = "SUPERVISOR_GROUP_NAME=other\0SUPERVISOR_PROCESS_NAME=relay_00\0"
    similar = "SUPERVISOR_PROCESS_NAME=relay_000\0SUPERVISOR_GROUP_NAME=relay\0"
    there = "SUPERVISOR_PROCESS_NAME=relay_00\0SUPERVISOR_GROUP_NAME=relay\0"
    files = {"proc__1__environ": "", "proc__7__environ": own, "proc__x__environ": there}
    files |= {"proc__8__environ": other, "proc__9__environ": similar}
    assert not write(tmp_path, **files).has(below)
    assert write(tmp_path, proc__10__environ=there).has(below)


LOOK = """
import os, signal
from pathlib import Path
from relay_app.core import neighbours
from relay_app.facts import World
world = World()
found = [(n.number, n.names, n.group, world.has(n))
         for n in neighbours.candidates(os.environ, world.surroundings())
         if n.look is neighbours.Look.PROCESS]
said = Path(os.environ["SUPERVISOR_PROCESS_NAME"])
said.with_suffix(".part").write_text(repr(found))
said.with_suffix(".part").rename(said)
signal.pause()
"""


PROGRAM = """
[program:{name}]
command={python} look.py
directory={directory}
environment=PYTHONPATH="{package}"
process_name=%(program_name)s_%(process_num)02d
numprocs={processes}
numprocs_start={first}
"""


def test_processes_of_a_real_supervisord_find_the_one_below(tmp_path: Path) -> None:
    """The second of two finds the first; the first, and a lone one, find nobody."""
    supervisord = program("supervisord")
    (tmp_path / "look.py").write_text(LOOK)
    text = "[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=pid\n"
    for name, processes, first in (("relay", 2, 0), ("lone", 1, 1)):
        text += PROGRAM.format(
            name=name,
            python=sys.executable,
            directory=tmp_path,
            package=Path(__file__).parent.parent,
            processes=processes,
            first=first,
        )
    (tmp_path / "supervisord.conf").write_text(text)
    log = tmp_path / "log"
    with log.open("w") as output:
        running = subprocess.Popen(
            [supervisord, "--nodaemon", "--configuration", "supervisord.conf"],
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    expected = {
        "relay_00": [],
        "relay_01": [(1, ("relay_00",), "relay", True)],
        "lone_01": [(1, ("lone_00",), "lone", False)],
    }
    try:
        wait_until(
            lambda: all((tmp_path / name).exists() for name in expected), log.read_text
        )
    finally:
        running.terminate()
        running.wait()
    for name, found in expected.items():
        assert (tmp_path / name).read_text() == repr(found)
