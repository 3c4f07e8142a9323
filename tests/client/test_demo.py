"""The demo: what it shows, and what it says when the relay is not as it must be."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from relay_app.client.demo import relay_environ
from tests.client.commands import Command, Terminal, run
from tests.waiting import wait_until

FAKE = """
import http, logging, os, socket, sys, threading, time
from websockets.sync.server import serve
logging.disable()  # what it does wrong, it does on purpose
mode = sys.argv[1]
print("the fake says", mode, file=sys.stderr, flush=True)
if mode == "exits":
    sys.exit(3)
listener = socket.socket(fileno=int(os.environ["PYRYCODE_RELAY_LISTEN"][5:]))
if mode == "cuts":
    listener.accept()[0].close()
    sys.exit(3)
state = {}
def ready(connection, request):
    if request.path == "/readyz":
        return connection.respond(503 if mode == "unready" else 200, "here")
    if mode == "refuses":
        return connection.respond(503, "no place")
def handler(ws):
    if ws.request.path == "/v1/server":
        state["binary"] = ws
        if mode == "closes":
            ws.close(1011)
        for message in ws:
            phone = state["phone"]
            if message.endswith('"close_code":4408}'):
                phone.send('{"v":2,"bye":true}')
                if mode == "chatters":
                    phone.send("1")
                phone.close(4401 if mode == "wrong-code" else 4408)
            else:
                frame = message.partition('"frame":')[2][:-1]
                (state["first"] if '"n":1' in message else phone).send(frame)
        return
    state["phone"] = ws
    state.setdefault("first", ws)
    number = 0 if mode == "twins" or ws is state["first"] else 1
    for message in ws:
        if mode != "silent":
            inner = '"other"' if mode == "mangles" else message
            state["binary"].send('{"conn_id":"client-demo-%08x","frame":%s}' % (number, inner))
    if ws is state["first"]:
        state["binary"].send('{"conn_id":"client-demo-00000000","close_code":%s}'
                             % (1005 if mode == "wrong-notice" else 1000))
if mode == "lingers":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            file.write(str(os.getpid()))
if mode == "exits-badly":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
with serve(handler, sock=listener, process_request=ready) as server:
    server.serve_forever()
