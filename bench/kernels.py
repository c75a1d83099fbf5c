"""Checks every kernel against float64 on a GPU and times it, in under four minutes on an H200.

    python bench/kernels.py [--out kernels.jsonl] [--only check,decode,prefill,fused,linear]

Times are medians of CUDA-graph replays over buffers larger than the L2 cache. Shares are of
4.3 TB/s, what a copy reaches on an H200. A variant that fails prints its error and the rest goes
on; the exit status is 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from tests.core.compute.attention.reference import make_case
from torch import Tensor
from triton.runtime._async_compile import AsyncCompileMode
from triton.runtime.jit import JITFunction

from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.kernels import activation, gemv, norm, rotary
from jackfield.compute.kernels.decode_attention import (
    DecodeConfig,
    DecodeWorkspace,
    decode_attention,
)
from jackfield.compute.kernels.prefill_attention import PrefillConfig, prefill_attention
from jackfield.contracts.attention import AttentionSpec

COPY_BYTES_PER_SECOND = 4.3e12
ROTATED_BYTES = 300e6
CUDA = torch.device("cuda")
BF16 = torch.bfloat16

Launch = Callable[[], object]


class Report:
    """Prints a row a figure and writes it as a JSON line."""

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self.failed_checks = 0

    def row(self, section: str, name: str, text: str, **figures: object) -> None:
        print(f"{section:8} {name:44} {text}", flush=True)
        if self._out is not None:
            self._out.write(json.dumps({"section": section, "name": name, **figures}) + "\n")
            self._out.flush()

    def error(self, section: str, name: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}"[:150]
        self.row(section, name, text, error=text)

    def check(self, name: str, error: float, tolerance: float) -> None:
        good = error <= tolerance
        self.failed_checks += not good
        self.row("check", name, f"{error:.1e} {'' if good else 'WRONG'}", error=error, good=good)


@contextmanager
def precompiling() -> Iterator[None]:
    """Launches inside compile on threads and run nothing."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        return run(self, *args, grid=grid, warmup=True, **kwargs)

    with (
        ThreadPoolExecutor(14) as threads,
        AsyncCompileMode(threads, ignore_errors=True),
        mock.patch.object(JITFunction, "run", compile_only),
    ):
        yield


def precompile(launches: Sequence[Launch]) -> None:
    """Compiles all that the launches need; a failure shows again when one is run."""
    start = time.perf_counter()
    with precompiling():
        for launch in launches:
            try:
                launch()
            except Exception as error:
                print(f"compiling: {type(error).__name__}: {str(error)[:200]}", flush=True)
    print(f"compiled {len(launches)} launches in {time.perf_counter() - start:.1f} s", flush=True)


