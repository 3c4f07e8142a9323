"""The single-instance guard: facts in, verdict out.

The registry is in the memory of one process, so a second process is a second
registry, and a phone that lands there is told that its binary is not connected.
The guard refuses to start when it can see that it is not alone.

``judge`` is pure. ``RULES`` lists the rules in the order of their codes; a rule
looks at the facts and yields findings. Evidence of two relays on this host is
refused whatever else is set: it is wrong with certainty, and the mend is always at
hand. Everything else can be turned into a loud warning by the bypass;
``guard_codes.CODES`` says which is which.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay_app.core import platforms
from relay_app.core.config import Config
from relay_app.core.guard_codes import CODES
from relay_app.core.neighbours import Neighbour

EXIT_REFUSED = 78
"""Exit code of our own command for a refusal or unusable settings: EX_CONFIG."""

EXIT_REFUSED_IN_GUNICORN = 3
"""Exit code inside gunicorn: its master stops for good on a worker that exits so."""

_FIRST_LINE = (
    "ERROR: multi-instance deploy detected, relay registry is in-memory and cannot "
    "share state across replicas."
)
_BYPASS_SENTENCE = (
    " Set PYRYCODE_RELAY_SINGLE_INSTANCE=1 to bypass (NOT recommended for production)."
)
_BREAKS = (
    "What breaks: a phone that reaches the other copy is told 4404, no server, "
    "although its binary is connected."
)


class Level(enum.IntEnum):
    """How grave a finding is; the verdict is the gravest."""

    FINE = 0
    WARN = 1
    REFUSE = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule saw.

    Args:
        code: ``SI-…``.
        level: What it means for the start.
        seen: What was seen, as a sentence; never the value of a variable that is
            not a number.
        fix: What to do about it; empty when there is nothing to do.
    """

    code: str
    level: Level
    seen: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as far as that can be told.

    Args:
        pid: Process that took it; it may have left it to a worker of its own.
        host: Name of its host.
        started: When it took the lock, ISO 8601 in UTC; empty for unknown.
        version: Of the relay; empty for unknown.
        orphaned: That process has gone, and a worker that it left behind drains.
    """

    pid: int | None = None
    host: str = ""
    started: str = ""
    version: str = ""
    orphaned: bool = False

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "a process that gave no number"
        who += f" on {self.host}" if self.host else " on this host"
        if self.started:
            who += f", started {self.started}"
        if self.version:
            who += f", version {self.version}"
        if self.orphaned:
            who += "; it has gone, but a worker that it left behind is still draining"
        return who


class LockState(enum.Enum):
    """What came of taking the lock."""

    OURS = "held by this relay"
    THEIRS = "held by another process"
    FORBIDDEN = "may not be written"
    UNSUPPORTED = "has no locks"
    UNENFORCED = "has locks that do not hold"


@dataclass(frozen=True, slots=True)
class LockReport:
    """What came of taking the lock, and who holds it if another does.

    Args:
        state: See ``LockState``.
        place: Where it is, in words without a path: "the state directory".
        holder: For ``THEIRS``.
        by_public_host: The relay is known by its public host, so whoever has another
            lock is another relay.
    """

    state: LockState
    place: str = ""
    holder: Holder | None = None
    by_public_host: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the guard is told. Whoever gathers it decides nothing.

    Args:
        environ: The process environment.
        config: The settings read from it; only the guard's four count here.
        workers: The server's effective worker count after file, environment and
            flags are merged; ``None`` where no server is involved.
        workers_from: Where that number comes from, for the message.
        siblings: Process ids of workers of the same server that are alive; 0 for one
            that is not known.
        lock: What came of taking the lock; ``None`` where there is none to take.
        neighbours: The copies below this one that its name points to, and whether each
            was found.
        serving: False for a command of ours that serves nobody.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    workers: int | None = None
    workers_from: str = "the configuration"
    siblings: tuple[int, ...] = ()
    lock: LockReport | None = None
    neighbours: tuple[tuple[Neighbour, bool], ...] = ()
    serving: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings, in the order of the rules."""

    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The gravest level among the findings; FINE without any."""
        return max((finding.level for finding in self.findings), default=Level.FINE)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """The findings that forbid the start."""
        return tuple(f for f in self.findings if f.level is Level.REFUSE)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes found, in order."""
        return tuple(finding.code for finding in self.findings)

    def message(self) -> str:
        """Word the refusal: first line to the letter, what was seen, what breaks, the fix.

        Further refusals follow as one line each.

        Raises:
            AssertionError: Nothing was refused.
        """
        if not self.refused:
            raise AssertionError("only a refusal has a message")
        first, *others = self.refused
        lines = [
            _FIRST_LINE + (_BYPASS_SENTENCE if CODES[first.code].bypass else ""),
            f"Seen: {first.seen} [{first.code}]",
            _BREAKS,
            f"Fix: {first.fix}",
        ]
        lines += [
            f"Also: {other.seen} [{other.code}]; fix: {other.fix}" for other in others
        ]
        return "\n".join(lines)


