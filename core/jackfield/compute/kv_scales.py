"""The scales of 8-bit keys and values: read with the checkpoint's weights, or measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from torch import Tensor

from jackfield.contracts.attention import KVLayer
from jackfield.contracts.loading import CheckpointFiles, LoadFormat
from jackfield.contracts.model import Model
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch

_MEASURED_TOKENS = 256

# self_attn.k_scale (compressed-tensors, AutoFP8), self_attn.k_proj.k_scale (ModelOpt),
# self_attn.kv_scale (the first AutoFP8), self_attn.k_proj.output_scale (Quark, older
# llm-compressor), self_attn.attn.k_scale; the queries' and the weights' are not needed here.
_NAME = re.compile(
    r"\.(?P<layer>\d+)\.(?:[a-z_]+\.)*?"
    r"(?:(?P<which>k|v|kv)_scale|(?P<projection>k|v)_proj\.output_scale)$"
)
_UNUSED = re.compile(r"\.\d+\.(?:[a-z_]+\.)*?(?:q|prob|prob_output|k_zero|v_zero)_(?:scale|point)$")

Scales = Mapping[int, tuple[float, float]]
"""(k, v) by layer."""


class ScalesAside:
    """A load format that keeps the KV scales of a checkpoint to itself: no model has a place for
    them. ``scales`` are complete when the weights have been read."""

    name: ClassVar[str] = "scales_aside"
    api_version: ClassVar[int] = 1

    def __init__(self, load_format: LoadFormat) -> None:
        self._load_format = load_format
        self._found: dict[int, dict[str, float]] = {}

    def check(self, files: CheckpointFiles) -> None:
        """As the format that is read."""
        self._load_format.check(files)

    def iter_weights(self, files: CheckpointFiles) -> Iterator[tuple[str, Tensor]]:
        """All but the scales."""
        for name, tensor in self._load_format.iter_weights(files):
            if not self._takes(name, tensor):
                yield name, tensor

    @property
    def scales(self) -> Scales:
        """(k, v) of each layer that has both. Where a checkpoint has a scale for each head, the
        largest serves all of them: numbers of 8 bits keep their precision."""
        return {
            layer: (found["k"], found["v"])
            for layer, found in self._found.items()
            if found.get("k", 0.0) > 0.0 and found.get("v", 0.0) > 0.0
        }

    def _takes(self, name: str, tensor: Tensor) -> bool:
        if not name.endswith(("_scale", "_point")):
            return False
        match = _NAME.search(name)
        if match is None:
            return _UNUSED.search(name) is not None
        found = self._found.setdefault(int(match["layer"]), {})
        for which in match["which"] or match["projection"]:
            found[which] = float(tensor.float().max())
        return True


def measure_scales(
    model: Model,
    layers: Sequence[KVLayer],
    run: Callable[[ScheduledBatch], object],
    *,
    num_tokens: int,
    block_size: int,
    vocabulary: int,
) -> None:
    """Sets the scales of all layers from one prompt of at most ``num_tokens`` random tokens.

    The prompt is the same at every start, so that answers do not depend on who asked first. It is
    computed in row 0 and the first blocks, which nobody has yet; ``run`` computes a step.
    """
    count = min(num_tokens, _MEASURED_TOKENS)
    ids = np.random.default_rng(0).integers(0, vocabulary, count, dtype=np.int32)
    blocks = np.arange(-(-count // block_size), dtype=np.int32)
    batch = ScheduledBatch(
        step=0,
        admitted=(AdmittedRow(0, ids, count, TokenSampling()),),
        rows=np.zeros(1, np.int32),
        num_tokens=np.array([count], np.int32),
        first_positions=np.zeros(1, np.int32),
        samples=np.ones(1, np.bool_),
        new_blocks=np.stack([0 * blocks, blocks, 1 + blocks], 1),
    )
    model.bind_kv(tuple(replace(layer, measures=True) for layer in layers))
    run(batch)
    model.bind_kv(tuple(layers))


def told(layers: Sequence[KVLayer], found: Scales, *, measured: bool) -> str:
    """A line for the start-up story."""
    if measured:
        pairs = [kv.scales.tolist() for kv in layers if kv.scales is not None]
        keys, values = ([pair[i] for pair in pairs] for i in (0, 1))
        return (
            f"KV scales: measured, keys {min(keys):g} to {max(keys):g}, "
            f"values {min(values):g} to {max(values):g}"
        )
    if not found:
        return "KV scales: 1, since the checkpoint has none (--calculate-kv-scales measures them)"
    return f"KV scales: the checkpoint's, of {len(found)} of {len(layers)} layers, else 1"
