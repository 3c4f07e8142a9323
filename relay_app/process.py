"""What the operating system allows this process, and what it has to find there."""

from __future__ import annotations

import os
import resource
import stat

from relay_app.core import allowlist
from relay_app.core.allowlist import Allowlist, AllowlistFault
from relay_app.core.config import Config

UNLIMITED_FILES = 1 << 20
"""What counts when there is no limit on open files."""

AS_ROOT = (
    "runs as root, which it never needs: a fault in it would cost the whole machine"
)


def raise_file_limit() -> int:
    """Raise the soft limit on open files as far as it goes.

    Returns: The number of files that may be open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard


def is_root() -> bool:
    """Tell whether this process has all rights."""
    return os.geteuid() == 0


def root_fault(config: Config) -> str | None:
    """Say why this process may not serve as the user it is; ``None`` if it may."""
    if config.production and not config.allow_root and is_root():
        return (
            "PYRYCODE_RELAY_PRODUCTION: must not run as root; run as a user of its own, "
            "or set PYRYCODE_RELAY_ALLOW_ROOT=1"
        )
    return None


def _without_waiting(path: str, flags: int) -> int:
    # A pipe in a file's place would hold up the start for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def read_allowlist(path: str) -> Allowlist:
    """Read the file of allowed server-ids. May wait for the disk.

    Raises:
        AllowlistFault: It cannot be read, or not be used.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return allowlist.parse(file.read(allowlist.MAX_BYTES + 1))
        raise AllowlistFault("is not a file")
    except OSError as fault:
        raise AllowlistFault(f"cannot be read ({fault.strerror})") from None


def start_faults(config: Config) -> list[str]:
    """List why a start with these settings fails here, beside the guard.

    Returns: One line each, in the form of a ``ConfigError``.
    """
    faults = []
    refused = root_fault(config)
    if refused is not None:
        faults.append(refused)
    if config.server_ids_file is not None:
        try:
            read_allowlist(config.server_ids_file)
        except AllowlistFault as fault:
            faults.append(f"PYRYCODE_RELAY_SERVER_IDS_FILE: {fault.fault}")
    return faults
