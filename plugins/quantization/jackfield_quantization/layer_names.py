"""Which layers a configuration means: names of the checkpoint, fused layers, patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jackfield.errors import CheckpointError

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def checkpoint_names(prefix: str) -> tuple[str, ...]:
    """The checkpoint's layers that the layer at ``prefix`` is made of."""
    beside, _, own = prefix.rpartition(".")
    return tuple(f"{beside}.{part}" if beside else part for part in _FUSED.get(own, (own,)))


def is_listed(prefix: str, listed: Iterable[str]) -> bool:
    """Whether the layer is in a list of exceptions: by its whole name, by an ending or a part of
    it between dots, with ``*`` for anything, or by a regular expression (``re:...``)."""
    names = (prefix, *checkpoint_names(prefix))
    return any(_means(entry, name) for entry in listed for name in names)


def compiled(rule: str) -> re.Pattern[str]:
    """A regular expression of the configuration; ``CheckpointError`` for one that is none."""
    try:
        return re.compile(rule)
    except re.error as error:
        raise CheckpointError(f"quantization_config: {rule!r} is no pattern: {error}") from error


def _means(entry: str, name: str) -> bool:
    if entry.startswith("re:"):
        return compiled(entry[3:]).match(name) is not None
    part = f".{entry.strip('.')}."
    if "*" not in entry:
        return part in f".{name}."
    return re.search(re.escape(part).replace(r"\*", ".*"), f".{name}.") is not None


def is_router(prefix: str) -> bool:
    """Whether the layer chooses experts. Formats that have no list of exceptions leave it plain."""
    return prefix.endswith(".mlp.gate") or prefix.endswith(".router")
