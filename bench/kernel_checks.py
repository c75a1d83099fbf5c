"""Every kernel against float64 on a GPU, over the shapes that its tests know and larger ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from coded_checks import coded_checks
from gpu_timing import Launch, Report, precompile
from tests.core.compute.attention.reference import make_case
from torch import Tensor

from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.eight_bit_kv import KV_DTYPES, as_bytes
from jackfield.compute.kernels import (
    activation,
    gemv,
    hopper_attention,
    hopper_gated,
    hopper_linear,
    norm,
    sampling,
)
from jackfield.compute.kernels.experts import experts
from jackfield.compute.kernels.greedy import choose_greedily
from jackfield.compute.row_state import RowState
from jackfield.compute.sampler import uniforms
from jackfield.compute.transfer import Uploads
from jackfield.contracts.attention import AttentionSpec
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow

CUDA = torch.device("cuda")
BF16 = torch.bfloat16

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
    (128, 4, 8, 64, None, None),
    (128, 2, 5, 128, None, None),
]
TOLERANCE = {torch.float32: 3e-5, torch.float16: 4e-3, BF16: 3e-2}


def attention_checks() -> list[tuple[str, float, Callable[[], tuple[Any, Tensor]]]]:
    """(name, tolerance, function that gives a case and what was attended)."""
    checks = []
    kinds = (("decodes", DECODES), ("chunks", CHUNKS), ("fresh", FRESH))
    for shape in SHAPES:
        checks += [(*kind, shape, dtype, dtype) for dtype in TOLERANCE for kind in kinds]
        checks += [(*kind, shape, BF16, kv_dtype) for kv_dtype in KV_DTYPES for kind in kinds]
        checks += [(*kind, shape, torch.float32, KV_DTYPES[0]) for kind in kinds]
    for kind, lens in (("decodes, 40 long", MANY), ("decode, one long", LONG)):
        for kv_dtype in (BF16, *KV_DTYPES):
            checks.append((kind, lens, (128, 8, 4, 64, None, None), BF16, kv_dtype))
    made = []
    for kind, lens, shape, dtype, kv_dtype in checks:
        head_dim, num_kv_heads, group, block_size, window, cap = shape
        heads = (num_kv_heads * group, num_kv_heads, head_dim)
        spec = AttentionSpec(0, *heads, 1.3 * head_dim**-0.5, window, cap)
        torch.manual_seed(0)
        backend = TritonAttention(CUDA, dtype, block_size)
        case = make_case(backend, lens, spec, block_size, dtype, CUDA, kv_dtype)
        # Its pages hold numbers everywhere, as serving sees to; elsewhere NaN fills the gaps.
        if hopper_attention.supports(case.q, case.kv.key, window, cap):
            for pages in (case.kv.key, case.kv.value):
                as_bytes(pages)[pages.float().isnan()] = 0

        def attend(case: Any = case, backend: TritonAttention = backend) -> tuple[Any, Tensor]:
            return case, backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)

        name = f"{kind} {shape} {str(dtype)[6:]}"
        name += f" over {str(kv_dtype)[6:]}" if kv_dtype != dtype else ""
        made.append((name, TOLERANCE[dtype], attend))
    return made


def relative(actual: Tensor, expected: Tensor) -> float:
    error = (actual.double() - expected).norm() / expected.norm()
    return float(error.nan_to_num(nan=float("inf")))


def linear_checks() -> list[tuple[str, Launch, Callable[[], Tensor]]]:
    made: list[tuple[str, Launch, Callable[[], Tensor]]] = []
    shapes = [(1024, 2048), (4096, 1024), (1024, 3072), (4096, 4096), (4096, 12288), (1000, 1544)]
    few = [("linear", gemv.linear_small, m) for m in (1, 2, 7, 16)]
    rows = (1, 8, 17, 32, 33, 64, 100, 200)
    few += [("Hopper's linear", hopper_linear.hopper_linear, m) for m in rows]
    for (n, k), (name, linear, m) in itertools.product(shapes, few):
        x = torch.randn(m, k, device=CUDA, dtype=BF16)
        w = torch.randn(n, k, device=CUDA, dtype=BF16)
        b = torch.randn(n, device=CUDA, dtype=BF16)
        made.append(
            (
                f"{name} {m} x {n} x {k}",
                lambda linear=linear, x=x, w=w, b=b: linear(x, w, b),
                lambda x=x, w=w, b=b: x.double() @ w.double().T + b.double(),
            )
        )
    for n, k in [(3072, 1024), (12288, 4096)]:
        x = torch.randn(1, k, device=CUDA, dtype=BF16)
        w = torch.randn(2 * n, k, device=CUDA, dtype=BF16) * k**-0.5

        def gated_product(x: Tensor = x, w: Tensor = w) -> Tensor:
            gate, up = (x.double() @ w.double().T).chunk(2, -1)
            return F.silu(gate) * up

        made.append(
            (
                f"gated linear 1 x {n} x {k}",
                lambda x=x, w=w: gemv.gemv_gated(x, w, None),
                gated_product,
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


def gate_checks() -> list[tuple[str, Launch, Callable[[], Tensor]]]:
    """The gate's product of many rows: tiles that are full and not, several for a program."""
    made: list[tuple[str, Launch, Callable[[], Tensor]]] = []
    shapes = [(12288, 4096), (1544, 5000), (8192, 1024)]
    for (n, k), m in itertools.product(shapes, (1, 65, 128, 200, 256, 257, 700, 4000)):
        x = torch.randn(m, k, device=CUDA, dtype=BF16)
        w = torch.randn(2 * n, k, device=CUDA, dtype=BF16) * k**-0.5

        def wanted(x: Tensor = x, w: Tensor = w) -> Tensor:
            gate, up = (x.double() @ w.double().T).chunk(2, -1)
            return F.silu(gate) * up

        name = f"gated linear {m} x {n} x {k}"
        made.append((name, lambda x=x, w=w: hopper_gated.hopper_gated(x, w), wanted))
    return made


