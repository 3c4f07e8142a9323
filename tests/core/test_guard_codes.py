"""The guard's codes, as they are explained."""

import re
from pathlib import Path

import pytest

from relay_app.core.guard_codes import CODES, GuardCode

CORE = Path(__file__).parent.parent.parent / "relay_app"
USED = re.compile(r'"(SI-[0-9]{3}w?)"')


def test_every_code_that_is_used_is_explained() -> None:
    """And no other."""
    used = set(USED.findall("".join(p.read_text() for p in CORE.rglob("*.py"))))
    assert used == set(CODES)


@pytest.mark.parametrize("row", CODES.values(), ids=lambda row: row.code)
def test_code_says_what_it_is_and_what_to_do(row: GuardCode) -> None:
    """Sentences for a person."""
    assert CODES[row.code] is row
    assert row.signal and not row.signal.endswith(".")
    assert row.meaning.endswith(".")
    assert row.fix.endswith(".")
    assert re.match("(FINE|WARN|REFUSE|an error line)\\b", row.verdict)


def test_bypass_covers_replicas_only() -> None:
    """Two workers in one server, or two relays on a host, are never let through."""
    assert {row.code for row in CODES.values() if row.bypass} == {
        "SI-201",
        "SI-202",
        "SI-203",
        "SI-401",
    }
