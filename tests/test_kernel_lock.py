"""Both kinds of lock, with real files, real sockets and real second processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from relay_app import kernel_lock
from relay_app.core.guard import Holder, LockState
from relay_app.kernel_lock import FileLock, SocketLock
from tests.holding import held_elsewhere


@pytest.fixture
def name() -> str:
    """A name that nothing else on this machine has."""
    return f"test-{uuid.uuid4().hex}"


# A file


def test_file_lock_says_who_holds_it(tmp_path: Path) -> None:
    """Pid, host, start and version; the directory is made, and for nobody else."""
    directory = tmp_path / "not" / "yet"
    taken = FileLock(str(directory), "relay")
    assert taken.take() is LockState.OURS
    said = json.loads(Path(taken.path).read_text())
    assert (said["pid"], said["host"]) == (os.getpid(), socket.gethostname())
    holder = taken.holder()
    assert (holder.pid, holder.orphaned) == (os.getpid(), False)
    assert holder.started.endswith("Z")
    assert holder.version
    assert directory.stat().st_mode & 0o777 == 0o700
    assert Path(taken.path).stat().st_mode & 0o777 == 0o600
    taken.release()


def test_file_lock_of_a_living_process_is_theirs(tmp_path: Path) -> None:
    """And free at once when that process is gone, whatever it left behind."""
    other = FileLock(str(tmp_path), "relay")
    with held_elsewhere("file", str(tmp_path), "relay") as process:
        assert other.take() is LockState.THEIRS
        assert other.holder().pid == process.pid
    assert Path(other.path).exists()
    assert other.take() is LockState.OURS
    assert other.holder().pid == os.getpid()
    other.release()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b"4711",
        b'{"pid": 1}',
        b'{"pid": "1", "host": 5, "started": [], "version": null}',
        b'{"pid": -1, "host": "a b\\n", "started": "\\u001b[2J", "version": ""}',
        b'{"pid": true, "host": "", "started": "", "version": ""}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_file_that_was_left_behind_blocks_nobody(
    tmp_path: Path, content: bytes
) -> None:
    """Nothing in it is taken on trust, and nothing of it reaches a message."""
    (tmp_path / "relay.lock").write_bytes(content)
    taken = FileLock(str(tmp_path), "relay")
    holder = taken.holder()
    assert holder.pid in (None, 1)
    assert (holder.host, holder.started, holder.version) == ("", "", "")
    assert taken.take() is LockState.OURS
    assert taken.holder().pid == os.getpid()
    taken.release()


def test_holder_whose_process_is_gone_is_an_orphan(tmp_path: Path) -> None:
    """The lock went to its worker: the kernel holds it for whoever inherited it."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys; from relay_app.kernel_lock import FileLock\n"
            f"l = FileLock({str(tmp_path)!r}, 'relay'); print(l.take().name, flush=True)\n"
            "if os.fork(): os._exit(0)\n"
            "sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as master:
        assert master.stdout
        assert master.stdin
        assert master.stdout.readline() == b"OURS\n"
        master.wait()
        other = FileLock(str(tmp_path), "relay")
        assert other.take() is LockState.THEIRS
        assert other.holder().orphaned
        master.stdin.close()  # and the worker ends
        master.stdout.read()
    assert other.take() is LockState.OURS
    other.release()


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """In a directory that others may write to, a name may lead anywhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "relay.lock").symlink_to(victim)
    assert FileLock(str(tmp_path), "relay").take() is LockState.FORBIDDEN
    assert victim.read_text() == "precious"


def test_pipe_at_the_path_holds_nobody_up(tmp_path: Path) -> None:
    """Neither who wants the lock nor who wants to know its holder."""
    pipe = FileLock(str(tmp_path), "relay")
    os.mkfifo(pipe.path)
    assert pipe.take() is LockState.FORBIDDEN
    assert pipe.holder() == Holder()


def test_umask_does_not_lock_us_out(tmp_path: Path) -> None:
    """The next start has to open the file again."""
    before = os.umask(0o777)
    try:
        one = FileLock(str(tmp_path), "relay")
        assert one.take() is LockState.OURS
    finally:
        os.umask(before)
    assert Path(one.path).stat().st_mode & 0o777 == 0o600
    one.release()


def test_process_without_standard_streams_gives_the_lock_none_of_their_numbers(
    tmp_path: Path,
) -> None:
    """Whoever writes to standard error would write into it."""
    script = (
        "import os; os.closerange(0, 3)\n"
        "from relay_app.kernel_lock import FileLock, SocketLock\n"
        f"one, two = FileLock({str(tmp_path)!r}, 'a'), SocketLock({str(tmp_path)!r})\n"
        "one.take(); two.take()\n"
        "os._exit(10 + min(one._fd, two._socket.fileno()))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode > 12


@pytest.mark.parametrize("directory", ["/proc/relay", "/dev/null/relay", "/sys"])
def test_directory_that_may_not_be_written_is_forbidden(directory: str) -> None:
    """Not even by root."""
    assert FileLock(directory, "relay").take() is LockState.FORBIDDEN


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_is_unsupported(
    tmp_path: Path, fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file system of that kind can be had here, so the call fails as it would there."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert FileLock(str(tmp_path), "relay").take() is LockState.UNSUPPORTED


def test_file_system_that_only_pretends_is_unenforced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each call makes a file of its own, so that a second process gets the lock too."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    one = FileLock(str(tmp_path), "relay")
    assert one.take() is LockState.UNENFORCED
    monkeypatch.setattr(
        kernel_lock, "_TRY", "raise SystemExit(1)  # a second process does not"
    )
    assert one.take() is LockState.OURS
    one.release()


# An abstract socket


def test_abstract_socket_does_the_same(name: str) -> None:
    """The kernel says who listens, and since when."""
    other = SocketLock(name)
    with held_elsewhere("socket", name) as process:
        assert other.take() is LockState.THEIRS
        holder = other.holder()
        assert (holder.pid, holder.orphaned) == (process.pid, False)
        assert holder.host == socket.gethostname()
        assert holder.started.startswith("20")
    assert other.take() is LockState.OURS
    other.release()


def test_abstract_socket_answers_however_often_it_is_asked(name: str) -> None:
    """Who asked is let go of at each look."""
    one, other = SocketLock(name), SocketLock(name)
    one.take()
    for _ in range(3):
        for _ in range(30):
            other.holder()
        assert one.is_intact()
        assert other.holder().pid == os.getpid()
    one.release()


def test_holder_of_a_free_socket_is_nobody(name: str) -> None:
    """It went away meanwhile."""
    assert SocketLock(name).holder().pid is None


@pytest.mark.parametrize("kind", ["file", "socket"])
def test_introduce_names_the_process_that_goes_on(
    tmp_path: Path, name: str, kind: str
) -> None:
    """A server that becomes a daemon has another pid than the one that took the lock."""
    one = FileLock(str(tmp_path), name) if kind == "file" else SocketLock(name)
    one.take()
    child = os.fork()
    if not child:
        one.introduce()
        os._exit(one.holder().pid == os.getpid())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert one.holder().pid == child
    assert one.holder().orphaned
    one.release()
    one.introduce()
