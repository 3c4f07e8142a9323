"""The routes: phone, binary, health.

Each upgrade path has two rules, since Werkzeug sends requests with upgrade headers
only to rules that ask for them and everything else only to rules that do not. Both
end in the same function, which judges the request itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from relay_app import log
from relay_app.core import events, policy
from relay_app.core.policy import Admission
from relay_app.transport.hub import Hub, Peer
from relay_app.web import auth
from relay_app.web.auth import Credentials, Fields, Refused

blueprint = Blueprint("relay", __name__)


def _hub() -> Hub:
    hub: Hub = current_app.extensions["relay"].hub
    return hub


def _unsent() -> Response:
    """Make what a view returns behind an upgrade: the socket is not the server's any more."""
    return Response(status=200)


def _text(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    response = Response(detail + "\n", status, content_type="text/plain; charset=utf-8")
    response.headers.update(headers or {})
    return response


def _upgrade(
    leg: str,
    check: Callable[[Fields, bool], Credentials],
    take_over: Callable[[Any, bytes, Peer], None],
) -> Response:
    """Check an upgrade request, answer 101, and give the socket to the hub.

    The order: is it an upgrade at all, is it for this host, is there a place for
    it, are its headers right. The place is held from before the header checks.
    """
    hub = _hub()
    environ = request.environ
    accept = environ.get("relay.accept")
    if accept is None:
        raise Refused(
            501, "this server cannot upgrade; start the relay with its gunicorn.conf.py"
        )
    fields = Fields(environ["relay.headers"])
    auth.check_upgrade(environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"], fields)
    auth.check_host(fields, hub.config.public_host)
    peer, forwarded = environ["REMOTE_ADDR"], fields.all("x-forwarded-for")
    if forwarded:
        hub.forwarded_by(peer)
    address = policy.client_address(peer, forwarded, hub.config.trusted_proxies)
    source = policy.source(address)
    admission, retry_after_s = hub.admit(source)
    if admission is not Admission.ADMITTED:
        log.emit(
            events.ConnectionRefused(leg=leg, peer=address, reason=admission.value),
            source,
        )
        limited = admission is Admission.RATE_LIMITED
        raise Refused(
            429 if limited else 503,
            "too many attempts, try again later"
            if limited
            else "no place just now, try again later",
            {"Retry-After": str(retry_after_s)},
        )
    taken = False
    try:
        credentials = check(fields, environ["relay.has_body"])
        if not hub.allows(credentials.server_id):
            reason = Admission.NOT_ALLOWED.value
            refused = events.ConnectionRefused(leg=leg, peer=address, reason=reason)
            log.emit(refused, source)
            raise Refused(403, "this relay does not serve that server-id")
        try:
            sock, early = accept(credentials.key)
        except OSError:
            return _unsent()  # the peer went away: an ordinary event
        taken = True
    finally:
        if not taken:
            hub.leave(source)
    take_over(
        sock,
        early,
        Peer(
            address=address,
            source=source,
            server_id=credentials.server_id,
            version=credentials.version,
            device_name=credentials.device_name,
        ),
    )
    return _unsent()


def binary() -> Response:
    """Serve ``/v1/server``: a binary claims its server-id."""
    return _upgrade("server", auth.check_binary, _hub().open_binary)


def phone() -> Response:
    """Serve ``/v1/client``: a phone joins a held server-id."""
    return _upgrade("client", auth.check_phone, _hub().open_phone)


for _path, _view in (("/v1/server", binary), ("/v1/client", phone)):
    for _kind, _websocket in (("upgrade", True), ("plain", False)):
        blueprint.add_url_rule(
            _path,
            f"{_view.__name__}_{_kind}",
            _view,
            methods=["GET"],
            websocket=_websocket,
            provide_automatic_options=False,
        )


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say how the relay is, as JSON. Never limited.

    Source: docs/protocol.md "/healthz".
    """
    response = jsonify(_hub().health())
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/livez")
def livez() -> Response:
    """Answer 200 for as long as anything listens."""
    return _text(200, "alive", {"Cache-Control": "no-store"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 while upgrades are taken, 503 during the drain."""
    if _hub().draining:
        return _text(
            503,
            "draining",
            {"Cache-Control": "no-store", "Retry-After": str(policy.CAP_RETRY_AFTER_S)},
        )
    return _text(200, "ready", {"Cache-Control": "no-store"})


@blueprint.app_errorhandler(Refused)
def refused(fault: Refused) -> Response:
    """Answer a refused upgrade as plain HTTP."""
    return _text(fault.status, fault.detail, fault.headers)


@blueprint.app_errorhandler(HTTPException)
def http_error(fault: HTTPException) -> Response:
    """Answer what no route takes, in one line of text."""
    status = fault.code or 500
    headers = {"Allow": "GET"} if status == 405 else {}
    return _text(status, fault.name.lower(), headers)


@blueprint.app_errorhandler(Exception)
def internal_error(fault: Exception) -> Response:
    """Answer a bug without a detail; the log has the lines of code."""
    log.error("route", fault)
    return _text(500, "internal error")
