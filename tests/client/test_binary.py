"""The binary of the command line, against a real relay."""

import signal
from collections.abc import Iterator

import pytest

from relay_app.client.binary import Incoming, read_envelope, short_id
from relay_app.core import envelope
from relay_app.core.json_text import NotJson
from tests.client.commands import (
    SWITCH,
    Command,
    FakeRelay,
    Relay,
    binary,
    frame,
    http,
    phone,
    run,
)
from tests.peers import Peer


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay without a rate limit and without a grace period."""
    with Relay() as started:
        yield started
        started.stop()


@pytest.mark.parametrize("text", [b"null", b'{"a": [1]}', b"0.10", b'"\\ud800"'])
def test_read_envelope_inverts_what_the_relay_makes(text: bytes) -> None:
    """Frames verbatim, null among them; a notice has a code and no frame."""
    message = envelope.prefix("client-s-00ff00ff") + text + envelope.SUFFIX
    assert read_envelope(message) == Incoming("client-s-00ff00ff", text, 0)
    notice = envelope.close_notice("client-s-00ff00ff", 1001)
    assert read_envelope(notice) == Incoming("client-s-00ff00ff", None, 1001)
    assert short_id("client-s-00ff00ff") == "00ff00ff"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b"{}",
        b'{"conn_id":"a"}',
        b'{"conn_id":7,"frame":1}',
        b'{"frame":1}',
        b'{"conn_id":"a","close_code":0}',
        b'{"conn_id":"\\ud800","frame":1}',
        b'{"conn_id":"\\"","frame":1}',
        b'{"conn_id":"","frame":1}',
        b'{"conn_id":"a","frame":"\xff"}',
        b'{"conn_id":"a","close_code":-1}',
    ],
)
def test_read_envelope_refuses_anything_else(message: bytes) -> None:
    """One documented error."""
    with pytest.raises(NotJson):
        read_envelope(message)


def test_binary_shows_frames_and_notices(relay: Relay) -> None:
    """One line each: the phone's short id, then the frame on one line, or its end."""
    with binary(relay) as held:
        peer = Peer.dial(relay.url, "client", "s1")
        peer.send('{\n "a": 1}')
        held.until(lambda: held.out)
        peer.drop()
        held.until(lambda: len(held.out) == 2)
        label = held.out[0][:8]
        assert held.out == [
            f'{label} {{  "a": 1}}',
            f"{label} gone, 1001: the other side is going away (a relay that is shutting down "
            "says so in the reason)",
        ]
        assert int(label, 16) >= 0


def test_echo_keeps_phones_apart(relay: Relay) -> None:
    """Each gets its own back."""
    with binary(relay, "--echo"):
        peers = [Peer.dial(relay.url, "client", "s1") for _ in range(3)]
        for number, peer in enumerate(peers):
            peer.send(f'"{number}"')
        assert [peer.recv() for peer in peers] == ['"0"', '"1"', '"2"']
        for peer in peers:
            peer.drop()


def test_binary_comes_back_after_a_restart() -> None:
    """The relay stops, says why, and returns on the same port."""
    with Relay(env={"PYRYCODE_RELAY_DRAIN_S": "1"}) as first:
        words = (
            "--server-id",
            "s1",
            "--url",
            first.url,
            "--echo",
            "--backoff-scale",
            "0.1",
        )
        with Command("binary", *words) as held:
            held.until_said("connected")
            first.stop()
            held.until_said("closed 1001: the other side is going away")
            held.until_said("nothing listens on")
            with Relay(first.port) as second:
                held.until(lambda: sum("connected" in line for line in held.err) == 2)
                assert phone(second, "--linger", "0.3", given=["1"]).out == ["1"]
                assert held.signal(signal.SIGTERM) == 0
                second.stop()


def test_binary_gives_up_after_eight_conflicts(relay: Relay) -> None:
    """The incumbent lives; one line says what to do; exit code 1."""
    with binary(relay) as incumbent:
        words = ("--server-id", "s1", "--url", relay.url, "--backoff-scale", "0.001")
        late = run("binary", *words)
        assert late.wait() == 1
        assert sum("closed 4409" in line for line in late.err) == 7
        assert late.err[-1] == (
            "gave up: 8 times in a row another live binary held this server-id; "
            "stop that one, or take another --server-id"
        )
        assert incumbent.process.poll() is None


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "405 No", "421 Misdirected", "426 Upgrade"]
)
def test_binary_stops_on_a_final_refusal(status: str) -> None:
    """The same request would be refused again."""
    with FakeRelay(http(status, "the reason")) as fake:
        done = run("binary", "--server-id", "s1", "--url", fake.url)
    assert done.wait() == 1
    assert done.err == [f"the relay refused with status {status[:3]}: the reason"]


@pytest.mark.parametrize(
    ("asked", "wait"),
    [("3", "3.0"), ("999999999", "3600.0"), ("soon", "0.0"), ("0", "0.0")],
)
def test_binary_waits_as_the_relay_asks(asked: str, wait: str) -> None:
    """Retry-After counts when it is longer than the back-off."""
    refusal = http("503 Service Unavailable", "draining", f"Retry-After: {asked}")
    with FakeRelay(refusal, None) as fake:
        words = ("--server-id", "s1", "--url", fake.url, "--backoff-scale", "0.01")
        with Command("binary", *words) as held:
            held.until_said("next try")
            expected = (
                f"the relay refused with status 503: draining; next try in {wait} s"
            )
            assert held.err[0] == expected
            assert held.signal(signal.SIGTERM) == 0


def test_binary_ignores_what_is_no_envelope() -> None:
    """Said in one line, without the message."""
    bye = frame(8, b"\x03\xe8")
    messages = frame(1, b'"secret"') + frame(2, b"\xff")
    with (
        FakeRelay(SWITCH + messages + bye, None) as fake,
        Command("binary", "--server-id", "s1", "--url", fake.url) as held,
    ):
        held.until_said("next try")
        assert held.err[1:3] == [
            "ignored a message of the relay: not an object",
            "ignored a message of the relay: not UTF-8",
        ]
        assert "secret" not in held.said()
        assert held.signal(signal.SIGTERM) == 0
