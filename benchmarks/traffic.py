"""One cell of the traffic tables: who says what when, and what has to arrive.

* ``pingpong``: each phone says one thing and waits for it to come back, so a round
  trip is two relayed messages;
* ``up``: the phones say as much as the relay takes;
* ``down``: the binary does, one message per phone and round, but never so much that
  a phone's outbox could overflow.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import proc
from benchmarks.check import Sorter, Tally, Track
from benchmarks.dial import Ends
from benchmarks.ends import End, Flood
from benchmarks.frames import Wire

CYCLE_BYTES = 1 << 19
"""About the size of one phone's cycle of messages."""

WINDOW_BYTES = 1 << 18
"""Down: bytes on their way to one phone, far below the bound of its outbox."""

MAX_MESSAGES = 5_000_000
"""Of one flood, whatever the time allows."""

END_S = 10.0
"""How long what is under way may take to arrive."""


@dataclass(frozen=True)
class Job:
    """What the generator is to do.

    Args:
        mode: ``pingpong``, ``up``, ``down``, ``idle``, ``handshake``.
        target: ``relay`` or ``pump``.
        port: Of 127.0.0.1.
        pids: Whose processor time counts; the last one's memory counts.
        phones: How many; for ``handshake`` how many in all, one after the other.
        size: Bytes of a phone's frame.
        seconds: Length of the loaded interval.
        warmup_s: Load before it.
        phones_per_server: For ``idle``.
    """

    mode: str
    target: str
    port: int
    pids: list[int]
    phones: int
    size: int = 0
    seconds: float = 0.0
    warmup_s: float = 0.3
    phones_per_server: int = 10


@dataclass
class Seen:
    """Counters at one moment."""

    received: int
    at: float
    cpu: proc.Cpu
    own: proc.Cpu


