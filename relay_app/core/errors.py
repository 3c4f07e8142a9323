"""The errors of the relay. Facts are attributes; ``__str__`` makes the text.

``RelayError``
    ``ConfigError``      settings that cannot be used; the start ends with 78
    ``InstanceRefused``  the single-instance guard said no; 78, or 3 in gunicorn
    ``PeerError``        the remote's fault; each class knows its ``close``
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from relay_app.core.close_codes import Close


class RelayError(Exception):
    """Base of everything that the relay raises on purpose."""


class ConfigError(RelayError):
    """Settings that cannot be used: every fault at once, never a value.

    Args:
        faults: One line each, in the form ``NAME: what it accepts``.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        lines = [
            f"ERROR: {len(self.faults)} setting(s) cannot be used, nothing was started:"
        ]
        lines += [f"  {fault}" for fault in self.faults]
        return "\n".join(lines)


class InstanceRefused(RelayError):
    """The single-instance guard refused the start.

    Args:
        message: The guard's message of docs/operations.md, several lines.
        codes: The codes that refused, the first one first.
    """

    def __init__(self, message: str, codes: Sequence[str]) -> None:
        super().__init__(message)
        self.message = message
        self.codes = tuple(codes)

    def __str__(self) -> str:
        return self.message


class PeerError(RelayError):
    """A fault of the remote side; ends that one connection with ``close``."""

    close: ClassVar[Close]

    def __str__(self) -> str:
        return self.close.reason


class NoServer(PeerError):
    """No claim on the server-id that the phone named; closes 4404."""

    close = Close.NO_SERVER


class TooManyPhones(PeerError):
    """The server-id has its full number of phones; closes 4429."""

    close = Close.TOO_MANY_PHONES


class ProtocolError(PeerError):
    """Framing that RFC 6455 forbids; closes 1002."""

    close = Close.PROTOCOL_ERROR


class BadPayload(PeerError):
    """A message that is not UTF-8 or not one JSON value; closes 1007."""

    close = Close.BAD_PAYLOAD


class TooBig(PeerError):
    """A message over the limit, known before it was buffered; closes 1009."""

    close = Close.TOO_BIG


class MalformedEnvelope(RelayError):
    """A binary's message that is no routing envelope: logged and dropped.

    Not a ``PeerError``: the binary's connection stays up.

    Args:
        fault: From a fixed set of words, never a part of the message.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return f"malformed routing envelope: {self.fault}"
