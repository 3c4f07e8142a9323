"""The relay of this process: the one registry, and the hands that carry it out.

``registry`` is module-level: whatever serves in this process serves from it, and
there is no second one. ``Hub`` admits connections, asks the registry, applies
its effects to live connections, drains, and answers the health routes.

No method here waits except ``drain``, so a check and what follows from it are
one step: no greenlet can come in between.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
from _socket import socket as PlainSocket
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import gevent
from gevent.event import Event

from relay_app import log
from relay_app.core import envelope, events, policy
from relay_app.core.allowlist import Allowlist
from relay_app.core.close_codes import Close
from relay_app.core.config import Config
from relay_app.core.errors import PeerError
from relay_app.core.guard import Level, Verdict
from relay_app.core.policy import CAP_RETRY_AFTER_S, Admission, Gate, RateLimiter
from relay_app.core.registry import (
    Ask,
    Effect,
    Evict,
    GraceEnded,
    GraceStarted,
    Granted,
    Registry,
    Turn,
)
from relay_app.transport.connection import Pool
from relay_app.transport.legs import BinaryLeg, Leg, PhoneLeg
from relay_app.transport.sweeper import Sweeper
from relay_app.transport.websocket import PING_FRAME, text_head

registry: Registry[BinaryLeg, PhoneLeg] = Registry()
"""Server-id → claim → connections. The only one in this process."""

AnyLeg = TypeVar("AnyLeg", bound=Leg)

PHONE_SEND_BUFFER_BYTES = 131072
"""``SO_SNDBUF`` of a phone (Linux doubles it): what a phone that does not read holds
in the kernel beside its outbox. A binary's is left to the kernel's tuning."""

BINARY_UNSENT_BYTES = 32768
"""``TCP_NOTSENT_LOWAT`` of a binary: what the kernel takes beyond what is on its way.
The rest stays in the outbox, where each phone's part of it is bounded; a polite phone
would wait behind megabytes of a flooder's in the kernel otherwise."""

_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)

DRAIN_TAIL_S = 1.0
"""The end of the drain window in which no close begins, so that answers can arrive."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks for an upgrade, after the header checks.

    Args:
        address: Of the client, for the log.
        source: What admission counts it under.
        server_id: From its header.
        version: A binary's own version, for the log.
        device_name: A phone's name for itself, for the log.
    """

    address: str
    source: str
    server_id: str
    version: str | None = None
    device_name: str | None = None


def random_suffix() -> str:
    """Draw the random end of a conn_id: 8 lowercase hex characters."""
    return os.urandom(4).hex()


