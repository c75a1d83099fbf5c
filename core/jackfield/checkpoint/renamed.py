"""What transformers calls the tensors of Mixtral and its kin, which checkpoints call otherwise."""

from __future__ import annotations

import re

_STORED = re.compile(r"(.*\.)block_sparse_moe(\.experts\.\d+\.)(w[123])(\..*)")
_RENAMED = re.compile(r"(.*\.)mlp(\.experts\.\d+\.)(gate_proj|down_proj|up_proj)(.*)")
_ROUTER = re.compile(r"(.*\.)mlp(\.gate(?:\..*)?)")
_PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_W = {projection: w for w, projection in _PROJECTIONS.items()}


def loaded_name(name: str) -> str:
    """A checkpoint's name of an expert's tensor as transformers has it; others stay."""
    found = _STORED.fullmatch(name)
    if found is None:
        return name
    before, expert, w, after = found.groups()
    return f"{before}mlp{expert}{_PROJECTIONS[w]}{after}"


def stored_name(name: str) -> str:
    """transformers' name of a tensor or a layer, an expert's or the router's, as a checkpoint has
    it; others stay."""
    if found := _RENAMED.fullmatch(name):
        before, expert, projection, after = found.groups()
        return f"{before}block_sparse_moe{expert}{_W[projection]}{after}"
    return _ROUTER.sub(r"\1block_sparse_moe\2", name)
