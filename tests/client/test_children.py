"""A child process per phone, with real children."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_app.client.children import MAX_LINE_BYTES, MAX_QUEUED_FRAMES
from tests.client.commands import Command, Relay, binary
from tests.peers import Peer
from tests.waiting import wait_until


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay without a rate limit and without a grace period."""
    with Relay() as started:
        yield started
        started.stop()


def python(code: str) -> tuple[str, str]:
    """The words for a child that is a line of Python."""
    return "--exec", shlex.join([sys.executable, "-u", "-c", code])


def alive(pid: int) -> bool:
    """Whether a process exists."""
    return os.path.exists(f"/proc/{pid}")


PID = "import os, sys; print(os.getpid()); "
ECHO = "import sys\nfor line in sys.stdin: print(line, end='')"


def test_child_answers_its_phone(relay: Relay) -> None:
    """Lines in, lines out; a frame of several lines is one line; frames are not shown."""
    with binary(relay, *python(PID + ECHO)) as held:
        one, two = (Peer.dial(relay.url, "client", "s1") for _ in range(2))
        one.send('{"n":\r\n1}')
        two.send('"é"')
        pids = [int(one.recv()), int(two.recv())]
        assert (one.recv(), two.recv()) == ('{"n":  1}', '"é"')
        assert len(set(pids)) == 2
        one.drop()
        held.until(lambda: not alive(pids[0]))
        two.send("2")
        assert two.recv() == "2"
        two.drop()
        held.until(lambda: not alive(pids[1]))
        held.until(lambda: len(held.out) == 2)
        assert all("gone, 1001" in line for line in held.out)


def test_lines_that_are_no_frames_are_dropped(relay: Relay) -> None:
    """One warning each, without the line; the next good one passes."""
    code = f"print('secret'); print('null'); print('1' * {MAX_LINE_BYTES + 9}); print('[2]')"
    with binary(relay, *python(f"import sys; {code}; sys.stdin.read()")) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        assert peer.recv() == "[2]"
        dropped = [line.partition(": ")[2] for line in held.err if "dropped" in line]
        assert dropped == [
            "a line of the child was dropped: not one JSON value",
            "a line of the child was dropped: null, which no envelope can carry to a phone",
            "a line of the child was dropped: too long",
        ]
        assert "secret" not in held.said()
        peer.drop()
        held.until_said("gone")


def test_child_that_ends_closes_its_phone(relay: Relay) -> None:
    """1000 behind its last line, even one without an end; what the phone sent late is ignored."""
    with binary(relay, *python("import sys; input(); sys.stdout.write('[1]')")) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        assert peer.recv() == "[1]"
        assert peer.ending() == (1000, "")
        held.until_said("the child ended; its phone is closed with 1000")
        peer.drop()


def test_frames_behind_the_end_start_no_second_child(
    relay: Relay, tmp_path: Path
) -> None:
    """They were under way when the child closed its phone."""
    log = tmp_path / "starts"
    code = f"open({str(log)!r}, 'a').write('x'); input()"
    with binary(relay, *python(code)) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        for _ in range(200):
            peer.send('"late"')
        peer.ending()
        held.until_said("the child ended")
        other = Peer.dial(relay.url, "client", "s1")
        other.send("1")
        assert other.ending()[0] == 1000
        assert log.read_text() == "xx"
        peer.drop()
        other.drop()


def test_child_that_ignores_its_phones_end_is_killed(relay: Relay) -> None:
    """It reads nothing and takes no SIGTERM."""
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        + PID
        + "signal.pause()"
    )
    with binary(relay, *python(code)) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        pid = int(peer.recv())
        peer.drop()
        held.until(lambda: not alive(pid))


def test_child_that_does_not_read_loses_its_phone(relay: Relay) -> None:
    """1011, and the others do not notice."""
    code = PID + "import signal; signal.pause()"
    with binary(relay, *python(code)) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        pid = int(peer.recv())
        for _ in range(MAX_QUEUED_FRAMES + 20):
            peer.send('"' + "x" * 8000 + '"')
        assert peer.ending() == (1011, "")
        held.until_said(
            "the child does not read its input; its phone is closed with 1011"
        )
        held.until(lambda: not alive(pid))
        peer.drop()


def test_child_that_cannot_start(relay: Relay, tmp_path: Path) -> None:
    """The program went away after the binary had found it."""
    program = tmp_path / "agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with binary(relay, "--exec", str(program)) as held:
        program.unlink()
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        assert peer.ending() == (1011, "")
        held.until_said("the child did not start: No such file or directory")
        peer.drop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_children_end_with_the_binary(relay: Relay, number: int) -> None:
    """Those that end by themselves, and those that do not."""
    with binary(relay, *python(PID + "import signal; signal.pause()")) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send("1")
        pid = int(peer.recv())
        assert held.signal(number) == 0, held.said()
        assert not alive(pid)
        peer.drop()


def test_children_end_with_the_connection() -> None:
    """The relay closes all phones of a connection that is lost."""
    with Relay() as relay:
        words = ("--server-id", "s1", "--url", relay.url, "--backoff-scale", "100")
        with Command("binary", *words, *python(PID + ECHO)) as held:
            held.until_said("connected")
            peer = Peer.dial(relay.url, "client", "s1")
            peer.send(json.dumps("hello"))
            pid = int(peer.recv())
            relay.process.kill()
            relay.wait()
            held.until_said("next try")
            wait_until(lambda: not alive(pid))
            assert held.signal(signal.SIGTERM) == 0
            peer.drop()
