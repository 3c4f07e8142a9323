"""One connection over a real socket pair: states, closes, back-pressure, deadlines."""

from __future__ import annotations

import _socket
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from relay_app import log
from relay_app.core.close_codes import Close
from relay_app.core.config import Config
from relay_app.transport import connection
from relay_app.transport.connection import Connection, Pool
from relay_app.transport.sweeper import Sweeper
from relay_app.transport.websocket import text_head
from tests.peers import frame
from tests.waiting import UNIT_S, wait_until


class Echo(Connection):
    """Sends every message back; remembers what the base class told it."""

    __slots__ = ("dropped", "ended", "gone", "pongs", "silent")

    def __init__(self, sock: Any, pool: Pool, *, strict: bool = True) -> None:
        super().__init__(sock, pool, 1000, strict_outbox=strict)
        self.ended: list[int] = []
        self.gone = 0
        self.pongs = 0
        self.silent = 0
        self.dropped = 0

    def on_message(self, payload: bytes) -> bool:
        if payload == b"bug":
            raise RuntimeError("a secret of the payload")
        if payload == b"twice":
            self.close(Close.NORMAL)
            self.close(Close.INTERNAL_ERROR)
        self.send(text_head(len(payload)) + payload)
        return False

    def on_alive(self) -> None:
        self.pongs += 1

    def on_end(self, code: int) -> None:
        self.ended.append(code)

    def on_gone(self) -> None:
        self.gone += 1

    def on_silence(self) -> None:
        self.silent += 1

    def on_dropped(self, frames: int) -> None:
        self.dropped += frames


class Feeder(Echo):
    """Passes every message on to the connection that it feeds."""

    __slots__ = ()

    def on_message(self, payload: bytes) -> bool:
        assert self.feeds is not None
        self.feeds.send(text_head(len(payload)) + payload)
        return self.feeds.is_choked


class Bench:
    """A pool, its sweeper, and the other ends of its connections."""

    def __init__(self, **overrides: Any) -> None:
        self.pool = Pool(Config(**overrides))
        self.sweeper = Sweeper(self.pool, lambda now: None)
        self.ends: list[socket.socket] = []

    def connect(
        self, kind: type[Echo] = Echo, early: bytes = b"", **options: Any
    ) -> Any:
        """Make a connection and the socket at its other end."""
        ours, theirs = socket.socketpair()
        sock = _socket.socket(fileno=ours.detach())
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.settimeout(20)
        self.ends.append(theirs)
        made = kind(sock, self.pool, **options)
        made.start(early)
        return made, theirs


@contextmanager
def bench(**overrides: Any) -> Iterator[Bench]:
    """Run connections for the length of a block, and end them all."""
    made = Bench(**overrides)
    try:
        yield made
    finally:
        made.sweeper.stop()
        for left in list(made.pool.connections):
            left.cut()
        for end in made.ends:
            end.close()
        assert made.pool.budget.used_bytes == 0
        assert made.pool.unfinished_bytes == 0


def read(sock: socket.socket, size: int) -> bytes:
    """Read exactly so many bytes."""
    got = b""
    while len(got) < size:
        data = sock.recv(size - len(got))
        assert data, f"the stream ended after {got!r}"
        got += data
    return got


def read_close(sock: socket.socket) -> tuple[int, str]:
    """Read one close frame."""
    first, length = read(sock, 2)
    assert first == 0x88
    body = read(sock, length)
    return (struct.unpack("!H", body[:2])[0] if body else 1005), body[2:].decode()


def masked_close(code: int) -> bytes:
    """A client's close frame."""
    return frame(0x88, struct.pack("!H", code))


def test_message_comes_back_and_early_bytes_come_first() -> None:
    """What came with the request head is the beginning of the stream."""
    with bench() as b:
        echo, end = b.connect(early=frame(0x81, b"one") + frame(0x81, b"two")[:3])
        assert read(end, 5) == b"\x81\x03one"
        end.sendall(frame(0x81, b"two")[3:])
        assert read(end, 5) == b"\x81\x03two"
        assert (echo.frames_in, echo.frames_out, echo.bytes_out) == (2, 2, 10)


