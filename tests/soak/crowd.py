"""``python -m tests.soak.crowd``: ten thousand connections, and messages through them.

Binaries, each with some phones, are held by one process from many addresses of
loopback, with the default heartbeats. Phones send in turn at a steady rate, their
binaries send each message back; every one is checked. The closing line has what was
lost, how long the round trips took, and what a connection costs the relay in memory.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from time import monotonic  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from relay_app.process import raise_file_limit  # noqa: E402
from tests.e2e.gunicorn import Gunicorn, gunicorn  # noqa: E402
from tests.soak.ends import End  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

PHONES_EACH = 19
CLIENTS_FILES = 100
"""What this process needs beside one descriptor for each connection."""


class Phone:
    """A phone that counts what it sent and what came back.

    Args:
        end: Its connection.
        number: Among all phones.
    """

    def __init__(self, end: End, number: int) -> None:
        self.end = end
        self.number = number
        self.sent_at: list[float] = []
        self.trips_s: list[float] = []
        self.wrong = 0

    def send(self) -> None:
        """Send the next message."""
        text = json.dumps([self.number, len(self.sent_at), "x" * 100])
        self.sent_at.append(monotonic())
        self.end.send(text.encode())

    def read(self) -> None:
        """Check what comes back, in order, to the end."""
        for message in self.end.messages():
            number, sequence, _ = json.loads(message)
            self.wrong += (number, sequence) != (self.number, len(self.trips_s))
            self.trips_s.append(monotonic() - self.sent_at[len(self.trips_s)])


def echo(end: End) -> None:
    """Send back what phones send."""
    for message in end.messages():
        if b'"frame":' in message:
            end.send(message)  # an envelope for that phone, as it is


def crowd(relay: Gunicorn, connections: int) -> tuple[list[End], list[Phone]]:
    """Connect them all: a twentieth are binaries."""
    ends: list[End] = []
    phones: list[Phone] = []
    for n in range(connections):
        group, place = divmod(n, PHONES_EACH + 1)
        leg = "client" if place else "server"
        end = End(relay.address, leg, f"id-{group}", f"127.0.{n % 50}.{n % 200 + 2}")
        ends.append(end)
        if place:
            phones.append(Phone(end, n))
            gevent.spawn_raw(phones[-1].read)
        else:
            gevent.spawn_raw(echo, end)
    return ends, phones


def talk(phones: list[Phone], rate: int, seconds: float) -> None:
    """Let one phone after the other send, at a steady rate."""
    began, sent = monotonic(), 0
    while (passed_s := monotonic() - began) < seconds:
        while sent < passed_s * rate:
            phones[sent % len(phones)].send()
            sent += 1
        gevent.sleep(0)


def share(ordered: list[float], part: float) -> float:
    """The value below which a part of all lies, in milliseconds."""
    return 1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def run(connections: int, rate: int, seconds: float) -> int:
    """Hold the crowd, talk, and say what was seen."""
    if raise_file_limit() < connections + CLIENTS_FILES:
        print(f"{connections} connections need a higher limit on open files")
        return 2
    settings: dict[str, Any] = {"MAX_PHONES_PER_SERVER": PHONES_EACH}
    with gunicorn(measured=True, **settings) as relay:
        relay.ready()
        before_kib = relay.rss_kib()
        ends, phones = crowd(relay, connections)
        held = relay.health()
        idle_kib = relay.rss_kib()
        talk(phones, rate, seconds)
        sent = sum(len(phone.sent_at) for phone in phones)
        back = [trip for phone in phones for trip in phone.trips_s]
        try:
            wait_until(lambda: sum(len(p.trips_s) for p in phones) == sent)
        except AssertionError:
            print("not everything came back")
        back = sorted(trip for phone in phones for trip in phone.trips_s)
        still = relay.health()
        cut = connections - still["connected_phones"] - still["connected_binaries"]
        wrong = sum(phone.wrong for phone in phones)
        for end in ends:
            end.sock.close()
        wait_until(lambda: relay.health()["connected_phones"] == 0)
    print(
        f"crowd: {held['connected_binaries']} binaries and {held['connected_phones']} "
        f"phones, {(idle_kib - before_kib) / connections:.1f} KiB each; {sent} messages "
        f"there and back at {rate} a second, {sent - len(back)} lost, {wrong} wrong, "
        f"{cut} connections cut; round trip ms p50 {share(back, 0.5):.1f}, p99 "
        f"{share(back, 0.99):.1f}, longest {share(back, 1):.1f}"
    )
    return 1 if cut or wrong or len(back) != sent else 0


def main() -> int:
    """Read the words, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=1000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    words = parser.parse_args()
    return run(words.connections, words.rate, words.seconds)


if __name__ == "__main__":
    sys.exit(main())
