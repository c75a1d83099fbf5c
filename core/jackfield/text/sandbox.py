"""A jinja2 sandbox for chat templates that can neither reach out nor run away.

Reaching out is what jinja2's immutable sandbox forbids. Running away is bounded here: every
call, filter and loop round counts and looks at the clock now and then, and whatever could build
a huge value in one step (strings, numbers, nested containers) is checked before it is built.
The globals, filters and options are those with which transformers renders chat templates,
without ``lipsum``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from jackfield.text.sandbox_limits import (
    LimitError,
    Weights,
    check_binary,
    check_filter,
    check_method,
    check_result,
)

_LOOK_AT_CLOCK = 64


class Budget:
    """What one rendering may still use: ``seconds`` of its thread's CPU time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.thread_time() + seconds
        self._seconds = seconds
        self._steps = 0
        self.weights = Weights()

    def spend(self) -> None:
        """Counts one step; ``LimitError`` when the time is over."""
        self._steps += 1
        if not self._steps % _LOOK_AT_CLOCK and time.thread_time() > self._end:
            raise LimitError(f"it ran for more than {self._seconds:g} s")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and renders chat templates; shared by all of them, in any thread."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        self._local = threading.local()
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
            dict=_TemplateDict(),
            namespace=_TemplateNamespace,
        )
        self.filters["tojson"] = _tojson
        for name, function in list(self.filters.items()):
            self.filters[name] = self._bounded(name, function)
        self.finalize = self._checked
        # Named by the nodes that ``_Bounds`` puts into the templates.
        self.tick = _tick
        self.joined = self._joined
        self.weighed = self._weighed

    @contextmanager
    def budget(self, seconds: float) -> Iterator[None]:
        """Bounds what this thread renders within the block."""
        self._local.budget = Budget(seconds)
        try:
            yield
        finally:
            del self._local.budget

    def _budget(self) -> Budget:
        budget: Budget | None = getattr(self._local, "budget", None)
        # Constants are folded while a template is compiled, outside of any rendering.
        return Budget(1.0) if budget is None else budget

    # --- what jinja2 calls ---------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        bounded: nodes.Template = _Bounds().visit(tree)
        return bounded

    def call(
        __self,
        __context: Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """A call in a template."""
        budget = __self._budget()
        budget.spend()
        if __obj is _tick:
            return ""
        check_method(__obj, args, kwargs, budget.weights)
        return check_result(super().call(__context, __obj, *args, **kwargs), budget.weights)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator that can build something large."""
        weights = self._budget().weights
        check_binary(operator, left, right, weights)
        return check_result(super().call_binop(context, operator, left, right), weights)

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins the output of a block, a macro or the whole template."""
        parts = list(pieces)
        self._budget().weights.built(sum(map(len, parts)))
        return "".join(parts)

    # --- checks ----------------------------------------------------------------------------

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        # Some filters get the environment or the context before what the template gives them.
        given = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            budget = self._budget()
            budget.spend()
            check_filter(name, args[given:], kwargs, budget.weights)
            return check_result(function(*args, **kwargs), budget.weights)

        return bounded

    def _checked(self, value: Any) -> Any:
        if type(value) is not str:
            self._budget().weights.check(value)
        return value

    def _joined(self, *values: Any) -> str:
        return self.concat([str(self._checked(value)) for value in values])

    def _weighed(self, value: Any) -> Any:
        self._budget().weights.check(value)
        return value


class _Bounds(NodeTransformer):
    """Rewrites a template: each loop round calls ``tick``, ``a ~ b`` and container literals are
    checked."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("tick", [], node), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return _call("joined", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        self.generic_visit(node)
        return _call("weighed", [node], node) if _has_parts(node.items) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        if node.ctx == "load" and _has_parts(node.items):
            return _call("weighed", [node], node)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        self.generic_visit(node)
        return _call("weighed", [node], node) if _has_parts(node.items) else node


def _has_parts(items: Iterable[nodes.Node]) -> bool:
    return any(not isinstance(item, nodes.Const) for item in items)


def _call(name: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=at.lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=at.lineno)


class _GenerationTag(Extension):
    """``{% generation %}``, with which templates mark what the assistant wrote: renders it."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _TemplateDict:
    """``dict`` in a template: makes dictionaries and has nothing else to reach for."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As ``dict.fromkeys``."""
        return dict.fromkeys(*args)


class _TemplateNamespace(Namespace):
    """``namespace`` without attributes that begin with an underscore, and shown without its
    contents, which may contain itself."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}")


def _tick() -> str:
    return ""


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _strftime_now(format: object) -> str:
    if len(str(format)) > 256:
        raise LimitError("strftime_now was given more than 256 characters")
    return datetime.now().strftime(str(format))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without jinja2's escaping of HTML characters, as transformers has it."""
    size = indent if isinstance(indent, int) else len(indent or "")
    if size > 64 or any(len(part) > 64 for part in separators or ()):
        raise LimitError("tojson was given an indent or separator of more than 64 characters")
    try:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
    except TypeError as error:
        raise TemplateRuntimeError(f"tojson: {error}") from error


def plain_value(value: Any) -> Any:
    """A copy of JSON-like data in JSON's own types: nothing with methods of its own reaches a
    template."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain_value(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return f"<{type(value).__name__}>"
