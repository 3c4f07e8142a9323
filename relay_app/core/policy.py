"""Admission: from which address a request comes, and whether it may go on.

Two limits count per *source*, which is an IPv4 address or an IPv6 /64 (what one
subscriber gets): a token bucket for upgrade attempts, and a cap on connections.
A third counts all connections of the relay, and a part of it is held back from those
who have many. Before any of this, ``Heads`` bounds requests that are not there yet.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_BUCKETS = 65536
"""Sources that are remembered at once, about 200 bytes each. Past it the one that
was quiet longest is forgotten, which gives it a full bucket: the limit fails open
for it, and memory stays bounded."""

CAP_RETRY_AFTER_S = 5
"""What a 503 asks for: a place becomes free when somebody leaves, so no moment is
better than another; this keeps a crowd from returning in the same second."""


class Admission(enum.Enum):
    """What admission says to one upgrade request."""

    ADMITTED = "admitted"
    FULL = "connection cap"
    DRAINING = "draining"
    RATE_LIMITED = "rate limit"
    NOT_ALLOWED = "server-id not allowed"


@functools.lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Read an address as a peer name or an ``X-Forwarded-For`` entry has it.

    Accepts ``a.b.c.d``, ``a.b.c.d:port``, ``v6``, ``[v6]``, ``[v6]:port``. An IPv4
    address mapped into IPv6 counts as the IPv4 address. ``None`` for anything else.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if isinstance(address, ipaddress.IPv6Address):
        # Without its scope, which may be any text of any length.
        return ipaddress.IPv6Address(int(address))
    return address


def client_address(
    peer: str, forwarded: Sequence[str], trusted: Sequence[Network]
) -> str:
    """Find the address of the client behind trusted proxies.

    Args:
        peer: Address of the TCP peer; empty for a Unix socket.
        forwarded: Values of ``X-Forwarded-For``, in the order received.
        trusted: Networks of proxies that append the address they saw.

    Returns: The right-most hop that is not trusted. Entries are read from the
    right only while the hop that wrote them is trusted; an entry that is not an
    address ends the walk, and the last hop that was understood is the client.
    """
    hop = parse_address(peer)
    if hop is None or not _is_trusted(hop, trusted):
        return peer if hop is None else str(hop)
    entries = ",".join(forwarded).split(",")
    for entry in reversed(entries):
        before = parse_address(entry)
        if before is None:
            break
        hop = before
        if not _is_trusted(hop, trusted):
            break
    return str(hop)


def is_untrusted_proxy(peer: str, trusted: Sequence[Network]) -> bool:
    """Tell whether a peer that forwards for others is probably a proxy of ours.

    Args:
        peer: Address of the TCP peer; empty for a Unix socket.
        trusted: Networks of proxies.

    Returns: True for a peer that no stranger can be: its address is not a public one,
    and nobody has named it.
    """
    hop = parse_address(peer)
    if hop is None:
        return not peer
    return not hop.is_global and not _is_trusted(hop, trusted)


def _is_trusted(address: Address, trusted: Iterable[Network]) -> bool:
    return any(address.version == net.version and address in net for net in trusted)


@functools.lru_cache(maxsize=4096)
def source(address: str) -> str:
    """Name what the limits count: the IPv4 address, or the /64 of an IPv6 one.

    Args:
        address: As ``client_address`` returned it; a text that is no address
            (a Unix socket's peer) is its own source.
    """
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address if parsed is None else str(parsed)


class RateLimiter:
    """A token bucket per source.

    Args:
        burst: Attempts that a quiet source may make at once, at least 1.
        per_minute: Attempts that come back per minute; 0 switches the limit off.
    """

    def __init__(
        self, burst: int, per_minute: int, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._burst = float(burst)
        self._per_s = per_minute / 60
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Sources that are remembered just now."""
        return len(self._buckets)

    def spend(self, source: str, now: float) -> int:
        """Take one attempt from a source's bucket.

        Returns: 0 if there was one; else whole seconds until there is one.
        """
        if not self._per_s:
            return 0
        tokens, since = self._buckets.pop(source, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        wait_s = 0 if tokens >= 1 else math.ceil((1 - tokens) / self._per_s)
        self._buckets[source] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return wait_s

    def sweep(self, now: float) -> None:
        """Forget sources whose bucket is full again, the quietest first."""
        full_after_s = self._burst / self._per_s if self._per_s else 0.0
        while self._buckets:
            quietest = next(iter(self._buckets))
            if now - self._buckets[quietest][1] < full_after_s:
                return
            del self._buckets[quietest]


HELD_BACK = 16
"""One part in so many of all places is held back from sources that have as much."""


class Gate:
    """The caps: places for connections, in all and per source.

    The last places, one in ``HELD_BACK``, are only for sources that have fewer places
    than these are, so that one source cannot take every place. With fewer places in
    all than ``HELD_BACK`` there are none to hold back.

    Args:
        max_connections: Places in all.
        max_per_source: Places for one source; 0 for no such cap.
    """

    def __init__(self, max_connections: int, max_per_source: int) -> None:
        self._max_connections = max_connections
        self._max_per_source = max_per_source or max_connections
        self._held_back = max_connections // HELD_BACK
        self._per_source: dict[str, int] = {}
        self.taken = 0

    @property
    def sources(self) -> int:
        """Sources that have a place just now."""
        return len(self._per_source)

    def enter(self, source: str) -> bool:
        """Take a place, held until ``leave``.

        Returns: False, with nothing changed, when there is none.
        """
        left = self._max_connections - self.taken
        held = self._per_source.get(source, 0)
        if not left or held >= self._max_per_source:
            return False
        if left <= self._held_back <= held:
            return False
        self._per_source[source] = held + 1
        self.taken += 1
        return True

    def leave(self, source: str) -> None:
        """Give a place back."""
        self.taken -= 1
        held = self._per_source[source] - 1
        if held:
            self._per_source[source] = held
        else:
            del self._per_source[source]


Head = TypeVar("Head")


class Heads(Generic[Head]):
    """Requests that are at their head, and which of them to give up.

    A stranger may open connections and say nothing. Each has a place of its own until
    its head's deadline, so there have to be fewer of them than places: past a bound
    the oldest goes, since a head that is in earnest is there within a moment.

    Args:
        max_heads: In all, at least 1.
        max_per_source: Of one source.
    """

    def __init__(self, max_heads: int, max_per_source: int) -> None:
        self._max_heads = max_heads
        self._max_per_source = max_per_source
        self._all: dict[Head, str] = {}
        self._per_source: dict[str, dict[Head, None]] = {}

    def __len__(self) -> int:
        """Requests at their head just now."""
        return len(self._all)

    def enter(self, head: Head, source: str) -> Head | None:
        """Take note of a new head.

        Returns: The one to give up, never ``head`` itself: the oldest of the same
        source past its bound, else the oldest of all past theirs; ``None`` within both.
        """
        self._all[head] = source
        of_source = self._per_source.setdefault(source, {})
        of_source[head] = None
        if len(of_source) > self._max_per_source:
            oldest = next(iter(of_source))
        elif len(self._all) > self._max_heads:
            oldest = next(iter(self._all))
        else:
            return None
        self.leave(oldest)
        return oldest

    def leave(self, head: Head) -> None:
        """Forget a head; one that was given up is forgotten already."""
        source = self._all.pop(head, None)
        if source is not None:
            of_source = self._per_source[source]
            del of_source[head]
            if not of_source:
                del self._per_source[source]
