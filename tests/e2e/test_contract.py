"""The contract as both ends see it: a real gunicorn, real sockets, a foreign client library."""

from __future__ import annotations

import json
import select
import struct
from collections.abc import Iterator

import pytest

from tests.e2e.gunicorn import FAST, Gunicorn, gunicorn
from tests.peers import Peer, ask, frame, get, upgrade_request
from tests.waiting import UNIT_S, wait_until

IDS = iter(f"id-{n}" for n in range(10_000))


@pytest.fixture(scope="module")
def shared() -> Iterator[Gunicorn]:
    """One relay for the tests of this module that need nothing special of it."""
    settings = FAST | {
        "MAX_PHONES_PER_SERVER": 2,
        "MAX_FRAME_BYTES": 10_000,
        "CLOSE_TIMEOUT_S": 20.0,  # a slow reader still reads its close code
    }
    with gunicorn(OUTBOX_MAX_BYTES=100_000, **settings) as relay:
        yield relay.ready()


@pytest.fixture
def relay(shared: Gunicorn) -> Iterator[Gunicorn]:
    """The shared relay; what a test dialled is hung up."""
    yield shared
    for peer in shared.peers:
        peer.drop()
    shared.peers.clear()
    wait_until(lambda: shared.health()["connected_phones"] == 0)


@pytest.fixture
def server_id() -> str:
    """A server-id of the test's own."""
    return next(IDS)


def test_frames_both_ways_verbatim(relay: Gunicorn, server_id: str) -> None:
    """TEXT and BINARY in, TEXT out, to the byte."""
    binary, phone, conn_id = relay.pair(server_id)
    value = ' {"v" : 2,"data":"\\u00e9ü"} '
    phone.send(value)
    assert binary.recv() == f'{{"conn_id":"{conn_id}","frame":{value}}}'
    phone.send_binary(value.encode())
    assert binary.recv() == f'{{"conn_id":"{conn_id}","frame":{value}}}'
    binary.send_binary(f'{{"conn_id":"{conn_id}","frame":{value}}}'.encode())
    assert phone.recv() == value.strip()


def test_1000_ordinary_end_is_echoed(relay: Gunicorn, server_id: str) -> None:
    """Both legs, and the binary is told of the phone's code."""
    binary, phone, conn_id = relay.pair(server_id)
    phone.ws.send_close(4000)
    assert phone.ending() == (4000, "")
    assert binary.recv() == f'{{"conn_id":"{conn_id}","close_code":4000}}'
    binary.ws.send_close(1000)
    assert binary.ending() == (1000, "")


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (frame(0x81, b"1", mask=None), (1002, "protocol error")),
        (frame(0xC1, b"1"), (1002, "protocol error")),
        (frame(0x83, b"1"), (1002, "protocol error")),
        (frame(0x81, b"{"), (1007, "invalid payload")),
        (frame(0x82, b"\xff"), (1007, "invalid payload")),
        (
            b"\x81\xff" + struct.pack("!Q", 1 << 40) + b"\0\0\0\0",
            (1009, "message too big"),
        ),
        (b"\x81", (1008, "message timeout")),
    ],
)
def test_1002_1007_1008_1009_close_that_phone_only(
    relay: Gunicorn, server_id: str, data: bytes, ending: tuple[int, str]
) -> None:
    """A phone's fault ends that phone; its binary hears the code, its sibling nothing."""
    binary, phone, conn_id = relay.pair(server_id)
    sibling = relay.phone(server_id)
    phone.raw(data)
    assert phone.ending() == ending
    assert binary.recv_json() == {"conn_id": conn_id, "close_code": ending[0]}
    sibling.sync()
    assert sibling.inbox == []


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (frame(0x81, b"1", mask=None), (1002, "protocol error")),
        (
            b"\x81\xfe" + struct.pack("!H", 11_025) + b"\0\0\0\0",
            (1009, "message too big"),
        ),
        (b"\x81", (1008, "message timeout")),
    ],
)
def test_1002_1008_1009_close_a_binary(
    relay: Gunicorn, server_id: str, data: bytes, ending: tuple[int, str]
) -> None:
    """A binary's fault starts its grace period; its phone stays."""
    binary, phone, _ = relay.pair(server_id)
    binary.raw(data)
    assert binary.ending() == ending
    phone.sync()


def test_malformed_envelope_leaves_the_binary_up(
    relay: Gunicorn, server_id: str
) -> None:
    """Not even bad UTF-8 in TEXT closes it."""
    binary, phone, conn_id = relay.pair(server_id)
    for bad in (b"\xff", b"{", b'{"conn_id":"client-x-00000000","frame":1}'):
        binary.raw(frame(0x81, bad))
    binary.send(f'{{"conn_id":"{conn_id}","frame":1}}')
    assert phone.recv() == "1"


def test_1011_heartbeat_timeout() -> None:
    """A peer that answers no ping is closed; one that does stays."""
    settings = FAST | {
        "HEARTBEAT_INTERVAL_S": 0.2 * UNIT_S,
        "HEARTBEAT_TIMEOUT_S": 0.3 * UNIT_S,
    }
    with gunicorn(**settings) as relay:
        relay.ready()
        binary, phone, conn_id = relay.pair()
        wire = b""
        while b"heartbeat timeout" not in wire:
            data = phone.ws.sock.recv(100)
            assert data, wire
            wire += data
            binary.sync()
        assert wire.startswith(b"\x89\x00")
        assert struct.pack("!H", 1011) + b"heartbeat timeout" in wire
        notice = {"conn_id": conn_id, "close_code": 1011}
        assert json.loads(binary.inbox[-1] if binary.inbox else binary.recv()) == notice


