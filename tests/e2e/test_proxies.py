"""The proxies of ``deploy/``: real ones, with the files as they are but for addresses.

All of them stand in front of one relay. What has to stay idle is opened when they start
and looked at by the last tests of this module, so that everything else is done meanwhile.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import select
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import websocket

from relay_app.core.config import Config
from relay_app.transport.handler import MAX_HEAD_BYTES
from tests.e2e.gunicorn import ROOT, Gunicorn, gunicorn
from tests.peers import Peer, headers, upgrade_request
from tests.servers import program
from tests.waiting import DEADLINE_S, wait_until

IDLE_S = float(os.environ.get("RELAY_TEST_PROXY_IDLE_S", "130"))
"""For how long nobody says a word in a tunnel that has to live on."""

HOST = "relay.example.com"
"""As the files have it."""

ELSEWHERE = "other.example.com"
"""A host that the proxy knows and the relay does not."""

RATE_BURST = 4
FORGED = "203.0.113.7"
STARTS = 3
"""A port that was free a moment ago can be somebody else's by now."""

_hosts = itertools.count(2)


def new_source() -> str:
    """An address of this machine that no client had before, with a full bucket."""
    return f"127.0.0.{next(_hosts)}"


@dataclass
class Certificate:
    """What the proxies present and the clients trust; all paths."""

    chain: Path
    key: Path
    both: Path

    @classmethod
    def made(cls, directory: Path) -> Certificate:
        """Sign one for ``HOST`` with its own key."""
        names = ("chain.pem", "key.pem", "both.pem")
        made = cls(*(directory / name for name in names))
        subprocess.run(
            [
                *(program("openssl"), "req", "-x509", "-nodes", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
                *("-keyout", str(made.key), "-out", str(made.chain)),
            ],
            check=True,
            capture_output=True,
        )
        made.both.write_text(made.chain.read_text() + made.key.read_text())
        return made


@dataclass
class Site:
    """What differs from one run of a proxy to the next."""

    directory: Path
    certificate: Certificate
    relay: tuple[str, int]
    port: int


Changes = list[tuple[str, str]]


def changed(file: str, changes: Changes) -> str:
    """A file of ``deploy/`` with other words, each of which has to be there."""
    text = (ROOT / "deploy" / file).read_text()
    for old, new in changes:
        assert old in text, f"deploy/{file} has no {old!r}"
        text = text.replace(old, new)
    return text


OF_ROOT = [
    (line, "") for line in ("user haproxy", "group haproxy", "chroot /var/lib/haproxy")
]
"""What only root can do."""


def nginx(site: Site) -> tuple[str, list[str]]:
    """Its configuration, and how it is started."""
    temporary = "".join(
        f"\n    {name}_temp_path {site.directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
    )
    text = changed(
        "nginx.conf",
        [
            ("pid /run/", f"pid {site.directory}/"),
            ("/var/log/nginx/", f"{site.directory}/"),
            ("http {", "http {" + temporary),
            ("listen 443 ssl;", f"listen 127.0.0.1:{site.port} ssl;"),
            ("listen [::]:443 ssl;", ""),
            ("/etc/ssl/relay/fullchain.pem", str(site.certificate.chain)),
            ("/etc/ssl/relay/privkey.pem", str(site.certificate.key)),
            ("http://127.0.0.1:8080", "http://{}:{}".format(*site.relay)),
        ],
    )
    return text, ["-e", "stderr", "-g", "daemon off;", "-c"]


def caddy(site: Site) -> tuple[str, list[str]]:
    """Its configuration, and how it is started."""
    ours = f"{site.certificate.chain} {site.certificate.key}"
    text = changed(
        "Caddyfile",
        [
            ("{\n\t# All that", "{\n\tadmin off\n\tauto_https off\n\t# All that"),
            (
                f"\n{HOST} {{\n",
                f"\n{HOST}:{site.port}, {ELSEWHERE}:{site.port} {{\n\tbind 127.0.0.1\n",
            ),
            (
                "# tls /etc/ssl/relay/fullchain.pem /etc/ssl/relay/privkey.pem",
                f"tls {ours}",
            ),
            (
                "reverse_proxy 127.0.0.1:8080",
                "reverse_proxy {}:{}".format(*site.relay),
            ),
        ],
    )
    return text, ["run", "--adapter", "caddyfile", "--config"]


def haproxy(site: Site) -> tuple[str, list[str]]:
    """Its configuration, and how it is started."""
    text = changed(
        "haproxy.cfg",
        [
            ("bind :::443 v4v6", f"bind 127.0.0.1:{site.port}"),
            ("/etc/ssl/relay/relay.pem", str(site.certificate.both)),
            ("server relay 127.0.0.1:8080", "server relay {}:{}".format(*site.relay)),
            # It will not start where it may not open as many files as that takes.
            ("maxconn 11000", "maxconn 100"),
            *([] if os.geteuid() == 0 else OF_ROOT),
        ],
    )
    return text, ["-db", "-f"]


CONFIGURED: dict[str, Callable[[Site], tuple[str, list[str]]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "haproxy": haproxy,
}


@dataclass
class Proxy:
    """A proxy that runs, and the clients that dial it."""

    site: Site
    process: subprocess.Popen[bytes]
    peers: list[Peer] = field(default_factory=list)

    @property
    def logged(self) -> str:
        """All that it wrote, wherever it did."""
        return "".join(path.read_text() for path in self.site.directory.glob("*.log"))

    def connect(self, source: str) -> ssl.SSLSocket:
        """Connect from an address, and be sure whom to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.site.certificate.chain)
        plain = socket.create_connection(
            ("127.0.0.1", self.site.port), DEADLINE_S, source_address=(source, 0)
        )
        try:
            return context.wrap_socket(plain, server_hostname=HOST)
        except OSError:
            plain.close()
            raise

    def ask(
        self, request: bytes, source: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send raw bytes and read one answer, behind which a proxy may wait for more.

        Returns: Status, header fields in lower case, body.
        """
        with self.connect(source or new_source()) as sock:
            sock.sendall(request)
            with HTTPResponse(sock) as answer:
                answer.begin()
                fields = {name.lower(): value for name, value in answer.getheaders()}
                return answer.status, fields, answer.read()

    def ready(self) -> bool:
        """Whether it answers for the relay, or in place of it."""
        request = f"GET /readyz HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        try:
            return self.ask(request.encode(), "127.0.0.1")[0] in (200, 502, 503)
        except (OSError, HTTPException):
            return False

    def dial(self, leg: str, source: str | None = None, **changes: str) -> Peer:
        """Connect as a peer.

        Args:
            changes: Header fields to set; underscores stand for hyphens.
        """
        fields = headers(leg, "id")
        fields |= {name.replace("_", "-"): value for name, value in changes.items()}
        ws = websocket.create_connection(
            f"wss://{HOST}/v1/{leg}",
            socket=self.connect(source or new_source()),
            header=[f"{name}: {value}" for name, value in fields.items()],
            suppress_origin=True,
        )
        self.peers.append(Peer(ws))
        return self.peers[-1]

    def pair(self, server_id: str) -> tuple[Peer, Peer, str]:
        """Dial as both, and learn the phone's conn_id."""
        binary = self.dial("server", x_pyrycode_server=server_id)
        phone = self.dial("client", x_pyrycode_server=server_id)
        phone.send('"hello"')
        return binary, phone, binary.recv_json()["conn_id"]

    def stop(self) -> None:
        """End it and those who are still connected."""
        for peer in self.peers:
            peer.drop()
        self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(self.logged) from None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running(
    name: str, directory: Path, certificate: Certificate, relay: tuple[str, int]
) -> Iterator[Proxy]:
    """Run a proxy in front of an address for the length of a block."""
    for attempt in range(1, STARTS + 1):
        own = directory / f"{name}-{attempt}"
        own.mkdir()
        site = Site(own, certificate, relay, free_port())
        text, args = CONFIGURED[name](site)
        (own / "configuration").write_text(text)
        environ = os.environ | {"HOME": str(own)}
        environ |= {f"XDG_{kind}_HOME": str(own) for kind in ("DATA", "CONFIG")}
        with open(own / "printed.log", "ab") as printed:
            process = subprocess.Popen(
                [program(name), *args, str(own / "configuration")],
                env=environ,
                cwd=own,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
            )
        proxy = Proxy(site, process)
        try:
            wait_until(
                lambda: proxy.process.poll() is not None or proxy.ready(),
                lambda: f"{proxy.site.directory}: {proxy.logged}",
            )
            if process.poll() is None:
                yield proxy
                return
        finally:
            proxy.stop()
    raise AssertionError(proxy.logged)


@dataclass
class Idle:
    """What was opened at the start and is left alone."""

    binary: Peer
    phone: Peer
    conn_id: str
    unfinished: socket.socket
    since: float


@dataclass
class Standing:
    """All that runs for the whole module; a proxy that is not here is missing."""

    relay: Gunicorn
    certificate: Certificate
    directory: Path
    proxies: dict[str, Proxy] = field(default_factory=dict)
    idle: dict[str, Idle] = field(default_factory=dict)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A relay that pings nobody, each proxy in front of it, and an idle pair through each."""
    directory = tmp_path_factory.mktemp("proxies")
    certificate = Certificate.made(directory)
    with ExitStack() as stack:
        relay = stack.enter_context(
            gunicorn(
                measured=True,
                TRUSTED_PROXIES="127.0.0.0/8",
                PUBLIC_HOST=HOST,
                HEARTBEAT_INTERVAL_S=3600,
                RATE_BURST=RATE_BURST,
                RATE_PER_MINUTE=1,
            )
        ).ready()
        found = Standing(relay, certificate, directory)
        for name in CONFIGURED:
            with suppress(pytest.skip.Exception):
                proxy = stack.enter_context(
                    running(name, directory, certificate, relay.address)
                )
                found.proxies[name] = proxy
                pair = proxy.pair(f"idle-{name}")
                unfinished = stack.enter_context(proxy.connect(new_source()))
                unfinished.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode())
                found.idle[name] = Idle(*pair, unfinished, monotonic())
        yield found


@pytest.fixture(params=CONFIGURED)
def name(request: pytest.FixtureRequest) -> str:
    """Which proxy."""
    found: str = request.param
    program(found)
    return found


@pytest.fixture
def proxy(name: str, standing: Standing) -> Iterator[Proxy]:
    """One proxy; whoever dials it in a test has left when the test ends."""
    found = standing.proxies[name]
    before = len(found.peers)
    yield found
    for peer in found.peers[before:]:
        peer.drop()
    del found.peers[before:]


def opened(relay: Gunicorn, mark: str) -> dict[str, Any]:
    """The event of the one who said this as version or as device name."""

    def lines() -> list[dict[str, Any]]:
        return [
            event
            for event in relay.named("connection.opened")
            if mark in (event.get("version"), event.get("device_name"))
        ]

    wait_until(lines)
    (event,) = lines()
    return event


def test_frames_of_every_size_pass_both_ways(proxy: Proxy) -> None:
    """Up to the largest message, and no byte of one is another one."""
    binary, phone, conn_id = proxy.pair("frames")
    largest = Config().max_frame_bytes - len('""')
    for size in (0, 1, 125, 65536, largest):
        frame = json.dumps("x" * size)
        phone.send(frame)
        assert binary.recv() == f'{{"conn_id":"{conn_id}","frame":{frame}}}'
        binary.send(f'{{"conn_id":"{conn_id}","frame":{frame}}}')
        assert phone.recv() == frame


def test_ends_pass_both_ways(proxy: Proxy) -> None:
    """The relay's codes to both, a phone's own one, and the lack of one."""
    lonely = proxy.dial("client", x_pyrycode_server="nobody")
    assert lonely.ending() == (4404, "no server with that id")

    binary, phone, conn_id = proxy.pair("ends")
    second = proxy.dial("server", x_pyrycode_server="ends")
    binary.sync()  # answers the relay, which asks whether it is alive
    assert second.ending() == (4409, "server-id already claimed")

    phone.close(4000)
    assert binary.recv_json() == {"conn_id": conn_id, "close_code": 4000}
    silent = proxy.dial("client", x_pyrycode_server="ends")
    silent.send("1")
    conn_id = binary.recv_json()["conn_id"]
    silent.drop()
    assert binary.recv_json() == {"conn_id": conn_id, "close_code": 1001}


def test_relay_sees_the_client_and_not_what_it_claims(
    proxy: Proxy, name: str, standing: Standing
) -> None:
    """Though even the client's own address counts as a trusted proxy's here."""
    source = new_source()
    claims = {"x_forwarded_for": FORGED, "X_Forwarded_FOR": f"{FORGED}, 127.0.0.1"}
    for leg, what in (("server", "version"), ("client", "device-name")):
        mark = f"{leg} behind {name}, Grüße"
        changes = claims | {f"x_pyrycode_{what.replace('-', '_')}": mark}
        proxy.dial(leg, source, x_pyrycode_server="seen", **changes)
        assert opened(standing.relay, mark)["peer"] == source


def test_refusals_pass_as_they_are(proxy: Proxy) -> None:
    """400 and 421 with the relay's words, 429 with its header, and only for that client."""
    source = new_source()
    no_token = upgrade_request("client", "id", host=HOST, x_pyrycode_token=None)
    for _ in range(RATE_BURST):
        status, _, body = proxy.ask(no_token, source)
        assert (status, body) == (400, b"header x-pyrycode-token is missing\n")
    status, fields, body = proxy.ask(no_token, source)
    assert (status, body) == (429, b"too many attempts, try again later\n")
    assert re.fullmatch("[1-9][0-9]?", fields["retry-after"])
    assert proxy.ask(no_token)[0] == 400
    status, _, body = proxy.ask(upgrade_request("client", "id", host=ELSEWHERE))
    assert (status, body) == (421, b"this relay serves another host name\n")


def test_head_as_large_as_the_relay_takes_passes(proxy: Proxy) -> None:
    """With the longest token and one very long line; above that the relay says no."""
    fields = {"x_pyrycode_token": "t" * 4096, "host": HOST, "filler": ""}
    request = upgrade_request("client", "id", **fields)
    added = 256  # what a proxy says about itself and the client

    def with_head(size: int) -> bytes:
        line = b"x" * (size - len(request))
        return request.replace(b"filler: ", b"filler: " + line)

    assert proxy.ask(with_head(MAX_HEAD_BYTES - added))[0] == 101
    status, _, body = proxy.ask(with_head(MAX_HEAD_BYTES + 1))
    assert (status, body) == (431, b"the request head is too large\n")


def test_log_of_a_proxy_has_requests_and_no_token(
    name: str, standing: Standing, tmp_path: Path
) -> None:
    """Also when the relay is away and when the proxy refuses the head; both at once."""
    nobody = ("127.0.0.1", free_port())
    with running(name, tmp_path, standing.certificate, nobody) as proxy:
        fields: dict[str, str | None] = {"host": HOST, "x_pyrycode_token": "s3cret-1"}
        request = upgrade_request("client", "id", **fields)
        assert proxy.ask(request)[0] in (502, 503)
        fields["x_pyrycode_token"] = "s3cret-2" + "x" * 40000
        assert proxy.ask(upgrade_request("client", "id", **fields))[0] in (400, 431)
        wait_until(lambda: "/v1/client" in proxy.logged, lambda: proxy.logged)
    assert "s3cret" not in proxy.logged
    assert f"idle-{name}" not in standing.proxies[name].logged


def test_idle_tunnel_lives(proxy: Proxy, name: str, standing: Standing) -> None:
    """Nobody has said a word since the start of this module, not even the relay."""
    idle = standing.idle[name]
    left_s = max(0.0, idle.since + IDLE_S - monotonic())
    both = [idle.binary.ws, idle.phone.ws]
    assert select.select(both, [], [], left_s)[0] == [], "something came, or an end"
    idle.phone.send("2")
    assert idle.binary.recv_json() == {"conn_id": idle.conn_id, "frame": 2}
    idle.binary.send(f'{{"conn_id":"{idle.conn_id}","frame":3}}')
    assert idle.phone.recv() == "3"


def test_head_that_is_never_finished_is_given_up(
    proxy: Proxy, name: str, standing: Standing
) -> None:
    """By the proxy, since the relay has not seen any of it."""
    unfinished = standing.idle[name].unfinished
    with suppress(ConnectionResetError):
        while unfinished.recv(4096):
            pass
