"""The log: one line per event, in both forms, and nothing else in it."""

import io
import json
import logging
import logging.config
import re
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.hub import get_hub
from hypothesis import given
from hypothesis import strategies as st

from relay_app import gunicorn_conf, log
from relay_app.core import events
from relay_app.core.folding import MINUTE_S
from tests.local_relay import local_relay
from tests.waiting import wait_until

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


def test_error_of_a_recursion_without_end_is_one_short_line() -> None:
    """The innermost lines of code are enough."""
    stream = io.StringIO()
    log.configure("json", "info", stream)

    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as exc:
        log.error("here", exc)
    trail = json.loads(stream.getvalue())["traceback"]
    assert trail.count(" < ") == log.MAX_TRAIL - 1
    assert trail.endswith("deeper")


def test_unplanned_takes_the_place_of_gevents_print(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither the exception's text nor the greenlet's arguments reach the log."""
    stream = io.StringIO()
    log.configure("json", "info", stream)

    def fails(payload: str) -> None:
        raise ValueError(payload)

    hub = get_hub()
    hub.print_exception = log.unplanned
    try:
        gevent.spawn(fails, "secret payload").join()
        hub.loop.run_callback(fails, "secret payload")
        wait_until(lambda: stream.getvalue().count("\n") == 2)
    finally:
        del hub.print_exception
    for line in stream.getvalue().splitlines():
        record = json.loads(line)
        assert (record["event"], record["error"]) == ("internal.error", "ValueError")
        assert "fails" in record["traceback"]
    assert "secret" not in stream.getvalue() + capsys.readouterr().err


# Floods


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log of an operator who wants to know it all."""
    stream = io.StringIO()
    log.configure("json", "debug", stream)
    yield stream
    log.configure("json", "info")


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written since the last call."""
    lines = stream.getvalue().splitlines()
    stream.seek(0)
    stream.truncate()
    return [json.loads(line) for line in lines]


def dropped(conn_id: str = "server-x-1") -> events.FrameDropped:
    """What a peer causes as fast as it can send."""
    return events.FrameDropped(conn_id=conn_id, reason="not an object")


def test_flood_of_one_source_is_a_few_lines_and_a_count(stream: io.StringIO) -> None:
    """However many connections it spreads the flood over; the tick writes the count."""
    for number in range(1000):
        log.emit(dropped(f"server-x-{number}"), source="10.0.0.1")
    log.emit(dropped("server-y-1"), source="10.0.0.2")
    written = [record["conn_id"] for record in records(stream)]
    assert written == ["server-x-0", "server-x-1", "server-x-2", "server-y-1"]
    log.tick(monotonic())
    assert records(stream) == []
    log.tick(monotonic() + MINUTE_S)
    (line,) = records(stream)
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "event": "frame.dropped",
        "reason": "not an object",
        "frames": 997,
        "folded": 997,
    }


def test_flood_is_counted_in_text_form_as_well() -> None:
    """The count stands at the end."""
    stream = io.StringIO()
    log.configure("text", "info", stream)
    for _ in range(9):
        log.emit(dropped(), source="10.0.0.1")
    log.flush()
    assert stream.getvalue().endswith("frames=6 folded=6\n")


def test_flood_without_a_tick_is_counted_by_the_next_event(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master has no tick."""
    for _ in range(9):
        log.emit(dropped(), source="a")
    records(stream)
    later = monotonic() + MINUTE_S
    monkeypatch.setattr(log, "monotonic", lambda: later)
    log.emit(dropped(), source="b")
    assert [record.get("folded") for record in records(stream)] == [6, None]


def test_flush_writes_the_counts_once(stream: io.StringIO) -> None:
    """A relay that stops leaves no count behind."""
    for _ in range(9):
        log.emit(dropped(), source="a")
    records(stream)
    log.flush()
    assert [record["folded"] for record in records(stream)] == [6]
    log.flush()
    assert records(stream) == []


def test_events_of_the_operators_are_never_folded(stream: io.StringIO) -> None:
    """Each of these has its line, however many there are."""
    for _ in range(50):
        log.emit(events.AllowlistRead(allowed=1))
    assert len(records(stream)) == 50


def test_events_below_the_level_are_not_counted() -> None:
    """A count of lines that nobody wanted to see would be one too many."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    for _ in range(50):
        log.emit(events.WakeIgnored(conn_id="server-x-1"), source="a")
    log.flush()
    assert stream.getvalue() == ""


def test_bug_that_is_hit_all_the_time_is_folded(stream: io.StringIO) -> None:
    """By its place and its type: another one has its own lines."""
    for where, fault in [("route", ValueError())] * 50 + [("tick", KeyError())]:
        log.error(where, fault)
    assert [r["where"] for r in records(stream)] == ["route"] * 3 + ["tick"]
    log.flush()
    (line,) = records(stream)
    assert (line["where"], line["error"], line["folded"]) == ("route", "ValueError", 47)


def test_lack_of_descriptors_is_one_line_a_minute(stream: io.StringIO) -> None:
    """Accepting is tried twice a second, for hours if need be."""
    now = monotonic()
    for minute in range(5):
        for _ in range(120):
            log.emit(events.AcceptPaused(reason="EMFILE"))
        log.tick(now + (minute + 1) * MINUTE_S + minute)
    counts = [record.get("folded") for record in records(stream)]
    assert counts == [None, 119, 120, 120, 120, 120]


def test_relay_ends_the_minutes_of_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever floods is the source, whichever connection it uses; then it stops."""
    with local_relay() as relay:
        for _ in range(2):
            binary = relay.binary()
            for _ in range(20):
                binary.send("[]")
            binary.sync()
            binary.close()
        relay.hub.tick(monotonic() + MINUTE_S)
        printed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    drops = [record for record in printed if record["event"] == "frame.dropped"]
    assert len(drops) == 4
    assert (drops[3]["frames"], drops[3]["folded"]) == (37, 37)
    assert "conn_id" not in drops[3]


def test_configure_begins_anew() -> None:
    """A worker does not inherit what its master has counted."""
    stream = io.StringIO()
    for _ in range(9):
        log.emit(dropped(), source="a")
    log.configure("json", "info", stream)
    log.emit(dropped(), source="a")
    log.flush()
    assert [record.get("folded") for record in records(stream)] == [None]


# What a peer says about itself

TOKEN = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)(?: |$)')
"""One field of the text form, as a reader of the log understands it."""

