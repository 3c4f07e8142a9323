"""The version that is shown is the real one."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from relay_app import version


def git(root: Path, *words: str) -> None:
    """Run git in a folder, with an identity of its own."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
    subprocess.run(
        ["git", "-C", str(root), *identity, *words], check=True, capture_output=True
    )


def test_version_begins_with_the_packages() -> None:
    """The package's metadata has the number."""
    assert version.version().startswith(importlib.metadata.version("pyrycode-relay"))


def test_version_without_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bare folder of source has an answer."""
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    version.version.cache_clear()
    try:
        assert version.version().startswith("0+unknown")
    finally:
        version.version.cache_clear()


def test_commit_of_a_checkout_says_when_it_is_dirty(tmp_path: Path) -> None:
    """Commit and changes, from git itself."""
    assert version._commit(tmp_path) is None
    git(tmp_path, "init")
    assert version._commit(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    clean = version._commit(tmp_path)
    assert clean is not None and clean.startswith("g") and len(clean) >= 8
    (tmp_path / "file").write_text("2")
    assert version._commit(tmp_path) == clean + ".dirty"
