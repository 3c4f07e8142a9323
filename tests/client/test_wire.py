"""Addresses that a person types, and what is said when a dial fails."""

import socket
import ssl

import pytest
from websockets.exceptions import InvalidProxy

from relay_app.client import wire
from tests.client.commands import SWITCH, FakeRelay, frame, http, run


@pytest.mark.parametrize(
    ("typed", "dialled"),
    [
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/client"),
        ("WSS://Relay.example/", "wss://relay.example/v1/client"),
        ("http://relay.example:80/a/b/", "ws://relay.example:80/a/b/v1/client"),
        ("https://[::1]:4430", "wss://[::1]:4430/v1/client"),
        ("ws://bücher.example", "ws://bücher.example/v1/client"),
    ],
)
def test_endpoint_takes_what_people_type(typed: str, dialled: str) -> None:
    """Four schemes, a path before ours, IPv6."""
    assert wire.endpoint(typed, "/v1/client") == dialled


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "127.0.0.1:8080",
        "ftp://relay.example",
        "ws://",
        "ws://relay.example:99999",
        "ws://[::1",
        "ws://a..b",
        "ws://user:secret@relay.example",
        "ws://relay.example/?token=secret",
        "ws://relay.example/#secret",
        "ws://relay example",
        "ws://relay.example/\x1b[2J",
    ],
)
def test_endpoint_refuses_without_quoting(typed: str) -> None:
    """A password that was pasted into the URL is not shown."""
    with pytest.raises(wire.BadUrl) as caught:
        wire.endpoint(typed, "/v1/client")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "nothing listens on host:1",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "host name in host:1 is not known",
        ),
        (ssl.SSLError("wrong version number"), "does not speak TLS"),
        (TimeoutError("timed out"), "no answer within 3 s"),
        (OSError(113, "No route to host"), "cannot reach host:1: no route to host"),
        (EOFError(), "no proper answer"),
        (OSError(), "no proper answer"),
    ],
)
def test_failure_says_what_to_look_at(fault: Exception, said: str) -> None:
    """One line, and the dial may be tried again."""
    failed = wire.failure("host:1", fault, 3)
    assert said in failed.text and failed.transient and "\n" not in failed.text


def test_failure_of_a_certificate_or_a_proxy() -> None:
    """The library's text on the certificate is quoted; a bad proxy does not mend itself."""
    fault = ssl.SSLCertVerificationError()
    fault.verify_message = "self-signed certificate\x07"
    assert wire.failure("host:1", fault, 3).text.endswith(
        "trusted: self-signed certificate?"
    )
    assert not wire.failure(
        "host:1", InvalidProxy("http://secret@x", "bad"), 3
    ).transient


def test_printable_keeps_one_short_line() -> None:
    """What the other side sent cannot draw on the terminal."""
    assert wire.printable("  \x1b[31mred\nsecond") == "?[31mred"
    assert wire.printable(" \n ") == ""
    assert len(wire.printable("x" * 1000)) == wire.MAX_QUOTED_CHARS


def test_frames_are_shown_on_one_line() -> None:
    """Line ends outside strings go; C1 controls inside them become escapes."""
    assert wire.one_line(b'{\r\n"a": 1}') == b'{  "a": 1}'
    assert (
        wire.for_terminal('["\x9b2J\x7fé"]\n'.encode())
        == '["\\u009b2J\\u007fé"] '.encode()
    )


def dial(port: int, host: str = "ws://127.0.0.1") -> list[str]:
    """What ``phone`` says when it cannot connect."""
    phone = run(
        "phone", "--server-id", "s1", "--url", f"{host}:{port}", "--linger", "0"
    )
    assert phone.wait() == 1, phone.said()
    assert not phone.out
    return phone.err


def test_refusal_before_the_101_is_one_line() -> None:
    """Status and the first line of the body, made harmless."""
    with FakeRelay(
        http("503 Service Unavailable", "no place\x1b just now\nsecond line")
    ) as fake:
        assert dial(fake.port) == [
            "the relay refused with status 503: no place? just now"
        ]
    with FakeRelay(http("404 Not Found", "")) as fake:
        assert dial(fake.port) == ["the relay refused with status 404: no reason given"]


def test_redirect_is_not_followed() -> None:
    """The headers, a token among them, are for one relay only."""
    with FakeRelay(b"") as other:
        moved = http(
            "301 Moved", "moved", f"Location: http://127.0.0.1:{other.port}/v1/client"
        )
        with FakeRelay(moved) as fake:
            assert dial(fake.port) == ["the relay refused with status 301: moved"]
        assert not other.heads


def test_nothing_there_and_no_http_there() -> None:
    """A closed port, a server that says nothing, and TLS towards a plain one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert dial(port) == [
        f"nothing listens on 127.0.0.1:{port}; start the relay there, or check --url"
    ]
    with FakeRelay(b"SSH-2.0-nothing\r\n") as fake:
        assert "gave no proper answer" in dial(fake.port)[0]
    with FakeRelay(http("400 Bad Request", "")) as fake:
        assert "does not speak TLS" in dial(fake.port, "wss://localhost")[0]
    assert "is not known" in dial(1, "ws://no-such-host.invalid")[0]


def test_close_without_a_frame_is_named() -> None:
    """The relay's process died, or the network."""
    with FakeRelay(SWITCH + frame(8, b"")) as fake:
        assert dial(fake.port) == [
            "closed 1005: the other side closed without giving a code"
        ]
