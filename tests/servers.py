"""Programs that a test needs and Python does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Find a program, also where only root has its search path.

    Args:
        name: As in ``/usr/sbin``; ``.ci/packages`` installs it on Debian.

    Returns: Its path. Where it is missing, the test is skipped, or fails in CI.
    """
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        missing = f"{name} is not on this machine; .ci/packages installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
