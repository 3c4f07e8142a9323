"""What ``check`` says, as lines and as what becomes JSON."""

import ipaddress

import click
import pytest

from relay_app.core.config import Config
from relay_app.core.guard import Finding, Level, Verdict
from relay_app.core.guard_codes import CODES
from relay_app.core.platforms import PLATFORMS, Platform
from relay_app.env_file import EnvFile, Form
from relay_app.report import (
    LOOKED_FOR,
    OF_A_PLATFORM,
    OF_THE_HOST,
    Judgement,
    Remark,
    about_proxies,
    as_dict,
    as_lines,
    doubts,
    explanation,
    explanation_lines,
)

AT_START = [row.code for row in CODES.values() if row.at_start]
FLY = next(row for row in PLATFORMS if row.name == "Fly")


def plain(judged: Judgement, width: int = 80) -> list[str]:
    """The text without colours."""
    return [click.unstyle(line) for line in as_lines(judged, width)]


def table(judged: Judgement) -> list[str]:
    """The lines of the guard."""
    lines = plain(judged)
    return lines[3 : lines.index("Settings") - 1]


def found(*findings: Finding) -> Judgement:
    """A judgement with these findings and nothing else."""
    return Judgement({}, verdict=Verdict(findings))


def test_every_code_has_its_words() -> None:
    """A new code needs what to say when there is nothing of it."""
    assert list(LOOKED_FOR) == AT_START
    assert set(AT_START) >= OF_THE_HOST | OF_A_PLATFORM
    assert max(map(len, table(found()))) <= 80


def test_table_without_findings() -> None:
    """One quiet line each, of which the codes of the host say more for a file."""
    assert [line[:16] for line in table(found())] == [
        f"  {code:<8}-     " for code in AT_START
    ]
    quiet = table(Judgement({}, elsewhere=True))
    untold = {line.split()[0] for line in quiet if "not looked at" in line}
    assert untold == OF_THE_HOST


def test_table_with_findings() -> None:
    """A line for each of several, the fix below; a code that is not in the table too."""
    judged = found(
        Finding("SI-105", Level.WARN, "sixth"),
        Finding("SI-202", Level.WARN, "second", "do this"),
        Finding("SI-202", Level.REFUSE, "third"),
    )
    shown = table(judged)
    assert "  SI-105  WARN    sixth" in shown
    start = shown.index("  SI-202  WARN    second")
    assert shown[start + 1 : start + 3] == [
        f"{'':18}fix: do this",
        "  SI-202  REFUSE  third",
    ]
    assert len(shown) == len(AT_START) + 3
    row = as_dict(judged)["table"][AT_START.index("SI-202")]
    assert row["verdict"] == "REFUSE"
    assert (row["seen"], row["fix"]) == (["second", "third"], ["do this"])


def test_table_of_a_process_that_serves_nobody() -> None:
    """What was not looked at does not count as not there."""
    shown = table(found(Finding("SI-001", Level.FINE, "skipped")))
    assert shown[0] == "  SI-001  FINE    skipped"
    assert all(line.endswith("-       not looked at") for line in shown[1:])


@pytest.mark.parametrize("width", [1, 40, 61, 80, 200])
def test_long_lines_are_broken_at_the_width(width: int) -> None:
    """Between 40 and 80 columns, behind the columns before them."""
    judged = found(Finding("SI-401", Level.REFUSE, "word " * 40, "thing " * 40))
    lines = plain(judged, width)
    start = next(n for n, line in enumerate(lines) if "word" in line)
    end = lines.index(next(line for line in lines if "SI-402" in line))
    assert all(len(line) <= max(40, min(width, 80)) for line in lines[start:end])
    assert all(line.startswith(" " * 18) for line in lines[start + 1 : end])
    assert "".join(lines[start:end]).count("word") == 40


def test_names_are_shown_without_what_a_terminal_obeys() -> None:
    """Anything may be the name of a variable."""
    config = Config.from_environ({"PYRYCODE_RELAY_\x1b[31m\udcff\n": "1"})
    text = "\n".join(plain(Judgement({}, config)))
    assert "PYRYCODE_RELAY_\\x1b[31m\\udcff\\n is not a setting" in text


def test_settings_and_faults() -> None:
    """What is changed, what cannot be used; then the guard was not asked."""
    environ = {"PORT": "9000", "PYRYCODE_RELAY_LISTEN": "127.0.0.1:1"}
    lines = plain(Judgement(environ, Config.from_environ(environ)))
    assert lines[-2:] == ["Settings", "  differ from their default: PORT"]
    judged = Judgement({}, faults=("A: must be b",))
    assert table(judged) == ["  not judged: see below"]
    assert plain(judged)[-1] == "  cannot be used: A: must be b"
    assert (judged.level, judged.exit_code) == (Level.REFUSE, 78)


def test_platform_is_the_environments() -> None:
    """Name, pin, what breaks it, what a deploy does."""
    judged = Judgement(dict(FLY.example))
    lines = plain(judged)
    assert lines[lines.index("Platform: Fly") + 1].startswith("  keep it at one:  fly")
    assert as_dict(judged)["platform"] == "Fly"
    assert as_dict(found())["platform"] is None
    assert "Platform" not in "".join(plain(found()))


