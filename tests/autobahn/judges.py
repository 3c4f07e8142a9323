"""Autobahn|Testsuite's fuzzing client as it comes from PyPI, in a directory of its own.

It needs Python 2.7, looked for on the search path and among those that pyenv keeps.
Where there is none, ``kosoku`` runs the same cases on the Python that runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".autobahn"
REPORTS = CACHE / "reports"

AUTOBAHN, KOSOKU = "autobahntestsuite", "kosoku"

AGENT = "relay"
RUN_S = 900
INSTALL_S = 300

_IS_27 = "import pip, sys; sys.exit(sys.version_info[:2] != (2, 7))"


class JudgeFailed(Exception):
    """The judge could not be made ready, or said nothing that can be read."""


def _environ(**more: str) -> dict[str, str]:
    """Make an environment in which no other Python's settings are in the way."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COVERAGE_"))
    }
    ours = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_PYTHON_VERSION_WARNING": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PYTHONWARNINGS": "ignore",
    }
    return clean | ours | more


def python27() -> str | None:
    """Find a Python 2.7 with pip; ``None`` where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    kept = sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)
    for python in ("python2.7", *map(str, kept)):
        found = shutil.which(python)
        if found and _runs([found, "-c", _IS_27]):
            return found
    return None


def _runs(command: Sequence[str]) -> bool:
    return not subprocess.run(command, env=_environ(), capture_output=True).returncode


class Judge:
    """One of the two judges, installed.

    Args:
        name: ``autobahntestsuite`` or ``kosoku``; ``None`` takes what this machine can
            run, in this order.

    Raises:
        JudgeFailed: It cannot be installed.
    """

    def __init__(self, name: str | None = None) -> None:
        old = python27() if name != KOSOKU else None
        self.name = name or (AUTOBAHN if old else KOSOKU)
        if self.name == AUTOBAHN and old is None:
            raise JudgeFailed(f"{AUTOBAHN} needs a Python 2.7 with pip; none was found")
        self._python = old or sys.executable
        self._home = CACHE / self.name
        if self.name == AUTOBAHN:
            # Not --target: zope is a namespace that only a site directory makes whole.
            self._where = ("--user", "--no-warn-script-location")
            self._environ = _environ(PYTHONUSERBASE=str(self._home))
        else:
            self._where = ("--target", str(self._home))
            self._environ = _environ(PYTHONPATH=str(self._home))
        self._install()

    def _install(self) -> None:
        pins = HERE / f"{self.name}.txt"
        stamp = self._home / "installed.txt"
        asked = f"{self._python}\n{pins.read_text()}"
        if stamp.exists() and stamp.read_text() == asked:
            return
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        words = ("-m", "pip", "install", "--no-deps", *self._where, "-r", str(pins))
        said = self._run([self._python, *words], INSTALL_S)
        if said.returncode:
            raise JudgeFailed(f"{self.name} cannot be installed:\n{_end_of(said)}")
        stamp.write_text(asked)

    def _run(
        self, command: Sequence[str], span_s: float
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=CACHE,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=span_s,
            )
        except subprocess.TimeoutExpired:
            raise JudgeFailed(f"{self.name} was not done in {span_s:g} s") from None

    def try_cases(self, url: str, cases: Sequence[str]) -> dict[str, Any]:
        """Let the judge try a server.

        Args:
            url: Of its echo.
            cases: Numbers.

        Returns: The index of results, agent → case → result. Pages for people are in
        ``REPORTS``.

        Raises:
            JudgeFailed: There is no index. The judge's exit code says nothing: what
                the contract wants is a failure for one of the two.
        """
        shutil.rmtree(REPORTS, ignore_errors=True)
        if self.name == AUTOBAHN:
            command = self._autobahn(url, cases)
        else:
            command = self._kosoku(url, cases)
        said = self._run([self._python, *command], RUN_S)
        index = REPORTS / "index.json"
        if not index.exists():
            raise JudgeFailed(f"{self.name} left no results:\n{_end_of(said)}")
        results: dict[str, Any] = json.loads(index.read_text())
        return results

    @staticmethod
    def _autobahn(url: str, cases: Sequence[str]) -> list[str]:
        spec = CACHE / "spec.json"
        spec.write_text(
            json.dumps(
                {
                    "outdir": str(REPORTS),
                    "servers": [{"url": url, "agent": AGENT}],
                    "cases": list(cases),
                }
            )
        )
        module = "autobahntestsuite.wstest"
        return ["-m", module, "-m", "fuzzingclient", "-s", str(spec)]

    @staticmethod
    def _kosoku(url: str, cases: Sequence[str]) -> list[str]:
        words = [word for case in cases for word in ("-i", case)]
        start = "from kosoku._cli import main; main()"
        return ["-c", start, "-m", "fuzzingclient", "-o", str(REPORTS), *words, url]


def _end_of(said: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(said.stdout.splitlines()[-20:])
