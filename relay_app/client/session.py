"""Runs a binary or a phone until it ends by itself or somebody stops it.

The session has a thread of its own, and the main thread only waits for it. So a
signal, which Python delivers to the main thread, never lands in the middle of
anything, and stopping is an ordinary call.
"""

from __future__ import annotations

import signal
import threading
from typing import Protocol


class Session(Protocol):
    """What can be run: see ``Binary`` and ``Phone``."""

    def run(self) -> int:
        """Do everything, and return the exit code."""

    def stop(self) -> float:
        """End ``run`` from another thread.

        Returns: Seconds that ``run`` may need from here; then it is abandoned.
        """


def run(session: Session) -> int:
    """Run a session in this process; SIGINT and SIGTERM stop it.

    Returns: The exit code; 0 when the session was stopped and did not say otherwise.

    Raises:
        Exception: Whatever ``session.run`` raised.
    """
    codes: list[int] = []
    faults: list[Exception] = []
    done = threading.Event()  # a join that is interrupted takes the thread for ended

    def body() -> None:
        try:
            codes.append(session.run())
        except Exception as fault:
            faults.append(fault)
        finally:
            done.set()

    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=body, daemon=True).start()
        done.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        done.wait(session.stop())
    if faults:
        raise faults[0]
    return codes[0] if codes else 0
