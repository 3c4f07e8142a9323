"""Who holds which server-id, and which phones are there. Decisions only.

A *claim* belongs to one binary connection for as long as it holds the id, and to
nobody while the grace period runs:

    free ──claim──▶ held ──the holder ends──▶ in grace ──time is up──▶ free
                     │                            │
                     └─ probe: no answer ─────────┴─ a newcomer claims ─▶ held, by a
                                                                          new claim

A newcomer that meets a live holder starts a *probe*: the holder is pinged, and
its answer, its end or the probe's deadline decides. Newcomers that arrive while
a probe runs wait with it, in order.

Invariants:

* one claim per server-id; the claim in the table is the only one with phones;
* a claim never changes its holder: a takeover makes a new one, so a phone that
  has a claim can never be joined to a binary that was not there when it came;
* a phone is in exactly one claim's ``phones``, under a conn_id of its own;
* the clean-up of a connection changes nothing unless the claim is still its own.

Everything here takes ``now`` and returns effects for the hub to carry out, in
order. Nothing waits, so no greenlet switch can come in between. The frame path
does not come through here: a phone knows its claim, a claim its holder and its
phones.

Source: docs/protocol.md "Claim, conflict, takeover", "Grace period", "Phones".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from relay_app.core.close_codes import Close
from relay_app.core.errors import NoServer, TooManyPhones

FRESH_S = 1.0
"""A holder that was heard this many seconds ago counts as alive without a probe."""


class Heard(Protocol):
    """What the registry has to know of a binary connection."""

    @property
    def heard_at(self) -> float:
        """Monotonic seconds at which the last byte came."""


B = TypeVar("B", bound=Heard)
P = TypeVar("P")


class Claim(Generic[B, P]):
    """One binary's hold on a server-id.

    ``holder`` is ``None`` in the grace period and after the end.
    """

    __slots__ = ("grace_ends_at", "holder", "phones", "probe", "server_id")

    def __init__(self, server_id: str, holder: B) -> None:
        self.server_id = server_id
        self.holder: B | None = holder
        self.phones: dict[str, P] = {}
        self.grace_ends_at: float | None = None
        self.probe: Probe[B] | None = None


class Probe(Generic[B]):
    """A question to a claim's holder, and the newcomers that wait for the answer."""

    __slots__ = ("ends_at", "newcomers", "started_at")

    def __init__(self, started_at: float, ends_at: float, newcomer: B) -> None:
        self.started_at = started_at
        self.ends_at = ends_at
        self.newcomers = [newcomer]


@dataclass(frozen=True, slots=True)
class Granted(Generic[B, P]):
    """``binary`` holds the server-id now, by ``claim``."""

    binary: B
    claim: Claim[B, P]
    takeover: bool


@dataclass(frozen=True, slots=True)
class Ask(Generic[B]):
    """Ping ``binary``: a newcomer wants its server-id."""

    binary: B
    server_id: str


@dataclass(frozen=True, slots=True)
class Turn(Generic[B]):
    """Close ``binary``, a holder that was displaced or a newcomer that lost."""

    binary: B
    close: Close


@dataclass(frozen=True, slots=True)
class Evict(Generic[P]):
    """Close ``phone``; the registry has forgotten it already."""

    phone: P
    close: Close


@dataclass(frozen=True, slots=True)
class GraceStarted:
    """The holder is gone; phones are kept until the deadline."""

    server_id: str
    phones: int


@dataclass(frozen=True, slots=True)
class GraceEnded:
    """The server-id is free, because time is up or at once when grace is off."""

    server_id: str
    phones: int


Effect = Granted[B, P] | Ask[B] | Turn[B] | Evict[P] | GraceStarted | GraceEnded


