"""Nothing secret gets out: what was planted is nowhere in what was printed or served."""

from __future__ import annotations

import signal
import sys

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
}


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
    }
    binary, extra, phone = (
        Peer.dial(relay.url, leg, server_id, changes=changes)
        for leg in ("server", "server", "client")
    )
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
    binary.raw(frame(0x83, SECRETS["payload"].encode()))
    assert binary.ending()[0] == 1002
    extra.drop()


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
            relay.signal(signal.SIGTERM)
            assert relay.wait() == 0
            assert "connection.closed" in relay.output
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
