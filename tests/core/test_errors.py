"""The error tree."""

import pytest

from relay_app.core import errors
from relay_app.core.close_codes import Close


@pytest.mark.parametrize(
    ("error", "close"),
    [
        (errors.NoServer, Close.NO_SERVER),
        (errors.TooManyPhones, Close.TOO_MANY_PHONES),
        (errors.ProtocolError, Close.PROTOCOL_ERROR),
        (errors.BadPayload, Close.BAD_PAYLOAD),
        (errors.TooBig, Close.TOO_BIG),
    ],
)
def test_peer_error_knows_its_close(
    error: type[errors.PeerError], close: Close
) -> None:
    """Each fault of a peer ends its connection with one close, and is worded by it."""
    assert error.close is close
    assert str(error()) == close.reason
    assert issubclass(error, errors.RelayError)


def test_config_error_lists_every_fault() -> None:
    """All faults stand in one message, one line each."""
    text = str(errors.ConfigError(["A: must be x", "B: must be y"]))
    assert text.splitlines()[1:] == ["  A: must be x", "  B: must be y"]
    assert text.startswith("ERROR: 2 setting(s)")


def test_instance_refused_is_worded_by_the_guard() -> None:
    """The guard's message is the error's text, to the letter."""
    error = errors.InstanceRefused("several\nlines", ["SI-101"])
    assert str(error) == "several\nlines"
    assert error.codes == ("SI-101",)


def test_malformed_envelope_names_the_fault_only() -> None:
    """The text has the fault's fixed words."""
    assert str(errors.MalformedEnvelope("no conn_id")).endswith(": no conn_id")