def microseconds(launches: Sequence[Launch], estimate: float, replays: int = 7) -> float:
    """Per launch, from one graph that goes round the launches for about 1.5 ms."""
    rounds = max(1, math.ceil(1500 / estimate / len(launches)))
    rounds = min(rounds, max(1, 400 // len(launches)))
    for launch in launches[:2]:
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    graph.replay()
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(replays)
    ]
    for before, after in events:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    median = statistics.median(before.elapsed_time(after) for before, after in events)
    return median * 1e3 / (rounds * len(launches))


# --- correctness -------------------------------------------------------------------------

DECODES = [(1, 1), (1, 17), (1, 63), (1, 64), (1, 65), (1, 300), (1, 0)]
CHUNKS = [(1, 17), (1, 65), (2, 64), (16, 63), (20, 300), (5, 5), (130, 2000)]
FRESH = [(1, 300), (1, 9), (17, 17), (64, 64), (65, 65), (300, 300)]
MANY = [(1, n) for n in (5000, 1, 700, 64, 1500, 33, 2048, 129) for _ in range(5)]
LONG = [(1, 9000)]
SHAPES = [
    (64, 2, 2, 16, None, None),
    (80, 1, 3, 8, 37, None),
    (96, 2, 4, 128, None, 5.0),
    (128, 8, 4, 64, None, None),
    (128, 1, 8, 64, 64, 20.0),
    (128, 3, 1, 32, 1, None),
    (256, 1, 5, 32, None, 50.0),
    (64, 1, 7, 48, 100, None),
    (80, 1, 6, 64, None, None),
]
TOLERANCE = {torch.float32: 3e-5, torch.float16: 4e-3, BF16: 3e-2}


def attention_checks() -> list[tuple[str, float, Callable[[], tuple[Any, Tensor]]]]:
    """(name, tolerance, function that gives a case and what was attended)."""
    checks = []
    for shape in SHAPES:
        for dtype in TOLERANCE:
            for kind, lens in (("decodes", DECODES), ("chunks", CHUNKS), ("fresh", FRESH)):
                checks.append((kind, lens, shape, dtype))
    for kind, lens in (("decodes, 40 long", MANY), ("decode, one long", LONG)):
        checks.append((kind, lens, (128, 8, 4, 64, None, None), BF16))
    made = []
    for kind, lens, shape, dtype in checks:
        head_dim, num_kv_heads, group, block_size, window, cap = shape
        heads = (num_kv_heads * group, num_kv_heads, head_dim)
        spec = AttentionSpec(0, *heads, 1.3 * head_dim**-0.5, window, cap)
        torch.manual_seed(0)
        backend = TritonAttention(CUDA, dtype, block_size)
        case = make_case(backend, lens, spec, block_size, dtype, CUDA)

        def attend(case: Any = case, backend: TritonAttention = backend) -> tuple[Any, Tensor]:
            return case, backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)

        made.append((f"{kind} {shape} {str(dtype)[6:]}", TOLERANCE[dtype], attend))
    return made


def relative(actual: Tensor, expected: Tensor) -> float:
    error = (actual.double() - expected).norm() / expected.norm()
    return float(error.nan_to_num(nan=float("inf")))


def linear_checks() -> list[tuple[str, Launch, Callable[[], Tensor]]]:
    made: list[tuple[str, Launch, Callable[[], Tensor]]] = []
    shapes = [(1024, 2048), (4096, 1024), (1024, 3072), (4096, 4096), (4096, 12288), (1000, 1544)]
    for (n, k), m in ((shape, m) for shape in shapes for m in (1, 2, 7, 16)):
        x = torch.randn(m, k, device=CUDA, dtype=BF16)
        w = torch.randn(n, k, device=CUDA, dtype=BF16)
        b = torch.randn(n, device=CUDA, dtype=BF16)
        made.append(
            (
                f"linear {m} x {n} x {k}",
                lambda x=x, w=w, b=b: gemv.linear_small(x, w, b),
                lambda x=x, w=w, b=b: x.double() @ w.double().T + b.double(),
            )
        )
    x = torch.randn(70, 4096, device=CUDA, dtype=BF16)
    g = torch.randn(4096, device=CUDA, dtype=BF16)

    def normed() -> Tensor:
        d = x.double()
        return d * torch.rsqrt(d.square().mean(-1, keepdim=True) + 1e-6) * g.double()

    def gated() -> Tensor:
        gate, up = x.double().chunk(2, -1)
        return F.silu(gate) * up

    made.append(("rms_norm", lambda: norm.rms_norm(x, g, 1e-6), normed))
    zero = torch.zeros_like(x)
    made.append(("add_rms_norm", lambda: norm.add_rms_norm(x, zero.zero_(), g, 1e-6)[0], normed))
    made.append(("silu_and_mul", lambda: activation.silu_and_mul(x), gated))
    return made


def section_check(report: Report) -> None:
    attention, linear = attention_checks(), linear_checks()
    precompile([launch for *_, launch in attention] + [launch for _, launch, _ in linear])
    for name, tolerance, attend in attention:
        try:
            # Often, so that a race between programs has its chance.
            errors = []
            for _ in range(20):
                case, attended = attend()
                errors.append(case.error(attended))
            report.check(name, max(errors), tolerance)
        except Exception as error:
            report.failed_checks += 1
            report.error("check", name, error)
    for name, launch, expected in linear:
        try:
            wanted = expected()
            errors = [relative(launch(), wanted) for _ in range(5)]  # type: ignore[arg-type]
            report.check(name, max(errors), 8e-3)
        except Exception as error:
            report.failed_checks += 1
            report.error("check", name, error)
    check_replays(report)


