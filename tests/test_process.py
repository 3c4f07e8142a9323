"""What the operating system allows."""

import resource
import subprocess
import sys

from relay_app import process

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
