"""An echo on the relay's own transport, for judges that only know how to talk to one.

The relay's application gets one more route; everything up to the message is as in
production: worker, listener, handler, pool, sweeper, connection, parser. An echo is a
connection that feeds itself, so back-pressure works as between a phone and its binary.

gunicorn loads it by name: ``gunicorn -c gunicorn.conf.py tests.autobahn.echo:create_app()``.
"""

from __future__ import annotations

from _socket import socket as PlainSocket

from flask import Flask, Response, current_app, request

from relay_app import app as relay
from relay_app.core.errors import BadPayload
from relay_app.transport.connection import Connection, Pool
from relay_app.transport.hub import Hub
from relay_app.transport.websocket import BINARY, text_head
from relay_app.web import auth

PATH = "/echo"

_FIN = 0x80


class Echo(Connection):
    """Sends every message back as what it was, TEXT or BINARY."""

    __slots__ = ()

    def __init__(self, sock: PlainSocket, pool: Pool) -> None:
        super().__init__(sock, pool, pool.config.max_frame_bytes, strict_outbox=False)
        self.feeds = self

    def on_message(self, payload: bytes) -> bool:
        """Echo a TEXT message.

        Raises:
            BadPayload: Not UTF-8; closes 1007.
        """
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise BadPayload from None
        return self._echo(text_head(len(payload)), payload)

    def on_binary(self, payload: bytes) -> bool:
        """Echo a BINARY message, whatever is in it."""
        head = bytes((_FIN | BINARY,)) + text_head(len(payload))[1:]
        return self._echo(head, payload)

    def _echo(self, head: bytes, payload: bytes) -> bool:
        self.send(head + payload)
        return self.is_choked


def echo() -> Response:
    """Serve ``/echo``: accept the upgrade, and give the socket to a connection."""
    fields = auth.Fields(request.environ["relay.headers"])
    auth.check_upgrade(request.method, request.environ["SERVER_PROTOCOL"], fields)
    hub: Hub = current_app.extensions["relay"].hub
    key = fields.required("sec-websocket-key")
    try:
        sock, early = request.environ["relay.accept"](key)
    except OSError:
        return Response(status=200)  # the peer went away: an ordinary event
    Echo(sock, hub.pool).start(early)
    return Response(status=200)


def add_echo(app: Flask) -> Flask:
    """Give a relay's application the echo."""
    app.add_url_rule(PATH, "echo", echo, websocket=True)
    return app


def create_app() -> Flask:
    """Make a relay's application, settings from the environment, with the echo."""
    return add_echo(relay.create_app())
