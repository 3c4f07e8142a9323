"""A well-behaved binary, its phone, and somebody who looks at ``/healthz``.

In a process of their own, so that an attack that keeps its own process busy cannot
make the relay look slow: ``python -m tests.abuse.watch PORT``. Every line on its
input is answered with one line of JSON: what was seen since the last one.

They dial from another address than the attackers, as they would from elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from time import monotonic
from typing import Any

import websocket

from tests.peers import Peer, headers, parse_answer

SOURCE = ("127.0.0.77", 0)
PACE_S = 0.02
PROBE_PACE_S = 0.1
PATIENCE_S = 10.0


class Tally:
    """Counts one kind of errand and times the longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._count = self._errors = 0
        self._longest_s = 0.0

    def begin(self) -> None:
        """Start one errand."""
        self._began = monotonic()

    def end(self, *, failed: bool) -> None:
        """End it, well or not."""
        with self._lock:
            if self._began is not None:
                self._longest_s = max(self._longest_s, monotonic() - self._began)
            self._began = None
            self._count += not failed
            self._errors += failed

    def take(self) -> dict[str, Any]:
        """Give what was counted and begin anew; what is under way counts as long as it is."""
        with self._lock:
            began = self._began
            pending_s = monotonic() - began if began is not None else 0.0
            seen = {
                "count": self._count,
                "errors": self._errors,
                "longest_s": max(self._longest_s, pending_s),
            }
            self._count = self._errors = 0
            self._longest_s = 0.0
        return seen


def dial(port: int, leg: str, server_id: str) -> Peer:
    """Connect from the well-behaved peers' own address."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S, SOURCE)
    fields = headers(leg, server_id)
    ws = websocket.create_connection(
        f"ws://127.0.0.1:{port}/v1/{leg}",
        header=[f"{name}: {value}" for name, value in fields.items()],
        suppress_origin=True,
        socket=sock,
        timeout=PATIENCE_S,
    )
    return Peer(ws)


def keep_talking(port: int, tally: Tally, over: threading.Event) -> None:
    """Send a phone's message to its binary and back, again and again."""
    number = 0
    while not over.wait(PACE_S):
        peers: list[Peer] = []
        try:
            # A new server-id each time: the last one may be in its grace period.
            server_id = f"well-behaved-{number}"
            peers.append(dial(port, "server", server_id))
            peers.append(dial(port, "client", server_id))
            binary, phone = peers
            while not over.wait(PACE_S):
                number += 1
                tally.begin()
                phone.send(json.dumps({"number": number}))
                envelope = binary.recv_json()
                assert envelope["frame"] == {"number": number}, "another message"
                binary.send(json.dumps(envelope))
                assert phone.recv_json() == {"number": number}, "another message"
                tally.end(failed=False)
        except (OSError, AssertionError, websocket.WebSocketException):
            number += 1
            tally.end(failed=True)
        finally:
            for peer in peers:
                peer.drop()


def keep_probing(port: int, tally: Tally, over: threading.Event) -> None:
    """Ask for ``/healthz``, each time on a connection of its own."""
    request = b"GET /healthz HTTP/1.1\r\nHost: relay.test\r\n\r\n"
    while not over.wait(PROBE_PACE_S):
        tally.begin()
        is_fine = False
        with contextlib.suppress(OSError, ValueError, IndexError):
            address = ("127.0.0.1", port)
            with socket.create_connection(address, PATIENCE_S, SOURCE) as sock:
                sock.sendall(request)
                answer = b""
                while data := sock.recv(65536):
                    answer += data
            is_fine = parse_answer(answer)[0] == 200
        tally.end(failed=not is_fine)


def main() -> None:
    """Watch until the input ends."""
    port = int(sys.argv[1])
    over = threading.Event()
    tallies = {"trips": Tally(), "probes": Tally()}
    errands = (keep_talking, keep_probing)
    threads = [
        threading.Thread(target=errand, args=(port, tally, over))
        for errand, tally in zip(errands, tallies.values(), strict=True)
    ]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        seen = {name: tally.take() for name, tally in tallies.items()}
        print(json.dumps(seen), flush=True)
    over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
