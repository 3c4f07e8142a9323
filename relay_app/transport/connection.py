"""One WebSocket connection: reader, outbox, flush, timers, one way to end.

States, and what causes each move:

    OPEN ──close(), or the peer's close──▶ CLOSING ──both closes seen──▶ CLOSED
      │                                       │  └─deadline, or cut──────▶ CLOSED
      └──end of stream, or a write failed─────┴──────────────────────────▶ CLOSED

* OPEN: messages go to ``on_message``.
* CLOSING: our close frame is queued or sent. Messages are swallowed until the
  peer's close. After a fault in the peer's framing nothing it sends can be
  parsed any more, so ``_parser`` is ``None``, our side is shut down behind the
  close frame, and at most ``MAX_SWALLOWED_BYTES`` are read away, so that the code
  is not lost to a reset.
* CLOSED: the descriptor is closed. ``on_end`` ran when OPEN was left, ``on_gone``
  runs here; each exactly once.

The reader is the connection's one greenlet. It waits in the event loop behind one
persistent watcher and goes back to the loop before *every* receive, so that one
peer who floods cannot keep the others waiting. Nothing that it calls may wait:
the watcher would switch into a greenlet that waits for something else.

Sending never switches either. ``send`` puts a frame into the outbox, and once per
turn of the loop ``Pool.flush`` makes one non-blocking write per connection that
has something to write. What the kernel does not take waits behind a write watcher.

One owner per descriptor: the watchers are closed before it is, always here.

Source: docs/architecture.md "The transport".
"""

from __future__ import annotations

import enum
import socket
from _socket import socket as PlainSocket
from collections.abc import Callable
from random import random
from time import monotonic
from typing import Any

import gevent
from gevent import getcurrent
from gevent.hub import get_hub

from relay_app import log
from relay_app.core import heartbeat
from relay_app.core.close_codes import GOING_AWAY, Close
from relay_app.core.config import Config
from relay_app.core.errors import PeerError
from relay_app.core.heartbeat import Beat
from relay_app.core.outbox import Budget, Outbox
from relay_app.transport.websocket import (
    MESSAGES_PER_FEED,
    PING_FRAME,
    FrameParser,
    close_frame,
    pong_frame,
)

RECEIVE_BYTES = 131072
"""Most bytes per receive: many small frames at once, a large one in one piece, and a
bound on what one peer can make the loop do before others have their turn."""

# Shared by all readers: what they need is copied out before anybody else has a turn.
# A buffer per receive would be allocated at full size even where 200 bytes come.
_BUFFER = memoryview(bytearray(RECEIVE_BYTES))

BUSY_READERS = 32
"""Readers that received in one turn of the loop, from which on each of them gets less:
``BUSY_RECEIVE_BYTES`` and ``BUSY_MESSAGES``. However many flood, a turn stays short, and
whoever connects, or asks for the relay's health, is served between two of them."""

BUSY_RECEIVE_BYTES = 16384
BUSY_MESSAGES = 64

_SMALL_BUFFER = _BUFFER[:BUSY_RECEIVE_BYTES]

SHARE_BYTES = 32768
"""What one feeder may queue in an outbox before what was there before it is written.
Who floods has at most two such shares, and what one receive brings, in the queue, so
that the others wait behind that and not behind half an outbox."""

UNFINISHED_BYTES = 64 << 20
"""What all messages that are not complete may hold together, in any relay; the oldest
goes past it. A relay with a high limit per message gets ``UNFINISHED_MESSAGES`` of them."""

UNFINISHED_MESSAGES = 16

MAX_CONTROLS = 1024
"""Control frames of one peer that are handled within ``CONTROLS_S``. A real peer sends
one in twenty seconds."""

CONTROLS_S = 1.0

MAX_SWALLOWED_BYTES = 1 << 20
"""What is read away after a close for the sake of the close code."""

NEVER = float("inf")


