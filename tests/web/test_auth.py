"""Header checks, one by one."""

from __future__ import annotations

import pytest

from relay_app.web import auth
from relay_app.web.auth import Fields, Refused

GOOD = {
    "host": "relay.test",
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "x-pyrycode-server": "id",
    "x-pyrycode-version": "1",
    "x-pyrycode-token": "t",
    "user-agent": "a",
}


def fields(*extra: tuple[str, str], **changes: str | None) -> Fields:
    """Good header fields with changes; ``None`` leaves one out, ``extra`` repeats one."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    rows = [(k, v) for k, v in (GOOD | named).items() if v is not None]
    return Fields([(k.encode(), v.encode("latin-1")) for k, v in [*rows, *extra]])


def test_good_headers_pass() -> None:
    """Everything is checked, and the token is not kept."""
    binary = auth.check_binary(fields(), has_body=False)
    assert (binary.server_id, binary.version, binary.device_name) == ("id", "1", None)
    phone = auth.check_phone(fields(x_pyrycode_device_name="d"), has_body=False)
    assert (phone.server_id, phone.version, phone.device_name) == ("id", None, "d")
    assert "t" not in {phone.key, phone.server_id, phone.version, phone.device_name}
    assert (
        auth.check_phone(fields(x_pyrycode_device_name=""), False).device_name is None
    )


@pytest.mark.parametrize("server_id", ["x", "!#[]~,;'", "a" * 128])
def test_server_id_alphabet(server_id: str) -> None:
    """1 to 128 visible ASCII characters; a comma is one of them."""
    repeated = fields(("x-pyrycode-server", server_id), x_pyrycode_server=server_id)
    assert auth.check_binary(repeated, False).server_id == server_id
    assert auth.server_id_fault(server_id) is None


@pytest.mark.parametrize(
    ("check", "changes", "words"),
    [
        ("both", {"x_pyrycode_server": None}, "x-pyrycode-server is missing"),
        ("both", {"x_pyrycode_server": ""}, "x-pyrycode-server is empty"),
        ("both", {"x_pyrycode_server": "a" * 129}, "x-pyrycode-server must be"),
        ("both", {"x_pyrycode_server": 'a"b'}, "x-pyrycode-server must be"),
        ("both", {"x_pyrycode_server": "a\\b"}, "x-pyrycode-server must be"),
        ("both", {"x_pyrycode_server": "a b"}, "x-pyrycode-server must be"),
        ("both", {"x_pyrycode_server": "ü"}, "x-pyrycode-server must be"),
        ("both", {"user_agent": None}, "user-agent is missing"),
        ("both", {"user_agent": ""}, "user-agent is empty"),
        ("both", {"sec_websocket_key": None}, "sec-websocket-key is missing"),
        ("both", {"sec_websocket_key": "short"}, "sec-websocket-key is not"),
        ("both", {"sec_websocket_key": "A" * 24}, "sec-websocket-key is not"),
        ("both", {"sec_websocket_version": None}, "version 13"),
        ("both", {"sec_websocket_version": "8"}, "version 13"),
        ("both", {"sec_websocket_version": "13, 8"}, "version 13"),
        ("binary", {"x_pyrycode_version": None}, "x-pyrycode-version is missing"),
        ("binary", {"x_pyrycode_version": "1" * 129}, "x-pyrycode-version is too long"),
        ("phone", {"x_pyrycode_token": None}, "x-pyrycode-token is missing"),
        ("phone", {"x_pyrycode_token": ""}, "x-pyrycode-token is empty"),
        ("phone", {"x_pyrycode_token": "s" * 4097}, "x-pyrycode-token is too long"),
        (
            "phone",
            {"x_pyrycode_device_name": "n" * 129},
            "x-pyrycode-device-name is too long",
        ),
    ],
)
def test_bad_header_is_400_and_named(
    check: str, changes: dict[str, str | None], words: str
) -> None:
    """The answer names the header, never its value."""
    checks = {"binary": [auth.check_binary], "phone": [auth.check_phone]}
    for judge in checks.get(check, [auth.check_binary, auth.check_phone]):
        with pytest.raises(Refused) as caught:
            judge(fields(**changes), False)
        assert caught.value.status == 400
        assert words in caught.value.detail
        value = next(iter(changes.values()))
        assert not value or len(value) < 3 or value not in caught.value.detail


def test_longest_values_pass() -> None:
    """Exactly the limits."""
    auth.check_binary(fields(x_pyrycode_version="1" * 128), False)
    auth.check_phone(
        fields(x_pyrycode_token="s" * 4096, x_pyrycode_device_name="n" * 128), False
    )


@pytest.mark.parametrize(
    "name", ["x-pyrycode-server", "x-pyrycode-token", "user-agent"]
)
def test_header_that_is_repeated_with_another_value_is_400(name: str) -> None:
    """The same value twice counts once; different ones are refused."""
    auth.check_phone(fields((name, GOOD[name])), False)
    with pytest.raises(Refused) as caught:
        auth.check_phone(fields((name, "other")), False)
    assert caught.value.detail == f"header {name} is repeated with different values"


def test_version_fault_says_which_version() -> None:
    """RFC 6455 §4.4."""
    with pytest.raises(Refused) as caught:
        auth.check_phone(fields(sec_websocket_version="8"), False)
    assert caught.value.headers == {"Sec-WebSocket-Version": "13"}


def test_version_that_is_repeated_with_another_value_says_which_version() -> None:
    """It is a version error like any other."""
    with pytest.raises(Refused) as caught:
        auth.check_phone(fields(("sec-websocket-version", "8")), False)
    assert caught.value.headers == {"Sec-WebSocket-Version": "13"}


def test_free_text_is_utf8() -> None:
    """Names of people's phones are readable in the log; junk bytes stay visible."""
    name = "Jürgens Handy".encode().decode("latin-1")
    assert auth.check_phone(fields(x_pyrycode_device_name=name), False).device_name == (
        "Jürgens Handy"
    )
    junk = auth.check_phone(fields(x_pyrycode_device_name="\xff"), False)
    assert junk.device_name == "\ufffd"
    auth.check_binary(fields(x_pyrycode_version="\xff" * 128), False)


