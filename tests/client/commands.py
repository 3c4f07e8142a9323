"""Runs ``pyrycode-relay`` as people do: a process, its output as it comes, its exit code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from gevent.os import make_nonblocking, nb_read

from tests.waiting import wait_until

RELAY = [sys.executable, "-m", "relay_app"]

_FOREIGN = (
    "PYRYCODE_RELAY_",
    "PORT",
    "WEB_CONCURRENCY",
    "GUNICORN_",
    "NO_COLOR",
    "DYNO",
    "FLY_",
)


def environ(**variables: str) -> dict[str, str]:
    """The environment of this process, without anything that a relay would read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN)
    }
    return {**kept, **variables}


def port_of(listener: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = listener.getsockname()[1]
    return port


class Command:
    """One running command.

    Args:
        words: Behind ``pyrycode-relay``, or a whole command with ``program=False``.
        stdin: What ``Popen`` takes; a pipe to ``type`` into by default.
    """

    def __init__(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        program: bool = True,
        stdin: int | IO[Any] = subprocess.PIPE,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [*RELAY, *words] if program else list(words),
            env=environ(**(env or {})),
            stdin=stdin,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            **options,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, lines))
            for pipe, lines in (
                (self.process.stdout, self.out),
                (self.process.stderr, self.err),
            )
            if pipe is not None
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: IO[bytes], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                lines.append(line.decode().rstrip("\n"))

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end_input()
        self.process.wait()
        for reader in self._readers:
            reader.join()

    def type(self, *lines: str) -> None:
        """Write lines to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write("".join(line + "\n" for line in lines).encode())
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def said(self) -> str:
        """Everything that it wrote so far."""
        return "\n".join([*self.out, "-- stderr:", *self.err])

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; show what the command wrote if it does not come."""
        wait_until(condition, self.said)

    def until_said(self, text: str) -> None:
        """Wait until a line of either output has this text."""
        self.until(lambda: any(text in line for line in self.out + self.err))

    def wait(self) -> int:
        """Wait for the end, and for all output.

        Returns: The exit code.
        """
        self.until(lambda: self.process.poll() is not None)
        for reader in self._readers:
            reader.join()
        assert not any("Traceback" in line for line in self.err), self.said()
        code: int = self.process.returncode
        return code

    def signal(self, number: int) -> int:
        """Send a signal, then ``wait``."""
        self.process.send_signal(number)
        return self.wait()


def run(*words: str, given: Sequence[str] = (), **options: Any) -> Command:
    """Run a command to its end, with these lines as its whole input."""
    with Command(*words, **options) as command:
        if command.process.stdin is not None:
            command.type(*given)
            command.end_input()
        command.wait()
        return command


class Relay(Command):
    """A relay of its own process, on a socket that is bound here."""

    def __init__(self, port: int = 0, env: dict[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.port = port_of(listener)
            settings = {
                "PYRYCODE_RELAY_LISTEN": f"fd://{listener.fileno()}",
                "PYRYCODE_RELAY_ADMIN_LISTEN": "",
                "PYRYCODE_RELAY_RATE_PER_MINUTE": "0",
                "PYRYCODE_RELAY_DRAIN_S": "0",
                "PYRYCODE_RELAY_CLOSE_TIMEOUT_S": "1",
                "PYRYCODE_RELAY_GRACE_PERIOD_S": "0",
            }
            super().__init__(
                "serve",
                env={**settings, **(env or {})},
                stdin=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
            )
        self.url = f"ws://127.0.0.1:{self.port}"
        self.until_said("server.started")

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/healthz", timeout=20
        ) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def closed(self, leg: str) -> list[dict[str, Any]]:
        """The ``connection.closed`` lines of its log for one leg."""
        events = [json.loads(line) for line in self.err if line.startswith("{")]
        return [
            e for e in events if e["event"] == "connection.closed" and e["leg"] == leg
        ]

    def stop(self) -> None:
        """End it as a platform does."""
        assert self.signal(signal.SIGTERM) == 0, self.said()


@contextmanager
def binary(relay: Relay, *words: str, server_id: str = "s1") -> Iterator[Command]:
    """Run ``binary`` for the length of a block; it holds its id from the start."""
    with Command(
        "binary", "--server-id", server_id, "--url", relay.url, *words
    ) as command:
        command.until_said("connected")
        yield command
        assert command.process.poll() is not None or command.signal(signal.SIGTERM) == 0


def phone(relay: Relay, *words: str, given: Sequence[str] = ()) -> Command:
    """Run ``phone`` to its end."""
    return run("phone", "--server-id", "s1", "--url", relay.url, *words, given=given)


TLS_RECORD = b"\x16"
"""How a TLS client begins."""


class Terminal:
    """A terminal for a command; what is shown on it is read as it comes."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        make_nonblocking(self._ours)
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # how Linux says that the other end is closed
            while chunk := nb_read(self._ours, 4096):
                self.shown += chunk

    def leave(self) -> None:
        """Close the command's end in this process; the command has its own by now."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def wait(self) -> bytes:
        """Give everything that was shown, once the command has ended."""
        self._reader.join()
        return self.shown

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._ours, data)


class FakeRelay:
    """Answers each connection with the next bytes, the last ones again and again.

    ``None`` gives no answer and keeps the connection. In an answer ``{accept}`` becomes
    the Sec-WebSocket-Accept that the request asks for. After a 101 the close code that
    the other side sends is put into ``close_codes``.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = answers
        self.heads: list[bytes] = []
        self.close_codes: list[int] = []
        self._silent: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = port_of(self._listener)
        self.url = f"ws://127.0.0.1:{self.port}"
        self._server = threading.Thread(target=self._serve)
        self._server.start()

    def __enter__(self) -> FakeRelay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._server.join()
        self._listener.close()
        for connection in self._silent:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            answer = self._answers[min(len(self.heads), len(self._answers) - 1)]
            if answer is None:
                self.heads.append(b"")
                self._silent.append(connection)
                continue
            with connection:
                self._answer(connection, answer)

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        head = b""
        while b"\r\n\r\n" not in head and not head.startswith(TLS_RECORD):
            head += connection.recv(4096) or b"\r\n\r\n"
        self.heads.append(head)
        connection.sendall(answer.replace(b"{accept}", _accept(head)))
        if answer.startswith(b"HTTP/1.1 101"):
            with connection.makefile("rb") as stream:
                first, size, *mask = stream.read(6)
                payload = bytes(
                    x ^ y for x, y in zip(stream.read(size & 127), mask, strict=False)
                )
            assert first == 0x88, "the first frame of the other side was no close"
            self.close_codes.append(
                struct.unpack("!H", payload[:2])[0] if payload else 1005
            )
            connection.sendall(frame(8, payload))


def _accept(head: bytes) -> bytes:
    found = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
    if found is None:
        return b""
    return base64.b64encode(
        hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    )


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: {accept}\r\n\r\n"
)


def http(status: str, body: str, *fields: str) -> bytes:
    """A whole HTTP answer."""
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *fields,
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked WebSocket frame."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7f" + struct.pack("!Q", size)
    return bytes([0x80 | opcode]) + length + payload
