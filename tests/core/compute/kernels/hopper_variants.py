"""Compiles what serving Qwen3-like models launches, for Hopper: ``python -m`` this prints a row a
kernel, with ``--all`` over every head size, dtype and block size too."""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import replace

os.environ["TRITON_INTERPRET"] = "0"

import torch
from tests.core.compute.kernels.coded_cases import Format, make_codes
from tests.core.compute.kernels.hopper import Compiled, compiling, launch_attention

from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.eight_bit_kv import KV_DTYPES
from jackfield.compute.kernels import (
    activation,
    coded,
    coded_decode,
    coded_experts,
    coded_row,
    coded_rows,
    coded_wide,
    experts,
    gemv,
    greedy,
    hopper_gated,
    hopper_linear,
    kv_widen,
    kv_write,
    norm,
    quantize_rows,
    sampling,
    step_inputs,
)
from jackfield.compute.kernels.scaled_rows import Rounding
from jackfield.contracts.attention import AttentionBatch, AttentionSpec, KVLayer

Lens = list[tuple[int, int]]
DECODES, FRESH, CHUNKS = [(1, 100)] * 4, [(1, 100), (90, 90)], [(1, 100), (90, 180)]
LONG_FRESH, LONG_CHUNKS = [(16384, 16384)], [(16384, 16385)]
OTHER_SIZES: list[Lens] = [
    [(1, 1)],
    [(1, 9000)] * 5,
    [(1, 9000)] * 16,
    [(7, 7)] * 13,
    [(4, 4)] * 15,
    [(3000, 3000)],
    [(1, 5), *[(16, 160)] * 15],
]


def attention(
    lens: Lens,
    group: int,
    head_dim: int,
    block_size: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype | None = None,
    **spec: float | None,
) -> None:
    num_seqs, num_tokens, heads = len(lens), sum(n for n, _ in lens), 8
    num_decodes = sum(1 for n, _ in lens if n == 1)
    # Views of one upload, at offsets of no particular alignment.
    upload = torch.zeros(3 * num_seqs + 2, dtype=torch.int32)
    wide_upload = torch.zeros(2 * num_tokens + 1, dtype=torch.int64)
    batch = AttentionBatch(
        rows=upload[1:][:num_seqs],
        query_starts=upload[num_seqs:][: num_seqs + 1],
        seq_lens=upload[-num_seqs:],
        block_table=torch.zeros((num_seqs + 1, num_seqs + 16), dtype=torch.int32),
        slots=wide_upload[1:][:num_tokens],
        positions=wide_upload[:num_tokens],
        num_seqs=num_seqs,
        num_tokens=num_tokens,
        num_decodes=num_decodes,
        max_query_len=max(n for n, _ in lens),
        max_seq_len=max(kv for _, kv in lens),
        fresh=all(n == kv for n, kv in lens[num_decodes:]),
    )
    backend = TritonAttention(torch.device("cpu"), dtype, block_size)
    pages = torch.empty(backend.kv_shape(2, heads, head_dim), dtype=kv_dtype or dtype)
    kv = KVLayer(pages, pages, scales=None if kv_dtype is None else torch.ones(2))
    shape = AttentionSpec(0, heads * group, heads, head_dim, 0.1, **spec)  # type: ignore[arg-type]
    qkv = torch.empty((num_tokens, (group + 2) * heads * head_dim), dtype=dtype)
    weight, cos_sin = torch.empty(head_dim, dtype=dtype), torch.empty((9, head_dim))
    turn = (qkv, batch.positions, cos_sin, weight, weight, 1e-6)
    q, k, v = backend.rotate_and_write(*turn, kv, shape, batch)
    backend.attend(q, k, v, kv, shape, batch)


def warmed_up() -> None:
    """What the backend compiles ahead, for up to 16 sequences."""
    backend = TritonAttention(torch.device("cpu"), torch.bfloat16, 64)
    pages = torch.empty(backend.kv_shape(2, 8, 128), dtype=torch.bfloat16)
    spec = AttentionSpec(0, 32, 8, 128, 0.1)
    backend.warm_up(KVLayer(pages, pages), spec, 16)
    for kv_dtype in KV_DTYPES:
        eight = pages.to(kv_dtype)
        backend.warm_up(KVLayer(eight, eight, scales=torch.ones(2)), spec, 16)


