"""Events: names, levels, allowed keys, and nothing that a peer chose in any of them.

Most of this is a test over the source. ``Source`` walks a module and names every place
that could bring to the log what has not been looked at: an event's value that comes from
somewhere new, a print, a logger, a text that is put together from what a peer sent. A
new place is entered in the tables below by hand, where it is seen.
"""

import ast
import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_app.core import events
from relay_app.core.folding import Fold

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "relay_app"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")

ALL = {
    name: thing
    for name, thing in vars(events).items()
    if isinstance(thing, type)
    and issubclass(thing, events.Event)
    and thing is not events.Event
}

OPERATORS = {
    "allowlist.kept",
    "allowlist.read",
    "instance.finding",
    "instance.lock",
    "instance.platform",
    "instance.refused",
    "process.root",
    "server.draining",
    "server.started",
    "server.stopped",
    "setting.reduced",
    "setting.unknown",
}
"""Events that nobody outside can cause: only these are not folded."""

VALUES: dict[str, set[str]] = {
    "code": {"InstanceRefused.codes[0]", "LOOKS[seen]", "finding.code"},
    "conn_id": {"binary.label", "leg.label", "self.label"},
    "detail": {
        "AS_ROOT",
        "AllowlistFault.fault",
        "InstanceRefused.message.splitlines()[1]",
        "finding.seen",
        "gevent.get_hub().threadpool.apply(held.look).value",
        "lock.Look.INTACT.value",
        "seen.value",
        "sentence",
    },
    "device_name": {"peer.device_name"},
    "error": {"kind.__name__", "type(exc).__name__"},
    "guard": {"self.hub.verdict.level.name"},
    "instance": {"_plain(here.instance)"},
    "instance_id": {"self.hub.instance_id"},
    "leg": {"leg", "leg.name"},
    "listen": {"', '.join(listen)"},
    "peer": {
        "peer or 'unix'",
        "peer.address",
        "policy.client_address(peer, forwarded, hub.config.trusted_proxies)",
    },
    "platform": {"platforms.detect(os.environ).name"},
    "reason": {
        "Admission.NOT_ALLOWED.value",
        "MalformedEnvelope.fault",
        "admission.value",
        "errno.errorcode.get(OSError.errno or 0, 'unknown')",
        "leg.close_reason",
    },
    "revision": {"_plain(here.revision)"},
    "server_id": {
        "binary.short_server_id",
        "leg.short_server_id",
        "log.short_id(server_id)",
    },
    "traceback": {"_trail(exc.__traceback__)", "_trail(trail)"},
    "verdict": {"finding.level.name"},
    "version": {"peer.version", "self.hub.version"},
    "where": {"where"},
}
"""Where a text under each key may come from, beside a constant. A name that is bound to
an exception stands for its class, one that is assigned to for what is assigned. Numbers
are numbers by the type check, and tell nothing."""

NUMBERS = {"bool", "float", "int"}

SOURCES = {"binary.source", "leg.source", "self.source", "short", "source"}
"""Who caused an event, as admission counts; in two events the server-id, in short."""

WORDS: dict[str, set[str]] = {
    "AllowlistFault": {"MAX_BYTES", "OSError.strerror", "number"},
    "MalformedEnvelope": {"str(json_text.NotJson)"},
    "NotJson": set(),
}
"""Faults whose words reach the log: what they are made of beside constants."""

CLOSES = {"close_with", "_leave_open"}
"""Methods whose second argument becomes the ``reason`` of ``connection.closed``."""

TO_PEOPLE = {"banner", "cli", "client", "preflight", "report"}
"""Modules that talk to the one who called them and serve nobody."""

PRINTED = {
    "(ConfigError, InstanceRefused)",
    "ConfigError",
    "ConfigError(faults)",
    "InstanceRefused",
    "_judge(server, ()).message()",
    "_printable(line)",
    "banner(self.hub.config, self.hub, listen)",
    "guard.judge(Facts(workers=cfg.workers, workers_from=origin)).message()",
    "verdict.message()",
}
"""What else may be printed: why a start was refused, and the banner."""

