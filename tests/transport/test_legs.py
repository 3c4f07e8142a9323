"""The frame path over real sockets: verbatim both ways, and what is malformed."""

from __future__ import annotations

import json
import socket
import struct

import gevent
import pytest

from relay_app import log
from tests.local_relay import LocalRelay, local_relay
from tests.peers import frame, upgrade_request
from tests.waiting import wait_until


def warnings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The warnings logged so far."""
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [record for record in records if record["level"] == "warning"]


@pytest.mark.parametrize(
    "value",
    [
        b"0",
        b' {"a" : [1,  2], "b":"\\u00e9\\/"}\t',
        '"ü€😀"'.encode(),
        rb'"\ud800"',
        b'"' + b"x" * 262142 + b'"',
        b"[" * 512 + b"]" * 512,
    ],
)
def test_frames_go_through_to_the_byte(value: bytes) -> None:
    """Spliced in and cut out, not re-encoded; BINARY in, TEXT out."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        for send in (phone.send_binary, lambda data: phone.send(data.decode())):
            send(value)
            wrapped = binary.recv()
            assert wrapped == f'{{"conn_id":"{conn_id}","frame":{value.decode()}}}'
            binary.send(wrapped)
            assert phone.recv() == value.decode().strip()


def test_frame_over_the_limit_closes_that_phone_only() -> None:
    """1009 for the phone, a notice for the binary, nothing for the sibling."""
    with local_relay(max_frame_bytes=1000) as relay:
        binary, phone, conn_id = relay.pair()
        sibling = relay.phone()
        other = relay.introduce(binary, sibling)
        phone.raw(b"\x81\xfe" + struct.pack("!H", 1001) + b"\0\0\0\0")
        assert phone.ending() == (1009, "message too big")
        assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1009}
        sibling.send("1")
        assert binary.recv_json() == {"conn_id": other, "frame": 1}


def test_binary_may_send_back_what_a_phone_may_send() -> None:
    """Its limit is larger by the envelope; over it, it is closed."""
    with local_relay(max_frame_bytes=1000) as relay:
        binary, phone, conn_id = relay.pair()
        value = '"' + "x" * 998 + '"'
        binary.send(f'{{"conn_id":"{conn_id}","frame":{value}}}')
        assert phone.recv() == value
        binary.raw(frame(0x81, b"x" * 2024))
        binary.sync()
        binary.raw(b"\x81\xfe" + struct.pack("!H", 2025) + b"\0\0\0\0")
        assert binary.ending() == (1009, "message too big")


