"""Which names have a number, and which name is the one below."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core.neighbours import Look, Neighbour, Surroundings, candidates

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
FULL = "relay-2.headless.prod.svc.cluster.local"
SUPERVISED = {"SUPERVISOR_GROUP_NAME": "relay"}


def below(environ: dict[str, str], **around: Any) -> list[tuple[int, tuple[str, ...]]]:
    """Give each number, and the names to look for."""
    found = candidates(environ, Surroundings(**around))
    return [(one.number, one.names) for one in found]


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("relay-2", [(2, ("relay-1.relay",))]),
        ("relay-1", [(1, ("relay-0.relay",))]),
        ("relay-0", []),
        ("relay-10", [(10, ("relay-9.relay",))]),
        ("my-relay-100", [(100, ("my-relay-99.my-relay",))]),
        ("relay-2.headless.prod.svc.cluster.local", [(2, ("relay-1.relay",))]),
        ("relay", []),
        ("relay-", []),
        ("-2", []),
        ("relay-02", []),
        ("relay-1000", []),
        ("Relay-2", []),
        ("relay_2", []),
        ("relay-2\n", []),
        # Of a Deployment, a DaemonSet and a job, with tails that happen to be digits.
        ("relay-2-6d4b75cb6d-x2x9z", []),
        ("relay-2-6d4b75cb6d-24567", []),
        ("relay-2-7845679546-24567", []),
        ("relay-x2x9z", []),
        ("relay-2-24567", []),
        ("relay-28394720-24567", []),
    ],
)
def test_pod_name_by_hostname(
    hostname: str, expected: list[tuple[int, tuple[str, ...]]]
) -> None:
    """Only what a StatefulSet makes is numbered, from either source of the name."""
    assert below(KUBERNETES, hostname=hostname) == expected
    assert below(KUBERNETES | {"HOSTNAME": hostname}, hostname="x") == expected
    assert below(KUBERNETES | {"POD_NAME": hostname}, hostname="x-7") == expected


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [
        ("relay-2", "2", [(2, ("relay-1.relay",))]),
        ("relay-1234", "1234", [(1234, ("relay-1233.relay",))]),
        ("relay-0", "0", []),
        # Without a number in the name there is nothing to look for.
        ("ip-10-0-0-x", "2", [(2, ())]),
        ("", "1", [(1, ())]),
        ("ip-10-0-0-x", "0", []),
        # Malformed or contradicting: the name counts.
        ("relay-2", "", [(2, ("relay-1.relay",))]),
        ("relay-2", "two", [(2, ("relay-1.relay",))]),
        ("relay-2", "-2", [(2, ("relay-1.relay",))]),
        ("relay-2", "02", [(2, ("relay-1.relay",))]),
        ("relay-2", "٢", [(2, ("relay-1.relay",))]),
        ("relay-2", "1", [(2, ("relay-1.relay",))]),
        ("relay-12", "2", [(12, ("relay-11.relay",))]),
        ("relay-0", "3", []),
        ("relay-x2x9z", "9" * 10, []),
        ("relay-x2x9z", "two", []),
    ],
)
def test_pod_index(
    name: str, index: str, expected: list[tuple[int, tuple[str, ...]]]
) -> None:
    """The index label counts where the name does not say otherwise."""
    assert below(KUBERNETES | {"POD_INDEX": index}, hostname=name) == expected


def test_pod_with_full_name_in_hosts_file_is_looked_for_in_that_domain() -> None:
    """The service that governs the set may be named otherwise; search domains are out."""
    names = (FULL, "relay-2", "relay-25.other", FULL + ".", "x." + FULL)
    assert below(KUBERNETES, hostname="relay-2", host_names=names) == [
        (2, ("relay-1.headless.prod.svc.cluster.local.",))
    ]


def test_pod_on_its_nodes_network_is_not_called_as_its_node() -> None:
    """A Deployment's pod on the node ``worker-2`` has no number."""
    around = {"hostname": "worker-2", "host_network": True}
    on_node = KUBERNETES | {"HOSTNAME": "worker-2"}
    assert below(on_node, **around) == []
    assert below(on_node | {"POD_NAME": "relay-1"}, **around) == [
        (1, ("relay-0.relay",))
    ]


