"""Writes events, one line each, to standard error.

A line is JSON (``{"time":…,"level":…,"event":…,…}``) or, for people, text. What
is in it are the event's own fields and nothing else. gunicorn's own messages go
the same way, through ``Formatter``.

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
from typing import Any, TextIO

import msgspec

from relay_app.core import events

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_KEY = secrets.token_bytes(16)
_encode = msgspec.json.Encoder().encode


class _Sink:
    """Where lines go; replaced as a whole by ``configure``."""

    __slots__ = ("as_json", "least", "stream")

    def __init__(self, stream: TextIO | None, as_json: bool, least: int) -> None:
        self.stream = stream
        self.as_json = as_json
        self.least = least


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


def emit(event: events.Event) -> None:
    """Write one event, if its level is high enough."""
    sink = _sink
    if event.level < sink.least:
        return
    fields = {
        f.name: value
        for f in dataclasses.fields(event)
        if (value := getattr(event, f.name)) is not None
    }
    _write(sink, event.level, event.name, fields)


def error(where: str, exc: BaseException) -> None:
    """Write ``internal.error`` for an exception that nobody expected.

    The exception's own text is left out, since it may quote what a peer sent;
    its type and the lines of code it went through are what a mend needs.
    """
    frames = traceback.extract_tb(exc.__traceback__)
    trail = " < ".join(
        f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames[::-1]
    )
    emit(events.InternalError(where=where, error=type(exc).__name__, traceback=trail))


def _write(sink: _Sink, level: int, name: str, fields: dict[str, Any]) -> None:
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


class Formatter(logging.Formatter):
    """Gives records of the ``logging`` module (gunicorn's) the form of our lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line; a traceback becomes one more field."""
        now = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        stamp = now.isoformat(timespec="milliseconds")
        word = record.levelname.lower()
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if _sink.as_json:
            line = {
                "time": stamp,
                "level": word,
                "event": record.name,
                "message": message,
            }
            return _encode(line).decode()
        return f"{stamp[11:23]} {word:<7} {record.name:<22} {message}"
