"""Which plugin an exception came out of: by the code that was running, without any wrapping."""

from __future__ import annotations

from types import TracebackType

from jackfield.registry.files import top_package
from jackfield.registry.kinds import HOOKS, KINDS
from jackfield.registry.lookup import Registry


def culprit(error: BaseException, registry: Registry) -> str | None:
    """The plugin whose code raised, with its distribution; None where it was Jackfield's own.

    The innermost call counts that is in a module of a plugin, or in the package of one.
    """
    modules = _modules(error.__traceback__)
    for kind in {source.kind for source in registry.sources}:
        for offer in registry.given(kind):
            if offer.found.__module__ in modules:
                return offer.describe(kind)
    entries = [
        entry for kind in (*KINDS, HOOKS) for entry in registry.list(kind) if not entry.is_bundled
    ]
    for module in reversed(modules):
        for entry in entries:
            if entry.value.partition(":")[0] == module:
                return str(entry)
        for entry in entries:
            if top_package(entry.value) == module.partition(".")[0]:
                return f"{entry.distribution} {entry.version}"
    return None


def _modules(traceback: TracebackType | None) -> list[str]:
    """The modules of the calls, outermost first."""
    found = []
    while traceback is not None:
        found.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return found
