"""The attacks: two programs of other people, and what they do not do.

Each takes the relay's port and a span, and gives the number of connections or
requests it made.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
import selectors
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from tests.peers import frame, upgrade_request
from tests.servers import program

Attack = Callable[[int, float], int]

RESET = struct.pack("ii", 1, 0)
SPARE_S = 20.0
"""What a program may take longer than it was told."""

# -- of our own ---------------------------------------------------------------


def _dial(port: int, source: str) -> socket.socket:
    """Begin a connection from one of loopback's addresses."""
    sock = socket.socket()
    sock.setblocking(False)
    # Ports are taken per address, so thousands fit.
    sock.bind((source, 0))
    with contextlib.suppress(BlockingIOError):
        sock.connect(("127.0.0.1", port))
    return sock


def _sources(count: int) -> Iterator[str]:
    names = [f"127.0.{n // 200 + 1}.{n % 200 + 1}" for n in range(count)]
    return itertools.cycle(names)


def _crowd(
    port: int, seconds: float, size: int, sources: int, parts: list[bytes]
) -> int:
    """Hold many connections; each says the next part every half second.

    One that the relay ended is dialled again.
    """
    ends_at = monotonic() + seconds
    source = _sources(sources)
    made = 0
    said: dict[socket.socket, int] = {}
    try:
        while monotonic() < ends_at:
            while len(said) < size and monotonic() < ends_at:
                said[_dial(port, next(source))] = 0
                made += 1
            turn_ends_at = monotonic() + 0.5
            with selectors.DefaultSelector() as selector:
                for sock, number in list(said.items()):
                    selector.register(sock, selectors.EVENT_READ)
                    try:
                        if parts:
                            sock.send(parts[number % len(parts)])
                        said[sock] += 1
                    except BlockingIOError:
                        pass
                    except OSError:
                        selector.unregister(sock)
                        said.pop(sock)
                        sock.close()
                while (left_s := min(turn_ends_at, ends_at) - monotonic()) > 0:
                    for key, _ in selector.select(left_s):
                        ended = key.fileobj
                        assert isinstance(ended, socket.socket)
                        with contextlib.suppress(BlockingIOError):
                            if not _has_more(ended):
                                selector.unregister(ended)
                                said.pop(ended)
                                ended.close()
    finally:
        for sock in said:
            sock.close()
    return made


def _has_more(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(65536))
    except BlockingIOError:
        raise
    except OSError:
        return False


def silent(port: int, seconds: float) -> int:
    """1500 connections of one address that never say a word."""
    return _crowd(port, seconds, 1500, 1, [])


def silent_from_everywhere(port: int, seconds: float) -> int:
    """1500 connections of 300 addresses that never say a word."""
    return _crowd(port, seconds, 1500, 300, [])


def half_heads(port: int, seconds: float) -> int:
    """1000 heads of 100 addresses that grow by a field and never end."""
    start = b"GET /healthz HTTP/1.1\r\nHost: relay.test\r\n"
    return _crowd(port, seconds, 1000, 100, [start, *[b"X: y\r\n"] * 50])


STAGES = (
    b"",
    b"GET /heal",
    b"GET /healthz HTTP/1.1\r\nHost: relay.test\r\n\r\n",
    upgrade_request("client", "nobody"),
    upgrade_request("client", "nobody") + b"\x81\x85\0\0\0\0hello",
    upgrade_request("server", "churn"),
    upgrade_request("server", "churn") + b"\x81\xff",
)

FIRST_ANSWERED = 2
"""The stages from here on get an answer."""


def churn(port: int, seconds: float) -> int:
    """Connections that are reset at every stage, as fast as they can be dialled."""
    ends_at = monotonic() + seconds
    source = _sources(50)
    made = 0
    while monotonic() < ends_at:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.settimeout(5)
            sock.bind((next(source), 0))
            sock.connect(("127.0.0.1", port))
            stage = made % len(STAGES)
            sock.sendall(STAGES[stage])
            made += 1
            if stage >= FIRST_ANSWERED and made % 2:
                sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return made


def _requests(port: int, seconds: float, requests: list[bytes]) -> int:
    """Send one request after the other, 20 connections at a time, and read the answers."""
    ends_at = monotonic() + seconds
    source = _sources(20)
    made = 0
    open_now: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        left: dict[socket.socket, bytes] = {}
        try:
            while monotonic() < ends_at:
                while len(open_now) < 20:
                    sock = _dial(port, next(source))
                    open_now.add(sock)
                    left[sock] = requests[made % len(requests)]
                    both = selectors.EVENT_READ | selectors.EVENT_WRITE
                    selector.register(sock, both)
                    made += 1
                for key, events in selector.select(0.1):
                    sock = key.fileobj  # type: ignore[assignment]
                    is_over = False
                    try:
                        if events & selectors.EVENT_READ:
                            is_over = not sock.recv(65536)
                        elif left[sock]:
                            left[sock] = left[sock][sock.send(left[sock]) :]
                            if not left[sock]:
                                selector.modify(sock, selectors.EVENT_READ)
                    except BlockingIOError:
                        pass
                    except OSError:
                        is_over = True
                    if is_over:
                        selector.unregister(sock)
                        open_now.discard(sock)
                        del left[sock]
                        sock.close()
        finally:
            for sock in open_now:
                sock.close()
    return made


