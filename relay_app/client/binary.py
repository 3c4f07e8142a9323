"""A binary for the command line: holds a server-id and answers its phones.

What it does with a frame is its ``Answers``: nothing, an echo, or a child process
per phone (``children``). A lost connection takes all phones with it: the relay
closes them when the binary claims its id anew, and tells the new connection nothing
of them. So ``Answers.forget_all`` is called at the end of each connection.

Source: docs/protocol.md "Routing envelope", "How real peers behave".
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from relay_app.client import wire
from relay_app.client.backoff import MAX_CONFLICTS, BackOff
from relay_app.core import close_codes, envelope, json_text

PATH: Final = "/v1/server"

PING_INTERVAL_S: Final = 30.0

MAX_MESSAGE_BYTES: Final = 1 << 20
"""A real binary reads no longer message."""

STOP_S: Final = 10.0

_CONN_ID: Final = re.compile(r'(?:(?!["\\])[\x21-\x7e])+')
"""Visible ASCII without quote and backslash: it is spliced into answers as it is."""

Send = Callable[[bytes], None]
"""Sends one envelope. Safe from any thread; does nothing once the connection is over."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One envelope from the relay: a phone's frame, or the notice that it is gone.

    ``frame`` is ``None`` in a notice; ``close_code`` is 0 with a frame.
    """

    conn_id: str
    frame: bytes | None
    close_code: int

    @property
    def short_id(self) -> str:
        """The part of the conn_id that tells the phones of one server-id apart."""
        return short_id(self.conn_id)


def short_id(conn_id: str) -> str:
    """Shorten a conn_id to its random part."""
    return conn_id[-8:]


def read_envelope(message: bytes) -> Incoming:
    """Read what the relay sends to a binary.

    Shape: ``{"conn_id":"…","frame":<any JSON value>}`` or
    ``{"conn_id":"…","close_code":<int>}``; a frame may be ``null`` here.

    Raises:
        json_text.NotJson: It has neither form, or a conn_id that no envelope can
            carry back.
    """
    json_text.check_utf8(message)
    found = json_text.members(message, json_text.MAX_DEPTH + 1)
    conn_id = json.loads(found.get("conn_id", b"null"))
    code = found.get("close_code", b"0")
    frame = found.get("frame")
    if not isinstance(conn_id, str) or not _CONN_ID.fullmatch(conn_id):
        raise json_text.NotJson("not a routing envelope")
    if not code.isdigit() or (frame is None and code == b"0"):
        raise json_text.NotJson("not a routing envelope")
    return Incoming(conn_id, frame, int(code) if frame is None else 0)


class Answers(Protocol):
    """What a binary does for its phones. Called from the receiving thread."""

    def take(self, incoming: Incoming, send: Send) -> None:
        """Take one frame of a phone."""

    def forget(self, conn_id: str) -> None:
        """Take note that a phone is gone."""

    def forget_all(self) -> None:
        """Take note that the connection, and every phone with it, is gone."""


class Silence:
    """Answers nothing."""

    def take(self, incoming: Incoming, send: Send) -> None:
        """See ``Answers``."""

    def forget(self, conn_id: str) -> None:
        """See ``Answers``."""

    def forget_all(self) -> None:
        """See ``Answers``."""


class Echo(Silence):
    """Sends each frame back to its phone."""

    def take(self, incoming: Incoming, send: Send) -> None:
        """See ``Answers``."""
        send(envelope.encode(incoming.conn_id, incoming.frame))


class Binary:
    """A binary that dials, and dials again, until it is stopped or gives up.

    Args:
        address: From ``wire.endpoint``.
        server_id: What to claim.
        version: Goes into two header fields.
        answers: What to do with frames.
        back_off: The waits between two dials.
        out: Takes a line for each frame, and for each phone that went.
        say: Takes messages for the person.
        show_frames: Whether frames are given to ``out`` at all.
    """

    def __init__(
        self,
        address: str,
        server_id: str,
        *,
        version: str,
        answers: Answers,
        back_off: BackOff,
        out: Callable[[bytes], None],
        say: Callable[[str], None],
        show_frames: bool = True,
    ) -> None:
        self._address = address
        self._headers = {"x-pyrycode-server": server_id, "x-pyrycode-version": version}
        self._version = version
        self._answers = answers
        self._back_off = back_off
        self._out = out
        self._say = say
        self._show_frames = show_frames
        self._link: ClientConnection | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Hold the server-id until stopped.

        Returns: 0 when stopped; 1 when the relay refuses for good, or another
        binary held the id ``MAX_CONFLICTS`` times in a row.
        """
        while True:
            retry_after_s = 0.0
            try:
                text = self._one_connection()
            except wire.DialFailed as fault:
                if not fault.transient:
                    self._say(fault.text)
                    return 1
                self._back_off.failed()
                text, retry_after_s = fault.text, fault.retry_after_s
            if self._stopping.is_set():
                return 0
            if self._back_off.gave_up:
                self._say(
                    f"gave up: {MAX_CONFLICTS} times in a row another live binary held this "
                    "server-id; stop that one, or take another --server-id"
                )
                return 1
            wait_s = self._back_off.next_s(retry_after_s)
            self._say(f"{text}; next try in {wait_s:.1f} s")
            if self._stopping.wait(wait_s):
                return 0

    def stop(self) -> float:
        """Close the connection from another thread; see ``Session.stop``."""
        self._stopping.set()
        link = self._link
        if link is None:
            return 0.0
        link.close()
        return STOP_S

    def _one_connection(self) -> str:
        with wire.dial(
            self._address,
            self._headers,
            version=self._version,
            ping_interval_s=PING_INTERVAL_S,
            max_message_bytes=MAX_MESSAGE_BYTES,
        ) as link:
            opened_at = monotonic()
            self._link = link
            if self._stopping.is_set():  # it may have come just before the line above
                link.close()
            self._say("connected; phones with the same server-id can dial now")
            try:
                received = self._receive_all(link)
            finally:
                self._answers.forget_all()
                self._link = None
        code, text = wire.ending(link)
        self._back_off.ended(code, monotonic() - opened_at, received)
        return text

    def _receive_all(self, link: ClientConnection) -> bool:
        def send(message: bytes) -> None:
            with contextlib.suppress(ConnectionClosed):
                link.send(message.decode())

        received = False
        try:
            while True:
                message = link.recv()
                received = True
                self._take(
                    message.encode() if isinstance(message, str) else message, send
                )
        except ConnectionClosed:
            return received

    def _take(self, message: bytes, send: Send) -> None:
        try:
            incoming = read_envelope(message)
        except json_text.NotJson as fault:
            self._say(f"ignored a message of the relay: {fault}")
            return
        label = incoming.short_id.encode()
        if incoming.frame is None:
            code = incoming.close_code
            self._out(
                b"%s gone, %d: %s" % (label, code, close_codes.meaning(code).encode())
            )
            self._answers.forget(incoming.conn_id)
            return
        if self._show_frames:
            self._out(b"%s %s" % (label, incoming.frame))
        self._answers.take(incoming, send)
