"""``python -m tests.fuzz``: Atheris, guided by coverage, on what strangers can send.

Run it from the root of the repository. The fuzzer itself is installed into a
directory of its own in ``.venvs/fuzz``, from a wheel; where there is none, one line
says so and the exit code is 2. What was learned stays there for the next run, and
so does an input that breaks a promise: the exit code is 1 then, and ``--replay``
shows that input's fault without Atheris.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

TARGETS = ("frames", "envelope", "head")
ATHERIS = "atheris>=3,<4"
ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / ".venvs" / "fuzz"

INSTALL_S = 300
SPARE_S = 120
"""What a run may take beside fuzzing: start, corpus of earlier runs, end."""

EXIT_FOUND = 1
EXIT_NO_FUZZER = 2


def install() -> Path | None:
    """Have Atheris in a directory of its own.

    Returns: Where it is; None where there is no wheel for this machine.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = PLACE / f"python{version}"
    if (place / "atheris").is_dir():
        return place
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", place, ATHERIS],
        timeout=INSTALL_S,
        check=False,
        capture_output=True,
    )
    return place if done.returncode == 0 else None


def run(target: str, seconds: int, atheris: Path) -> int:
    """Fuzz one target and say in a line how it went.

    Returns: An exit code.
    """
    corpus, findings = PLACE / "corpus" / target, PLACE / "findings" / target
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"tests.fuzz.{target}")
    for number, seed in enumerate(module.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    path = os.pathsep.join(filter(None, [str(atheris), os.environ.get("PYTHONPATH")]))
    known = set(findings.iterdir())
    command = [
        *(sys.executable, "-m", "tests.fuzz.guided", target),
        f"-max_total_time={seconds}",
        *("-max_len=1024", "-len_control=20", "-timeout=20", "-rss_limit_mb=2048"),
        *(
            "-print_final_stats=1",
            "-verbosity=1",
            f"-artifact_prefix={findings}{os.sep}",
        ),
        str(corpus),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            timeout=seconds + SPARE_S,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        print(f"{target}: the fuzzer itself did not end", flush=True)
        return EXIT_FOUND
    found = sorted(set(findings.iterdir()) - known)
    runs = _last(r"number_of_executed_units: (\d+)", done.stdout)
    covered = _last(r"\bcov: (\d+)", done.stdout)
    if done.returncode == 0 and not found:
        print(f"{target}: {runs} inputs, {covered} edges, nothing found", flush=True)
        return 0
    print(done.stdout[-4000:])
    print(f"{target}: {runs} inputs, {covered} edges, FOUND:")
    for one in found:
        name = one.relative_to(ROOT)
        print(f"  python -m tests.fuzz --target {target} --replay {name}", flush=True)
    return EXIT_FOUND


def _last(pattern: str, text: str) -> str:
    found: list[str] = re.findall(pattern, text)
    return found[-1] if found else "?"


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--replay", type=Path, help="run one input and nothing else")
    asked = parser.parse_args()
    if asked.replay is not None:
        if asked.target == "all":
            parser.error("--replay needs a --target")
        importlib.import_module(f"tests.fuzz.{asked.target}").check(
            asked.replay.read_bytes()
        )
        print(f"{asked.target}: the input passes")
        return 0
    atheris = install()
    if atheris is None:
        print(
            f"no fuzzing: {ATHERIS} does not install here from a wheel;"
            " the same targets run in `make test`, with Hypothesis",
            file=sys.stderr,
        )
        return EXIT_NO_FUZZER
    targets = TARGETS if asked.target == "all" else (asked.target,)
    return max(run(target, asked.seconds, atheris) for target in targets)


if __name__ == "__main__":
    sys.exit(main())