def fused_checks() -> list[tuple[str, Launch, Callable[[], Tensor]]]:
    """Hopper's products with what lies between products: SiLU of the gate; the residual and
    RMSNorm, whose two halves are in two products."""
    made: list[tuple[str, Launch, Callable[[], Tensor]]] = []
    for (inner, hidden), m in itertools.product([(3072, 1024), (1544, 1000)], (1, 8, 50, 130, 256)):
        x = torch.randn(m, inner, device=CUDA, dtype=BF16)
        down = torch.randn(hidden, inner, device=CUDA, dtype=BF16) * inner**-0.5
        gate_up = torch.randn(2 * inner, hidden, device=CUDA, dtype=BF16) * hidden**-0.5
        weight, down_bias = torch.randn(2, hidden, device=CUDA, dtype=BF16)
        bias = torch.randn(2 * inner, device=CUDA, dtype=BF16)
        residual = torch.randn(m, hidden, device=CUDA, dtype=BF16)

        def launch(
            x: Tensor = x,
            down: Tensor = down,
            gate_up: Tensor = gate_up,
            norm: tuple[Tensor, Tensor, Tensor] = (weight, down_bias, residual),
            bias: Tensor = bias,
        ) -> Tensor:
            weight, down_bias, residual = norm
            sums = residual.clone()
            added = hopper_linear.hopper_linear_add(x, down, down_bias, sums, weight, 1e-6)
            gated = hopper_linear.hopper_linear_gated(added, gate_up, bias)
            return torch.cat([sums, gated], 1)

        def wanted(
            x: Tensor = x,
            down: Tensor = down,
            gate_up: Tensor = gate_up,
            norm: tuple[Tensor, Tensor, Tensor] = (weight, down_bias, residual),
            bias: Tensor = bias,
        ) -> Tensor:
            weight, down_bias, residual = norm
            sums = x.double() @ down.double().T + down_bias.double() + residual.double()
            normed = sums * torch.rsqrt(sums.square().mean(-1, keepdim=True) + 1e-6)
            gate, up = (normed * weight.double() @ gate_up.double().T + bias.double()).chunk(2, -1)
            return torch.cat([sums, F.silu(gate) * up], 1)

        made.append((f"products with a norm between {m} x {inner} x {hidden}", launch, wanted))
    return made


