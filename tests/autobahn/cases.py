"""The cases of Autobahn|Testsuite: which there are, which are short, what is declared.

A case is named by its number, as in ``6.4.1``. The list is kept here so that a case
which the judge leaves out is missed.
"""

from __future__ import annotations

COUNTS = {
    "1.1": 8,
    "1.2": 8,
    "2": 11,
    "3": 7,
    "4.1": 5,
    "4.2": 5,
    "5": 20,
    "6.1": 3,
    "6.2": 4,
    "6.3": 2,
    "6.4": 4,
    "6.5": 5,
    "6.6": 11,
    "6.7": 4,
    "6.8": 2,
    "6.9": 4,
    "6.10": 3,
    "6.11": 5,
    "6.12": 8,
    "6.13": 5,
    "6.14": 10,
    "6.15": 1,
    "6.16": 3,
    "6.17": 5,
    "6.18": 5,
    "6.19": 5,
    "6.20": 7,
    "6.21": 8,
    "6.22": 34,
    "6.23": 7,
    "7.1": 6,
    "7.3": 6,
    "7.5": 1,
    "7.7": 13,
    "7.9": 9,
    "7.13": 2,
    "9.1": 6,
    "9.2": 6,
    "9.3": 9,
    "9.4": 9,
    "9.5": 6,
    "9.6": 6,
    "9.7": 6,
    "9.8": 6,
    "10.1": 1,
    **{f"12.{number}": 18 for number in range(1, 6)},
    **{f"13.{number}": 18 for number in range(1, 8)},
}
"""How many cases each part has; they are numbered from 1."""

ALL = tuple(
    f"{part}.{number}"
    for part, count in COUNTS.items()
    for number in range(1, count + 1)
)

COMPRESSION = tuple(case for case in ALL if case.startswith(("12.", "13.")))
"""Each offers an extension and goes on only if that is accepted. The relay negotiates
none, which the judge calls UNIMPLEMENTED; anything else is a fault."""

NON_STRICT = dict.fromkeys(
    ("6.4.1", "6.4.2", "6.4.3", "6.4.4"),
    "a message is judged once it is whole: the contract forbids to end a binary's "
    "connection for what is in its messages, so no connection can be failed amid one",
)
"""Cases that may be NON-STRICT, each with the reason. Invalid UTF-8 in the middle of a
fragmented message is refused with its last fragment and not before."""

INFORMATIONAL = {
    "7.1.6": "a peer that closes behind 256 KiB may or may not get them echoed",
    "7.13.1": "what follows on close code 5000 is left open",
    "7.13.2": "what follows on close code 65536 is left open",
}
"""Cases in which the judge itself only takes note of what happens."""

_WAITS = ("5.20", "6.4.2", "6.4.3", "6.4.4")
"""They wait a second or two, as 5.19 and 6.4.1 do."""

_LIGHT = (
    "9.1.1",
    "9.1.2",
    "9.2.1",
    "9.2.2",
    "9.4.1",  # 4 MiB in fragments of 64 bytes
    "9.5.6",
    "9.6.6",
    "9.7.1",
    "9.8.1",
    "12.1.1",
    "13.1.1",
)
"""Of the parts on volume and on compression."""

SHORT = tuple(
    case
    for case in ALL
    if case in _LIGHT
    or (case not in _WAITS and not case.startswith(("9.", "12.", "13.")))
)
"""What runs before every landing: all that costs little."""
