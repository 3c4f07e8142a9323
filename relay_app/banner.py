"""What a person who starts the relay sees: where, what, how safe, what next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from relay_app.core.config import Config
from relay_app.process import AS_ROOT, is_root
from relay_app.transport.hub import Hub


def _size(size_bytes: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes % factor == 0 and size_bytes >= factor:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


def _reachable(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else listen


def our_command() -> str:
    """Say how our own command is typed from where the relay was started.

    Returns: Its bare name where the shell finds it, else a path to it, else the
    interpreter with the module.
    """
    name = "pyrycode-relay"
    if shutil.which(name):
        return name
    beside = os.path.join(os.path.dirname(sys.executable), name)
    if not os.path.exists(beside):
        return f"{sys.executable} -m relay_app"
    relative = os.path.relpath(beside)
    return beside if relative.startswith("..") else relative


def not_protected(config: Config) -> list[str]:
    """List what nothing protects, in this configuration.

    Returns: Sentences for a person, the gravest first.
    """
    sentences = ["no TLS here: put a proxy or a platform that has it in front"]
    if config.server_ids_file is None:
        sentences.append(
            "open: whoever reaches this address may claim any free server-id; the relay "
            "looks at no token, the binary does"
        )
    if is_root():
        sentences.append(AS_ROOT)
    if not config.rate_per_minute:
        sentences.append("no rate limit on upgrade attempts")
    elif not config.trusted_proxies:
        sentences.append(
            "behind a proxy all clients share its address and one rate limit, unless "
            "PYRYCODE_RELAY_TRUSTED_PROXIES names it"
        )
    return sentences


def banner(config: Config, hub: Hub, listen: Sequence[str]) -> str:
    """Word the start banner.

    Args:
        config: The settings in force.
        hub: Of the relay that has just started.
        listen: ``host:port`` of each listener.
    """
    verdict = hub.verdict
    codes = f" ({', '.join(verdict.codes)})" if verdict.codes else ""
    url = f"ws://{_reachable(listen[0])}"
    rate = (
        f"{config.rate_burst} upgrades at once and {config.rate_per_minute} a minute per address"
        if config.rate_per_minute
        else "no limit on upgrades"
    )
    access = "open to any server-id"
    if hub.allowed is not None:
        access = f"closed to all but {len(hub.allowed)} server-ids of the file"
    rows = [
        ("listening", ", ".join(listen)),
        ("access", access),
        ("version", hub.version),
        ("guard", f"{verdict.level.name}{codes}; exactly one instance may run"),
        (
            "limits",
            f"{config.max_connections} connections, {config.max_phones_per_server} phones per "
            f"server-id, {_size(config.max_frame_bytes)} per message, {rate}",
        ),
    ]
    rows += [("unprotected", sentence) for sentence in not_protected(config)]
    lines = ["", "pyrycode-relay is ready"]
    lines += [f"  {name:<12} {text}" for name, text in rows]
    lines += [
        "",
        "Try it from a second and a third terminal:",
        f"  {our_command()} binary --server-id demo --url {url} --echo",
        f"  {our_command()} phone --server-id demo --url {url}",
        "",
    ]
    return "\n".join(lines)
