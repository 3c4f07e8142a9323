"""The lock: one relay of a name on this host, and one registry within it.

A relay is known by its public host, else by the address that it listens on. Under
that name there are two locks, in the state directory or, where there is none, as
abstract Unix sockets:

* the server's, taken before the port is bound and inherited by every process that is
  forked from there, so that the kernel keeps it until the last of them has ended;
* the registry's, taken by the process that serves, and by it alone. A worker that
  inherits the server's lock proves nothing by that; with this one it does.

It runs in gunicorn's master, where nothing is patched, and in the worker.

Source: docs/operations.md "The lock".
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relay_app.core.config import Config
from relay_app.core.guard import Holder, LockReport, LockState
from relay_app.kernel_lock import FileLock, Lock, SocketLock

USUAL_PLACES = (
    ("RUNTIME_DIRECTORY", ""),
    ("STATE_DIRECTORY", ""),
    ("XDG_RUNTIME_DIR", "pyrycode-relay"),
)
"""Variables that name a directory of the service's own (systemd) or of the user's, and
what is added to it."""

RETRY_S = 0.3
"""How long a start waits for a lock that somebody has: ``check`` takes it for a moment,
and a process that ends lets go of it only at its very end."""

ORPHAN_RETRY_S = 5.0
"""The same where the holder's master was killed: its worker notices within a second, and
drains for two. A supervisor that restarts the relay at once must not be refused."""

OF_THE_REGISTRY = ".registry"
"""What the name of the registry's lock has behind that of the server's."""

_PAUSE_S = 0.02


class Look(enum.Enum):
    """What a look at a lock that is held has shown."""

    INTACT = "intact"
    TAKEN_AGAIN = "it had been deleted, and was taken again"
    LOST = "it had been deleted, and another process holds it now"
    UNUSABLE = "it had been deleted, and cannot be taken again"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a relay is known by on its host."""

    text: str
    by_public_host: bool = False

    @property
    def slug(self) -> str:
        """A file name: legible, and not the same for two identities."""
        legible = re.sub(r"[^A-Za-z0-9.-]", "_", self.text)[:48]
        return f"{legible}-{hashlib.sha256(os.fsencode(self.text)).hexdigest()[:8]}"


def identity(config: Config, addresses: Sequence[Any] = ()) -> Identity | None:
    """Name the relay.

    Args:
        config: Its settings.
        addresses: What the server will bind, where that is known better than from the
            settings: (host, port), a path, or the number of an open descriptor.

    Returns: ``None`` when it has no name yet, as with port 0.
    """
    if config.public_host is not None:
        return Identity(config.public_host, by_public_host=True)
    names = _names(config, addresses)
    return Identity(",".join(names)) if names else None


def paths(config: Config, addresses: Sequence[Any] = ()) -> tuple[Identity, ...]:
    """Name the Unix sockets among what is bound, each by itself.

    A port is given to one server by the kernel. The path of a socket is not: gunicorn
    removes the one that is there, and binds its own.
    """
    names = _names(config, addresses)
    return tuple(Identity(name) for name in names if name.startswith("unix:"))


def _names(config: Config, addresses: Sequence[Any]) -> list[str]:
    listen = config.listen
    if not addresses:
        addresses = [
            (listen.host, listen.port) if listen.fd is None else listen.fd,
        ]
    names = []
    for address in addresses:
        if isinstance(address, int):
            address = _bound_to(address)
        if isinstance(address, tuple) and address[1]:
            host = "127.0.0.1" if address[0] == "localhost" else address[0]
            names.append(f"{host}:{address[1]}")
        elif isinstance(address, str) and address:
            names.append(f"unix:{os.path.realpath(address)}")
    return sorted(names)