def check_replays(report: Report) -> None:
    """One captured decode, replayed with lengths that were not there at its capture."""
    spec = AttentionSpec(0, 32, 8, 128, 128**-0.5)
    backend = TritonAttention(CUDA, BF16, 64)
    lens = [1, 3000, 64, 700, 65, 2047]
    case = make_case(backend, [(1, 4096)] * len(lens), spec, 64, BF16, CUDA)
    backend.attend(case.q, case.k, case.v, case.kv, spec, case.batch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = backend.attend(case.q, case.k, case.v, case.kv, spec, case.batch)
    case.batch.seq_lens.copy_(torch.tensor(lens, dtype=torch.int32))
    table, rows = case.batch.block_table.long(), case.batch.rows.tolist()
    worst = 0.0
    for _ in range(20):
        out.fill_(float("nan"))
        graph.replay()
        for i, n in enumerate(lens):
            blocks = table[rows[i], : -(-n // 64)]
            key, value = (
                pages[blocks].transpose(1, 2).reshape(-1, 8, 128)[:n].double()
                for pages in (case.kv.key, case.kv.value)
            )
            q = case.q[i].double().view(8, 4, 128)
            weights = (torch.einsum("kgd,tkd->kgt", q, key) * spec.scale).softmax(-1)
            wanted = torch.einsum("kgt,tkd->kgd", weights, value).reshape(32, 128)
            worst = max(worst, float((out[i].double() - wanted).abs().max().nan_to_num(nan=9.0)))
    report.check("decode graph replayed with other lengths", worst, TOLERANCE[BF16])


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
    lens: list[int], heads: int, block_size: int
) -> tuple[int, Callable[[DecodeConfig | None], list[Launch]]]:
    """(bytes of KV, function that gives the launches, each on pages of its own)."""
    kv_heads, dim = 8, 128
    per_row = [-(-n // block_size) for n in lens]
    layer_bytes = sum(per_row) * block_size * kv_heads * dim * 2 * 2
    copies = max(1, math.ceil(ROTATED_BYTES / layer_bytes))
    copies = min(copies, 100)
    num_blocks = sum(per_row) + 1
    shape = (num_blocks, kv_heads, block_size, dim)
    pages = [[torch.randn(shape, device=CUDA, dtype=BF16) for _ in "kv"] for _ in range(copies)]
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
                q, k, v, rows, seq_lens, table, out, workspace, scale=0.1, config=config
            )
            for k, v in pages
        ]

    return sum(lens) * kv_heads * dim * 2 * 2, launches


def section_decode(report: Report) -> None:
    _, first = decode_launches([1024], 32, 64)
    _, second = decode_launches([1024], 16, 64)
    _, third = decode_launches([1024] * 65, 32, 64)
    configs = [None, *DECODE_CONFIGS]
    precompile([f(config)[0] for f in (first, second, third) for config in configs])
    for name, lens in WORKLOADS.items():
        for heads, block_size in ((32, 64), (16, 64), (32, 16)):
            num_bytes, launches = decode_launches(lens, heads, block_size)
            floor = num_bytes / COPY_BYTES_PER_SECOND * 1e6
            found: list[tuple[float, str]] = []
            for config in configs if block_size == 64 else configs[:1]:
                label = "default" if config is None else str(config)[12:]
                try:
                    us = microseconds(launches(config), floor + 4, replays=5)
                    found.append((us, label))
                except Exception as error:
                    report.error("decode", f"{name} G{heads // 8} {label}", error)
            report_best(report, "decode", f"{name} G{heads // 8} page {block_size}", found, floor)
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
        for m in (1, 2, 4, 8, 16, 32, 64)
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
        for m in (1, 2, 4, 8, 16, 32, 64):
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
    with open(arguments.out, "a") if arguments.out else mock.MagicMock() as out:
        report = Report(out if arguments.out else None)
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
