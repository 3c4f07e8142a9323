"""The list of allowed server-ids."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.core.allowlist import AllowlistFault, parse

SERVER_IDS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\#'),
    min_size=1,
    max_size=63,
).filter(lambda text: not text.startswith("sha256:"))


def sha256(server_id: str) -> str:
    """What a list may say instead of a server-id."""
    return hashlib.sha256(server_id.encode()).hexdigest()


def test_parse_takes_server_ids_hashes_and_comments() -> None:
    """Each form of a line."""
    allowed = parse(
        f"\ufeff# all of them\r\n\n  one # the first\ntwo#2\n{sha256('three')}\n"
        f"sha256:{sha256('four').upper()}\t# in capitals\n#five\n".encode()
    )
    assert len(allowed) == 4
    assert all(name in allowed for name in ("one", "two#2", "three", "four"))
    assert not any(name in allowed for name in ("two", "five", "#five", "", "One"))


def test_parse_hash_is_no_server_id() -> None:
    """Who has read the list cannot claim what stands there."""
    digest = sha256("secret")
    assert digest not in parse(digest.encode())


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "has no entry"),
        (b"\n# nothing\n", "has no entry"),
        (b"one\ntwo three\n", "line 2 has more than one entry"),
        (b'one\nsay"so\n', "line 2 is neither"),
        (b"back\\slash", "line 1 is neither"),
        (b"x" * 129, "line 1 is neither"),
        ("é".encode(), "line 1 is neither"),
        (b"sha256:abc", "line 1 is neither"),
        (b"nul\0", "line 1 is neither"),
    ],
)
def test_parse_fault_names_the_line_and_not_its_text(data: bytes, fault: str) -> None:
    """A list may hold what is not to be shown."""
    with pytest.raises(AllowlistFault) as seen:
        parse(data)
    assert seen.value.fault.startswith(fault)
    assert "so" not in seen.value.fault.split()


@given(st.sets(SERVER_IDS, min_size=1), SERVER_IDS)
def test_allowed_are_those_on_the_list(listed: set[str], other: str) -> None:
    """Plain or hashed, exactly these."""
    for lines in (listed, {sha256(name) for name in listed}):
        allowed = parse("\n".join(sorted(lines)).encode())
        assert all(name in allowed for name in listed)
        assert (other in allowed) is (other in listed)


@given(st.binary(max_size=200))
def test_parse_any_bytes_give_a_list_or_a_fault(data: bytes) -> None:
    """Nothing else comes out."""
    try:
        assert len(parse(data)) > 0
    except AllowlistFault as fault:
        assert fault.fault