def _handed_over(environ: Mapping[str, str]) -> range:
    """Give the numbers of the listeners that systemd hands over; gunicorn takes those."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return range(0)
    return range(3, 3 + int(count[:4]))


def _bound_to(fd: int) -> Any:
    """Give the address of a listener; something false where it is none."""
    try:
        with socket.socket(fileno=os.dup(fd)) as listener:
            return listener.getsockname()
    except OSError:
        return None


def state_directory(
    config: Config, environ: Mapping[str, str], system: str = sys.platform
) -> tuple[str | None, bool]:
    """Choose where the lock lies.

    Args:
        config: The settings.
        environ: The process environment.
        system: As ``sys.platform`` says it.

    Returns: The directory, ``None`` for none, and whether the operator named it.
    """
    if config.state_dir is not None:
        return config.state_dir, True
    for variable, below in USUAL_PLACES:
        # systemd separates several by colons; the first is as good as any.
        usual = environ.get(variable, "").partition(":")[0]
        if usual.startswith("/") and os.path.isdir(usual):
            return os.path.join(usual, below) if below else usual, False
    if system == "darwin":
        return os.path.expanduser("~/Library/Application Support/pyrycode-relay"), False
    return None, False


_LOOKS = {
    LockState.OURS: Look.TAKEN_AGAIN,
    LockState.UNENFORCED: Look.TAKEN_AGAIN,
    LockState.THEIRS: Look.LOST,
}
"""What taking a deleted lock again has come to; anything else makes it unusable."""


class InstanceLock:
    """Both locks of one relay.

    Args:
        name: What it is known by; ``None`` for nothing, and then nothing is locked.
        directory: Where its locks lie; ``None`` for abstract sockets.
        named: The operator chose the directory, so there is no other place to go to.
        also: What else nobody else may have: the paths of its Unix sockets.
    """

    def __init__(
        self,
        name: Identity | None,
        directory: str | None,
        named: bool = True,
        also: Sequence[Identity] = (),
    ) -> None:
        self._name = name
        self._also = tuple(other for other in also if other != name)
        self._others: list[tuple[Lock, str]] = []
        self._directory = directory
        self._named = named
        self._server: Lock | None = None
        self._registry: Lock | None = None
        self._report = LockReport(LockState.OURS)
        self._taker = Holder()
        self._served_by = 0

    def take(self, wait_s: Callable[[Holder], float]) -> LockReport:
        """Take the server's lock.

        Args:
            wait_s: How long to wait for a holder, in seconds.
        """
        if self._name is None:
            return self._report
        places = [self._place(self._directory, self._name.slug)]
        if self._directory is not None and not self._named:
            places.append(self._place(None, self._name.slug))
        for lock in places:
            state, holder = _patiently(lock, wait_s)
            if state in (LockState.OURS, LockState.THEIRS) or lock is places[-1]:
                break
            lock.release()
        if state in (LockState.OURS, LockState.UNENFORCED):
            self._server = lock
            for other in self._also:
                more = self._beside(other.slug)
                found, holder = _patiently(more, wait_s)
                if found is LockState.THEIRS:
                    self.release()
                    return LockReport(found, more.place, holder)
                self._others.append((more, other.slug))
        self._report = LockReport(state, lock.place, holder, self._name.by_public_host)
        return self._report

    def claim(self, wait_s: float = RETRY_S) -> LockReport:
        """Take the registry's lock for this process, as often as it is asked to.

        Args:
            wait_s: How long to wait for a holder, in seconds.

        Returns: ``OURS``, or ``THEIRS`` when another process serves.
        """
        pid = os.getpid()
        if self._served_by != pid and self._name is not None:
            slug = self._name.slug + OF_THE_REGISTRY
            lock = self._beside(slug)
            state, holder = _patiently(lock, lambda _: wait_s)
            if state not in _LOOKS and isinstance(lock, FileLock):
                lock = self._place(None, slug)
                state, holder = _patiently(lock, lambda _: wait_s)
            if state is LockState.THEIRS:
                return LockReport(state, lock.place, holder)
            self._registry = lock if state in _LOOKS else None
        self._served_by = pid
        return LockReport(LockState.OURS)

    def look(self) -> Look:
        """Look whether both are still there, and take again what was deleted.

        It may be called from any thread, one at a time.
        """
        if self._name is None:
            return Look.INTACT
        slug = self._name.slug
        seen = []
        if self._server is not None:
            self._server, look = self._look_at(self._server, slug)
            seen.append(look)
        if self._registry is not None:
            self._registry, look = self._look_at(self._registry, slug + OF_THE_REGISTRY)
            seen.append(look)
        for at, (lock, other) in enumerate(self._others):
            lock, look = self._look_at(lock, other)
            self._others[at] = (lock, other)
            seen.append(look)
        gravest = (Look.LOST, Look.UNUSABLE, Look.TAKEN_AGAIN)
        return next((look for look in gravest if look in seen), Look.INTACT)

    def _look_at(self, lock: Lock, slug: str) -> tuple[Lock, Look]:
        if lock.is_intact():
            return lock, Look.INTACT
        # ``check`` may have it for a moment.
        state, self._taker = _patiently(lock, lambda _: RETRY_S, tried=False)
        if state not in _LOOKS and not self._named:
            # The directory has gone, a user's after the last logout for one; nobody
            # had asked for it.
            lock.release()
            lock = self._place(None, slug)
            state, self._taker = _patiently(lock, lambda _: RETRY_S)
        return lock, _LOOKS.get(state, Look.UNUSABLE)

    def introduce(self) -> None:
        """Say again who holds it, after a server has become a daemon."""
        if self._server is not None:
            self._server.introduce()

    def confirm(self) -> LockReport:
        """Report on a lock that was taken before, as it is now."""
        match self.look():
            case Look.LOST:
                return replace(self._report, state=LockState.THEIRS, holder=self._taker)
            case Look.UNUSABLE:
                return replace(self._report, state=LockState.FORBIDDEN)
            case _:
                return self._report

    def release(self) -> None:
        """Let go of both in this process."""
        for lock in (self._server, self._registry, *(lock for lock, _ in self._others)):
            if lock is not None:
                lock.release()
        self._others.clear()
        self._server = self._registry = None
        self._served_by = 0

    def _beside(self, slug: str) -> Lock:
        """Choose the same kind as the server's; a directory of no use is left alone."""
        usable = self._report.state is LockState.OURS
        in_files = usable and isinstance(self._server, FileLock)
        return self._place(self._directory if in_files else None, slug)

    @staticmethod
    def _place(directory: str | None, slug: str) -> Lock:
        return SocketLock(slug) if directory is None else FileLock(directory, slug)


