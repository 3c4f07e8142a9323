"""The real version of what runs: the package's, and the commit in a checkout."""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess
from pathlib import Path

DISTRIBUTION = "pyrycode-relay"


@functools.cache
def version() -> str:
    """Name the build: ``0.1.0`` from a wheel, ``0.1.0+g1a2b3c4`` from a checkout.

    A checkout whose files differ from its commit says so with ``.dirty``.
    """
    try:
        package = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        package = "0+unknown"
    commit = _commit(Path(__file__).resolve().parent.parent)
    return f"{package}+{commit}" if commit else package


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty=.dirty",
        "--abbrev=7",
    ]
    command += ["--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "g" + done.stdout.strip()
