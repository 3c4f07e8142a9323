"""Names that number a copy from a start that may be shifted, and its lower neighbour.

A pod of a StatefulSet, an instance of a systemd template, a process of a supervisord
group and a container of Compose all end in a number, and in each case the first may
have any number. So a number proves something only together with the copy below it:
``candidates`` says which copy that would be and how to look for it, whoever gathers
facts looks, and the guard judges.

Source: docs/operations.md "The lower neighbour".
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


class Look(enum.Enum):
    """How a neighbour can be found."""

    NAME = "name"
    """One of the names resolves to an address."""
    UNIT = "unit"
    """The control group of that unit exists."""
    PROCESS = "process"
    """A process of the same supervisord group has that name."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The copy below this one.

    Args:
        kind: What both are, for a sentence.
        number: This copy's own.
        look: How to find the other.
        names: What to look for; finding one of them is enough.
        group: For ``Look.PROCESS``, the group that both are in.
        pin: What keeps it at one copy.
    """

    kind: str
    number: int
    look: Look
    names: tuple[str, ...]
    pin: str
    group: str = ""

    @property
    def same_host(self) -> bool:
        """Whether both would be on one host, where the lock sees a second relay."""
        return self.look is not Look.NAME


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process can learn about its own name.

    Args:
        hostname: The host's name.
        host_names: Every name of the host in its hosts file.
        host_network: It is a pod, and the host's name is that of its node.
        unit: The innermost systemd unit that it is in, ``name@2.service``.
        container: The name under which a container network knows this container.
    """

    hostname: str = ""
    host_names: tuple[str, ...] = ()
    host_network: bool = False
    unit: str = ""
    container: str = ""


# At most three digits and no leading zero: a pod's random tail, always five characters,
# may happen to be digits, and an instance may be named after its port.
_NUMBER = "(?P<number>[1-9][0-9]{0,2})"
_POD = re.compile(r"(?P<stem>[a-z0-9][a-z0-9-]*)-(?P<number>0|[1-9][0-9]{0,2})")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_UNIT = re.compile(rf"(?P<stem>.+@){_NUMBER}(?P<end>\.service)")
_SUPERVISED = re.compile(r"(?P<stem>.*[_-])(?P<number>[0-9]{1,3})")
_COMPOSED = re.compile(rf"(?P<stem>.+[_-].+[_-]){_NUMBER}")


def candidates(environ: Mapping[str, str], around: Surroundings) -> Iterator[Neighbour]:
    """Name the copies below this one, one for each manager that gave it a number.

    The first possible number has none below it and yields nothing.

    Args:
        environ: The process environment.
        around: What else is known about this process's name.
    """
    if environ.get("KUBERNETES_SERVICE_HOST"):
        yield from _pod(environ, around)
    if found := _UNIT.fullmatch(around.unit):
        number = int(found["number"])
        yield Neighbour(
            "instance of a systemd template",
            number,
            Look.UNIT,
            (f"{found['stem']}{number - 1}{found['end']}",),
            "systemctl disable --now the other instance, or use the unit without @",
        )
    yield from _supervised(environ)
    if found := _COMPOSED.fullmatch(around.container):
        number = int(found["number"])
        if number >= 2:  # Compose counts from one
            # With a dot at the end it is asked for as it stands, of the network's own
            # name service; in a search domain it would be somebody else.
            yield Neighbour(
                "container of a Compose service",
                number,
                Look.NAME,
                (f"{found['stem']}{number - 1}.",),
                "docker compose up --scale SERVICE=1",
            )


def _pod(environ: Mapping[str, str], around: Surroundings) -> Iterator[Neighbour]:
    """A pod's number is at the end of its name, and in its index label.

    An index that is malformed, or says something else than the name, is passed over;
    without a number in the name it counts, and there is no name to look for.
    """
    name = environ.get("POD_NAME", "")
    if not name and not around.host_network:
        name = environ.get("HOSTNAME") or around.hostname
    name = name.partition(".")[0]  # a pod may be set to have its full name as hostname
    index = environ.get("POD_INDEX", "")
    indexed = _INDEX.fullmatch(index) is not None
    names: tuple[str, ...] = ()
    if indexed and name.endswith(f"-{index}"):
        number = int(index)
        names = _pods_below(name, name[: -len(index) - 1], number, around)
    elif found := _POD.fullmatch(name):
        number = int(found["number"])
        names = _pods_below(name, found["stem"], number, around)
    else:
        number = int(index) if indexed else 0
    if number >= 1:
        yield Neighbour(
            "pod of a StatefulSet",
            number,
            Look.NAME,
            names,
            "kubectl scale statefulset/NAME --replicas=1",
        )


def _pods_below(
    name: str, stem: str, number: int, around: Surroundings
) -> tuple[str, ...]:
    """Give the names that the pod below may have.

    The service that governs the set gives each pod a name in its own domain. It is in
    the pod's hosts file; where it is not, the service is mostly named as the set.
    """
    below = f"{stem}-{number - 1}"
    full = [
        f"{below}{own[len(name) :].rstrip('.')}."
        for own in around.host_names
        if own.startswith(f"{name}.")
    ]
    return tuple(dict.fromkeys(full)) or (f"{below}.{stem}",)


def _supervised(environ: Mapping[str, str]) -> Iterator[Neighbour]:
    """The pattern of a program with several processes mostly ends in their number."""
    name = environ.get("SUPERVISOR_PROCESS_NAME", "")
    group = environ.get("SUPERVISOR_GROUP_NAME", "")
    found = _SUPERVISED.fullmatch(name)
    # A lone program is in a group of its own name, so a number in that is nobody's.
    if not found or not group or name == group or int(found["number"]) < 1:
        return
    number, width = int(found["number"]), len(found["number"])
    # Whether 10 follows 09 or 9 is not to be seen.
    padded, bare = f"{number - 1:0{width}}", f"{number - 1}"
    ends = (padded,) if found["number"].startswith("0") else (padded, bare)
    yield Neighbour(
        "process of a supervisord program",
        number,
        Look.PROCESS,
        tuple(dict.fromkeys(f"{found['stem']}{end}" for end in ends)),
        "numprocs=1 in supervisord's configuration",
        group,
    )
