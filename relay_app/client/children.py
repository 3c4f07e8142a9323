"""A child process per phone: its frames in, a line each; its lines out, a frame each.

A child starts with its phone's first frame, since nothing announces a phone. Two
threads serve it, so that a slow one holds up neither the connection nor other
phones: one writes its queue to the child's input, one reads the child's output.

How a child ends:

* its phone is gone, or the connection is: the input is closed; a child that does
  not take the hint gets SIGTERM, then SIGKILL, together with its own children;
* it exits first: a close directive with 1000, behind its last line;
* it does not read, and ``MAX_QUEUED_FRAMES`` wait: a close directive with 1011, and
  it is ended as above.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final

from relay_app.client.binary import Incoming, Send, short_id
from relay_app.client.wire import one_line
from relay_app.core import envelope, json_text
from relay_app.core.close_codes import Close
from relay_app.core.config import Config

MAX_QUEUED_FRAMES: Final = 256
"""Frames that may wait for one child. Each is at most 1 MiB, in practice far less."""

MAX_LINE_BYTES: Final = Config().max_frame_bytes
"""A longer line of a child is dropped: by default a relay closes the whole binary for it."""

END_S: Final = 1.0
"""For a child to end by itself, and again after SIGTERM."""

MAX_REMEMBERED: Final = 1024
"""Phones whose session a child ended, and whose last frames may still be under way."""

_CLOSE_INPUT: Final = None


class Children:
    """The children of all phones; an ``Answers``.

    Args:
        command: Program and arguments; no shell.
        say: Takes messages for the person.
    """

    def __init__(self, command: Sequence[str], say: Callable[[str], None]) -> None:
        self._command = list(command)
        self._say = say
        self._children: dict[str, _Child] = {}
        # The relay sends no notice of a phone that we closed, so these fade by number.
        self._closed: collections.deque[str] = collections.deque(maxlen=MAX_REMEMBERED)

    def take(self, incoming: Incoming, send: Send) -> None:
        """Give a frame to the phone's child, which is started if need be."""
        conn_id = incoming.conn_id
        if conn_id in self._closed:
            return
        child = self._children.get(conn_id)
        if child is None:

            def close(code: int, why: str) -> None:
                self._closed.append(conn_id)
                self._children.pop(conn_id, None)
                self._say(
                    f"{short_id(conn_id)}: {why}; its phone is closed with {code}"
                )
                send(envelope.encode(conn_id, close_code=code))

            try:
                child = _Child(self._command, conn_id, send, close, self._say)
            except OSError as fault:
                close(
                    Close.INTERNAL_ERROR.code,
                    f"the child did not start: {fault.strerror}",
                )
                return
            self._children[conn_id] = child
            child.start()
        child.take(one_line(incoming.frame or b""))

    def forget(self, conn_id: str) -> None:
        """End the phone's child, without waiting for it."""
        child = self._children.pop(conn_id, None)
        if child is not None:
            child.hang_up()

    def forget_all(self) -> None:
        """End all children and wait until they are gone."""
        children = list(self._children.values())
        self._children.clear()
        self._closed.clear()
        for child in children:
            child.hang_up()
        for child in children:
            child.join()


class _Child:
    """One child and its threads.

    Args:
        close: Closes the phone with a code, and says why.

    Raises:
        OSError: It did not start.
    """

    def __init__(
        self,
        command: list[str],
        conn_id: str,
        send: Send,
        close: Callable[[int, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._conn_id = conn_id
        self._send = send
        self._close = close
        self._say = say
        self._queue: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED_FRAMES + 1)
        self._lock = threading.Lock()
        self._ending = False
        # A session of its own: a Ctrl-C is for us, and what the child starts ends with it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._ender = threading.Thread(target=self._end, daemon=True)

    def start(self) -> None:
        """Begin to pass lines on."""
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()

    def take(self, line: bytes) -> None:
        """Queue one line for the child's input."""
        if self._queue.qsize() < MAX_QUEUED_FRAMES:
            self._queue.put_nowait(line)
        elif self.hang_up():
            self._close(Close.INTERNAL_ERROR.code, "the child does not read its input")

    def hang_up(self) -> bool:
        """Close the input and see to it that the child ends.

        Returns: Whether this was the first call.
        """
        with self._lock:
            first, self._ending = not self._ending, True
        if first:
            self._queue.put_nowait(
                _CLOSE_INPUT
            )  # it has one place more than frames may take
            self._ender.start()
        return first

    def join(self) -> None:
        """Wait until the child is gone, after ``hang_up``."""
        self._ender.join()

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # it exited: the reader sees that too
            while (line := self._queue.get()) is not _CLOSE_INPUT:
                pipe.write(line + b"\n")
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            for line in _bounded_lines(pipe):
                if not self._ending:
                    self._answer(line)
        self._process.wait()
        if self.hang_up():
            self._close(Close.NORMAL.code, "the child ended")

    def _answer(self, line: bytes | None) -> None:
        fault = "too long"
        if line is not None:
            try:
                json_text.check(line)
            except json_text.NotJson as not_json:
                fault = str(not_json)
            else:
                if line != b"null":
                    self._send(envelope.encode(self._conn_id, line))
                    return
                fault = "null, which no envelope can carry to a phone"
        self._say(
            f"{short_id(self._conn_id)}: a line of the child was dropped: {fault}"
        )

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
                break
            # Its children too, which may hold the pipes; pid = group, see Popen above.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
        self._process.wait()


def _bounded_lines(pipe: IO[bytes]) -> Iterator[bytes | None]:
    """Give each line of a child, stripped; ``None`` for one that is too long."""
    while line := pipe.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line.strip()
            continue
        while line and not line.endswith(b"\n"):
            line = pipe.readline(MAX_LINE_BYTES)
        yield None
