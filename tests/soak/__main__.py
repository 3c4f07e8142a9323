"""``python -m tests.soak --minutes 30``: churn, traffic, deaf readers, flaps, kills, at once.

What is checked while it runs:

* *steady* binaries and phones are never cut, and between them no frame is lost, doubled,
  reordered or given to somebody else;
* *churning* phones on the same binaries come and go in every way. What they sent before
  they left may be lost with them; what arrives arrives in order, once, under the conn_id
  of that phone;
* on *flapping* server-ids binaries leave, come back within and beyond the grace period,
  and claim what another one holds. A frame may be lost there when its connection or its
  binary's ended, and at no other moment counts; it must never reach another server-id;
* *deaf* phones do not read while their binary floods: they are closed 1011 or stay, and
  the phone beside them that reads gets everything, in order;
* strangers send half heads and nonsense;
* ``/healthz`` answers within ``HEALTH_S``.

At the end all leave, and what the worker holds is what it held before; memory may have
grown by ``GROWTH_KIB``. The exit code is 1 if anything of this is missed.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from time import monotonic  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from tests.e2e.gunicorn import ROOT, Gunicorn, gunicorn  # noqa: E402
from tests.peers import get, upgrade_request  # noqa: E402
from tests.soak.ends import End, Refused  # noqa: E402
from tests.waiting import wait_until  # noqa: E402

STEADY, PHONES_EACH, CHURNERS, FLAPPERS = 6, 4, 6, 4
HEALTH_S = 1.0
GROWTH_KIB = 16 << 10
WARM_UP_S = 5.0
"""Before the figures are taken that the end is compared with: pools and caches fill."""

SETTINGS = {
    "GRACE_PERIOD_S": 1.0,
    "CONFLICT_PROBE_S": 0.5,
    "HEARTBEAT_INTERVAL_S": 3.0,
    "MESSAGE_TIMEOUT_S": 2.0,
    "CLOSE_TIMEOUT_S": 1.0,
    "WRITE_TIMEOUT_S": 5.0,
    "OUTBOX_MAX_BYTES": 1 << 20,
    "RATE_PER_MINUTE": 60000,
    "RATE_BURST": 1000,
}

Spawn = Callable[..., Any]


class Soak:
    """One run: who takes part, and what was seen.

    Args:
        relay: Serves ``tests.soak.app``.
        seed: For everything that is drawn.
    """

    def __init__(self, relay: Gunicorn, seed: int) -> None:
        self.relay = relay
        self.random = random.Random(seed)
        self.over = Event()
        self.all_left = Event()
        self.seen: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def pause(self, most_s: float) -> None:
        """Wait for a while that is drawn, or until it is over."""
        self.over.wait(self.random.uniform(0, most_s))

    def dial(self, leg: str, server_id: str) -> End:
        """Connect from one of many addresses."""
        source = f"127.0.0.{self.random.randint(2, 200)}"
        return End(self.relay.address, leg, server_id, source)

    # -- binaries -----------------------------------------------------------

    def serve(self, end: End, server_id: str) -> None:
        """Echo what phones send; each has to be in order under one conn_id."""
        expected: dict[str, tuple[str, int]] = {}
        ended: set[str] = set()
        for message in end.messages():
            envelope = json.loads(message)
            conn_id = envelope["conn_id"]
            if not conn_id.startswith(f"client-{server_id}-"):
                self.faults["given to another server-id"] += 1
            if "frame" not in envelope:
                self.faults["close notice twice"] += conn_id in ended
                ended.add(conn_id)
                expected.pop(conn_id, None)
                continue
            self.faults["a frame behind its close notice"] += conn_id in ended
            there, sender, number = envelope["frame"][:3]
            if there != server_id:
                self.faults["given to another server-id"] += 1
            known, wanted = expected.get(conn_id, (sender, 0))
            if sender != known:
                self.faults["under another conn_id"] += 1
            if number != wanted:
                self.faults["lost" if number > wanted else "doubled or reordered"] += 1
            expected[conn_id] = (sender, number + 1)
            self.seen["frames up"] += 1
            frame = json.dumps(envelope["frame"])
            try:
                end.send(f'{{"conn_id":"{conn_id}","frame":{frame}}}'.encode())
            except OSError:
                continue  # its end is read next

    def steady_binary(self, server_id: str) -> None:
        """Hold a server-id to the end."""
        end = self.dial("server", server_id)
        serving = gevent.spawn(self.serve, end, server_id)
        gevent.wait([serving, self.all_left], count=1)
        self.faults["steady binary cut"] += serving.ready()
        serving.kill()
        end.sock.close()

    def flapping_binary(self, server_id: str) -> None:
        """Come, serve for a moment, go in any way, come back sooner or later."""
        while not self.over.is_set():
            try:
                end = self.dial("server", server_id)
            except (OSError, Refused):
                self.seen["refused"] += 1
                continue
            serving = gevent.spawn(self.serve, end, server_id)
            if self.random.random() < 0.3:
                end.sock.sendall(b"\x81\x83\0\0\0\0[1]")  # no envelope
            self.pause(1.0)
            end.leave(self.random)
            serving.kill()
            self.seen["flaps"] += 1
            self.pause(2.0)

    # -- phones -------------------------------------------------------------

    def talk(self, end: End, server_id: str, sender: str, frames: int) -> int:
        """Send numbered frames and read each one's echo; the rest has to be silence.

        Returns: How many came back before the end of the connection.
        """
        echoes = end.messages()
        back = 0
        for number in range(frames):
            pad = "x" * self.random.choice((0, 10, 200, 5000))
            sent = [server_id, sender, number, pad]
            try:
                end.send(json.dumps(sent).encode())
            except OSError:
                break
            answer = next(echoes, None)
            if answer is None:
                break
            if json.loads(answer) != sent:
                self.faults["echo of another frame"] += 1
            back += 1
        self.seen["frames down"] += back
        return back

    def steady_phone(self, server_id: str, sender: str) -> None:
        """Stay to the end; nothing may be lost."""
        end = self.dial("client", server_id)
        echoes = end.messages()
        number = 0
        while not self.over.is_set():
            batch = [
                [server_id, sender, number + n, "y" * self.random.randint(0, 2000)]
                for n in range(5)
            ]
            for sent in batch:
                end.send(json.dumps(sent).encode())
            for sent in batch:
                answer = next(echoes, None)
                if answer is None:
                    self.faults["steady phone cut"] += 1
                    return
                self.faults["echo of another frame"] += json.loads(answer) != sent
            number += len(batch)
            self.seen["frames down"] += len(batch)
            self.pause(0.05)
        end.sock.close()

    def churning_phone(self, sender: str) -> None:
        """Join any of the server-ids for a moment, again and again."""
        number = 0
        while not self.over.is_set():
            number += 1
            flaps = self.random.random() < 0.4
            name = f"{'flap' if flaps else 'steady'}-{self.random.randrange(FLAPPERS)}"
            try:
                end = self.dial("client", name)
            except (OSError, Refused):
                self.seen["refused"] += 1
                continue
            wanted = self.random.randint(0, 20)
            back = self.talk(end, name, f"{sender}.{number}", wanted)
            if not flaps and back != wanted and end.code != 4429:
                self.faults[f"churning phone cut with {end.code}"] += 1
            end.leave(self.random)
            self.seen["phones"] += 1

    def deaf_phones(self, server_id: str) -> None:
        """Let a binary flood phones that do not read beside one that does."""
        while not self.over.is_set():
            binary, good = (
                self.dial("server", server_id),
                self.dial("client", server_id),
            )
            deaf = [self.dial("client", server_id) for _ in range(3)]
            conn_ids = []
            notices = binary.messages()
            for phone in (good, *deaf):
                phone.send(b"0")
                conn_ids.append(json.loads(next(notices))["conn_id"])
            got = good.messages()
            for number in range(200):
                for conn_id in conn_ids:
                    pad = "z" * 8000
                    text = f'{{"conn_id":"{conn_id}","frame":[{number},"{pad}"]}}'
                    binary.send(text.encode())
                answer = next(got, b"[-1]")
                self.faults["lost beside deaf phones"] += (
                    json.loads(answer)[0] != number
                )
            self.seen["deaf rounds"] += 1
            for end in (*deaf, good, binary):
                end.leave(self.random)
            self.pause(1.0)

    # -- strangers ----------------------------------------------------------

    def stranger(self) -> None:
        """Send a part of a head, or nonsense, and leave, or wait to be thrown out."""
        request = upgrade_request("client", "steady-0")
        while not self.over.is_set():
            with socket.create_connection(self.relay.address, 20) as sock:
                part = request[: self.random.randrange(len(request))]
                sock.sendall(self.random.choice((part, self.random.randbytes(50))))
                self.pause(0.3)
            self.seen["strangers"] += 1

    def killed_program(self) -> None:
        """Run the project's own binary and kill it."""
        while not self.over.is_set():
            words = ["binary", "--echo", "--server-id", "killed"]
            process = subprocess.Popen(
                [sys.executable, "-m", "relay_app", *words, "--url", self.relay.url],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.over.wait(3.0)
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.seen["kills"] += 1
            self.pause(2.0)

    def health(self) -> None:
        """Ask for the health all the time."""
        while not self.over.is_set():
            began = monotonic()
            status = get(self.relay.address, "/healthz")[0]
            took_s = monotonic() - began
            self.faults["health is not 200"] += status != 200
            self.faults[f"health took more than {HEALTH_S:g} s"] += took_s > HEALTH_S
            self.seen["health"] += 1
            self.over.wait(0.2)

    def figures(self) -> dict[str, int]:
        """What the worker holds."""
        shown: dict[str, int] = json.loads(get(self.relay.address, "/_figures")[2])
        return shown

    def run(self, seconds: float) -> None:
        """Let all of them loose for some time."""
        crowd: list[tuple[Any, ...]] = []
        for n in range(STEADY):
            crowd.append((self.steady_binary, f"steady-{n}"))
        jobs = [gevent.spawn(*job) for job in crowd]
        wait_until(lambda: self.relay.health()["connected_binaries"] == STEADY)
        crowd = [(self.health,), (self.killed_program,), (self.deaf_phones, "deaf")]
        crowd += [(self.stranger,)] * 3
        crowd += [(self.flapping_binary, f"flap-{n}") for n in range(FLAPPERS)] * 2
        crowd += [(self.churning_phone, f"churn{n}") for n in range(CHURNERS)]
        for n in range(STEADY):
            for phone in range(PHONES_EACH):
                crowd.append((self.steady_phone, f"steady-{n}", f"phone{phone}"))
        jobs += [gevent.spawn(*job) for job in crowd]
        ends_at = monotonic() + seconds
        while (left_s := ends_at - monotonic()) > 0:
            self.over.wait(min(left_s, 10.0))
            print(f"{left_s:6.0f} s left: {dict(self.seen)}", flush=True)
        self.over.set()
        gevent.joinall(jobs[STEADY:], timeout=60)
        self.all_left.set()
        for job in gevent.joinall(jobs, timeout=10):
            if job.exception is not None:
                self.faults[f"a peer failed: {job.exception!r}"] += 1
        late = [job for job in jobs if not job.ready()]
        self.faults["a peer hangs"] += len(late)
        gevent.killall(late)


HELD = ("server_ids", "phones", "connections", "places", "sources", "queued_bytes")
GIVEN_BACK = (*HELD, "unfinished_bytes", "buckets", "greenlets", "descriptors")


def compare(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """List what was not given back."""
    missed = [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in GIVEN_BACK
        if after[name] > before[name]
    ]
    if after["rss_kib"] > before["rss_kib"] + GROWTH_KIB:
        missed.append(
            f"memory: {before['rss_kib']} KiB before, {after['rss_kib']} after"
        )
    return missed


def soak(minutes: float, seed: int) -> int:
    """Run it all, and say how it ended."""
    words = ["tests.soak.app:create_app()"]
    with gunicorn(*words, measured=True, **SETTINGS) as relay:
        relay.ready()
        Soak(relay, seed).run(WARM_UP_S)
        run = Soak(relay, seed + 1)
        before: dict[str, int] = {}

        def quiet() -> bool:
            nonlocal before
            before = run.figures()
            return not any(before[name] for name in (*HELD, "buckets"))

        wait_until(quiet, lambda: f"not quiet after the warm-up: {before}")
        run.run(minutes * 60)
        after: dict[str, int] = {}

        def is_back() -> bool:
            nonlocal after
            after = run.figures()
            return not compare(before, after)

        try:
            wait_until(is_back)
        except AssertionError:
            for line in compare(before, after):
                run.faults[line] += 1
        for word in ("internal.error", "Traceback"):
            run.faults[f"{word} in the log"] += word in relay.output
    for name in before:
        print(f"{name:18} {before[name]:>10} before {after[name]:>10} after")
    faults = {what: count for what, count in run.faults.items() if count}
    for what, count in faults.items():
        print(f"MISSED {what}: {count}")
    frames = run.seen["frames up"] + run.seen["frames down"]
    print(
        f"soak: {minutes:g} minutes, seed {seed}, {frames} frames, "
        f"{run.seen['phones']} phones, {len(faults)} faults"
    )
    return 1 if faults else 0


def main() -> int:
    """Read the words, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    return soak(words.minutes, words.seed)


if __name__ == "__main__":
    sys.exit(main())
