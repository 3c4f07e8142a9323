"""The two locks of a relay: its name, its places, and what becomes of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import uuid
from pathlib import Path

import gevent
import pytest

from relay_app import lock
from relay_app.core.config import Config, Listen
from relay_app.core.guard import Holder, LockState
from relay_app.kernel_lock import SocketLock
from relay_app.lock import Identity, InstanceLock, Look
from tests.holding import held_elsewhere


@pytest.fixture
def name() -> str:
    """A name that nothing else on this machine has."""
    return f"test-{uuid.uuid4().hex}"


def at_once(holder: Holder) -> float:
    """Wait for nobody."""
    return 0.0


def test_deleted_file_is_noticed_and_taken_again(tmp_path: Path) -> None:
    """With its whole directory."""
    taken = InstanceLock(Identity("a"), str(tmp_path / "run"))
    assert taken.take(at_once).state is LockState.OURS
    assert taken.claim().state is LockState.OURS
    assert taken.look() is Look.INTACT
    files = sorted((tmp_path / "run").iterdir())
    assert len(files) == 2
    for file in files:
        file.unlink()
    (tmp_path / "run").rmdir()
    assert taken.look() is Look.TAKEN_AGAIN
    assert sorted((tmp_path / "run").iterdir()) == files
    assert taken.look() is Look.INTACT
    taken.release()


def test_deleted_file_that_another_process_holds_is_lost(tmp_path: Path) -> None:
    """The holder is named."""
    taken = InstanceLock(Identity("a"), str(tmp_path))
    taken.take(at_once)
    (file,) = tmp_path.iterdir()
    file.unlink()
    with held_elsewhere("file", str(tmp_path), file.stem) as process:
        assert taken.look() is Look.LOST
        report = taken.confirm()
        assert report.state is LockState.THEIRS
        assert report.holder
        assert report.holder.pid == process.pid
    taken.release()


def test_deleted_file_that_cannot_be_made_again_is_said_so(tmp_path: Path) -> None:
    """Something else has taken the directory's name."""
    taken = InstanceLock(Identity("a"), str(tmp_path / "run"))
    taken.take(at_once)
    (file,) = (tmp_path / "run").iterdir()
    file.unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("")
    assert taken.look() is Look.UNUSABLE
    assert taken.confirm().state is LockState.FORBIDDEN
    taken.release()


# Both locks of a relay


@pytest.mark.parametrize("directory", [True, False])
def test_registry_is_claimed_by_one_process_of_a_server(
    tmp_path: Path, name: str, directory: bool
) -> None:
    """A child inherits the server's lock, and proves nothing by that."""
    one = InstanceLock(Identity(name), str(tmp_path) if directory else None)
    assert one.take(at_once).state is LockState.OURS
    assert one.claim().state is LockState.OURS
    assert one.claim().state is LockState.OURS
    child = os.fork()
    if not child:
        report = one.claim()
        named = report.holder is not None and report.holder.pid == os.getppid()
        os._exit(report.state is LockState.THEIRS and named)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    one.release()


def test_registry_is_free_for_the_next_worker(tmp_path: Path) -> None:
    """A worker that was killed holds nothing; its master still holds the server's lock."""
    one = InstanceLock(Identity("a"), str(tmp_path))
    one.take(at_once)
    for _ in range(2):
        child = os.fork()
        if not child:
            os._exit(one.claim().state is LockState.OURS)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    second = InstanceLock(Identity("a"), str(tmp_path))
    assert second.take(at_once).state is LockState.THEIRS
    one.release()
    assert second.take(at_once).state is LockState.OURS
    second.release()


def test_two_relays_on_one_host_do_not_meet(tmp_path: Path) -> None:
    """Their names differ."""
    one = InstanceLock(Identity("127.0.0.1:1"), str(tmp_path))
    two = InstanceLock(Identity("127.0.0.1:2"), str(tmp_path))
    assert one.take(at_once).state is LockState.OURS
    assert two.take(at_once).state is LockState.OURS
    one.release()
    two.release()


def test_usual_place_that_cannot_be_used_gives_way_to_a_socket(name: str) -> None:
    """Nobody asked for that directory, so nobody is warned."""
    one = InstanceLock(Identity(name), "/proc/relay", named=False)
    assert one.take(at_once).state is LockState.OURS
    two = InstanceLock(Identity(name), None)
    assert two.take(at_once).state is LockState.THEIRS
    one.release()