@pytest.mark.parametrize("hostname", ["vps-3", "relay-2", "laptop-1"])
def test_machine_with_a_number_outside_kubernetes_has_none_below(hostname: str) -> None:
    """People number their machines; pod variables there are strays."""
    environ = {"HOSTNAME": hostname, "POD_NAME": hostname, "POD_INDEX": "3"}
    around = {"hostname": hostname, "host_names": (hostname, f"{hostname}.lan")}
    assert below(environ, **around) == []
    assert below(environ | {"KUBERNETES_SERVICE_HOST": ""}, **around) == []


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("relay@2.service", [(2, ("relay@1.service",))]),
        ("relay@1.service", [(1, ("relay@0.service",))]),
        ("my-relay@10.service", [(10, ("my-relay@9.service",))]),
        ("relay@0.service", []),
        ("relay@8081.service", []),
        ("relay@02.service", []),
        ("relay@a.service", []),
        ("relay@blue-2.service", []),
        ("relay.service", []),
        ("relay-2.service", []),
        ("@2.service", []),
        ("session-2.scope", []),
        ("run-u2.scope", []),
        ("", []),
    ],
)
def test_unit(unit: str, expected: list[tuple[int, tuple[str, ...]]]) -> None:
    """An instance that is a small number has one below; one named after its port not."""
    assert below({}, unit=unit) == expected


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("relay_00", "relay", []),
        ("relay_01", "relay", [(1, ("relay_00",))]),
        ("relay_10", "relay", [(10, ("relay_09", "relay_9"))]),
        ("relay-3", "relay", [(3, ("relay-2",))]),
        ("relay_003", "relay", [(3, ("relay_002",))]),
        ("relay-2", "all", [(2, ("relay-1",))]),
        # A program that is alone is in a group of its own name.
        ("relay-3", "relay-3", []),
        ("relay", "relay", []),
        ("relay_8081", "relay", []),
        ("relay2", "relay", []),
        ("relay_01", "", []),
        ("", "relay", []),
    ],
)
def test_process(
    name: str, group: str, expected: list[tuple[int, tuple[str, ...]]]
) -> None:
    """A number that supervisord gave, and not one in the program's own name."""
    environ = {"SUPERVISOR_PROCESS_NAME": name, "SUPERVISOR_GROUP_NAME": group}
    assert below(environ) == expected
    found = list(candidates(environ, Surroundings()))
    assert [one.group for one in found] == [group] * len(expected)


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ("proj-relay-1", []),
        ("proj-relay-2", [(2, ("proj-relay-1.",))]),
        ("proj_relay_2", [(2, ("proj_relay_1.",))]),
        ("my-proj-relay-10", [(10, ("my-proj-relay-9.",))]),
        ("proj-relay-0", []),
        ("proj-relay-run-3f2a1c9d8e7b", []),
        ("3f2a1c9d8e7b", []),
        ("vps-3", []),
        ("relay", []),
        ("", []),
    ],
)
def test_container(container: str, expected: list[tuple[int, tuple[str, ...]]]) -> None:
    """Project, service and a number from one on."""
    assert below({}, container=container) == expected


def test_copy_with_several_managers_has_one_below_for_each() -> None:
    """Where it is looked for says whether it would be on this host."""
    environ = KUBERNETES | SUPERVISED | {"SUPERVISOR_PROCESS_NAME": "relay_01"}
    found = list(
        candidates(
            environ, Surroundings("relay-2", unit="r@3.service", container="a-b-4")
        )
    )
    assert [(one.look, one.number, one.same_host) for one in found] == [
        (Look.NAME, 2, False),
        (Look.UNIT, 3, True),
        (Look.PROCESS, 1, True),
        (Look.NAME, 4, False),
    ]


NUMBERED = st.from_regex(r"[a-z]{1,3}([_@.-][a-z0-9]{0,4}){0,3}(\.service)?")
WORDS = (
    st.text(max_size=20) | NUMBERED | st.sampled_from(["relay-2", "p-relay-2", FULL])
)
VARIABLES = (
    "KUBERNETES_SERVICE_HOST",
    "POD_NAME",
    "POD_INDEX",
    "HOSTNAME",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_GROUP_NAME",
)


@given(
    st.dictionaries(st.sampled_from(VARIABLES), WORDS | st.integers(-1, 12).map(str)),
    st.builds(
        Surroundings, WORDS, st.lists(WORDS).map(tuple), st.booleans(), WORDS, WORDS
    ),
)
def test_any_environment_gives_numbers_above_zero_or_nothing(
    environ: dict[str, str], around: Surroundings
) -> None:
    """Nothing raises, the same gives the same, and each name is another than its own."""
    found = list(candidates(environ, around))
    assert found == list(candidates(environ, around))
    for one in found:
        assert isinstance(one, Neighbour)
        assert one.number >= 1
        assert one.pin
        assert len(set(one.names)) == len(one.names)
        if one.look is Look.UNIT:
            assert around.unit not in one.names
        if one.look is Look.PROCESS:
            assert environ["SUPERVISOR_PROCESS_NAME"] not in one.names
            assert one.group
