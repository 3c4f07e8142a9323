"""Bytes that steer: a fuzzer's input read as a row of small decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Reads decisions from the front of some bytes; past their end all are 0.

    Args:
        data: Whatever a fuzzer made.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """Take one byte."""
        value = self._data[self._at] if self else 0
        self._at += 1
        return value

    def pick(self, choices: Sequence[T]) -> T:
        """Take one of a few things."""
        return choices[self.byte() % len(choices)]

    def take(self, size: int) -> bytes:
        """Take up to so many bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data))
