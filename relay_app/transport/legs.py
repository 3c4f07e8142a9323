"""What a message means on each of the two legs. This is the whole frame path.

phone → binary: check, splice between the ready-made prefix and ``}``, offer to the
binary's outbox. binary → phone: decode the envelope, look the phone up, offer the
frame to its outbox. Nothing else happens per frame: a phone knows its claim, a
claim its holder and its phones.

Everything that happens once per connection goes through ``Desk``, which the hub is.
"""

from __future__ import annotations

from _socket import socket as PlainSocket
from typing import ClassVar, Protocol

from relay_app import log
from relay_app.core import envelope, events
from relay_app.core.close_codes import Close, directive_code
from relay_app.core.errors import BadPayload, MalformedEnvelope, NoServer
from relay_app.core.registry import Claim
from relay_app.transport.connection import Connection, Pool
from relay_app.transport.websocket import text_head


class Desk(Protocol):
    """Who is told when a connection comes to its end, and of what is rare."""

    def phone_ended(self, phone: PhoneLeg, code: int) -> None:
        """Take a phone out of the registry and tell its binary."""

    def binary_ended(self, binary: BinaryLeg) -> None:
        """Release a binary's claim, or its place in a probe."""

    def binary_alive(self, binary: BinaryLeg) -> None:
        """Answer the newcomers that wait for this binary."""

    def detach(self, phone: PhoneLeg) -> None:
        """Take a phone out of the registry; its binary asked for that."""

    def leg_gone(self, leg: Leg) -> None:
        """Give the connection's place back and write its last log line."""


class Leg(Connection):
    """What both legs have.

    Args:
        desk: The hub.
        server_id: As its header had it.
        source: What admission counted the connection under.
        suffix: The random end of its conn_id in the log.

    ``label`` and ``short_server_id`` are what the log may show of its conn_id and of
    its server-id.
    """

    __slots__ = ("_desk", "claim", "label", "server_id", "short_server_id", "source")

    name: ClassVar[str]
    strict_outbox: ClassVar[bool]

    def __init__(
        self,
        sock: PlainSocket,
        pool: Pool,
        limit_bytes: int,
        *,
        desk: Desk,
        server_id: str,
        source: str,
        suffix: str,
    ) -> None:
        super().__init__(sock, pool, limit_bytes, strict_outbox=self.strict_outbox)
        self._desk = desk
        self.server_id = server_id
        self.source = source
        self.short_server_id = log.short_id(server_id)
        self.label = f"{self.name}-{self.short_server_id}-{suffix}"
        self.claim: PhoneClaim | None = None

    def on_gone(self) -> None:
        """Tell the desk that the socket is closed."""
        self._desk.leg_gone(self)

    def on_silence(self) -> None:
        """Log that the heartbeat ends this connection."""
        log.emit(events.HeartbeatMissed(conn_id=self.label), self.source)

    def on_dropped(self, frames: int) -> None:
        """Log that the backlog was given up."""
        log.emit(
            events.FrameDropped(
                conn_id=self.label, reason="backlog given up", frames=frames
            ),
            self.source,
        )


PhoneClaim = Claim["BinaryLeg", "PhoneLeg"]


class PhoneLeg(Leg):
    """A phone's connection, without a claim until it is attached to one."""

    __slots__ = ("_frame_prefix", "_wrap_bytes", "conn_id")

    name = "client"
    strict_outbox = True

    def attach(self, claim: PhoneClaim, conn_id: str) -> None:
        """Join a claim under a conn_id; everything per frame is made ready here."""
        self.claim = claim
        self.conn_id = conn_id
        self.label = f"{self.name}-{self.short_server_id}-{conn_id[-8:]}"
        self.feeds = claim.holder
        self._frame_prefix = envelope.prefix(conn_id)
        self._wrap_bytes = len(self._frame_prefix) + len(envelope.SUFFIX)

    def on_message(self, payload: bytes) -> bool:
        """Wrap a frame for the binary.

        Returns: True when the binary's outbox is above its high mark.

        Raises:
            BadPayload: Not one JSON value in UTF-8; closes 1007.
            NoServer: No binary is there just now; closes 4404.
        """
        try:
            envelope.check_frame(payload)
        except BadPayload:
            log.emit(
                events.FrameDropped(conn_id=self.label, reason="not one JSON value"),
                self.source,
            )
            raise
        claim = self.claim
        binary = claim.holder if claim is not None else None
        if binary is None:
            raise NoServer
        head = text_head(self._wrap_bytes + len(payload))
        binary.send(b"".join((head, self._frame_prefix, payload, envelope.SUFFIX)))
        outbox = binary.outbox
        return outbox.queued_bytes > outbox.high_bytes

    def cut_backlog(self) -> None:
        """End the connection because the phone does not read."""
        self.close(Close.PHONE_BACKLOG_FULL, drop=True)

    def deliver_last(self, frame: bytes | None, code: int) -> None:
        """Carry out a close directive: its frame, then the close, behind what waits.

        Where the bound does not allow the frame, the backlog goes and the close
        has the directive's code all the same.

        Args:
            frame: A whole WebSocket frame, or ``None`` for none.
            code: For the close frame.
        """
        fits = frame is None
        if frame is not None and self.outbox.has_room(len(frame)):
            fits = self.outbox.offer(frame)
        self.close_with(code, "", drop=not fits)

    def on_end(self, code: int) -> None:
        """Leave the claim; the binary is told."""
        self._desk.phone_ended(self, code)


class BinaryLeg(Leg):
    """A binary's connection: pending until it has a claim."""

    __slots__ = ()

    name = "server"
    strict_outbox = False

    def on_message(self, payload: bytes) -> bool:
        """Unwrap an envelope and deliver it. Never ends the connection.

        What is malformed, or names a phone that is not this binary's, is logged
        and dropped. A binary without a claim has no phones, so whatever it sends
        while it waits for one names an unknown phone.

        Returns: True after a message that was dropped: others have their turn.
        """
        try:
            received = envelope.decode(payload)
        except MalformedEnvelope as fault:
            log.emit(
                events.FrameDropped(conn_id=self.label, reason=fault.fault), self.source
            )
            return True  # one warning a turn: it costs more than a frame
        conn_id = received.conn_id
        if not conn_id:
            log.emit(events.WakeIgnored(conn_id=self.label), self.source)
            return False
        claim = self.claim
        phone = claim.phones.get(conn_id) if claim is not None else None
        if phone is None:
            log.emit(
                events.FrameDropped(conn_id=self.label, reason="unknown conn_id"),
                self.source,
            )
            return True
        frame = received.frame
        if not received.close_code:
            phone.send(b"".join((text_head(len(frame)), frame)))
        else:
            last = b"".join((text_head(len(frame)), frame)) if frame else None
            self._desk.detach(phone)
            phone.deliver_last(last, directive_code(received.close_code))
        return False

    def on_alive(self) -> None:
        """A pong came: whoever waits for this binary's answer has it."""
        if self.claim is not None and self.claim.probe is not None:
            self._desk.binary_alive(self)

    def on_end(self, code: int) -> None:
        """Give the claim up."""
        self._desk.binary_ended(self)
