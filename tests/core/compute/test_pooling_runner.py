"""The runner of pooling models does all that a step brings before it computes vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tests.core.compute.paged_model import PlainAttention, PlainModel
from tests.core.compute.steps import BLOCK, CPU, HostPlatform, plan
from torch import Tensor

from jackfield.compute.pooling_runner import PoolingRunner
from jackfield.config.plan import PoolerPlan
from jackfield.contracts.attention import AttentionBatch
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, BlockSwaps, Int32Array, ScheduledBatch

PROMPT = list(range(3, 15))
OTHER = list(range(40, 48))


def pairs(*values: tuple[int, int]) -> Int32Array:
    return np.array(values, dtype=np.int32).reshape(-1, 2)


def step(
    prompt: Sequence[int],
    first: int,
    count: int,
    blocks: Sequence[int],
    swaps: BlockSwaps | None = None,
) -> ScheduledBatch:
    """A prompt that takes row 0, whose tokens from ``first`` on are computed."""
    ids = np.array(prompt, dtype=np.int32)
    return ScheduledBatch(
        step=1,
        admitted=(AdmittedRow(0, ids, len(ids), TokenSampling()),),
        rows=np.zeros(1, np.int32),
        num_tokens=np.array([count], np.int32),
        first_positions=np.array([first], np.int32),
        samples=np.array([first + count == len(ids)]),
        new_blocks=np.array([(0, i, block) for i, block in enumerate(blocks)], np.int32),
        swaps=swaps,
    )


def test_a_prompt_that_was_swapped_out_goes_on_with_what_was_saved() -> None:
    backend = PlainAttention(CPU, torch.float32, BLOCK)
    model = PlainModel(backend)
    pooler = PoolerPlan(kind="last", scores=True)
    runner = PoolingRunner(
        plan(pooler=pooler, swap_bytes=1 << 16), HostPlatform(), model, backend, CPU
    )
    runner.start()
    runner.execute(step(PROMPT, 0, 8, (1, 2, 3)))
    out = BlockSwaps(pairs((1, 0), (2, 1)), pairs())
    runner.execute(step(OTHER, 0, 8, (1, 2), out))
    back = BlockSwaps(pairs(), pairs((0, 5), (1, 6)))
    output = runner.execute(step(PROMPT, 8, 4, (5, 6, 7), back)).wait()
    assert output.pooled is not None
    right = model.logits_of(PROMPT)[-1]
    assert np.abs(output.pooled[0] - right.numpy()).max() < 1e-4


class WholePrompts(PlainModel):
    """Keeps no keys and values, as encoders; notes the lengths of the prompts that it is given."""

    def __init__(self, backend: PlainAttention) -> None:
        super().__init__(backend)
        self.attention_specs = ()
        self.lengths: list[int] = []

    def forward(self, ids: Tensor, positions: Tensor, attention: AttentionBatch) -> Tensor:
        assert attention.host_lens is not None
        self.lengths += [query for query, _ in attention.host_lens]
        return self.embedding[ids]


def test_a_model_of_whole_prompts_computes_no_prompt_that_nobody_sent() -> None:
    """It fills them up to a rectangle: one more doubles the work for one."""
    backend = PlainAttention(CPU, torch.float32, BLOCK)
    model = WholePrompts(backend)
    runner = PoolingRunner(
        plan(pooler=PoolerPlan(kind="cls"), num_blocks_override=17),
        HostPlatform(),
        model,
        backend,
        CPU,
    )
    runner.start()
    model.lengths.clear()
    output = runner.execute(step(range(30), 0, 30, range(1, 9))).wait()
    assert model.lengths == [30]
    assert output.pooled is not None and np.array_equal(output.pooled[0], model.embedding[0])