def judge(facts: Facts) -> Verdict:
    """Decide whether the relay may serve.

    Returns: Every finding; the start is refused if any of them says so.
    """
    variable = platforms.not_serving(facts.environ)
    if variable is not None or not facts.serving:
        seen = (
            f"{variable} marks a process that serves nobody"
            if variable is not None
            else "this command serves nobody"
        )
        return Verdict(
            (Finding("SI-001", Level.FINE, seen + "; the guard is skipped"),)
        )
    found = [finding for rule in RULES for finding in rule(facts)]
    if facts.config.guard_bypass:
        found = [_bypassed(finding) for finding in found]
    return Verdict(tuple(found))


def workers_from(argv: Sequence[str], environ: Mapping[str, str], workers: int) -> str:
    """Say where gunicorn's worker count most probably comes from.

    Args:
        argv: The server's command line.
        environ: The process environment.
        workers: The count.
    """

    def names_workers(words: Sequence[str]) -> bool:
        return any(
            word.startswith("-w") or word.startswith("--workers") for word in words
        )

    if names_workers(argv):
        return "the command line (-w, --workers)"
    if names_workers(environ.get("GUNICORN_CMD_ARGS", "").split()):
        return "GUNICORN_CMD_ARGS"
    # Only a default, which our own configuration does not leave to it.
    if environ.get("WEB_CONCURRENCY") == str(workers):
        return "WEB_CONCURRENCY or the configuration file"
    return "the configuration file"


def _bypassed(finding: Finding) -> Finding:
    if finding.level is not Level.REFUSE or not CODES[finding.code].bypass:
        return finding
    seen = (
        f"BYPASSED by PYRYCODE_RELAY_SINGLE_INSTANCE, NOT recommended: {finding.seen}"
    )
    return replace(finding, level=Level.WARN, seen=seen)


def _workers(facts: Facts) -> Iterator[Finding]:
    if facts.workers is not None and facts.workers != 1:
        yield Finding(
            "SI-101",
            Level.REFUSE,
            f"the server is set to {facts.workers} workers by {facts.workers_from}",
            f"remove the worker count from {facts.workers_from}; the relay's own "
            "gunicorn.conf.py sets workers = 1",
        )


def _web_concurrency(facts: Facts) -> Iterator[Finding]:
    text = facts.environ.get("WEB_CONCURRENCY", "")
    if facts.workers == 1 and text.isdecimal() and int(text[:9]) > 1:
        yield Finding(
            "SI-101w",
            Level.FINE,
            "WEB_CONCURRENCY is above 1, and has no effect: one worker runs",
        )


def _siblings(facts: Facts) -> Iterator[Finding]:
    if facts.siblings:
        pids = ", ".join(str(pid or "unknown") for pid in facts.siblings)
        yield Finding(
            "SI-104",
            Level.REFUSE,
            f"a second worker was started beside a living one (pid {pids})",
            "let the server run one worker: no -w, no TTIN, no --preload; restart instead of reload",
        )


def _lock(facts: Facts) -> Iterator[Finding]:
    lock = facts.lock
    if lock is not None and lock.state is LockState.THEIRS:
        yield Finding(
            "SI-102",
            Level.REFUSE,
            f"the lock of this relay is held by {lock.holder or Holder()}",
            "stop that one, or wait until it has drained; two different relays on one "
            "host need a PYRYCODE_RELAY_PUBLIC_HOST or a listen address each",
        )


def _lock_unusable(facts: Facts) -> Iterator[Finding]:
    lock = facts.lock
    if lock is None or lock.state not in _UNUSABLE:
        return
    yield Finding("SI-601", Level.WARN, *_UNUSABLE[lock.state](lock.place))


