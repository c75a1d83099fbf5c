"""Checks every kernel against float64 on a GPU and times it, in under four minutes on an H200.

    python bench/kernels.py [--out kernels.jsonl] [--only check,decode,prefill,fused,linear]

Times are medians of CUDA-graph replays over buffers larger than the L2 cache. Shares are of
4.3 TB/s, what a copy reaches on an H200. A variant that fails prints its error and the rest goes
on; the exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu_timing import Launch, Report, microseconds, precompile
from kernel_checks import section_check

from jackfield.compute.kernels import activation, gemv, hopper_linear, norm, rotary
from jackfield.compute.kernels.decode_attention import DecodeWorkspace, decode_attention
from jackfield.compute.kernels.decode_config import DecodeConfig
from jackfield.compute.kernels.prefill_attention import PrefillConfig, prefill_attention

COPY_BYTES_PER_SECOND = 4.3e12
ROTATED_BYTES = 300e6
CUDA = torch.device("cuda")
BF16, E4M3 = torch.bfloat16, torch.float8_e4m3fn


# --- attention, timed --------------------------------------------------------------------

DECODE_CONFIGS = [
    DecodeConfig(64, stages, warps, programs)
    for stages, warps in ((5, 4), (3, 4), (7, 4), (5, 8))
    for programs in (1, 2, 3)
]
MIXED = [1 + (i * 7919) % 1600 + (7000 if i % 16 == 0 else 0) for i in range(64)]
WORKLOADS = {"1x1k": [1024], "1x32k": [32768], "32x1k": [1024] * 32, "mixed 64": MIXED}
WORKLOADS["256x1.5k"] = [1536] * 256


def decode_launches(
    lens: list[int], heads: int, block_size: int, kv_dtype: torch.dtype = BF16
) -> tuple[int, Callable[[DecodeConfig | None], list[Launch]]]:
    """(bytes of KV, function that gives the launches, each on pages of its own)."""
    kv_heads, dim = 8, 128
    per_row = [-(-n // block_size) for n in lens]
    layer_bytes = sum(per_row) * block_size * kv_heads * dim * 2 * kv_dtype.itemsize
    copies = max(1, math.ceil(ROTATED_BYTES / layer_bytes))
    copies = min(copies, 100)
    num_blocks = sum(per_row) + 1
    shape = (num_blocks, kv_heads, block_size, dim)
    pages = [[torch.randn(shape, device=CUDA).to(kv_dtype) for _ in "kv"] for _ in range(copies)]
    scales = None if kv_dtype == BF16 else torch.ones(2, device=CUDA)
    table = torch.zeros((len(lens) + 1, 40960 // block_size), dtype=torch.int32)
    blocks = (torch.randperm(num_blocks - 1) + 1).int().split(per_row)
    for row, own in enumerate(blocks):
        table[row, : len(own)] = own
    table = table.cuda()
    rows = torch.arange(len(lens), dtype=torch.int32, device=CUDA)
    seq_lens = torch.tensor(lens, dtype=torch.int32, device=CUDA)
    q = torch.randn(len(lens), heads, dim, device=CUDA, dtype=BF16)
    out = torch.empty_like(q)
    workspace = DecodeWorkspace(CUDA)

    def launches(config: DecodeConfig | None) -> list[Launch]:
        return [
            lambda k=k, v=v: decode_attention(
                q,
                k,
                v,
                rows,
                seq_lens,
                table,
                out,
                workspace,
                scale=0.1,
                scales=scales,
                config=config,
            )
            for k, v in pages
        ]

    return sum(lens) * kv_heads * dim * 2 * kv_dtype.itemsize, launches


def section_decode(report: Report) -> None:
    _, first = decode_launches([1024], 32, 64)
    _, second = decode_launches([1024], 16, 64)
    _, third = decode_launches([1024] * 65, 32, 64)
    eight_bit = [decode_launches([1024] * n, 32, 64, E4M3)[1] for n in (1, 65)]
    configs = [None, *DECODE_CONFIGS]
    precompile([f(config)[0] for f in (first, second, third, *eight_bit) for config in configs])
    variants = ((32, 64, BF16), (32, 64, E4M3), (16, 64, BF16), (32, 16, BF16))
    for name, lens in WORKLOADS.items():
        for heads, block_size, kv_dtype in variants:
            num_bytes, launches = decode_launches(lens, heads, block_size, kv_dtype)
            floor = num_bytes / COPY_BYTES_PER_SECOND * 1e6
            found: list[tuple[float, str]] = []
            for config in configs if block_size == 64 else configs[:1]:
                label = "default" if config is None else str(config)[12:]
                try:
                    us = microseconds(launches(config), floor + 4, replays=5)
                    found.append((us, label))
                except Exception as error:
                    report.error("decode", f"{name} G{heads // 8} {label}", error)
            row = f"{name} G{heads // 8} page {block_size} {str(kv_dtype)[6:]}"
            report_best(report, "decode", row, found, floor)
            del launches
            torch.cuda.empty_cache()


def report_best(
    report: Report, section: str, name: str, found: list[tuple[float, str]], floor: float
) -> None:
    """The default (first) and the three best, in microseconds and as share of the floor."""
    if not found:
        return
    default, ranked = found[0], sorted(found)[:3]
    best = "; ".join(f"{us:.1f} {label}" for us, label in ranked)
    text = f"{default[0]:8.1f} us {100 * floor / default[0]:4.0f} % | best {best}"
    all_found = {label: round(us, 2) for us, label in found}
    report.row(section, name, text, us=default[0], floor_us=floor, variants=all_found)


PREFILL_CONFIGS = [
    PrefillConfig(64, 64, 4, 3),
    PrefillConfig(64, 64, 4, 2),
    PrefillConfig(64, 64, 4, 5),
    PrefillConfig(128, 64, 8, 3),
    PrefillConfig(128, 128, 8, 2),
    PrefillConfig(128, 128, 8, 3),
]


def prefill_launch(
    num_tokens: int, prefix: int, heads: int, paged: bool, config: PrefillConfig | None
) -> Launch:
    kv_heads, dim, block_size = 8, 128, 64
    length = num_tokens + prefix
    q = torch.randn(num_tokens, heads, dim, device=CUDA, dtype=BF16)
    out = torch.empty_like(q)
    num_blocks = -(-length // block_size) + 1
    shape = (num_blocks, kv_heads, block_size, dim) if paged else (length, kv_heads, dim)
    k, v = (torch.randn(shape, device=CUDA, dtype=BF16) for _ in "kv")
    table = (torch.randperm(num_blocks - 1, device=CUDA) + 1).int()[None]
    rows = torch.zeros(1, dtype=torch.int32, device=CUDA)
    starts = torch.tensor([0, num_tokens], dtype=torch.int32, device=CUDA)
    seq_lens = torch.tensor([length], dtype=torch.int32, device=CUDA)
    return lambda: prefill_attention(
        q,
        k,
        v,
        rows,
        starts,
        seq_lens,
        table,
        out,
        first_seq=0,
        num_seqs=1,
        num_tokens=num_tokens,
        max_query_len=num_tokens,
        num_kv_heads=kv_heads,
        paged=paged,
        scale=0.1,
        config=config,
    )


def section_prefill(report: Report) -> None:
    configs = [None, *PREFILL_CONFIGS]
    cases = [(1024, 0), (2048, 0), (8192, 0), (32768, 0), (512, 7680), (2048, 30720)]
    precompile(
        [prefill_launch(128, 64, h, p, c) for h in (32, 16) for p in (0, 1) for c in configs[1:]]
    )
    for (num_tokens, prefix), heads in ((case, heads) for case in cases for heads in (32, 16)):
        for paged in (False, True):
            if (prefix and not paged) or (heads == 16 and num_tokens not in (1024, 8192)):
                continue
            flops = 4 * heads * 128 * num_tokens * (prefix + num_tokens / 2)
            name = f"{num_tokens} behind {prefix} G{heads // 8} {'paged' if paged else 'fresh'}"
            found: list[tuple[float, str]] = []
            for config in configs if num_tokens != 2048 or prefix else configs[:1]:
                label = "default" if config is None else str(config)[13:]
                try:
                    launch = prefill_launch(num_tokens, prefix, heads, paged, config)
                    found.append((microseconds([launch], flops / 4e8, replays=5), label))
                except Exception as error:
                    report.error("prefill", f"{name} {label}", error)
            if found:
                best = sorted(found)[0]
                text = f"{found[0][0]:8.1f} us {flops / found[0][0] / 1e6:4.0f} TFLOP/s | best "
                text += f"{best[0]:.1f} {flops / best[0] / 1e6:.0f} {best[1]}"
                figures = {label: round(us, 2) for us, label in found}
                report.row("prefill", name, text, us=found[0][0], flops=flops, variants=figures)


# --- fused kernels and small linear layers ------------------------------------------------


def fused_launches(t: int) -> dict[str, tuple[float, list[Launch]]]:
    """Name -> (bytes moved, launches) for T tokens of the 8b shape."""
    copies = max(1, min(60, math.ceil(ROTATED_BYTES / (t * 24576 * 2))))
    x = [torch.randn(t, 4096, device=CUDA, dtype=BF16) for _ in range(copies)]
    wide = [torch.randn(t, 24576, device=CUDA, dtype=BF16) for _ in range(copies)]
    qkv = [torch.randn(t, 48 * 128, device=CUDA, dtype=BF16) for _ in range(copies)]
    w = torch.randn(4096, device=CUDA, dtype=BF16)
    pages = [torch.zeros((t // 64 + 2, 8, 64, 128), device=CUDA, dtype=BF16) for _ in "kv"]
    slots = torch.randperm(t + 64, device=CUDA)[:t]
    positions = torch.arange(t, device=CUDA)
    cos_sin = torch.randn(t, 128, device=CUDA)
    turn = (positions, cos_sin, w[:128], w[:128], 1e-6, 32, 8, 128)
    return {
        "rms_norm": (t * 4096 * 4, [lambda a=a: norm.rms_norm(a, w, 1e-6) for a in x]),
        "add_rms_norm": (
            t * 4096 * 8,
            [lambda a=a, b=b: norm.add_rms_norm(a, b, w, 1e-6) for a, b in zip(x, x, strict=True)],
        ),
        "silu_and_mul": (t * 12288 * 6, [lambda a=a: activation.silu_and_mul(a) for a in wide]),
        "qk_norm_rope": (t * 80 * 256, [lambda a=a: rotary.qk_norm_rope(a, *turn) for a in qkv]),
        "qk_norm_rope_write": (
            t * (48 + 40 + 8 + 16) * 256,
            [lambda a=a: rotary.qk_norm_rope_write(a, *turn, *pages, slots) for a in qkv],
        ),
    }


def section_fused(report: Report) -> None:
    for t in (1, 32, 256, 8192):
        for name, (num_bytes, launches) in fused_launches(t).items():
            floor = num_bytes / COPY_BYTES_PER_SECOND * 1e6
            try:
                us = microseconds(launches, floor + 1.5)
                report.row(
                    "fused", f"{name} T={t}", f"{us:8.1f} us {100 * floor / us:4.0f} %", us=us
                )
            except Exception as error:
                report.error("fused", f"{name} T={t}", error)


LINEARS = {
    "0.6b": {"qkv": (4096, 1024), "o": (1024, 2048), "gate_up": (6144, 1024)},
    "8b": {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (24576, 4096)},
}
LINEARS["0.6b"] |= {"down": (1024, 3072), "lm_head": (151936, 1024)}
LINEARS["8b"] |= {"down": (4096, 12288), "lm_head": (151936, 4096)}
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GEMVS = [(1, 1024, 1), (2, 1024, 1), (2, 1024, 2), (4, 1024, 2), (4, 1024, 4), (2, 2048, 4)]
WIDES = [(64, 128, 5, 1), (64, 128, 5, 2), (32, 256, 4, 4), (128, 128, 4, 1), (64, 256, 3, 1)]


def linear_configs(m: int, n: int, k: int) -> list[gemv.GemvConfig | gemv.WideConfig | None]:
    if m == 1:
        return [None, *(gemv.GemvConfig(*c) for c in GEMVS if c[1] <= k)]
    wides = [gemv.WideConfig(*c) for c in WIDES]
    fits = [c for c in wides if k % (c.block_k * c.split) == 0 and (c.split == 1 or n <= 4096)]
    return [None, *fits]


def section_linear(report: Report) -> None:
    pool = torch.randn(1_300_000_000, device=CUDA, dtype=BF16) * 0.02
    xs = {
        (m, k): torch.randn(m, k, device=CUDA, dtype=BF16)
        for m in ROWS
        for k in (1024, 2048, 3072, 4096, 12288)
    }
    shapes = [(f"{model} {layer}", *nk) for model, s in LINEARS.items() for layer, nk in s.items()]
    jobs: list[Launch] = []
    for _, n, k in shapes:
        w = pool[: n * k].view(n, k)
        for m in (1, 8):
            for config in linear_configs(m, n, k):
                jobs.append(lambda x=xs[m, k], w=w, c=config: gemv.linear_small(x, w, None, c))
    precompile(jobs)
    for name, n, k in shapes:
        copies = max(1, min(pool.numel() // (n * k), math.ceil(ROTATED_BYTES / (n * k * 2))))
        ws = [pool[i * n * k : (i + 1) * n * k].view(n, k) for i in range(copies)]
        for m in ROWS:
            x, floor = xs[m, k], n * k * 2 / COPY_BYTES_PER_SECOND * 1e6
            out = torch.empty((m, n), device=CUDA, dtype=BF16)
            mm = microseconds(
                [lambda w=w, x=x, o=out: torch.mm(x, w.T, out=o) for w in ws], floor + 4
            )
            found: list[tuple[float, str]] = []
            for config in linear_configs(m, n, k) if m <= 16 else []:
                label = "default" if config is None else str(config).replace("Config", "")
                try:
                    run = [lambda w=w, x=x, c=config: gemv.linear_small(x, w, None, c) for w in ws]
                    found.append((microseconds(run, floor + 2, replays=5), label))
                except Exception as error:
                    report.error("linear", f"{name} M={m} {label}", error)
            if hopper_linear.takes(m, n, k, BF16):
                run = [lambda w=w, x=x: hopper_linear.hopper_linear(x, w, None) for w in ws]
                found.append((microseconds(run, floor + 2, replays=5), "Hopper's"))
            report_best(report, "linear", f"{name} {n}x{k} M={m} (mm {mm:.1f})", found, floor)
            if not found:
                text = f"{mm:8.1f} us {100 * floor / mm:4.0f} % (mm)"
                report.row("linear", f"{name} {n}x{k} M={m}", text, mm_us=mm, floor_us=floor)


SECTIONS = {
    "check": section_check,
    "decode": section_decode,
    "prefill": section_prefill,
    "fused": section_fused,
    "linear": section_linear,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default=",".join(SECTIONS))
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    torch.manual_seed(0)
    with contextlib.ExitStack() as files:
        out = files.enter_context(open(arguments.out, "a")) if arguments.out else None
        report = Report(out)
        for name in arguments.only.split(","):
            start = time.perf_counter()
            try:
                SECTIONS[name](report)
            except Exception as error:
                report.failed_checks += name == "check"
                report.error(name, "whole section", error)
            torch.cuda.empty_cache()
            print(f"--- {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if report.failed_checks else 0


if __name__ == "__main__":
    sys.exit(main())
