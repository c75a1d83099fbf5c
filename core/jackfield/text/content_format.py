"""Whether a chat template takes a message's content as one string or as a list of parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jinja2 import nodes

ContentFormat = Literal["string", "openai", "both"]
"""``string``: one string. ``openai``: always a list of parts. ``both``: the template tells them
apart, and messages stay as the client wrote them."""


def content_format(tree: nodes.Template) -> ContentFormat:
    """Looks for a loop over a message's content, and for a test whether it is a string.

    The content is followed through assignments and macro parameters: ``set c = m.content``,
    ``{% macro text(c) %}`` called as ``text(m.content)``.
    """
    names = _content_names(tree)
    loops = any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))
    if not loops:
        return "string"
    tests = any(
        test.name in ("string", "iterable", "sequence") and _is_content(test.node, names)
        for test in tree.find_all(nodes.Test)
    )
    return "both" if tests else "openai"


def _content_names(tree: nodes.Template) -> frozenset[str]:
    """Variables that hold some message's content; grown until nothing is added."""
    names: frozenset[str] = frozenset()
    while True:
        grown = names | frozenset(_assigned(tree, names)) | frozenset(_passed(tree, names))
        if grown == names:
            return names
        names = grown


def _assigned(tree: nodes.Template, names: frozenset[str]) -> Iterator[str]:
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node, names):
            yield assign.target.name


def _passed(tree: nodes.Template, names: frozenset[str]) -> Iterator[str]:
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    for call in tree.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name not in macros:
            continue
        parameters = [argument.name for argument in macros[call.node.name].args]
        given = list(zip(parameters, call.args, strict=False))
        given += [(pair.key, pair.value) for pair in call.kwargs]
        yield from (name for name, value in given if _is_content(value, names))


def _is_content(node: nodes.Node, names: frozenset[str]) -> bool:
    """Whether an expression is some message's content, perhaps filtered or defaulted."""
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Filter):
        return node.node is not None and _is_content(node.node, names)
    if isinstance(node, nodes.CondExpr):
        parts = [node.expr1, node.expr2] if node.expr2 is not None else [node.expr1]
        return any(_is_content(part, names) for part in parts)
    if isinstance(node, nodes.Or | nodes.And):
        return _is_content(node.left, names) or _is_content(node.right, names)
    if isinstance(node, nodes.Call):
        # message.get('content')
        getter = isinstance(node.node, nodes.Getattr) and node.node.attr == "get"
        first = node.args[0] if node.args else None
        return getter and isinstance(first, nodes.Const) and first.value == "content"
    return False
