"""What ``check`` says: the guard's table, settings, what is beside them, one code.

Nothing here looks at the world or prints; all of it gives lines or what becomes JSON.
The name of a variable may be shown, its value never.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from relay_app.core import guard, platforms
from relay_app.core.config import SETTINGS, Config
from relay_app.core.guard import Finding, Level, Verdict
from relay_app.core.guard_codes import CODES, GuardCode
from relay_app.core.platforms import Platform
from relay_app.env_file import EnvFile

MAX_WIDTH = 80
"""Text is broken here even on a wider terminal."""

MIN_WIDTH = 40
"""And not before here on a narrower one."""

OF_THE_HOST = frozenset({"SI-102", "SI-104", "SI-203", "SI-601"})
"""Codes that variables alone do not settle."""

OF_A_PLATFORM = frozenset({"SI-201", "SI-202", "SI-401", "SI-402"})
"""Codes whose mend depends on the platform."""

LOOKED_FOR: Mapping[str, str] = {
    "SI-001": "a process that serves nobody",
    "SI-101": "a worker count other than one",
    "SI-101w": "an ignored WEB_CONCURRENCY",
    "SI-102": "another relay with the same lock",
    "SI-104": "a second worker",
    "SI-201": "a copy number above the first",
    "SI-202": "a count of copies above one",
    "SI-203": "a numbered copy below this one",
    "SI-401": "a missing assertion",
    "SI-402": "an assertion that is needed",
    "SI-601": "a lock that cannot be used",
    "SI-701": "a malformed variable of a platform",
}
"""What there was nothing of, for a code without a finding."""

_MAX_DOUBTS = 5
_COLOURS = {Level.FINE: "green", Level.WARN: "yellow", Level.REFUSE: "red"}
_TABLE_INDENT = 18
_PLATFORM_INDENT = 19


@dataclass(frozen=True, slots=True)
class Remark:
    """Something beside the guard that an operator should know before the start.

    Args:
        about: One word for it.
        level: What it means for the start.
        seen: What is so.
        fix: What to do; empty if nothing.
    """

    about: str
    level: Level
    seen: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was judged, and what came of it.

    Args:
        environ: The environment, whosever it is.
        config: The settings in it; the default ones where they cannot be used.
        verdict: The guard's.
        faults: Settings that cannot be used; then the guard was not asked.
        elsewhere: The environment is not this process's own, so this host was not
            looked at.
        remarks: What there is to say beside the guard.
    """

    environ: Mapping[str, str]
    config: Config = field(default_factory=Config)
    verdict: Verdict = field(default_factory=lambda: Verdict(()))
    faults: tuple[str, ...] = ()
    elsewhere: bool = False
    remarks: tuple[Remark, ...] = ()

    @property
    def level(self) -> Level:
        """The verdict on all of it."""
        if self.faults:
            return Level.REFUSE
        return max((self.verdict.level, *(remark.level for remark in self.remarks)))

    @property
    def exit_code(self) -> int:
        """What ``check`` ends with."""
        return guard.EXIT_REFUSED if self.level is Level.REFUSE else 0

    @property
    def platform(self) -> Platform | None:
        """The platform that the environment belongs to."""
        return platforms.detect(self.environ)


def about_proxies(config: Config, platform: Platform | None) -> tuple[Remark, ...]:
    """Say whether the relay will tell its clients apart.

    Args:
        config: The settings.
        platform: Where it runs, if that is known.

    Returns: One remark, or none where nothing is known of a proxy.
    """
    proxy = platform.proxy if platform else None
    trusted, name = config.trusted_proxies, platforms.TRUSTED_PROXIES
    fix = proxy.to_set if proxy else f"name the proxy's networks in {name}, no others"
    level = Level.WARN
    if any(network.prefixlen == 0 for network in trusted):
        seen = f"{name} names every address, so a client may choose its own"
    elif proxy is None:
        return ()
    elif not trusted and config.rate_per_minute:
        seen = (
            f"behind {proxy.what} all clients share one rate limit: after "
            f"{config.rate_burst} upgrades the others get 429"
        )
    elif not trusted:
        seen = f"behind {proxy.what} all clients count as one"
    elif proxy.also and proxy.is_all(trusted):
        seen = f"{name} names only {proxy.what}, so all clients still count as one"
        fix = f"also name {proxy.also}"
    else:
        level, fix = Level.FINE, ""
        seen = f"behind {proxy.what}, and {name} is set"
        if proxy.also:
            seen += f"; it has to name as well {proxy.also}"
    return (Remark("proxy", level, seen, fix),)


