"""A session ends by itself, or by a signal, or by a fault that is handed on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.client.commands import Command, FakeRelay, Relay, binary, run


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay without a rate limit and without a grace period."""
    with Relay() as started:
        yield started
        started.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_closes_with_1000_and_exits_0(relay: Relay, number: int) -> None:
    """Both ends, as the relay saw them."""
    with binary(relay) as held:
        with Command("phone", "--server-id", "s1", "--url", relay.url) as command:
            command.type('"hello"')
            held.until_said('"hello"')
            assert command.signal(number) == 0, command.said()
            assert command.err == ["closed 1000: an ordinary end"]
        held.until_said("gone, 1000")
        assert held.signal(number) == 0, held.said()
    relay.until(lambda: relay.closed("server"))
    assert [event["close_code"] for event in relay.closed("server")] == [1000]


def test_signal_behind_a_bad_line_exits_1(relay: Relay) -> None:
    """What was wrong stays wrong."""
    with (
        binary(relay),
        Command("phone", "--server-id", "s1", "--url", relay.url) as command,
    ):
        command.type("bad")
        command.until_said("line 1")
        assert command.signal(signal.SIGINT) == 1


@pytest.mark.parametrize("name", ["phone", "binary"])
def test_signal_while_dialling_exits_at_once(name: str) -> None:
    """A relay that does not answer holds nobody up."""
    with (
        FakeRelay(None) as fake,
        Command(name, "--server-id", "s1", "--url", fake.url) as command,
    ):
        command.until(lambda: fake.heads)
        assert command.signal(signal.SIGTERM) == 0
        assert command.err == []


def test_signal_between_two_dials_exits_0() -> None:
    """The wait of the back-off ends early."""
    with FakeRelay(b"nonsense\r\n\r\n") as fake:
        words = (
            "binary",
            "--server-id",
            "s1",
            "--url",
            fake.url,
            "--backoff-scale",
            "100",
        )
        with Command(*words) as command:
            command.until_said("next try in")
            assert command.signal(signal.SIGINT) == 0


def test_fault_of_a_session_is_handed_on(relay: Relay) -> None:
    """Standard output is closed: exit code 1, no traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with binary(relay, "--echo"):
        words = ("phone", "--server-id", "s1", "--url", relay.url)
        done = run(*words, given=['"hello"'], stdout=write_end)
    os.close(write_end)
    assert done.wait() == 1, done.said()
