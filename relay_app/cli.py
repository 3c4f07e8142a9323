"""The command ``pyrycode-relay``: parse, call, print.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the start is refused (settings or
the single-instance guard). ``serve`` runs gunicorn in this process and exits as it
does.

The process of ``serve`` becomes gunicorn's master, so nothing here imports at the
top what only another command needs, and nothing at all is patched by gevent.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from relay_app import env_file, facts, preflight, report
from relay_app.core import guard, platforms
from relay_app.core.config import PREFIX, Config
from relay_app.core.errors import ConfigError
from relay_app.core.guard import Level
from relay_app.core.guard_codes import CODES
from relay_app.core.platforms import PLATFORMS
from relay_app.env_file import EnvFile
from relay_app.version import version
from relay_app.web.auth import MAX_DEVICE_NAME_BYTES, MAX_TOKEN_BYTES, server_id_fault

Callback = Callable[[click.Context, click.Parameter, Any], Any]


class _Commands(click.Group):
    """A group whose usage errors are one line, without the usage above it."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # The name of a variable need not be UTF-8, nor a locale know more than ASCII.
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as fault:
        if fault.ctx is not None:
            text = f"{fault.format_message()} (see {fault.ctx.command_path} --help)"
            raise click.UsageError(text) from None
        raise


def _say(text: str) -> None:
    click.echo(text, err=True, color=_colour())


def _out(line: bytes) -> None:
    """Write one line of output; what a terminal would obey is escaped."""
    if sys.stdout.isatty():
        from relay_app.client.wire import for_terminal as fit
    else:
        from relay_app.client.wire import one_line as fit
    sys.stdout.buffer.write(fit(line) + b"\n")
    sys.stdout.buffer.flush()