def as_dict(judged: Judgement) -> dict[str, Any]:
    """Give all of it, for JSON."""
    verdict, platform = judged.verdict, judged.platform
    return {
        "verdict": judged.level.name,
        "codes": verdict.codes,
        "findings": [
            {"code": f.code, "level": f.level.name, "seen": f.seen, "fix": f.fix}
            for f in verdict.findings
        ],
        "settings_faults": judged.faults,
        "unknown": judged.config.unknown,
        "exit_code": judged.exit_code,
        "table": [_row(judged, row) for row in CODES.values() if row.at_start],
        "remarks": [
            {"about": r.about, "level": r.level.name, "seen": r.seen, "fix": r.fix}
            for r in judged.remarks
        ],
        "platform": platform.name if platform else None,
    }


def _row(judged: Judgement, row: GuardCode) -> dict[str, Any]:
    found = [f for f in judged.verdict.findings if f.code == row.code]
    return {
        "code": row.code,
        "signal": row.signal,
        "verdict": max(f.level for f in found).name if found else None,
        "looked_at": found != [] or not _unseen(judged, row),
        "seen": [f.seen for f in found],
        "fix": [f.fix for f in found if f.fix],
    }


def as_lines(judged: Judgement, width: int) -> list[str]:
    """Give all of it as styled text.

    Args:
        judged: What to tell.
        width: Of the terminal; long lines of the table are broken at it.
    """
    width = _usable(width)
    level = judged.level
    word = click.style(level.name, _COLOURS[level], bold=True)
    does = "refuse to start" if judged.exit_code else "start"
    where = "with these variables" if judged.elsewhere else "here"
    lines = [
        f"{word}: the relay would {does} {where} (exit code {judged.exit_code})",
        "",
        "Single-instance guard",
    ]
    if judged.faults:
        lines.append("  not judged: see below")
    else:
        lines += _table(judged, width)
    lines += ["", "Settings", *_settings(judged)]
    if judged.remarks:
        lines += ["", "Beside the guard"]
    for remark in judged.remarks:
        lines += _entry(remark.about, remark, width)
    if judged.platform is not None:
        lines += ["", *_platform(judged.platform, width)]
    return lines


def _unseen(judged: Judgement, row: GuardCode) -> str:
    """Say why a code was not looked at; empty if it was."""
    if judged.faults or "SI-001" in judged.verdict.codes:
        return "not looked at"
    if judged.elsewhere and row.code in OF_THE_HOST:
        return "not looked at: only the relay's own host can tell"
    return ""


def _table(judged: Judgement, width: int) -> Iterator[str]:
    """One line for each code, and for each of several findings of one."""
    findings = judged.verdict.findings
    for row in CODES.values():
        found = [finding for finding in findings if finding.code == row.code]
        for finding in found:
            yield from _entry(row.code, finding, width)
        if not found and row.at_start:
            why = _unseen(judged, row)
            quiet = why or f"nothing seen of {LOOKED_FOR[row.code]}"
            yield click.style(f"  {row.code:<8}{'-':<8}{quiet}", dim=True)