HOSTILE = [
    'x" level=error event=claim.granted reason="y',
    "x\n12:00:00.000 error   internal.error         where=forged",
    'x","event":"internal.error","y":"',
    "\x1b[2J\x1b]0;title\x07",
    "\x85\u2028\u2029\x9b31m",
    "\u202egro.live\u202c\u2066\u2069\u200f",
    "a\u00a0peer=10.0.0.1\u3000b",
    "\ufeff\x00\x7f\xad",
    "k=v",
    "\\",
    "\\n\\u001b",
    "x" * 128,
    "\U000e0041" * 32,
]


@pytest.mark.parametrize("log_format", ["json", "text"])
@given(said=st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=128)))
def test_nothing_that_a_peer_says_forges_a_line(log_format: str, said: str) -> None:
    """One printable line with the fields that are there, in their order."""
    event = events.ConnectionOpened(
        leg="client",
        conn_id="client-x-1",
        server_id="x",
        peer="::1",
        version=said,
        device_name=said,
    )
    written = line(log_format, event)
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    names = ["leg", "conn_id", "server_id", "peer", "version", "device_name"]
    if log_format == "json":
        pairs = json.loads(written, object_pairs_hook=list)
        assert [name for name, _ in pairs] == ["time", "level", "event", *names]
        assert pairs[-1][1] == said
        return
    _, level, name, fields = written.split(None, 3)
    assert (level, name) == ("info", "connection.opened")
    assert [found[0] for found in TOKEN.findall(fields[:-1])] == names
    assert TOKEN.sub("", fields[:-1]) == ""


# The logging module


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


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_formatter_says_nothing_that_a_request_said(log_format: str) -> None:
    """Flask's own words for a bug have the path; the exception's text may quote a peer."""
    log.configure(log_format, "info")
    try:
        raise ValueError("secret text")
    except ValueError:
        record = logging.LogRecord(
            "relay_app", 40, "", 1, "Exception on /secret [GET]", (), sys.exc_info()
        )
    text = log.Formatter().format(record)
    assert "ValueError at test_log.py:" in text
    assert "secret" not in text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_formatter_escapes_what_could_steer_a_terminal(log_format: str) -> None:
    """gunicorn's messages are no exception, and a message is one line."""
    log.configure(log_format, "info")
    record = logging.LogRecord(
        "gunicorn.error", 30, "", 1, "a%s", ("\x1b[2J\x9b\n\u202e",), None
    )
    assert log.Formatter().format(record).isprintable()


def test_filter_folds_a_message_that_comes_again_and_again(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """As gunicorn's configuration has it: one message whatever its values, one count."""
    logger = logging.getLogger("gunicorn.error")
    before = logger.handlers, logger.level, logger.propagate, logging.root.handlers
    try:
        logging.config.dictConfig(gunicorn_conf.logconfig_dict)
        for number in range(100):
            logger.warning("worker %d does not answer", number)
        logger.error("another message")
    finally:
        logger.handlers, logger.level, logger.propagate, logging.root.handlers = before
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 31
    log.flush()
    (line,) = records(stream)
    assert (line["event"], line["level"]) == ("gunicorn.error", "warning")
    assert line["message"] == "worker %d does not answer"
    assert line["folded"] == 70


def test_filter_keeps_the_words_of_a_request_out_of_a_count(
    stream: io.StringIO,
) -> None:
    """What stands for many has no path and no text either."""
    fault = (ValueError, ValueError("secret text"), None)
    record = logging.LogRecord(
        "relay_app", 40, "", 1, "Exception on /secret [GET]", (), fault
    )
    assert [log.Filter().filter(record) for _ in range(40)].count(True) == 30
    log.flush()
    (line,) = records(stream)
    assert (line["error"], line["folded"]) == ("ValueError", 10)
    assert "secret" not in str(line)
