"""What the operating system allows this process."""

from __future__ import annotations

import resource

UNLIMITED_FILES = 1 << 20
"""What counts when there is no limit on open files."""


def raise_file_limit() -> int:
    """Raise the soft limit on open files as far as it goes.

    Returns: The number of files that may be open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard
