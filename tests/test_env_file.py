"""Environments in files: three forms, what is raw in each, what is no environment."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_app.env_file import MAX_BYTES, MAX_LINES, Form, Unreadable, parse, read

CF = '{"a": 1, "b": "x # y"}'
OF_A_PROCESS = "PATH=/usr/bin\nHOME=/app\n"


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1\n", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("export A=1\n  export\tB=2\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A = 1\n", {"A": "1"}),
        ("A=\nB=''\n", {"A": "", "B": ""}),
        ("# A=1\n\nA=2 # two\n", {"A": "2"}),
        ('A=\'x # y\'\nB="q\\"q"\n', {"A": "x # y", "B": 'q"q'}),
        ("A=x#y\nB=$A ${A}\n", {"A": "x#y", "B": "$A ${A}"}),
        ('A="one\r\ntwo"\r\nB=2\n', {"A": "one\ntwo", "B": "2"}),
        (f"VCAP_APPLICATION={CF}\n", {"VCAP_APPLICATION": CF}),
        (f'export A= {CF}  \nB=[1, "# 2"]\n', {"A": CF, "B": '[1, "# 2"]'}),
        ("A={x} # no JSON\nB=[1] # not whole\n", {"A": "{x}", "B": "[1]"}),
        (f"A='\n{CF}\n'\n", {"A": f"\n{CF}\n"}),
        ("A=" + "[" * 99_999, {"A": "[" * 99_999}),
        # heroku config -s
        ("A='a b'\nB=\"it's\\nso\"\n", {"A": "a b", "B": "it's\nso"}),
        # Without the search path nothing tells it from a .env file.
        ("HOME=/app\nA='1'\n", {"HOME": "/app", "A": "1"}),
        ("# mine\nPATH=/bin\nHOME=/\nA='1'", {"PATH": "/bin", "HOME": "/", "A": "1"}),
    ],
)
def test_statements_of_a_dotenv_file(text: str, variables: dict[str, str]) -> None:
    """Quotes, comments and export mean something; JSON stands for itself."""
    found = parse(text.removeprefix("\ufeff"))
    assert found.form is Form.DOTENV
    assert dict(found.variables) == variables
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("text", "skipped", "variables"),
    [
        ("nothing\nA=1\n", (1,), {"A": "1"}),
        ("A=1\n\n\nexport\nexport B\n", (4, 5), {"A": "1"}),
        ("A=1\r\n\r\n=x\r\nB=2\r\n!\r\n", (3, 5), {"A": "1", "B": "2"}),
        ('A="x\nB=2\n', (1,), {"B": "2"}),
        ('A="x\nB="2"\nB=3\n', (1,), {"B": "3"}),
        ("\n\nA='x\nB='2'\nC=\"\nD=4", (3, 5), {"B": "2", "D": "4"}),
        ("A='1' 2\nB=2\n", (1,), {"B": "2"}),
        ("A-B=1\nA:B=1\n1A=1\n'A=B'=1\nÄ=1\n", (1, 2, 3, 4, 5), {}),
        ("-----BEGIN KEY-----\nMIIB+/==\n", (1, 2), {}),
    ],
)
def test_lines_that_are_no_statement(
    text: str, skipped: tuple[int, ...], variables: dict[str, str]
) -> None:
    """Each is counted where it stands, and takes no good line with it."""
    found = parse(text)
    assert (found.skipped, dict(found.variables)) == (skipped, variables)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (f"A={CF}\n", {"A": CF}),
        ("A='1'\nB=\"2\"\n", {"A": "'1'", "B": '"2"'}),
        ("A= x # y \nB=a=b\nC=\n", {"A": " x # y ", "B": "a=b", "C": ""}),
        ("A=one\ntwo\n\n  four\nB=2\n", {"A": "one\ntwo\n\n  four", "B": "2"}),
        ("A=1\nBASH_FUNC_f%%=() {  echo\n}\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=one\ntwo", {"A": "one\ntwo"}),
        ("A=one\r\nB=2\r\n", {"A": "one", "B": "2"}),
    ],
)
def test_output_of_env_is_raw(text: str, variables: dict[str, str]) -> None:
    """Nothing is unquoted; a line without a name goes on with the one above."""
    found = parse(OF_A_PROCESS + text)
    assert (found.form, found.skipped) == (Form.ENV, ())
    assert dict(found.variables) == {
        "PATH": "/usr/bin",
        "HOME": "/app",
        **variables,
    }


def test_what_stands_before_the_output_of_env_is_skipped() -> None:
    """Tools that run it elsewhere may say something first."""
    found = parse(f"Connecting...\n\n{OF_A_PROCESS}")
    assert (found.skipped, set(found.variables)) == ((1,), {"PATH", "HOME"})


def test_output_of_env_0_is_exact() -> None:
    """Line ends and all; what has no name is counted."""
    found = parse("A='1'\r\n# x\0B=\0no\0BASH_FUNC_f%%=()\0A=2\0C=\nB=9\0")
    assert (found.form, found.skipped) == (Form.ENV_0, (3,))
    assert dict(found.variables) == {"A": "2", "B": "", "C": "\nB=9"}


VALUES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
)


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), VALUES))
def test_every_environment_survives_env_0(variables: dict[str, str]) -> None:
    """Whatever is in the values."""
    text = "".join(f"{name}={value}\0" for name, value in variables.items())
    assert dict(parse(text).variables) == variables


@given(st.text(st.sampled_from("A='\"\\ \n\r#\0{}[]éx")))
def test_any_text_is_read(text: str) -> None:
    """No text is too odd, every counted line exists, every name is a name."""
    found = parse(text)
    ends = text.count("\0") if found.form is Form.ENV_0 else text.count("\n")
    assert all(1 <= number <= ends + text.count("\r") + 1 for number in found.skipped)
    assert list(found.skipped) == sorted(set(found.skipped))
    assert all(name.isidentifier() and name.isascii() for name in found.variables)


def test_read_takes_files_and_pipes(tmp_path: Path) -> None:
    """With a byte order mark too, up to 1 MiB to the byte."""
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=1\n")
    assert dict(read(str(file)).variables) == {"A": "1"}
    file.write_bytes(b"A=" + b"x" * (MAX_BYTES - 2))
    assert len(read(str(file)).variables["A"]) == MAX_BYTES - 2
    ours, theirs = os.pipe()
    with open(theirs, "wb") as pipe:
        pipe.write(b"A=2\n")
    try:
        assert dict(read(f"/dev/fd/{ours}").variables) == {"A": "2"}
    finally:
        os.close(ours)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A=" + b"x" * (MAX_BYTES - 1), "larger than 1 MiB"),
        (b"A=secret\xff", "not UTF-8"),
        ("A=secret".encode("utf-16"), "not UTF-8"),
        (None, "no such file"),
    ],
)
def test_read_refuses(tmp_path: Path, content: bytes | None, said: str) -> None:
    """In one line, which tells nothing of what is in it."""
    file = tmp_path / "env"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read(str(file))
    text = str(caught.value)
    assert said in text and "secret" not in text and "\n" not in text
    with pytest.raises(Unreadable, match="is a directory"):
        read(str(tmp_path))
    with pytest.raises(Unreadable, match="cannot be read: File name too long"):
        read("x" * 5000)


def test_read_without_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon may have none."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(Unreadable, match="no such file"):
        read("-")


def test_read_stops_at_the_limit() -> None:
    """A pipe that never ends is not read to its end."""
    with subprocess.Popen(["yes", "A=1"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(Unreadable, match="larger than 1 MiB"):
            read(f"/dev/fd/{endless.stdout.fileno()}")


@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_more_lines_than_any_environment_has_are_not_read(end: str) -> None:
    """Reading them would take minutes."""
    assert parse(f"A=1{end}" * MAX_LINES).variables["A"]
    with pytest.raises(Unreadable, match="more than 5000 lines"):
        parse(f"A=1{end}" * (MAX_LINES + 1))
