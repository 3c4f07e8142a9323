"""The whole thing in three seconds: a relay, a binary, two phones, and what each sees.

The relay is a process of its own, started on a free port of this machine and ended
with the demo. The binary and the phones are real connections to it, driven one step
after the other from here, so that the trace is in the order in which things happen.

Every message that arrives is compared with what it must be; the first difference
ends the demo.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import IO, Final

from rich.console import Console
from rich.text import Text
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from relay_app.client import binary, phone, wire
from relay_app.core import close_codes, envelope

PATIENCE_S: Final = 8.0
"""For the demo as a whole, the relay's start included."""

END_S: Final = 5.0
"""For the relay to end on SIGTERM."""

SERVER_ID: Final = "demo"

DIRECTIVE_CODE: Final = 4408

RELAY: Final = (sys.executable, "-m", "relay_app", "serve")

_KEPT: Final = {
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
}
_KEPT_PREFIXES: Final = ("LC_", "PYTHON", "COVERAGE_")

_TELLING: Final = ("leg", "close_code", "duration_s", "bytes_in", "bytes_out")
"""Fields of the relay's log that the last step shows."""


class DemoFailed(Exception):
    """A step did not go as it must; the text says which, and what happened."""


def relay_environ(environ: Mapping[str, str], descriptor: int) -> dict[str, str]:
    """Make the environment of the demo's relay.

    Only what a program needs to run is kept: settings and platform variables of
    the place where the demo is typed say nothing about this relay.

    Args:
        environ: Of this process.
        descriptor: The listening socket that the relay inherits.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return kept | {
        "PYRYCODE_RELAY_LISTEN": f"fd://{descriptor}",
        "PYRYCODE_RELAY_ADMIN_LISTEN": "",
        "PYRYCODE_RELAY_RATE_PER_MINUTE": "0",
        "PYRYCODE_RELAY_DRAIN_S": "0",
        "PYRYCODE_RELAY_LOG_FORMAT": "json",
    }


class _Relay:
    """The relay's process, and what it logs."""

    def __init__(self, command: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            # It listens already, so a request waits for the relay instead of failing.
            self.process = subprocess.Popen(
                command,
                env=relay_environ(os.environ, listener.fileno()),
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        assert self.process.stderr is not None
        self.log: list[str] = []
        self._reader = threading.Thread(
            target=self._read, args=(self.process.stderr,), daemon=True
        )
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            self.log += (line.decode("utf-8", "replace").rstrip() for line in pipe)

    def wait_ready(self, timeout_s: float) -> None:
        """Ask for ``/readyz`` and wait for its answer.

        Raises:
            DemoFailed: The relay does not say that it is ready.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=timeout_s
        )
        try:
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            raise DemoFailed("the relay did not start") from None
        finally:
            connection.close()
        if status != 200:
            raise DemoFailed(f"the relay is not ready: status {status}")

    def end(self, timeout_s: float) -> int:
        """Stop the relay and wait until it is gone.

        Args:
            timeout_s: For it to end by itself; then it is killed.

        Returns: Its exit code.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(timeout_s)
        return self.process.returncode


class Demo:
    """One run.

    Args:
        console: Where the trace goes.
        version: Of this package, for the header fields.
        command: What to start as the relay.
        patience_s: Seconds for everything up to the relay's end.
        end_s: Seconds for the relay to end; then it is killed.
    """

    def __init__(
        self,
        console: Console,
        version: str,
        command: Sequence[str] = RELAY,
        patience_s: float = PATIENCE_S,
        end_s: float = END_S,
    ) -> None:
        self._console = console
        self._version = version
        self._command = command
        self._end_s = end_s
        self._ends_at = monotonic() + patience_s
        self._steps = 0
        self._doing = "the relay's start"

    def run(self) -> int:
        """Play all steps.

        Returns: 0 when everything arrived as it must, 1 with a line that says what did not.
        """
        relay = _Relay(self._command)
        failed = ""
        try:
            relay.wait_ready(self._left_s())
            self._say(
                f"A relay runs at ws://127.0.0.1:{relay.port}, for this demo only."
            )
            self._play(relay.port)
        except DemoFailed as fault:
            failed = str(fault)
        except wire.DialFailed as fault:
            failed = fault.text
        except ConnectionClosed:
            failed = "the connection ended too early"
        except TimeoutError:
            failed = "nothing came in time"
        finally:
            code = relay.end(self._end_s)
        if not failed and code:
            self._doing, failed = "the relay's end", f"it exited with {code}"
        if failed:
            return self._fail(failed, relay.log)
        self._show_log(relay.log)
        self._conclude()
        return 0

    # The story.

    def _play(self, port: int) -> None:
        url = f"ws://127.0.0.1:{port}"
        with contextlib.ExitStack() as stack:
            self._step("A binary dials out and claims a server-id.")
            self._show(
                "binary",
                "relay",
                b"GET %s  x-pyrycode-server: %s" % (b"/v1/server", b"demo"),
            )
            pyry = stack.enter_context(self._dial_binary(url))

            conn_ids = {}
            phones = {}
            for name, data in (
                ("phone A", "aGVsbG8gZnJvbSBB"),
                ("phone B", "aGVsbG8gZnJvbSBC"),
            ):
                self._step(
                    f"{name[0].upper()}{name[1:]} names that server-id, says hello, gets an echo."
                )
                self._show(name, "relay", b"GET /v1/client  x-pyrycode-server: demo")
                phones[name] = stack.enter_context(self._dial_phone(url))
                frame = b'{"v":2,"type":"noise_init","data":"%s"}' % data.encode()
                conn_ids[name] = self._round_trip(name, phones[name], pyry, frame)
            if len(set(conn_ids.values())) != 2:
                raise DemoFailed("two phones have the same conn_id")

            self._step("The binary speaks without being asked, to phone A alone.")
            self._down(
                pyry,
                conn_ids["phone A"],
                "phone A",
                phones["phone A"],
                b'{"v":2,"n":1}',
            )

            self._step(
                "Phone A hangs up. The binary gets a close notice: code, no frame."
            )
            self._show("phone A", "relay", b"close 1000")
            phones["phone A"].close()
            notice = envelope.close_notice(
                conn_ids["phone A"], close_codes.Close.NORMAL.code
            )
            self._expect(pyry, notice)
            self._show("relay", "binary", notice)

            self._step(
                "The binary ends phone B's session: a last frame and a close directive."
            )
            self._direct(pyry, conn_ids["phone B"], phones["phone B"])
        self._doing = "the relay's end"

    def _round_trip(
        self, name: str, link: ClientConnection, pyry: ClientConnection, frame: bytes
    ) -> str:
        link.send(frame.decode())
        self._show(name, "relay", frame, frame)
        message = pyry.recv(self._left_s(), decode=False)
        incoming = binary.read_envelope(message)
        if message != envelope.encode(incoming.conn_id, frame):
            raise DemoFailed("the binary did not get the phone's frame byte for byte")
        self._show("relay", "binary", message, frame)
        self._down(pyry, incoming.conn_id, name, link, frame)
        return incoming.conn_id

    def _down(
        self,
        pyry: ClientConnection,
        conn_id: str,
        name: str,
        link: ClientConnection,
        frame: bytes,
    ) -> None:
        message = envelope.encode(conn_id, frame)
        pyry.send(message.decode())
        self._show("binary", "relay", message, frame)
        self._expect(link, frame)
        self._show("relay", name, frame, frame)

    def _direct(
        self, pyry: ClientConnection, conn_id: str, link: ClientConnection
    ) -> None:
        frame = b'{"v":2,"bye":true}'
        message = envelope.encode(conn_id, frame, DIRECTIVE_CODE)
        pyry.send(message.decode())
        self._show("binary", "relay", message, frame)
        self._expect(link, frame)
        self._show("relay", "phone B", frame, frame)
        try:
            link.recv(self._left_s())
        except ConnectionClosed:
            code, text = wire.ending(link)
        else:
            raise DemoFailed("a frame came behind the last one")
        if code != DIRECTIVE_CODE:
            raise DemoFailed(f"phone B was {text}")
        self._show("relay", "phone B", b"close %d" % code)

    # Its means.

    @contextlib.contextmanager
    def _dial_binary(self, url: str) -> Iterator[ClientConnection]:
        headers = {"x-pyrycode-server": SERVER_ID, "x-pyrycode-version": self._version}
        with self._dial(url, binary.PATH, headers, binary.PING_INTERVAL_S) as link:
            yield link

    @contextlib.contextmanager
    def _dial_phone(self, url: str) -> Iterator[ClientConnection]:
        headers = {"x-pyrycode-server": SERVER_ID, "x-pyrycode-token": "demo-token"}
        with self._dial(url, phone.PATH, headers, phone.PING_INTERVAL_S) as link:
            yield link

    @contextlib.contextmanager
    def _dial(
        self, url: str, path: str, headers: dict[str, str], ping_interval_s: float
    ) -> Iterator[ClientConnection]:
        with wire.dial(
            wire.endpoint(url, path),
            headers,
            version=self._version,
            ping_interval_s=ping_interval_s,
            max_message_bytes=binary.MAX_MESSAGE_BYTES,
            open_timeout_s=self._left_s(),
        ) as link:
            yield link

    def _left_s(self) -> float:
        return max(self._ends_at - monotonic(), 0.01)

    def _expect(self, link: ClientConnection, expected: bytes) -> None:
        if link.recv(self._left_s(), decode=False) != expected:
            raise DemoFailed("something else arrived than was sent")

    # What is seen of it.

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)

    def _step(self, text: str) -> None:
        self._steps += 1
        self._doing = f"step {self._steps}"
        self._say("")
        self._say(f"{self._steps}. {text}", "bold")

    def _show(
        self, source: str, target: str, message: bytes, frame: bytes = b""
    ) -> None:
        line = Text("   ")
        line.append(f"{source:<7}", "cyan").append(" -> ").append(
            f"{target:<7}", "cyan"
        )
        before, found, behind = message.decode().partition(frame.decode() or "\0")
        line.append("  ").append(before, "dim" if found else "yellow")
        line.append(found, "green").append(behind, "dim")
        self._console.print(line, soft_wrap=True)

    def _show_log(self, log: Sequence[str]) -> None:
        self._step(
            "What the relay knows of all this, from its own log: who, how much, never what."
        )
        for line in log:
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                if fields.get("event") == "connection.closed":
                    told = "  ".join(
                        f"{key}={fields[key]}" for key in _TELLING if key in fields
                    )
                    self._say(f"   {fields['event']}  {told}", "dim")

    def _conclude(self) -> None:
        self._say("")
        self._say(
            "Shown: two phones and a binary, which all dialled out, met at the relay. Each\n"
            "frame (green) arrived byte for byte; the relay added and removed nothing but the\n"
            "envelope with the phone's conn_id. It told the binary when a phone left, and\n"
            "closed a phone when the binary asked for it. The relay of this demo is stopped.\n"
            "To do the same by hand, type in three terminals:"
        )
        self._say("")
        self._say("   pyrycode-relay serve", "bold")
        self._say("   pyrycode-relay binary --server-id demo --echo", "bold")
        self._say("   pyrycode-relay phone --server-id demo", "bold")

    def _fail(self, text: str, log: Sequence[str]) -> int:
        self._say("")
        self._say(f"The demo failed at {self._doing}: {text}.", "bold")
        if log:
            self._say("The last lines of the relay:")
        for line in log[-5:]:
            self._say(f"   {line}", "dim")
        return 1