LOGGING = {"core.events", "client.wire", "log"}
"""Users of the ``logging`` module, the second one to silence a library."""

BARE = ("logging.", "os.write", "traceback.print", "warnings.")
"""What writes to standard error by itself."""

LOGGED = {"name", "why"}
"""What may be given to gunicorn's logger beside constants."""

PEERS_WORDS = re.compile(
    r"payload|message|frame|header|token|agent|query|target|requestline|environ|early"
    r"|device|conn_id|server_id|close_reason|push|received|\bdata\b|\bbody\b|\bpath\b"
)
TEXTS = {
    "f'?{parts.query}'",
    "f'{environ[key]},{text}'",
    "f'{self.command} {target} {self.request_version}'",
    "f'{self.name}-{self.short_server_id}-{conn_id[-8:]}'",
    "f'{self.name}-{self.short_server_id}-{suffix}'",
    "f'client-{server_id}-{draw()}'",
}
"""Texts that are made of a peer's words: of the request head, and of the wire's conn_id;
and the log's own short conn_id."""

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Source:
    """A module whose ways to the log are looked at.

    Args:
        name: As in ``transport.hub``.
        text: Its source.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.tree = ast.parse(text)
        self.above = {
            child: parent
            for parent in ast.walk(self.tree)
            for child in ast.iter_child_nodes(parent)
        }
        self.found: list[str] = []
        self.made: set[ast.AST] = set()

    def faults(self) -> list[str]:
        """Name every place that has not been looked at."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        for call in calls:
            self._look_at_emit(call)
            self._look_at_words(call)
            self._look_at_output(call)
        for node in ast.walk(self.tree):
            self._look_at_import(node)
            self._look_at_reference(node)
            self._look_at_text(node)
            self._look_at_close_reason(node)
        return self.found

    def fault(self, node: ast.AST, what: str) -> None:
        """Take note of one."""
        self.found.append(f"{self.name}:{getattr(node, 'lineno', 0)} {what}")

    # -- where a value comes from ---------------------------------------------

    def function_of(self, node: ast.AST) -> ast.AST:
        """The function around a node, else the module."""
        while not isinstance(node, Function | ast.Module):
            node = self.above[node]
        return node

    def origins(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> set[str]:
        """Every expression that a value may come from, without constants."""
        if isinstance(node, ast.Constant):
            return set()
        if isinstance(node, ast.IfExp):
            return self.origins(node.body, seen) | self.origins(node.orelse, seen)
        root: ast.expr = node
        while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
            root = root.func if isinstance(root, ast.Call) else root.value
        if not isinstance(root, ast.Name) or root.id in seen:
            return {self.shown(node)}
        values = self.assigned(root)
        found = set()
        if not values or self.is_bound_otherwise(root, values):
            found.add(self.shown(node))
        rest = ast.unparse(node)[len(root.id) :]
        for value in values:
            found |= {o + rest for o in self.origins(value, seen | {root.id})}
        return found

    def is_bound_otherwise(self, name: ast.Name, values: list[ast.expr]) -> bool:
        """Whether a name may hold something beside what is assigned to it."""
        function = self.function_of(name)
        bound = 0
        for node in ast.walk(function):
            if isinstance(node, ast.arg) and node.arg == name.id:
                return True
            if isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler):
                bound += node.name == name.id
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound += node.id == name.id
        return bound > len(values)

    def assigned(self, name: ast.Name) -> list[ast.expr]:
        """What a name stands for in its function, where it is assigned at all."""
        values = []
        for node in ast.walk(self.function_of(name)):
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign):
                if node.value is None:
                    continue
                targets, value = [node.target], node.value
            else:
                continue
            if any(isinstance(t, ast.Name) and t.id == name.id for t in targets):
                values.append(value)
        return values

    def shown(self, node: ast.expr) -> str:
        """An expression, with the classes of exceptions for their names."""
        text = ast.unparse(node)
        for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            kind = self.caught_as(node, name)
            if kind:
                text = re.sub(rf"(?<![\w.]){name}\b", kind, text)
        return text

    def caught_as(self, node: ast.AST, name: str) -> str:
        """The class of an exception that a name is bound to, where it is."""
        while not isinstance(node, ast.Module):
            if isinstance(node, ast.ExceptHandler) and node.name == name and node.type:
                return ast.unparse(node.type)
            if isinstance(node, Function):
                for arg in [*node.args.args, *node.args.kwonlyargs]:
                    if arg.arg == name and arg.annotation is not None:
                        kind = ast.unparse(arg.annotation)
                        return kind if kind.endswith("Error") else ""
            node = self.above[node]
        return ""

    # -- events ---------------------------------------------------------------

    def _look_at_emit(self, call: ast.Call) -> None:
        own = self.name == "log"
        if ast.unparse(call.func) == ("error" if own else "log.error"):
            where = call.args[0] if call.args else call
            is_param = self.name == "transport.connection" and "where" in {
                arg.arg
                for function in [self.function_of(call)]
                if isinstance(function, ast.FunctionDef)
                for arg in function.args.args
            }
            if not isinstance(where, ast.Constant) and not (
                is_param and ast.unparse(where) == "where"
            ):
                self.fault(call, "log.error with a place that is no constant")
        if ast.unparse(call.func).endswith("._run_hook") and not isinstance(
            call.args[0], ast.Constant
        ):
            self.fault(call, "a hook's place that is no constant")
        if ast.unparse(call.func) != ("emit" if own else "log.emit"):
            return
        made = self.made_for(call)
        if not made:
            self.fault(call, "an event that is not made in this function")
        for event in made:
            kinds = self.kinds(event.func)
            if not kinds:
                self.fault(call, "an event of an unknown class")
            for kind in kinds:
                self._look_at_values(event, kind)
                self._look_at_source(call, kind)

    def made_for(self, emit: ast.Call) -> list[ast.Call]:
        """The calls that make what is emitted, if all of them are in sight."""
        event = emit.args[0] if emit.args else None
        values = [event]
        if isinstance(event, ast.Name):
            made = self.assigned(event)
            values = [] if self.is_bound_otherwise(event, made) else [*made]
        calls = [value for value in values if isinstance(value, ast.Call)]
        return calls if len(calls) == len(values) else []

    def kinds(self, func: ast.expr) -> list[type[events.Event]]:
        """The classes that an event may have."""
        values = [func]
        if isinstance(func, ast.Name):
            values = self.assigned(func)
        found = []
        for value in values:
            parts = (
                [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            )
            for part in parts:
                name = ast.unparse(part)
                if not name.startswith("events.") or name[7:] not in ALL:
                    return []
                self.made.add(part)
                found.append(ALL[name[7:]])
        return found

    def _look_at_values(self, event: ast.Call, kind: type[events.Event]) -> None:
        names = {field.name: field.type for field in dataclasses.fields(kind)}
        given: list[tuple[str | None, ast.expr]] = [
            *zip(names, event.args, strict=False),
            *[(keyword.arg, keyword.value) for keyword in event.keywords],
        ]
        for key, value in given:
            if key is None or isinstance(value, ast.Starred):
                self.fault(value, f"{kind.name}: keys that are not written out")
                continue
            if key not in names:
                self.fault(value, f"{kind.name} has no {key}")
            if names.get(key) in NUMBERS:
                continue
            for origin in self.origins(value) - VALUES.get(key, set()):
                self.fault(value, f"{kind.name}: {key} from {origin}")

    def _look_at_source(self, call: ast.Call, kind: type[events.Event]) -> None:
        given = [k.value for k in call.keywords if k.arg == "source"] + call.args[1:]
        needs = kind.fold is not None and kind.fold.per_source
        if needs and not given:
            self.fault(call, f"{kind.name} without its source")
        if not needs and given:
            self.fault(call, f"{kind.name} has no source")
        for source in given:
            if ast.unparse(source) not in SOURCES:
                self.fault(call, f"{kind.name} from {ast.unparse(source)}")

    def _look_at_reference(self, node: ast.AST) -> None:
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            return
        if node.value.id == "events" and node.attr in ALL and node not in self.made:
            self.fault(node, f"{node.attr} beside log.emit")
        if node.value.id == "log" and node.attr.startswith("_"):
            self.fault(node, f"log.{node.attr} is its own")

    def _look_at_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            names = {(alias.name, alias.asname) for alias in node.names}
            module = node.module or ""
            if module in ("relay_app.core.events", "relay_app.log"):
                self.fault(node, f"a name of {module} without the module's")
            if module in ("logging", "warnings", "traceback"):
                self.fault(node, f"a name of {module} without the module's")
            for name in ("events", "log"):
                if any(n == name and asname for n, asname in names):
                    self.fault(node, f"{name} under another name")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("relay_app.core.events", "relay_app.log"):
                    self.fault(node, f"{alias.name} under another name")
                if alias.name.partition(".")[0] == "logging" and (
                    self.name not in LOGGING
                ):
                    self.fault(node, "logging")

    # -- words of faults --------------------------------------------------------

    def _look_at_words(self, call: ast.Call) -> None:
        name = ast.unparse(call.func).rpartition(".")[2]
        if self.name.startswith("client."):
            return
        if name in CLOSES and len(call.args) > 1:
            function = self.function_of(call)
            passed_on = (
                isinstance(function, ast.FunctionDef) and function.name in CLOSES
            )
            for origin in self.origins(call.args[1]) - {"close.reason"}:
                if not (passed_on and origin == "reason"):
                    self.fault(call, f"a close reason from {origin}")
        if name not in WORDS:
            return
        for word in call.args:
            parts: list[ast.expr] = [word]
            if isinstance(word, ast.JoinedStr):
                parts = [
                    v.value for v in word.values if isinstance(v, ast.FormattedValue)
                ]
            for part in parts:
                for origin in self.origins(part) - WORDS[name]:
                    self.fault(call, f"{name} with words from {origin}")

    def _look_at_close_reason(self, node: ast.AST) -> None:
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            return
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr == "close_reason":
                function = self.function_of(node)
                passed_on = (
                    isinstance(function, ast.FunctionDef) and function.name in CLOSES
                )
                value = node.value
                if isinstance(value, ast.Constant):
                    continue
                if not (passed_on and value and ast.unparse(value) == "reason"):
                    self.fault(node, "a close reason from elsewhere")

    # -- other ways out -----------------------------------------------------------

    def _look_at_output(self, call: ast.Call) -> None:
        if self.name.partition(".")[0] in TO_PEOPLE:
            return
        name = ast.unparse(call.func)
        owner, _, method = name.rpartition(".")
        if name in ("print", "click.echo", "click.secho"):
            for value in call.args:
                for origin in self.origins(value) - PRINTED:
                    self.fault(call, f"prints {origin}")
        elif (self.name != "log" and name.startswith(BARE)) or (
            method.startswith("write") and re.search("std|errors|error_log", owner)
        ):
            self.fault(call, name)
        elif method in (
            "critical",
            "debug",
            "exception",
            "info",
            "log",
            "log_exception",
            "warning",
        ) or (method == "error" and owner != "log"):
            for value in call.args:
                for origin in self.origins(value) - LOGGED:
                    self.fault(call, f"{name} of {origin}")

    def _look_at_text(self, node: ast.AST) -> None:
        if not self.name.startswith(("transport.", "web.", "core.registry")):
            return
        if isinstance(node, ast.JoinedStr):
            if ast.unparse(node) in TEXTS:
                return
            parts = [v.value for v in node.values if isinstance(v, ast.FormattedValue)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".format"):
            parts = [*node.args, *[keyword.value for keyword in node.keywords]]
        elif (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Mod)
            and isinstance(node.left, ast.Constant)
            and isinstance(node.left.value, str)
        ):
            parts = [node.right]
        else:
            return
        for part in parts:
            if PEERS_WORDS.search(ast.unparse(part)):
                self.fault(node, f"a text with {ast.unparse(part)}")