class State(enum.Enum):
    """See the module's docstring."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


# The frame path asks often, and on Python 3.11 naming a member costs 70 ns.
_OPEN, _CLOSING, _CLOSED = State


class Pool:
    """What the connections of one relay share: settings, budget, the flush list.

    Args:
        config: Spans, bounds and limits.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.budget = Budget(config.outbox_total_bytes, self._relieve)
        self.connections: set[Connection] = set()
        self.unfinished_bytes = 0
        self._unfinished_limit = max(
            UNFINISHED_BYTES, UNFINISHED_MESSAGES * config.max_binary_frame_bytes
        )
        # Set once per turn, read by every reader.
        self.buffer = _BUFFER
        self.allowance = MESSAGES_PER_FEED
        self.readers = 0
        self._dirty: list[Connection] = []
        self._loop = get_hub().loop
        self._again: list[Connection] = []
        self._next_turn = self._loop.timer(0)

    def begin_turn(self) -> None:
        """Let ``_end_turn`` see how many readers received in this turn of the loop."""
        self._loop.run_callback(self._end_turn)

    def _end_turn(self) -> None:
        busy = self.readers > BUSY_READERS
        self.readers = 0
        self.buffer = _SMALL_BUFFER if busy else _BUFFER
        self.allowance = BUSY_MESSAGES if busy else MESSAGES_PER_FEED

    def go_on_next_turn(self, connection: Connection) -> None:
        """Wake a reader that has more to parse, after everybody else had a turn.

        A callback would run in this same pass of the loop, before it looks at any
        other socket; a timer of no time runs in the next one.
        """
        again = self._again
        if not again:
            self._next_turn.start(self._go_on)
        again.append(connection)

    def _go_on(self) -> None:
        again, self._again = self._again, []
        for connection in again:
            connection._wake_again()

    def keep_unfinished(self, more_bytes: int) -> None:
        """Take note of what unfinished messages hold; end the oldest past the limit."""
        self.unfinished_bytes += more_bytes
        while self.unfinished_bytes > self._unfinished_limit:
            holding = [c for c in self.connections if c.unfinished_bytes]
            min(holding, key=lambda c: c.message_since or 0.0).give_up_message()

    def mark_dirty(self, connection: Connection) -> None:
        """Let ``flush`` write for this connection at the end of the loop's turn."""
        dirty = self._dirty
        if not dirty:
            self._loop.run_callback(self.flush)
        dirty.append(connection)

    def flush(self) -> None:
        """Write for every connection that something was queued for."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            try:
                connection.flush()
            except Exception as exc:
                # One connection must not keep the rest of the list from its write.
                log.error("flush", exc)
                connection.cut()

    def run_soon(self, callback: Callable[..., Any]) -> None:
        """Call back before the loop looks at its sockets again."""
        self._loop.run_callback(callback)

    def _relieve(self) -> None:
        """Close the connection with the largest backlog until the budget holds."""
        while self.budget.used_bytes > self.budget.limit_bytes:
            largest = max(self.connections, key=lambda c: c.outbox.queued_bytes)
            if largest.is_open:
                largest.cut_backlog()
            else:
                largest.cut()


class Connection:
    """One peer after the upgrade. Subclasses say what a message means.

    Args:
        sock: A connected, non-blocking socket of the interpreter's own class, not
            gevent's; owned from here on.
        pool: What it shares with the others.
        limit_bytes: Payload of one message.
        strict_outbox: See ``Outbox``.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_close_sent",
        "_controls",
        "_controls_since",
        "_dirty",
        "_fed_rest",
        "_greenlet",
        "_held",
        "_held_by",
        "_held_since",
        "_loop_read",
        "_loop_write",
        "_parser",
        "_peer_closed",
        "_ping_at",
        "_receive",
        "_send",
        "_share_left",
        "_share_mark",
        "_sock",
        "_stalled_since",
        "_state",
        "_swallowed_bytes",
        "_waiting_since",
        "bytes_in",
        "bytes_out",
        "close_code",
        "close_ends_at",
        "close_reason",
        "due_at",
        "feeds",
        "frames_in",
        "frames_out",
        "heard_at",
        "message_since",
        "opened_at",
        "outbox",
        "pool",
        "unfinished_bytes",
    )

    def __init__(
        self, sock: PlainSocket, pool: Pool, limit_bytes: int, *, strict_outbox: bool
    ) -> None:
        now = monotonic()
        config = pool.config
        self.pool = pool
        # Nothing is dropped to a connection whose feeders pause, so whatever the
        # setting says, two messages have to fit under its high mark.
        bound_bytes = config.outbox_max_bytes
        if not strict_outbox:
            bound_bytes = max(bound_bytes, 4 * limit_bytes)
        self.outbox = Outbox(bound_bytes, strict=strict_outbox, budget=pool.budget)
        self.opened_at = now
        self.heard_at = now
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0
        self.close_code = 0
        self.close_reason = ""
        self.close_ends_at = NEVER
        # The connection whose outbox this one's messages go to, for back-pressure.
        self.feeds: Connection | None = None
        self._sock = sock
        self._receive = sock.recv_into
        self._send = sock.send
        loop = get_hub().loop
        self._loop_read = loop.io(sock.fileno(), 1)
        self._loop_write: Any = None
        self._greenlet: Any = None
        self._parser: FrameParser | None = FrameParser(limit_bytes, self)
        self._state = _OPEN
        # Owned by the reader.
        self.unfinished_bytes = 0
        self._fed_rest = False
        self._again = False
        self.message_since: float | None = None
        self._swallowed_bytes = 0
        self._controls = 0
        self._controls_since = now
        self._share_left = SHARE_BYTES
        self._share_mark = 0
        # Owned by whoever feeds this connection, and by its flush.
        self._held: list[Connection] | None = None
        self._held_by: Connection | None = None
        self._held_since = 0.0
        self._dirty = False
        self._stalled_since: float | None = None
        # Owned by the sweeper and by close().
        self._ping_at = heartbeat.next_ping_at(
            now, config.heartbeat_interval_s, random()
        )
        self._waiting_since: float | None = None
        self._close_sent = False
        self._peer_closed = False
        self.due_at = self._ping_at
        pool.connections.add(self)

    # -- what subclasses say ------------------------------------------------

    def on_message(self, payload: bytes) -> bool:
        """Take one TEXT message. True stops the reader until its feed is clear."""
        raise NotImplementedError

    def on_binary(self, payload: bytes) -> bool:
        """Take one BINARY message: what it means is the same."""
        return self.on_message(payload)

    def on_alive(self) -> None:
        """Take note of a pong."""

    def on_end(self, code: int) -> None:
        """Leave the registry: the connection is no longer open.

        Args:
            code: What the peer said, 1005 for nothing; 1001 for an abrupt end;
                our own code where the relay closed.
        """

    def on_gone(self) -> None:
        """Give back what was held for the socket: it is closed."""

    # -- reading ------------------------------------------------------------

    def start(self, early: bytes) -> None:
        """Start reading, in a greenlet of the connection's own.

        Args:
            early: Bytes that came in one segment with the request head.
        """
        self._greenlet = gevent.spawn_raw(self._read, early)

    @property
    def is_open(self) -> bool:
        """Whether messages still go through."""
        return self._state is _OPEN

    @property
    def is_gone(self) -> bool:
        """Whether the descriptor is closed."""
        return self._state is _CLOSED

    def _read(self, early: bytes) -> None:
        """Run the reader until the descriptor is closed."""
        if self.is_gone:
            return
        wait = get_hub().switch
        self._loop_read.start(getcurrent().switch)
        if early:
            self._feed_early(early)
            del early
        receive = self._receive
        pool = self.pool
        while self._state is not _CLOSED:
            wait()
            if self._state is _CLOSED:
                return
            feeds = self.feeds
            if feeds is not None and self._has_to_wait(feeds):
                feeds.hold(self)
                continue
            if not pool.readers:
                pool.begin_turn()
            pool.readers += 1
            if self._fed_rest:
                self._feed(b"")
                continue
            buffer = pool.buffer
            try:
                size = receive(buffer)
            except BlockingIOError:
                continue
            except OSError:
                size = 0
            if not size:
                self._vanish()
                return
            self.heard_at = monotonic()
            self.bytes_in += size
            self._feed(buffer[:size].tobytes())

    def _has_to_wait(self, feeds: Connection) -> bool:
        """Tell whether what this one feeds has enough, of everybody or of this one."""
        if self._state is not _OPEN:
            return False
        return feeds.is_choked or (self._share_left <= 0 and not self._new_share(feeds))

    def _new_share(self, feeds: Connection) -> bool:
        """Take another share of the outbox, if what was before the last one is written."""
        outbox = feeds.outbox
        if outbox.written_bytes < self._share_mark:
            return False
        self._share_mark = outbox.written_bytes + outbox.queued_bytes
        self._share_left = SHARE_BYTES
        return True

    def _feed_early(self, data: bytes) -> None:
        feeds, parser = self.feeds, self._parser
        if feeds is not None and feeds.is_choked and parser is not None:
            parser.keep(data)
            self._fed_rest = True
            feeds.hold(self)
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self._swallowed_bytes += len(data)
            if self._swallowed_bytes > MAX_SWALLOWED_BYTES:
                self.cut()
            return
        self._fed_rest = False
        feeds = self.feeds
        before = feeds.outbox.queued_bytes if feeds is not None else 0
        try:
            stopped = self._fed_rest = parser.feed(data, self.pool.allowance)
        except PeerError as fault:
            self._parser = None
            self._nothing_unfinished()
            self.close(fault.close)
            return
        except Exception as exc:
            log.error("message handler", exc)
            self._parser = None
            self._nothing_unfinished()
            self.close(Close.INTERNAL_ERROR)
            return
        if feeds is not None:
            self._share_left -= feeds.outbox.queued_bytes - before
        if stopped and not self._again:
            self._again = True
            self.pool.go_on_next_turn(self)
        if parser.is_amid_message:
            # A message that began in this receive has its own time.
            if self.message_since is None or parser.messages != self.frames_in:
                # Not heard_at: what was held was received long before it is parsed.
                self.message_since = now = monotonic()
                deadline = now + self.pool.config.message_timeout_s
                self.due_at = min(self.due_at, deadline)
            before = self.unfinished_bytes
            self.unfinished_bytes = held = parser.unfinished_bytes
            self.pool.keep_unfinished(held - before)
        else:
            self.message_since = None
            if self.unfinished_bytes:
                self._nothing_unfinished()
        self.frames_in = parser.messages

    def _nothing_unfinished(self) -> None:
        self.pool.unfinished_bytes -= self.unfinished_bytes
        self.unfinished_bytes = 0

    def give_up_message(self) -> None:
        """End the connection amid a message, before its time: there are too many."""
        self.close(Close.MESSAGE_TIMEOUT, drop=True)
        self._parser = None
        self._nothing_unfinished()

    def _wake_again(self) -> None:
        self._again = False
        self._wake()

    def _wake(self) -> None:
        """Let the reader look again, from the loop."""
        if self._greenlet is not None:
            self._greenlet.switch()

    def on_ping(self, payload: bytes) -> None:
        """Answer a ping, unless the close is on its way."""
        self._count_control()
        if self._state is _OPEN:
            self.send(pong_frame(payload))

    def on_pong(self) -> None:
        """Pass the sign of life on to whoever waits for it."""
        self._count_control()
        self.on_alive()

    def _count_control(self) -> None:
        self._controls += 1
        if self._controls >= MAX_CONTROLS:
            now = monotonic()
            if now - self._controls_since < CONTROLS_S:
                self.close(Close.TOO_MANY_CONTROLS, drop=True)
            self._controls = 0
            self._controls_since = now

    def on_close(self, code: int) -> None:
        """Answer the peer's close, or take it as the answer to ours."""
        self._peer_closed = True
        if self._state is _OPEN:
            self._leave_open(code, "", drop=True, answer=close_frame(code, ""))
        elif self._close_sent:
            self._finish()

    # -- back-pressure ------------------------------------------------------

    @property
    def is_choked(self) -> bool:
        """Whether those who feed this connection have to wait."""
        return (
            self._state is _OPEN and self.outbox.queued_bytes > self.outbox.high_bytes
        )

    def hold(self, feeder: Connection) -> None:
        """Stop a feeder's reader until the outbox is at its low mark."""
        if feeder._held_by is self:
            return
        feeder._loop_read.stop()
        feeder._held_by = self
        feeder._held_since = monotonic()
        if self._held is None:
            self._held = []
        self._held.append(feeder)

    def _release_held(self) -> None:
        """Let all who wait go on: they feed nobody any more."""
        held, self._held = self._held, None
        for feeder in held or ():
            feeder._go_on()

    def _release_whose_turn_it_is(self, held: list[Connection]) -> None:
        """Let those go on who may queue more, at the low mark."""
        written = self.outbox.written_bytes
        ready = [
            feeder
            for feeder in held
            if feeder._share_left > 0 or feeder._share_mark <= written
        ]
        if len(ready) == len(held):
            self._held = None
        elif ready:
            self._held = [feeder for feeder in held if feeder not in ready]
        for feeder in ready:
            feeder._go_on()

    def _leave_hold(self) -> None:
        """Take this feeder off the list of the connection that holds it."""
        if self._held_by is not None and self._held_by._held is not None:
            self._held_by._held.remove(self)

    def _go_on(self) -> None:
        if self._held_by is None or self._state is _CLOSED:
            return
        self._held_by = None
        # Nothing was read, so nothing can be said of the peer's silence.
        now = monotonic()
        self._waiting_since = None
        if self.message_since is not None:
            self.message_since += now - self._held_since
        self._loop_read.start(self._greenlet.switch)
        if self._fed_rest and not self._again:
            self._again = True
            self.pool.go_on_next_turn(self)

    # -- writing ------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queue a whole frame. Never waits, never switches.

        A frame for a connection that is no longer open is dropped. One that the
        bound does not allow ends the connection.
        """
        if self._state is not _OPEN:
            return
        if not self.outbox.offer(frame):
            self.cut_backlog()
        elif not self._dirty:
            self._dirty = True
            self.pool.mark_dirty(self)

    def cut_backlog(self) -> None:
        """End the connection because too much waits for it."""
        self.close(Close.WRITE_TIMEOUT, drop=True)

    def flush(self) -> None:
        """Write what is queued, as far as the kernel takes it."""
        self._dirty = False
        if self._stalled_since is None and self._state is not _CLOSED:
            self._write()

    def _write(self) -> None:
        outbox = self.outbox
        send = self._send
        while batch := outbox.take():
            try:
                size = send(batch)
            except BlockingIOError:
                self._stall()
                break
            except OSError:
                self._vanish()
                return
            self.bytes_out += size
            self.frames_out += outbox.wrote(size)
            if self._stalled_since is not None:
                self._stalled_since = monotonic()
            if size < len(batch):
                self._stall()
                break
        else:
            if self._stalled_since is not None:
                self._stalled_since = None
                self._loop_write.stop()
            if self._state is _CLOSING and not self._close_sent:
                self._close_is_sent()
        if self._held is not None and outbox.queued_bytes <= outbox.low_bytes:
            self._release_whose_turn_it_is(self._held)

    def _stall(self) -> None:
        """Wait until the kernel takes more."""
        if self._stalled_since is None:
            self._stalled_since = now = monotonic()
            self.due_at = min(self.due_at, now + self.pool.config.write_timeout_s)
            if self._loop_write is None:
                self._loop_write = get_hub().loop.io(self._sock.fileno(), 2)
            self._loop_write.start(self._write)

    # -- ending -------------------------------------------------------------

    def close(self, close: Close, *, drop: bool = False) -> None:
        """Close the connection for a cause of the relay's own.

        The first close wins; a later one changes nothing.

        Args:
            close: Code and reason.
            drop: Forget what waits. Without it the close frame travels behind.
        """
        self.close_with(close.code, close.reason, drop=drop)

    def close_with(self, code: int, reason: str, *, drop: bool = False) -> None:
        """Close the connection with any code that may stand on the wire."""
        if self._state is _OPEN:
            self._leave_open(code, reason, drop=drop, answer=close_frame(code, reason))

    def _leave_open(self, code: int, reason: str, *, drop: bool, answer: bytes) -> None:
        self._state = _CLOSING
        self.close_code = code
        self.close_reason = reason
        dropped = self.outbox.drop() if drop else 0
        self.outbox.force(answer)
        if drop:
            self._limit_close()
        if not self._dirty:
            self._dirty = True
            self.pool.mark_dirty(self)
        if self._parser is not None:
            self._parser.handler = _Swallow(self)
        self._leave_hold()
        self._go_on()
        self._release_held()
        self._run_hook("end of a connection", self._ended, code, dropped)

    def _ended(self, code: int, dropped: int) -> None:
        if dropped:
            self.on_dropped(dropped)
        self.on_end(code)

    def on_dropped(self, frames: int) -> None:
        """Take note that frames of the outbox will not be written."""

    def _limit_close(self) -> None:
        self.close_ends_at = monotonic() + self.pool.config.close_timeout_s
        self.due_at = min(self.due_at, self.close_ends_at)

    def _close_is_sent(self) -> None:
        self._close_sent = True
        if self._peer_closed:
            self._finish()
            return
        self._limit_close()
        if self._parser is None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._finish()

    def _vanish(self) -> None:
        """End because the stream did."""
        if self._state is _OPEN:
            self._state = _CLOSING
            self.close_code = GOING_AWAY
            self.close_reason = "connection lost"
            self._run_hook(
                "end of a connection", self._ended, GOING_AWAY, self.outbox.drop()
            )
        self._finish()

    def cut(self) -> None:
        """Close the descriptor now, whatever is still to be said."""
        self._vanish()

    def _finish(self) -> None:
        if self._state is _CLOSED:
            return
        self._state = _CLOSED
        self._loop_read.stop()
        self._loop_read.close()
        if self._loop_write is not None:
            self._loop_write.stop()
            self._loop_write.close()
        self._sock.close()
        self.outbox.clear()
        self._leave_hold()
        self._held_by = None
        self._release_held()
        self.feeds = None
        self._parser = None
        self._nothing_unfinished()
        self.pool.connections.discard(self)
        if self._greenlet is not None and self._greenlet is not getcurrent():
            self.pool.run_soon(self._wake)
        self._run_hook("end of a socket", self.on_gone)

    def _run_hook(self, where: str, hook: Callable[..., None], *args: Any) -> None:
        """Call a subclass; a bug in it must not keep the connection from ending."""
        try:
            hook(*args)
        except Exception as exc:
            log.error(where, exc)

    # -- time ---------------------------------------------------------------

    def check(self, now: float) -> None:
        """Do what time asks for. Called by the sweeper once ``due_at`` has come."""
        config = self.pool.config
        if (
            self._stalled_since is not None
            and now >= self._stalled_since + config.write_timeout_s
        ):
            if self._state is _OPEN:
                self.close(Close.WRITE_TIMEOUT, drop=True)
            elif self.close_ends_at == NEVER:
                self.cut()  # the close frame waits behind a backlog that does not move
                return
        if now >= self.close_ends_at:
            self.cut()
            return
        if self._state is _OPEN and self._held_by is None:
            self._check_reader(now, config)
        self.due_at = self._next_due(config)

    def _check_reader(self, now: float, config: Config) -> None:
        if self.message_since is not None and now >= (
            self.message_since + config.message_timeout_s
        ):
            self.close(Close.MESSAGE_TIMEOUT, drop=True)
            return
        waiting = heartbeat.still_waiting(self.heard_at, self._waiting_since)
        beat = heartbeat.beat(now, self._ping_at, waiting, config.heartbeat_timeout_s)
        if beat is Beat.GIVE_UP:
            self.on_silence()
            self.close(Close.HEARTBEAT_TIMEOUT, drop=True)
        elif beat is Beat.PING:
            self._ping_at = heartbeat.next_ping_at(
                now, config.heartbeat_interval_s, random()
            )
            waiting = now if waiting is None else waiting
            self.send(PING_FRAME)
        self._waiting_since = waiting

    def on_silence(self) -> None:
        """Take note that the peer was silent past the pong wait."""

    def _next_due(self, config: Config) -> float:
        due = self.close_ends_at
        if self._stalled_since is not None and due == NEVER:
            due = min(due, self._stalled_since + config.write_timeout_s)
        if self._state is _OPEN:
            due = min(
                due,
                heartbeat.look_again_at(
                    self._ping_at, self._waiting_since, config.heartbeat_timeout_s
                ),
            )
            if self.message_since is not None:
                due = min(due, self.message_since + config.message_timeout_s)
        return due


class _Swallow:
    """What the parser talks to once the close is on its way."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_message(self, payload: bytes) -> bool:
        return False

    def on_binary(self, payload: bytes) -> bool:
        return False

    def on_ping(self, payload: bytes) -> None:
        pass

    def on_pong(self) -> None:
        pass

    def on_close(self, code: int) -> None:
        self._connection.on_close(code)
