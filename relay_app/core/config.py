"""Every setting of the relay, in one frozen object.

``SETTINGS`` is the table: name, parser, default, and what the operator is told.
``Config.from_environ`` goes through it once at start and reports all faults
together; a fault names the variable and what it accepts, never the value, which
may be a secret that was pasted into the wrong line.

Source: docs/configuration.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay_app.core.envelope import ENVELOPE_OVERHEAD
from relay_app.core.errors import ConfigError
from relay_app.core.policy import Network

PREFIX = "PYRYCODE_RELAY_"

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_INTEGER = re.compile(r"[0-9]{1,15}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: an address, or a descriptor that is bound already."""

    host: str = ""
    port: int = 0
    fd: int | None = None

    def __str__(self) -> str:
        if self.fd is not None:
            return f"fd://{self.fd}"
        return (
            f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    ``parse`` gets the text and returns the value or raises ``ValueError``;
    ``accepts`` ends the sentence "NAME: must be …".
    """

    variable: str
    field: str
    parse: Callable[[str], Any]
    accepts: str
    empty_has_meaning: bool = False


def _seconds(low: float, high: float) -> tuple[Callable[[str], float], str]:
    def parse(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return parse, f"seconds, {low:g} to {high:g}, fractions allowed"


def _integer(low: int, high: int, what: str) -> tuple[Callable[[str], int], str]:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return parse, f"{what}, a whole number from {low} to {high}"


def _one_of(*words: str) -> tuple[Callable[[str], str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return parse, " or ".join(words)


def _flag(*words: str) -> tuple[Callable[[str], bool], str]:
    def parse(text: str) -> bool:
        if text not in words:
            raise ValueError
        return True

    return parse, " or ".join(words) + ", or not set at all"


def _port(text: str) -> Listen:
    if not _INTEGER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError
    return Listen("0.0.0.0", int(text))


def _listen(text: str) -> Listen:
    if text.startswith("fd://"):
        if not _INTEGER.fullmatch(text[5:]):
            raise ValueError
        return Listen(fd=int(text[5:]))
    host, colon, port = text.rpartition(":")
    if not colon or not _INTEGER.fullmatch(port) or int(port) > 65535:
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        return Listen(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if not _HOST.fullmatch(host):
        raise ValueError
    return Listen(host, int(port))


def _admin_listen(text: str) -> Listen | None:
    if not text:
        return None
    listen = _listen(text)
    if listen.fd is not None:
        raise ValueError
    if listen.host != "localhost" and not ipaddress.ip_address(listen.host).is_loopback:
        raise ValueError
    return listen


def _public_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError
    return text.lower()


def _absolute_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or len(text) > 1024:
        raise ValueError
    return text


def _networks(text: str) -> tuple[Network, ...]:
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    return tuple(ipaddress.ip_network(part) for part in parts)


SETTINGS: tuple[Setting, ...] = (
    Setting("PORT", "listen", _port, "a port number from 1 to 65535"),
    Setting(PREFIX + "LISTEN", "listen", _listen, "host:port, [IPv6]:port or fd://N"),
    Setting(
        PREFIX + "ADMIN_LISTEN",
        "admin_listen",
        _admin_listen,
        "host:port on a loopback address, or empty for none",
        empty_has_meaning=True,
    ),
    Setting(
        PREFIX + "PUBLIC_HOST",
        "public_host",
        _public_host,
        "one host name, without scheme, port or path",
    ),
    Setting(
        PREFIX + "TRUSTED_PROXIES",
        "trusted_proxies",
        _networks,
        "networks in CIDR form, separated by commas, or empty for none",
        empty_has_meaning=True,
    ),
    Setting(PREFIX + "GRACE_PERIOD_S", "grace_period_s", *_seconds(0, 86400)),
    Setting(PREFIX + "CONFLICT_PROBE_S", "conflict_probe_s", *_seconds(0.05, 300)),
    Setting(
        PREFIX + "HEARTBEAT_INTERVAL_S", "heartbeat_interval_s", *_seconds(0.05, 3600)
    ),
    Setting(
        PREFIX + "HEARTBEAT_TIMEOUT_S", "heartbeat_timeout_s", *_seconds(0.05, 3600)
    ),
    Setting(PREFIX + "MESSAGE_TIMEOUT_S", "message_timeout_s", *_seconds(0.05, 3600)),
    Setting(PREFIX + "WRITE_TIMEOUT_S", "write_timeout_s", *_seconds(0.05, 3600)),
    Setting(
        PREFIX + "HANDSHAKE_TIMEOUT_S", "handshake_timeout_s", *_seconds(0.05, 300)
    ),
    Setting(PREFIX + "CLOSE_TIMEOUT_S", "close_timeout_s", *_seconds(0.05, 300)),
    Setting(PREFIX + "DRAIN_S", "drain_s", *_seconds(0, 3600)),
    Setting(
        PREFIX + "MAX_FRAME_BYTES", "max_frame_bytes", *_integer(64, 64 << 20, "bytes")
    ),
    Setting(
        PREFIX + "MAX_PHONES_PER_SERVER",
        "max_phones_per_server",
        *_integer(1, 100_000, "phones"),
    ),
    Setting(
        PREFIX + "MAX_CONNECTIONS",
        "max_connections",
        *_integer(1, 1_000_000, "connections"),
    ),
    Setting(
        PREFIX + "MAX_CONNECTIONS_PER_IP",
        "max_connections_per_ip",
        *_integer(0, 1_000_000, "connections, 0 for no such cap"),
    ),
    Setting(PREFIX + "RATE_BURST", "rate_burst", *_integer(1, 1_000_000, "attempts")),
    Setting(
        PREFIX + "RATE_PER_MINUTE",
        "rate_per_minute",
        *_integer(0, 1_000_000, "attempts per minute, 0 for no limit"),
    ),
    Setting(
        PREFIX + "OUTBOX_MAX_BYTES",
        "outbox_max_bytes",
        *_integer(4096, 1 << 30, "bytes"),
    ),
    Setting(
        PREFIX + "OUTBOX_TOTAL_BYTES",
        "outbox_total_bytes",
        *_integer(4096, 1 << 40, "bytes"),
    ),
    Setting(
        PREFIX + "SERVER_IDS_FILE",
        "server_ids_file",
        _absolute_path,
        "the absolute path of a file with one server-id, or its SHA-256, a line",
    ),
    Setting(PREFIX + "LOG_FORMAT", "log_format", *_one_of("json", "text")),
    Setting(
        PREFIX + "LOG_LEVEL", "log_level", *_one_of("debug", "info", "warning", "error")
    ),
    Setting(
        PREFIX + "ASSERT_SINGLE_INSTANCE", "assert_single_instance", *_flag("true", "1")
    ),
    Setting(
        PREFIX + "REPLICAS", "replicas", *_integer(1, 1_000_000, "the replica count")
    ),
    Setting(PREFIX + "SINGLE_INSTANCE", "guard_bypass", *_flag("1")),
    Setting(PREFIX + "PRODUCTION", "production", *_flag("1")),
    Setting(PREFIX + "ALLOW_ROOT", "allow_root", *_flag("1")),
    Setting(
        PREFIX + "STATE_DIR",
        "state_dir",
        _absolute_path,
        "the absolute path of a directory, existing or to be made",
    ),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one relay.

    Spans end in ``_s`` and are seconds, sizes end in ``_bytes``. Build it with
    ``from_environ``, or in a test with the fields to override.
    """

    listen: Listen = Listen("127.0.0.1", 8080)
    """Address of the public listener."""
    admin_listen: Listen | None = Listen("127.0.0.1", 9090)
    """Address of the admin listener; ``None`` for none."""
    public_host: str | None = None
    """Host name, lower case; another ``Host`` gets 421. ``None`` allows any."""
    trusted_proxies: tuple[Network, ...] = ()
    """Peers whose ``X-Forwarded-For`` is read."""
    grace_period_s: float = 30.0
    """How long a server-id outlives its binary's connection; 0 ends at once."""
    conflict_probe_s: float = 10.0
    """How long a silent holder may take to answer when a newcomer claims its id."""
    heartbeat_interval_s: float = 30.0
    """Between two pings of one connection, ± 10 %."""
    heartbeat_timeout_s: float = 30.0
    """Silence after a ping that ends the connection."""
    message_timeout_s: float = 30.0
    """From the first byte of a message to its last."""
    write_timeout_s: float = 10.0
    """For a write that makes no progress."""
    handshake_timeout_s: float = 5.0
    """For the request head, from accept to the blank line."""
    close_timeout_s: float = 5.0
    """For the peer's answer to a close frame."""
    drain_s: float = 10.0
    """From the signal to the exit; 0 closes everything at once."""
    max_frame_bytes: int = 262144
    """Payload of one message of a phone, fragments summed; a binary's may have
    1024 more."""
    max_phones_per_server: int = 16
    """Phones on one server-id."""
    max_connections: int = 10000
    """Connections in all, from the header checks until the socket is closed."""
    max_connections_per_ip: int = 0
    """Connections of one IPv4 address or IPv6 /64; 0 for no such cap."""
    rate_burst: int = 20
    """Upgrade attempts that a quiet address may make at once."""
    rate_per_minute: int = 10
    """Upgrade attempts that come back per minute; 0 for no limit."""
    outbox_max_bytes: int = 4194304
    """What may wait for one connection."""
    outbox_total_bytes: int = 268435456
    """What may wait for all connections together."""
    server_ids_file: str | None = None
    """File of the server-ids that may be used; ``None`` for any."""
    log_format: str = "json"
    """``json`` or ``text``."""
    log_level: str = "info"
    """The least level that is written."""
    assert_single_instance: bool = False
    """The deploy manifest promises exactly one replica."""
    replicas: int | None = None
    """Replica count as the manifest states it; ``None`` for unknown."""
    guard_bypass: bool = False
    """Turns replica refusals of the guard into loud warnings."""
    production: bool = False
    """The guard requires the assertion wherever it runs, and root is refused."""
    allow_root: bool = False
    """Production mode may run as root."""
    state_dir: str | None = None
    """Directory of the lock; ``None`` for the usual place, see docs/configuration.md."""
    unknown: tuple[str, ...] = field(default=(), compare=False)
    """A sentence for each variable with our prefix that is no setting."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Read the settings.

        Args:
            environ: The process environment, or one to be judged.

        Raises:
            ConfigError: With all faults; the start ends with exit code 78.
        """
        values: dict[str, Any] = {}
        faults: list[str] = []
        for setting in SETTINGS:
            text = environ.get(setting.variable)
            if text is None:
                continue
            try:
                if not text and not setting.empty_has_meaning:
                    raise ValueError
                value = setting.parse(text)
            except ValueError:
                empty = " (it is set but empty)" if not text else ""
                faults.append(f"{setting.variable}: must be {setting.accepts}{empty}")
                continue
            # PORT stands before LISTEN in the table, and the first one wins.
            values.setdefault(setting.field, value)
        if faults:
            raise ConfigError(faults)
        return cls(**values, unknown=unknown_variables(environ))

    @property
    def max_binary_frame_bytes(self) -> int:
        """Payload of one message of a binary: a phone's and its envelope."""
        return self.max_frame_bytes + ENVELOPE_OVERHEAD

    def within_file_limit(self, max_files: int) -> tuple[Config, int]:
        """Fit the connection cap to the number of files the process may open.

        Args:
            max_files: The soft limit after it has been raised as far as it goes.

        Returns: The config, its ``max_connections`` lowered if need be, and the
        number of request heads that may be read at the same time. Both together
        leave ``RESERVED_FILES`` for everything else.
        """
        usable = max(max_files - RESERVED_FILES, 2)
        heads = min(MAX_OPEN_HEADS, max(usable // 8, 1))
        cap = min(self.max_connections, usable - heads)
        return dataclasses.replace(self, max_connections=cap), heads


RESERVED_FILES = 64
"""Descriptors for listeners, the event loop, logs, pipes and the admin side."""

MAX_OPEN_HEADS = 1024
"""Requests that may be at their head at once. Each holds a greenlet and up to
16 KiB for at most ``handshake_timeout_s``; more wait in the listener's backlog."""

OTHER_VARIABLES: frozenset[str] = frozenset()
"""Variables with our prefix that are read elsewhere than here."""


MAX_UNKNOWN = 20
"""How many unknown variables are named; who has more has another problem."""


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Find variables with our prefix that nothing reads.

    Returns: One sentence each, with the name that was probably meant; past
    ``MAX_UNKNOWN`` one for all the others.
    """
    known = {setting.variable for setting in SETTINGS} | OTHER_VARIABLES
    unknown = sorted(n for n in environ if n.startswith(PREFIX) and n not in known)
    sentences = []
    for name in unknown[:MAX_UNKNOWN]:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        legible = name.encode("ascii", "backslashreplace").decode()
        sentences.append(f"{legible} is not a setting; did you mean {nearest}?")
    if len(unknown) > MAX_UNKNOWN:
        sentences.append(f"and {len(unknown) - MAX_UNKNOWN} more that are no settings")
    return tuple(sentences)
