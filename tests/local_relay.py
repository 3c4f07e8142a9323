"""A whole relay in this process: real sockets, the real handler and application."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relay_app.app import create_app
from relay_app.core.config import Config
from relay_app.transport.handler import Handler
from relay_app.transport.hub import Hub
from relay_app.transport.listener import Listener
from tests.peers import Peer
from tests.waiting import wait_until


class LocalRelay:
    """A relay on a free port of loopback.

    Args:
        max_heads: Requests that may be at their head at once.
        overrides: Fields of ``Config``; the rate limit is off unless set.
    """

    def __init__(self, max_heads: int = 64, **overrides: Any) -> None:
        config = Config(**{"rate_per_minute": 0, "drain_s": 0.0, **overrides})
        self.app = create_app(config)
        self.hub: Hub = self.app.extensions["relay"].hub
        Handler.handshake_timeout_s = config.handshake_timeout_s
        self.server = Listener(
            ("127.0.0.1", 0),
            max_heads,
            application=self.app,
            handler_class=Handler,
            log=None,
            error_log=None,
        )
        self.server.start()
        self.hub.start()
        self.address: tuple[str, int] = ("127.0.0.1", self.server.server_port)
        self.peers: list[Peer] = []
        self.url = f"ws://127.0.0.1:{self.server.server_port}"

    def binary(self, server_id: str = "id") -> Peer:
        """Dial as a binary."""
        return self._dial("server", server_id)

    def phone(self, server_id: str = "id") -> Peer:
        """Dial as a phone."""
        return self._dial("client", server_id)

    def _dial(self, leg: str, server_id: str) -> Peer:
        peer = Peer.dial(self.url, leg, server_id)
        self.peers.append(peer)
        return peer

    def pair(self, server_id: str = "id") -> tuple[Peer, Peer, str]:
        """Dial as both, and learn the phone's conn_id."""
        binary = self.binary(server_id)
        phone = self.phone(server_id)
        return binary, phone, self.introduce(binary, phone)

    @staticmethod
    def introduce(binary: Peer, phone: Peer) -> str:
        """Let a phone say something, and give the conn_id that the binary sees."""
        phone.send('"hello"')
        conn_id: str = binary.recv_json()["conn_id"]
        return conn_id

    def idle(self) -> None:
        """Wait until no connection and no place is left."""
        wait_until(
            lambda: not self.hub.pool.connections and not self.hub.gate.taken,
            lambda: f"{len(self.hub.pool.connections)} connections left",
        )

    def stop(self) -> None:
        """Drain, if that was not done, and check that nothing is left behind."""
        if self.hub.pool.connections or not self.hub.draining:
            self.hub.hurry()
            self.hub.drain()
        for peer in self.peers:
            peer.drop()
        self.server.stop(timeout=5)
        self.idle()
        assert self.hub.pool.budget.used_bytes == 0
        assert self.hub.registry.phones == 0


@contextmanager
def local_relay(**overrides: Any) -> Iterator[LocalRelay]:
    """Run a relay for the length of a block."""
    relay = LocalRelay(**overrides)
    try:
        yield relay
    finally:
        relay.stop()