def test_1011_phone_backlog_full(relay: Gunicorn, server_id: str) -> None:
    """A phone that stops reading is cut; sibling and binary do not notice."""
    binary, phone, conn_id = relay.pair(server_id)
    sibling = relay.phone(server_id)
    sibling.send("1")
    other = binary.recv_json()["conn_id"]
    value = '"' + "x" * 9000 + '"'
    for _ in range(2000):
        binary.send(f'{{"conn_id":"{conn_id}","frame":{value}}}')
        binary.send(f'{{"conn_id":"{other}","frame":2}}')
        assert sibling.recv() == "2"
        if relay.health()["connected_phones"] == 1:
            break
    assert phone.ending() == (1011, "phone backlog full")
    assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1011}


def test_1011_write_timeout_of_a_binary() -> None:
    """A binary that takes no byte is closed; before that, its phones are paused."""
    with gunicorn(OUTBOX_MAX_BYTES=100_000, **FAST) as relay:
        relay.ready()
        _, phone, _ = relay.pair()
        phone.ws.sock.settimeout(5 * UNIT_S)
        value = frame(0x81, b'"' + b"x" * 9000 + b'"')
        with pytest.raises(OSError, match=r"timed out|reset|pipe"):
            while True:
                phone.raw(value)
        wait_until(
            lambda: [
                event
                for event in relay.named("connection.closed")
                if event["reason"] == "write timeout"
            ]
        )


def test_4404_without_binary_and_after_grace(relay: Gunicorn, server_id: str) -> None:
    """Nobody there; nobody came back in time; nobody there while sending."""
    assert relay.phone(server_id).ending() == (4404, "no server with that id")
    binary, phone, _ = relay.pair(server_id)
    sender = relay.phone(server_id)
    binary.drop()
    wait_until(lambda: relay.named("claim.grace_started"))
    sender.sync()
    sender.send("1")
    assert sender.ending() == (4404, "no server with that id")
    assert phone.ending() == (4404, "no server with that id")
    relay.binary(server_id).sync()


def test_4404_reclaimed_in_grace(relay: Gunicorn, server_id: str) -> None:
    """The new process is claimed at once; old phones shake hands anew."""
    binary, phone, _ = relay.pair(server_id)
    binary.close()
    again = relay.binary(server_id)
    assert phone.ending() == (4404, "binary reclaimed server-id")
    new = relay.phone(server_id)
    new.send("1")
    assert again.recv_json()["frame"] == 1


def probed_newcomer(relay: Gunicorn, server_id: str) -> Peer:
    """Dial until the incumbent has been silent so long that it is probed."""
    probes = len(relay.named("claim.probed"))
    while True:
        peer = relay.binary(server_id)
        # Who is refused has its close frame; who waits for the probe has nothing yet.
        wait_until(
            lambda peer=peer: (
                len(relay.named("claim.probed")) > probes
                or select.select([peer.ws.sock], [], [], 0)[0]
            )
        )
        if len(relay.named("claim.probed")) > probes:
            return peer
        assert peer.ending() == (4409, "server-id already claimed")


def test_4409_while_the_incumbent_lives(relay: Gunicorn, server_id: str) -> None:
    """Two newcomers for one id share a probe; its pong turns both away."""
    binary, phone, conn_id = relay.pair(server_id)
    newcomers = [probed_newcomer(relay, server_id), relay.binary(server_id)]
    binary.sync()  # reads the probe's ping, and answers it
    for newcomer in newcomers:
        assert newcomer.ending() == (4409, "server-id already claimed")
    phone.send("2")
    assert binary.recv_json() == {"conn_id": conn_id, "frame": 2}


def test_4404_takeover_from_a_silent_incumbent(relay: Gunicorn, server_id: str) -> None:
    """No pong: the first newcomer takes over, the second meets a live holder."""
    binary, phone, _ = relay.pair(server_id)
    first, second = probed_newcomer(relay, server_id), relay.binary(server_id)
    assert phone.ending() == (4404, "binary reclaimed server-id")
    assert second.ending() == (4409, "server-id already claimed")
    assert binary.ending() == (1011, "heartbeat timeout")
    again = relay.phone(server_id)
    again.send("3")
    assert first.recv_json()["frame"] == 3


def test_4429_cap_of_phones(relay: Gunicorn, server_id: str) -> None:
    """Exactly the cap fits."""
    relay.pair(server_id)
    relay.phone(server_id).sync()
    assert relay.phone(server_id).ending() == (4429, "too many phones for server-id")


@pytest.mark.parametrize("code", [4401, 4408, 4412, 4421, 4426])
def test_close_directive(relay: Gunicorn, server_id: str, code: int) -> None:
    """Its frame, then its code with an empty reason; no notice comes back."""
    binary, phone, conn_id = relay.pair(server_id)
    binary.send(f'{{"conn_id":"{conn_id}","frame":"bye","close_code":{code}}}')
    assert phone.ending() == (code, "")
    assert phone.inbox == ['"bye"']
    binary.sync()
    assert binary.inbox == []


def test_abrupt_ends_are_told_as_1001(relay: Gunicorn, server_id: str) -> None:
    """A reset and a plain end of stream."""
    binary, phone, conn_id = relay.pair(server_id)
    phone.reset()
    assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1001}


def test_refusals_before_the_101(relay: Gunicorn, server_id: str) -> None:
    """Plain HTTP, from the real server."""
    assert (
        ask(relay.address, upgrade_request("client", server_id, user_agent=None))[0]
        == 400
    )
    assert get(relay.address, "/v1/server")[0] == 426
    status, fields, _ = ask(
        relay.address, b"POST /v1/client HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert (status, fields["allow"]) == (405, "GET")
    assert ask(relay.address, b"GET / HTTP/1.1\nHost: a\n\n")[0] == 400
