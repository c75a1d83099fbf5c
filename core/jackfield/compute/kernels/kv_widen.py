"""Pages of 8 bits as pages of the model's dtype, for kernels that take no others."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jackfield.compute.kernels.launch import quick


@quick
@triton.jit(
    do_not_specialize=["first_seq", "max_blocks", "table_stride"],
    do_not_specialize_on_alignment=["rows", "seq_lens", "block_table", "scales"],
)
def _widen_kernel(
    key_pages,
    value_pages,
    scales,
    rows,
    seq_lens,
    block_table,
    key,
    value,
    first_seq,
    max_blocks,
    table_stride,
    NUM_KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    # One head of one page.
    page, head = tl.program_id(0), tl.program_id(1)
    seq, index = first_seq + page // max_blocks, page % max_blocks
    if index * BLOCK_SIZE >= tl.load(seq_lens + seq):
        return
    table = block_table + tl.load(rows + seq).to(tl.int64) * table_stride
    source = tl.load(table + index).to(tl.int64) * NUM_KV_HEADS + head
    target = page.to(tl.int64) * NUM_KV_HEADS + head
    at = tl.arange(0, BLOCK_SIZE * HEAD_DIM)
    k = tl.load(key_pages + source * BLOCK_SIZE * HEAD_DIM + at).to(tl.float32) * tl.load(scales)
    v = tl.load(value_pages + source * BLOCK_SIZE * HEAD_DIM + at).to(tl.float32)
    v *= tl.load(scales + 1)
    target = target * BLOCK_SIZE * HEAD_DIM + at
    tl.store(key + target, k.to(key.dtype.element_ty))
    tl.store(value + target, v.to(value.dtype.element_ty))


def widen_pages(
    key_pages: Tensor,
    value_pages: Tensor,
    scales: Tensor,
    rows: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    *,
    first_seq: int,
    num_seqs: int,
    max_blocks: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The pages of sequences ``first_seq .. num_seqs`` in ``dtype``, times their scales: block j of
    sequence s is page (s - first_seq) * ``max_blocks`` + j. What is behind a sequence's last block
    is undefined. ``block_size`` and D are powers of two."""
    _, num_kv_heads, block_size, head_dim = key_pages.shape
    shape = ((num_seqs - first_seq) * max_blocks, num_kv_heads, block_size, head_dim)
    key, value = (torch.empty(shape, dtype=dtype, device=key_pages.device) for _ in range(2))
    _widen_kernel[(shape[0], num_kv_heads)](
        key_pages,
        value_pages,
        scales,
        rows,
        seq_lens,
        block_table,
        key,
        value,
        first_seq,
        max_blocks,
        block_table.stride(0),
        NUM_KV_HEADS=num_kv_heads,
        BLOCK_SIZE=block_size,
        HEAD_DIM=head_dim,
        num_warps=4,
    )
    return key, value
