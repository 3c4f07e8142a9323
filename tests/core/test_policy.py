"""Admission: addresses behind proxies, token buckets, caps."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core import policy
from relay_app.core.policy import Gate, Heads, RateLimiter

TRUSTED = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["1.2.3.4, junk"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("fd00::1", ["[2001:db8::7]:99"], "2001:db8::7"),
        ("fd00::1", ["[2001:db8::7]"], "2001:db8::7"),
        ("fd00::1", ["fe80::1%evil=1"], "fe80::1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("", ["1.2.3.4"], ""),
    ],
)
def test_client_address_is_the_rightmost_untrusted_hop(
    peer: str, forwarded: list[str], client: str
) -> None:
    """Only what a trusted hop wrote is believed; junk never becomes an address."""
    assert policy.client_address(peer, forwarded, TRUSTED) == client


@given(st.lists(st.text(max_size=30), max_size=4))
def test_client_address_of_any_header_is_an_address(forwarded: list[str]) -> None:
    """Whatever stands in the header, what comes out is an address."""
    ipaddress.ip_address(policy.client_address("10.0.0.1", forwarded, TRUSTED))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_source_counts_subscribers(address: str, source: str) -> None:
    """One IPv4 address, or the /64 that one subscriber gets."""
    assert policy.source(address) == source


def test_rate_limiter_burst_then_refill() -> None:
    """The burst passes, then one every six seconds at ten a minute."""
    limiter = RateLimiter(burst=2, per_minute=10)
    assert [limiter.spend("a", 100.0) for _ in range(3)] == [0, 0, 6]
    assert limiter.spend("b", 100.0) == 0
    assert limiter.spend("a", 103.0) == 3
    assert limiter.spend("a", 106.0) == 0
    assert limiter.spend("a", 106.0) == 6


def test_rate_limiter_of_zero_per_minute_is_off() -> None:
    """0 per minute switches it off and remembers nobody."""
    limiter = RateLimiter(burst=1, per_minute=0)
    assert [limiter.spend("a", 1.0) for _ in range(100)] == [0] * 100
    limiter.sweep(2.0)
    assert len(limiter) == 0


def test_rate_limiter_memory_is_bounded_and_swept() -> None:
    """The quietest source is forgotten past the bound; full buckets go by themselves."""
    limiter = RateLimiter(burst=1, per_minute=60, max_buckets=2)
    for second, source in enumerate("abc"):
        limiter.spend(source, float(second))
    assert len(limiter) == 2
    assert limiter.spend("a", 2.0) == 0
    limiter.sweep(2.9)
    assert len(limiter) == 2
    limiter.sweep(3.0)
    assert len(limiter) == 0


def test_gate_counts_all_and_per_source() -> None:
    """Places are held until given back, by their source."""
    gate = Gate(max_connections=3, max_per_source=2)
    assert [gate.enter("a"), gate.enter("a"), gate.enter("a")] == [True, True, False]
    assert [gate.enter("b"), gate.enter("b")] == [True, False]
    gate.leave("a")
    assert gate.enter("b")
    assert gate.taken == 3
    for source in "abb":
        gate.leave(source)
    assert (gate.taken, gate._per_source) == (0, {})


def test_gate_without_cap_per_source() -> None:
    """0 means no such cap, and nothing is held back where there are few places."""
    gate = Gate(max_connections=2, max_per_source=0)
    assert [gate.enter("a"), gate.enter("a"), gate.enter("a")] == [True, True, False]
    gate.leave("a")
    gate.leave("a")
    assert (gate.sources, gate.taken) == (0, 0)


def test_gate_holds_places_back_from_one_source() -> None:
    """One source cannot take every place; the last ones are for those who have few."""
    gate = Gate(max_connections=64, max_per_source=0)
    assert sum(gate.enter("greedy") for _ in range(64)) == 60
    assert [gate.enter(name) for name in ("b", "b", "c", "d", "e")] == [True] * 4 + [
        False
    ]
    gate.leave("greedy")
    assert not gate.enter("greedy")
    assert gate.enter("e")
    assert gate.taken == 64


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=200))
def test_gate_never_passes_its_caps_and_gives_all_back(
    steps: list[tuple[bool, str]],
) -> None:
    """Whoever comes and goes, the sums hold, and an empty relay remembers nobody."""
    gate = Gate(max_connections=32, max_per_source=20)
    inside: list[str] = []
    for comes, source in steps:
        if comes:
            free = gate.taken < 32 and inside.count(source) < 20
            entered = gate.enter(source)
            assert not entered or free
            if free and inside.count(source) < 2:
                assert entered  # who has next to nothing is never held back
            inside += [source] * entered
        elif source in inside:
            inside.remove(source)
            gate.leave(source)
        assert gate.taken == len(inside)
        assert gate.sources == len(set(inside))
    for source in inside:
        gate.leave(source)
    assert (gate.taken, gate.sources) == (0, 0)


def test_heads_give_up_the_oldest_of_a_source_past_its_bound() -> None:
    """Who opens many and says nothing pays with its own."""
    heads: Heads[int] = Heads(max_heads=10, max_per_source=3)
    assert [heads.enter(n, "a") for n in range(3)] == [None] * 3
    assert heads.enter(9, "b") is None
    assert heads.enter(3, "a") == 0
    heads.leave(1)
    assert heads.enter(4, "a") is None
    assert heads.enter(5, "a") == 2
    assert len(heads) == 4


def test_heads_give_up_the_oldest_of_all_past_the_bound() -> None:
    """Many sources with a few heads each: the one that took longest goes."""
    heads: Heads[int] = Heads(max_heads=2, max_per_source=2)
    assert [heads.enter(n, str(n)) for n in range(4)] == [None, None, 0, 1]
    heads.leave(0)  # its handler comes to its end later
    heads.leave(2)
    heads.leave(3)
    assert len(heads) == 0
    assert heads._per_source == {}


def test_heads_with_one_place_keep_the_newest() -> None:
    """The smallest bound works too."""
    heads: Heads[int] = Heads(max_heads=1, max_per_source=1)
    assert [heads.enter(n, "a") for n in range(3)] == [None, 0, 1]