class Hub:
    """Everything that is alive in one relay.

    Args:
        config: The settings.
        verdict: What the guard found at start; shown by the health route.
        version: The real build.
        registry: The process's own; tests bring one of theirs.
    """

    def __init__(
        self,
        config: Config,
        verdict: Verdict,
        version: str,
        registry: Registry[BinaryLeg, PhoneLeg] = registry,
    ) -> None:
        self.config = config
        self.verdict = verdict
        self.version = version
        self.registry = registry
        self.instance_id = secrets.token_hex(8)
        self.pool = Pool(config)
        self.gate = Gate(config.max_connections, config.max_connections_per_ip)
        self.limiter = RateLimiter(config.rate_burst, config.rate_per_minute)
        self.sweeper = Sweeper(self.pool, self.tick)
        self.started_at = monotonic()
        self.draining = False
        self.allowed: Allowlist | None = None
        """The server-ids that a closed relay serves; ``None`` for an open one."""
        self._proxy_is_known = False
        self._idle = Event()
        self._hurry = Event()

    # -- admission ----------------------------------------------------------

    def admit(self, source: str) -> tuple[Admission, int]:
        """Ask for a place for an upgrade attempt, before its headers are checked.

        Args:
            source: What ``policy.source`` made of the client's address.

        Returns: The verdict, and for a refusal the seconds for ``Retry-After``.
        ADMITTED holds a place until ``leave`` or until the connection is gone.
        """
        if self.draining:
            return Admission.DRAINING, CAP_RETRY_AFTER_S
        wait_s = self.limiter.spend(source, monotonic())
        if wait_s:
            return Admission.RATE_LIMITED, wait_s
        if not self.gate.enter(source):
            return Admission.FULL, CAP_RETRY_AFTER_S
        return Admission.ADMITTED, 0

    def leave(self, source: str) -> None:
        """Give back a place that did not become a connection."""
        self.gate.leave(source)

    def allows(self, server_id: str) -> bool:
        """Tell whether this relay serves a server-id."""
        return self.allowed is None or server_id in self.allowed

    def forwarded_by(self, peer: str) -> None:
        """Take note of a request with ``X-Forwarded-For``; warn once if it is not read.

        Args:
            peer: Address of the TCP peer.
        """
        if self._proxy_is_known or not policy.is_untrusted_proxy(
            peer, self.config.trusted_proxies
        ):
            return
        self._proxy_is_known = True
        log.emit(
            events.ProxyUntrusted(
                peer=peer or "unix",
                detail="it sends X-Forwarded-For, which is not read, so all its clients "
                "share one rate limit: if it is your proxy, name its network in "
                "PYRYCODE_RELAY_TRUSTED_PROXIES",
            )
        )

    # -- connections --------------------------------------------------------

    def open_phone(self, sock: PlainSocket, early: bytes, peer: Peer) -> None:
        """Take over a phone's socket after the 101, and its admission place.

        Args:
            sock: Connected and non-blocking; owned by the connection from here on.
            early: Bytes that came with the request head.
            peer: Who it is.
        """
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PHONE_SEND_BUFFER_BYTES)
        phone = self._make(PhoneLeg, sock, self.config.max_frame_bytes, peer)
        phone.start(early)
        refusal: Close | None = Close.SHUTTING_DOWN if self.draining else None
        if refusal is None:
            try:
                claim, conn_id = self.registry.join(
                    peer.server_id,
                    phone,
                    self.config.max_phones_per_server,
                    random_suffix,
                )
                phone.attach(claim, conn_id)
            except PeerError as fault:
                refusal = fault.close
        self._log_opened(phone, peer)
        if refusal is not None:
            phone.close(refusal)

    def open_binary(self, sock: PlainSocket, early: bytes, peer: Peer) -> None:
        """Take over a binary's socket after the 101, and claim its server-id.

        Args:
            sock: Connected and non-blocking; owned by the connection from here on.
            early: Bytes that came with the request head.
            peer: Who it is.
        """
        if _NOTSENT_LOWAT is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, BINARY_UNSENT_BYTES)
        binary = self._make(BinaryLeg, sock, self.config.max_binary_frame_bytes, peer)
        binary.start(early)
        self._log_opened(binary, peer)
        if self.draining:
            binary.close(Close.SHUTTING_DOWN)
            return
        self._apply(
            self.registry.claim(
                peer.server_id, binary, monotonic(), self.config.conflict_probe_s
            )
        )

    def _make(
        self, kind: type[AnyLeg], sock: PlainSocket, limit_bytes: int, peer: Peer
    ) -> AnyLeg:
        return kind(
            sock,
            self.pool,
            limit_bytes,
            desk=self,
            server_id=peer.server_id,
            source=peer.source,
            suffix=random_suffix(),
        )

    def _log_opened(self, leg: Leg, peer: Peer) -> None:
        log.emit(
            events.ConnectionOpened(
                leg=leg.name,
                conn_id=leg.label,
                server_id=leg.short_server_id,
                peer=peer.address,
                version=peer.version,
                device_name=peer.device_name,
            ),
            leg.source,
        )

    def phone_ended(self, phone: PhoneLeg, code: int) -> None:
        """Take a phone out of the registry and tell its binary, if it was there."""
        if phone.claim is None:
            return
        binary = self.registry.leave(phone.claim, phone.conn_id, phone)
        if binary is not None:
            notice = envelope.close_notice(phone.conn_id, code)
            binary.send(text_head(len(notice)) + notice)

    def detach(self, phone: PhoneLeg) -> None:
        """Take a phone out of the registry without a word to its binary."""
        if phone.claim is not None:
            self.registry.leave(phone.claim, phone.conn_id, phone)

    def binary_ended(self, binary: BinaryLeg) -> None:
        """Release a binary's claim, or its place in a probe."""
        if binary.claim is None:
            self.registry.give_up(binary.server_id, binary)
            return
        # In a drain its phones are to hear of that, so they stay until their turn.
        grace_s = math.inf if self.draining else self.config.grace_period_s
        self._apply(self.registry.release(binary.claim, binary, monotonic(), grace_s))

    def binary_alive(self, binary: BinaryLeg) -> None:
        """Refuse the newcomers that waited for this binary's answer."""
        if binary.claim is not None:
            self._apply(self.registry.answered(binary.claim))

    def leg_gone(self, leg: Leg) -> None:
        """Give the connection's place back and write its last log line."""
        self.gate.leave(leg.source)
        log.emit(
            events.ConnectionClosed(
                leg=leg.name,
                conn_id=leg.label,
                server_id=leg.short_server_id,
                close_code=leg.close_code,
                reason=leg.close_reason,
                duration_s=round(monotonic() - leg.opened_at, 3),
                frames_in=leg.frames_in,
                frames_out=leg.frames_out,
                bytes_in=leg.bytes_in,
                bytes_out=leg.bytes_out,
            ),
            leg.source,
        )
        if not self.pool.connections:
            self._idle.set()

    # -- effects ------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let time pass for the registry, the rate limiter, and what the log folds.

        Args:
            now: Monotonic seconds.
        """
        log.tick(now)
        if not self.draining:  # phones in grace are to hear of the drain
            self._apply(self.registry.tick(now))
        self.limiter.sweep(now)

    def _apply(self, effects: list[Effect[BinaryLeg, PhoneLeg]]) -> None:
        for effect in effects:
            match effect:
                case Granted(binary, claim, takeover):
                    binary.claim = claim
                    log.emit(
                        events.ClaimGranted(
                            conn_id=binary.label,
                            server_id=binary.short_server_id,
                            takeover=takeover,
                        ),
                        binary.source,
                    )
                case Evict(phone, close):
                    phone.close(close)
                case Turn(binary, close):
                    if close is Close.SERVER_ID_CLAIMED:
                        log.emit(
                            events.ClaimRefused(
                                conn_id=binary.label,
                                server_id=binary.short_server_id,
                                close_code=close.code,
                            ),
                            binary.source,
                        )
                    binary.close(close, drop=True)
                case Ask(binary, server_id):
                    short = log.short_id(server_id)
                    log.emit(events.ClaimProbed(server_id=short), short)
                    binary.send(PING_FRAME)
                case GraceStarted(server_id, phones):
                    short = log.short_id(server_id)
                    log.emit(events.GraceStarted(server_id=short, phones=phones), short)
                case GraceEnded(server_id, phones):
                    log.emit(
                        events.GraceEnded(
                            server_id=log.short_id(server_id), phones=phones
                        )
                    )

    # -- life ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to sweep; the listener may open."""
        self.sweeper.start()

    def hurry(self) -> None:
        """End the drain's waiting now."""
        self._hurry.set()

    def drain(self, at_most_s: float | None = None) -> int:
        """Close every connection, spread over the drain window, and wait for them.

        Phones of a server-id go before their binary, so that none of them is told
        that its binary is gone.

        Args:
            at_most_s: Shortens the window; ``None`` leaves it as it is set.

        Returns: Number of connections that had to be cut because they did not
        answer in time, or because of ``hurry``.

        Source: docs/protocol.md "Drain".
        """
        drain_s = self.config.drain_s
        if at_most_s is not None:
            drain_s = min(drain_s, at_most_s)
        began = monotonic()
        self.draining = True
        waiting = self._in_closing_order()
        log.emit(events.ServerDraining(connections=len(waiting), drain_s=drain_s))
        window_s = max(drain_s - DRAIN_TAIL_S, 0.0)
        for number, leg in enumerate(waiting):
            pause_s = began + window_s * number / len(waiting) - monotonic()
            if pause_s > 0 and self.pool.connections:
                self._hurry.wait(pause_s)
            leg.close(Close.SHUTTING_DOWN)
        gevent.sleep(0)  # the close frames are written at the end of this turn
        self._wait_until_idle(began + drain_s - monotonic())
        left = list(self.pool.connections)
        for connection in left:
            connection.cut()
        self.stop()
        log.flush()
        log.emit(events.ServerStopped(cut=len(left), uptime_s=round(self.uptime_s, 3)))
        return len(left)

    def stop(self) -> None:
        """Stop sweeping and forget all claims. No connection is left by now."""
        self.sweeper.stop()
        self.registry.clear()

    def _in_closing_order(self) -> list[Any]:
        ordered: list[Any] = []
        for claim in self.registry:
            ordered += claim.phones.values()
            if claim.holder is not None:
                ordered.append(claim.holder)
        return ordered + list(self.pool.connections.difference(ordered))

    def _wait_until_idle(self, timeout_s: float) -> None:
        if not self.pool.connections or timeout_s <= 0:
            return
        self._idle.clear()
        gevent.wait([self._idle, self._hurry], timeout=timeout_s, count=1)

    # -- what is shown ------------------------------------------------------

    @property
    def uptime_s(self) -> float:
        """Seconds since the hub was made."""
        return monotonic() - self.started_at

    def health(self) -> dict[str, Any]:
        """Say how the relay is, for ``/healthz``. No secret, no id of a peer.

        Source: docs/protocol.md "/healthz".
        """
        return {
            "status": "ok",
            "version": self.version,
            "connected_binaries": self.registry.binaries,
            "connected_phones": self.registry.phones,
            "uptime_seconds": int(self.uptime_s),
            "instance_id": self.instance_id,
            "role": "draining" if self.draining else "active",
            "guard": {
                "verdict": Level(self.verdict.level).name,
                "codes": list(self.verdict.codes),
            },
        }
