"""Decode steps that are repeated from recordings, and models whose steps cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from tests.core.compute.steps import plan
from torch import Tensor

from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.batch import StepInputs
from jackfield.compute.native import kernels_for
from jackfield.compute.recorded_decodes import RecordedDecodes, recorded_decodes
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

CPU, DTYPE = torch.device("cpu"), torch.bfloat16
SPEC = AttentionSpec(0, 4, 2, 32, 32**-0.5)
HIDDEN, VOCAB, BLOCK, ROWS = 64, 80, 16, 6
pytestmark = pytest.mark.skipif(kernels_for(DTYPE) is None, reason="no C compiler")


class OneLayer:
    """Embedding, attention over pages, a head; by kernels, but for ``plainly``."""

    attention_specs: Sequence[AttentionSpec] = (SPEC,)

    def __init__(self) -> None:
        self.backend = CpuAttention(CPU, DTYPE, BLOCK)
        shape = self.backend.kv_shape(ROWS * 4 + 1, SPEC.num_kv_heads, SPEC.head_dim)
        self.kv = KVLayer(torch.zeros(shape, dtype=DTYPE), torch.zeros(shape, dtype=DTYPE))
        width = (SPEC.num_heads + 2 * SPEC.num_kv_heads) * SPEC.head_dim
        self.embedding, self.head = self.weight(VOCAB, HIDDEN), self.weight(VOCAB, 128)
        self.qkv = self.weight(width, HIDDEN)
        self.cos_sin = torch.randn(64, SPEC.head_dim)
        self.plainly = False
        self.calls = 0

    @staticmethod
    def weight(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs).div(inputs**0.5).to(DTYPE)

    def forward(self, ids: Tensor, positions: Tensor, batch: AttentionBatch) -> Tensor:
        self.calls += 1
        kernels = kernels_for(DTYPE)
        assert kernels is not None
        x = kernels.linear(kernels.look_up(ids, self.embedding), self.qkv, None)
        if self.plainly:
            x = x * 1.0
        turn = (x, positions, self.cos_sin, None, None, 0.0, self.kv, SPEC, batch)
        q, k, v = self.backend.rotate_and_write(*turn)
        return self.backend.attend(q, k, v, self.kv, SPEC, batch).view(-1, 128)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        kernels = kernels_for(DTYPE)
        assert kernels is not None
        return kernels.linear(hidden, self.head, None)


def steps(num_seqs: int) -> Iterator[StepInputs]:
    """Decodes of growing sequences, a row each of the block table."""
    table = torch.arange(1, ROWS * 4 + 1, dtype=torch.int32).view(ROWS, 4)
    for position in range(20):
        rows = torch.randperm(ROWS)[:num_seqs]
        positions = torch.full((num_seqs,), position)
        slots = table[rows, position // BLOCK].long() * BLOCK + position % BLOCK
        lens = torch.full((num_seqs,), position + 1, dtype=torch.int32)
        attention = AttentionBatch(
            rows=rows.int(),
            query_starts=torch.arange(num_seqs + 1, dtype=torch.int32),
            seq_lens=lens,
            block_table=table,
            slots=slots,
            positions=positions,
            num_seqs=num_seqs,
            num_tokens=num_seqs,
            num_decodes=num_seqs,
            max_query_len=1,
            max_seq_len=position + 1,
            fresh=True,
            host_lens=tuple((1, n) for n in lens.tolist()),
        )
        ids = torch.randint(VOCAB, (num_seqs,))
        yield StepInputs(ids, attention, None, rows, positions + 1)


def decodes_of(model: OneLayer) -> RecordedDecodes:
    made = recorded_decodes(plan(), model, model.backend)  # type: ignore[arg-type]
    assert made is not None
    return made


@torch.inference_mode()
def test_recorded_steps_give_what_the_model_gives() -> None:
    torch.manual_seed(0)
    model = OneLayer()
    decodes = decodes_of(model)
    repeated = 0
    for num_seqs in (1, 3, 1):
        for inputs in steps(num_seqs):
            before = model.calls
            logits = decodes.logits(inputs)
            repeated += logits is not None and model.calls == before
            batch = inputs.attention
            exact = model.compute_logits(model.forward(inputs.ids, batch.positions, batch))
            assert logits is None or torch.equal(logits, exact)
    assert len(decodes) == 2
    assert repeated == 3 * 20 - 2 * 4


@torch.inference_mode()
def test_a_model_that_computes_otherwise_is_tried_once() -> None:
    model = OneLayer()
    model.plainly = True
    decodes = decodes_of(model)
    assert all(decodes.logits(inputs) is None for inputs in steps(2))
    assert model.calls == 1
    assert len(decodes) == 0


@torch.inference_mode()
def test_a_kernel_that_is_not_seen_is_found_by_the_result() -> None:
    class Hidden(OneLayer):
        def compute_logits(self, hidden: Tensor) -> Tensor:
            logits = super().compute_logits(hidden)
            logits.untyped_storage()[0] ^= 1
            return logits

    decodes = decodes_of(Hidden())
    assert all(decodes.logits(inputs) is None for inputs in steps(2))
    assert len(decodes) == 0


@pytest.mark.parametrize("changes", [{"enforce_eager": True}, {"worker_extension": "mine:Update"}])
def test_a_plan_may_be_against_recordings(changes: dict[str, object]) -> None:
    model = OneLayer()
    assert recorded_decodes(plan(**changes), model, model.backend) is None  # type: ignore[arg-type]


def test_a_backend_that_does_not_say_so_is_not_recorded() -> None:
    model = OneLayer()
    assert recorded_decodes(plan(), model, object()) is None  # type: ignore[arg-type]
    model.attention_specs = (AttentionSpec(0, 1, 1, 512, 1.0),)
    assert recorded_decodes(plan(), model, model.backend) is None  # type: ignore[arg-type]