def expert_checks() -> list[tuple[str, Launch, Callable[[], Tensor]]]:
    """Experts of Qwen3-30B-A3B's size, over every way of cutting the products."""
    num_experts, hidden, inner, top_k = 128, 2048, 768, 8
    gate_up = torch.randn(num_experts, 2 * inner, hidden, device=CUDA, dtype=BF16) * 0.02
    down = torch.randn(num_experts, hidden, inner, device=CUDA, dtype=BF16) * 0.02
    made: list[tuple[str, Launch, Callable[[], Tensor]]] = []
    for num_tokens in (1, 7, 33, 300, 500, 3000):
        x = torch.randn(num_tokens, hidden, device=CUDA, dtype=BF16)
        logits = torch.randn(num_tokens, num_experts, device=CUDA, dtype=BF16)

        def launch(x: Tensor = x, logits: Tensor = logits) -> Tensor:
            return experts(x, logits, gate_up, down, top_k=top_k, renormalize=True)

        def wanted(x: Tensor = x, logits: Tensor = logits) -> Tensor:
            shares, chosen = logits.double().softmax(-1).topk(top_k, dim=-1)
            shares /= shares.sum(-1, keepdim=True)
            out = torch.zeros(x.shape, dtype=torch.float64, device=CUDA)
            for expert in range(num_experts):
                token, place = (chosen == expert).nonzero(as_tuple=True)
                gate, up = (x[token].double() @ gate_up[expert].double().T).chunk(2, -1)
                some = (F.silu(gate) * up) @ down[expert].double().T
                out.index_add_(0, token, some * shares[token, place, None])
            return out

        made.append((f"experts of {num_tokens} tokens", launch, wanted))
    return made


def check_sampling(report: Report) -> None:
    """Draws and cuts over a vocabulary of 151,936 against float64."""
    temperature, top_p = torch.linspace(0.3, 2.0, 64), torch.linspace(0.05, 0.999, 64)
    samplings = [
        TokenSampling(temperature=t, top_p=p, top_k=0 if row % 3 else 5000, seed=row)
        for row, (t, p) in enumerate(zip(temperature.tolist(), top_p.tolist(), strict=True))
    ]
    state = RowState(
        max_num_seqs=64, max_model_len=64, block_size=64, device=CUDA, uploads=Uploads(CUDA)
    )
    ids = np.zeros(1, dtype=np.int32)
    state.admit([AdmittedRow(row, ids, 1, each) for row, each in enumerate(samplings)])
    rows = torch.arange(64, device=CUDA)
    given = state.gather_sampling(rows)
    for dtype in (BF16, torch.float32):
        logits = (torch.randn(64, 151936, device=CUDA) * 3).to(dtype)
        threshold = sampling.cut(logits, state.records, rows)
        wide = logits.double()
        kth = wide.topk(5000, -1).values[:, -1:]
        wide = wide.masked_fill((wide < kth) & (given.top_k > 0), -torch.inf)
        weights = (wide / given.temperature).softmax(-1)
        found = threshold.double().unsqueeze(1)
        above = weights.masked_fill(wide <= found, 0).sum(-1, keepdim=True) - given.top_p
        upto = given.top_p - weights.masked_fill(wide < found, 0).sum(-1, keepdim=True)
        report.check(f"cut {str(dtype)[6:]}", float(torch.maximum(above, upto).max()), 1e-5)
        for name, cut in (("cut", threshold), ("whole", None)):
            drawn = sampling.draw(logits, state.records, rows, rows, state.token_ids, cut).long()
            kept = weights if name == "cut" else (logits.double() / given.temperature).softmax(-1)
            if name == "cut":
                kept = kept.masked_fill(wide < found, 0)
            kept = kept.cumsum(-1)
            kept = kept / kept[:, -1:]
            uniform = uniforms(given.seed.squeeze(1), rows)
            at = kept.gather(1, drawn[:, None])[:, 0]
            below = kept.gather(1, (drawn - 1).clamp_min(0)[:, None])[:, 0]
            off = torch.maximum(below - uniform, uniform - at)
            report.check(f"draw {name} {str(dtype)[6:]}", float(off.max()), 1e-5)


def check_greedy(report: Report) -> None:
    """The largest of rows of 151,936, found and written."""
    logits = torch.randn(256, 151936, device=CUDA, dtype=BF16)
    logits[7] = float("nan")
    token_ids = torch.zeros((256, 9), dtype=torch.int32, device=CUDA)
    rows = torch.randperm(256, device=CUDA)
    chosen = choose_greedily(logits, rows, rows % 9, token_ids)
    wanted = (logits == logits.amax(-1, keepdim=True)).int().argmax(-1).int()
    wanted[7] = -1
    others = torch.arange(256, device=CUDA) != 7
    wrong = int((chosen != wanted).sum())
    wrong += int((token_ids[rows, rows % 9] != wanted)[others].sum())
    report.check("greedy choice, rows wrong", float(wrong), 0.0)


def section_check(report: Report) -> None:
    attention, linear = (
        attention_checks(),
        [*linear_checks(), *gate_checks(), *fused_checks(), *expert_checks(), *coded_checks()],
    )
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
    check_sampling(report)
    check_greedy(report)
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
