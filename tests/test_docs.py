"""What the documentation says is what the code has: settings, codes, events, links."""

import ast
import configparser
import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from relay_app.cli import main
from relay_app.core import events
from relay_app.core.close_codes import Close
from relay_app.core.config import PREFIX, SETTINGS, Config, Setting
from relay_app.core.guard import (
    EXIT_REFUSED,
    EXIT_REFUSED_IN_GUNICORN,
    Facts,
    LockReport,
    LockState,
    judge,
)
from relay_app.core.guard_codes import CODES, GuardCode
from relay_app.core.platforms import PLATFORMS, ROWS, Platform
from relay_app.hooks import _NEUTRALISED
from relay_app.lock import USUAL_PLACES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
SOURCES = sorted((ROOT / "relay_app").rglob("*.py"))

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CITATION = re.compile(r'(docs/[\w./-]+\.md)|"([^"]+)"|\bdecision (\d{4})')
GUARD_CODE = re.compile(r"\bSI-\d+w?\b")
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:work|home|root|tmp|Users|opt|mnt|var)/")


def by_path(path: Path) -> str:
    """Name a test after a file."""
    return str(path.relative_to(ROOT))


def text_of(page: str) -> str:
    """One page of ``docs/``."""
    return (DOCS / page).read_text()


def prose(text: str) -> str:
    """A text without its code fences."""
    return FENCE.sub("", text)


def headings(path: Path) -> list[str]:
    """Every heading of a page, as it is read and not as it is written."""
    found = re.findall(r"^#+ +(.+?) *$", prose(path.read_text()), re.MULTILINE)
    return [heading.replace("`", "") for heading in found]


def section(page: str, heading: str) -> str:
    """A section with its subsections."""
    lines = text_of(page).splitlines()
    depths = {}
    start = None
    for number, line in enumerate(lines):
        title = re.match(r"(#+) +(.+?) *$", line)
        if title is None:
            continue
        depths[number] = len(title[1])
        if title[2].replace("`", "") == heading:
            start = number
    assert start is not None, f"docs/{page} has no heading {heading}"
    ends = (n for n, depth in depths.items() if n > start and depth <= depths[start])
    return "\n".join(lines[start : next(ends, len(lines))])


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without the marks for code."""
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith(("|---", "| ---"))
    ]


def row_of(text: str, name: str) -> list[str]:
    """The one row whose first cell is ``name``."""
    found = [row for row in rows(text) if row[0] == name]
    assert found, f"no row for {name}"
    assert len(found) == 1, f"{len(found)} rows for {name}"
    return found[0]


def anchors(path: Path) -> set[str]:
    """What a link into a page may end with."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings(path)
    }


def all_events() -> list[type[events.Event]]:
    """Every event that has a name."""
    found = [
        thing
        for thing in vars(events).values()
        if isinstance(thing, type) and issubclass(thing, events.Event)
    ]
    return [event for event in found if hasattr(event, "name")]


def citations() -> Iterator[tuple[Path, Path, str]]:
    """What docstrings give as their source: who, which page, which heading or nothing."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            docstring = ast.get_docstring(node) or ""
            for cited in re.findall(
                r"^ *Source:(.+?)(?:\n\n|\Z)", docstring, re.M | re.S
            ):
                page = None
                for name, heading, decision in CITATION.findall(cited):
                    if decision:
                        pages = list((DOCS / "decisions").glob(f"{decision}-*.md"))
                        assert len(pages) == 1, f"{by_path(path)}: decision {decision}"
                        page = pages[0]
                        heading = ""
                    elif name:
                        page = ROOT / name
                        heading = ""
                    elif page is None:
                        continue  # a heading of something that is not ours
                    yield path, page, heading


# Settings


def default_text(setting: Setting) -> str:
    """The default as the table has it."""
    value: Any = getattr(Config(), setting.field)
    if setting.variable == "PORT" or value is None or value is False:
        return "unset"
    if value == ():
        return "empty"
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_setting_has_its_row(setting: Setting) -> None:
    """Variable, default, what it accepts, and a sentence about it."""
    _, default, accepts, meaning = row_of(text_of("configuration.md"), setting.variable)
    assert default == default_text(setting)
    assert accepts == setting.accepts
    assert meaning.endswith(".")


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_variables_that_are_named_exist(page: Path) -> None:
    """No page tells of a setting that nobody reads."""
    known = {setting.variable for setting in SETTINGS} | {PREFIX}
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*", page.read_text()))
    assert named <= known


def test_configuration_lists_settings_only() -> None:
    """A row for something else would be a setting that was taken out."""
    listed = {row[0] for row in rows(text_of("configuration.md"))} - {"variable"}
    assert listed == {setting.variable for setting in SETTINGS}


# Close codes


@pytest.mark.parametrize("close", Close, ids=lambda close: close.name)
def test_close_has_its_row(close: Close) -> None:
    """Code and reason text stand in one row."""
    listed = [row[:2] for row in rows(section("protocol.md", "Close codes"))]
    assert [str(close.code), close.reason or "empty"] in listed


def test_close_codes_that_are_listed_exist() -> None:
    """Every row but the binary's directive is a close of the relay."""
    known = {(str(close.code), close.reason or "empty") for close in Close}
    listed = {(row[0], row[1]) for row in rows(section("protocol.md", "Close codes"))}
    assert listed - known == {("code", "reason text"), ("from close_code", "empty")}