def test_peer_close_is_answered_and_the_socket_closed() -> None:
    """The same code comes back, then the end of the stream; hooks run once."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(masked_close(4000) + frame(0x81, b"behind it"))
        assert read_close(end) == (4000, "")
        assert end.recv(1) == b""
        wait_until(lambda: echo.gone)
        assert (echo.ended, echo.gone, echo.close_code) == ([4000], 1, 4000)
        assert not b.pool.connections


def test_peer_close_without_code_is_answered_without_code() -> None:
    """1005 is never on the wire."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x88, b""))
        assert read_close(end) == (1005, "")
        wait_until(lambda: echo.gone)
        assert echo.ended == [1005]


def test_own_close_waits_for_the_answer_and_swallows_messages() -> None:
    """Messages after our close are dropped; the peer's close ends it."""
    with bench() as b:
        echo, end = b.connect()
        echo.close(Close.SHUTTING_DOWN)
        echo.close(Close.INTERNAL_ERROR)
        assert read_close(end) == (1001, "shutting down")
        end.sendall(
            frame(0x81, b"x")
            + frame(0x89, b"p")
            + frame(0x8A, b"")
            + masked_close(1001)
        )
        assert end.recv(1) == b""
        wait_until(lambda: echo.gone)
        assert echo.ended == [1001]
        echo.send(b"nobody hears this")
        echo.cut()
        assert echo.gone == 1


def test_first_close_wins() -> None:
    """A second close from within a handler changes nothing."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x81, b"twice") + frame(0x81, b"more"))
        assert read_close(end) == (1000, "")
        assert echo.ended == [1000]


def test_own_close_without_answer_is_cut_in_time() -> None:
    """A half-open close ends after close_timeout_s."""
    with bench(close_timeout_s=0.1 * UNIT_S) as b:
        b.sweeper.start()
        echo, end = b.connect()
        echo.close(Close.NORMAL)
        assert read_close(end) == (1000, "")
        assert end.recv(1) == b""
        wait_until(lambda: echo.gone)


@pytest.mark.parametrize("abrupt", [True, False])
def test_end_of_stream_is_an_abrupt_end(abrupt: bool) -> None:
    """A peer that goes without a close frame counts as 1001."""
    with bench() as b:
        echo, end = b.connect()
        if abrupt:
            end.sendall(b"\x81")
        end.close()
        wait_until(lambda: echo.gone)
        assert echo.ended == [1001]


def test_protocol_fault_is_told_and_the_rest_read_away() -> None:
    """The code arrives although the peer goes on sending; then our side is shut."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x81, b"ok") + frame(0xC1, b"x") + b"junk" * 1000)
        assert read(end, 4) == b"\x81\x02ok"
        assert read_close(end) == (1002, "protocol error")
        assert end.recv(1) == b""
        end.sendall(b"more junk")
        assert echo.ended == [1002]
        end.close()
        wait_until(lambda: echo.gone)


def test_protocol_fault_swallows_no_more_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that floods behind its fault is cut."""
    monkeypatch.setattr(connection, "MAX_SWALLOWED_BYTES", 1000)
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0xC1, b"x"))
        assert read_close(end) == (1002, "protocol error")
        with pytest.raises(OSError, match=r"pipe|reset"):
            while True:
                end.sendall(b"x" * 500)
        wait_until(lambda: echo.gone)


def test_fault_behind_a_stop_ends_as_any_other() -> None:
    """The fault stands in what was kept for another turn; the end is still seen."""
    with bench(close_timeout_s=300) as b:
        echo, end = b.connect(strict=False)
        end.sendall(frame(0x8A, b"") * 600 + frame(0xC1, b"x"))
        assert read_close(end) == (1002, "protocol error")
        assert echo.pongs == 600
        end.close()
        wait_until(lambda: echo.gone)


def test_flooder_leaves_others_their_turn() -> None:
    """Between two feeds of a flooder's one receive, the loop looks at the others."""
    seen: list[int] = []

    class Flooded(Echo):
        __slots__ = ()

        def _feed(self, data: bytes) -> None:
            if not seen:
                far.send(frame(0x81, b"x"))  # arrives while the flood is handled
            seen.append(other.frames_in)
            super()._feed(data)

        def on_message(self, payload: bytes) -> bool:
            return False

    with bench() as b:
        other, far = b.connect()
        flooded, end = b.connect(Flooded)
        end.sendall(frame(0x81, b"") * 8000)
        wait_until(lambda: flooded.frames_in == 8000)
        assert read(far, 3) == b"\x81\x01x"
    assert len(seen) >= 8000 // 512
    assert 1 in seen[:4]


