"""The listener: places for request heads, and descriptors that run out."""

from __future__ import annotations

import errno
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from relay_app.transport import listener
from relay_app.transport.listener import Listener
from tests.local_relay import local_relay
from tests.peers import get, parse_answer
from tests.waiting import wait_until

HEADS = 16


def read_all(sock: socket.socket) -> bytes:
    """Read to the end of the stream, or to a reset."""
    got = b""
    try:
        while data := sock.recv(4096):
            got += data
    except ConnectionError:
        pass
    return got


def test_silent_connections_do_not_keep_others_out() -> None:
    """However many say nothing, a request is answered; the oldest of them is ended."""
    with (
        local_relay(max_heads=HEADS, handshake_timeout_s=300) as relay,
        ExitStack() as stack,
    ):
        silent = [
            stack.enter_context(socket.create_connection(relay.address, 20))
            for _ in range(3 * HEADS)
        ]
        assert get(relay.address, "/healthz")[0] == 200
        assert silent[0].recv(1) == b""
        usable = HEADS // listener.HEADS_PER_SOURCE
        wait_until(lambda: len(relay.server.heads) <= usable)
        binary, phone, _ = relay.pair()
        phone.send("1")
        assert binary.recv_json()["frame"] == 1


def test_head_that_is_finished_in_time_is_served_beside_silent_ones() -> None:
    """Giving up a head does not touch a newer one of the same source."""
    with local_relay(max_heads=HEADS, handshake_timeout_s=300) as relay:
        oldest = socket.create_connection(relay.address, 20)
        slow = socket.create_connection(relay.address, 20)
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        wait_until(lambda: len(relay.server.heads) == 2)
        other = socket.create_connection(relay.address, 20)
        assert read_all(oldest) == b""
        slow.sendall(b"Host: relay.test\r\n\r\n")
        assert parse_answer(read_all(slow))[0] == 200
        for sock in (oldest, slow, other):
            sock.close()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null") as probe:
        lowest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_run_out_accept_pauses_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who is connected goes on, one line says why, and it recovers by itself."""
    with local_relay() as relay:
        binary, phone, _ = relay.pair()
        waiting = socket.create_connection(relay.address, 20)
        request = b"GET /livez HTTP/1.1\r\nHost: relay.test\r\n\r\n"
        with socket.socket() as late:
            late.settimeout(20)
            with no_descriptors_left():
                late.connect(relay.address)
                wait_until(lambda: relay.server._watcher is None)
                phone.send("1")
                assert binary.recv_json()["frame"] == 1
            late.sendall(request)
            assert parse_answer(read_all(late))[0] == 200
        waiting.close()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    paused = [line for line in lines if line["event"] == "accept.paused"]
    assert [line["reason"] for line in paused] == ["EMFILE"] * len(paused)
    assert paused


@pytest.mark.parametrize(
    ("number", "raised", "accepts"),
    [
        (errno.ECONNABORTED, False, True),
        (errno.EMFILE, False, False),
        (errno.ENOBUFS, False, False),
        (errno.EBADF, True, True),
    ],
)
def test_accept_that_fails_is_judged_by_its_cause(
    number: int, raised: bool, accepts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that hung up is nothing; a lack of something is a pause; the rest is fatal."""

    def fail(self: object) -> None:
        raise OSError(number, "as the kernel says")

    with local_relay() as relay:
        server: Listener = relay.server
        monkeypatch.setattr(listener.PyWSGIServer, "do_read", fail)
        if raised:
            with pytest.raises(OSError, match="as the kernel says"):
                server.do_read()
        else:
            assert server.do_read() is None
        assert (server._watcher is not None) is accepts
        monkeypatch.undo()
        wait_until(lambda: server._watcher is not None)
