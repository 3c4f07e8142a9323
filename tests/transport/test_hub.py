"""The hub over real sockets: claims, grace, phones, drain, what is shown."""

from __future__ import annotations

import gevent
import pytest

from relay_app.core.policy import Admission
from relay_app.transport import hub
from tests.local_relay import LocalRelay, local_relay
from tests.peers import CUT, Peer
from tests.waiting import UNIT_S, wait_until


def forget(relay: LocalRelay, server_id: str = "id") -> None:
    """Make the holder look silent, so that the next claim starts a probe."""
    claim = relay.hub.registry.get(server_id)
    assert claim is not None
    assert claim.holder is not None
    claim.holder.heard_at -= 100.0


def test_module_level_registry_is_the_one_that_routes_use() -> None:
    """There is one registry in a process."""
    with local_relay() as relay:
        assert relay.hub.registry is hub.registry
        binary = relay.binary()
        wait_until(lambda: hub.registry.binaries == 1)
        binary.close()


def test_random_suffix_is_eight_lowercase_hex() -> None:
    """As the contract names a conn_id's end."""
    suffix = hub.random_suffix()
    assert len(suffix) == 8
    assert set(suffix) <= set("0123456789abcdef")


def test_newcomer_against_silent_holder_that_pongs_is_turned_away() -> None:
    """The holder's library answers the probe; its phones notice nothing."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        forget(relay)
        newcomer = relay.binary()
        binary.sync()
        assert newcomer.ending() == (4409, "server-id already claimed")
        phone.send("1")
        assert binary.recv_json() == {"conn_id": conn_id, "frame": 1}


def test_newcomer_that_leaves_while_it_waits_is_forgotten() -> None:
    """A probe without a newcomer ends."""
    with local_relay() as relay:
        binary = relay.binary()
        binary.sync()
        forget(relay)
        newcomer = relay.binary()
        claim = relay.hub.registry.get("id")
        assert claim is not None
        wait_until(lambda: claim.probe is not None)
        newcomer.drop()
        wait_until(lambda: claim.probe is None)
        binary.sync()


def test_newcomer_sends_while_it_waits_and_is_heard_after_it_won() -> None:
    """What it sends before names unknown phones and is dropped; it stays up."""
    with local_relay(conflict_probe_s=0.2 * UNIT_S) as relay:
        silent, phone, conn_id = relay.pair()
        forget(relay)
        newcomer = relay.binary()
        newcomer.send(f'{{"conn_id":"{conn_id}","frame":"stolen"}}')
        assert phone.ending() == (4404, "binary reclaimed server-id")
        assert phone.inbox == []
        assert silent.ending() == (1011, "heartbeat timeout")
        again = relay.phone()
        assert relay.introduce(newcomer, again) != conn_id


def test_displaced_binary_never_arms_a_grace_timer() -> None:
    """Its late end changes nothing for its successor."""
    with local_relay(
        conflict_probe_s=0.1 * UNIT_S, grace_period_s=0.1 * UNIT_S
    ) as relay:
        silent = relay.binary()
        silent.sync()
        forget(relay)
        newcomer = relay.binary()
        displaced = relay.hub.registry.get("id")
        # Not read before: this library would answer the probe.
        wait_until(lambda: relay.hub.registry.get("id") is not displaced)
        assert silent.ending() == (1011, "heartbeat timeout")
        relay.hub.tick(1e9)
        newcomer.sync()
        assert relay.hub.registry.binaries == 1


def test_holder_whose_write_fails_makes_room_at_once() -> None:
    """A reset of the incumbent during a probe hands over without waiting."""
    with local_relay(conflict_probe_s=300) as relay:
        silent, phone, _ = relay.pair()
        forget(relay)
        newcomer = relay.binary()
        claim = relay.hub.registry.get("id")
        assert claim is not None
        wait_until(lambda: claim.probe is not None)
        silent.reset()
        assert phone.ending() == (4404, "binary reclaimed server-id")
        newcomer.sync()


def test_grace_zero_ends_at_once() -> None:
    """Without grace the phones hear it when the binary goes."""
    with local_relay(grace_period_s=0.0) as relay:
        binary, phone, _ = relay.pair()
        binary.drop()
        assert phone.ending() == (4404, "no server with that id")


def test_admit_while_draining_is_refused() -> None:
    """New upgrades get 503 during the drain."""
    with local_relay() as relay:
        assert relay.hub.admit("x") == (Admission.ADMITTED, 0)
        relay.hub.leave("x")
        relay.hub.draining = True
        assert relay.hub.admit("x")[0] is Admission.DRAINING
        relay.hub.draining = False


def test_upgrade_that_meets_the_drain_is_closed_1001() -> None:
    """A place that was given before the drain began does not outlive it."""
    with local_relay() as relay:
        relay.hub.admit = lambda source: (  # type: ignore[method-assign]
            (Admission.ADMITTED, 0)
            if relay.hub.gate.enter(source)
            else (Admission.FULL, 1)
        )
        relay.hub.draining = True
        assert relay.binary().ending() == (1001, "shutting down")
        assert relay.phone().ending() == (1001, "shutting down")


def test_drain_closes_everybody_phones_first() -> None:
    """Every peer reads 1001; binaries are not told of phones that the drain closed before."""
    relay = LocalRelay(drain_s=2.0 * UNIT_S)
    binary, phone, conn_id = relay.pair()
    waiting = relay.binary("other")
    draining = gevent.spawn(relay.hub.drain)
    assert phone.ending() == (1001, "shutting down")
    assert binary.ending() == (1001, "shutting down")
    assert waiting.ending() == (1001, "shutting down")
    assert binary.inbox == [f'{{"conn_id":"{conn_id}","close_code":1001}}']
    assert draining.get(timeout=20) == 0
    relay.stop()


def test_drain_of_zero_seconds_still_says_1001() -> None:
    """Everything at once, but not without a word."""
    relay = LocalRelay(drain_s=0.0)
    binary, phone, _ = relay.pair()
    relay.hub.drain()
    assert phone.ending() == (1001, "shutting down")
    assert binary.ending() == (1001, "shutting down")
    relay.stop()


def test_drain_tells_phones_of_a_binary_that_left_by_itself() -> None:
    """They hear of the drain as well, not that nobody is there."""
    relay = LocalRelay(drain_s=2.0 * UNIT_S, grace_period_s=0.0)
    first, phone, _ = relay.pair("first")
    relay.introduce(first, relay.phone("first"))
    draining = gevent.spawn(relay.hub.drain)
    wait_until(lambda: relay.hub.draining)
    first.close()
    assert relay.peers[-1].ending() == (1001, "shutting down")
    assert phone.ending() == (1001, "shutting down")
    draining.get(timeout=20)
    relay.stop()


def test_drain_tells_phones_in_grace() -> None:
    """The grace period does not run out while everybody is being closed."""
    relay = LocalRelay(drain_s=2.0 * UNIT_S, grace_period_s=0.1 * UNIT_S)
    binary, phone, _ = relay.pair("grace")
    others = [relay.binary(str(n)) for n in range(3)]
    for other in others:
        other.sync()
    binary.close()
    wait_until(lambda: relay.hub.registry.binaries == 3)
    # Make it the last to be closed.
    claims = relay.hub.registry._claims
    claims["grace"] = claims.pop("grace")
    draining = gevent.spawn(relay.hub.drain)
    assert phone.ending() == (1001, "shutting down")
    for other in others:
        assert other.ending() == (1001, "shutting down")
    draining.get(timeout=20)
    relay.stop()


def test_log_names_a_phone_as_its_binary_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The random end of the conn_id is the same on the wire and in the log."""
    with local_relay() as relay:
        _, _, conn_id = relay.pair()
    opened = [
        r for r in capsys.readouterr().err.splitlines() if "connection.opened" in r
    ]
    assert f'-{conn_id[-8:]}"' in opened[1]


