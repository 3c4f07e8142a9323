"""The platform table."""

import pytest

from relay_app.core import platforms
from relay_app.core.platforms import PLATFORMS, Platform


@pytest.mark.parametrize("row", PLATFORMS)
def test_row_says_everything_an_operator_needs(row: Platform) -> None:
    """Presence, pin, the command that breaks it, and what a deploy does."""
    assert row.presence and row.name and row.pin and row.scale and row.overlap


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"FLY_APP_NAME": "x"}, "Fly"),
        ({"DYNO": "web.1"}, "Heroku"),
        ({"DYNO": ""}, None),
        ({}, None),
    ],
)
def test_detect_goes_by_presence(environ: dict[str, str], name: str | None) -> None:
    """A platform is known by the variables it sets."""
    found = platforms.detect(environ)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"FLY_APP_NAME": "x", "RELEASE_COMMAND": "1"}, "RELEASE_COMMAND"),
        ({"FLY_APP_NAME": "x"}, None),
        ({"RELEASE_COMMAND": "1"}, None),
        ({"DYNO": "run.1234"}, "DYNO"),
        ({"DYNO": "release.7"}, "DYNO"),
        ({"DYNO": "scheduler.7"}, "DYNO"),
        ({"DYNO": "web.1"}, None),
    ],
)
def test_not_serving_names_the_variable(
    environ: dict[str, str], variable: str | None
) -> None:
    """A one-off shell or a release step serves nobody."""
    assert platforms.not_serving(environ) == variable
