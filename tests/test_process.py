"""What the operating system allows."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from relay_app import process
from relay_app.core import allowlist
from relay_app.core.allowlist import AllowlistFault
from relay_app.core.config import Config

SCRIPT = """
import resource
from relay_app import process
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
print(process.raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(process.raise_file_limit())
"""


def test_raise_file_limit_goes_to_the_hard_limit() -> None:
    """The soft limit is raised as far as it goes, and that number is returned."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["200", "200", "200"]


def test_raise_file_limit_unlimited_has_a_number() -> None:
    """No limit is a large one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    expected = process.UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard
    assert process.raise_file_limit() == expected


def test_root_fault_only_in_production_and_not_when_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root, production mode, and no word that it is meant so."""
    strict = Config(production=True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert process.root_fault(Config()) is None
    assert process.root_fault(Config(production=True, allow_root=True)) is None
    fault = process.root_fault(strict)
    assert fault is not None
    assert "PYRYCODE_RELAY_ALLOW_ROOT=1" in fault
    assert process.start_faults(strict) == [fault]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert process.root_fault(strict) is None


def test_read_allowlist_says_what_is_in_its_place(tmp_path: Path) -> None:
    """Nothing, a directory, a pipe that nobody writes to, too much: each at once."""
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"x\n" * (allowlist.MAX_BYTES // 2 + 1))
    for path, fault in (
        (tmp_path / "none", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
        (pipe, "is not a file"),
        (large, f"has more than {allowlist.MAX_BYTES} bytes"),
    ):
        with pytest.raises(AllowlistFault) as seen:
            process.read_allowlist(str(path))
        assert seen.value.fault == fault