def _colour() -> bool | None:
    """Tell click: no colours when the person does not want them, else as it sees fit."""
    return False if os.environ.get("NO_COLOR") else None


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"pyrycode-relay {version()}")
        ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """The relay through which phones reach a binary that cannot be dialled.

    \b
    Example, the whole thing in a few seconds:
      pyrycode-relay demo
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


# serve and check


def _check_listen(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> str | None:
    if value is None:
        return None
    try:
        Config.from_environ({PREFIX + "LISTEN": value})
    except ConfigError as fault:
        raise click.BadParameter(fault.faults[0].partition(": ")[2]) from None
    if "PORT" in os.environ:
        raise click.BadParameter(
            "PORT is set and wins; unset it, or leave --listen out"
        )
    return value


@main.command()
@click.option(
    "--listen",
    metavar="ADDRESS",
    callback=_check_listen,
    help="Where to listen: host:port, [IPv6]:port or fd://N.  [default: 127.0.0.1:8080, or what "
    "PORT or PYRYCODE_RELAY_LISTEN says]",
)
def serve(listen: str | None) -> None:
    """Run the relay, until SIGTERM or Ctrl-C.

    Settings come from the environment. Exits with 78, before anything listens, when
    one cannot be used or when this would not be the only instance.

    \b
    Example:
      pyrycode-relay serve --listen 127.0.0.1:8080
    """
    if listen is not None:
        os.environ[PREFIX + "LISTEN"] = listen
    try:
        Config.from_environ(os.environ)
        application = preflight.gunicorn()
        # What gunicorn's --env says becomes a part of the environment.
        environ = {**os.environ, **application.cfg.env}
        config = Config.from_environ(environ)
    except ConfigError as fault:
        _say(str(fault))
        sys.exit(guard.EXIT_REFUSED)
    # Taken here, the lock of this relay stays with this process, gunicorn's master.
    verdict = guard.judge(
        facts.gather(
            config,
            environ,
            workers=application.cfg.workers,
            workers_from=guard.workers_from((), environ, application.cfg.workers),
            addresses=application.cfg.address,
        )
    )
    if verdict.level is Level.REFUSE:
        _say(verdict.message())
        sys.exit(guard.EXIT_REFUSED)
    application.run()


_PLATFORM_NAMES = [row.name for row in PLATFORMS]


def _read_env_file(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> EnvFile | None:
    if value is None:
        return None
    try:
        return env_file.read(value)
    except env_file.Unreadable as fault:
        raise click.BadParameter(str(fault)) from None


def _check_word(words: Sequence[str]) -> Callback:
    def callback(
        ctx: click.Context, param: click.Parameter, value: str | None
    ) -> str | None:
        if value is None:
            return None
        for word in words:
            if value.casefold() == word.casefold():
                return word
        raise click.BadParameter(f"must be one of {', '.join(words)}")

    return callback


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--env-file",
    "file",
    metavar="FILE",
    callback=_read_env_file,
    help="Judge the environment in a .env file or in the output of env or env -0, and "
    "nothing else; - is standard input.",
)
@click.option(
    "--platform",
    "platform_name",
    metavar="NAME",
    callback=_check_word(_PLATFORM_NAMES),
    help="Judge as if deployed there: "
    f"{', '.join(_PLATFORM_NAMES)}. What it sets is added where it is absent.",
)
@click.option(
    "--explain",
    metavar="CODE",
    callback=_check_word(list(CODES)),
    help="Explain one code of the guard instead, for example SI-401.",
)
def check(
    as_json: bool,
    file: EnvFile | None,
    platform_name: str | None,
    explain: str | None,
) -> None:
    """Judge settings and single-instance guard; start nothing.

    Exits with 0 when the relay would start, with 78 when it would refuse. Values of
    variables are never shown. With --env-file or --platform only variables are
    judged, and this host is not looked at.

    \b
    Examples:
      PYRYCODE_RELAY_PRODUCTION=1 pyrycode-relay check
      env -0 | pyrycode-relay check --env-file - --platform fly
      pyrycode-relay check --explain SI-401
    """
    environ = dict(os.environ if file is None else file.variables)
    for line in report.doubts(file) if file is not None else ():
        _say(line)
    if platform_name is not None:
        row = next(row for row in PLATFORMS if row.name == platform_name)
        environ = {**dict(row.example), **environ}
        here = platforms.detect(environ)
        if here is not row:
            known_as = here.name if here else "no platform"
            _say(f"warning: the variables are those of {known_as} all the same")
    width = shutil.get_terminal_size().columns
    if explain is not None:
        code, platform = CODES[explain], platforms.detect(environ)
        if as_json:
            click.echo(json.dumps(report.explanation(code, platform), indent=2))
        else:
            click.echo("\n".join(report.explanation_lines(code, platform, width)))
        return
    elsewhere = file is not None or platform_name is not None
    judged = preflight.judge(environ, elsewhere)
    if as_json:
        click.echo(json.dumps(report.as_dict(judged), indent=2))
    else:
        click.echo("\n".join(report.as_lines(judged, width)), color=_colour())
    sys.exit(judged.exit_code)


# binary, phone and demo


def _check_server_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    fault = server_id_fault(value)
    if fault is not None:
        raise click.BadParameter(fault)
    return value


def _check_url(path: str) -> Callback:
    def callback(ctx: click.Context, param: click.Parameter, value: str) -> str:
        from relay_app.client import wire

        try:
            return wire.endpoint(value, path)
        except wire.BadUrl as fault:
            raise click.BadParameter(str(fault)) from None

    return callback


def _check_header(low: int, high: int) -> Callback:
    def callback(
        ctx: click.Context, param: click.Parameter, value: str | None
    ) -> str | None:
        if value is None:
            return None
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            size = -1
        if not low <= size <= high or not value.isprintable() or value != value.strip():
            raise click.BadParameter(
                f"must be {low} to {high} bytes of printable text without spaces round it"
            )
        return value

    return callback


def _check_command(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[str]:
    if value is None:
        return []
    try:
        words = shlex.split(value)
    except ValueError:
        raise click.BadParameter("a quote in it is not closed") from None
    if not words:
        raise click.BadParameter("must name a program")
    if shutil.which(words[0]) is None:
        raise click.BadParameter("its program was not found, or may not be run")
    return words


def _server_id_option() -> Callable[[Any], Any]:
    return click.option(
        "--server-id",
        required=True,
        metavar="ID",
        callback=_check_server_id,
        help="What the binary claims and its phones name.",
    )


def _url_option(path: str) -> Callable[[Any], Any]:
    return click.option(
        "--url",
        default="ws://127.0.0.1:8080",
        show_default=True,
        metavar="URL",
        callback=_check_url(path),
        help="The relay: ws://, wss://, http:// or https://, perhaps with a path.",
    )


@main.command()
@_server_id_option()
@_url_option("/v1/server")
@click.option("--echo", is_flag=True, help="Send each frame back to its phone.")
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    callback=_check_command,
    help="Start this program for each phone; no shell.",
)
@click.option("--backoff-scale", default=1.0, hidden=True, type=click.FloatRange(min=0))
def binary(
    server_id: str, url: str, echo: bool, command: list[str], backoff_scale: float
) -> None:
    """Be a binary: claim a server-id and show what phones send.

    Connects again when the connection is lost; ends with Ctrl-C. With --exec each
    phone has a child process: a frame is a line of JSON on its standard input, and
    each line of JSON on its standard output is a frame to that phone. The phone is
    closed when the child ends, and the other way round.

    \b
    Examples:
      pyrycode-relay binary --server-id demo --echo
      pyrycode-relay binary --server-id demo --url wss://relay.example --exec 'python3 agent.py'
    """
    if echo and command:
        raise click.UsageError("--echo and --exec exclude each other; choose one")
    from relay_app.client import session
    from relay_app.client.backoff import BackOff
    from relay_app.client.binary import Answers, Binary, Echo, Silence
    from relay_app.client.children import Children

    answers: Answers = (
        Children(command, _say) if command else Echo() if echo else Silence()
    )
    sys.exit(
        session.run(
            Binary(
                url,
                server_id,
                version=version(),
                answers=answers,
                back_off=BackOff(random.random, backoff_scale),
                out=_out,
                say=_say,
                show_frames=not command,
            )
        )
    )


@main.command()
@_server_id_option()
@_url_option("/v1/client")
@click.option(
    "--token",
    default="demo-token",
    metavar="TOKEN",
    callback=_check_header(1, MAX_TOKEN_BYTES),
    help="What the binary would want to see; the relay only looks whether there is one.",
)
@click.option(
    "--device-name",
    metavar="NAME",
    callback=_check_header(1, MAX_DEVICE_NAME_BYTES),
    help="A name for the relay's log.",
)
@click.option(
    "--linger",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, max=86400),
    metavar="SECONDS",
    help="How long to wait for further answers after the end of the input.",
)
def phone(
    server_id: str, url: str, token: str, device_name: str | None, linger: float
) -> None:
    """Be a phone: send each line of standard input, print each frame that comes.

    Each line must be one JSON value; another one is reported and not sent. Exits
    with 0 when all lines were good and the connection ended with 1000.

    \b
    Example:
      echo '{"v":2,"type":"noise_init"}' | pyrycode-relay phone --server-id demo
    """
    from relay_app.client import session
    from relay_app.client.phone import Phone, read_lines

    headers = {"x-pyrycode-server": server_id, "x-pyrycode-token": token}
    if device_name is not None:
        headers["x-pyrycode-device-name"] = device_name
    greeting = "connected; type one JSON value per line, Ctrl-D ends"
    sys.exit(
        session.run(
            Phone(
                url,
                headers,
                version=version(),
                lines=read_lines(0),
                linger_s=linger,
                out=_out,
                say=_say,
                greeting=greeting if os.isatty(0) else "",
            )
        )
    )


@main.command()
def demo() -> None:
    """Start a relay, a binary and two phones here, and show what each sees.

    Takes a few seconds, needs no network, leaves nothing behind.

    \b
    Example:
      pyrycode-relay demo
    """
    from rich.console import Console

    from relay_app.client.demo import Demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the relay as well
    colours = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(color_system=colours, highlight=False)  # type: ignore[arg-type]
    sys.exit(Demo(console, version()).run())
