"""Request heads: one deadline, one bound, RFC 9112 to the letter, one request each."""

from __future__ import annotations

import json
import socket

import h11
import pytest

from relay_app.transport import handler
from relay_app.transport.handler import HeadFault, parse_head
from tests.local_relay import local_relay
from tests.peers import ask, frame, get, parse_answer, upgrade_request
from tests.waiting import UNIT_S, wait_until


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\xc3T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_parse_head_refuses_what_rfc_9112_does(head: bytes, status: int) -> None:
    """Smuggling shapes, folded lines, bare LF, bad fields: each has its status."""
    with pytest.raises(HeadFault) as caught:
        parse_head(head)
    assert caught.value.status.startswith(str(status))


def test_parse_head_gives_fields_as_they_came() -> None:
    """Names in lower case, values untouched, repeats kept apart."""
    request = parse_head(
        b"GET /x?y HTTP/1.1\r\nHost: a\r\nX-A:  b \r\nx-a: c,d\r\n\r\n"
    )
    assert isinstance(request, h11.Request)
    assert list(request.headers) == [(b"host", b"a"), (b"x-a", b"b"), (b"x-a", b"c,d")]
    assert parse_head(b"GET / HTTP/1.0\r\n\r\n").http_version == b"1.0"


def test_head_that_is_slow_gets_408() -> None:
    """One deadline for the whole head, however it drips."""
    with (
        local_relay(handshake_timeout_s=0.2 * UNIT_S) as relay,
        socket.create_connection(relay.address, timeout=20) as sock,
    ):
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 17_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 16_370 + b"\r\n\r\n",
    ],
)
def test_head_that_is_too_large_gets_431(head: bytes) -> None:
    """16 KiB and no more, and the answer is not lost to a reset."""
    with local_relay() as relay:
        assert ask(relay.address, head)[0] == 431


def test_head_with_bare_lf_is_refused_at_once() -> None:
    """It does not wait for a blank line that will not come."""
    with local_relay() as relay:
        status, fields, body = ask(relay.address, b"GET / HTTP/1.1\nHost: a\n\n")
    assert (status, body) == (400, b"a line ends without CR\n")
    assert fields["connection"] == "close"


def test_peer_that_goes_before_its_head_is_complete_is_forgotten() -> None:
    """No answer, no log line, no greenlet."""
    with local_relay() as relay:
        for part in (b"", b"GET / HT"):
            with socket.create_connection(relay.address) as sock:
                sock.sendall(part)


def test_peer_that_resets_is_forgotten() -> None:
    """An error while reading the head is nobody's fault."""
    with local_relay() as relay, socket.create_connection(relay.address) as sock:
        sock.sendall(b"GET")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_one_request_per_connection() -> None:
    """What is behind a head is never read as a second request."""
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    with local_relay() as relay:
        status, fields, body = ask(relay.address, request * 3)
    assert (status, body) == (200, b"alive\n")
    assert fields["connection"] == "close"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n"
        + b"x" * 30000,
        b"POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_request_with_a_body_gets_its_answer(request_bytes: bytes) -> None:
    """The body is read away, so that the answer is not lost."""
    with local_relay() as relay:
        status, fields, _ = ask(relay.address, request_bytes)
    assert (status, fields["allow"]) == (405, "GET")


def test_body_that_never_ends_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bound and a deadline for what is read away."""
    monkeypatch.setattr(handler, "LINGER_S", 0.1 * UNIT_S)
    head = b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n"
    with (
        local_relay() as relay,
        socket.create_connection(relay.address, timeout=20) as sock,
    ):
        sock.sendall(head)
        assert sock.recv(65536).startswith(b"HTTP/1.1 405")
        while sock.recv(65536):
            pass


@pytest.mark.parametrize(
    "target", ["/livez", "http://relay.test/livez?x=1", "/%6civez"]
)
def test_target_in_origin_or_absolute_form(target: str) -> None:
    """Both forms that RFC 9112 §3.2 asks a server to take."""
    with local_relay() as relay:
        assert get(relay.address, target)[0] == 200


@pytest.mark.parametrize(
    "target", ["*", "livez", "ftp://x/livez", "http:///livez", "http://[zz]/"]
)
def test_target_in_another_form_is_refused(target: str) -> None:
    """Everything else is 400."""
    with local_relay() as relay:
        assert get(relay.address, target)[0] == 400


def test_absolute_target_without_path_is_the_root() -> None:
    """There is nothing at the root."""
    with local_relay() as relay:
        assert get(relay.address, "http://relay.test")[0] == 404


def test_header_with_underscore_does_not_pose_as_another() -> None:
    """A field that WSGI could not tell from X-Forwarded-For is left out."""
    with local_relay() as relay:
        head = b"GET /livez HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\nA: 1\r\nA: 2\r\n\r\n"
        assert ask(relay.address, head)[0] == 200


def test_accept_answers_as_rfc_6455_says_and_hands_early_frames_on() -> None:
    """The sample key's answer; frames in the head's segment are not lost."""
    with local_relay() as relay:
        binary = relay.binary()
        with socket.create_connection(relay.address, timeout=20) as sock:
            sock.sendall(upgrade_request("client", "id") + frame(0x81, b'"early"'))
            status, fields, rest = parse_answer(sock.recv(65536))
            assert (status, rest) == (101, b"")
            assert fields == {
                "upgrade": "websocket",
                "connection": "Upgrade",
                "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            }
            assert binary.recv_json()["frame"] == "early"


def test_peer_that_goes_before_its_101_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary event: the place is given back, nothing is logged or answered."""

    def gone(self: handler.Handler, data: bytes) -> None:
        raise ConnectionResetError

    with local_relay() as relay:
        with monkeypatch.context() as patched:
            patched.setattr(handler.Handler, "write", gone)
            with socket.create_connection(relay.address, timeout=20) as sock:
                sock.sendall(upgrade_request("server", "id"))
                assert sock.recv(100) == b""
        wait_until(lambda: not relay.hub.gate.taken)
        assert len(relay.hub.registry) == 0
        printed = capsys.readouterr()
    assert "error" not in printed.err
    assert "Traceback" not in printed.err + printed.out


def test_bug_in_the_handler_is_logged_without_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """gevent never gets to print a traceback with what a peer sent."""

    def broken(head: bytes) -> None:
        raise RuntimeError(head)

    monkeypatch.setattr(handler, "parse_head", broken)
    with (
        local_relay() as relay,
        socket.create_connection(relay.address, timeout=20) as sock,
    ):
        sock.sendall(b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(100) == b""
        printed = capsys.readouterr().err
    assert "RuntimeError" in printed
    assert "secret" not in printed


def test_bug_behind_the_upgrade_is_logged_and_the_socket_not_touched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The handler writes nothing into a stream that it gave away."""
    with local_relay() as relay:
        original = relay.hub.open_binary

        def broken(sock: object, early: bytes, peer: object) -> None:
            original(sock, early, peer)  # type: ignore[arg-type]
            raise RuntimeError("a bug")

        relay.hub.open_binary = broken  # type: ignore[method-assign]
        binary = relay.binary()
        binary.sync()
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "internal.error" in {record["event"] for record in records}


def test_bug_in_the_application_is_answered_500(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An exception that gets past Flask is logged without its words."""
    with local_relay() as relay:

        def broken(environ: object, start_response: object) -> None:
            raise RuntimeError("secret")

        relay.server.application = broken
        assert get(relay.address, "/livez")[0] == 500
    printed = capsys.readouterr().err
    assert "RuntimeError" in printed
    assert "secret" not in printed
