"""Imports go down only, the core is pure, and every module has its test."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "relay_app"
MODULES = sorted(
    p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py")
)

RANKS = {
    "core": 0,
    "version": 1,
    "process": 1,
    "log": 1,
    "kernel_lock": 1,
    "lock": 1,
    "facts": 1,
    "env_file": 1,
    "report": 1,
    "transport": 2,
    "client": 2,
    "web": 3,
    "banner": 4,
    "app": 5,
    "hooks": 5,
    "gunicorn_conf": 6,
    "preflight": 6,
    "cli": 7,
}
IMPURE = {
    "gevent",
    "geventwebsocket",
    "flask",
    "socket",
    "time",
    "os",
    "gunicorn",
    "websockets",
}
LEAVES = {"errors": {"close_codes"}, "close_codes": set()}
IN_THE_MASTER = {
    "hooks": {"core", "facts", "lock", "log", "process"},
    "facts": {"core", "lock"},
    "lock": {"core", "kernel_lock"},
    "kernel_lock": {"core", "version"},
    "gunicorn_conf": {"hooks", "process"},
    "process": {"core"},
}


def name_of(path: Path) -> str:
    """``transport.hub`` for ``relay_app/transport/hub.py``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {
                node.module,
                *(f"{node.module}.{alias.name}" for alias in node.names),
            }
    return found


def own(path: Path) -> set[str]:
    """The modules of this package that a file imports, without the package's name."""
    known = {name_of(module) for module in MODULES}
    return {name[len("relay_app.") :] for name in imports(path)} & known


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    """Nothing imports from a layer above its own."""
    mine = RANKS[name_of(path).partition(".")[0]]
    for other in own(path):
        assert RANKS[other.partition(".")[0]] <= mine, (
            f"{name_of(path)} imports {other}"
        )


@pytest.mark.parametrize("path", [p for p in MODULES if "core" in p.parts], ids=name_of)
def test_core_is_pure(path: Path) -> None:
    """No gevent, Flask, socket, clock or environment; logging only for its level numbers."""
    roots = {name.partition(".")[0] for name in imports(path)}
    assert not roots & IMPURE
    assert "logging" not in roots or path.stem == "events"
    leaf = LEAVES.get(path.stem)
    assert leaf is None or {name.rpartition(".")[2] for name in own(path)} <= leaf


@pytest.mark.parametrize("name", sorted(IN_THE_MASTER))
def test_master_imports_pure_code_only(name: str) -> None:
    """Hooks run where the standard library is not patched."""
    found = {other.partition(".")[0] for other in own(PACKAGE / f"{name}.py")}
    assert found <= IN_THE_MASTER[name]


def test_only_the_adapter_imports_gevent_websocket() -> None:
    """What it gets wrong is mended in one place."""
    users = {
        name_of(p) for p in MODULES if any("geventwebsocket" in i for i in imports(p))
    }
    assert users == {"transport.handler", "transport.worker"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_test(path: Path) -> None:
    """tests/ mirrors relay_app/."""
    if path.stem == "gunicorn_conf":
        assert (ROOT / "tests/e2e/test_gunicorn.py").exists()  # runs it whole
        return
    partner = ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}"
    assert partner.exists(), f"{partner.relative_to(ROOT)} is missing"


def test_init_files_are_empty() -> None:
    """Nothing happens on import of a package."""
    assert all(not init.read_text() for init in PACKAGE.rglob("__init__.py"))