def name_of(path: Path) -> str:
    """``transport.hub`` for ``relay_app/transport/hub.py``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_source_brings_nothing_new_to_the_log(path: Path) -> None:
    """Every way to the log is in the tables above."""
    assert Source(name_of(path), path.read_text()).faults() == []


PLANTED = [
    # An event's value from a peer.
    "log.emit(events.FrameDropped(conn_id=self.label, reason=payload.decode()), self.source)",
    "log.emit(events.FrameDropped(conn_id=conn_id, reason='x'), source=self.source)",
    "log.emit(events.FrameDropped(self.label, str(payload)), source=self.source)",
    "log.emit(events.FrameDropped(self.label, f'bad {payload!r}'), source=self.source)",
    "log.emit(events.FrameDropped(self.label, 'bad ' + text), source=self.source)",
    "log.emit(events.FrameDropped(self.label, 'bad %s' % text), source=self.source)",
    "reason = payload.decode()\nlog.emit(events.AcceptPaused(reason=reason))",
    "reason = 'x'\nreason += fault.text\nlog.emit(events.AcceptPaused(reason=reason))",
    "reason = 'x' if fine else str(fields)\nlog.emit(events.AcceptPaused(reason=reason))",
    "reason, code = take(payload)\nif not reason:\n reason = 'x'\n"
    "log.emit(events.AcceptPaused(reason=reason))",
    "for reason in found:\n reason = reason or 'x'\n"
    " log.emit(events.AcceptPaused(reason=reason))",
    "def g(reason):\n if not reason:\n  reason = 'x'\n"
    " log.emit(events.AcceptPaused(reason=reason))",
    "first = payload\nreason = first\nlog.emit(events.AcceptPaused(reason=reason))",
    "if (reason := str(fields)):\n log.emit(events.AcceptPaused(reason=reason))",
    "try: f()\nexcept ValueError as fault:\n log.emit(events.AllowlistKept(detail=fault.fault))",
    "log.emit(events.ClaimProbed(server_id=peer.server_id), source=leg.source)",
    "log.emit(events.ClaimProbed(server_id=server_id), source=leg.source)",
    "log.emit(events.ConnectionClosed(**totals), source=leg.source)",
    "log.emit(events.ConnectionClosed(*totals), source=leg.source)",
    "log.emit(events.AcceptPaused(reason='x', user_agent='y'))",
    # Ways around the checks.
    "event = events.AcceptPaused(reason=text)\nlog.emit(event)",
    "kind = events.AcceptPaused\nkind(reason=text)",
    "kind = pick()\nlog.emit(kind(reason='x'))",
    "log.emit(found.event)",
    "for event in found:\n event = event or events.AcceptPaused(reason='x')\n"
    " log.emit(event)",
    "log.emit(dataclasses.replace(event, reason=text))",
    "log._write(sink, 20, 'x.y', {'z': text})",
    "from relay_app.core.events import FrameDropped",
    "from relay_app.core import events as e",
    "import relay_app.core.events as e",
    "from relay_app.log import emit",
    "from relay_app import log as quiet",
    # Folding.
    "log.emit(events.FrameDropped(self.label, 'x'))",
    "log.emit(events.FrameDropped(self.label, 'x'), source=self.label)",
    "log.emit(events.AcceptPaused(reason='EMFILE'), source=leg.source)",
    # Words that end up in an event.
    "raise MalformedEnvelope(message.decode())",
    "raise errors.MalformedEnvelope(f'odd {message!r}')",
    "raise MalformedEnvelope(str(error))",
    "raise AllowlistFault(f'line {number} is odd: {line}')",
    "raise json_text.NotJson(str(text))",
    "self.close_with(code, payload[2:].decode())",
    "self._leave_open(code, reason, drop=True, answer=b'')",
    "self.close_reason = reason",
    "log.error(f'route {path}', exc)",
    "self._run_hook(str(payload), self.on_gone)",
    # Other ways out.
    "print(payload)",
    "print('got', environ)",
    "print(f'{text}', file=sys.stderr)",
    "sys.stderr.write(text)",
    "environ['wsgi.errors'].write(text)",
    "self.server.error_log.write(text)",
    "os.write(2, data)",
    "traceback.print_exc()",
    "warnings.warn(text)",
    "import logging",
    "from logging import getLogger",
    "current_app.logger.warning('odd %s', text)",
    "self.log.exception(text)",
    "server.log.info(f'{text}')",
    "detail = f'closed with {close_reason}'",
    'detail = f\'{fields.one("user-agent")} said {environ["QUERY_STRING"]}\'',
    "detail = 'token %s' % token",
    "detail = 'asked for {}'.format(self.requestline)",
]

FINE = [
    "log.emit(events.FrameDropped(conn_id=self.label, reason='x'), source=self.source)",
    "reason = 'a' if fine else 'b'\nlog.emit(events.AcceptPaused(reason=reason))",
    "try: f()\nexcept MalformedEnvelope as fault:\n"
    " log.emit(events.FrameDropped(self.label, fault.fault), source=self.source)",
    "found = events.AcceptPaused(reason='EMFILE')\nlog.emit(found)",
    "kind = events.GuardFinding if x else events.GuardWarning\n"
    "log.emit(kind(code='a', verdict='b', detail='c'))",
    "raise MalformedEnvelope('no conn_id')",
    "raise AllowlistFault(f'line {number} is odd')",
    "self.close_with(close.code, close.reason)",
    "log.error('route', exc)",
    "print(_printable(line), file=sys.stderr)",
    "server.log.warning('%s is ignored: %s', name, why)",
]


@pytest.mark.parametrize("text", PLANTED)
def test_checker_sees_what_was_planted(text: str) -> None:
    """It would fail for a module with any of these, in a function as well."""
    inside = "def f(self):\n" + "\n".join(f" {line}" for line in text.split("\n"))
    assert Source("transport.x", text).faults()
    assert Source("transport.x", inside).faults()


@pytest.mark.parametrize("text", FINE)
def test_checker_lets_through_what_is_looked_at(text: str) -> None:
    """Else the tests above would show nothing."""
    assert Source("transport.x", text).faults() == []


def test_checker_sees_every_event() -> None:
    """Each class is emitted somewhere, and found there; no entry of a table is a relic."""
    kinds: set[str] = set()
    used: dict[str, set[str]] = {key: set() for key in VALUES}
    for path in MODULES:
        source = Source(name_of(path), path.read_text())
        source.faults()
        for part in source.made:
            kinds.add(ast.unparse(part).removeprefix("events."))
        for call in ast.walk(source.tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in (
                "emit",
                "log.emit",
            ):
                for event in source.made_for(call):
                    for key, value in texts_of(source, event):
                        used[key] |= source.origins(value)
    assert kinds == set(ALL)
    assert used == VALUES


def texts_of(source: Source, event: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """What an event is made of, by key, but for the numbers."""
    (kind, *_) = source.kinds(event.func)
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    given = [*zip(fields, event.args, strict=False)]
    given += [(str(keyword.arg), keyword.value) for keyword in event.keywords]
    for key, value in given:
        if fields[key] not in NUMBERS:
            yield key, value


def constants(name: str) -> set[str]:
    """Every constant that a class of errors is raised with."""
    found = set()
    for path in MODULES:
        if name_of(path).startswith("client."):
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and ast.unparse(call.func).rpartition(".")[2] == name
                and call.args
                and isinstance(call.args[0], ast.Constant)
            ):
                found.add(str(call.args[0].value))
    return found


def told(heading: str) -> str:
    """A part of docs/operations.md, up to the next heading or paragraph that introduces."""
    text = (ROOT / "docs/operations.md").read_text()
    return re.split(r"\n#+ |\n\w.*:\n", text.partition(heading)[2])[0]


def test_reasons_of_dropped_frames_are_those_of_the_table() -> None:
    """Each has its words in the documentation, and no other one is there."""
    raised = constants("MalformedEnvelope") | constants("NotJson") - {
        "too many members"
    }
    ours = set()
    for path in MODULES:
        for call in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(call, ast.Call)
                and ast.unparse(call.func) == "events.FrameDropped"
            ):
                reason = next(k.value for k in call.keywords if k.arg == "reason")
                if isinstance(reason, ast.Constant):
                    ours.add(str(reason.value))
    rows = re.findall(
        r"^\| (`.+`) \|", told("Reasons of `frame.dropped`:"), re.MULTILINE
    )
    listed = set(re.findall(r"`([^`]+)`", " ".join(rows)))
    assert listed == raised | ours


# The classes themselves


@pytest.mark.parametrize("event", ALL.values())
def test_event_has_a_dotted_name_a_level_and_allowed_fields(
    event: type[events.Event],
) -> None:
    """A new field has to be put on the list by hand, where it is seen."""
    assert event.name.count(".") == 1
    assert event.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert {field.name for field in dataclasses.fields(event)} <= events.KEYS


def test_keys_are_those_of_the_events() -> None:
    """A key that no event has any more leaves the list."""
    used = {field.name for event in ALL.values() for field in dataclasses.fields(event)}
    assert used == events.KEYS
    texts = {
        field.name
        for event in ALL.values()
        for field in dataclasses.fields(event)
        if field.type not in NUMBERS
    }
    assert texts == set(VALUES)


def test_only_text_about_itself_is_a_peers() -> None:
    """Of all keys two are a peer's own words."""
    own = {key for key, values in VALUES.items() if "peer." in str(values)}
    assert own - {"peer"} == {"device_name", "version"}


