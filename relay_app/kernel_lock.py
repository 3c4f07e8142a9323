"""A lock that the kernel holds for a process: on a file, or as an abstract socket.

The kernel lets go of it when the last process that has it, or has inherited it, has
ended. The mere existence of a file means nothing; what is in it is for a message.

Source: docs/decisions 0011.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import time
from dataclasses import replace
from typing import Protocol

from relay_app.core.guard import Holder, LockState
from relay_app.version import version

_BACKLOG = 128
_TRY = (
    "import fcntl,sys; fcntl.flock(open(sys.argv[1],'r+'),fcntl.LOCK_EX|fcntl.LOCK_NB)"
)
_CREDENTIALS = struct.Struct("3i")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:+_-]{0,63}")


class Lock(Protocol):
    """What both kinds of lock can do."""

    place: str

    def take(self, tried: bool = True) -> LockState:
        """Take it, or say why not. Nothing waits.

        Args:
            tried: Find out whether it holds. A second process may be needed for that,
                which a thread of the worker cannot start.
        """

    def holder(self) -> Holder:
        """Say who holds it."""

    def introduce(self) -> None:
        """Say who holds it: this process."""

    def is_intact(self) -> bool:
        """Tell whether what is held is still what others would try to take."""

    def release(self) -> None:
        """Let go of it in this process; others that inherited it keep it."""


class FileLock:
    """A lock on a file, which stays when the lock goes.

    Args:
        directory: Where it lies; it is made if need be.
        name: Of the file, without ``.lock``.
    """

    place = "the state directory"

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self.path = os.path.join(directory, f"{name}.lock")
        self._fd = -1

    def take(self, tried: bool = True) -> LockState:
        """Take it, or say why not. Nothing waits.

        Args:
            tried: Find out whether it holds. A second process may be needed for that,
                which a thread of the worker cannot start.
        """
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            fd = self._open()
        except OSError:
            return LockState.FORBIDDEN
        state = self._lock(fd)
        if state is LockState.OURS and not self._is_at_path(fd):
            state = LockState.THEIRS  # deleted meanwhile; whoever did that has it
        if state in (LockState.THEIRS, LockState.UNSUPPORTED):
            os.close(fd)
            return state
        self.release()
        self._fd = fd
        self.introduce()
        return self._enforced() if tried else LockState.OURS

    def _open(self) -> int:
        """Open the file, which nobody else may read, whatever the umask.

        Raises:
            OSError: It cannot be opened, or is no file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = _above_standard(os.open(self.path, flags, 0o600))
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a file")
            if found.st_mode & 0o777 != 0o600 and found.st_uid == os.geteuid():
                os.fchmod(fd, 0o600)
        except OSError:
            os.close(fd)
            raise
        return fd

    @staticmethod
    def _lock(fd: int) -> LockState:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return LockState.THEIRS
        except OSError:
            return LockState.UNSUPPORTED
        return LockState.OURS

    def introduce(self) -> None:
        """Write down who holds it: this process."""
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _iso(time.time()),
            "version": version(),
        }
        # On a full disk the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(who).encode() + b"\n", 0)

    def _enforced(self) -> LockState:
        """Try for the lock a second time, as somebody else would.

        Some file systems give it to everybody. Some count all of one process as one,
        so only a second process is proof; but mostly the first try settles it.
        """
        try:
            fd = self._open()
        except OSError:
            return LockState.OURS  # nothing speaks against it
        try:
            if self._lock(fd) is LockState.THEIRS:
                return LockState.OURS
        finally:
            os.close(fd)
        second = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRY, self.path],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return LockState.UNENFORCED if second.returncode == 0 else LockState.OURS

    def holder(self) -> Holder:
        """Read who holds it; nothing in the file is taken on trust."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                said = json.loads(file.read(4096) or b"{}")
            pid, host, started, by = (
                said[key] for key in ("pid", "host", "started", "version")
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return Holder()
        holder = Holder(
            pid if type(pid) is int and 0 < pid < 1 << 31 else None,
            _word(host),
            _word(started),
            _word(by),
        )
        here = holder.host == socket.gethostname()
        return replace(holder, orphaned=here and _is_gone(holder.pid))

    def is_intact(self) -> bool:
        """Tell whether what is held is still what others would try to take."""
        return self._is_at_path(self._fd)

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except PermissionError:
            return (
                fd >= 0
            )  # a worker of another user cannot see; it is held all the same
        except OSError:
            return False

    def release(self) -> None:
        """Let go of it in this process; others that inherited it keep it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SocketLock:
    """A lock in the form of an abstract Unix socket, which only Linux has.

    It is seen by every process in the same network namespace, whoever its user.
    """

    place = "this system, without a state directory,"

    def __init__(self, name: str) -> None:
        self._address = f"\0pyrycode-relay/{name}"
        self._socket: socket.socket | None = None

    def take(self, tried: bool = True) -> LockState:
        """Take it, or say why not. Nothing waits.

        Args:
            tried: Makes no difference, since it always holds.
        """
        if sys.platform != "linux":
            return LockState.UNSUPPORTED
        taken = socket.socket(fileno=_above_standard(_abstract()))
        try:
            taken.bind(self._address)
            taken.listen(_BACKLOG)
        except OSError as fault:
            taken.close()
            in_use = fault.errno == errno.EADDRINUSE
            return LockState.THEIRS if in_use else LockState.UNSUPPORTED
        taken.setblocking(False)
        self._socket = taken
        return LockState.OURS

    def holder(self) -> Holder:
        """Ask the kernel who listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self._address)
                said = probe.getsockopt(
                    socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
                )
            except OSError:
                return Holder(host=socket.gethostname())
        pid = _CREDENTIALS.unpack(said)[0] or None  # 0: in another pid namespace
        return Holder(pid, socket.gethostname(), _started(pid), orphaned=_is_gone(pid))

    def introduce(self) -> None:
        """Have the kernel note this process as the one that listens."""
        if self._socket is not None:
            self._socket.listen(_BACKLOG)

    def is_intact(self) -> bool:
        """Nothing can delete it; whoever asked who holds it is let go."""
        with contextlib.suppress(OSError):
            while self._socket is not None:
                self._socket.accept()[0].close()
        return True

    def release(self) -> None:
        """Let go of it in this process; others that inherited it keep it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _above_standard(fd: int) -> int:
    """Move a descriptor out of the way of 0, 1 and 2.

    In a process that was started without them the lock would get such a number, and
    whoever writes to standard error would write into it.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _abstract() -> int:
    return socket.socket(socket.AF_UNIX).detach()


def _word(said: object) -> str:
    return said if isinstance(said, str) and _WORD.fullmatch(said) else ""


def _iso(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_gone(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _started(pid: int | None) -> str:
    """Say when a process was started, from what Linux tells about it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            booted = next(
                int(line.split()[1]) for line in file if line.startswith(b"btime ")
            )
    except (OSError, ValueError, IndexError, StopIteration):
        return ""
    return _iso(booted + ticks / os.sysconf("SC_CLK_TCK"))