@pytest.mark.parametrize(
    "message", [b"", b"{", b'"\xff"', b"NaN", b"[" * 513 + b"]" * 513]
)
def test_phone_that_sends_no_json_is_closed_1007(
    message: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning, that phone goes, the binary is told after its last frame."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        phone.raw(frame(0x81, b"1") + frame(0x82, message) + frame(0x81, b"2"))
        assert phone.ending() == (1007, "invalid payload")
        assert binary.recv_json() == {"conn_id": conn_id, "frame": 1}
        assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1007}
        binary.sync()
        assert binary.inbox == []
        (warning,) = warnings(capsys)
        assert warning["event"] == "frame.dropped"


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"conn_id":1}',
        b'{"conn_id":"client-id-00000000","frame":1}',
    ],
)
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_malformed_or_misdirected_envelope_is_dropped(
    message: bytes, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning without a word of the message; the binary stays up."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        binary.raw(frame(first, message))
        binary.send(f'{{"conn_id":"{conn_id}","frame":1}}')
        assert phone.recv() == "1"
        (warning,) = warnings(capsys)
        assert warning["event"] == "frame.dropped"
        assert "00000000" not in str(warning)


def test_binary_reaches_phones_of_its_own_server_id_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another's conn_id is as good as an unknown one."""
    with local_relay() as relay:
        _, phone, conn_id = relay.pair("mine")
        stranger = relay.binary("theirs")
        stranger.send(f'{{"conn_id":"{conn_id}","frame":"stolen"}}')
        stranger.send(f'{{"conn_id":"{conn_id}","close_code":4401}}')
        stranger.sync()
        phone.sync()
        assert phone.inbox == []
        assert [w["reason"] for w in warnings(capsys)] == ["unknown conn_id"] * 2


def test_wake_request_is_taken_and_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    """Without push it is no fault, and its token is not logged."""
    log.configure("json", "debug")
    with local_relay() as relay:
        log.configure("json", "debug")
        binary = relay.binary()
        binary.send('{"push_wake":{"platform":"fcm","token":"device-secret"}}')
        binary.sync()
    printed = capsys.readouterr().err
    assert "wake.ignored" in printed
    assert "device-secret" not in printed


@pytest.mark.parametrize(
    ("directive", "code", "frames"),
    [
        ('"frame":"bye","close_code":4401', 4401, ['"bye"']),
        ('"close_code":4408', 4408, []),
        ('"frame":null,"close_code":1000', 1000, []),
        ('"close_code":1005', 1000, []),
        ('"close_code":1', 1000, []),
        ('"close_code":65535', 1000, []),
        ('"close_code":1012', 1012, []),
        ('"close_code":3000', 3000, []),
    ],
)
def test_close_directive_delivers_then_closes(
    directive: str, code: int, frames: list[str]
) -> None:
    """Earlier frames, its own frame, the close; later frames are refused; no notice."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        binary.send(f'{{"conn_id":"{conn_id}","frame":"first"}}')
        binary.send(f'{{"conn_id":"{conn_id}",{directive}}}')
        binary.send(f'{{"conn_id":"{conn_id}","frame":"too late"}}')
        assert phone.ending() == (code, "")
        assert phone.inbox == ['"first"', *frames]
        binary.sync()
        assert binary.inbox == []


def test_close_directive_over_the_bound_closes_with_its_code() -> None:
    """The backlog goes, the code stays the directive's own."""
    with local_relay(outbox_max_bytes=4096) as relay:
        binary, phone, conn_id = relay.pair()
        big = '"' + "x" * 5000 + '"'
        binary.send(f'{{"conn_id":"{conn_id}","frame":{big},"close_code":4401}}')
        assert phone.ending() == (4401, "")
        assert phone.inbox == []
        binary.sync()
        assert binary.inbox == []


@pytest.mark.parametrize(
    ("end", "code"), [("close", 1000), ("empty", 1005), ("drop", 1001), ("reset", 1001)]
)
def test_close_notice_says_how_a_phone_ended(end: str, code: int) -> None:
    """What its close frame said, 1005 for an empty one, 1001 for an abrupt end; once."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        phone.send("1")
        phone.sync()
        if end == "empty":
            phone.raw(frame(0x88, b""))
            assert phone.ending() == (1005, "")
        else:
            getattr(phone, end)()
        assert binary.recv_json() == {"conn_id": conn_id, "frame": 1}
        assert binary.recv() == f'{{"conn_id":"{conn_id}","close_code":{code}}}'
        binary.sync()
        assert binary.inbox == []


def test_phone_in_grace_stays_until_it_sends() -> None:
    """A phone that sends while no binary is there is closed 4404; a new one is accepted."""
    with local_relay() as relay:
        binary, phone, _ = relay.pair()
        binary.close()
        newcomer = relay.phone()
        newcomer.sync()
        phone.sync()
        phone.send("1")
        assert phone.ending() == (4404, "no server with that id")
        again = relay.binary()
        assert newcomer.ending() == (4404, "binary reclaimed server-id")
        again.sync()
        assert again.inbox == []


def test_phone_that_does_not_read_is_cut_and_siblings_do_not_notice() -> None:
    """1011 phone backlog full; the binary's reader never waits."""
    with local_relay(outbox_max_bytes=65536) as relay:
        binary, phone, conn_id = relay.pair()
        sibling = relay.phone()
        other = relay.introduce(binary, sibling)
        value = '"' + "x" * 30000 + '"'
        while relay.hub.registry.phones == 2:
            binary.send(f'{{"conn_id":"{conn_id}","frame":{value}}}')
            binary.send(f'{{"conn_id":"{other}","frame":1}}')
            assert sibling.recv() == "1"
        assert phone.ending() == (1011, "phone backlog full")
        notice = {"conn_id": conn_id, "close_code": 1011}
        assert binary.recv_json() == notice


def test_binary_that_does_not_read_pauses_its_phones_and_loses_nothing() -> None:
    """The relay stops reading the phones; everything arrives, in order."""
    with local_relay(outbox_max_bytes=200_000, max_frame_bytes=30_000) as relay:
        binary, phone, _ = relay.pair()
        count = 400

        def flood() -> None:
            for n in range(count):
                phone.raw(frame(0x81, b'"%06d%s"' % (n, b"x" * 20000)))

        writer = gevent.spawn(flood)
        (leg,) = (
            c for c in relay.hub.pool.connections if c.outbox.max_bytes and c.feeds
        )
        wait_until(lambda: leg._held_by is not None)
        assert leg.feeds is not None
        assert leg.feeds.outbox.queued_bytes < 200_000
        for n in range(count):
            assert binary.recv_json()["frame"][:6] == f"{n:06d}"
        writer.join()
        phone.sync()


def test_close_directive_over_the_total_closes_with_its_code() -> None:
    """The relay's own bound does not change what the binary asked for."""
    with local_relay() as relay:
        binary, phone, conn_id = relay.pair()
        relay.hub.pool.budget.limit_bytes = 2000
        big = '"' + "x" * 5000 + '"'
        binary.send(f'{{"conn_id":"{conn_id}","frame":{big},"close_code":4401}}')
        assert phone.ending() == (4401, "")
        binary.sync()


def test_frame_larger_than_the_outbox_still_reaches_the_binary() -> None:
    """Nothing is dropped to a binary, whatever the setting; pings and notices neither."""
    with local_relay(outbox_max_bytes=4096) as relay:
        binary, phone, _ = relay.pair()
        value = '"' + "x" * 200_000 + '"'
        for _ in range(3):
            phone.send(value)
        binary.ws.ping("x")
        for _ in range(3):
            assert binary.recv_json()["frame"] == value[1:-1]
        binary.sync()


def test_phone_that_joins_a_choked_binary_waits_with_its_early_frames() -> None:
    """What came with the request head is held like everything else."""
    with local_relay(outbox_max_bytes=4096, max_frame_bytes=50_100) as relay:
        binary, phone, _ = relay.pair()
        value = frame(0x81, b'"' + b"x" * 50_000 + b'"')
        flood = gevent.spawn(lambda: [phone.raw(value) for _ in range(200)])
        held = next(c for c in relay.hub.pool.connections if c.feeds is not None)
        wait_until(lambda: held._held_by is not None)
        with socket.create_connection(relay.address, timeout=20) as sock:
            sock.sendall(upgrade_request("client", "id") + frame(0x81, b'"early"'))
            assert sock.recv(65536).startswith(b"HTTP/1.1 101")
            wait_until(lambda: relay.hub.registry.phones == 2)
            choked = held._held_by
            assert choked is not None
            wait_until(lambda: len(choked._held or ()) == 2)
            frames = [binary.recv_json()["frame"] for _ in range(201)]
            assert frames.count("early") == 1
        flood.join()
        phone.sync()


def test_cap_of_phones_is_4429_and_no_server_wins() -> None:
    """Exactly the cap fits."""
    with local_relay(max_phones_per_server=2) as relay:
        binary = relay.binary()
        binary.sync()
        kept = [relay.phone(), relay.phone()]
        for phone in kept:
            phone.sync()
        assert relay.phone().ending() == (4429, "too many phones for server-id")
        assert relay.phone("other").ending() == (4404, "no server with that id")
        kept[0].close()
        relay.phone().sync()


def made(relay: LocalRelay) -> int:
    """Connections that are live."""
    return len(relay.hub.pool.connections)


def test_phone_that_was_refused_may_send_without_effect() -> None:
    """Frames right behind the request reach nobody."""
    with local_relay() as relay:
        binary = relay.binary()
        phone = relay.phone("nobody")
        phone.raw(frame(0x81, b"1") * 3)
        assert phone.ending()[0] == 4404
        binary.sync()
        assert binary.inbox == []
        wait_until(lambda: made(relay) == 1)
