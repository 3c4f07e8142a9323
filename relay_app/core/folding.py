"""How a flood of log lines becomes one line a minute with a count.

The log has minutes. In each of them a flood, which is one event caused by one source,
has its ``burst`` of lines that are written as they come; the rest is counted. At the
minute's end one line says how many there were. A flood that goes on then has only that
one line a minute, until it has kept within its burst for a minute.

Many sources together are bounded as well: ``MAX_PER_EVENT`` lines a minute, and as many
floods that are told apart. Past either, what comes from a source that is not known yet
is counted in one flood of the event.

A counted line has what all that it stands for have in common: a field that was not the
same in all of them is left out, and some fields are added up.

Source: docs/operations.md "Floods".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUTE_S = 60.0

MAX_PER_EVENT = 1024
"""Lines of one event in a minute, and floods of it that are told apart: some 300 bytes of
memory each, twice that with a count."""


@dataclass(frozen=True, slots=True)
class Fold:
    """When events of one kind count as a flood, and what is kept of them.

    Args:
        burst: Lines a minute that are written as they come, at least 1.
        per_source: Whether sources are told apart; without it nobody in particular
            causes the event, or it is not known who does.
        alike: Fields in which events of one flood agree. From small sets: what a peer
            chooses freely would make as many floods as it likes.
        sums: Fields that are added up.
    """

    burst: int
    per_source: bool = True
    alike: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A line that stands for several: its last field is ``folded``, how many."""

    name: str
    level: int
    fields: Mapping[str, Any]


class _Flood:
    """One event of one source, in this minute."""

    __slots__ = ("_fields", "_fold", "_level", "_name", "folded", "left", "seen")

    def __init__(self, name: str, level: int, fold: Fold) -> None:
        self._name = name
        self._level = level
        self._fold = fold
        self._fields: dict[str, Any] = {}
        self.left = fold.burst
        self.seen = 0
        self.folded = 0

    def count(self, fields: Mapping[str, Any]) -> None:
        """Fold one event into the line that will stand for all."""
        self.folded += 1
        if self.folded == 1:
            self._fields = dict(fields)
            return
        common, sums = self._fields, self._fold.sums
        for key in [*common]:
            if key in sums:
                common[key] += fields.get(key, 0)
            elif common[key] != fields.get(key):
                del common[key]

    def line(self) -> Line:
        """Give the line for what was counted."""
        fields = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in self._fields.items()
        }
        return Line(self._name, self._level, {**fields, "folded": self.folded})

    def next(self) -> _Flood | None:
        """Give what this flood is in the next minute; ``None`` if it is over."""
        if not self.folded or self.seen <= self._fold.burst:
            return None
        after = _Flood(self._name, self._level, self._fold)
        after.left = 0
        return after


_REST = ("rest",)
"""The flood of those that are not told apart. Other keys have a level in front."""


class _Floods:
    """All floods of one event, and its lines in this minute."""

    __slots__ = ("floods", "lines")

    def __init__(self) -> None:
        self.floods: dict[tuple[Any, ...], _Flood] = {}
        self.lines = 0


class Folding:
    """What this minute has seen.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._ends_at = now + MINUTE_S
        self._events: dict[str, _Floods] = {}

    def __len__(self) -> int:
        """Floods that are told apart just now, whether they are any or not."""
        return sum(len(event.floods) for event in self._events.values())

    def offer(
        self,
        name: str,
        level: int,
        fold: Fold,
        source: str,
        fields: Mapping[str, Any],
    ) -> bool:
        """Take note of one event.

        Args:
            name: Of the event.
            level: Of the event; a flood has one level.
            fold: How the event is folded.
            source: Who caused it, as admission counts; does not matter without
                ``per_source``.
            fields: What its line would hold.

        Returns: True when its line is to be written now; False when it was counted.
        """
        event = self._events.get(name)
        if event is None:
            event = self._events[name] = _Floods()
        has_room = event.lines < MAX_PER_EVENT
        key = (
            level,
            source if fold.per_source else "",
            *[fields.get(alike) for alike in fold.alike],
        )
        flood = event.floods.get(key)
        if flood is None:
            if not has_room or len(event.floods) >= MAX_PER_EVENT:
                key = _REST
                flood = event.floods.get(key)
            if flood is None:
                flood = event.floods[key] = _Flood(name, level, fold)
        flood.seen += 1
        if has_room and flood.left:
            flood.left -= 1
            event.lines += 1
            return True
        flood.count(fields)
        return False

    def roll(self, now: float) -> list[Line]:
        """Begin another minute if this one is over.

        Args:
            now: Monotonic seconds.

        Returns: The lines that are due then, else nothing.
        """
        if now < self._ends_at:
            return []
        self._ends_at = now + MINUTE_S
        return self._end()

    def flush(self) -> list[Line]:
        """Forget everything, and give the lines for what was counted."""
        lines = self._end()
        self._events = {}
        return lines

    def _end(self) -> list[Line]:
        before, self._events = self._events, {}
        lines = []
        for name, event in before.items():
            for key, flood in event.floods.items():
                if flood.folded:
                    lines.append(flood.line())
                after = flood.next()
                if after is not None:
                    goes_on = self._events.setdefault(name, _Floods())
                    goes_on.floods[key] = after
        return lines
