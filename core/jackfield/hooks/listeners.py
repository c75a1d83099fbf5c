"""The functions of hook plugins: collected once, at the start, in calling order."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from jackfield.config.suggestion import did_you_mean
from jackfield.errors import RAISED, BrokenPluginError, JackfieldError
from jackfield.hooks.specs import HookSpecs
from jackfield.registry import HOOKS, PluginEntry, Registry
from jackfield.registry.options import make_options


@dataclass(frozen=True, slots=True)
class Listener:
    """One function of one plugin, called with the arguments it names."""

    owner: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def call(self, **values: object) -> Any:
        """Calls it with those of the values that it names."""
        return self.function(**{name: values[name] for name in self.arguments})


def collect(entries: Sequence[PluginEntry], registry: Registry) -> dict[str, list[Listener]]:
    """The listeners of each hook in calling order: plugins by name, ``tryfirst`` before all."""
    manager = pluggy.PluginManager("jackfield")
    manager.add_hookspecs(HookSpecs)
    owners: dict[str, PluginEntry] = {}
    # pluggy calls what was registered last first.
    for entry in sorted(entries, key=lambda each: (each.name, each.distribution), reverse=True):
        name = f"{entry.distribution}:{entry.name}"
        owners[name] = entry
        _register(manager, entry, name, registry)
    names = [name for name in vars(HookSpecs) if not name.startswith("_")]
    return {hook: _listeners(manager, hook, owners) for hook in names}


def _register(
    manager: pluggy.PluginManager, entry: PluginEntry, name: str, registry: Registry
) -> None:
    remedy = (
        f"uninstall {entry.distribution}, correct it, or leave it out with "
        f"--disable-plugin {entry.distribution}"
    )
    registry.check_hook(entry)
    try:
        plugin = _load(entry, registry.options(HOOKS, entry.name))
        manager.register(plugin, name=name)
    except (KeyboardInterrupt, JackfieldError):
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the program
        raise BrokenPluginError(
            f"{entry} is broken: {type(error).__name__}: {_one_line(error)}; {remedy}"
        ) from error
    known = [hook for hook in vars(HookSpecs) if not hook.startswith("_")]
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise BrokenPluginError(
                f"{entry} implements the unknown hook {caller.name!r}"
                f"{did_you_mean(caller.name, known)}; {remedy}"
            )


def load_hooks(entry: PluginEntry) -> Any:
    """Imports the module or the class of a hook plugin."""
    module, _, attribute = entry.value.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def _load(entry: PluginEntry, values: Mapping[str, object]) -> Any:
    found = load_hooks(entry)
    options = make_options(str(entry), found, values)
    if not isinstance(found, type):
        return found
    return found() if options is None else found(options=options)


def _listeners(
    manager: pluggy.PluginManager, hook: str, owners: Mapping[str, PluginEntry]
) -> list[Listener]:
    found = []
    for implementation in reversed(getattr(manager.hook, hook).get_hookimpls()):
        owner = owners[implementation.plugin_name]
        if implementation.wrapper or implementation.hookwrapper:
            raise BrokenPluginError(f"{owner}: {hook} is a wrapper, which Jackfield has no use for")
        found.append(Listener(str(owner), implementation.function, tuple(implementation.argnames)))
    return found


def owned(listeners: Iterable[Listener]) -> list[tuple[str, Any]]:
    """Each function that they return, with whose it is."""
    owned = []
    for listener in listeners:
        for function in flat([call_listener(listener)]):
            if not callable(function):
                raise broken(listener, f"returned {function!r:.60} and no function")
            owned.append((listener.owner, function))
    return owned


def gather(listeners: Iterable[Listener]) -> list[Any]:
    """What each returns, in one list; a plugin that raises ends the start."""
    return flat(call_listener(listener) for listener in listeners)


def flat(results: Iterable[Any]) -> list[Any]:
    """All that is in the results, lists or not, but None."""
    flat: list[Any] = []
    for result in results:
        flat.extend(result if isinstance(result, list | tuple) else [result])
    return [each for each in flat if each is not None]


def call_listener(listener: Listener, **values: object) -> Any:
    """What it returns; ``BrokenPluginError`` where it raises what is no error of ours."""
    try:
        return listener.call(**values)
    except JackfieldError:
        raise
    except RAISED as error:
        raise broken(listener, f"raised {type(error).__name__}: {_one_line(error)}") from error


def broken(listener: Listener, what: str) -> BrokenPluginError:
    """The error that ends the start: whose function did what."""
    return BrokenPluginError(
        f"{listener.owner} is broken: {listener.function.__name__} {what}; correct it, or start "
        "with --safe-mode"
    )


def _one_line(error: BaseException) -> str:
    """What pluggy says stands on several lines, the cause on the last one."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, pluggy.PluginValidationError) else lines[0]
