"""The request head under any bytes, and under every shape that smuggles requests.

``judged`` says of a head whether it has to be refused, has to be taken, or may be
either; it is written from RFC 9112 and knows nothing of h11.
"""

from __future__ import annotations

import itertools
import re
from typing import Literal

import h11

from relay_app.transport.handler import MAX_HEADERS, HeadFault, parse_head
from tests.fuzz.source import Source

STATUSES = ("400", "431", "501", "505")
TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/([0-9]\.[0-9])" % TOKEN)
FIELD = re.compile(rb"(%b):[ \t]*(.*?)[ \t]*" % TOKEN, re.DOTALL)
PLAIN_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
END = b"\r\n\r\n"

Fields = list[tuple[bytes, bytes]]
Verdict = Literal["refuse", "take", "either"]


def fields_of(head: bytes) -> Fields | None:
    """Read the header fields, names in lower case; None where a line is no field."""
    found = []
    for line in head[: -len(END)].split(b"\r\n")[1:]:
        field = FIELD.fullmatch(line)
        if field is None:
            return None
        found.append((field[1].lower(), field[2]))
    return found


def judged(head: bytes) -> Verdict:
    """Say what is to be done with a head.

    Args:
        head: Up to and with its first blank line.
    """
    lines = head[: -len(END)].split(b"\r\n")
    request = REQUEST_LINE.fullmatch(lines[0])
    fields = fields_of(head)
    if request is None or fields is None:
        return "refuse"
    values = [value for _, value in fields]
    if any(byte in value for value in values for byte in (b"\0", b"\r", b"\n")):
        return "refuse"
    hosts = [value for name, value in fields if name == b"host"]
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    numbers = {number.strip(b" \t") for one in lengths for number in one.split(b",")}
    if (
        request[3] not in (b"1.0", b"1.1")
        or len(hosts) > 1
        or (request[3] == b"1.1" and not hosts)
        or len(fields) > MAX_HEADERS
        or len(numbers) > 1
        or any(re.fullmatch(rb"[0-9]+", number) is None for number in numbers)
        or (lengths and codings)
        or len(codings) > 1
        or any(coding.lower() != b"chunked" for coding in codings)
    ):
        return "refuse"
    is_plain = not lengths and not codings and len(hosts) == 1
    if is_plain and all(PLAIN_VALUE.fullmatch(value) for value in values):
        return "take"
    return "either"


def check_head(head: bytes) -> None:
    """Compare what the relay makes of a head with the judge.

    Raises:
        AssertionError: They differ, or a refusal tells more than its fixed words.
    """
    verdict = judged(head)
    try:
        request = parse_head(head)
    except HeadFault as fault:
        check_fault(fault)
        assert verdict != "take", f"refused: {fault.status}"
        return
    assert type(request) is h11.Request
    assert verdict != "refuse", "taken"
    line = REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
    assert line is not None
    assert line.groups() == (request.method, request.target, request.http_version)
    taken = [field for field in request.headers if field[0] != b"content-length"]
    stood = [field for field in fields_of(head) or [] if field[0] != b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in stood):
        taken = [(name, value.lower()) for name, value in taken]
        stood = [(name, value.lower()) for name, value in stood]
    assert taken == stood, "other fields than those that came"
    lengths = [value for name, value in request.headers if name == b"content-length"]
    assert len(lengths) < 2
    assert all(length.isdigit() for length in lengths)


def check_fault(fault: HeadFault) -> None:
    """Check that a refusal is one of a few, in words of our own."""
    code, _, phrase = fault.status.partition(" ")
    assert code in STATUSES, fault.status
    assert fault.detail.isascii()
    assert fault.detail.isprintable()
    assert phrase and len(fault.detail) < 60


# -- from any bytes to a head --------------------------------------------------

START = b"GET /livez HTTP/1.1\r\nHost: a\r\n"

