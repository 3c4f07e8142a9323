"""Every code of the guard, with what ``check --explain`` says about it.

Source: docs/operations.md "Codes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuardCode:
    """One code.

    Args:
        code: ``SI-…``.
        signal: What it stands for, in a line.
        verdict: What it comes to, in words.
        meaning: What is behind it, in sentences.
        fix: What to do, in sentences.
        bypass: Whether ``PYRYCODE_RELAY_SINGLE_INSTANCE=1`` turns it into a warning.
        at_start: Whether it is judged before the start; the others come up later.
    """

    code: str
    signal: str
    verdict: str
    meaning: str
    fix: str
    bypass: bool = False
    at_start: bool = True


_ALL = (
    GuardCode(
        "SI-001",
        "a process that serves nobody: a release step, a build, a one-off shell",
        "FINE, no other check is made",
        "The platform marks processes of the service that get no traffic. A second "
        "registry does no harm in one of those.",
        "Nothing to do.",
    ),
    GuardCode(
        "SI-101",
        "the server is set to another number of workers than one",
        "REFUSE",
        "The number is what gunicorn has after file, environment and flags are merged. "
        "Each worker would hold a registry of its own, and the kernel hands a connection "
        "to either.",
        "Remove the number from where the message says. The relay's own configuration "
        "sets workers = 1; one worker serves thousands of phones.",
    ),
    GuardCode(
        "SI-101w",
        "WEB_CONCURRENCY is above one while one worker runs",
        "FINE",
        "Some platforms set it from the machine's size. gunicorn takes it only where "
        "nothing else says how many workers there are, and our configuration does.",
        "Nothing to do.",
    ),
    GuardCode(
        "SI-102",
        "another live process on this host holds the lock of this relay",
        "REFUSE",
        "A relay is known by its public host, or by the address it listens on where no "
        "public host is set. Whoever serves under that name holds a lock, and the kernel "
        "lets go of it when the last of its processes has ended: a file that was left "
        "behind blocks nothing.",
        "Stop the process that the message names, or wait until it has drained. If these "
        "are two different relays, give each its own PYRYCODE_RELAY_PUBLIC_HOST or "
        "listen address. A server that is not ours counts as what PYRYCODE_RELAY_LISTEN "
        "says, whatever port it takes.",
    ),
    GuardCode(
        "SI-104",
        "a second worker in one server, although one is configured",
        "REFUSE; gunicorn ends, under other servers that process answers 503",
        "Something got past the configuration: another hook, a fork after the "
        "application was loaded, a race.",
        "Let gunicorn run the relay with the relay's own configuration, and find out "
        "what started the second worker.",
    ),
    GuardCode(
        "SI-105",
        "somebody asks for more or fewer workers while the relay runs",
        "an error line; one worker stays, and so do its connections",
        "SIGTTIN and SIGTTOU do that, and gunicorn's control socket.",
        "Find out who sent it.",
        at_start=False,
    ),
    GuardCode(
        "SI-106",
        "a reload (SIGHUP) or an upgrade in place (SIGUSR2)",
        "an error line; nothing else happens",
        "gunicorn would start a new worker, or a new server, beside the living one.",
        "Restart the relay instead: it drains, and its peers dial again.",
        at_start=False,
    ),
    GuardCode(
        "SI-201",
        "the platform numbers this copy, and it is not the first",
        "REFUSE",
        "A number above the first means that there is a first one as well, with a "
        "registry of its own. The first number proves nothing.",
        "Scale the service to one copy; the message names the command of the platform.",
        bypass=True,
    ),
    GuardCode(
        "SI-202",
        "a count of copies is above one",
        "REFUSE",
        "It comes from PYRYCODE_RELAY_REPLICAS, which the deploy may fill in, or from "
        "the platform.",
        "Scale the service to one copy, and correct the variable if the deploy sets it.",
        bypass=True,
    ),
    GuardCode(
        "SI-203",
        "this copy's name ends in a number, and there may be a copy below it",
        "REFUSE if the lower neighbour is found, else WARN",
        "Pods of a StatefulSet, instances of a systemd template, processes of a "
        "supervisord program and containers of Compose are numbered, but the first need "
        "not be number 0. So the relay looks for the copy below.",
        "Run one copy; the message names the command. Two different relays on one host "
        "need a PYRYCODE_RELAY_PUBLIC_HOST each, and are then told apart by it.",
        bypass=True,
    ),
    GuardCode(
        "SI-401",
        "the platform can scale, or this is production, and nothing asserts a single instance",
        "REFUSE",
        "Nothing here shows a second copy, but most platforms show nothing of the kind. "
        "So somebody has to state that the deploy is pinned to one.",
        "Pin the service to one copy; then set PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE=true "
        "in the same manifest.",
        bypass=True,
    ),
    GuardCode(
        "SI-402",
        "the same, and the deploy asserts a single instance",
        "FINE",
        "It is taken at its word, but not against evidence. The line says whether a "
        "deploy on this platform runs old and new side by side for a while.",
        "Switch the overlap off if there is one; the line says how.",
    ),
    GuardCode(
        "SI-601",
        "the lock of this relay cannot be used",
        "WARN",
        "There are three reasons: the state directory may not be written to, it or the "
        "system has no locks, or its locks do not hold, as on some network file systems. "
        "Then a second relay on this host is not noticed.",
        "Set PYRYCODE_RELAY_STATE_DIR to a directory on a local disk that the relay may "
        "write to.",
    ),
    GuardCode(
        "SI-701",
        "a variable of a platform is malformed or contradicts another",
        "FINE, it is treated as absent",
        "Such a value was not set by the platform whose variable it is.",
        "Remove the variable, or correct it.",
    ),
)

CODES: Mapping[str, GuardCode] = {row.code: row for row in _ALL}
"""By code, in the order in which they are judged and shown."""
