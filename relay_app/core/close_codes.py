"""The close codes that the relay sends, each with its one reason text.

A phone decides by the code whether it may dial again, so a code is part of the
wire contract and a reason is for people who read a packet dump: fixed words,
never an id, a limit or anything that a peer sent.
"""

from __future__ import annotations

import enum


class Close(enum.Enum):
    """A close that the relay sends: its code and its reason text.

    Members name the cause, and several causes share a code.

    Source: RFC 6455 §7.4.1; docs/protocol.md "Close codes".
    """

    NORMAL = (1000, "")
    SHUTTING_DOWN = (1001, "shutting down")
    PROTOCOL_ERROR = (1002, "protocol error")
    BAD_PAYLOAD = (1007, "invalid payload")
    MESSAGE_TIMEOUT = (1008, "message timeout")
    TOO_MANY_CONTROLS = (1008, "too many control frames")
    TOO_BIG = (1009, "message too big")
    HEARTBEAT_TIMEOUT = (1011, "heartbeat timeout")
    PHONE_BACKLOG_FULL = (1011, "phone backlog full")
    WRITE_TIMEOUT = (1011, "write timeout")
    INTERNAL_ERROR = (1011, "internal error")
    NO_SERVER = (4404, "no server with that id")
    BINARY_RECLAIMED = (4404, "binary reclaimed server-id")
    SERVER_ID_CLAIMED = (4409, "server-id already claimed")
    TOO_MANY_PHONES = (4429, "too many phones for server-id")

    @property
    def code(self) -> int:
        """The status code as it stands in the close frame."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The reason text as it stands in the close frame; at most 123 bytes."""
        return self.value[1]


NO_STATUS = 1005
"""What a close frame without a body means (RFC 6455 §7.1.5); never on the wire."""

GOING_AWAY = 1001
"""What the binary is told of a phone that went without a close frame."""

_FINAL = "the binary ended this session for good: a phone stops until its user acts"

_MEANINGS = {
    1000: "an ordinary end",
    1001: "the other side is going away (a relay that is shutting down says so in the reason)",
    1002: "the WebSocket protocol was broken",
    1003: "the other side does not take this kind of data",
    1005: "the other side closed without giving a code",
    1006: "the connection was cut without a close frame",
    1007: "a message was not valid UTF-8 or not one JSON value",
    1008: "a message was not finished in time, or control frames came too fast",
    1009: "a message was over the size limit",
    1011: "the relay gave this connection up (the reason says why)",
    4401: _FINAL,
    4404: "no binary holds that server-id just now; trying again is right",
    4408: "the binary ended this session; a phone dials again after its back-off",
    4409: "another live binary holds that server-id",
    4412: _FINAL,
    4421: _FINAL,
    4426: _FINAL,
    4429: "as many phones as the relay allows are on that server-id already",
}


def meaning(code: int) -> str:
    """Say in words what a close code means to a person at either end."""
    known = _MEANINGS.get(code)
    if known is not None:
        return known
    if 4000 <= code <= 4999:
        return "a code of the binary's own"
    return "a code that is not in use here"


def may_stand_on_the_wire(code: int) -> bool:
    """Tell whether a close frame may carry ``code``.

    1012 to 1014 came after the RFC and are registered with IANA, so they pass.

    Source: RFC 6455 §7.4; docs/protocol.md "Close codes".
    """
    if 1000 <= code <= 1014:
        return code not in (1004, 1005, 1006)
    return 3000 <= code <= 4999


def directive_code(code: int) -> int:
    """Turn the code of a binary's close directive into the one for the wire.

    Args:
        code: 1 to 65535, as the envelope had it.

    Returns: ``code`` itself where a close frame may carry it, else 1000.

    Source: docs/protocol.md "Close codes".
    """
    return code if may_stand_on_the_wire(code) else Close.NORMAL.code
