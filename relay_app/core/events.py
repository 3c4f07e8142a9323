"""The log events: one frozen dataclass each, and its fields are all it may say.

No field can hold a payload, a token, a header, a query string or the value of a
setting; ``server_id`` and ``conn_id`` are short forms made by ``log.short_id``.

``name``, ``level`` and ``fold`` are class attributes. ``reason`` and ``detail`` are always
from sets that are fixed in the source; of what a peer says about itself, only
``device_name`` and ``version`` are shown, bounded by the header checks.

An event that strangers can cause has a ``fold``: whoever causes it all the time gets one
line a minute with a count. Then ``log.emit`` has to be told the source.

Source: docs/operations.md "Log events", "Floods".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from relay_app.core.folding import Fold

KEYS = frozenset(
    {
        "allowed",
        "bytes_in",
        "bytes_out",
        "close_code",
        "code",
        "conn_id",
        "connections",
        "cut",
        "detail",
        "device_name",
        "drain_s",
        "duration_s",
        "error",
        "frames",
        "frames_in",
        "frames_out",
        "guard",
        "instance",
        "instance_id",
        "leg",
        "listen",
        "max_connections",
        "max_frame_bytes",
        "peer",
        "phones",
        "platform",
        "reason",
        "revision",
        "server_id",
        "takeover",
        "traceback",
        "uptime_s",
        "verdict",
        "version",
        "where",
    }
)
"""Every key that an event may have. ``log`` adds ``time``, ``level``, ``event`` and
``folded``, and ``message`` for what gunicorn says."""

PER_CONNECTION = 600
"""Lines a minute of one source, for what happens at most once in a connection. The
default rate limit lets 30 through; where it is raised or off, this bounds the log, and
where many share an address, or all are closed at once, each still has its line."""

AT_WILL = 3
"""Lines a minute of one source, for what a peer can cause as fast as it can send."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    name: ClassVar[str]
    level: ClassVar[int] = logging.INFO
    fold: ClassVar[Fold | None] = None


@dataclass(frozen=True, slots=True)
class ServerStarted(Event):
    """The worker accepts connections."""

    name: ClassVar[str] = "server.started"
    listen: str
    version: str
    instance_id: str
    guard: str
    max_connections: int
    max_frame_bytes: int


@dataclass(frozen=True, slots=True)
class ServerDraining(Event):
    """A stop was asked for; connections are being closed."""

    name: ClassVar[str] = "server.draining"
    connections: int
    drain_s: float


@dataclass(frozen=True, slots=True)
class ServerStopped(Event):
    """The worker is about to exit. ``cut`` connections did not answer in time."""

    name: ClassVar[str] = "server.stopped"
    cut: int
    uptime_s: float


@dataclass(frozen=True, slots=True)
class SettingUnknown(Event):
    """A variable with our prefix is no setting."""

    name: ClassVar[str] = "setting.unknown"
    level: ClassVar[int] = logging.WARNING
    detail: str


@dataclass(frozen=True, slots=True)
class SettingReduced(Event):
    """The file limit of the process allows fewer connections than were set."""

    name: ClassVar[str] = "setting.reduced"
    level: ClassVar[int] = logging.WARNING
    max_connections: int


@dataclass(frozen=True, slots=True)
class GuardFinding(Event):
    """One verdict of the single-instance guard that let the relay start."""

    name: ClassVar[str] = "instance.finding"
    code: str
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class GuardWarning(GuardFinding):
    """A finding that the operator should act on."""

    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True)
class AcceptPaused(Event):
    """A connection could not be accepted; the relay waits a moment and tries again."""

    name: ClassVar[str] = "accept.paused"
    level: ClassVar[int] = logging.WARNING
    fold: ClassVar[Fold] = Fold(burst=1, per_source=False, alike=("reason",))
    reason: str


@dataclass(frozen=True, slots=True)
class ProxyUntrusted(Event):
    """A peer on a private address forwards for others and is not trusted to."""

    name: ClassVar[str] = "proxy.untrusted"
    level: ClassVar[int] = logging.WARNING
    fold: ClassVar[Fold] = Fold(burst=1, per_source=False)
    peer: str
    detail: str


@dataclass(frozen=True, slots=True)
class AllowlistRead(Event):
    """The list of allowed server-ids was read again."""

    name: ClassVar[str] = "allowlist.read"
    level: ClassVar[int] = logging.INFO
    allowed: int


@dataclass(frozen=True, slots=True)
class AllowlistKept(Event):
    """The list of allowed server-ids cannot be used; the one before stays in force."""

    name: ClassVar[str] = "allowlist.kept"
    level: ClassVar[int] = logging.ERROR
    detail: str


