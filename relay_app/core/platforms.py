"""The hosting platforms, as data: what each sets, and how to pin it to one.

A platform is a row of ``PLATFORMS``. The guard goes through the rows in order
and takes the first whose ``presence`` variables are all set; a reader adds a
platform by adding a row and its tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform that can run more than one copy of a service.

    ``pin`` is what keeps it at one, ``scale`` the command that would break it,
    ``overlap`` says whether a deploy runs old and new side by side and what
    switches that off. ``not_serving`` lists (variable, value prefix) pairs that
    mark a process of the app which serves nobody: a one-off shell, a release step.
    """

    name: str
    presence: tuple[str, ...]
    pin: str
    scale: str
    overlap: str
    not_serving: tuple[tuple[str, str], ...] = ()

    def is_here(self, environ: Mapping[str, str]) -> bool:
        """Tell whether the environment is this platform's."""
        return all(environ.get(variable) for variable in self.presence)


PLATFORMS: tuple[Platform, ...] = (
    Platform(
        name="Fly",
        presence=("FLY_APP_NAME",),
        pin="fly scale count 1 (and fly deploy --ha=false for the first deploy)",
        scale="fly scale count 2",
        overlap="a rolling deploy replaces the one machine in place; do not use the "
        "canary or bluegreen strategy, which run two for a while",
        not_serving=(("RELEASE_COMMAND", "1"),),
    ),
    Platform(
        name="Heroku",
        presence=("DYNO",),
        pin="heroku ps:scale web=1",
        scale="heroku ps:scale web=2",
        overlap="preboot runs the old and the new dyno side by side; switch it off: "
        "heroku features:disable preboot",
        not_serving=(("DYNO", "run."), ("DYNO", "release."), ("DYNO", "scheduler.")),
    ),
)


def detect(environ: Mapping[str, str]) -> Platform | None:
    """Find the platform that an environment belongs to; ``None`` for none known."""
    return next((row for row in PLATFORMS if row.is_here(environ)), None)


def not_serving(environ: Mapping[str, str]) -> str | None:
    """Tell by which variable a platform marks this process as not serving.

    Returns: The variable's name, or ``None`` when the process may serve.
    """
    for row in PLATFORMS:
        for variable, start in row.not_serving:
            if row.is_here(environ) and environ.get(variable, "").startswith(start):
                return variable
    return None