def served() -> None:
    """The variants that a bfloat16 model of head size 128 meets."""
    bf16 = torch.bfloat16
    x, weight = torch.empty((4, 4096), dtype=bf16), torch.empty(4096, dtype=bf16)
    norm.rms_norm(x, weight, 1e-6)
    norm.add_rms_norm(x, x, weight, 1e-6)
    activation.silu_and_mul(x)
    heads = x.view(4, 32, 128)
    kv_write.kv_write(heads, heads, heads[None], heads[None], torch.zeros(4, dtype=torch.int64))
    for lens in (DECODES, FRESH, CHUNKS, LONG_FRESH, LONG_CHUNKS, *OTHER_SIZES):
        for kv_dtype in (None, *KV_DTYPES):
            attention(lens, 4, 128, 64, bf16, kv_dtype)
    for n, k in ((1024, 2048), (4096, 4096), (6144, 4096), (4096, 12288)):
        for rows in (1, 8):
            w = torch.empty((n, k), dtype=bf16)
            gemv.linear_small(torch.empty((rows, k), dtype=bf16), w, None)


def served_by_products_on_hopper() -> None:
    """Few rows and many; with and without the norm between two products, and the gate."""
    bf16 = torch.bfloat16
    for rows in (1, 32, 64, 128, 256):
        heads, residual = (
            torch.empty((rows, 2048), dtype=bf16),
            torch.empty((rows, 1024), dtype=bf16),
        )
        o, down = torch.empty((1024, 2048), dtype=bf16), torch.empty((4096, 12288), dtype=bf16)
        gate_up = torch.empty((6144, 1024), dtype=bf16)
        scaled = hopper_linear.hopper_linear_add(heads, o, None, residual, residual[0], 1e-6)
        hopper_linear.hopper_linear_gated(scaled, gate_up, None)
        hopper_linear.hopper_linear(scaled, gate_up, gate_up[:, 0].contiguous())
        hopper_linear.hopper_linear(torch.empty((rows, 12288), dtype=bf16), down, None)
    for rows in (128, 2048):
        x, gate_up = torch.empty((rows, 4096), dtype=bf16), torch.empty((24576, 4096), dtype=bf16)
        hopper_gated.hopper_gated(x, gate_up)


def served_by_mixtures_and_samplers() -> None:
    """What has no dimension of attention in it, and the attention that is Hopper's own."""
    bf16 = torch.bfloat16
    numbers = torch.zeros(400, dtype=torch.int32)
    pages = launch_attention()
    eight = pages.to(KV_DTYPES[0])
    places = {"first_seq": 1, "num_seqs": 4, "max_blocks": 2, "dtype": bf16}
    kv_widen.widen_pages(
        eight,
        eight,
        torch.ones(2),
        numbers,
        numbers,
        numbers.view(20, 20),
        **places,  # type: ignore[arg-type]
    )
    gate_up, down = (
        torch.empty(128, 1536, 2048, dtype=bf16),
        torch.empty(128, 2048, 768, dtype=bf16),
    )
    for num_tokens in (1, 600, 4000):
        x, logits = torch.empty(num_tokens, 2048, dtype=bf16), torch.empty(num_tokens, 128)
        experts.experts(x, logits.to(bf16), gate_up, down, top_k=8, renormalize=True)
    records = numbers.view(40, 10)
    for num_rows in (1, 2):
        logits = torch.empty(num_rows, 151936, dtype=bf16)
        # Parts of one array, which begin wherever the part before ends.
        rows, positions = torch.zeros(1 + 2 * num_rows).long()[1:].view(2, num_rows)
        thresholds = sampling.cut(logits, records, rows)
        for cut in (None, thresholds):
            sampling.draw(logits, records, rows, positions, numbers[None], cut)
        greedy.choose_greedily(logits, rows, positions, numbers[None])
    step_inputs.gather_decode_inputs(
        numbers, numbers[None], numbers[None], size=100, num_changes=100, block_size=64
    )
    step_inputs.gather_mixed_inputs(
        numbers,
        numbers[None],
        numbers[None],
        num_changes=10,
        num_seqs=20,
        num_tokens=60,
        num_samples=20,
        block_size=64,
    )
    for n, k in ((3072, 1024), (12288, 4096)):
        w = torch.empty((2 * n, k), dtype=bf16)
        gemv.gemv_gated(torch.empty((1, k), dtype=bf16), w, None)


