"""Whether a class can be a plugin of its kind at all: its contract version and its members."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

from jackfield.errors import BrokenPluginError, IncompatiblePluginError
from jackfield.registry.kinds import Kind

_CHOSEN = ("tool_parsers", "reasoning_parsers")
"""Where a class with ``choose`` (``ParserChooser``) stands for another and is never made."""


def check_class(kind: Kind, who: str, found: object, remedy: str) -> None:
    """Raises unless ``found`` is a class of an accepted contract version with all members.

    ``who`` begins the message and ``remedy`` ends it. Contracts that need torch are compared
    only where torch is imported already, as it is by then for such a plugin.
    """
    if not isinstance(found, type):
        raise BrokenPluginError(f"{who} is broken: it is no class but {found!r:.60}; {remedy}")
    version = getattr(found, "api_version", None)
    if not isinstance(version, int):
        raise BrokenPluginError(f"{who} is broken: {found.__name__} has no api_version; {remedy}")
    refuse_version(kind, who, version, remedy)
    if getattr(found, "Options", None) is not None and not _takes_options(found):
        raise BrokenPluginError(
            f"{who} is broken: {found.__name__} declares Options, and its constructor has no "
            f"parameter options; {remedy}"
        )
    if kind.contract is None or (kind.imports_torch and "torch" not in sys.modules):
        return
    if hasattr(found, "choose") and kind.name in _CHOSEN:
        return
    missing = missing_members(kind, found)
    if missing:
        raise BrokenPluginError(
            f"{who} is broken: {found.__name__} lacks {', '.join(missing)} of "
            f"{kind.contract_name}; {remedy}"
        )


def missing_members(kind: Kind, found: type[Any]) -> list[str]:
    """What the kind's contract asks for and the class does not have. Imports the contract."""
    assert kind.contract is not None, "no plugin of the kind can be written yet"
    contract = getattr(importlib.import_module(kind.contract.partition(":")[0]), kind.contract_name)
    return [member for member in required_members(contract) if _lacks(found, member, contract)]


def refuse_version(kind: Kind, who: str, version: int, remedy: str) -> None:
    """Raises ``IncompatiblePluginError`` for a contract version that the kernel does not take."""
    if version not in kind.api_versions:
        accepted = " or ".join(str(each) for each in sorted(kind.api_versions))
        raise IncompatiblePluginError(
            f"{who} was written for contract version {version} and this Jackfield takes "
            f"{accepted}; {remedy}"
        )


def _takes_options(found: type[Any]) -> bool:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(each.name == "options" or each.kind is each.VAR_KEYWORD for each in parameters)


def required_members(contract: type[Any]) -> list[str]:
    """What a class of the contract must have as a class: methods and class variables.

    Properties and plain annotations may be set by ``__init__`` and are not asked for.
    """
    variables = [
        name
        for name, annotation in contract.__annotations__.items()
        if str(annotation).startswith(("ClassVar", "typing.ClassVar"))
    ]
    methods = [
        name
        for name, value in vars(contract).items()
        if (callable(value) or isinstance(value, classmethod | staticmethod))
        and name not in vars(object)
        and (not name.startswith("_") or name.endswith("__"))
    ]
    return [*variables, *methods]


def _lacks(found: type[Any], member: str, contract: type[Any]) -> bool:
    """Whether it is absent, or only the contract's own empty body is inherited."""
    # Not getattr: every class has the methods of its metaclass, __call__ for one.
    values = [vars(base)[member] for base in found.__mro__ if member in vars(base)]
    own = vars(contract).get(member)
    return not values or (own is not None and values[0] is own)
