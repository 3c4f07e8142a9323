"""The platform table: every row, as that platform sets it, alone and scaled."""

from __future__ import annotations

import ipaddress
import re

import pytest

from relay_app.core import platforms, policy
from relay_app.core.config import Config
from relay_app.core.guard import Facts, Level, Verdict, judge
from relay_app.core.platforms import PLATFORMS, ROWS, Platform

ASSERTED = {"PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE": "true"}

SECOND = {
    "Heroku": {"DYNO": "web.2"},
    "Heroku or Dokku": {"DYNO": "web.2"},
    "Koyeb": {"KOYEB_REPLICA_INDEX": "1"},
    "Scalingo": {"CONTAINER": "web-2"},
    "Clever Cloud": {"INSTANCE_NUMBER": "1"},
    "Cloud Run or Knative": {"CLOUD_RUN_TASK_COUNT": "2"},
    "Cloud Foundry": {"CF_INSTANCE_INDEX": "1", "INSTANCE_INDEX": "1"},
    "Nomad": {"NOMAD_ALLOC_INDEX": "1"},
    "PM2": {"NODE_APP_INSTANCE": "1"},
}
"""What the platforms that show it set for the second copy, or when scaled."""

SHOWS_NOTHING = {
    "Fly",
    "Heroku Fir",
    "Render",
    "Railway",
    "App Engine",
    "App Engine flexible",
    "App Service",
    "Container Apps",
    "ECS",
    "Kubernetes",  # a StatefulSet's pods are numbered: tests/core/test_guard.py
}
"""Rows on which a second copy's environment looks like the first one's."""


NO_PROXY = {"Nomad", "PM2"}
"""Rows on which the operator alone decides whether something stands in front."""


def verdict(environ: dict[str, str]) -> Verdict:
    """Judge an environment with one worker."""
    return judge(Facts(environ=environ, config=Config.from_environ(environ), workers=1))


def by_name(row: Platform) -> str:
    """Name a case."""
    return row.name


def test_every_row_has_its_environments() -> None:
    """A row without a second copy here says that its platform shows none."""
    assert {row.name for row in ROWS} == set(SECOND) | SHOWS_NOTHING
    assert not set(SECOND) & SHOWS_NOTHING


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_row_says_everything_an_operator_needs(row: Platform) -> None:
    """Presence, pin, the command that breaks it, and what a deploy does."""
    assert row.presence
    assert row.name
    assert row.pin
    assert row.scale
    assert row.in_a_deploy
    for _, values in row.not_serving:
        re.compile(values)


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_row_says_what_stands_in_front(row: Platform) -> None:
    """Whatever a row tells the operator to set is a setting that can be used."""
    assert (row.proxy is None) == (row.name in NO_PROXY)
    if row.proxy is None:
        return
    assert row.proxy.what
    assert row.proxy.source
    assert row.proxy.to_set.startswith("set PYRYCODE_RELAY_TRUSTED_PROXIES")
    told = re.search(r"PYRYCODE_RELAY_TRUSTED_PROXIES=(\S+)", row.proxy.to_set)
    assert (told is not None) == bool(row.proxy.networks)
    if told:
        config = Config.from_environ({"PYRYCODE_RELAY_TRUSTED_PROXIES": told[1]})
        assert [str(net) for net in config.trusted_proxies] == [*row.proxy.networks]
        assert "not published" in row.proxy.to_set
    else:
        assert row.proxy.variable in row.proxy.to_set
        assert row.proxy.variable or "peer" in row.proxy.to_set


@pytest.mark.parametrize("row", PLATFORMS, ids=by_name)
def test_networks_of_a_proxy_are_nobodys_on_the_internet(row: Platform) -> None:
    """Who is trusted may write any address, so no client may come from there."""
    for text in row.proxy.networks if row.proxy else ():
        network = ipaddress.ip_network(text)
        for address in (network[0], network[-1]):
            assert policy.is_untrusted_proxy(str(address), ())


def test_client_behind_fly_needs_both_hops() -> None:
    """Its proxy appends an address of the app's own, so ``also`` is no decoration."""
    (fly,) = (row for row in PLATFORMS if row.name == "Fly")
    assert fly.proxy is not None
    trusted = [ipaddress.ip_network(text) for text in fly.proxy.networks]
    forwarded = ["198.51.100.7, 203.0.113.9"]
    assert policy.client_address("172.16.3.2", forwarded, trusted) == "203.0.113.9"
    trusted.append(ipaddress.ip_network("203.0.113.9"))
    assert policy.client_address("172.16.3.2", forwarded, trusted) == "198.51.100.7"


@pytest.mark.parametrize("row", PLATFORMS, ids=by_name)
def test_lone_copy_with_the_assertion_is_served(row: Platform) -> None:
    """The environment as the platform sets it for one."""
    environ = dict(row.example)
    assert platforms.detect(environ) is row
    found = verdict(environ | ASSERTED)
    assert found.level < Level.REFUSE
    assert "SI-402" in found.codes
    assert row.name in found.findings[found.codes.index("SI-402")].seen


@pytest.mark.parametrize("row", PLATFORMS, ids=by_name)
def test_lone_copy_without_the_assertion_is_refused(row: Platform) -> None:
    """The fix is this platform's."""
    found = verdict(dict(row.example))
    assert [finding.code for finding in found.refused] == ["SI-401"]
    assert row.pin in found.message()
    assert "PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE=true" in found.message()


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name in SECOND], ids=by_name
)
def test_second_copy_is_refused_whatever_is_asserted(row: Platform) -> None:
    """Evidence outweighs a promise; the fix is the platform's."""
    environ = dict(row.example) | SECOND[row.name] | ASSERTED
    found = verdict(environ)
    assert [finding.code for finding in found.refused] in (["SI-201"], ["SI-202"])
    assert row.pin in found.message()


