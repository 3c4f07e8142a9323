"""The echo that is judged, on the relay's own listener, handler and connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import websocket

from relay_app.transport.websocket import CONTINUATION
from tests.autobahn.echo import PATH, add_echo
from tests.local_relay import LocalRelay, local_relay
from tests.peers import BINARY, TEXT, Peer, frame
from tests.waiting import DEADLINE_S, wait_until

FIN = 0x80


@contextmanager
def echoed() -> Iterator[tuple[LocalRelay, Peer]]:
    """Run a relay with the echo, and dial that as any WebSocket client does."""
    with local_relay(max_frame_bytes=65536, outbox_max_bytes=4096) as relay:
        add_echo(relay.app)
        peer = Peer(websocket.create_connection(relay.url + PATH, timeout=DEADLINE_S))
        relay.peers.append(peer)
        yield relay, peer


def receive(peer: Peer) -> tuple[int, bytes]:
    """Give the next message's opcode and payload."""
    opcode, data = peer.ws.recv_data()
    return opcode, data


def test_echo_of_text_and_binary_keeps_kind_and_payload() -> None:
    """With a head of each length, and in fragments; what is BINARY need not be UTF-8."""
    with echoed() as (_, peer):
        for size in (0, 125, 126, 65536):
            peer.raw(frame(FIN | TEXT, b"x" * size))
            assert receive(peer) == (TEXT, b"x" * size)
            peer.raw(frame(FIN | BINARY, b"\xff" * size))
            assert receive(peer) == (BINARY, b"\xff" * size)
        for opcode, payload in ((TEXT, "é!".encode()), (BINARY, b"\xc3\xff!")):
            peer.raw(frame(opcode, payload[:1]))
            peer.raw(frame(FIN | CONTINUATION, payload[1:]))
            assert receive(peer) == (opcode, payload)


def test_echo_of_text_that_is_not_utf8_closes_1007() -> None:
    """As a phone's leg does it: no echo, and the code that says why."""
    with echoed() as (_, peer):
        peer.raw(frame(FIN | TEXT, b"\xce\xba\xf4\x90\x80\x80"))
        assert peer.ending() == (1007, "invalid payload")
        assert peer.inbox == []


def test_echo_to_a_client_that_does_not_read_yet_waits_and_loses_nothing() -> None:
    """It feeds itself, so it stops to read when too much waits to be written."""
    count, payload = 300, b"x" * 60_000
    with echoed() as (relay, peer):
        sender = gevent.spawn(peer.raw, frame(FIN | BINARY, payload) * count)
        (connection,) = relay.hub.pool.connections
        wait_until(lambda: connection.is_choked)
        for _ in range(count):
            assert receive(peer) == (BINARY, payload)
        sender.get()
