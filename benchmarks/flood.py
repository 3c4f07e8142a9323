"""The generator of ``benchmarks.fairness``: polite phones, flooders, their binaries.

All that plays by the clock is one process with one epoll, since processes that share a
core would measure how it is shared. The crowd is a process of its own.

    python -m benchmarks.flood play <port> <phones> <process ids of the relay>
    python -m benchmarks.flood crowd <port> <phones>
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks import dial, proc
from benchmarks.check import READ_BYTES, Tally, Track
from benchmarks.ends import End
from benchmarks.frames import RelayWire, payload, text_frame
from benchmarks.helpers import spread

SIZE = 128
"""Of a polite frame."""

CYCLE_BYTES = 1 << 19
FLOOD_WRITE_BYTES = 1 << 16
PIECE_BYTES = 4096
"""What a binary that needs time for each message reads at once."""

WARMUP_S = 0.3
END_S = 20.0
"""How long what is under way may take to arrive."""

BINARIES = ("fast", "slow", "busy")


@dataclass(frozen=True)
class Phase:
    """What goes on at a time.

    Args:
        binary: One of ``BINARIES``: reads at once; reads ``slow_mb`` a second; works
            ``busy_us`` on each message.
        flood: Bytes of the flooder's frames, 0 for none.
        crowd: Phones that flood binaries of their own.
        seconds: Measured, behind ``WARMUP_S``.
        slow_mb: Megabytes a second.
        busy_us: Microseconds.
        pause_ms: Of a polite phone between a round trip and the next.
    """

    binary: str
    flood: int
    crowd: int
    seconds: float
    slow_mb: float
    busy_us: float
    pause_ms: float

    @property
    def name(self) -> str:
        """For the table."""
        if self.crowd:
            return f"{self.binary}, {self.crowd} flood"
        return f"{self.binary}, {f'flood {self.flood} B' if self.flood else 'alone'}"


_NAME_AT = len(b'{"conn_id":"')


class Mixture:
    """What a binary sees: a flood between messages that have to be answered.

    ``messages`` counts all of them, ``answers`` has what is to be sent.

    Args:
        flooder: Its conn_id.
        polite: By conn_id, what is to come and the cycle of answers.
        tally: Where messages of nobody are counted, as corrupt.
    """

    def __init__(
        self,
        flooder: bytes,
        polite: dict[bytes, tuple[Track, list[bytes]]],
        tally: Tally,
    ) -> None:
        self.flood: Track | None = None
        self.messages = 0
        self.answers: list[bytes] = []
        self._flooder = flooder
        self._name_bytes = len(flooder)
        self._polite = polite
        self._tally = tally
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        flood = self.flood
        while end - at >= 14:  # no envelope is shorter
            length, body = data[at + 1], at + 2
            if length == 126:
                length, body = data[at + 2] << 8 | data[at + 3], at + 4
            elif length == 127:
                length, body = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            stop = body + length
            if stop > end:
                break
            name_at = body + _NAME_AT
            name = data[name_at : name_at + self._name_bytes]
            if name == self._flooder and flood is not None:
                run = 16 * flood.length
                if end - at >= run and flood.matches(data[at : at + run]):
                    self.messages += 16
                    at += run
                    continue
                flood.take(data[at:stop])
            elif name in self._polite:
                track, pongs = self._polite[name]
                self.answers.append(pongs[track.received % len(pongs)])
                track.take(data[at:stop])
            else:
                self._tally.corrupt += 1
            self.messages += 1
            at = stop
        self._rest = data[at:]


class Binary(End):
    """The binary's end, which reads at its own pace.

    Args:
        sock: See ``End``.
        poll: See ``End``.
        sees: Told what was read.
    """

    def __init__(self, sock: socket.socket, poll: select.epoll, sees: Mixture) -> None:
        super().__init__(sock, poll)
        self.sees = sees
        self.phase: Phase | None = None
        self.reads_again_at = 0.0
        self.unread_bytes = 0
        self._paused = False

    def on_readable(self) -> None:
        """Read once, and answer, or wait before that."""
        self.unread_bytes = max(self.unread_bytes, self._unread_bytes())
        phase = self.phase
        if phase is None or phase.binary == "fast":
            self.sees.take(self._read(READ_BYTES))
            self._answer()
            return
        before = self.sees.messages
        if phase.binary == "slow":
            data = self._read(PIECE_BYTES * 4)
            self.sees.take(data)
            self._answer()
            waits_s = len(data) / (phase.slow_mb * 1e6)
        else:
            self.sees.take(self._read(PIECE_BYTES))
            waits_s = (self.sees.messages - before) * phase.busy_us / 1e6
        # From when it should have read, so that a late turn does not make it slower.
        now = time.perf_counter()
        self.reads_again_at = max(self.reads_again_at, now - 0.002) + waits_s
        if self.reads_again_at > now:
            self._pause(True)
        else:
            self._answer()

    def go_on(self) -> None:
        """Read again: its time has come."""
        if self._paused:
            self._answer()
            self._pause(False)

    @property
    def is_paused(self) -> bool:
        """Whether it waits for ``reads_again_at``."""
        return self._paused

    def want_to_write(self, wanted: bool) -> None:
        """See ``End``; a paused binary is not woken to read."""
        self._wants_to_write = wanted
        reads = 0 if self._paused else select.EPOLLIN
        self._poll.modify(self.sock, reads | (select.EPOLLOUT if wanted else 0))

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self.want_to_write(self._wants_to_write)

    def _read(self, most_bytes: int) -> bytes:
        data = self.sock.recv(most_bytes)
        if not data:
            raise ConnectionError("the binary was cut")
        return data

    def _unread_bytes(self) -> int:
        unread = fcntl.ioctl(self.sock, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", unread)[0])

    def _answer(self) -> None:
        answers = self.sees.answers
        if answers:
            self.send(b"".join(answers))
            answers.clear()


class Flooder:
    """A phone that says its cycle of messages again and again.

    Args:
        end: Who writes.
    """

    def __init__(self, end: End) -> None:
        self._end = end
        self._stream = memoryview(b"")
        self._cycle = 1
        self.length = 1
        self.sent_bytes = 0
        self.running = False
        end.produce = self._go_on

    @property
    def sent(self) -> int:
        """Messages of this cycle that were begun."""
        return -(-self.sent_bytes // self.length)

    def start(self, messages: Sequence[bytes]) -> None:
        """Begin with a cycle of messages of one length."""
        block = b"".join(messages)
        self._cycle, self.length = len(block), len(messages[0])
        self._stream = memoryview(block * (2 + FLOOD_WRITE_BYTES // len(block)))
        self.sent_bytes = 0
        self.running = True
        self._end.want_to_write(True)

    def _go_on(self) -> None:
        most = FLOOD_WRITE_BYTES
        if not self.running:  # a message that was begun is ended
            most = -self.sent_bytes % self.length
            if not most:
                self._end.want_to_write(False)
                return
        at = self.sent_bytes % self._cycle
        self.sent_bytes += self._end.write(self._stream[at : at + most])


class Table:
    """One binary, its polite phones, and the flooder.

    Args:
        port: Of the relay.
        phones: Polite ones.
        pids: The relay's, whose processor time is shown.
    """

    def __init__(self, port: int, phones: int, pids: Sequence[int]) -> None:
        self.pids = pids
        server_id = f"fair-{os.urandom(8).hex()}"
        (binary, socks), wire = dial.dial_relay(port, server_id, phones + 1, SIZE)
        self.tally = Tally()
        self.poll = select.epoll()
        self.conn_ids = wire.conn_ids
        polite: dict[bytes, tuple[Track, list[bytes]]] = {}
        self.sees = Mixture(wire.key_of(phones), polite, self.tally)
        self.binary = Binary(binary, self.poll, self.sees)
        ends = [End(sock, self.poll) for sock in socks]
        self.phones, self.flooder = ends[:-1], Flooder(ends[-1])
        count = CYCLE_BYTES // SIZE // 8
        self.pings = [
            [wire.phone_sends(i, n) for n in range(count)] for i in range(phones)
        ]
        self.tracks: list[Track] = []
        for i, end in enumerate(self.phones):
            numbers = range(count)
            track = Track([wire.phone_sees(i, n) for n in numbers], self.tally)
            up = Track([wire.binary_sees(i, n) for n in numbers], self.tally)
            polite[wire.key_of(i)] = up, [wire.binary_sends(i, n) for n in numbers]
            self.tracks.append(track)
            end.take = partial(self._answered, i, track)
        self.asked = 0
        self.asked_at = [0.0] * phones
        self.running = False
        self.pause_s = 0.0
        self.latencies_s: list[float] = []
        self.asks_at: list[tuple[float, int]] = []
        self.by_descriptor: dict[int, End] = {
            end.sock.fileno(): end for end in (self.binary, *ends)
        }

    def leave(self) -> None:
        """Hang up without a word."""
        for end in self.by_descriptor.values():
            end.sock.close()
        self.poll.close()

    def _ask(self, phone: int) -> None:
        pings = self.pings[phone]
        self.asked += 1
        self.asked_at[phone] = time.perf_counter()
        self.phones[phone].send(pings[self.tracks[phone].received % len(pings)])

    def _answered(self, phone: int, track: Track, data: bytes) -> None:
        before = track.received
        track.take(data)
        if track.received > before:
            now = time.perf_counter()
            self.latencies_s.append(now - self.asked_at[phone])
            if not self.running:
                return
            if self.pause_s:
                self.asks_at.append((now + self.pause_s, phone))
            else:
                self._ask(phone)

    @property
    def _unanswered(self) -> int:
        return self.asked - sum(track.received for track in self.tracks)

    def _is_quiet(self) -> bool:
        flood = self.sees.flood
        return not self._unanswered and (
            flood is None or flood.received >= self.flooder.sent
        )

    def _spin(self, until: float, *, until_quiet: bool = False) -> None:
        poll, binary = self.poll.poll, self.binary
        while (now := time.perf_counter()) < until:
            if until_quiet and self._is_quiet():
                return
            if binary.is_paused and binary.reads_again_at <= now:
                binary.go_on()
            while self.asks_at and self.asks_at[0][0] <= now:
                self._ask(self.asks_at.pop(0)[1])
            wake_at = until
            if binary.is_paused:
                wake_at = min(wake_at, binary.reads_again_at)
            if self.asks_at:
                wake_at = min(wake_at, self.asks_at[0][0])
            # epoll counts whole milliseconds; what is shorter is waited for awake.
            left_s = wake_at - now
            for descriptor, event in poll(left_s - 0.001 if left_s > 0.002 else 0):
                end = self.by_descriptor[descriptor]
                if event & ~select.EPOLLOUT:
                    end.on_readable()
                if event & select.EPOLLOUT:
                    end.on_writable()

    def run(self, phase: Phase) -> dict[str, Any]:
        """Let one phase go on, and everything of it arrive.

        Returns: When it was measured, and what was seen.
        """
        binary, phones = self.binary, len(self.phones)
        binary.phase = phase
        self.sees.flood = None
        self.flooder.sent_bytes = 0
        self.pause_s = phase.pause_ms / 1000
        if phase.flood:
            wire = RelayWire(self.conn_ids, phase.flood)
            numbers = range(max(16, CYCLE_BYTES // phase.flood))
            self.sees.flood = Track(
                [wire.binary_sees(phones, n) for n in numbers], self.tally
            )
            self.flooder.start([wire.phone_sends(phones, n) for n in numbers])
        gc.collect()
        self.running = True
        for phone in range(phones):
            self._ask(phone)
        self._spin(time.perf_counter() + WARMUP_S)
        self.latencies_s.clear()
        binary.unread_bytes = 0
        relay, own = proc.cpu(self.pids), proc.own_cpu()
        began = time.perf_counter()
        flood = self.sees.flood
        flooded = flood.received if flood is not None else 0
        self._spin(began + phase.seconds)
        ended = time.perf_counter()
        relay, own = proc.cpu(self.pids) - relay, proc.own_cpu() - own
        flooded = flood.received - flooded if flood is not None else 0
        self.running = self.flooder.running = False
        if flood is not None and self.flooder.sent_bytes % self.flooder.length:
            self.flooder._end.want_to_write(True)
        # Who waits when it ends has waited that long at least.
        latencies_s = [
            *self.latencies_s,
            *(
                ended - self.asked_at[i]
                for i in range(phones)
                if ended - self.asked_at[i] > 1.0
            ),
        ]
        self.asks_at.clear()
        self._spin(ended + END_S, until_quiet=True)
        lost = self._unanswered
        if flood is not None:
            lost += self.flooder.sent - flood.received
        self.tally.lost = max(self.tally.lost, lost)
        seen = asdict(self.tally)
        self.tally.lost = self.tally.reordered = 0
        self.tally.repeated = self.tally.corrupt = 0
        return {
            "began": began,
            "ended": ended,
            "polite": spread(latencies_s),
            "flood_messages_per_s": flooded / (ended - began),
            "binary_unread_kib": binary.unread_bytes / 1024,
            "relay_busy": relay.total_s / (ended - began),
            "generator_busy": own.total_s / (ended - began),
            "faults": seen,
        }


def play(port: int, phones: int, *pids: int) -> None:
    """Be the generator: a phase a line on standard input, what was seen on the output."""
    table: Table | None = None
    gc.disable()
    print("{}", flush=True)
    for line in sys.stdin:
        phase = Phase(**json.loads(line))
        # A new one for each kind: the kernel gives a binary that reads fast a buffer
        # that a slow one would never have got.
        if table is None or table.binary.phase is None:
            table = Table(port, phones, pids)
        elif table.binary.phase.binary != phase.binary:
            table.leave()
            table = Table(port, phones, pids)
        print(json.dumps(table.run(phase)), flush=True)


PHONES_PER_BINARY = 10


def crowd(port: int, phones: int) -> None:
    """Be the crowd: flood binaries that read all of it, until the input ends."""
    binaries = -(-phones // PHONES_PER_BINARY)
    ids = [f"crowd-{os.getpid()}-{n}" for n in range(binaries)]
    poll = select.epoll()
    reads = {sock.fileno(): sock for sock in dial.upgrade(port, "binary", ids)}
    names = [ids[n % binaries] for n in range(phones)]
    writes = {sock.fileno(): sock for sock in dial.upgrade(port, "phone", names)}
    frame = text_frame(payload(0, 0, SIZE), b"mask")
    # Not in step with the frames: what the kernel takes ends anywhere.
    stream = memoryview(frame * (2 + FLOOD_WRITE_BYTES // len(frame)))
    at = dict.fromkeys(writes, 0)
    for descriptor, sock in reads.items():
        sock.setblocking(False)
        poll.register(descriptor, select.EPOLLIN)
    for descriptor, sock in writes.items():
        sock.setblocking(False)
        poll.register(descriptor, select.EPOLLOUT)
    poll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
    print("{}", flush=True)
    read_bytes = 0
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in writes:
                start = at[descriptor]
                size = writes[descriptor].send(
                    stream[start : start + FLOOD_WRITE_BYTES]
                )
                at[descriptor] = (start + size) % len(frame)
            elif descriptor in reads:
                data = reads[descriptor].recv(READ_BYTES)
                read_bytes += len(data)
                if not data:
                    raise ConnectionError("a binary of the crowd was cut")
            else:
                print(json.dumps({"read_bytes": read_bytes}), flush=True)
                return


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    numbers = map(int, sys.argv[2:])
    {"play": play, "crowd": crowd}[sys.argv[1]](*numbers)