LENGTHS = (
    *b"0 5 +0 -0 +5 0x5 5_0 1e1 00 5,5 5,6 ,5 5;q ".split(b" "),
    b"5 5",
    b"\xb2",
    b"9" * 30,
    b"5\x0b",
    b"5\0",
)
CODINGS = (
    b"chunked",
    b"Chunked",
    b"identity",
    b"xchunked",
    b"chunked, chunked",
    b"gzip, chunked",
    b"chunked, identity",
    b"chunked;q=1",
    b'"chunked"',
    b"\x0bchunked",
    b"chunked\x0b",
    b"\0chunked",
    b"ch\xc3\xbcnked",
    b"",
)
LINES = (
    b"Content-Length : 5",
    b"Content-Length\t: 5",
    b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\r\n\tContent-Length: 5",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\rTransfer-Encoding: chunked",
    b"X: y\0",
    b"X\0: y",
    b"X\r: y",
    b": y",
    b"no colon",
    b"Transfer_Encoding: chunked",
    b"Content_Length: 5",
    b"Host: b",
    b"host:a",
    b"Host : b",
    b"X: y\r",
)
STARTS = (
    START,
    b"GET http://b/livez HTTP/1.1\r\nHost: a\r\n",
    b"GET /livez HTTP/1.0\r\n",
    b"GET /livez HTTP/1.1\r\n",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
    b"GET /livez HTTP/1.1\nHost: a\r\n",
    b"GET /livez\r\nHost: a\r\n",
    b"GET  /livez HTTP/1.1\r\nHost: a\r\n",
    b"GET /livez HTTP/1.1 \r\nHost: a\r\n",
    b"GET /livez\tHTTP/1.1\r\nHost: a\r\n",
    b"GET /livez HTTP/1.1\x0b\r\nHost: a\r\n",
    b"GET /livez HTTP/1.1\r\n Host: a\r\n",
    b"GET /livez HTTP/01.1\r\nHost: a\r\n",
    b"GET /livez http/1.1\r\nHost: a\r\n",
    b"GET /li\0vez HTTP/1.1\r\nHost: a\r\n",
    b"GET /li\xffvez HTTP/1.1\r\nHost: a\r\n",
    b"\r\nGET /livez HTTP/1.1\r\nHost: a\r\n",
    b"PRI * HTTP/2.0\r\nHost: a\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n",
)


def shapes() -> list[bytes]:
    """Make every head of which two servers could think differently.

    Returns: Heads, each with its blank line.
    """
    framing = [
        *(b"Content-Length: %b\r\n" % one for one in LENGTHS),
        *(b"Transfer-Encoding: %b\r\n" % one for one in CODINGS),
        *(line + b"\r\n" for line in LINES),
    ]
    pairs = itertools.permutations(
        [
            b"Content-Length: 5\r\n",
            b"Content-Length: 6\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"transfer-encoding:chunked\r\n",
            b"Transfer-Encoding: identity\r\n",
        ],
        2,
    )
    return [
        *(start + b"\r\n" for start in STARTS),
        *(START + one + b"\r\n" for one in framing),
        *(START + one + other + b"\r\n" for one, other in pairs),
    ]


PIECES = (
    *b"GET POST / /livez http://b/ HTTP/1.1 HTTP/1.0 HTTP/2.0 Host: X: a chunked".split(),
    *(b"Content-Length:", b"Transfer-Encoding:", b"Host: a\r\n", b"X: y\r\n" * 99),
    *(
        b" ",
        b"\t",
        b":",
        b",",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"0",
        b"5",
    ),
)

TAME = bytes(byte if 32 <= byte != 127 else 120 for byte in range(256))
"""Takes control characters out of a value."""


def built(source: Source) -> bytes:
    """Turn a fuzzer's bytes into a head, in one of three ways."""
    kind = source.byte() % 3
    if kind == 0:
        data = source.rest()
    elif kind == 1:
        parts = [source.pick(STARTS)]
        while source and len(parts) < 200:
            parts.append(source.pick(PIECES))
        data = b"".join(parts)
    else:
        parts = [source.pick(STARTS) if source.byte() < 60 else START]
        while source and len(parts) < 120:
            which = source.byte() % 16
            if which == 0:
                parts.append(b"Content-Length: " + source.pick(LENGTHS))
            elif which == 1:
                parts.append(b"Transfer-Encoding: " + source.pick(CODINGS))
            elif which == 2:
                parts.append(source.pick(LINES))
            else:
                value = source.take(source.byte() % 20)
                is_tame = which < 12
                value = value.translate(TAME) if is_tame else value
                parts.append(b"X-%d: %b" % (len(parts), value))
            parts.append(b"\r\n")
        data = b"".join(parts)
    return data


def check(data: bytes) -> None:
    """Hold the head's parser to its promises for one input.

    Raises:
        AssertionError: A promise is broken.
    """
    head = built(Source(data))
    try:
        # Never called with this, and all the same it has one of two ends.
        assert type(parse_head(head)) is h11.Request
    except HeadFault as fault:
        check_fault(fault)
    before, _, _ = (head + END).partition(END)
    check_head(before + END)


def seeds() -> list[bytes]:
    """Make a small corpus: every shape, and the other ways of building."""
    ways = [bytes((kind, n, n, 2 * n, 3 * n)) for kind in (1, 2) for n in range(40)]
    return [*(b"\0" + shape for shape in shapes()), *ways]
