"""The list of server-ids that a closed relay serves.

One entry a line: a server-id, or the SHA-256 of one as 64 hex digits, with or without
``sha256:`` in front, so that the list need not be kept as a secret. ``#`` begins a
comment at the start of a line or behind white space; inside an entry it is a part of
it. 64 hex digits are always taken for a hash: who has read the list could otherwise
claim a hash itself as a server-id.

Source: docs/configuration.md "A closed relay".
"""

from __future__ import annotations

import hashlib
import re

SERVER_ID = re.compile(r'(?:(?!["\\])[\x21-\x7e]){1,128}')
"""1 to 128 visible ASCII characters without ``"`` and ``\\``."""

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
MAX_BYTES = 16 << 20
"""Of the file: some hundred thousand entries. More is another file."""


class AllowlistFault(Exception):
    """A list that cannot be used.

    Args:
        fault: What is wrong, with the number of the line, never with its text.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


class Allowlist:
    """Server-ids that may be claimed and joined.

    Args:
        digests: SHA-256 of each, 32 bytes.
    """

    __slots__ = ("_digests",)

    def __init__(self, digests: frozenset[bytes]) -> None:
        self._digests = digests

    def __len__(self) -> int:
        """Server-ids on the list."""
        return len(self._digests)

    def __contains__(self, server_id: str) -> bool:
        """Tell whether a server-id is on the list. Asked once per upgrade request."""
        return hashlib.sha256(server_id.encode()).digest() in self._digests


def parse(data: bytes) -> Allowlist:
    """Read a list.

    Args:
        data: The file's content, UTF-8; what stands in comments does not matter.

    Raises:
        AllowlistFault: A line is no entry, or there is none at all, which is what a file
            looks like that was not written to its end.
    """
    if len(data) > MAX_BYTES:
        raise AllowlistFault(f"has more than {MAX_BYTES} bytes")
    digests = set()
    for number, line in enumerate(data.splitlines(), 1):
        entry, *rest = line.decode("latin-1").split(None, 1) or [""]
        if number == 1:
            entry = entry.removeprefix("\u00ef\u00bb\u00bf")  # a byte order mark
        if not entry or entry.startswith("#"):
            continue
        if rest and not rest[0].startswith("#"):
            raise AllowlistFault(f"line {number} has more than one entry")
        digest = _DIGEST.fullmatch(entry)
        if digest:
            digests.add(bytes.fromhex(digest[1]))
        elif SERVER_ID.fullmatch(entry) and not entry.startswith("sha256:"):
            digests.add(hashlib.sha256(entry.encode()).digest())
        else:
            raise AllowlistFault(
                f"line {number} is neither a server-id (1 to 128 visible ASCII characters "
                "without quote and backslash) nor the SHA-256 of one (64 hex digits)"
            )
    if not digests:
        raise AllowlistFault("has no entry")
    return Allowlist(frozenset(digests))