_held: InstanceLock | None = None
"""What this process, or the one it was forked from, has taken. One process has one
registry, so it has one lock."""


def acquire(
    config: Config,
    environ: Mapping[str, str],
    addresses: Sequence[Any] = (),
    patient: bool = True,
) -> LockReport:
    """Take the lock of this relay, or look after the one that is held already.

    Args:
        config: The settings.
        environ: The process environment.
        addresses: As for ``identity``.
        patient: Wait a moment for a holder that is about to go.

    Returns: What came of it.
    """
    global _held
    if _held is not None:
        return _held.confirm()
    directory, named = state_directory(config, environ)
    addresses = _handed_over(environ) or addresses
    name = identity(config, addresses)
    if name is None and config.listen.fd is not None:
        # A server that is not ours may have closed what the settings name. Then the
        # number has to do; without a name nothing at all would be locked.
        name = Identity(f"fd://{config.listen.fd}")
    lock = InstanceLock(name, directory, named, paths(config, addresses))
    report = lock.take(_patience if patient else lambda _: 0.0)
    if report.state is not LockState.THEIRS:
        _held = lock
    return report


def held() -> InstanceLock | None:
    """Give the lock that this process or its parent has taken, if there is one."""
    return _held


def release() -> None:
    """Let go of it in this process; another that inherited it keeps it."""
    global _held
    if _held is not None:
        _held.release()
        _held = None


def _patience(holder: Holder) -> float:
    return ORPHAN_RETRY_S if holder.orphaned else RETRY_S


def _patiently(
    lock: Lock, wait_s: Callable[[Holder], float], tried: bool = True
) -> tuple[LockState, Holder]:
    state = lock.take(tried)
    if state is not LockState.THEIRS:
        return state, Holder()
    holder = lock.holder()
    ends_at = time.monotonic() + wait_s(holder)
    while state is LockState.THEIRS and time.monotonic() < ends_at:
        time.sleep(_PAUSE_S)
        state = lock.take(tried)
    return state, holder if state is LockState.THEIRS else Holder()