def test_bug_in_a_handler_closes_1011_and_says_nothing_of_the_payload(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The unplanned becomes 1011; the log has lines of code, not data."""
    log.configure("json", "info")
    with bench() as b:
        _, end = b.connect()
        end.sendall(frame(0x81, b"bug"))
        assert read_close(end) == (1011, "internal error")
    record = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (record["event"], record["error"]) == ("internal.error", "RuntimeError")
    assert "secret" not in str(record)


def test_bug_in_a_hook_does_not_keep_the_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever a subclass does, the descriptor is closed."""

    class Broken(Echo):
        __slots__ = ()

        def on_end(self, code: int) -> None:
            raise RuntimeError(code)

    with bench() as b:
        broken, end = b.connect(Broken)
        end.sendall(masked_close(1000))
        assert read_close(end) == (1000, "")
        wait_until(lambda: broken.gone)
    assert "end of a connection" in capsys.readouterr().err


def test_ping_is_answered_and_pong_is_life() -> None:
    """Same payload, in order; a pong reaches the subclass."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x89, b"a") + frame(0x89, b"") + frame(0x8A, b""))
        assert read(end, 5) == b"\x8a\x01a\x8a\x00"
        wait_until(lambda: echo.pongs)


def test_silent_peer_is_pinged_then_closed() -> None:
    """Ping at the interval, 1011 at the end of the pong wait."""
    with bench(
        heartbeat_interval_s=0.1 * UNIT_S, heartbeat_timeout_s=0.15 * UNIT_S
    ) as b:
        b.sweeper.start()
        echo, end = b.connect()
        assert read(end, 2) == b"\x89\x00"
        seen = bytearray()
        while not seen.endswith(b"heartbeat timeout"):
            seen += read(end, 1)
        assert struct.unpack("!H", seen[-19:-17])[0] == 1011
        assert (echo.ended, echo.silent) == ([1011], 1)


def test_talking_peer_stays_through_many_pings() -> None:
    """Any byte counts as life, not only a pong."""
    with bench(
        heartbeat_interval_s=0.05 * UNIT_S, heartbeat_timeout_s=0.2 * UNIT_S
    ) as b:
        b.sweeper.start()
        echo, end = b.connect()
        for _ in range(12):
            assert read(end, 2) == b"\x89\x00"
            end.sendall(frame(0x81, b"x"))
            assert read(end, 3) == b"\x81\x01x"
        assert echo.is_open


@pytest.mark.parametrize(
    "begin",
    [
        b"\x81",
        frame(0x81, b"abc")[:7],
        frame(0x01, b"abc"),
        frame(0x81, b"m") + b"\x81",
    ],
)
def test_message_that_does_not_end_in_time_closes_1008(begin: bytes) -> None:
    """Part of a head, of a payload, or a fragment without its end."""
    with bench(message_timeout_s=0.1 * UNIT_S) as b:
        b.sweeper.start()
        _, end = b.connect()
        end.sendall(begin)
        if begin.endswith(b"m\x81"):
            assert read(end, 3) == b"\x81\x01m"
        assert read_close(end) == (1008, "message timeout")


def test_message_dripped_in_time_is_taken_and_idle_time_is_free() -> None:
    """Each message has its own time, from its own first byte."""
    with bench(message_timeout_s=0.3 * UNIT_S) as b:
        b.sweeper.start()
        echo, end = b.connect()
        whole = frame(0x81, b"abc")
        deadlines = set()
        for _ in range(6):
            end.sendall(whole[:4])
            wait_until(lambda: echo.message_since is not None)
            deadlines.add(echo.message_since)
            end.sendall(whole[4:] + whole[:1])
            assert read(end, 5) == b"\x81\x03abc"
            end.sendall(whole[1:])
            assert read(end, 5) == b"\x81\x03abc"
        assert len(deadlines) == 6
        assert echo.is_open


def test_reader_that_does_not_read_is_cut_at_its_bound() -> None:
    """The backlog is dropped; the frame that was begun is finished before the close."""
    with bench(outbox_max_bytes=20_000) as b:
        echo, end = b.connect()
        sent = 0
        while echo.is_open:
            end.sendall(frame(0x81, b"x" * 900))
            sent += 1
            wait_until(lambda: echo.frames_in == sent or not echo.is_open)
        assert echo.ended == [1011]
        assert echo.dropped > 10
        stream = b""
        while not stream.endswith(b"write timeout"):
            stream += read(end, 1)
        frames = stream[: -len(b"write timeout") - 4]
        assert len(frames) % 904 == 0


def test_stalled_write_closes_1011_then_cuts() -> None:
    """A peer that takes no byte for write_timeout_s is given up."""
    with bench(write_timeout_s=0.1 * UNIT_S, close_timeout_s=0.1 * UNIT_S) as b:
        b.sweeper.start()
        echo, end = b.connect(strict=False)
        echo.send(text_head(50_000) + b"x" * 50_000)
        wait_until(lambda: not echo.is_open)
        assert (echo.close_code, echo.close_reason) == (1011, "write timeout")
        wait_until(lambda: echo.gone)
        end.close()


def test_close_after_a_stall_has_its_own_time() -> None:
    """Whoever wakes up within close_timeout_s still reads the code."""
    with bench(write_timeout_s=0.1 * UNIT_S, close_timeout_s=300) as b:
        echo, end = b.connect(strict=False)
        body = b"x" * 50_000
        echo.send(text_head(len(body)) + body)
        wait_until(lambda: echo._stalled_since)
        for later in (0.2, 0.4, 10.0):
            b.sweeper.sweep(echo._stalled_since + later * UNIT_S)
        assert not echo.gone
        assert read(end, 50_004)[4:] == body
        assert read_close(end) == (1011, "write timeout")


def test_close_behind_a_stalled_backlog_is_cut() -> None:
    """A directive's close that cannot be written does not wait for ever."""
    with bench(write_timeout_s=0.1 * UNIT_S) as b:
        b.sweeper.start()
        echo, _ = b.connect(strict=False)
        echo.send(text_head(50_000) + b"x" * 50_000)
        echo.close_with(4401, "")
        wait_until(lambda: echo.gone)
        assert echo.ended == [4401]


def test_close_travels_behind_what_waits() -> None:
    """Earlier frames first, then the close."""
    with bench() as b:
        echo, end = b.connect(strict=False)
        body = b"x" * 50_000
        echo.send(text_head(len(body)) + body)
        echo.close_with(4401, "")
        assert read(end, 50_004)[4:] == body
        assert read_close(end) == (4401, "")
        end.sendall(masked_close(4401))
        wait_until(lambda: echo.gone)


def test_peer_close_that_crosses_ours_ends_at_once() -> None:
    """The peer's close comes while ours is still queued."""
    with bench() as b:
        echo, end = b.connect(strict=False)
        echo.send(text_head(50_000) + b"x" * 50_000)
        wait_until(lambda: echo.bytes_out)
        echo.close_with(4401, "")
        end.sendall(masked_close(1000))
        wait_until(lambda: echo._peer_closed)
        read(end, 50_004)
        assert read_close(end) == (4401, "")
        assert end.recv(1) == b""
        assert echo.ended == [4401]


def test_write_to_a_peer_that_is_gone_ends_the_connection() -> None:
    """A failed write is an abrupt end."""
    with bench() as b:
        echo, end = b.connect()
        echo._loop_read.stop()
        end.close()
        echo.send(b"\x81\x01x")
        wait_until(lambda: echo.gone)
        assert echo.ended == [1001]


def test_feeder_is_held_at_the_high_mark_and_goes_on_at_the_low_mark() -> None:
    """Nothing is dropped, the order is kept, and the queue stays bounded."""
    with bench(outbox_max_bytes=20_000) as b:
        sink, drain = b.connect(strict=False)
        feeder, source = b.connect(Feeder)
        feeder.feeds = sink
        payloads = [b"%06d" % n + b"." * 494 for n in range(300)]
        writer = gevent.spawn(
            lambda: [source.sendall(frame(0x81, p)) for p in payloads]
        )
        wait_until(lambda: feeder._held_by is sink)
        assert sink.outbox.queued_bytes <= 20_000 // 2 + 600
        feeder.check(1e12)  # silence means nothing while nobody reads
        for payload in payloads:
            assert read(drain, 504)[4:] == payload
        writer.join()
        assert feeder.is_open and sink.is_open


def test_flooding_feeder_has_two_shares_of_the_queue_and_others_have_room() -> None:
    """Who floods waits for what it has queued; who does not is not made to wait."""
    with bench(outbox_max_bytes=1 << 20) as b:
        sink, drain = b.connect(strict=False)
        flooder, flood = b.connect(Feeder)
        polite, source = b.connect(Feeder)
        flooder.feeds = polite.feeds = sink
        payload = b"." * 900
        writer = gevent.spawn(
            lambda: [flood.sendall(frame(0x81, payload) * 100) for _ in range(20)]
        )
        wait_until(lambda: flooder._held_by is sink)
        most = 2 * (connection.SHARE_BYTES + connection.RECEIVE_BYTES * 11 // 10)
        assert connection.SHARE_BYTES < sink.outbox.queued_bytes < most
        assert not sink.is_choked
        source.sendall(frame(0x81, b"polite"))
        wait_until(lambda: polite.frames_in == 1)
        assert polite._held_by is None
        got = bytearray()
        while len(got) < 2000 * 904 + 8:
            got += drain.recv(65536)
        writer.join()
        assert bytes(got).replace(text_head(900) + payload, b"") == b"\x81\x06polite"
        wait_until(lambda: flooder._held_by is None)


def test_many_readers_in_one_turn_get_less_each() -> None:
    """However many flood, a turn stays short; when they are few each has all again."""
    most: list[int] = []

    class Measured(Echo):
        __slots__ = ()

        def _feed(self, data: bytes) -> None:
            most.append(len(data))
            super()._feed(data)

        def on_message(self, payload: bytes) -> bool:
            return False

    with bench(message_timeout_s=300) as b:
        crowd = [b.connect(Measured) for _ in range(connection.BUSY_READERS + 1)]
        half = b"\x82\xfe\x03\xe8\0\0\0\0" + b"x" * 1000
        for rounds in (1, 2):
            most.clear()
            for _, end in crowd:
                end.sendall(half * 60)
            wait_until(lambda n=rounds: all(c.frames_in == 60 * n for c, _ in crowd))
            assert (max(most) > connection.BUSY_RECEIVE_BYTES) is (rounds == 1)
        most.clear()
        one, end = crowd[0]
        end.sendall(half)
        wait_until(lambda: one.frames_in == 121)
        end.sendall(half * 60)
        wait_until(lambda: one.frames_in == 181)
        assert max(most) > connection.BUSY_RECEIVE_BYTES


def test_unfinished_messages_together_are_bounded_and_the_oldest_goes() -> None:
    """Many who send all but the last byte cannot hold more than the total."""
    with bench(message_timeout_s=300) as b:
        b.pool._unfinished_limit = 2000
        part = frame(0x82, b"x" * 1000)[:-100]
        old, first = b.connect()
        first.sendall(part)
        wait_until(lambda: old.unfinished_bytes == 900)
        new, second = b.connect()
        second.sendall(part)
        wait_until(lambda: new.unfinished_bytes == 900)
        newest, third = b.connect()
        third.sendall(part)
        assert read_close(first) == (1008, "message timeout")
        wait_until(lambda: newest.unfinished_bytes == 900)
        assert (old.unfinished_bytes, b.pool.unfinished_bytes) == (0, 1800)
        second.sendall(b"y" * 100)
        assert read(second, 4)[:2] == b"\x81\x7e"
        wait_until(lambda: b.pool.unfinished_bytes == 900)
        third.close()
        wait_until(lambda: b.pool.unfinished_bytes == 0)


def test_control_frames_past_the_bound_close_1008() -> None:
    """So many in a second are no heartbeat; what was handled before was answered."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x8A, b"") * connection.MAX_CONTROLS)
        assert read_close(end) == (1008, "too many control frames")
        assert echo.ended == [1008]


def test_control_frames_spread_over_time_are_no_fault() -> None:
    """The bound is a rate: the count begins anew when its second has passed."""
    with bench() as b:
        echo, end = b.connect()
        end.sendall(frame(0x8A, b"") * (connection.MAX_CONTROLS - 1))
        wait_until(lambda: echo.pongs == connection.MAX_CONTROLS - 1)
        echo._controls_since -= connection.CONTROLS_S
        end.sendall(frame(0x8A, b"") * 10 + frame(0x81, b"x"))
        assert read(end, 3) == b"\x81\x01x"


def test_held_feeder_is_let_go_when_the_sink_ends() -> None:
    """The end of a binary must not leave its phones unread."""
    with bench(outbox_max_bytes=20_000) as b:
        sink, _ = b.connect(strict=False)
        feeder, source = b.connect(Feeder)
        feeder.feeds = sink
        sink.send(text_head(15_000) + b"x" * 15_000)
        wait_until(lambda: sink.is_choked)
        source.sendall(frame(0x81, b"x"))
        wait_until(lambda: feeder._held_by is sink)
        sink.cut()
        wait_until(lambda: feeder.frames_in == 1)


def test_held_feeder_that_is_closed_can_still_be_heard() -> None:
    """A close while held resumes the reading, so that the peer's answer is seen."""
    with bench(outbox_max_bytes=20_000) as b:
        sink, _ = b.connect(strict=False)
        feeder, source = b.connect(Feeder)
        feeder.feeds = sink
        sink.send(text_head(15_000) + b"x" * 15_000)
        source.sendall(frame(0x81, b"x") * 3)
        wait_until(lambda: feeder._held_by is sink)
        feeder.close(Close.NO_SERVER)
        assert read_close(source) == (4404, "no server with that id")
        source.sendall(masked_close(1000))
        wait_until(lambda: feeder.gone)


def test_budget_closes_the_largest_backlog_first() -> None:
    """Past the total, the largest goes; one that is closing already is cut."""
    with bench(outbox_max_bytes=1 << 20, outbox_total_bytes=200_000) as b:
        small, _ = b.connect(strict=False)
        large, _ = b.connect(strict=False)
        closing, _ = b.connect(strict=False)
        small.send(text_head(60_000) + b"x" * 60_000)
        closing.send(text_head(80_000) + b"x" * 80_000)
        closing.close_with(4401, "")
        wait_until(lambda: small._stalled_since and closing._stalled_since)
        large.send(text_head(70_000) + b"x" * 70_000)
        assert closing.gone
        assert small.is_open and large.is_open
        small.send(text_head(90_000) + b"x" * 90_000)
        assert not small.is_open
        assert large.is_open
        assert b.pool.budget.used_bytes <= 200_000


def test_flush_survives_a_bug_in_one_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One broken connection is cut; the others in the list are written."""

    class Stuck(Echo):
        __slots__ = ()

        def flush(self) -> None:
            raise RuntimeError("a bug")

    with bench() as b:
        stuck, _ = b.connect(Stuck)
        good, end = b.connect()
        stuck.send(b"\x81\x01x")
        good.send(b"\x81\x01x")
        assert read(end, 3) == b"\x81\x01x"
        wait_until(lambda: stuck.gone)
    assert "flush" in capsys.readouterr().err


def test_connection_that_is_cut_before_its_reader_starts() -> None:
    """The reader finds the descriptor closed and never touches it."""
    with bench() as b:
        echo, end = b.connect(early=frame(0x81, b"x"))
        echo.cut()
        assert end.recv(1) == b""
        assert echo.frames_in == 0


def test_base_class_hooks_do_nothing() -> None:
    """A subclass says what it needs to."""
    with bench() as b:
        plain, end = b.connect(
            lambda sock, pool: Connection(sock, pool, 10, strict_outbox=True)
        )
        end.sendall(frame(0x8A, b"") + frame(0x81, b"x"))
        assert read_close(end) == (1011, "internal error")
        plain.on_silence()
        plain.on_dropped(1)
        plain.on_gone()
