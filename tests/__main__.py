"""``python -m tests``: all tests in two processes, with the coverage of both.

Tests mostly wait, and under coverage they mostly compute, each half on one processor.
The first half is seen as it runs; what the second one printed follows, then what both
have covered. More words go to pytest, in both processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

SECOND = (
    "tests/client",
    "tests/transport",
    "tests/fuzz",
    "tests/abuse",
    "tests/test_cli.py",
    "tests/test_facts.py",
    "tests/test_benchmarks.py",
)
"""What the second half runs; the first one has all the rest."""

DATA = (".coverage.first", ".coverage.second")
NO_TESTS = 5
"""What pytest returns when the words given select nothing in that half."""


def command(*args: str) -> list[str]:
    """Make a pytest call that collects coverage and does not report it."""
    return [sys.executable, "-m", "pytest", "--cov", "--cov-report=", *args]


def main(words: list[str]) -> int:
    """Run both halves, then report."""
    here = [path for path in SECOND if os.path.exists(path)]
    spare = [f"--ignore={path}" for path in here]
    first, second = ({**os.environ, "COVERAGE_FILE": data} for data in DATA)
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(
            command(*here, *words), env=second, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            ended = [subprocess.run(command(*spare, *words), env=first).returncode]
            ended.append(beside.wait())
        finally:
            beside.kill()
        coverage = [sys.executable, "-m", "coverage"]
        there = [data for data in DATA if os.path.exists(data)]
        subprocess.run([*coverage, "combine", "--quiet", *there], check=False)
        ended.append(subprocess.run([*coverage, "report"]).returncode)
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return next((code for code in ended if code not in (0, NO_TESTS)), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