# Log events


@pytest.mark.parametrize("event", all_events(), ids=lambda event: event.__name__)
def test_event_has_its_row(event: type[events.Event]) -> None:
    """Name, level, every field, what it means and what to do."""
    _, level, fields, meaning, to_do = row_of(
        section("operations.md", "Log events"), event.name
    )
    assert logging.getLevelName(event.level).lower() in level.split(" or ")
    assert fields.split(", ") == [field.name for field in dataclasses.fields(event)]
    assert meaning
    assert to_do


def test_events_that_are_listed_exist() -> None:
    """A row for something else would be an event that was taken out."""
    listed = {row[0] for row in rows(section("operations.md", "Log events"))}
    named = {name for name in listed if re.fullmatch(r"[a-z]+\.[a-z_]+", name)}
    assert named == {event.name for event in all_events()}


# The guard


@pytest.mark.parametrize("row", CODES.values(), ids=lambda row: row.code)
def test_guard_code_has_its_row(row: GuardCode) -> None:
    """What was seen, the verdict and what to do, as ``check --explain`` has them."""
    listed = row_of(section("operations.md", "Codes"), row.code)
    assert listed == [row.code, row.signal, row.verdict, row.fix]


def test_guard_codes_that_are_named_exist() -> None:
    """On every page."""
    named = set(GUARD_CODE.findall("".join(page.read_text() for page in PAGES)))
    assert named == set(CODES)


def test_bypass_names_what_it_covers() -> None:
    """These codes and no other one."""
    named = set(GUARD_CODE.findall(section("operations.md", "Bypass")))
    assert named == {row.code for row in CODES.values() if row.bypass}


def test_message_is_the_guards() -> None:
    """The example is what the guard would print."""
    (heroku,) = (row for row in PLATFORMS if row.name == "Heroku")
    message = judge(Facts(environ=dict(heroku.example))).message()
    assert f"```text\n{message}\n```" in section("operations.md", "The message")


def test_lock_says_where_it_looks() -> None:
    """Every place that is tried, in its order, and what each fault is called."""
    told = section("operations.md", "The lock")
    places = [f"{PREFIX}STATE_DIR", *(variable for variable, _ in USUAL_PLACES)]
    found = [told.index(f"`{place}`") for place in places]
    assert found == sorted(found)
    for state in (LockState.FORBIDDEN, LockState.UNSUPPORTED, LockState.UNENFORCED):
        (finding,) = judge(Facts(lock=LockReport(state, "it"))).findings
        reason = finding.seen.partition(":")[0]
        assert finding.code == "SI-601"
        assert all(row_of(told, reason))


def test_settings_of_gunicorn_that_are_set_back_are_told() -> None:
    """Each with what it would do."""
    told = section("operations.md", "gunicorn's own settings")
    assert {row[0] for row in rows(told)} == {
        "setting",
        "worker_class",
        *_NEUTRALISED,
    }


# Platforms


def shows(platform: Platform) -> str:
    """How a second copy shows in its environment."""
    ordinal, count = platform.ordinal, platform.count
    found = []
    if ordinal:
        found.append(f"SI-201: {ordinal.variable} counts from {ordinal.first}")
    if count:
        found.append(f"SI-202: {count.variable} above 1")
    if platform.name == "Kubernetes":
        found.append("SI-203: a pod of a StatefulSet, by the pod below it")
    return "; ".join(found) or "nothing"


@pytest.mark.parametrize("platform", ROWS, ids=lambda platform: platform.name)
def test_platform_has_its_section(platform: Platform) -> None:
    """It begins with all that the table in the code says."""
    known_by = ", ".join(platform.presence)
    expected = [
        ["what", "here"],
        ["known by", known_by + (", by its form" if platform.shape else "")],
        ["keep it at one", platform.pin],
        ["what would break it", platform.scale],
        ["in a deploy", platform.in_a_deploy],
        ["a second copy shows", shows(platform)],
        ["the log's instance", platform.instance or "none"],
        ["the log's revision", platform.revision or "none"],
    ]
    if platform.not_serving:
        names = ", ".join(variable for variable, _ in platform.not_serving)
        expected.append(["let through, serving nobody", f"by {names}"])
    told = section("operations.md", platform.name)
    assert rows(told) == expected
    assert len(prose(told).split("\n\n", 2)[2].split()) > 20, "no word about it"


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_platform_has_its_row(platform: Platform) -> None:
    """The overview leads to the section."""
    anchor = platform.name.lower().replace(" ", "-")
    overview = text_of("operations.md").partition("\n## Platforms\n")[2]
    overview = overview.partition("\n### ")[0]
    _, second, kept, files = row_of(overview, f"[{platform.name}](#{anchor})")
    assert second == shows(platform)
    assert kept == ("yes" if platform.off else "no")
    assert files == "none" or all((ROOT / f).is_file() for f in files.split(", "))


