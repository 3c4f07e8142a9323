"""The start banner: where, what, how safe, what next."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from relay_app.app import create_app
from relay_app.banner import banner, not_protected, our_command
from relay_app.core.config import Config


def text(listen: str = "127.0.0.1:8080", **overrides: Any) -> str:
    """The banner of a relay."""
    config = Config(**overrides)
    return banner(config, create_app(config).extensions["relay"].hub, [listen])


def test_banner_says_everything_a_newcomer_needs() -> None:
    """Where it listens, version, verdict, limits, what is unprotected, what to paste."""
    shown = text()
    assert "listening    127.0.0.1:8080" in shown
    assert "version      " in shown
    assert "guard        FINE; exactly one instance" in shown
    assert "10000 connections, 16 phones per server-id, 256 KiB per message" in shown
    assert "20 upgrades at once and 10 a minute per address" in shown
    assert "unprotected  no TLS here" in shown
    url = "ws://127.0.0.1:8080"
    assert f"  {our_command()} binary --server-id demo --url {url} --echo\n" in shown
    assert f"  {our_command()} phone --server-id demo --url {url}\n" in shown


def test_our_command_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, by a path from here, by a path from the root, or by the module."""
    script = tmp_path / "bin" / "pyrycode-relay"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    assert our_command() == "pyrycode-relay"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.executable", str(script.parent / "python"))
    monkeypatch.chdir(tmp_path)
    assert our_command() == "bin/pyrycode-relay"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert our_command() == str(script)
    script.unlink()
    assert our_command() == f"{script.parent / 'python'} -m relay_app"


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:80", "ws://127.0.0.1:80"),
        ("[::]:80", "ws://127.0.0.1:80"),
        ("[::1]:9", "ws://[::1]:9"),
    ],
)
def test_banner_url_can_be_dialled(listen: str, url: str) -> None:
    """The unspecified address is no address to dial."""
    assert f"--url {url}\n" in text(listen)


def test_banner_shows_odd_sizes_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that are no whole unit, findings by code."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    shown = text(max_frame_bytes=1000, assert_single_instance=True, production=True)
    assert "1000 B per message" in shown
    assert "FINE (SI-402)" in shown
    assert "3 MiB per message" in text(max_frame_bytes=3 << 20)


def test_banner_says_whether_the_relay_is_open_or_closed(tmp_path: Path) -> None:
    """It is the first thing to know of a relay on the internet."""
    assert "access       open to any server-id" in text()
    file = tmp_path / "ids"
    file.write_text("one\ntwo\n")
    closed = text(server_ids_file=str(file))
    assert "access       closed to all but 2 server-ids of the file" in closed
    assert "may claim any free server-id" not in closed


def test_not_protected_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sentence is true of this configuration."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert any("root" in s for s in not_protected(Config()))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert any("no rate limit" in s for s in not_protected(Config(rate_per_minute=0)))
    assert any("TRUSTED_PROXIES" in s for s in not_protected(Config()))
    behind = Config(trusted_proxies=(ip_network("10.0.0.0/8"),))
    assert len(not_protected(behind)) == 2
    assert "no limit on upgrades" in text(rate_per_minute=0)