def test_event_is_frozen() -> None:
    """What happened does not change."""
    event = events.ClaimProbed(server_id="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.server_id = "y"  # type: ignore[misc]


# Folding


def test_every_event_that_strangers_cause_is_folded() -> None:
    """A new event is folded, or entered by hand among those of the operators."""
    assert {event.name for event in ALL.values() if event.fold is None} == OPERATORS


@pytest.mark.parametrize(
    "event", [event for event in ALL.values() if event.fold], ids=lambda e: e.name
)
def test_fold_names_fields_of_its_event(event: type[events.Event]) -> None:
    """What has to be alike is from a small set; what is added up is a number."""
    fold = event.fold
    assert isinstance(fold, Fold)
    assert fold.burst >= 1
    types = {field.name: field.type for field in dataclasses.fields(event)}
    assert set(fold.alike) <= set(types) & {"error", "leg", "reason", "where"}
    assert {types[name] for name in fold.sums} <= NUMBERS - {"bool"}


def test_folds_are_those_of_the_table() -> None:
    """docs/operations.md says when which event is folded, and what is added up."""
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in told("### Floods").splitlines()
        if row.startswith("|") and not row.startswith("| ---")
    ]
    listed = {}
    for burst, alike, sums, names in rows[1:]:
        for name in re.findall(r"`([\w.]+)`", names):
            listed[name] = Fold(
                burst=int(burst),
                per_source="source" in alike,
                alike=tuple(re.findall(r"`(\w+)`", alike)),
                sums=tuple(re.findall(r"`(\w+)`", sums)),
            )
    assert listed == {event.name: event.fold for event in ALL.values() if event.fold}
