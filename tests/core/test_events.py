"""Events: names, levels, and fields from the allow-list only."""

import dataclasses
import logging

import pytest

from relay_app.core import events

ALL = [
    thing
    for thing in vars(events).values()
    if isinstance(thing, type)
    and issubclass(thing, events.Event)
    and thing is not events.Event
]

ALLOWED = {
    "allowed",
    "bytes_in",
    "bytes_out",
    "close_code",
    "code",
    "conn_id",
    "connections",
    "cut",
    "detail",
    "device_name",
    "drain_s",
    "duration_s",
    "error",
    "frames",
    "frames_in",
    "frames_out",
    "guard",
    "instance",
    "instance_id",
    "leg",
    "listen",
    "max_connections",
    "max_frame_bytes",
    "peer",
    "phones",
    "platform",
    "reason",
    "revision",
    "server_id",
    "takeover",
    "traceback",
    "uptime_s",
    "verdict",
    "version",
    "where",
}


@pytest.mark.parametrize("event", ALL)
def test_event_has_a_dotted_name_a_level_and_allowed_fields(
    event: type[events.Event],
) -> None:
    """A new field has to be put on the list by hand, where it is seen."""
    assert event.name.count(".") == 1
    assert event.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert {field.name for field in dataclasses.fields(event)} <= ALLOWED


def test_event_is_frozen() -> None:
    """What happened does not change."""
    event = events.ClaimProbed(server_id="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.server_id = "y"  # type: ignore[misc]
