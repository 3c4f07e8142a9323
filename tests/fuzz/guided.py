"""The process in which Atheris runs one target: ``python -m tests.fuzz`` starts it."""

from __future__ import annotations

import importlib
import sys

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

INSTRUMENTED = [
    "relay_app.transport.websocket",
    "relay_app.transport.handler",
    "relay_app.core.close_codes",
    "relay_app.core.envelope",
    "relay_app.core.json_text",
    "h11",
]


def main() -> None:
    """Fuzz until the time is over or a promise is broken; never returns."""
    target, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = importlib.import_module(f"tests.fuzz.{target}")
    atheris.Setup([sys.argv[0], *options], module.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