def test_usual_place_that_vanishes_gives_way_to_a_socket(
    tmp_path: Path, name: str
) -> None:
    """A user's directory goes with the last logout, and cannot be made again."""
    place = tmp_path / "user"
    one = InstanceLock(Identity(name), str(place), named=False)
    one.take(at_once)
    one.claim()
    shutil.rmtree(place)
    place.write_text("")
    assert one.look() is Look.TAKEN_AGAIN
    assert one.look() is Look.INTACT
    two = InstanceLock(Identity(name), None)
    assert two.take(at_once).state is LockState.THEIRS
    assert two.claim().state is LockState.THEIRS
    one.release()


def test_directory_that_was_asked_for_and_cannot_be_used_is_reported(name: str) -> None:
    """And a second process of the server is found all the same."""
    one = InstanceLock(Identity(name), "/proc/relay")
    assert one.take(at_once).state is LockState.FORBIDDEN
    assert one.confirm().state is LockState.FORBIDDEN
    assert one.claim().state is LockState.OURS
    assert InstanceLock(Identity(name), "/proc/x").claim().state is LockState.THEIRS
    one.release()


def test_registry_that_cannot_be_locked_in_a_file_is_locked_by_a_socket(
    tmp_path: Path, name: str
) -> None:
    """Nobody can say later that it was deleted: it has never been there."""
    one = InstanceLock(Identity(name), str(tmp_path))
    one.take(at_once)
    slug = Identity(name).slug
    (tmp_path / f"{slug}.registry.lock").symlink_to(tmp_path / "elsewhere")
    assert one.claim().state is LockState.OURS
    assert one.look() is Look.INTACT
    assert SocketLock(f"{slug}.registry").take() is LockState.THEIRS
    one.release()


def test_lost_registry_names_who_has_it(tmp_path: Path) -> None:
    """And not the relay itself, which still has the other lock."""
    one = InstanceLock(Identity("a"), str(tmp_path))
    one.take(at_once)
    one.claim()
    (file,) = tmp_path.glob("*.registry.lock")
    file.unlink()
    with held_elsewhere("file", str(tmp_path), file.stem) as process:
        report = one.confirm()
        assert report.state is LockState.THEIRS
        assert report.holder
        assert report.holder.pid == process.pid
    one.release()


def test_look_from_a_thread_takes_again_where_locks_do_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of the worker can start no second process to find that out anew."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    one = InstanceLock(Identity("a"), str(tmp_path))
    assert one.take(at_once).state is LockState.UNENFORCED
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert gevent.get_hub().threadpool.apply(one.look) is Look.TAKEN_AGAIN
    assert one.confirm().state is LockState.UNENFORCED
    one.release()


def test_unix_socket_is_one_relays_whatever_else_it_is_known_by(
    tmp_path: Path,
) -> None:
    """gunicorn would take the path from the one that listens there."""
    (tmp_path / "sub").mkdir()
    there = str(tmp_path / "relay.sock")
    again = str(tmp_path / "sub" / ".." / "relay.sock")
    config = Config(state_dir=str(tmp_path / "state"))
    hosted = Config(state_dir=config.state_dir, public_host="relay.example")
    name = lock.identity(config, [there])
    assert name == lock.identity(config, [again])
    one = InstanceLock(name, config.state_dir, also=lock.paths(config, [there]))
    assert one.take(at_once).state is LockState.OURS
    for settings, addresses in (
        (config, [again, ("127.0.0.1", 1)]),
        (hosted, [there]),
    ):
        two = InstanceLock(
            lock.identity(settings, addresses),
            config.state_dir,
            also=lock.paths(settings, addresses),
        )
        assert two.take(at_once).state is LockState.THEIRS
    one.release()
    assert two.take(at_once).state is LockState.OURS
    assert len(two._others) == 1
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    assert two.look() is Look.TAKEN_AGAIN
    assert two.look() is Look.INTACT
    two.release()


def test_listeners_that_systemd_hands_over_are_what_the_relay_is_known_by() -> None:
    """gunicorn serves on those, whatever the settings say."""
    handed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    assert list(lock._handed_over(handed)) == [3, 4]
    assert not lock._handed_over(handed | {"LISTEN_PID": "1"})
    assert not lock._handed_over(handed | {"LISTEN_FDS": "many"})
    assert not lock._handed_over({})


def test_relay_without_a_name_locks_nothing() -> None:
    """Port 0 is not known yet."""
    one = InstanceLock(None, None)
    assert one.take(at_once).state is LockState.OURS
    assert one.claim().state is LockState.OURS
    assert one.look() is Look.INTACT
    one.release()


# Which lock


@pytest.mark.parametrize(
    ("config", "addresses", "text"),
    [
        (Config(), (), "127.0.0.1:8080"),
        (Config(listen=Listen("::1", 80)), (), "::1:80"),
        (Config(listen=Listen("localhost", 80)), (), "127.0.0.1:80"),
        (Config(public_host="relay.example"), (), "relay.example"),
        (Config(public_host="relay.example"), [("::", 1)], "relay.example"),
        (Config(), [("0.0.0.0", 9000)], "0.0.0.0:9000"),
        (Config(), [("b", 2), ("a", 1)], "a:1,b:2"),
        (Config(), ["/tmp/../relay.sock"], "unix:/relay.sock"),
        (Config(listen=Listen("127.0.0.1", 0)), (), None),
        (Config(listen=Listen(fd=1_000_000)), (), None),
    ],
)
def test_identity(config: Config, addresses: list[object], text: str | None) -> None:
    """The public host, or else what is listened on."""
    found = lock.identity(config, addresses)
    assert (found.text if found else None) == text
    assert found is None or found.by_public_host == (config.public_host is not None)


def test_identity_of_an_open_descriptor_is_what_it_is_bound_to() -> None:
    """And the descriptor stays open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        found = lock.identity(Config(listen=Listen(fd=listener.fileno())))
        assert found == Identity(f"{host}:{port}")
        assert listener.getsockname() == (host, port)


def test_slugs_are_file_names_and_differ() -> None:
    """However long and odd the identity."""
    texts = ["a/b", "a_b", "../../etc", "unix:" + "/x" * 500, "::1:80"]
    slugs = {Identity(text).slug for text in texts}
    assert len(slugs) == len(texts)
    assert all("/" not in slug and len(slug) < 80 for slug in slugs)


@pytest.mark.parametrize(
    ("set_there", "expected"),
    [
        ({}, (None, False)),
        ({"RUNTIME_DIRECTORY": "{tmp}"}, ("{tmp}", False)),
        ({"RUNTIME_DIRECTORY": "{tmp}:/other"}, ("{tmp}", False)),
        ({"STATE_DIRECTORY": "{tmp}"}, ("{tmp}", False)),
        ({"XDG_RUNTIME_DIR": "{tmp}"}, ("{tmp}/pyrycode-relay", False)),
        ({"XDG_RUNTIME_DIR": "/is/not/there"}, (None, False)),
        ({"XDG_RUNTIME_DIR": "relative"}, (None, False)),
    ],
)
def test_state_directory_has_usual_places(
    set_there: dict[str, str], expected: tuple[str | None, bool], tmp_path: Path
) -> None:
    """systemd's, then the user's, then none."""
    environ = {key: value.format(tmp=tmp_path) for key, value in set_there.items()}
    where, named = expected
    assert lock.state_directory(Config(), environ, "linux") == (
        where and where.format(tmp=tmp_path),
        named,
    )
    asked = Config(state_dir="/asked/for")
    assert lock.state_directory(asked, environ, "linux") == ("/asked/for", True)


def test_state_directory_on_a_mac_is_the_users() -> None:
    """There are no abstract sockets there."""
    where, named = lock.state_directory(Config(), {}, "darwin")
    assert where is not None
    assert where.endswith("Application Support/pyrycode-relay")
    assert not named


# What this process holds


def test_acquire_takes_once_and_then_looks_after_it(tmp_path: Path) -> None:
    """One process has one registry, so one lock, whoever asks."""
    config = Config(state_dir=str(tmp_path))
    assert lock.acquire(config, {}).state is LockState.OURS
    mine = lock.held()
    assert lock.acquire(config, {}, [("0.0.0.0", 1)]).state is LockState.OURS
    assert lock.held() is mine
    assert len(list(tmp_path.iterdir())) == 1
    lock.release()
    assert lock.held() is None


def test_acquire_reports_a_living_holder(tmp_path: Path) -> None:
    """After a moment of patience, and without keeping anything."""
    slug = Identity("127.0.0.1:8080").slug
    with held_elsewhere("file", str(tmp_path), slug) as process:
        for patient in (True, False):
            report = lock.acquire(Config(state_dir=str(tmp_path)), {}, (), patient)
            assert report.state is LockState.THEIRS
            assert report.holder
            assert report.holder.pid == process.pid
            assert lock.held() is None


def test_acquire_waits_for_a_holder_that_is_about_to_go(tmp_path: Path) -> None:
    """``check`` takes it for a moment; a start must not fail by that."""
    slug = Identity("127.0.0.1:8080").slug
    with held_elsewhere("file", str(tmp_path), slug) as process:
        asked: list[Holder] = []

        def wait_s(holder: Holder) -> float:
            asked.append(holder)
            process.kill()
            return 20.0

        one = InstanceLock(Identity("127.0.0.1:8080"), str(tmp_path))
        assert one.take(wait_s).state is LockState.OURS
        assert asked
        one.release()