def test_platforms_that_have_a_section_exist() -> None:
    """A section for something else would be a row that was taken out."""
    for heading, names in (
        ("Platforms", [row.name for row in PLATFORMS]),
        ("Plain hosts", ["systemd", "Compose", "supervisord", "PM2"]),
    ):
        told = re.findall(r"^### (.+)$", section("operations.md", heading), re.M)
        assert told == names


@pytest.mark.parametrize("code", [EXIT_REFUSED, EXIT_REFUSED_IN_GUNICORN])
def test_exit_code_has_its_row(code: int) -> None:
    """Both refusals are explained."""
    assert row_of(section("operations.md", "Exit codes"), str(code))[1]


def test_single_instance_section_exists() -> None:
    """Its title is fixed, because people search for it."""
    assert "\n## `v1 = single-instance`\n" in text_of("architecture.md")


# Citations and links


def test_sources_resolve() -> None:
    """A docstring that cites a heading of ours cites one that is there."""
    missing = [
        f'{by_path(path)}: {by_path(page)} "{heading}"'
        for path, page, heading in citations()
        if not page.is_file() or (heading and heading not in headings(page))
    ]
    assert not missing


def test_sources_are_found() -> None:
    """The search above sees several headings behind one page."""
    found = {
        (by_path(path), by_path(page), heading) for path, page, heading in citations()
    }
    who, page = "relay_app/core/registry.py", "docs/protocol.md"
    for heading in ("", "Claim, conflict, takeover", "Grace period", "Phones"):
        assert (who, page, heading) in found


def test_pages_that_code_names_exist() -> None:
    """In comments and messages as well."""
    for path in SOURCES:
        for name in re.findall(r"\bdocs/[\w./-]+\.md", path.read_text()):
            assert (ROOT / name).is_file(), f"{by_path(path)}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_links_resolve(page: Path) -> None:
    """Files and headings that a page links to are there."""
    for link in LINK.findall(prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{by_path(page)}: {link}"
        assert target.is_relative_to(ROOT), f"{by_path(page)}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{by_path(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_no_path_of_a_machine(page: Path) -> None:
    """What is written holds on everybody's machine."""
    assert not MACHINE_PATH.search(page.read_text())


# Decisions, changes, commands


def test_dependencies_have_their_reason() -> None:
    """Each package in setup.cfg is named in the decision about dependencies."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["install_requires"].split()
    for extra in setup["options.extras_require"].values():
        listed += extra.split()
    named = re.findall(r"`([\w-]+)`", text_of("decisions/0008-dependencies.md"))
    assert {re.split(r"[<>=!~]", name)[0] for name in listed} <= set(named)


def test_decisions_are_numbered_and_listed() -> None:
    """No gap, and each one is in the index under its own title."""
    pages = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [page.name[:4] for page in pages] == [
        f"{number:04}" for number in range(1, len(pages) + 1)
    ]
    index = text_of("decisions/README.md")
    for page in pages:
        number, _, title = headings(page)[0].partition(" ")
        assert number == page.name[:4]
        assert f"| [{number}]({page.name}) | {title} |" in index


def test_changes_are_fragments() -> None:
    """One sentence each, in a file whose name says what kind of change it is."""
    for page in (DOCS / "changes").iterdir():
        assert re.fullmatch(
            r"\d+\.(added|changed|fixed|removed|security)\.md", page.name
        )
        assert page.read_text().endswith(".\n")


def typed_lines() -> list[str]:
    """What a reader would type: the lines of every fence marked as shell."""
    return [
        line
        for page in PAGES
        for fence in FENCE.findall(page.read_text())
        if fence.startswith("```sh\n")
        for line in fence.splitlines()[1:-1]
    ]


def test_make_targets_exist() -> None:
    """Every ``make`` that is shown works."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = [line.split()[1] for line in typed_lines() if line.startswith("make ")]
    assert {"run", "test", "demo"} <= set(shown) <= set(targets)


def test_commands_exist() -> None:
    """Every command and option of ours that is shown works."""
    shown = 0
    for line in typed_lines():
        found = re.search(r"pyrycode-relay (\w+)(.*)", line.partition("#")[0])
        if found is None:
            continue
        shown += 1
        command = main.get_command(click.Context(main), found[1])
        assert command is not None, line
        known = {option for param in command.params for option in param.opts}
        assert set(re.findall(r"--[\w-]+", found[2])) <= known, line
    assert shown >= 4


def test_threat_model_names_tests_that_there_are() -> None:
    """What is said to stop somebody is shown by a test, and the test is still there."""
    named = re.findall(r"`(test_\w+)`", (DOCS / "threat-model.md").read_text())
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 20
    assert set(named) <= there, sorted(set(named) - there)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_platform_tells_what_stands_in_front(platform: Platform) -> None:
    """And what to set, as ``check`` says it."""
    told = section("operations.md", platform.name).replace("`", "")
    told = " ".join(told.partition("**In front:** ")[2].split())
    proxy = platform.proxy
    expected = f"{proxy.what}; {proxy.to_set}." if proxy else "nothing, unless you put"
    assert told.startswith(expected)
