"""The log: one line per event, in both forms, and nothing else in it."""

import io
import json
import logging
import sys

import pytest

from relay_app import log
from relay_app.core import events

EVENT = events.ConnectionOpened(
    leg="client",
    conn_id="client-x-1",
    server_id="x",
    peer="::1",
    device_name='my "phone"\n\x1b[31m',
)


def line(log_format: str, event: events.Event, level: str = "debug") -> str:
    """Emit one event and give what was written."""
    stream = io.StringIO()
    log.configure(log_format, level, stream)
    log.emit(event)
    return stream.getvalue()


def test_emit_json_is_one_object_per_line() -> None:
    """Time, level, name, the event's fields; absent ones are left out."""
    written = line("json", EVENT)
    assert written.count("\n") == 1
    record = json.loads(written)
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "info",
        "event": "connection.opened",
        "leg": "client",
        "conn_id": "client-x-1",
        "server_id": "x",
        "peer": "::1",
        "device_name": 'my "phone"\n\x1b[31m',
    }


def test_emit_text_escapes_what_a_peer_sent() -> None:
    """No raw control character reaches a terminal."""
    written = line("text", EVENT)
    assert r'device_name="my \"phone\"\n\u001b[31m"' in written
    assert "conn_id=client-x-1" in written
    assert written.count("\n") == 1 and "\x1b" not in written


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_emit_escapes_whatever_could_steer_a_terminal(log_format: str) -> None:
    """C1 controls, bidi marks and line separators too, also above U+FFFF."""
    name = "a\x9b31m\u202e\u2028ü\U000e0001"
    event = events.ConnectionOpened(
        leg="client", conn_id="c", server_id="x", peer="::1", device_name=name
    )
    written = line(log_format, event)
    assert written.rstrip("\n").isprintable()
    assert r"a\u009b31m\u202e\u2028ü\udb40\udc01" in written
    if log_format == "json":
        assert json.loads(written)["device_name"] == name


def test_emit_to_a_log_that_nobody_reads_changes_nothing() -> None:
    """A full disk or a closed pipe must not take a connection with it."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    log.configure("json", "debug", Gone())
    log.emit(EVENT)


def test_emit_text_rounds_spans() -> None:
    """Three digits are enough for a person."""
    assert "uptime_s=1.235" in line(
        "text", events.ServerStopped(cut=0, uptime_s=1.23456)
    )


@pytest.mark.parametrize(("level", "written"), [("info", True), ("warning", False)])
def test_emit_below_the_level_writes_nothing(level: str, written: bool) -> None:
    """The least level decides."""
    assert bool(line("json", EVENT, level)) is written


def test_emit_without_stream_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard error is looked up when it is needed."""
    log.configure("json", "info")
    log.emit(EVENT)
    assert "connection.opened" in capsys.readouterr().err


def test_short_id_is_stable_and_says_nothing() -> None:
    """The same id has the same short form in one process; it does not contain the id."""
    assert log.short_id("abc") == log.short_id("abc") != log.short_id("abd")
    assert len(log.short_id("abc")) == 8


def test_error_names_code_and_never_the_text() -> None:
    """An exception's own words may quote a peer, so they stay out."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        raise ValueError("secret payload")
    except ValueError as exc:
        log.error("here", exc)
    record = json.loads(stream.getvalue())
    assert (record["event"], record["where"], record["error"]) == (
        "internal.error",
        "here",
        "ValueError",
    )
    assert "test_log.py" in record["traceback"]
    assert "secret" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_formatter_gives_gunicorn_lines_our_form(log_format: str) -> None:
    """gunicorn's own messages look like the rest."""
    log.configure(log_format, "info")
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord(
            "gunicorn.error", 40, "", 1, "hello %s", ("you",), sys.exc_info()
        )
    text = log.Formatter().format(record)
    if log_format == "json":
        shown = json.loads(text)
        assert (shown["level"], shown["event"]) == ("error", "gunicorn.error")
        assert shown["message"].startswith("hello you\nTraceback")
    else:
        assert "error   gunicorn.error" in text and "hello you" in text
    record.exc_info = None
    assert "Traceback" not in log.Formatter().format(record)
