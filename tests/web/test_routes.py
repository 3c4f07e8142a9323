"""The routes over real sockets: every status of the contract, before the 101."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.local_relay import local_relay
from tests.peers import ask, frame, get, upgrade_request
from tests.waiting import wait_until


@pytest.mark.parametrize("leg", ["server", "client"])
@pytest.mark.parametrize(
    ("changes", "status", "extra"),
    [
        ({"x_pyrycode_server": None}, 400, {}),
        ({"sec_websocket_version": "8"}, 400, {"sec-websocket-version": "13"}),
        ({"sec_websocket_key": "x"}, 400, {}),
        ({"upgrade": None}, 426, {"upgrade": "websocket"}),
        ({"connection": "close"}, 426, {"upgrade": "websocket"}),
        ({"upgrade": None, "connection": None}, 426, {"upgrade": "websocket"}),
        ({"content_length": "5"}, 400, {}),
    ],
)
def test_refusal_is_plain_http_and_leaves_no_trace(
    leg: str, changes: dict[str, str | None], status: int, extra: dict[str, str]
) -> None:
    """No 101, no registry entry, no place held, one line of text."""
    with local_relay() as relay:
        got, fields, body = ask(relay.address, upgrade_request(leg, "id", **changes))
        assert got == status
        assert fields.items() >= extra.items()
        assert body.count(b"\n") == 1
        assert len(relay.hub.registry) == relay.hub.registry.phones == 0
        wait_until(lambda: not relay.hub.gate.taken)


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "BREW"])
@pytest.mark.parametrize("upgrade", [True, False])
def test_another_method_is_405(method: str, upgrade: bool) -> None:
    """With upgrade headers or without."""
    changes: dict[str, str | None] = (
        {} if upgrade else {"upgrade": None, "connection": None}
    )
    request = upgrade_request("server", "id", **changes).replace(
        b"GET", method.encode(), 1
    )
    with local_relay() as relay:
        status, fields, _ = ask(relay.address, request)
    assert (status, fields["allow"]) == (405, "GET")


def test_another_host_is_421() -> None:
    """When a public host is configured."""
    with local_relay(public_host="relay.example") as relay:
        assert ask(relay.address, upgrade_request("client", "id"))[0] == 421
        good = upgrade_request("client", "id", host="Relay.Example:8443")
        assert (
            ask(relay.address, good[:-2] + b"x-pyrycode-token: other\r\n\r\n")[0] == 400
        )


def test_origin_is_ignored() -> None:
    """Both ends set headers that a browser cannot forge."""
    with local_relay() as relay:
        request = upgrade_request(
            "client", "id", origin="https://evil.example", user_agent=None
        )
        assert b"user-agent" in ask(relay.address, request)[2]


def test_rate_limit_is_429_with_whole_seconds() -> None:
    """Attempts count, good or bad; the answer names no limit."""
    with local_relay(rate_burst=2, rate_per_minute=10) as relay:
        bad = upgrade_request("client", "id", user_agent=None)
        assert [ask(relay.address, bad)[0] for _ in range(2)] == [400, 400]
        status, fields, body = ask(relay.address, upgrade_request("server", "id"))
        assert (status, fields["retry-after"]) == (429, "6")
        assert body == b"too many attempts, try again later\n"


def test_rate_limit_counts_clients_behind_a_trusted_proxy() -> None:
    """X-Forwarded-For of a trusted peer decides who has spent what."""
    with local_relay(
        rate_burst=1, rate_per_minute=1, trusted_proxies=(ip_network("127.0.0.0/8"),)
    ) as relay:
        for client, expected in (("1.2.3.4", 400), ("1.2.3.4", 429), ("5.6.7.8", 400)):
            request = upgrade_request(
                "client", "id", user_agent=None, x_forwarded_for=client
            )
            assert ask(relay.address, request)[0] == expected


@pytest.mark.parametrize(
    "overrides", [{"max_connections": 2}, {"max_connections_per_ip": 2}]
)
def test_cap_is_503_until_a_socket_is_closed(overrides: dict[str, int]) -> None:
    """The place is held until the socket is closed, and given back then."""
    with local_relay(**overrides) as relay:
        binary, phone = relay.binary(), relay.phone()
        status, fields, body = ask(relay.address, upgrade_request("client", "id"))
        assert (status, fields["retry-after"]) == (503, "5")
        assert b"2" not in body
        assert get(relay.address, "/healthz")[0] == 200
        phone.close()
        wait_until(lambda: relay.hub.gate.taken == 1)
        relay.phone().sync()
        binary.sync()


def test_drain_is_503_and_not_ready_but_alive() -> None:
    """New upgrades and readiness fail; liveness stays."""
    with local_relay() as relay:
        assert get(relay.address, "/readyz")[0] == 200
        relay.hub.draining = True
        status, fields, _ = ask(relay.address, upgrade_request("server", "id"))
        assert (status, fields["retry-after"]) == (503, "5")
        status, fields, _ = get(relay.address, "/readyz")
        assert (status, fields["retry-after"]) == (503, "5")
        assert get(relay.address, "/livez")[0] == 200
        assert json.loads(get(relay.address, "/healthz")[2])["role"] == "draining"
        relay.hub.draining = False


def test_healthz_counts_and_is_not_cached() -> None:
    """A binary in grace is not counted; a phone is."""
    with local_relay() as relay:
        binary, phone, _ = relay.pair()
        status, fields, body = get(relay.address, "/healthz")
        assert status == 200
        assert fields["content-type"] == "application/json"
        assert fields["cache-control"] == "no-store"
        health = json.loads(body)
        assert list(health)[:5] == [
            "status",
            "version",
            "connected_binaries",
            "connected_phones",
            "uptime_seconds",
        ]
        assert (health["connected_binaries"], health["connected_phones"]) == (1, 1)
        binary.close()
        wait_until(lambda: relay.hub.registry.binaries == 0)
        health = json.loads(get(relay.address, "/healthz")[2])
        assert (health["connected_binaries"], health["connected_phones"]) == (0, 1)
        phone.sync()


@pytest.mark.parametrize("path", ["/", "/v1/server/", "/v1", "/v1/other", "/healthz/x"])
def test_unknown_path_is_404_in_one_line(path: str) -> None:
    """Plain text, nothing of the path in it."""
    with local_relay() as relay:
        assert get(relay.address, path)[0::2] == (404, b"not found\n")


def test_upgrade_of_an_unknown_path_is_no_101() -> None:
    """Routes decide, before anything is upgraded."""
    with local_relay() as relay:
        request = upgrade_request("server", "id").replace(b"/v1/server", b"/nowhere")
        assert ask(relay.address, request)[0] in (400, 404)


def test_server_that_cannot_upgrade_says_so() -> None:
    """Under another WSGI server the answer names the mend."""
    with local_relay() as relay:
        answer = relay.app.test_client().get("/v1/server")
    assert answer.status_code == 501
    assert "gunicorn.conf.py" in answer.text


def test_bug_in_a_route_is_500_without_detail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log has lines of code, the answer has nothing."""
    with local_relay() as relay:
        relay.hub.health = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        status, _, body = get(relay.address, "/healthz")
    assert (status, body) == (500, b"internal error\n")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_server_id_that_is_not_allowed_gets_403(tmp_path: Path) -> None:
    """A closed relay says so before the 101, on both legs, and gives the place back."""
    file = tmp_path / "ids"
    file.write_text("id\n")
    with local_relay(server_ids_file=str(file)) as relay:
        for leg in ("server", "client"):
            status, _, body = ask(relay.address, upgrade_request(leg, "other"))
            assert (status, body) == (
                403,
                b"this relay does not serve that server-id\n",
            )
        assert relay.hub.gate.taken == 0
        relay.pair("id")


@pytest.mark.parametrize(
    ("overrides", "client", "warned"),
    [
        ({}, "203.0.113.7", True),
        ({"trusted_proxies": (ip_network("127.0.0.0/8"),)}, "203.0.113.7", False),
        ({}, None, False),
    ],
)
def test_proxy_that_nobody_named_is_warned_of_once(
    overrides: dict[str, Any],
    client: str | None,
    warned: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Behind it all clients would share one rate limit; the line names the setting."""
    with local_relay(**overrides) as relay:
        for _ in range(3):
            request = upgrade_request("client", "id", x_forwarded_for=client)
            assert ask(relay.address, request + frame(0x88, b""))[0] == 101
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    found = [line for line in lines if line["event"] == "proxy.untrusted"]
    assert len(found) == warned
    if warned:
        assert found[0]["peer"] == "127.0.0.1"
        assert "PYRYCODE_RELAY_TRUSTED_PROXIES" in found[0]["detail"]
