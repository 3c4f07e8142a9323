"""A second process that holds a lock."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

HOLD = """
import sys
from relay_app.kernel_lock import FileLock, SocketLock
kind, *args = sys.argv[1:]
taken = (FileLock if kind == "file" else SocketLock)(*args)
print(taken.take().name, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_elsewhere(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Have a second process hold a lock for the length of a block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "OURS\n"
        yield process
    finally:
        process.kill()
        process.communicate()
