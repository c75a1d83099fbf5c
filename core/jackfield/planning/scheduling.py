"""Which scheduler decides, and by which queue policy."""

from __future__ import annotations

from jackfield.config.settings import Settings
from jackfield.config.suggestion import did_you_mean
from jackfield.errors import UnknownPluginError
from jackfield.registry import KINDS, Registry
from jackfield.registry.lookup import is_class_path

# What `--scheduler-cls` is in older command lines unless someone chose another.
_OLD_DEFAULT = "vllm.core.scheduler.Scheduler"
_QUEUE = "queue"
"""The schedulers plugin that serves in the order of a queue policy."""
_KINDS = ("queue_policies", "schedulers")


def choose_scheduler(settings: Settings, registry: Registry) -> tuple[str, str | None]:
    """(scheduler, queue policy). ``--scheduling-policy`` names either; ``--scheduler-cls`` goes
    before a scheduler that it names, and gets the policy that it names."""
    named, policy = settings.scheduler_cls, settings.scheduling_policy
    if named == _OLD_DEFAULT:
        named = None
    is_policy = not is_class_path(policy) and registry.offers("queue_policies", policy)
    if named is None and not is_policy:
        if not is_class_path(policy) and not registry.offers("schedulers", policy):
            raise _unknown(policy, registry)
        named = policy
    scheduler = named or _QUEUE
    registry.find("schedulers", scheduler)
    if is_policy:
        registry.find("queue_policies", policy)
    return scheduler, policy if is_policy else None


def _unknown(policy: str, registry: Registry) -> UnknownPluginError:
    known = [entry.name for kind in _KINDS for entry in registry.list(kind)]
    groups = " or ".join(KINDS[kind].group for kind in _KINDS)
    return UnknownPluginError(
        f"there is no queue policy or scheduler {policy!r}{did_you_mean(policy, known)} "
        f"(there are: {', '.join(sorted(known))}); install a distribution that offers it in the "
        f"entry-point group {groups}, or give its file with {KINDS['queue_policies'].plugin_flag}"
    )
