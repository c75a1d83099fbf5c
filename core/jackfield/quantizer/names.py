"""What a checkpoint calls tensors that transformers renames when it loads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

Naming = Callable[[str], str]
"""A model's name of a tensor or a layer to the checkpoint's."""

_EXPERT = re.compile(r"(.*\.)mlp(\.experts\.\d+\.)(gate_proj|down_proj|up_proj)(.*)")
_ROUTER = re.compile(r"(.*\.)mlp(\.gate(?:\..*)?)")
_MIXTRALS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def naming(wanted: Collection[str], there: Collection[str]) -> Naming | None:
    """By which all the ``wanted`` names are ``there``; None if by none that is known."""
    for name_of in (str, _mixtrals):
        if {name_of(name) for name in wanted} <= set(there):
            return name_of
    return None


def _mixtrals(name: str) -> str:
    """Of Mixtral and its kin."""
    if found := _EXPERT.fullmatch(name):
        before, expert, projection, after = found.groups()
        return f"{before}block_sparse_moe{expert}{_MIXTRALS[projection]}{after}"
    return _ROUTER.sub(r"\1block_sparse_moe\2", name)