def served_by_codes() -> None:
    """Weights of 4 and 8 bits; outputs and inputs do not matter to a variant."""
    bf16, device = torch.bfloat16, torch.device("cpu")
    few, many = coded.linear_codes, coded_wide.linear_wide
    for kind, groups, rows, multiply in (
        ("int4", 4, 1, few),
        ("fp4", 32, 16, few),
        ("int4", 4, 64, many),
        ("e4m3", 1, 200, many),
    ):
        codes, _ = make_codes(Format(kind, 128, 512, groups, False), device)
        multiply(torch.empty((rows, 512), dtype=bf16), codes, None)
    coded_decode.decoded(codes, bf16)
    row = torch.empty((1, 1024), dtype=bf16)
    for kind, groups in (("int4", 16), ("fp4", 32), ("int8", 1), ("e4m3", 1)):
        codes, _ = make_codes(Format(kind, 1024, 1024, groups, False), device)
        scaled = coded_row.add_row(row, codes, None, row.clone(), row[0], 1e-6)
        coded_row.linear_row(scaled, codes, row[0])
        coded_row.gated_row(scaled, codes, None)
    for kind, groups, rows in (("int4", 16, 8), ("int8", 1, 32), ("fp4", 64, 128)):
        codes, _ = make_codes(Format(kind, 1024, 1024, groups, False), device)
        some = row.expand(rows, 1024).contiguous()
        scaled = coded_rows.add_rows(some, codes, None, some.clone(), row[0], 1e-6)
        # Weights with a gate are large: their inputs are not split.
        whole = replace(coded_rows.rows_config(rows, codes), split=1)
        coded_rows.gated_rows(scaled, codes, None, whole)
    gate_up, _ = make_codes(Format("int4", 8 * 128, 128, 1, False), device)
    down, _ = make_codes(Format("int4", 8 * 128, 64, 1, False), device)
    x, logits = torch.empty((40, 128), dtype=bf16), torch.empty((40, 8), dtype=bf16)
    coded_experts.coded_experts(x, logits, gate_up, down, top_k=2, renormalize=True)
    plain, weight = torch.empty((20, 4096), dtype=bf16), torch.empty(4096, dtype=bf16)
    rounded = quantize_rows.quantize_rows(plain, Rounding())
    quantize_rows.add_rms_norm_rounded(plain, plain, weight, 1e-6, Rounding())
    quantize_rows.silu_and_mul_rounded(plain, Rounding(stretch=128))
    w, scales = torch.empty((4096, 4096), dtype=quantize_rows.E4M3), torch.empty(4096)
    hopper_linear.hopper_linear_float8(rounded.rows, rounded.scales, w, scales, None, bf16)


def every_shape() -> None:
    """Head sizes, dtypes, block sizes, windows and soft caps beside those."""
    dtypes = (torch.bfloat16, torch.float16, torch.float32)
    for head_dim, dtype in itertools.product((64, 80, 96, 128, 256), dtypes):
        for lens in (DECODES, FRESH, CHUNKS):
            attention(lens, 2, head_dim, 16, dtype)
            attention(lens, 5, head_dim, 128, dtype, sliding_window=4096, soft_cap=50.0)
    attention(LONG_CHUNKS, 4, 128, 16, torch.bfloat16)
    attention(DECODES, 4, 128, 8, torch.bfloat16)
    for n, k in gemv._GEMV_CONFIGS:
        if n < 100_000:
            w = torch.empty((n, k), dtype=torch.bfloat16)
            bias = torch.empty(n, dtype=torch.bfloat16)
            for rows in (1, 16):
                gemv.linear_small(torch.empty((rows, k), dtype=w.dtype), w, bias)


def facts(compiled: Compiled) -> dict[str, object]:
    return {
        "kernel": compiled.kernel,
        "variant": compiled.variant,
        "seconds": round(compiled.seconds, 2),
        "registers": compiled.registers,
        "spilled_bytes": compiled.spilled_bytes,
        "shared_bytes": compiled.shared_bytes,
        "wgmma": "wgmma.mma_async" in compiled.ptx,
        "mma": "mma.sync" in compiled.ptx,
        "pipelined": "cp.async" in compiled.ptx,
    }


def main() -> None:
    with compiling() as compiled:
        warmed_up()
        ahead = len(compiled)
        served()
        served_by_products_on_hopper()
        served_by_mixtures_and_samplers()
        served_by_codes()
        if "--all" in sys.argv:
            every_shape()
    for i, row in enumerate(compiled):
        print(json.dumps({**facts(row), "ahead": i < ahead}))


if __name__ == "__main__":
    main()