def huge_heads(port: int, seconds: float) -> int:
    """Heads of a megabyte: one field, many fields, a request line, no line at all."""
    start = b"GET /healthz HTTP/1.1\r\nHost: relay.test\r\n"
    million = 1 << 20
    heads = [
        start + b"X: " + b"x" * million,
        start + b"X: y\r\n" * (million // 6),
        b"GET /" + b"x" * million,
        b"\0" * million,
        start + b"X: y\r\n" * 2700 + b"\r\n",
    ]
    return _requests(port, seconds, heads)


def pipelined(port: int, seconds: float) -> int:
    """Whole heads, each with more requests and junk behind it."""
    request = b"GET /healthz HTTP/1.1\r\nHost: relay.test\r\n\r\n"
    post = b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"
    junk = bytes(range(256)) * 256
    upgrade = upgrade_request("client", "nobody")
    requests = [
        request * 500,
        request + junk,
        post + junk * 4,
        upgrade + request + junk,
    ]
    return _requests(port, seconds, requests)


def frames(port: int, seconds: float) -> int:
    """Behind an upgrade: floods of small frames, endless fragments, lengths that lie."""
    ping, empty = frame(0x89, b"x" * 125), frame(0x00, b"")
    close = frame(0x88, b"")
    floods = [
        ping * 4000,
        frame(0x8A, b"") * 50_000,
        frame(0x01, b"") + empty * 50_000,
        frame(0x01, b"{") + (frame(0x00, b"x" * 33) + ping) * 4000,
        frame(0x81, b"not json") * 20_000,
        frame(0x82, b'{"conn_id":"nobody","frame":1}') * 10_000,
        frame(0x81, b"[" * 200_000),
        b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4) + b"x" * 200_000,
        bytes(range(256)) * 1000,
    ]
    requests = [
        upgrade_request("server", f"flood-{number}") + flood + close
        for number, flood in enumerate(floods)
    ]
    return _requests(port, seconds, requests)


# -- of others ------------------------------------------------------------------


def _run(command: list[str], seconds: float) -> str:
    done = subprocess.run(
        command,
        timeout=seconds + SPARE_S,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.stdout


def slowhttptest(path: str, *options: str) -> Attack:
    """Make an attack of slowhttptest: slow heads, slow bodies, slow reading, ranges."""

    def attack(port: int, seconds: float) -> int:
        """Hold as many slow connections as it can."""
        url = f"http://127.0.0.1:{port}{path}"
        span = str(max(round(seconds), 1))
        common = [
            "-c",
            "1000",
            "-r",
            "250",
            "-l",
            span,
            "-i",
            "1",
            "-v",
            "0",
            "-u",
            url,
        ]
        with tempfile.TemporaryDirectory() as place:
            said = Path(place, "said")
            _run(
                [program("slowhttptest"), *options, *common, "-g", "-o", str(said)],
                seconds,
            )
            with said.with_suffix(".csv").open() as table:
                rows = list(csv.DictReader(table))
        counts = [int(row["Closed"]) + int(row["Connected"]) for row in rows]
        return max(counts, default=0)

    return attack


def wrk(path: str) -> Attack:
    """Make an attack of wrk: as many requests as it can, over 100 connections."""

    def attack(port: int, seconds: float) -> int:
        """Ask and ask."""
        url = f"http://127.0.0.1:{port}{path}"
        span = f"{max(round(seconds), 1)}s"
        said = _run([program("wrk"), "-t1", "-c100", "-d", span, url], seconds)
        found = re.search(r"(\d+) requests in", said)
        return int(found[1]) if found else 0

    return attack


ATTACKS: dict[str, Attack] = {
    "silent, one address": silent,
    "silent, 300 addresses": silent_from_everywhere,
    "half heads": half_heads,
    "huge heads": huge_heads,
    "resets at every stage": churn,
    "pipelined junk": pipelined,
    "frames against the rules": frames,
    "slowhttptest -H": slowhttptest("/healthz", "-H"),
    "slowhttptest -B": slowhttptest("/healthz", "-B", "-s", "65536"),
    "slowhttptest -X": slowhttptest("/healthz", "-X", "-w", "1", "-y", "8"),
    "slowhttptest -R": slowhttptest("/healthz", "-R", "-a", "10", "-b", "3000"),
    "wrk /healthz": wrk("/healthz"),
    "wrk /v1/client": wrk("/v1/client"),
    "wrk, unknown path": wrk("/nothing/of/that/name"),
}

SHORT = (
    ("silent, one address",),
    ("silent, 300 addresses", "half heads"),
    ("huge heads", "pipelined junk"),
    ("resets at every stage", "frames against the rules"),
    ("slowhttptest -H", "slowhttptest -B", "slowhttptest -X", "slowhttptest -R"),
    ("wrk /healthz", "wrk /v1/client", "wrk, unknown path"),
)
"""For a machine that has no time: several at once."""