def _entry(label: str, found: Finding | Remark, width: int) -> Iterator[str]:
    """One thing that was seen, and below it what to do."""
    word = click.style(f"{found.level.name:<8}", _COLOURS[found.level])
    seen = _broken(found.seen, width, _TABLE_INDENT)
    yield f"  {label:<8}{word}{seen[0]}"
    yield from seen[1:]
    if found.fix:
        fix = _broken(f"fix: {found.fix}", width, _TABLE_INDENT)
        yield " " * _TABLE_INDENT + fix[0]
        yield from fix[1:]


def _settings(judged: Judgement) -> Iterator[str]:
    for fault in judged.faults:
        yield f"  cannot be used: {fault}"
    for sentence in judged.config.unknown:
        yield f"  warning: {_printable(sentence)}"
    changed = _changed(judged.config, judged.environ)
    if changed:
        yield f"  differ from their default: {', '.join(changed)}"
    elif not judged.faults:
        yield "  all have their default"


def _changed(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Name the variables that make a setting differ from its default."""
    default = Config()
    names: dict[str, str] = {}
    for setting in SETTINGS:
        value = getattr(config, setting.field)
        if setting.variable in environ and value != getattr(default, setting.field):
            # Of PORT and LISTEN the first wins.
            names.setdefault(setting.field, setting.variable)
    return list(names.values())


def _platform(platform: Platform, width: int) -> Iterator[str]:
    yield f"Platform: {platform.name}"
    for label, text in (
        ("keep it at one", platform.pin),
        ("would break it", platform.scale),
        ("in a deploy", platform.in_a_deploy),
    ):
        first, *others = _broken(text, width, _PLATFORM_INDENT)
        yield f"  {label + ':':<17}{first}"
        yield from others


def explanation(code: GuardCode, platform: Platform | None) -> dict[str, Any]:
    """Explain one code, for JSON.

    Args:
        code: Its row.
        platform: The platform of the environment that is judged, if one is recognised.
    """
    named = platform if code.code in OF_A_PLATFORM else None
    return {
        "code": code.code,
        "signal": code.signal,
        "verdict": code.verdict,
        "meaning": code.meaning,
        "fix": code.fix,
        "bypass": code.bypass,
        "at_start": code.at_start,
        "platform": named.name if named else None,
        "pin": named.pin if named else None,
    }


def explanation_lines(
    code: GuardCode, platform: Platform | None, width: int
) -> list[str]:
    """Explain one code as text; the arguments are those of the two above."""
    width = _usable(width)
    bypass = (
        "PYRYCODE_RELAY_SINGLE_INSTANCE=1 turns a refusal into a warning."
        if code.bypass
        else "PYRYCODE_RELAY_SINGLE_INSTANCE=1 changes nothing about it."
    )
    parts = [
        ("Verdict", code.verdict),
        ("Meaning", code.meaning),
        ("What to do", code.fix),
        ("Bypass", bypass),
    ]
    if platform is not None and code.code in OF_A_PLATFORM:
        parts.append((f"On {platform.name}", platform.pin))
    lines = _wrapped(f"{code.code}: {code.signal}", width, "")
    for title, text in parts:
        lines += ["", title, *_wrapped(text, width, "  ")]
    return lines


def doubts(file: EnvFile) -> Iterator[str]:
    """Warn of what was not read in a file, by the number of its line only."""
    if not file.variables:
        yield "warning: --env-file sets no variable"
    for number in file.skipped[:_MAX_DOUBTS]:
        yield f"warning: --env-file: line {number} is not NAME=value and is skipped"
    more = len(file.skipped) - _MAX_DOUBTS
    if more > 0:
        yield f"warning: --env-file: {more} more lines are skipped"


def _usable(width: int) -> int:
    return max(MIN_WIDTH, min(width, MAX_WIDTH))


def _broken(text: str, width: int, indent: int) -> list[str]:
    """Break a text that begins behind ``indent`` columns of something else."""
    lines = _wrapped(text, width, " " * indent)
    return [lines[0][indent:], *lines[1:]]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    # A command or a name is never cut in two.
    return textwrap.wrap(
        _printable(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    """Escape what a terminal would obey; the name of a variable may have any bytes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )
