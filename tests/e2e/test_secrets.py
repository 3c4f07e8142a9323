"""Nothing secret gets out: what was planted is nowhere in what was printed or served."""

from __future__ import annotations

import json
import re
import signal
import sys

from relay_app.core import events
from tests.e2e.gunicorn import FAST, Gunicorn, gunicorn
from tests.peers import Peer, ask, frame, get, upgrade_request
from tests.waiting import wait_until

SECRETS = {
    "token": "tok-3f9a-secret",
    "payload": "payload-77c1-secret",
    "user agent": "agent-51d0-secret",
    "query": "query-9b2e-secret",
    "header": "header-0c4d-secret",
    "close reason": "reason-aa12-secret",
    "push token": "push-8e33-secret",
    "server-id": "server-id-d41d-secret",
    "unknown setting": "setting-b6f7-secret",
    "path": "path-e2c5-secret",
    "foreign environment": "env-13f8-secret",
    "cookie": "cookie-4b1e-secret",
    "authorization": "authorization-c7d2-secret",
    "origin": "origin-90fa-secret",
    "forwarded": "forwarded-2d6c-secret",
    "header name": "x-name-58ee-secret",
}

HOSTILE = [
    'x" level=error event=claim.granted reason="y',
    'x","event":"internal.error","where":"forged"}',
    "x\x1b[2J\x1b]0;forged\x07",
    "x\x852\u2028{}\u2029\x9b31m\x7f",
    "x\u202egro.live\u2066\u200f\ufeff",
    "x" * 128,
]
"""What a device may be called; none has more than the 128 bytes that are allowed."""


def served(relay: Gunicorn) -> str:
    """Provoke every kind of answer, and give all of it."""
    server_id = SECRETS["server-id"]
    answers = []
    bad_headers: list[dict[str, str | None]] = [
        {"user_agent": None},
        {"x_pyrycode_server": SECRETS["header"] + " "},
        {"x_pyrycode_server": SECRETS["header"] + '"'},
        {"sec_websocket_key": SECRETS["header"]},
        {"sec_websocket_version": SECRETS["header"]},
        {"upgrade": SECRETS["header"]},
        {"x_pyrycode_device_name": SECRETS["header"] * 20},
        {"x_pyrycode_token": SECRETS["token"] * 1000},
        {"x_forwarded_for": SECRETS["forwarded"], "user_agent": ""},
        {"host": SECRETS["header"], "connection": SECRETS["header"]},
    ]
    for changes in bad_headers:
        answers.append(
            ask(relay.address, upgrade_request("client", server_id, **changes))
        )
    for path in (
        "/healthz",
        "/livez",
        f"/{SECRETS['path']}",
        f"/livez?q={SECRETS['query']}",
    ):
        answers.append(get(relay.address, path))
    answers.append(ask(relay.address, f"{SECRETS['header']}\r\n\r\n".encode()))
    answers.append(
        ask(relay.address, f"GET / HTTP/1.1\r\nA: {SECRETS['header']}\n".encode())
    )
    return repr(answers)


def talk(relay: Gunicorn) -> None:
    """Say secrets in every place where a peer can say something."""
    server_id = SECRETS["server-id"]
    changes = {
        "user-agent": SECRETS["user agent"],
        "x-pyrycode-token": SECRETS["token"],
        "cookie": SECRETS["cookie"],
        "authorization": SECRETS["authorization"],
        "origin": SECRETS["origin"],
        "x-forwarded-for": SECRETS["forwarded"],
        SECRETS["header name"]: "1",
    }
    binary, extra = (
        Peer.dial(relay.url, "server", server_id, changes=changes) for _ in range(2)
    )
    # Not "server" any more, so it has the header fields of a phone.
    path = f"client?token={SECRETS['query']}"
    phone = Peer.dial(relay.url, path, server_id, changes=changes)
    assert extra.ending()[0] == 4409
    phone.send(f'"{SECRETS["payload"]}"')
    conn_id = binary.recv_json()["conn_id"]
    binary.send(f'{{"conn_id":"{conn_id}","frame":"{SECRETS["payload"]}"}}')
    assert phone.recv() == f'"{SECRETS["payload"]}"'
    binary.send(
        f'{{"push_wake":{{"platform":"fcm","token":"{SECRETS["push token"]}"}}}}'
    )
    binary.send(f'{{"conn_id":"{SECRETS["payload"]}","frame":1}}')
    binary.send(f'{{"{SECRETS["payload"]}":')
    phone.send(SECRETS["payload"])
    assert phone.ending()[0] == 1007
    phone = relay.phone(server_id)
    phone.raw(frame(0x88, b"\x0f\xa0" + SECRETS["close reason"].encode()))
    phone.ending()
    phone = relay.phone(server_id)
    phone.raw(frame(0x81, b"\xff" + SECRETS["payload"].encode()))
    assert phone.ending()[0] == 1007
    for _ in range(FLOOD):
        binary.send(SECRETS["payload"])
    binary.raw(frame(0x83, SECRETS["payload"].encode()))
    assert binary.ending()[0] == 1002
    extra.drop()


FLOOD = 50


def boast(relay: Gunicorn) -> None:
    """Have names and versions that look like something else."""
    for said in HOSTILE:
        changes = {"x-pyrycode-device-name": said, "x-pyrycode-version": said}
        phone = Peer.dial(relay.url, "client", "nobody", changes=changes)
        assert phone.ending()[0] == 4404
        Peer.dial(relay.url, "server", "boaster", changes=changes).close()
    longer = upgrade_request("client", "nobody", x_pyrycode_device_name="x" * 129)
    assert ask(relay.address, longer)[0] == 400


NAMES = {
    kind.name
    for kind in vars(events).values()
    if isinstance(kind, type)
    and issubclass(kind, events.Event)
    and hasattr(kind, "name")
}
LINE = re.compile(
    r"\d\d:\d\d:\d\d\.\d{3} (?:debug|info|warning|error) +([a-z._]+) +\w+="
)


def check_lines(relay: Gunicorn, log_format: str) -> None:
    """Every line is one of the relay's own, and they are as many as things happened."""
    assert relay.output.replace("\n", "").isprintable()
    # The banner is for people, and comes before anybody connects.
    lines = relay.output.splitlines()
    first = next(n for n, line in enumerate(lines) if "connection." in line)
    if log_format == "json":
        found = [json.loads(line)["event"] for line in lines[first:]]
        said = [event.get("device_name") for event in relay.named("connection.opened")]
        assert set(HOSTILE) <= set(said)
    else:
        matches = [(line, LINE.match(line)) for line in lines[first:]]
        assert all(match for _, match in matches), matches
        found = [match[1] for _, match in matches if match]
    assert set(found) <= NAMES
    assert "internal.error" not in found
    assert found.count("connection.opened") == found.count("connection.closed")
    assert found.count("connection.opened") == 6 + 2 * len(HOSTILE)


def check_flood(relay: Gunicorn) -> None:
    """A few lines, and at the stop a count: nothing is missing."""
    drops = [
        event
        for event in relay.named("frame.dropped")
        if event["reason"] == "not one JSON value"
    ]
    # Two phones and the binary have sent one each before the flood.
    assert [event.get("folded") for event in drops] == [None, None, None, FLOOD]
    assert drops[3]["frames"] == FLOOD


def test_no_secret_reaches_a_log_or_an_answer() -> None:
    """Both log forms at the most talkative level, refused starts, and every answer."""
    everything = ""
    environ = {
        "PYRYCODE_RELAY_TYPO": SECRETS["unknown setting"],
        "PYRYCODE_RELAY_LOG_LEVEL": "debug",
        "SECRET_KEY": SECRETS["foreign environment"],
    }
    for log_format in ("json", "text"):
        environ["PYRYCODE_RELAY_LOG_FORMAT"] = log_format
        with gunicorn(extra=environ, **FAST) as relay:
            wait_until(lambda relay=relay: "server.started" in relay.output)
            relay.listener.close()
            everything += served(relay)
            talk(relay)
            boast(relay)
            relay.signal(signal.SIGTERM)
            assert relay.wait() == 0
            check_lines(relay, log_format)
            if log_format == "json":
                check_flood(relay)
            assert "PYRYCODE_RELAY_TYPO" in relay.output
            everything += relay.output
    for name in ("DRAIN_S", "SINGLE_INSTANCE", "PUBLIC_HOST", "TRUSTED_PROXIES"):
        settings = {name: SECRETS["unknown setting"] + "/"}
        for command in (None, [sys.executable, "-m", "relay_app", "check"]):
            relay = Gunicorn(command=command, **settings)
            assert relay.wait() == 78
            everything += relay.output
            relay.stop()
    for what, secret in SECRETS.items():
        assert secret not in everything, f"the {what} got out"