@dataclass
class Cell:
    """A job that is being done: the ends, what they have to see, what was counted."""

    job: Job
    wire: Wire
    ends: Ends
    tally: Tally = field(default_factory=Tally)
    latencies_s: list[float] = field(default_factory=list)
    running: bool = True
    asked: int = 0

    def __post_init__(self) -> None:
        """Lay out the cycles and connect the ends to them."""
        job = self.job
        self.poll = select.epoll()
        self.binary = End(self.ends[0], self.poll)
        self.phones = [End(sock, self.poll) for sock in self.ends[1]]
        self.count = max(8, min(512, CYCLE_BYTES // job.size))
        self.indices = range(job.phones)
        self.phone_tracks: list[Track] = []
        self.binary_tracks: list[Track] = []
        self.floods: list[Flood] = []
        {"pingpong": self._ping_pong, "up": self._up, "down": self._down}[job.mode]()

    def _cycle(self, make: Callable[[int, int], bytes], phone: int) -> list[bytes]:
        return [make(phone, sequence) for sequence in range(self.count)]

    def _watch_binary(self, on_messages: Callable[[bytes, int], None] | None) -> None:
        see = self.wire.binary_sees
        self.binary_tracks = [
            Track(self._cycle(see, i), self.tally) for i in self.indices
        ]
        by_key = {
            self.wire.key_of(i): track for i, track in enumerate(self.binary_tracks)
        }
        self.binary.take = Sorter(by_key, self.wire.key, self.tally, on_messages).take

    def _watch_phones(self) -> None:
        see = self.wire.phone_sees
        self.phone_tracks = [
            Track(self._cycle(see, i), self.tally) for i in self.indices
        ]
        for end, track in zip(self.phones, self.phone_tracks, strict=True):
            end.take = track.take

    def _up(self) -> None:
        self._watch_binary(None)
        for index, end in enumerate(self.phones):
            messages = self._cycle(self.wire.phone_sends, index)
            flood = Flood(end, messages, lambda: MAX_MESSAGES if self.running else 0)
            self.floods.append(flood)

    def _down(self) -> None:
        self._watch_phones()
        # One message per phone and round.
        send = self.wire.binary_sends
        messages = [
            send(i, sequence) for sequence in range(self.count) for i in self.indices
        ]
        window = max(2, WINDOW_BYTES // self.job.size)

        def allowed() -> int:
            slowest = min(track.received for track in self.phone_tracks)
            return (slowest + window) * self.job.phones if self.running else 0

        flood = Flood(self.binary, messages, allowed)
        self.floods.append(flood)

        def take(track: Track) -> Callable[[bytes], None]:
            def taken(data: bytes) -> None:
                track.take(data)
                self.binary.want_to_write(True)

            return taken

        for end, track in zip(self.phones, self.phone_tracks, strict=True):
            end.take = take(track)

    def _ping_pong(self) -> None:
        self._watch_phones()
        pings = [self._cycle(self.wire.phone_sends, i) for i in self.indices]
        pongs = [self._cycle(self.wire.binary_sends, i) for i in self.indices]
        phone_of = {self.wire.key_of(i): i for i in self.indices}
        answered = [0] * self.job.phones
        asked_at = [0.0] * self.job.phones
        answers: list[bytes] = []

        def answer(name: bytes, count: int) -> None:
            phone = phone_of[name]
            for _ in range(count):
                answers.append(pongs[phone][answered[phone] % self.count])
                answered[phone] += 1

        self._watch_binary(answer)
        judge = self.binary.take

        def taken_by_binary(data: bytes) -> None:
            judge(data)
            if answers:
                self.binary.send(b"".join(answers))
                answers.clear()

        def ask(phone: int) -> None:
            self.asked += 1
            asked_at[phone] = time.perf_counter()
            place = self.phone_tracks[phone].received % self.count
            self.phones[phone].send(pings[phone][place])

        def taken_by(phone: int, track: Track) -> Callable[[bytes], None]:
            def taken(data: bytes) -> None:
                before = track.received
                track.take(data)
                if track.received > before:
                    self.latencies_s.append(time.perf_counter() - asked_at[phone])
                    if self.running:
                        ask(phone)

            return taken

        self.binary.take = taken_by_binary
        for phone, (end, track) in enumerate(
            zip(self.phones, self.phone_tracks, strict=True)
        ):
            end.take = taken_by(phone, track)
            ask(phone)

    @property
    def received(self) -> int:
        """Messages that have come through, in both directions."""
        return sum(
            track.received for track in (*self.binary_tracks, *self.phone_tracks)
        )

    @property
    def unarrived(self) -> int:
        """Messages that were sent, or have to be answered, and are not there."""
        sent = sum(flood.sent for flood in self.floods) + 2 * self.asked
        return sent - self.received

    def spin(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let the ends work until a moment, or until something is done."""
        by_descriptor = {end.sock.fileno(): end for end in (self.binary, *self.phones)}
        poll = self.poll.poll
        while (left_s := until - time.perf_counter()) > 0 and not done():
            for descriptor, event in poll(left_s):
                end = by_descriptor[descriptor]
                if event & ~select.EPOLLOUT:
                    end.on_readable()
                if event & select.EPOLLOUT:
                    end.on_writable()

    def look(self) -> Seen:
        """Read all counters."""
        return Seen(
            self.received, time.perf_counter(), proc.cpu(self.job.pids), proc.own_cpu()
        )

    def run(self) -> dict[str, Any]:
        """Warm up, load, let everything arrive.

        Returns: The cell's figures; times in µs per relayed message.
        """
        job = self.job
        self.spin(time.perf_counter() + job.warmup_s)
        self.latencies_s.clear()
        before = self.look()
        self.spin(before.at + job.seconds)
        after = self.look()
        latencies_s = sorted(self.latencies_s)
        self._finish()
        messages = after.received - before.received
        elapsed_s = after.at - before.at
        cpu, own = after.cpu - before.cpu, after.own - before.own
        per = 1e6 / max(messages, 1)
        return {
            "messages": messages,
            "messages_per_s": messages / elapsed_s,
            "cpu_us": cpu.total_s * per,
            "user_us": cpu.user_s * per,
            "system_us": cpu.system_s * per,
            "busy": cpu.total_s / elapsed_s,
            "generator_busy": own.total_s / elapsed_s,
            "p50_us": _quantile_us(latencies_s, 0.50),
            "p99_us": _quantile_us(latencies_s, 0.99),
            **asdict(self.tally),
        }

    def _finish(self) -> None:
        """Send no more, and count what never arrives as lost."""
        self.running = False
        self.spin(time.perf_counter() + END_S, lambda: self.unarrived == 0)
        # What was told apart message by message is a part of what did not arrive.
        self.tally.lost = max(self.tally.lost, self.unarrived)


def _quantile_us(ordered_s: list[float], share: float) -> float | None:
    if not ordered_s:
        return None
    return ordered_s[min(int(len(ordered_s) * share), len(ordered_s) - 1)] * 1e6
