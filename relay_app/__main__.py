"""``python -m relay_app``: the same as the command ``pyrycode-relay``."""

from relay_app.cli import main

main()
