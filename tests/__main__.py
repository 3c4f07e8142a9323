"""``python -m tests``: all tests in three processes, with the coverage of all.

Tests mostly wait, and under coverage they mostly compute, so two halves have a processor
each, and a third process has what only waits. The first half is seen as it runs; then
follow what all have covered and what the others printed. More words go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

THIRD = ("tests/e2e/test_proxies.py",)
"""What waits for two minutes and does next to nothing."""

SECOND = (
    "tests/client",
    "tests/transport",
    "tests/fuzz",
    "tests/abuse",
    "tests/autobahn",
    "tests/soak",
    "tests/test_cli.py",
    "tests/test_hooks.py",
    "tests/test_lock.py",
    "tests/test_facts.py",
    "tests/test_benchmarks.py",
)
"""What the second half runs; the first one has all the rest."""

DATA = (".coverage.first", ".coverage.third", ".coverage.second")
NO_TESTS = 5
"""What pytest returns when the words given select nothing in that half."""


def command(*args: str) -> list[str]:
    """Make a pytest call that collects coverage and does not report it."""
    bare = ("--cov", "--cov-report=", "--cov-fail-under=0")
    return [sys.executable, "-m", "pytest", *bare, *args]


def main(words: list[str]) -> int:
    """Run all of them, then report."""
    spare = [f"--ignore={path}" for path in SECOND + THIRD]
    first, *others = ({**os.environ, "COVERAGE_FILE": data} for data in DATA)
    with tempfile.TemporaryFile(mode="a+b") as said:
        beside = [
            subprocess.Popen(
                command(*paths, *words), env=env, stdout=said, stderr=subprocess.STDOUT
            )
            for paths, env in zip((THIRD, SECOND), others, strict=True)
        ]
        try:
            ended = [subprocess.run(command(*spare, *words), env=first).returncode]
            ended += [process.wait() for process in beside]
        finally:
            for process in beside:
                process.kill()
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