@pytest.mark.parametrize("row", PLATFORMS, ids=lambda row: row.name)
def test_proxy_that_nobody_named_is_a_warning(row: Platform) -> None:
    """On every platform that has one: what becomes of the clients, and what to set."""
    remarks = list(about_proxies(Config(rate_burst=7), row))
    if row.proxy is None:
        assert remarks == []
        return
    (remark,) = remarks
    assert (remark.about, remark.level) == ("proxy", Level.WARN)
    assert f"behind {row.proxy.what} all clients share one rate limit" in remark.seen
    assert "after 7 upgrades the others get 429" in remark.seen
    assert remark.fix == row.proxy.to_set
    (remark,) = about_proxies(Config(rate_per_minute=0), row)
    assert (remark.level, remark.fix) == (Level.WARN, row.proxy.to_set)
    assert "429" not in remark.seen


@pytest.mark.parametrize("row", PLATFORMS, ids=lambda row: row.name)
def test_proxy_that_is_named_is_fine(row: Platform) -> None:
    """The row stays, for what else has to be named; the value is not shown."""
    config = Config.from_environ({"PYRYCODE_RELAY_TRUSTED_PROXIES": "192.0.2.0/24"})
    remarks = list(about_proxies(config, row))
    assert [remark.level for remark in remarks] == [Level.FINE] * (
        row.proxy is not None
    )
    for remark in remarks:
        assert remark.fix == ""
        assert row.proxy is not None and row.proxy.also in remark.seen
        assert "192.0.2" not in remark.seen


@pytest.mark.parametrize(
    "row",
    [r for r in PLATFORMS if r.proxy and r.proxy.also and r.proxy.networks],
    ids=lambda row: row.name,
)
def test_proxy_alone_is_not_enough_where_a_hop_is_before_it(row: Platform) -> None:
    """The log does not warn any more, and still all clients have one address."""
    assert row.proxy is not None
    own = ",".join(row.proxy.networks)
    wider = str(ipaddress.ip_network(row.proxy.networks[0]).supernet())
    for text, level in (
        (own, Level.WARN),
        (row.proxy.networks[0].partition("/")[0], Level.WARN),
        (wider, Level.WARN),
        (f"{own},192.0.2.0/24", Level.FINE),
        (f"{own},2001:db8::/32", Level.FINE),
    ):
        config = Config.from_environ({"PYRYCODE_RELAY_TRUSTED_PROXIES": text})
        (remark,) = about_proxies(config, row)
        assert remark.level is level
        assert row.proxy.also in remark.seen + remark.fix


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "10.0.0.0/8, ::/0"])
def test_proxy_that_is_everybody_is_a_warning(everybody: str) -> None:
    """Then a client's own word is believed, wherever the relay runs."""
    config = Config.from_environ({"PYRYCODE_RELAY_TRUSTED_PROXIES": everybody})
    for platform in (None, FLY):
        (remark,) = about_proxies(config, platform)
        assert remark.level is Level.WARN
        assert "PYRYCODE_RELAY_TRUSTED_PROXIES" in remark.fix


def test_no_platform_no_remark() -> None:
    """Whether a proxy is in front of a plain host cannot be known."""
    assert about_proxies(Config(), None) == ()
    assert "Beside the guard" not in plain(found())
    assert as_dict(found())["remarks"] == []


@pytest.mark.parametrize(
    ("level", "exit_code"), [(Level.FINE, 0), (Level.WARN, 0), (Level.REFUSE, 78)]
)
def test_remark_has_its_line_and_counts(level: Level, exit_code: int) -> None:
    """As a code of the guard has, in both forms; a warning does not keep from starting."""
    judged = Judgement({}, remarks=(Remark("thing", level, "is so", "do this"),))
    lines = plain(judged)
    start = lines.index("Beside the guard")
    assert lines[start + 1 : start + 3] == [
        f"  thing   {level.name:<8}is so",
        f"{'':18}fix: do this",
    ]
    assert lines[0].startswith(f"{level.name}: ")
    told = as_dict(judged)
    assert (told["verdict"], told["exit_code"]) == (level.name, exit_code)
    assert told["remarks"] == [
        {"about": "thing", "level": level.name, "seen": "is so", "fix": "do this"}
    ]
    worse = Judgement({}, remarks=judged.remarks, faults=("A: must be b",))
    assert (worse.level, worse.exit_code) == (Level.REFUSE, 78)


@pytest.mark.parametrize("code", CODES)
def test_explanation_names_the_pin_where_it_helps(code: str) -> None:
    """On a platform, for the codes that depend on it."""
    row = CODES[code]
    lines = explanation_lines(row, FLY, 80)
    assert ("On Fly" in lines) == (code in OF_A_PLATFORM)
    told = explanation(row, FLY)
    assert (told["platform"] == "Fly") == (code in OF_A_PLATFORM)
    assert told["pin"] == (FLY.pin if code in OF_A_PLATFORM else None)
    assert "On Fly" not in explanation_lines(row, None, 80)
    assert max(map(len, explanation_lines(row, FLY, 50))) <= 50


@pytest.mark.parametrize(
    ("variables", "skipped", "count"),
    [({"A": ""}, (), 0), ({}, (), 1), ({"A": ""}, (4,), 1), ({}, tuple(range(7)), 7)],
)
def test_doubts(
    variables: dict[str, str], skipped: tuple[int, ...], count: int
) -> None:
    """A few lines by their number, the others by theirs."""
    lines = list(doubts(EnvFile(variables, Form.DOTENV, skipped)))
    assert len(lines) == count
    assert len(skipped) < 6 or lines[-1].endswith("2 more lines are skipped")
