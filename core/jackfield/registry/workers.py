"""Making the worker of a plan, with what is mixed into it, and calling its methods by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jackfield.config.plan import WorkerPlan
from jackfield.config.suggestion import did_you_mean
from jackfield.contracts.work import CanSleep, GivesBackBlocks, UsesIdleTime, Worker
from jackfield.errors import ConfigError, RequestError
from jackfield.registry.lookup import Registry

_FLAG = "--worker-extension-cls"
_KINDS = (Worker, CanSleep, UsesIdleTime, GivesBackBlocks)
_OF_THE_ENGINE = {name for kind in _KINDS for name in vars(kind) if name[0] != "_"}


def make_worker(plan: WorkerPlan) -> Worker:
    """The plan's worker, not started. An extension class becomes a base of it: its methods are
    the worker's, its constructor is never called.

    Raises as ``Registry.make`` does; ``ConfigError`` for an extension that has a name which the
    worker has too.
    """
    registry = Registry.for_plan(plan)
    worker: Worker = registry.make("workers", plan.worker)
    if plan.worker_extension is not None:
        _extend(worker, registry.load_class(plan.worker_extension, _FLAG), plan)
    return worker


def _extend(worker: Worker, extension: type, plan: WorkerPlan) -> None:
    there = {*dir(type(worker)), *vars(worker)}
    clashes = sorted(name for name in dir(extension) if name[:2] != "__" and name in there)
    if clashes:
        raise ConfigError(
            f"{_FLAG} {plan.worker_extension}: worker {plan.worker!r} has {', '.join(clashes)} "
            "too; rename what the extension adds"
        )
    base = type(worker)
    try:
        worker.__class__ = type(base.__name__, (base, extension), {"__module__": base.__module__})
    except TypeError as error:
        raise ConfigError(
            f"{_FLAG} {plan.worker_extension} cannot be mixed into worker {plan.worker!r}: {error}"
        ) from error


def call_worker(
    worker: Worker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
) -> object:
    """What a public method of a worker returns; ``RequestError`` where there is none, or where it
    is the engine's own business (``execute``, ``stop``, ...)."""
    public = [
        name
        for name in dir(worker)
        if name[0] != "_" and name not in _OF_THE_ENGINE and callable(getattr(worker, name))
    ]
    if method not in public:
        what = "is called by the engine only" if method in _OF_THE_ENGINE else "is no method"
        raise RequestError(
            f"{method} {what} of worker {worker.name!r}{did_you_mean(method, public)}; methods are "
            f"added with {_FLAG}",
            param="method",
        )
    result: object = getattr(worker, method)(*args, **kwargs)
    return result
