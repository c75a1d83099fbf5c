"""The KV cache of a worker: as many blocks as there is room for, bound to the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from jackfield.compute.demand_paging import give_back
from jackfield.compute.eight_bit_kv import is_eight_bit
from jackfield.compute.host_kv import HostKV
from jackfield.compute.kv_cache import (
    Needs,
    activation_bytes,
    allocate_kv,
    block_dim,
    bytes_per_block,
    check_kv_dtype,
    num_first_blocks,
    num_kv_blocks,
    vocabulary_size,
)
from jackfield.compute.kv_scales import Scales, measure_scales, told
from jackfield.compute.step_graphs import graph_bytes
from jackfield.compute.transfer import Uploads
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.attention import AttentionBackend
from jackfield.contracts.model import Model
from jackfield.contracts.platform import Platform
from jackfield.contracts.work import BlockSwaps, Int32Array, ScheduledBatch
from jackfield.errors import ConfigError


class KVStore:
    """``layers`` of ``num_blocks`` blocks each, zeroed, and ``num_host_blocks`` in the host's
    memory. ``scales`` are the checkpoint's, by layer. Raises ``ConfigError`` where not even one
    sequence fits."""

    def __init__(
        self,
        plan: WorkerPlan,
        platform: Platform,
        model: Model,
        backend: AttentionBackend,
        device: torch.device,
        uploads: Uploads,
        scales: Scales,
    ) -> None:
        self._plan, self._model, self._scales = plan, model, scales
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self._dtype: torch.dtype = getattr(torch, plan.kv_dtype or plan.dtype)
        check_kv_dtype(backend, self._dtype)
        specs, itemsize = model.attention_specs, getattr(torch, plan.dtype).itemsize
        self._block_bytes = bytes_per_block(specs, backend, self._dtype)
        activations = activation_bytes(plan.config, plan, plan.most_step_tokens, itemsize)
        if is_eight_bit(self._dtype):
            activations += getattr(backend, "kv_workspace_bytes", 0)
        on_cuda = device.type == "cuda"
        free, total = platform.memory(device)
        needs = Needs(
            weights=torch.cuda.memory_allocated(device) if on_cuda else total - free,
            activations=activations,
            beside=graph_bytes(plan, itemsize) if on_cuda and not plan.enforce_eager else 0,
        )
        self.num_blocks = num_kv_blocks(
            plan, self._block_bytes, needs, (free, total), on_cpu=device.type == "cpu"
        )
        self.layers = allocate_kv(specs, backend, self.num_blocks, self._dtype, device, scales)
        model.bind_kv(self.layers)
        self._dims = [block_dim(backend, spec) for spec in specs]
        self._takes_by_use = device.type == "cpu"
        self.num_first_blocks = num_first_blocks(plan, self._block_bytes, on_cpu=self._takes_by_use)
        self.num_host_blocks = 0
        self._host_kv: HostKV | None = None
        if plan.swap_bytes:
            self.num_host_blocks = plan.swap_bytes // self._block_bytes
            if not self.num_host_blocks:
                raise ConfigError(
                    f"--swap-space is less than a KV block of {self._block_bytes} bytes"
                )
            self._host_kv = HostKV(self.layers, self._dims, self.num_host_blocks, uploads)

    def swap(self, swaps: BlockSwaps) -> None:
        """Enqueues copies between the device and the host's memory."""
        assert self._host_kv is not None, "swaps without a swap space"
        self._host_kv.swap(swaps)

    def give_back(self, blocks: Int32Array) -> None:
        """See ``GivesBackBlocks``."""
        if not self._takes_by_use or not len(blocks):
            return
        runs = np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1)
        for first, last in [(int(run[0]), int(run[-1]) + 1) for run in runs]:
            for layer, dim in zip(self.layers, self._dims, strict=True):
                give_back(layer.key, dim, first, last)
                give_back(layer.value, dim, first, last)

    def measure(self, run: Callable[[ScheduledBatch], object]) -> None:
        """Sets the scales where the plan wants them measured; ``run`` computes a step."""
        if not (self._plan.calculate_kv_scales and self.layers):
            return
        plan = self._plan
        room = (self.num_blocks - 1) * plan.block_size
        measure_scales(
            self._model,
            self.layers,
            run,
            num_tokens=max(1, min(plan.max_num_batched_tokens, plan.max_model_len - 1, room)),
            block_size=plan.block_size,
            vocabulary=vocabulary_size(plan.config),
        )

    def told(self) -> list[str]:
        """Lines for the start-up story."""
        tokens = (self.num_blocks - 1) * self._plan.block_size
        size = self.num_blocks * self._block_bytes / 2**30
        kept = str(self._dtype).removeprefix("torch.")
        lines = [f"KV cache: {tokens} tokens in {self.num_blocks} blocks, {size:.2f} GiB of {kept}"]
        if is_eight_bit(self._dtype) and self.layers:
            measured = self._plan.calculate_kv_scales
            lines.append(told(self.layers, self._scales, measured=measured))
        if self.num_host_blocks:
            lines.append(
                f"{self.num_host_blocks} more KV blocks in the host's memory for preemption"
            )
        return lines
