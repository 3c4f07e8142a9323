"""Checks an upgrade request, before the 101. A refusal leaves no trace.

The header fields are judged as they came, not as WSGI joins them: a comma may
stand in a server-id, so a field that stands there twice must not be glued.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relay_app.core.allowlist import SERVER_ID

MAX_VERSION_CHARS = 128
MAX_TOKEN_BYTES = 4096
MAX_DEVICE_NAME_BYTES = 128

_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
"""Base64 of 16 bytes: RFC 6455 §4.1."""


class Refused(Exception):
    """An upgrade request that gets a plain HTTP answer.

    Args:
        status: Its code.
        detail: One line that names the fault and never a value.
        headers: Further header fields of the answer.
    """

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the headers said, checked.

    The token is not in here: its presence is all that counts.
    """

    key: str
    server_id: str
    version: str | None
    device_name: str | None


class Fields:
    """Header fields as they came.

    Args:
        headers: (lower-case name, value) in bytes, in order.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            self._values.setdefault(name, []).append(value)

    def all(self, name: str) -> list[str]:
        """Give every value of a field, in order."""
        return [
            value.decode("latin-1") for value in self._values.get(name.encode(), ())
        ]

    def tokens(self, name: str) -> set[str]:
        """Give the members of a comma-separated field, lower case."""
        return {
            part.strip().lower()
            for value in self.all(name)
            for part in value.split(",")
        }

    def one(self, name: str) -> str | None:
        """Give a field's value, the same value twice counting once.

        Raises:
            Refused: 400, when it stands there with different values.
        """
        values = set(self._values.get(name.encode(), ()))
        if len(values) > 1:
            raise Refused(400, f"header {name} is repeated with different values")
        return values.pop().decode("latin-1") if values else None

    def required(self, name: str) -> str:
        """Give a field's value.

        Raises:
            Refused: 400, when it is missing, empty or ambiguous.
        """
        value = self.one(name)
        if value is None:
            raise Refused(400, f"header {name} is missing")
        if not value:
            raise Refused(400, f"header {name} is empty")
        return value


def check_upgrade(method: str, protocol: str, fields: Fields) -> None:
    """Tell whether this is an upgrade request at all.

    Raises:
        Refused: 405 for another method, 426 for anything but a WebSocket upgrade.

    Source: RFC 6455 §4.2.1; RFC 9110 §7.8, §15.5.22.
    """
    if method != "GET":
        raise Refused(405, "use GET", {"Allow": "GET"})
    if (
        protocol != "HTTP/1.1"
        or "websocket" not in fields.tokens("upgrade")
        or "upgrade" not in fields.tokens("connection")
    ):
        raise Refused(426, "this path speaks WebSocket", {"Upgrade": "websocket"})


def check_host(fields: Fields, public_host: str | None) -> None:
    """Tell whether the request is for this host; case and port do not count.

    Raises:
        Refused: 421.
    """
    if public_host is None:
        return
    host = (fields.one("host") or "").lower()
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) else host
    if name != public_host:
        raise Refused(421, "this relay serves another host name")


def check_binary(fields: Fields, has_body: bool) -> Credentials:
    """Check the headers of ``/v1/server``.

    Raises:
        Refused: 400, with the header at fault.

    Source: docs/protocol.md "Upgrade request".
    """
    key = _check_websocket(fields, has_body)
    server_id = _server_id(fields)
    version = _for_the_log(fields.required("x-pyrycode-version"))
    if len(version) > MAX_VERSION_CHARS:
        raise Refused(400, "header x-pyrycode-version is too long")
    fields.required("user-agent")
    return Credentials(key, server_id, version, None)


def check_phone(fields: Fields, has_body: bool) -> Credentials:
    """Check the headers of ``/v1/client``.

    Raises:
        Refused: 400, with the header at fault.

    Source: docs/protocol.md "Upgrade request".
    """
    key = _check_websocket(fields, has_body)
    server_id = _server_id(fields)
    if len(fields.required("x-pyrycode-token")) > MAX_TOKEN_BYTES:
        raise Refused(400, "header x-pyrycode-token is too long")
    fields.required("user-agent")
    device_name = fields.one("x-pyrycode-device-name")
    if device_name is not None and len(device_name) > MAX_DEVICE_NAME_BYTES:
        raise Refused(400, "header x-pyrycode-device-name is too long")
    return Credentials(key, server_id, None, _for_the_log(device_name or "") or None)


def _check_websocket(fields: Fields, has_body: bool) -> str:
    if has_body:
        raise Refused(400, "an upgrade request has no body")
    if set(fields.all("sec-websocket-version")) != {"13"}:
        raise Refused(
            400, "WebSocket version 13 is needed", {"Sec-WebSocket-Version": "13"}
        )
    key = fields.required("sec-websocket-key")
    if not _KEY.fullmatch(key):
        raise Refused(400, "header sec-websocket-key is not 16 bytes in base64")
    return key


def _for_the_log(value: str) -> str:
    """Read a free text as UTF-8, which is what real peers send."""
    return value.encode("latin-1").decode("utf-8", "replace")


def _server_id(fields: Fields) -> str:
    server_id = fields.required("x-pyrycode-server")
    if not SERVER_ID.fullmatch(server_id):
        raise Refused(
            400,
            "header x-pyrycode-server must be 1 to 128 visible ASCII characters "
            "without quote and backslash",
        )
    return server_id


def server_id_fault(server_id: str) -> str | None:
    """Say what is wrong with a server-id that a person typed; ``None`` for nothing."""
    if SERVER_ID.fullmatch(server_id):
        return None
    return (
        "a server-id is 1 to 128 visible ASCII characters without quote and backslash"
    )