@dataclass(frozen=True, slots=True)
class RunsAsRoot(Event):
    """The relay runs with all rights."""

    name: ClassVar[str] = "process.root"
    level: ClassVar[int] = logging.WARNING
    detail: str


@dataclass(frozen=True, slots=True)
class InstanceRefused(Event):
    """The guard refused something while the relay runs, or a start."""

    name: ClassVar[str] = "instance.refused"
    level: ClassVar[int] = logging.ERROR
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class InstancePlatform(Event):
    """Where the relay runs, and what the platform calls this copy and this deploy.

    The only values of variables that are logged, and only if they look like a name:
    without them two copies that write to one log could not be told apart.
    """

    name: ClassVar[str] = "instance.platform"
    platform: str
    instance: str | None
    revision: str | None


@dataclass(frozen=True, slots=True)
class LockDeleted(Event):
    """The lock of this relay was deleted while it ran."""

    name: ClassVar[str] = "instance.lock"
    level: ClassVar[int] = logging.ERROR
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A WebSocket was opened."""

    name: ClassVar[str] = "connection.opened"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION, alike=("leg",))
    leg: str
    conn_id: str
    server_id: str
    peer: str
    version: str | None = None
    device_name: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """A WebSocket's socket is closed; totals of its life."""

    name: ClassVar[str] = "connection.closed"
    fold: ClassVar[Fold] = Fold(
        burst=PER_CONNECTION,
        alike=("leg",),
        sums=("duration_s", "frames_in", "frames_out", "bytes_in", "bytes_out"),
    )
    leg: str
    conn_id: str
    server_id: str
    close_code: int
    reason: str
    duration_s: float
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class ConnectionRefused(Event):
    """An upgrade was answered with 429 or 503."""

    name: ClassVar[str] = "connection.refused"
    level: ClassVar[int] = logging.DEBUG
    fold: ClassVar[Fold] = Fold(burst=AT_WILL, alike=("reason",))
    leg: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimGranted(Event):
    """A binary holds a server-id."""

    name: ClassVar[str] = "claim.granted"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION)
    conn_id: str
    server_id: str
    takeover: bool


@dataclass(frozen=True, slots=True)
class ClaimProbed(Event):
    """A newcomer wants a server-id; its holder was pinged."""

    name: ClassVar[str] = "claim.probed"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION)
    server_id: str


@dataclass(frozen=True, slots=True)
class ClaimRefused(Event):
    """A newcomer lost against a live holder."""

    name: ClassVar[str] = "claim.refused"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION)
    conn_id: str
    server_id: str
    close_code: int


@dataclass(frozen=True, slots=True)
class GraceStarted(Event):
    """A binary is gone; its phones are kept for the grace period."""

    name: ClassVar[str] = "claim.grace_started"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION, sums=("phones",))
    server_id: str
    phones: int


@dataclass(frozen=True, slots=True)
class GraceEnded(Event):
    """A server-id is free again. By then nobody knows from where it was held."""

    name: ClassVar[str] = "claim.grace_ended"
    fold: ClassVar[Fold] = Fold(burst=300, per_source=False, sums=("phones",))
    server_id: str
    phones: int


@dataclass(frozen=True, slots=True)
class HeartbeatMissed(Event):
    """A peer was silent past the pong wait."""

    name: ClassVar[str] = "heartbeat.missed"
    fold: ClassVar[Fold] = Fold(burst=PER_CONNECTION)
    conn_id: str


@dataclass(frozen=True, slots=True)
class FrameDropped(Event):
    """Frames that will not arrive: a malformed one, or those of a cut backlog."""

    name: ClassVar[str] = "frame.dropped"
    level: ClassVar[int] = logging.WARNING
    fold: ClassVar[Fold] = Fold(burst=AT_WILL, alike=("reason",), sums=("frames",))
    conn_id: str
    reason: str
    frames: int = 1


@dataclass(frozen=True, slots=True)
class WakeIgnored(Event):
    """A binary asked for a wake, and this relay has no push service."""

    name: ClassVar[str] = "wake.ignored"
    level: ClassVar[int] = logging.DEBUG
    fold: ClassVar[Fold] = Fold(burst=AT_WILL)
    conn_id: str


@dataclass(frozen=True, slots=True)
class InternalError(Event):
    """A bug. The traceback names code, never data."""

    name: ClassVar[str] = "internal.error"
    level: ClassVar[int] = logging.ERROR
    fold: ClassVar[Fold] = Fold(burst=3, per_source=False, alike=("where", "error"))
    where: str
    error: str
    traceback: str
