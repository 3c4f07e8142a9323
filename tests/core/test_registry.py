"""Claims, grace, takeover, phones: every move, and random sequences of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from relay_app.core.close_codes import Close
from relay_app.core.errors import NoServer, TooManyPhones
from relay_app.core.registry import (
    Ask,
    Claim,
    Evict,
    GraceEnded,
    GraceStarted,
    Granted,
    Registry,
    Turn,
)


@dataclass(eq=False)
class Binary:
    """A binary connection, as far as the registry looks."""

    name: str
    heard_at: float = 0.0


@dataclass(eq=False)
class Phone:
    """A phone connection."""

    name: str


Reg = Registry[Binary, Phone]
ID = "the-id"


def suffixes(*given: str) -> Iterator[str]:
    """Draw the given suffixes, then numbers."""
    yield from given
    yield from (f"{n:08x}" for n in range(1 << 20))


def claim(
    registry: Reg, binary: Binary, now: float, server_id: str = ID
) -> Claim[Binary, Phone]:
    """Claim an id that is free or in grace."""
    granted = registry.claim(server_id, binary, now, 10.0)[-1]
    assert isinstance(granted, Granted)
    return granted.claim


def join(
    registry: Reg, phone: Phone, cap: int = 16
) -> tuple[Claim[Binary, Phone], str]:
    """Join the id."""
    return registry.join(ID, phone, cap, suffixes(phone.name).__next__)


def test_claim_free_id_is_granted_at_once() -> None:
    """One comes and goes, without grace."""
    registry, binary = Reg(), Binary("b")
    held = claim(registry, binary, 0.0)
    assert (held.holder, registry.binaries, len(registry)) == (binary, 1, 1)
    assert registry.get(ID) is held
    assert list(registry) == [held]
    assert registry.release(held, binary, 5.0, 0.0) == [GraceEnded(ID, 0)]
    assert (registry.binaries, len(registry)) == (0, 0)


def test_claim_against_fresh_holder_is_refused_without_a_probe() -> None:
    """A holder that was heard within the last second is alive."""
    registry, old, new = Reg(), Binary("old", heard_at=99.0), Binary("new")
    held = claim(registry, old, 50.0)
    assert registry.claim(ID, new, 100.0, 10.0) == [Turn(new, Close.SERVER_ID_CLAIMED)]
    assert held.probe is None


def test_claim_against_silent_holder_probes_and_shares_the_probe() -> None:
    """The first newcomer has the holder pinged, the second waits with it; a pong turns both away."""
    registry, old, first, second = Reg(), Binary("old"), Binary("1"), Binary("2")
    held = claim(registry, old, 0.0)
    assert registry.claim(ID, first, 100.0, 10.0) == [Ask(old, ID)]
    assert registry.claim(ID, second, 101.0, 10.0) == []
    assert registry.answered(held) == [
        Turn(first, Close.SERVER_ID_CLAIMED),
        Turn(second, Close.SERVER_ID_CLAIMED),
    ]
    assert registry.answered(held) == []
    assert registry.tick(500.0) == []
    assert held.holder is old


def test_probe_without_answer_takes_over() -> None:
    """Two live binaries: the silent one is displaced, its phones evicted, the third turned away."""
    registry, old, first, second = Reg(), Binary("old"), Binary("1"), Binary("2")
    held = claim(registry, old, 0.0)
    phone = Phone("00000001")
    join(registry, phone)
    registry.claim(ID, first, 100.0, 10.0)
    registry.claim(ID, second, 101.0, 10.0)
    assert registry.tick(109.9) == []
    effects = registry.tick(110.0)
    new = registry.get(ID)
    assert new is not None and new is not held
    assert effects == [
        Evict(phone, Close.BINARY_RECLAIMED),
        Granted(first, new, True),
        Turn(second, Close.SERVER_ID_CLAIMED),
        Turn(old, Close.HEARTBEAT_TIMEOUT),
    ]
    assert (new.holder, registry.binaries, registry.phones) == (first, 1, 0)
    # The late clean-up of the displaced one changes nothing, and arms no timer.
    assert registry.release(held, old, 111.0, 30.0) == []
    assert registry.leave(held, "client-the-id-00000001", phone) is None
    assert registry.tick(10_000.0) == []
    assert new.holder is first


def test_probe_any_byte_of_the_holder_is_an_answer() -> None:
    """A byte after the probe began counts as well as a pong."""
    registry, old, new = Reg(), Binary("old"), Binary("new")
    claim(registry, old, 0.0)
    registry.claim(ID, new, 100.0, 10.0)
    old.heard_at = 100.5
    assert registry.tick(101.0) == [Turn(new, Close.SERVER_ID_CLAIMED)]


def test_probe_holder_that_ends_hands_over_at_once() -> None:
    """A holder whose write fails, or who leaves, makes room for the newcomer that waits."""
    registry, old, new = Reg(), Binary("old"), Binary("new")
    held = claim(registry, old, 0.0)
    registry.claim(ID, new, 100.0, 10.0)
    effects = registry.release(held, old, 101.0, 30.0)
    assert [type(effect) for effect in effects] == [Granted]
    assert registry.binaries == 1


def test_probe_newcomer_that_gives_up_is_forgotten() -> None:
    """With no newcomer left, the probe is over and nobody is displaced."""
    registry, old, first, second = Reg(), Binary("old"), Binary("1"), Binary("2")
    held = claim(registry, old, 0.0)
    registry.claim(ID, first, 100.0, 10.0)
    registry.claim(ID, second, 100.0, 10.0)
    registry.give_up(ID, first)
    registry.give_up(ID, first)
    assert held.probe is not None
    registry.give_up(ID, second)
    registry.give_up("another", second)
    assert held.probe is None
    assert registry.tick(500.0) == []
    assert held.holder is old


def test_grace_reclaim_evicts_the_phones_of_the_old_process() -> None:
    """Reclaim inside the grace period: granted at once, phones shake hands anew."""
    registry, old, new = Reg(), Binary("old"), Binary("new")
    held = claim(registry, old, 0.0)
    before, during = Phone("00000001"), Phone("00000002")
    join(registry, before)
    assert registry.release(held, old, 10.0, 30.0) == [GraceStarted(ID, 1)]
    assert registry.binaries == 0
    join(registry, during)
    effects = registry.claim(ID, new, 20.0, 10.0)
    assert effects[:2] == [
        Evict(before, Close.BINARY_RECLAIMED),
        Evict(during, Close.BINARY_RECLAIMED),
    ]
    assert isinstance(effects[2], Granted)
    assert registry.tick(1000.0) == []


def test_grace_expiry_closes_phones_and_frees_the_id() -> None:
    """Reclaim after it: the id was free."""
    registry, old = Reg(), Binary("old")
    held = claim(registry, old, 0.0)
    phone = Phone("00000001")
    join(registry, phone)
    registry.release(held, old, 10.0, 30.0)
    assert registry.tick(39.9) == []
    assert registry.tick(40.0) == [GraceEnded(ID, 1), Evict(phone, Close.NO_SERVER)]
    with pytest.raises(NoServer):
        join(registry, Phone("00000002"))
    claim(registry, Binary("new"), 41.0)


def test_release_twice_changes_nothing() -> None:
    """An illegal second release is no event."""
    registry, binary = Reg(), Binary("b")
    held = claim(registry, binary, 0.0)
    registry.release(held, binary, 1.0, 30.0)
    assert registry.release(held, binary, 2.0, 30.0) == []
    assert registry.release(held, Binary("other"), 2.0, 30.0) == []
    assert registry.tick(31.5) != []


def test_join_without_claim_is_no_server_even_at_the_cap() -> None:
    """4404 wins over 4429."""
    with pytest.raises(NoServer):
        join(Reg(), Phone("00000001"), cap=0)


def test_join_over_the_cap_is_refused_until_one_leaves() -> None:
    """Exactly the cap fits."""
    registry, binary = Reg(), Binary("b")
    held = claim(registry, binary, 0.0)
    first = Phone("00000001")
    _, conn_id = join(registry, first, cap=1)
    with pytest.raises(TooManyPhones):
        join(registry, Phone("00000002"), cap=1)
    assert registry.phones == 1
    assert registry.leave(held, conn_id, first) is binary
    assert registry.leave(held, conn_id, first) is None
    join(registry, Phone("00000002"), cap=1)


def test_join_draws_again_until_the_conn_id_is_unique() -> None:
    """Two phones never share a conn_id, whatever the dice say."""
    registry = Reg()
    claim(registry, Binary("b"), 0.0)
    registry.join(ID, Phone("x"), 16, suffixes("aaaaaaaa").__next__)
    _, conn_id = registry.join(
        ID, Phone("y"), 16, suffixes("aaaaaaaa", "aaaaaaaa", "bbbbbbbb").__next__
    )
    assert conn_id == "client-the-id-bbbbbbbb"


def test_leave_in_grace_tells_nobody() -> None:
    """There is no binary to be told."""
    registry, binary = Reg(), Binary("b")
    held = claim(registry, binary, 0.0)
    phone = Phone("00000001")
    _, conn_id = join(registry, phone)
    registry.release(held, binary, 1.0, 30.0)
    assert registry.leave(held, conn_id, phone) is None
    assert registry.phones == 0


def test_leave_of_another_phones_conn_id_changes_nothing() -> None:
    """The clean-up of a connection checks that the entry is its own."""
    registry, binary = Reg(), Binary("b")
    held = claim(registry, binary, 0.0)
    _, conn_id = join(registry, Phone("00000001"))
    assert registry.leave(held, conn_id, Phone("00000001")) is None
    assert registry.phones == 1


def test_hand_over_without_newcomer_is_our_own_bug() -> None:
    """A branch that cannot run says so."""
    registry, binary = Reg(), Binary("b")
    with pytest.raises(AssertionError):
        registry._hand_over(claim(registry, binary, 0.0))


def test_clear_forgets_everything() -> None:
    """After the stop nothing is left."""
    registry = Reg()
    claim(registry, Binary("b"), 0.0)
    join(registry, Phone("00000001"))
    registry.clear()
    assert (len(registry), registry.binaries, registry.phones) == (0, 0, 0)


@dataclass(eq=False)
class LiveBinary(Binary):
    """What the model knows of a binary: open or not, and its claim."""

    server_id: str = ""
    open: bool = True
    closed_by: Close | None = None
    claim: Claim[Any, Any] | None = None


@dataclass(eq=False)
class LivePhone(Phone):
    """What the model knows of a phone."""

    claim: Claim[Any, Any] | None = None
    conn_id: str = ""
    closed_by: Close | None = None
    told: list[LiveBinary] = field(default_factory=list)


CAP = 3
GRACE_S = 30.0
PROBE_S = 10.0
SERVER_IDS = st.sampled_from(["x", "y"])


class RegistryMachine(RuleBasedStateMachine):
    """Random interleavings of everything that can happen to claims."""

    binaries = Bundle("binaries")
    phones = Bundle("phones")

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[LiveBinary, LivePhone] = Registry()
        self.now = 1000.0
        self.draw = suffixes().__next__
        self.all_binaries: list[LiveBinary] = []
        self.all_phones: list[LivePhone] = []

    def apply(self, effects: list[Any]) -> None:
        """Carry effects out, as the hub does: a closed binary cleans up after itself."""
        for effect in effects:
            match effect:
                case Granted(binary, held, _):
                    assert binary.open
                    binary.claim = held
                case Evict(phone, close):
                    assert phone.closed_by is None
                    phone.closed_by = close
                case Turn(binary, close):
                    binary.closed_by = close
                    self.end_binary(binary)

    def end_binary(self, binary: LiveBinary) -> None:
        """The connection ended, for whatever reason; clean-ups may come twice."""
        if not binary.open:
            return
        binary.open = False
        if binary.claim is None:
            self.registry.give_up(binary.server_id, binary)
        else:
            self.apply(self.registry.release(binary.claim, binary, self.now, GRACE_S))

    @rule(target=binaries, server_id=SERVER_IDS)
    def binary_dials(self, server_id: str) -> LiveBinary:
        """A binary claims an id."""
        binary = LiveBinary("b", heard_at=self.now, server_id=server_id)
        self.all_binaries.append(binary)
        self.apply(self.registry.claim(server_id, binary, self.now, PROBE_S))
        return binary

    @rule(binary=consumes(binaries))
    def binary_drops(self, binary: LiveBinary) -> None:
        """A binary's connection ends."""
        self.end_binary(binary)

    @rule(binary=binaries)
    def binary_speaks(self, binary: LiveBinary) -> None:
        """Something is heard of a binary; a pong reaches the registry at once."""
        if binary.open:
            binary.heard_at = self.now
            if binary.claim is not None:
                self.apply(self.registry.answered(binary.claim))

    @rule(binary=binaries)
    def late_clean_up(self, binary: LiveBinary) -> None:
        """A connection that ended long ago is cleaned up once more."""
        if not binary.open and binary.claim is not None:
            assert self.registry.release(binary.claim, binary, self.now, GRACE_S) == []

    @rule(target=phones, server_id=SERVER_IDS)
    def phone_dials(self, server_id: str) -> LivePhone:
        """A phone joins an id, or is told why not."""
        phone = LivePhone("p")
        held = self.registry.get(server_id)
        try:
            phone.claim, phone.conn_id = self.registry.join(
                server_id, phone, CAP, self.draw
            )
        except NoServer:
            assert held is None
            phone.closed_by = Close.NO_SERVER
        except TooManyPhones:
            assert held is not None and len(held.phones) == CAP
            phone.closed_by = Close.TOO_MANY_PHONES
        else:
            self.all_phones.append(phone)
        return phone

    @rule(phone=consumes(phones))
    def phone_leaves(self, phone: LivePhone) -> None:
        """A phone's connection ends; its binary is told only if both are still there."""
        if phone.claim is not None:
            told = self.registry.leave(phone.claim, phone.conn_id, phone)
            if phone.closed_by is not None:
                assert told is None
            elif told is not None:
                assert told.open and told.claim is phone.claim
            phone.closed_by = phone.closed_by or Close.NORMAL

    @rule(seconds=st.sampled_from([0.5, 2.0, 9.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        """Deadlines come."""
        self.now += seconds
        self.apply(self.registry.tick(self.now))

    @precondition(lambda self: len(self.registry) > 0)
    @rule()
    def drain(self) -> None:
        """Everybody is closed, phones first."""
        for phone in self.all_phones:
            if phone.closed_by is None:
                assert phone.claim is not None
                self.registry.leave(phone.claim, phone.conn_id, phone)
                phone.closed_by = Close.SHUTTING_DOWN
        for binary in self.all_binaries:
            self.end_binary(binary)

    @invariant()
    def counts_and_claims_agree(self) -> None:
        """One claim per id; holders are open; the phones counted are the live ones."""
        claims = list(self.registry)
        holders = [held.holder for held in claims if held.holder is not None]
        assert len({held.server_id for held in claims}) == len(claims)
        assert self.registry.binaries == len(holders)
        for held in claims:
            assert (held.holder is None) is (held.grace_ends_at is not None)
            assert len(held.phones) <= CAP
            if held.holder is not None:
                assert held.holder.open and held.holder.claim is held
            if held.probe is not None:
                assert held.probe.newcomers and all(
                    b.open for b in held.probe.newcomers
                )
        live = [phone for phone in self.all_phones if phone.closed_by is None]
        assert (
            self.registry.phones
            == len(live)
            == sum(len(held.phones) for held in claims)
        )
        for phone in live:
            assert phone.claim is not None and phone.claim in claims
            assert phone.claim.phones[phone.conn_id] is phone

    @invariant()
    def every_open_binary_holds_or_waits(self) -> None:
        """No open binary is forgotten."""
        for binary in self.all_binaries:
            if binary.open:
                held = self.registry.get(binary.server_id)
                assert held is not None
                waits = held.probe is not None and binary in held.probe.newcomers
                assert (held.holder is binary) is not waits

    def teardown(self) -> None:
        """Once all have left and time has passed, nothing is there."""
        self.drain()
        self.now += 1000.0
        self.apply(self.registry.tick(self.now))
        assert len(self.registry) == 0
        assert (self.registry.binaries, self.registry.phones) == (0, 0)


TestRegistryMachine = RegistryMachine.TestCase
