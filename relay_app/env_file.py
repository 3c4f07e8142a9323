"""Reads an environment that is not this process's own, to have it judged.

Three forms are told apart by what is in the file:

* the output of ``env -0``: it has NUL bytes, and every value is exact;
* the output of ``env``: each line is ``NAME=value`` and the value is raw, quotes and
  all; a line that begins with no name goes on with the value above it;
* a ``.env`` file, which ``heroku config -s`` writes too: quotes, comments and
  ``export`` mean something. python-dotenv reads it, one statement at a time.

Names and values stay in what is returned: a message gives the number of a line, never
its text.

Source: docs/operations.md "The single-instance guard".
"""

from __future__ import annotations

import contextlib
import enum
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay_app.core.errors import RelayError

MAX_BYTES = 1 << 20
MAX_LINES = 5000
"""Far more than an environment has in practice. What reads a ``.env`` file takes a time
that grows with the square of its lines."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_SHELL_NAME = re.compile(_NAME)
# An exported function, or what npm puts there: it begins a value, and nobody reads it.
_RAW = re.compile(rf"(?:({_NAME})|[A-Za-z_][^\s=]*)=(.*)", re.DOTALL)
_UNQUOTED = re.compile(rf"(?:export[^\S\n]+)?{_NAME}[^\S\n]*=[^\S\n]*([\[{{].*)")
_OF_EVERY_PROCESS = re.compile(r"^(HOME|HOSTNAME|PWD|SHLVL|_)=", re.M)
_SEARCH_PATH = re.compile(r"^PATH=/", re.M)


class Form(enum.Enum):
    """What a file was taken for."""

    DOTENV = "a .env file"
    ENV = "the output of env"
    ENV_0 = "the output of env -0"


class Unreadable(RelayError):
    """A file holds no environment that could be judged; the text says why."""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A whole environment.

    Args:
        variables: By name; of several with one name the last.
        form: What it was read as.
        skipped: Numbers of the lines that could not be read.
    """

    variables: Mapping[str, str]
    form: Form
    skipped: tuple[int, ...] = ()


def read(path: str) -> EnvFile:
    """Read an environment.

    Args:
        path: Of the file or pipe; ``-`` is standard input.

    Raises:
        Unreadable: It is no such file, or not of this kind.
    """
    try:
        content = _content(path)
    except IsADirectoryError:
        raise Unreadable("it is a directory; name a file in it") from None
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
        raise Unreadable(f"it cannot be read: {why}") from None
    if len(content) > MAX_BYTES:
        raise Unreadable("it is larger than 1 MiB, so it is no environment")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text; save it as UTF-8") from None


def _content(path: str) -> bytes:
    if path != "-":
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    if sys.stdin is None:
        raise FileNotFoundError
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def parse(text: str) -> EnvFile:
    """Find out which form a text has, and read it.

    Raises:
        Unreadable: It is far too long.
    """
    if max(text.count("\n"), text.count("\0"), text.count("\r")) > MAX_LINES:
        raise Unreadable(f"it has more than {MAX_LINES} lines, so it is no environment")
    if "\0" in text:
        return _raw(text.split("\0"), Form.ENV_0)
    text = text.replace("\r\n", "\n")
    if _is_output_of_env(text):
        return _raw(text.split("\n"), Form.ENV)
    return _dotenv(text)


def _is_output_of_env(text: str) -> bool:
    """Tell by what every process has and nobody writes into a ``.env`` file."""
    begins = text.lstrip()
    if begins.startswith(("#", "export ")):
        return False
    return bool(_SEARCH_PATH.search(text) and _OF_EVERY_PROCESS.search(text))


def _raw(entries: list[str], form: Form) -> EnvFile:
    variables: dict[str, str] = {}
    skipped: list[int] = []
    name: str | None = None
    begun = False
    for number, entry in enumerate(entries, 1):
        if found := _RAW.fullmatch(entry):
            name, begun = found[1], True
            if name is not None:
                variables[name] = found[2]
        elif form is Form.ENV and begun:
            ends_the_last_line = not entry and number == len(entries)
            if name is not None and not ends_the_last_line:
                variables[name] += f"\n{entry}"
        elif entry:
            skipped.append(number)
    return EnvFile(variables, form, tuple(skipped))


def _dotenv(text: str) -> EnvFile:
    variables: dict[str, str] = {}
    skipped: list[int] = []
    # In the order of the text, since the last of a name wins; no line has two.
    for number, name, value in sorted(_statements(text), key=lambda found: found[0]):
        if name is None or value is None or not _SHELL_NAME.fullmatch(name):
            skipped.append(number)
        else:
            variables[name] = value
    return EnvFile(variables, Form.DOTENV, tuple(skipped))


def _statements(text: str) -> Iterator[tuple[int, str | None, str | None]]:
    """Give line number, name and value of each statement; ``None`` for what is none."""
    from dotenv.parser import parse_stream

    # A quote that is not closed takes in the lines up to the next one, which may be
    # good: those are read again.
    to_read = [(1, text)]
    while to_read:
        first, part = to_read.pop()
        for statement in parse_stream(io.StringIO(part, newline="")):
            written = statement.original.string
            begins = len(written) - len(written.lstrip())
            number = first + statement.original.line - 1
            number += len(re.findall(r"\r|\n", written[:begins]))
            if statement.error:
                yield number, None, None
                _, end, rest = written[begins:].partition("\n")
                if end and rest:
                    to_read.append((number + 1, rest))
            elif statement.key is not None:
                value = _json(written)
                yield number, statement.key, statement.value if value is None else value


def _json(written: str) -> str | None:
    """Give a value that is JSON as it stands: a ``#`` in it begins no comment.

    Platforms set such values, and they are copied into files without quotes.
    """
    if found := _UNQUOTED.fullmatch(written.strip()):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(found[1])
            return found[1]
    return None
