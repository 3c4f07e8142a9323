"""Gathers what the guard judges; decides nothing.

The only place where the guard's questions meet the world: the lock, the name of this
host, the control group, the processes and the name service.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any

from relay_app import lock
from relay_app.core import neighbours, platforms
from relay_app.core.config import Config
from relay_app.core.guard import Facts
from relay_app.core.neighbours import Look, Neighbour, Surroundings

if TYPE_CHECKING:
    from dns.name import Name
    from dns.resolver import Resolver

RESOLVER_S = 0.8
"""How long the name service may take over all questions together. The library's pause
after the last try comes on top, so that it is a second."""

DOCKERS_RESOLVER = "127.0.0.11"
"""Where a network of containers answers for their names; nowhere else it is asked."""

_HOSTS_MAX_BYTES = 65_536
"""Of a hosts file: that of a container is small, one that blocks advertisements is not,
and every start would have to read it."""

_POD_ON_NODES_NETWORK = "# Kubernetes-managed hosts file (host network)."

_IN_UNIT = re.compile(r"(/(?:.*/)?)([^/]+\.(?:service|scope|slice))(?:/.*)?", re.S)


class World:
    """What there is to ask; every answer is kept.

    Args:
        root: Where the host's files are.
        port: Of the name servers.
        resolver_s: How long the name servers may take over all questions together.
    """

    def __init__(
        self, root: str = "/", port: int = 53, resolver_s: float = RESOLVER_S
    ) -> None:
        self._root = root
        self._port = port
        self._left_s = resolver_s
        self._surroundings: Surroundings | None = None
        self._found: dict[Neighbour, bool] = {}

    def surroundings(self) -> Surroundings:
        """Learn what this process is called."""
        if self._surroundings is None:
            hostname = socket.gethostname()
            hosts = self._read("etc/hosts", _HOSTS_MAX_BYTES)
            lines = [line.partition("#")[0].split() for line in hosts.splitlines()]
            own = [line for line in lines if hostname in line[1:]]
            self._surroundings = Surroundings(
                hostname=hostname,
                host_names=tuple(name for line in own for name in line[1:]),
                host_network=hosts.startswith(_POD_ON_NODES_NETWORK),
                unit=self._unit()[1],
                container=self._container([line[0] for line in own]),
            )
        return self._surroundings

    def has(self, neighbour: Neighbour) -> bool:
        """Tell whether a neighbour was found."""
        if neighbour not in self._found:
            self._found[neighbour] = self._finds(neighbour)
        return self._found[neighbour]

    def _finds(self, neighbour: Neighbour) -> bool:
        match neighbour.look:
            case Look.NAME:
                return self._resolves(neighbour.names)
            case Look.UNIT:
                return self._has_unit(neighbour.names)
            case Look.PROCESS:
                return self._has_process(neighbour.names, neighbour.group)

    def _read(self, path: str, at_most: int = -1) -> str:
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return os.fsdecode(file.read(at_most))
        except OSError:
            return ""

    def _unit(self) -> tuple[str, str]:
        """Give the innermost unit that this process is in, after the path to it.

        The control group is the unified hierarchy's, or systemd's own; a service may
        have made groups of its own below the unit's.
        """
        for line in self._read("proc/self/cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            found = _IN_UNIT.fullmatch(path)
            if found and controllers in ("", "name=systemd"):
                return found[1], found[2]
        return "", ""

    def _has_unit(self, names: tuple[str, ...]) -> bool:
        beside = self._unit()[0].lstrip("/")
        cgroups = os.path.join(self._root, "sys/fs/cgroup")
        return any(
            os.path.isdir(os.path.join(cgroups, hierarchy, beside, name))
            for hierarchy in ("", "systemd", "unified")
            for name in names
        )

    def _has_process(self, names: tuple[str, ...], group: str) -> bool:
        try:
            processes = os.listdir(os.path.join(self._root, "proc"))
        except OSError:
            return False
        wanted = {f"SUPERVISOR_PROCESS_NAME={name}" for name in names}
        for process in processes:
            if process.isdecimal():
                # Empty for one of another user, and for one that has gone.
                variables = set(self._read(f"proc/{process}/environ").split("\0"))
                if wanted & variables and f"SUPERVISOR_GROUP_NAME={group}" in variables:
                    return True
        return False

    def _container(self, addresses: list[str]) -> str:
        """Ask a container network's own name service what this container is called."""
        servers = re.findall(
            r"^nameserver[ \t]+(\S+)", self._read("etc/resolv.conf"), re.M
        )
        if not addresses or DOCKERS_RESOLVER not in servers:
            return ""
        with contextlib.suppress(Exception):  # as in _resolves
            from dns.reversename import from_address

            answer = self._ask(self._resolver(), from_address(addresses[0]), "PTR")
            return answer.partition(".")[0]
        return ""

    def _resolves(self, names: tuple[str, ...]) -> bool:
        # Whatever the library makes of this host's settings and of the answers, it is
        # no reason for a relay not to start.
        with contextlib.suppress(Exception):
            resolver = self._resolver() if names else None
            return resolver is not None and any(
                self._has_address(resolver, full) and not self._is_wild(resolver, full)
                for name in names
                for full in _full_names(resolver, name)
            )
        return False

    def _has_address(self, resolver: Resolver, name: Name) -> bool:
        """Tell whether a name has an address of either kind.

        Raises:
            Timeout: The name servers have had their time.
        """
        from dns.resolver import NXDOMAIN, NoAnswer, NoNameservers

        for kind in ("A", "AAAA"):
            try:
                self._ask(resolver, name, kind)
            except NXDOMAIN:
                return False
            except (NoAnswer, NoNameservers):
                continue
            return True
        return False

    def _is_wild(self, resolver: Resolver, name: Name) -> bool:
        """Tell whether any other name in that domain has an address as well."""
        from dns.name import Name

        other = Name((token_hex(16).encode(), *name.labels[1:]))
        with contextlib.suppress(Exception):
            return self._has_address(resolver, other)
        return False

    def _ask(self, resolver: Resolver, name: Name, kind: str) -> str:
        started = monotonic()
        try:
            return str(resolver.resolve(name, kind, lifetime=self._left_s)[0])
        finally:
            self._left_s = max(0.0, self._left_s - (monotonic() - started))

    def _resolver(self) -> Resolver:
        # A large library that few need: a numbered copy, and a container of Docker's.
        from dns.resolver import Resolver

        resolver = Resolver(os.path.join(self._root, "etc/resolv.conf"))
        resolver.port = self._port
        # Each server gets its turn, and a lone one two: a datagram may be lost.
        resolver.timeout = self._left_s / max(2, len(resolver.nameservers))
        return resolver