@pytest.mark.parametrize("row", platforms.MANAGERS, ids=by_name)
def test_manager_needs_no_assertion(row: Platform) -> None:
    """On one host the lock sees a second copy."""
    assert verdict(dict(row.example)).findings == ()


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"FLY_APP_NAME": "x"}, "Fly"),
        ({"DYNO": "web.1"}, "Heroku or Dokku"),
        ({"DYNO": "web.1", "HEROKU_APP_ID": "x"}, "Heroku"),
        ({"DYNO": "web-12a34b56d-e78f9"}, "Heroku Fir"),
        ({"DYNO": "worker.1"}, "Heroku or Dokku"),
        ({"DYNO": ""}, None),
        ({"DYNO": "web.x"}, None),
        ({"DYNO": "web"}, None),
        ({"K_SERVICE": "x"}, None),
        (
            {"K_SERVICE": "x", "K_REVISION": "y", "KUBERNETES_SERVICE_HOST": "z"},
            "Cloud Run or Knative",
        ),
        ({"container": "podman"}, None),
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
        ({"FLY_APP_NAME": "x", "RELEASE_COMMAND": "10"}, None),
        ({"FLY_APP_NAME": "x"}, None),
        ({"RELEASE_COMMAND": "1"}, None),
        ({"DYNO": "run.1234"}, "DYNO"),
        ({"DYNO": "run.abcd"}, "DYNO"),
        ({"DYNO": "release.7"}, "DYNO"),
        ({"DYNO": "scheduler.7"}, "DYNO"),
        ({"DYNO": "runner.7"}, None),
        ({"DYNO": "web.1"}, None),
        ({"CC_PRETTY_INSTANCE_NAME": "x", "INSTANCE_TYPE": "build"}, "INSTANCE_TYPE"),
        ({"CC_PRETTY_INSTANCE_NAME": "x", "INSTANCE_TYPE": "production"}, None),
        ({"INSTANCE_TYPE": "build"}, None),
        ({"SCALINGO_APPLICATION_ID": "x", "CONTAINER": "one-off-17"}, "CONTAINER"),
        ({"SCALINGO_APPLICATION_ID": "x", "CONTAINER": "web-1"}, None),
    ],
)
def test_not_serving_names_the_variable(
    environ: dict[str, str], variable: str | None
) -> None:
    """A one-off shell, a build or a release step serves nobody."""
    assert platforms.not_serving(environ) == variable


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"DYNO": "web.x"}, ("DYNO",)),
        ({"DYNO": "web."}, ("DYNO",)),
        ({"DYNO": "web"}, ("DYNO",)),
        ({"DYNO": "run.x"}, ()),
        ({"DYNO": "web.2"}, ()),
        ({"DYNO": "web-12a34b56d-e78f9"}, ()),
        ({"KOYEB_REPLICA_INDEX": "-1"}, ("KOYEB_REPLICA_INDEX",)),
        ({"NOMAD_ALLOC_INDEX": "9" * 40}, ("NOMAD_ALLOC_INDEX",)),
        ({"NOMAD_ALLOC_INDEX": "¹"}, ("NOMAD_ALLOC_INDEX",)),
        ({"CF_INSTANCE_INDEX": "x"}, ()),
        ({"CF_INSTANCE_INDEX": "x", "VCAP_APPLICATION": "{}"}, ("CF_INSTANCE_INDEX",)),
        (
            {"CF_INSTANCE_INDEX": "1", "INSTANCE_INDEX": "0", "VCAP_APPLICATION": "{}"},
            ("CF_INSTANCE_INDEX", "INSTANCE_INDEX"),
        ),
        ({"CLOUD_RUN_TASK_COUNT": "two"}, ("CLOUD_RUN_TASK_COUNT",)),
        ({"CLOUD_RUN_TASK_COUNT": "0"}, ("CLOUD_RUN_TASK_COUNT",)),
        ({"instances": "max", "pm_id": "0"}, ("instances",)),
        ({"instances": "max"}, ()),
        ({"CONTAINER": "web-x", "SCALINGO_APPLICATION_ID": "a"}, ("CONTAINER",)),
        ({"CONTAINER": "one-off-7", "SCALINGO_APPLICATION_ID": "a"}, ()),
    ],
)
def test_malformed_values_are_named_and_treated_as_absent(
    environ: dict[str, str], names: tuple[str, ...]
) -> None:
    """SI-701, and none of them counts as a number."""
    assert platforms.malformed(environ) == names
    found = verdict(environ | ASSERTED)
    assert [f.seen.split()[0] for f in found.findings if f.code == "SI-701"] == list(
        names
    )
    if names:
        assert not {"SI-201", "SI-202"} & set(found.codes)


@pytest.mark.parametrize(
    "environ",
    [
        {"INSTANCE_NUMBER": "3"},
        {"INSTANCE_NUMBER": "3", "APP_ID": "x"},
        {"NODE_APP_INSTANCE": "2"},
        {"CONTAINER": "web-2"},
        {"CF_INSTANCE_INDEX": "2"},
        {"instances": "4"},
        {"container": "podman"},
        {"WEB_CONCURRENCY": "4"},
        {"HOSTNAME": "vps-3"},
    ],
)
def test_stray_variables_prove_nothing(environ: dict[str, str]) -> None:
    """A generic name means something only beside the platform's own."""
    assert verdict(environ).level is Level.FINE


def test_a_number_is_found_once() -> None:
    """Two rows know DYNO."""
    found = list(platforms.ordinals({"DYNO": "web.3", "HEROKU_APP_ID": "x"}))
    assert [(row.name, number) for row, _, number in found] == [("Heroku", 3)]
