"""Writes events, one line each, to standard error.

A line is JSON (``{"time":…,"level":…,"event":…,…}``) or, for people, text. What
is in it are the event's own fields and nothing else. gunicorn's own messages go
the same way, through ``Formatter``.

A flood from one source is folded: past a few lines a minute what it causes is counted,
and one line says how often it was. ``tick`` has to be called now and then, so that this
line comes when the flood has stopped as well, and ``flush`` at the end.

Control characters never reach the output raw: JSON escapes them, text shows
them escaped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import secrets
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from time import monotonic
from types import TracebackType
from typing import Any, TextIO

import msgspec

from relay_app.core import events
from relay_app.core.folding import Fold, Folding

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

MAX_TRAIL = 30
"""Lines of code that ``internal.error`` names, the innermost ones: a recursion without
end has a thousand."""

_MESSAGES = Fold(burst=30, per_source=False, alike=("message", "error"))
"""gunicorn's messages: no peer causes them, but something that is broken may."""

_KEY = secrets.token_bytes(16)
_encode = msgspec.json.Encoder().encode


class _Sink:
    """Where lines go, and what was counted; replaced as a whole by ``configure``."""

    __slots__ = ("as_json", "folding", "least", "stream")

    def __init__(self, stream: TextIO | None, as_json: bool, least: int) -> None:
        self.stream = stream
        self.as_json = as_json
        self.least = least
        self.folding = Folding(monotonic())


_sink = _Sink(None, True, logging.INFO)


def configure(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Choose form and least level for this process.

    Args:
        log_format: ``json`` or ``text``.
        log_level: A key of ``LEVELS``.
        stream: Where to write; ``None`` for whatever ``sys.stderr`` is then.
    """
    global _sink
    _sink = _Sink(stream, log_format == "json", LEVELS[log_level])


def short_id(server_id: str) -> str:
    """Shorten a server-id for the log: 8 hex characters of a keyed hash.

    The key is this process's own, so a log does not let its reader test guesses;
    within one run the same id has the same short form.
    """
    return hashlib.blake2b(server_id.encode(), key=_KEY, digest_size=4).hexdigest()


def emit(event: events.Event, source: str = "") -> None:
    """Write one event, if its level is high enough and it is no part of a flood.

    Args:
        event: What happened.
        source: Who caused it, as admission counts: for every event that is folded per
            source. It is not written.
    """
    sink = _sink
    if event.level < sink.least:
        return
    kind: Any = type(event)
    fields = {
        name: value
        for name in _field_names(kind)
        if (value := getattr(event, name)) is not None
    }
    fold = event.fold
    if fold is not None:
        tick(monotonic())
        if not sink.folding.offer(event.name, event.level, fold, source, fields):
            return
    _write(sink, event.level, event.name, fields)


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def tick(now: float) -> None:
    """Write the counts of a minute that is over. To be called about once a second.

    Args:
        now: Monotonic seconds.
    """
    sink = _sink
    for line in sink.folding.roll(now):
        _write(sink, line.level, line.name, line.fields)


def flush() -> None:
    """Write the counts of the minute that is under way, for the relay stops."""
    sink = _sink
    for line in sink.folding.flush():
        _write(sink, line.level, line.name, line.fields)


def error(where: str, exc: BaseException) -> None:
    """Write ``internal.error`` for an exception that nobody expected.

    The exception's own text is left out, since it may quote what a peer sent;
    its type and the lines of code it went through are what a mend needs.
    """
    trail = _trail(exc.__traceback__)
    emit(events.InternalError(where=where, error=type(exc).__name__, traceback=trail))


def unplanned(
    context: object,
    kind: type[BaseException],
    exc: BaseException | None,
    trail: TracebackType | None,
) -> None:
    """Write ``internal.error`` for what nobody caught, in place of gevent's own print.

    gevent shows the exception's text and what the greenlet was called with, each time
    anew. In the form of ``gevent.hub.Hub.print_exception``.
    """
    emit(
        events.InternalError(
            where="event loop", error=kind.__name__, traceback=_trail(trail)
        )
    )


def _trail(trail: TracebackType | None) -> str:
    """Name the lines of code that an exception went through, the innermost first."""
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(trail), limit=-MAX_TRAIL, lookup_lines=False
    )
    return " < ".join(
        f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames)
    )


def _write(sink: _Sink, level: int, name: str, fields: Mapping[str, Any]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    word = logging.getLevelName(level).lower()
    if sink.as_json:
        line = _encode({"time": now, "level": word, "event": name, **fields}).decode()
    else:
        shown = " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
        line = f"{now[11:23]} {word:<7} {name:<22} {shown}".rstrip()
    # A log that nobody reads any more must not take a connection with it.
    with contextlib.suppress(OSError, ValueError):
        print(_printable(line), file=sink.stream or sys.stderr, flush=True)


def _printable(line: str) -> str:
    """Escape what could steer a terminal, beyond the controls that JSON escapes."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else _encode_escaped(c) for c in line)


def _encode_escaped(char: str) -> str:
    return json.dumps(char)[1:-1]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if not text.isprintable() or not text or " " in text or '"' in text:
        return _encode(text).decode()
    return text


def _is_strange(record: logging.LogRecord) -> bool:
    """Tell whether a record tells of an exception outside gunicorn.

    Flask's own words for one have the path that was asked for, and its text may quote a
    peer. What gunicorn reports happens at a start, where the text is of use.
    """
    return bool(record.exc_info) and record.name.partition(".")[0] != "gunicorn"


def _error_of(record: logging.LogRecord) -> str | None:
    return (
        record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
    )


class Filter(logging.Filter):
    """Folds records of the ``logging`` module as events are folded.

    Messages are the same if they are before their values are put in.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be written now."""
        tick(monotonic())
        fields = {"error": _error_of(record)}
        if not _is_strange(record):
            fields["message"] = str(record.msg)
        fields = {key: value for key, value in fields.items() if value is not None}
        return _sink.folding.offer(record.name, record.levelno, _MESSAGES, "", fields)


class Formatter(logging.Formatter):
    """Gives records of the ``logging`` module (gunicorn's) the form of our lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line; a traceback becomes a part of the message."""
        now = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        stamp = now.isoformat(timespec="milliseconds")
        word = record.levelname.lower()
        trail = ""
        if _is_strange(record) and record.exc_info:
            message = f"{_error_of(record)} at {_trail(record.exc_info[2])}"
        else:
            message = record.getMessage()
            if record.exc_info:
                trail = self.formatException(record.exc_info)
        if _sink.as_json:
            if trail:
                message += "\n" + trail
            shown = {
                "time": stamp,
                "level": word,
                "event": record.name,
                "message": message,
            }
            return _printable(_encode(shown).decode())
        line = f"{stamp[11:23]} {word:<7} {record.name:<22} {message}"
        return "\n".join(_printable(part) for part in [line, *trail.splitlines()])
