"""Patches the standard library before anything imports it, and watches for leaks."""

from gevent import monkey

monkey.patch_all()

import contextlib  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
from gevent.hub import Hub  # noqa: E402
from gevent.threadpool import _WorkerGreenlet  # noqa: E402
from greenlet import greenlet  # noqa: E402
from hypothesis import settings  # noqa: E402

from relay_app import lock, log  # noqa: E402
from relay_app.transport import hub  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

# gevent's loop, child watcher and resolver are made at their first use and stay.
subprocess.run(["true"], check=True)
socket.getaddrinfo("localhost", 80)

# The locks of all relays that tests start, so that none of them meets one that is in use.
LOCKS = tempfile.TemporaryDirectory(prefix="pyrycode-relay-tests-")
os.environ["RUNTIME_DIRECTORY"] = LOCKS.name

GEVENTS_OWN = (Hub, _WorkerGreenlet)
"""Greenlets of gevent's loops and of its resolver's threads, which end when idle.
A thread's first greenlet has no parent."""

settings.register_profile("relay", deadline=None, print_blob=True)
settings.load_profile("relay")


def _open_files() -> set[str]:
    """Name every open descriptor by what it leads to.

    Event loops are left out: gevent's resolver has threads, each with a loop, that
    come and go as they like.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            leads_to = os.readlink(f"/proc/self/fd/{number}")
            if "anon_inode:[event" not in leads_to:
                found.add(f"{number} {leads_to}")
    return found


def _greenlets() -> dict[int, greenlet]:
    """Give the greenlets that have started and not ended, but for gevent's own."""
    # By type, since a weak proxy whose object has gone has nothing else.
    living = [thing for thing in gc.get_objects() if issubclass(type(thing), greenlet)]
    return {
        id(one): one
        for one in living
        if one and one.parent is not None and not isinstance(one, GEVENTS_OWN)
    }


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a greenlet, a descriptor or a claim behind."""
    if "tests/core/" in str(request.node.path):
        yield
        return
    files, greenlets = _open_files(), set(_greenlets())

    def left() -> list[str]:
        """What is there now and was not before."""
        new = {key: one for key, one in _greenlets().items() if key not in greenlets}
        return sorted(_open_files() - files) + [
            f"{g!r} {g.gr_frame}" for g in new.values()
        ]

    yield
    lock.release()
    wait_until(lambda: not left(), lambda: f"left behind: {left()}", deadline_s=5.0)
    assert len(hub.registry) == 0, "a claim was left in the process's registry"
    assert hub.registry.phones == 0
    log.configure("json", "info")