def test_drain_cuts_those_who_do_not_answer() -> None:
    """The drain's end is the end."""
    relay = LocalRelay(drain_s=0.3 * UNIT_S, close_timeout_s=300)
    mute = relay.binary()
    mute.sync()
    assert relay.hub.drain() == 1
    assert mute.ending() == (1001, "shutting down")
    relay.stop()


def test_drain_in_a_hurry_does_not_wait() -> None:
    """A second signal ends the spreading and the waiting."""
    relay = LocalRelay(drain_s=300)
    peers: list[Peer] = [relay.binary(str(n)) for n in range(3)]
    for peer in peers:
        peer.sync()
    relay.hub.hurry()
    assert relay.hub.drain() == 3
    for peer in peers:
        assert peer.ending() in {(1001, "shutting down"), CUT}
    relay.stop()


def test_health_has_the_contracts_keys_in_order() -> None:
    """First keys in order, then who and how safe."""
    with local_relay() as relay:
        health = relay.hub.health()
    assert list(health) == [
        "status",
        "version",
        "connected_binaries",
        "connected_phones",
        "uptime_seconds",
        "instance_id",
        "role",
        "guard",
    ]
    assert health["status"] == "ok"
    assert isinstance(health["uptime_seconds"], int)
    assert health["guard"] == {"verdict": "FINE", "codes": []}