def _full_names(resolver: Resolver, name: str) -> Iterator[Name]:
    """Complete a name as the system's resolver does, which asks for one after the other.

    The library's own search stops at a domain that knows the name but no address, and
    at one whose servers fail; the system's does not.
    """
    from dns.name import NameTooLong, from_text, root

    given = from_text(name, origin=None)
    if given.is_absolute():
        yield given
        return
    ends = list(resolver.search or [resolver.domain])
    ndots = 1 if resolver.ndots is None else resolver.ndots
    ends.insert(0 if len(given) > ndots else len(ends), root)
    for end in dict.fromkeys(ends):
        with contextlib.suppress(NameTooLong):
            yield given + end


THIS_WORLD = World()
"""That of this process, and of those forked from it: a worker that replaces another has
the answers from its master."""


def gather(
    config: Config,
    environ: Mapping[str, str],
    *,
    workers: int | None,
    workers_from: str = "the configuration",
    siblings: tuple[int, ...] = (),
    addresses: Sequence[Any] = (),
    patient: bool = True,
    world: World = THIS_WORLD,
) -> Facts:
    """Put together what the guard judges, and take the lock of this relay.

    Args:
        config: The settings read from ``environ``.
        environ: The environment of this process.
        workers: The server's effective worker count; ``None`` for no server.
        workers_from: Where that number comes from.
        siblings: Living workers of the same server.
        addresses: What the server will bind, where it is known.
        patient: Wait a moment for a holder of the lock that is about to go.
        world: Where to look for neighbours.
    """
    facts = Facts(
        environ=environ,
        config=config,
        workers=workers,
        workers_from=workers_from,
        siblings=siblings,
    )
    if platforms.not_serving(environ) is not None:
        return facts  # and leave the lock to those who serve
    # The lock comes last: ``check`` has it for a moment only, and a name service may
    # take its time.
    found = tuple(
        (below, world.has(below))
        for below in neighbours.candidates(environ, world.surroundings())
    )
    taken = lock.acquire(config, environ, addresses, patient)
    return replace(facts, lock=taken, neighbours=found)