class Registry(Generic[B, P]):
    """Server-id → claim → connections, for this process and no other."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim[B, P]] = {}
        # Claims with a deadline of their own, so that a tick costs what is
        # running and not what is connected.
        self._timed: set[Claim[B, P]] = set()
        self.binaries = 0
        self.phones = 0

    def __len__(self) -> int:
        """Server-ids that are held or in grace."""
        return len(self._claims)

    def __iter__(self) -> Iterator[Claim[B, P]]:
        """Walk over the claims, held and in grace."""
        return iter(list(self._claims.values()))

    def get(self, server_id: str) -> Claim[B, P] | None:
        """Find the claim on a server-id."""
        return self._claims.get(server_id)

    def claim(
        self, server_id: str, binary: B, now: float, probe_s: float
    ) -> list[Effect[B, P]]:
        """Let a binary ask for a server-id.

        Args:
            server_id: As its header had it.
            binary: The connection, new to the registry.
            now: Monotonic seconds.
            probe_s: How long a silent holder may take to answer.

        Returns: A ``Granted`` at the end if the id was free or in grace; a
        ``Turn`` of the newcomer if the holder was heard just now; else an ``Ask``
        (none if one is under way), and the newcomer waits.
        """
        current = self._claims.get(server_id)
        if current is None:
            return [self._grant(server_id, binary, takeover=False)]
        if current.holder is None:
            return self._replace(current, binary)
        if current.probe is not None:
            current.probe.newcomers.append(binary)
            return []
        if now - current.holder.heard_at <= FRESH_S:
            return [Turn(binary, Close.SERVER_ID_CLAIMED)]
        current.probe = Probe(now, now + probe_s, binary)
        self._timed.add(current)
        return [Ask(current.holder, server_id)]

    def answered(self, claim: Claim[B, P]) -> list[Effect[B, P]]:
        """Take note that a probed holder has shown life.

        Returns: A ``Turn`` for every newcomer that waited; nothing if none did.
        """
        probe = claim.probe
        if probe is None:
            return []
        claim.probe = None
        self._timed.discard(claim)
        return [Turn(newcomer, Close.SERVER_ID_CLAIMED) for newcomer in probe.newcomers]

    def give_up(self, server_id: str, binary: B) -> None:
        """Forget a newcomer whose connection ended while it waited."""
        claim = self._claims.get(server_id)
        if (
            claim is not None
            and claim.probe is not None
            and binary in claim.probe.newcomers
        ):
            claim.probe.newcomers.remove(binary)
            if not claim.probe.newcomers:
                claim.probe = None
                self._timed.discard(claim)

    def release(
        self, claim: Claim[B, P], binary: B, now: float, grace_s: float
    ) -> list[Effect[B, P]]:
        """End a binary's hold because its connection ended.

        Args:
            claim: What the binary was granted.
            binary: The connection that ended.
            now: Monotonic seconds.
            grace_s: Seconds that the id stays held for phones; 0 ends at once.

        Returns: Nothing if the claim is not its own any more. The takeover by
        the first newcomer that waits, else the start of the grace period, else
        the end of the claim with its phones.
        """
        if claim.holder is not binary:
            return []
        if claim.probe is not None:
            return self._hand_over(claim)
        claim.holder = None
        self.binaries -= 1
        if grace_s <= 0:
            return self._end(claim)
        claim.grace_ends_at = now + grace_s
        self._timed.add(claim)
        return [GraceStarted(claim.server_id, len(claim.phones))]

    def tick(self, now: float) -> list[Effect[B, P]]:
        """Let time pass: grace periods end, probes are answered or run out."""
        effects: list[Effect[B, P]] = []
        for claim in list(self._timed):
            probe = claim.probe
            if probe is None:
                if claim.grace_ends_at is not None and now >= claim.grace_ends_at:
                    effects += self._end(claim)
            elif claim.holder is not None and claim.holder.heard_at > probe.started_at:
                effects += self.answered(claim)
            elif now >= probe.ends_at:
                displaced = claim.holder
                effects += self._hand_over(claim)
                if displaced is not None:
                    effects.append(Turn(displaced, Close.HEARTBEAT_TIMEOUT))
        return effects

    def join(
        self, server_id: str, phone: P, max_phones: int, draw: Callable[[], str]
    ) -> tuple[Claim[B, P], str]:
        """Check and register a phone, in one step.

        Args:
            server_id: As its header had it.
            phone: The connection.
            max_phones: Phones that one server-id may have.
            draw: Gives a fresh random suffix, 8 lowercase hex characters.

        Returns: The claim, and the phone's conn_id.

        Raises:
            NoServer: Nobody holds the id and no grace period runs; closes 4404.
            TooManyPhones: The cap is reached; closes 4429.
        """
        claim = self._claims.get(server_id)
        if claim is None:
            raise NoServer
        if len(claim.phones) >= max_phones:
            raise TooManyPhones
        conn_id = f"client-{server_id}-{draw()}"
        while conn_id in claim.phones:
            conn_id = f"client-{server_id}-{draw()}"
        claim.phones[conn_id] = phone
        self.phones += 1
        return claim, conn_id

    def leave(self, claim: Claim[B, P], conn_id: str, phone: P) -> B | None:
        """Forget a phone.

        Returns: The binary that has to be told; ``None`` when there is none or
        when the phone was forgotten before (evicted, or closed by directive).
        """
        if claim.phones.get(conn_id) is not phone:
            return None
        del claim.phones[conn_id]
        self.phones -= 1
        return claim.holder

    def clear(self) -> None:
        """Forget everything: the relay has stopped and no connection is left."""
        self._claims.clear()
        self._timed.clear()
        self.binaries = 0
        self.phones = 0

    def _grant(self, server_id: str, binary: B, *, takeover: bool) -> Granted[B, P]:
        claim: Claim[B, P] = Claim(server_id, binary)
        self._claims[server_id] = claim
        self.binaries += 1
        return Granted(binary, claim, takeover)

    def _replace(self, old: Claim[B, P], binary: B) -> list[Effect[B, P]]:
        """Give the id of ``old``, which has no holder any more, to ``binary``."""
        self._timed.discard(old)
        effects = self._evict_all(old, Close.BINARY_RECLAIMED)
        effects.append(self._grant(old.server_id, binary, takeover=True))
        return effects

    def _hand_over(self, claim: Claim[B, P]) -> list[Effect[B, P]]:
        """Let the first newcomer of a probe take the id; the rest meet a live holder."""
        if claim.probe is None:
            raise AssertionError("a hand-over needs a newcomer")
        first, *others = claim.probe.newcomers
        claim.probe = None
        claim.holder = None
        self.binaries -= 1
        effects = self._replace(claim, first)
        effects += [Turn(other, Close.SERVER_ID_CLAIMED) for other in others]
        return effects

    def _end(self, claim: Claim[B, P]) -> list[Effect[B, P]]:
        self._timed.discard(claim)
        claim.grace_ends_at = None
        del self._claims[claim.server_id]
        ended: list[Effect[B, P]] = [GraceEnded(claim.server_id, len(claim.phones))]
        return ended + self._evict_all(claim, Close.NO_SERVER)

    def _evict_all(self, claim: Claim[B, P], close: Close) -> list[Effect[B, P]]:
        evicted: list[Effect[B, P]] = [
            Evict(phone, close) for phone in claim.phones.values()
        ]
        self.phones -= len(claim.phones)
        claim.phones.clear()
        return evicted
