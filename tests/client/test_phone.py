"""The phone of the command line, against a real relay."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_app.client.phone import read_lines
from tests.client.commands import (
    SWITCH,
    Command,
    FakeRelay,
    Relay,
    Terminal,
    binary,
    frame,
    phone,
    run,
)
from tests.peers import Peer

HELLO = '{"v":2,"type":"noise_init","data":"aGVsbG8="}'


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay without a rate limit and without a grace period."""
    with Relay() as started:
        yield started
        started.stop()


def test_read_lines_gives_whole_lines_as_they_come() -> None:
    """Line ends of both kinds go, a last line without one counts."""
    source, sink = socket.socketpair()
    with source, sink:
        sink.sendall(b"one\r\ntwo\n\nla")
        lines = read_lines(source.fileno())
        assert [next(lines), next(lines), next(lines)] == [b"one", b"two", b""]
        sink.sendall(b"st")
        sink.shutdown(socket.SHUT_WR)
        assert list(lines) == [b"last"]


def test_phone_gets_its_echo(relay: Relay) -> None:
    """Frames come back verbatim, one per line; an ordinary end is exit code 0."""
    big = json.dumps({"big": "é" * 50000}, ensure_ascii=False)
    with binary(relay, "--echo"):
        done = phone(relay, "--linger", "0.5", given=[HELLO, "[1, 2]", big])
    assert done.wait() == 0, done.said()
    assert done.out == [HELLO, "[1, 2]", big]
    assert done.err == ["closed 1000: an ordinary end"]


def test_phone_reports_bad_lines_and_goes_on(relay: Relay) -> None:
    """Number and fault; the line is not sent and not shown; exit code 1."""
    given = ["{secret}", "[1]", "", "[NaN]", "[" * 600 + "]" * 600, "2"]
    with binary(relay, "--echo") as held:
        done = phone(relay, "--linger", "0.5", given=given)
        held.until_said("gone")
    assert done.wait() == 1
    assert done.out == ["[1]", "2"]
    assert done.err == [
        "line 1 is not one JSON value; it was not sent",
        "line 3 is not one JSON value; it was not sent",
        "line 4 is not one JSON value; it was not sent",
        "line 5 is nested too deep; it was not sent",
        "closed 1000: an ordinary end",
    ]


def test_phone_without_its_binary(relay: Relay) -> None:
    """The close code in words, with the relay's reason; exit code 1."""
    done = phone(relay)
    assert done.wait() == 1
    assert done.err == [
        "closed 4404: no binary holds that server-id just now; trying again is right; "
        "reason: no server with that id"
    ]


def test_phone_that_is_limited() -> None:
    """A refusal before the 101: status and the relay's own words."""
    settings = {"PYRYCODE_RELAY_RATE_PER_MINUTE": "1", "PYRYCODE_RELAY_RATE_BURST": "1"}
    with Relay(env=settings) as relay:
        phone(relay)
        done = phone(relay)
        assert done.wait() == 1
        assert done.err == [
            "the relay refused with status 429: too many attempts, try again later"
        ]
        relay.stop()


def test_phone_sends_its_device_name_and_never_shows_its_token(relay: Relay) -> None:
    """The name is in the relay's log, the token nowhere."""
    with binary(relay, "--echo") as held:
        words = (
            "--token",
            "tok-5f3a",
            "--device-name",
            "Ann's phone",
            "--linger",
            "0.3",
        )
        done = phone(relay, *words, given=[HELLO, "bad"])
        held.until_said("gone")
    opened = [json.loads(line) for line in relay.err if '"leg":"client"' in line]
    assert opened[0]["device_name"] == "Ann's phone"
    assert "tok-5f3a" not in done.said() + held.said() + relay.said()


def test_phone_lingers_while_answers_come(relay: Relay) -> None:
    """Each frame that comes in prolongs the wait behind the end of the input."""
    held = Peer.dial(relay.url, "server", "s1")
    with Command(
        "phone", "--server-id", "s1", "--url", relay.url, "--linger", "0.4"
    ) as command:
        command.type(HELLO)
        command.end_input()
        conn_id = held.recv_json()["conn_id"]
        for number in range(5):
            held.send(json.dumps({"conn_id": conn_id, "frame": number}))
            command.until(lambda number=number: str(number) in command.out)
        assert command.wait() == 0
    held.drop()


def test_phone_that_its_binary_closes(relay: Relay) -> None:
    """A code of the binary is not an ordinary end; input that waits does not hold it up."""
    held = Peer.dial(relay.url, "server", "s1")
    with Command("phone", "--server-id", "s1", "--url", relay.url) as command:
        command.type(HELLO)
        conn_id = held.recv_json()["conn_id"]
        held.send(
            json.dumps({"conn_id": conn_id, "frame": {"bye": 1}, "close_code": 4401})
        )
        assert command.wait() == 1
        assert json.loads(command.out[0]) == {"bye": 1}
        assert command.err[0].startswith(
            "closed 4401: the binary ended this session for good"
        )
    held.drop()


def test_phone_closes_on_what_a_real_one_refuses() -> None:
    """1003 on BINARY, 1009 on a text over 131072 characters, whatever its bytes."""
    too_long = ('"' + "é" * 131071 + '"').encode()
    for message, code in ((frame(2, b"x"), 1003), (frame(1, too_long), 1009)):
        with FakeRelay(SWITCH + message) as fake:
            done = run("phone", "--server-id", "s1", "--url", fake.url)
            assert (done.wait(), done.out, fake.close_codes) == (1, [], [code]), (
                done.said()
            )
            assert done.err[0].startswith(f"closed {code}")


def test_phone_whose_input_cannot_be_read(relay: Relay, tmp_path: Path) -> None:
    """Here: it is open for writing only."""
    with binary(relay), (tmp_path / "log").open("w") as write_only:
        words = ("phone", "--server-id", "s1", "--url", relay.url, "--linger", "0")
        done = run(*words, stdin=write_only)
    assert done.wait() == 1
    assert done.err[0] == "standard input cannot be read beyond line 0"


def test_phone_at_a_terminal(relay: Relay) -> None:
    """A greeting, and frames that the terminal does not take for commands."""
    with binary(relay, "--echo") as held, Terminal() as terminal:
        words = ("phone", "--server-id", "s1", "--url", relay.url, "--linger", "0.3")
        with Command(*words, stdin=terminal.end, stdout=terminal.end) as command:
            terminal.leave()
            command.until_said("connected; type one JSON value per line")
            terminal.type('["\x9b2J"]\n'.encode())
            held.until_said("2J")
            terminal.type(b"\x04")
            assert command.wait() == 0, command.said()
        assert b'["\\u009b2J"]' in terminal.wait()


def test_phone_without_input_joins_and_leaves(relay: Relay) -> None:
    """With an empty input and no linger."""
    with binary(relay):
        words = ("phone", "--server-id", "s1", "--url", relay.url, "--linger", "0")
        assert run(*words, stdin=subprocess.DEVNULL).wait() == 0