_UNUSABLE: dict[LockState, Callable[[str], tuple[str, str]]] = {
    LockState.FORBIDDEN: lambda place: (
        f"no permission: {place} may not be written to, so a second relay on this host "
        "is not noticed",
        "let the relay's user write there, or set PYRYCODE_RELAY_STATE_DIR to a "
        "directory where it may",
    ),
    LockState.UNSUPPORTED: lambda place: (
        f"not supported: {place} has no locks, so a second relay on this host is not "
        "noticed",
        "set PYRYCODE_RELAY_STATE_DIR to a directory on a local disk",
    ),
    LockState.UNENFORCED: lambda place: (
        f"not enforced: {place} gave the same lock to two processes, so a second relay "
        "is not noticed",
        "set PYRYCODE_RELAY_STATE_DIR to a directory on a local disk; some network file "
        "systems only pretend to lock",
    ),
}


def _ordinals(facts: Facts) -> Iterator[Finding]:
    for row, ordinal, number in platforms.ordinals(facts.environ):
        if number > ordinal.first:
            yield Finding(
                "SI-201",
                Level.REFUSE,
                f"{ordinal.variable} says that this is number {number} on {row.name}, "
                f"where the first is {ordinal.first}",
                row.pin,
            )


def _counts(facts: Facts) -> Iterator[Finding]:
    replicas = facts.config.replicas
    if replicas is not None and replicas > 1:
        platform = platforms.detect(facts.environ)
        pin = platform.pin if platform else "run one replica"
        yield Finding(
            "SI-202",
            Level.REFUSE,
            f"PYRYCODE_RELAY_REPLICAS says {replicas} replicas",
            f"{pin}, and set PYRYCODE_RELAY_REPLICAS=1",
        )
    for row, count, number in platforms.counts(facts.environ):
        if number > 1:
            yield Finding(
                "SI-202",
                Level.REFUSE,
                f"{count.variable} says {number} copies on {row.name}",
                row.pin,
            )


def _neighbours(facts: Facts) -> Iterator[Finding]:
    named = facts.lock is not None and (
        facts.lock.by_public_host and facts.lock.state is LockState.OURS
    )
    for neighbour, found in facts.neighbours:
        this = f"this is number {neighbour.number}, a {neighbour.kind}"
        if not found:
            yield Finding(
                "SI-203",
                Level.WARN,
                f"{this}; number {neighbour.number - 1} was not found",
                f"make sure that there is one copy only: {neighbour.pin}",
            )
        elif named and neighbour.same_host:
            yield Finding(
                "SI-203",
                Level.WARN,
                f"{this}, and number {neighbour.number - 1} is there; it has not the "
                "lock of this relay's public host, so it is another relay",
                "nothing, if that is so",
            )
        else:
            yield Finding(
                "SI-203",
                Level.REFUSE,
                f"{this}, and number {neighbour.number - 1} is there",
                neighbour.pin,
            )


def _malformed(facts: Facts) -> Iterator[Finding]:
    for variable in platforms.malformed(facts.environ):
        yield Finding(
            "SI-701",
            Level.FINE,
            f"{variable} is malformed or contradicts another variable, and is treated as absent",
            f"remove {variable}, or correct it",
        )


def _assertion(facts: Facts) -> Iterator[Finding]:
    platform = platforms.detect(facts.environ)
    if platform is None and not facts.config.production:
        return
    where = (
        f"{platform.name} can run more than one copy of this service"
        if platform
        else "this is production mode (PYRYCODE_RELAY_PRODUCTION)"
    )
    if facts.config.assert_single_instance:
        overlap = f"; in a deploy: {platform.in_a_deploy}" if platform else ""
        yield Finding(
            "SI-402",
            Level.FINE,
            f"{where}, and the deploy asserts a single instance{overlap}",
        )
        return
    pin = platform.pin if platform else "run exactly one replica"
    yield Finding(
        "SI-401",
        Level.REFUSE,
        f"{where}, and nothing asserts that there is only one",
        f"{pin}; then set PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE=true",
    )


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _workers,
    _web_concurrency,
    _lock,
    _siblings,
    _ordinals,
    _counts,
    _neighbours,
    _assertion,
    _lock_unusable,
    _malformed,
)
