"""gunicorn's configuration for a checkout: ``gunicorn -c gunicorn.conf.py``.

All of it lives in the package, where an installed relay finds it too. One thing is
said again here because it is the one that matters: one worker. The registry is in
that worker's memory, and a phone that reached another one would be told that its
binary is not connected. docs/architecture.md has the whole story.
"""

from relay_app.gunicorn_conf import *  # noqa: F403

workers = 1