"""

RUN = """
import sys
from rich.console import Console
from relay_app.client.demo import Demo
command = [sys.executable, *sys.argv[1:]]
sys.exit(Demo(Console(), "1.0", command, patience_s={patience}, end_s=0.5).run())
"""


def test_relay_environ_is_clean() -> None:
    """Nothing of the place where the demo is typed reaches its relay."""
    here = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PORT": "1",
        "DYNO": "web.2",
        "GUNICORN_CMD_ARGS": "-w9",
    }
    here |= {
        "PYRYCODE_RELAY_PRODUCTION": "1",
        "PYRYCODE_RELAY_LISTEN": "x",
        "WEB_CONCURRENCY": "2",
    }
    made = relay_environ(here, 7)
    assert {name for name in made if not name.startswith("PYRYCODE_RELAY_")} == {
        "PATH",
        "LC_ALL",
    }
    assert made["PYRYCODE_RELAY_LISTEN"] == "fd://7"
    assert made["PYRYCODE_RELAY_ADMIN_LISTEN"] == ""
    assert "PYRYCODE_RELAY_PRODUCTION" not in made


def test_demo_shows_both_ways_and_leaves_nothing(tmp_path: Path) -> None:
    """Frames, envelopes, notice, directive, in order; plain text; the relay is gone."""
    hostile = {
        "PYRYCODE_RELAY_PRODUCTION": "1",
        "PORT": "1",
        "GUNICORN_CMD_ARGS": "--workers 2",
    }
    done = run("demo", env=hostile, cwd=tmp_path)
    assert done.wait() == 0, done.said()
    text = "\n".join(done.out)
    assert "\x1b" not in text and not done.err
    story = [
        r"A relay runs at ws://127\.0\.0\.1:(?P<port>\d+)",
        r"binary  -> relay    GET /v1/server",
        r"phone A -> relay    (?P<frame>\{.*\})\n",
        r'relay   -> binary   \{"conn_id":"(?P<a>client-demo-[0-9a-f]{8})","frame":(?P=frame)\}\n',
        r'binary  -> relay    \{"conn_id":"(?P=a)","frame":(?P=frame)\}\n',
        r"relay   -> phone A  (?P=frame)\n",
        r'relay   -> binary   \{"conn_id":"(?P<b>client-demo-[0-9a-f]{8})","frame":',
        r"relay   -> phone B  \{",
        r"phone A -> relay    close 1000",
        r'relay   -> binary   \{"conn_id":"(?P=a)","close_code":1000\}',
        r'binary  -> relay    \{"conn_id":"(?P=b)","frame":\{"v":2,"bye":true\},"close_code":4408',
        r"relay   -> phone B  close 4408",
        r"connection\.closed  leg=client  close_code=1000",
        r"connection\.closed  leg=client  close_code=4408",
        r"Shown: .*in three terminals:",
        r"pyrycode-relay serve\n +pyrycode-relay binary --server-id demo --echo\n +pyrycode-relay ",
    ]
    found = re.search(".*?".join(story), text, re.DOTALL)
    assert found is not None, text
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found["port"])))
    assert "demo-token" not in text


@pytest.mark.parametrize("no_color", ["", "1"])
def test_demo_has_colours_only_at_a_terminal_that_wants_them(no_color: str) -> None:
    """NO_COLOR, see no-color.org."""
    env = {"NO_COLOR": no_color, "TERM": "xterm"}
    with Terminal() as terminal:
        with Command(
            "demo", env=env, stdout=terminal.end, stdin=terminal.end
        ) as command:
            terminal.leave()
            assert command.wait() == 0
        shown = terminal.wait()
    assert b"phone A -> relay" in shown or b"phone A\x1b[0m -> " in shown
    assert (b"\x1b[" in shown) is not bool(no_color)


def played(mode: str, tmp_path: Path, patience: float = 8) -> Command:
    """Run the demo on a relay that is none."""
    fake = tmp_path / "fake.py"
    fake.write_text(FAKE)
    code = RUN.format(patience=patience)
    return run(sys.executable, "-c", code, str(fake), mode, program=False)


def test_fake_relay_is_good_enough(tmp_path: Path) -> None:
    """So that the failures below are those that were meant."""
    done = played("behaves", tmp_path)
    assert "The demo failed at the relay's end: it exited with -15." in done.out
    assert done.wait() == 1


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exits", "at the relay's start: the relay did not start."),
        ("cuts", "at the relay's start: the relay did not start."),
        ("unready", "at the relay's start: the relay is not ready: status 503."),
        ("refuses", "at step 1: the relay refused with status 503: no place."),
        ("closes", "at step 2: the connection ended too early."),
        ("silent", "at step 2: nothing came in time."),
        (
            "mangles",
            "at step 2: the binary did not get the phone's frame byte for byte.",
        ),
        ("twins", "at step 3: two phones have the same conn_id."),
        ("wrong-notice", "at step 5: something else arrived than was sent."),
        ("chatters", "at step 6: a frame came behind the last one."),
        ("wrong-code", "at step 6: phone B was closed 4401"),
        ("exits-badly", "at the relay's end: it exited with 5."),
        ("lingers", "at the relay's end: it exited with -9."),
    ],
)
def test_demo_says_what_failed(mode: str, said: str, tmp_path: Path) -> None:
    """One clear line, the relay's own last lines, exit code 1."""
    done = played(mode, tmp_path, patience=2 if mode == "silent" else 8)
    assert done.wait() == 1, done.said()
    assert f"The demo failed {said}" in done.said(), done.said()
    assert f"the fake says {mode}" in done.said()


def test_demo_that_is_interrupted_ends_its_relay(tmp_path: Path) -> None:
    """Also one that does not want to end."""
    fake, pid_file = tmp_path / "fake.py", tmp_path / "pid"
    fake.write_text(
        FAKE.replace(
            'if request.path == "/readyz":', "threading.Event().wait()\n    if 0:"
        )
    )
    words = (
        sys.executable,
        "-c",
        RUN.format(patience=60),
        str(fake),
        "lingers",
        str(pid_file),
    )
    with Command(*words, program=False) as command:
        command.until(lambda: pid_file.exists() and pid_file.read_text())
        command.process.send_signal(signal.SIGINT)
        command.until(lambda: command.process.poll() is not None)
        wait_until(lambda: not os.path.exists(f"/proc/{pid_file.read_text()}"))