def test_upgrade_with_a_body_is_400() -> None:
    """A body would be read as frames."""
    with pytest.raises(Refused) as caught:
        auth.check_binary(fields(), True)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("method", "protocol", "changes", "status"),
    [
        ("GET", "HTTP/1.1", {}, None),
        ("POST", "HTTP/1.1", {}, 405),
        ("HEAD", "HTTP/1.1", {}, 405),
        ("GET", "HTTP/1.0", {}, 426),
        ("GET", "HTTP/1.1", {"upgrade": None}, 426),
        ("GET", "HTTP/1.1", {"upgrade": "h2c"}, 426),
        ("GET", "HTTP/1.1", {"upgrade": "h2c, websocket"}, None),
        ("GET", "HTTP/1.1", {"connection": None}, 426),
        ("GET", "HTTP/1.1", {"connection": "not-upgrade-me"}, 426),
    ],
)
def test_check_upgrade(
    method: str, protocol: str, changes: dict[str, str | None], status: int | None
) -> None:
    """Tokens are compared whole, in any case."""
    if status is None:
        auth.check_upgrade(method, protocol, fields(**changes))
        return
    with pytest.raises(Refused) as caught:
        auth.check_upgrade(method, protocol, fields(**changes))
    assert caught.value.status == status
    assert set(caught.value.headers) <= {"Allow", "Upgrade"}


@pytest.mark.parametrize(
    ("host", "public_host", "passes"),
    [
        ("relay.test", None, True),
        ("relay.test", "relay.test", True),
        ("RELAY.test:8443", "relay.test", True),
        ("relay.test:", "relay.test", True),
        ("other.test", "relay.test", False),
        ("relay.test.evil", "relay.test", False),
        ("[::1]:80", "relay.test", False),
        (None, "relay.test", False),
    ],
)
def test_check_host(host: str | None, public_host: str | None, passes: bool) -> None:
    """Letter case and port do not count; another host is 421."""
    if passes:
        auth.check_host(fields(host=host), public_host)
        return
    with pytest.raises(Refused) as caught:
        auth.check_host(fields(host=host), public_host)
    assert caught.value.status == 421


def test_server_id_fault_is_worded_for_people() -> None:
    """For the command line."""
    assert "visible ASCII" in (auth.server_id_fault("a b") or "")
