"""Products by coded weights against float64 on a GPU: every kind of code, group and kernel."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from gpu_timing import Launch
from tests.core.compute.kernels.coded_cases import Format, make_codes
from torch import Tensor

from jackfield.compute.kernels import coded_hopper, coded_row, coded_rows
from jackfield.compute.kernels.coded import linear_codes
from jackfield.compute.kernels.coded_decode import decoded
from jackfield.compute.kernels.coded_experts import coded_experts
from jackfield.compute.kernels.coded_layout import DeviceCodes
from jackfield.compute.kernels.coded_wide import linear_wide
from jackfield.compute.kernels.hopper_linear import hopper_linear_float8
from jackfield.compute.kernels.launch import runs_hopper_kernels
from jackfield.compute.kernels.quantize_rows import E4M3, quantize_rows
from jackfield.compute.kernels.scaled_rows import Rounding

CUDA = torch.device("cuda")
BF16 = torch.bfloat16

Check = tuple[str, Launch, Callable[[], Tensor]]

FORMATS = [
    Format("int4", 4096, 4096, 32, False),
    Format("int4", 1024, 4096, 32, True),
    Format("int4", 1024, 4096, 128, True),
    Format("int4", 1000, 1536, 24, False),
    Format("int4", 512, 2048, 1, True),
    Format("fp4", 1024, 4096, 256, False),
    Format("fp4", 1024, 4096, 64, False),
    Format("any", 1024, 4096, 64, False),
    Format("int8", 4096, 12288, 1, False),
    Format("int8", 512, 2080, 130, False),
    Format("int8", 1024, 4096, 32, True),
    Format("e4m3", 1000, 2048, 16, False),
    Format("e4m3", 4096, 4096, 1, False),
    Format("e5m2", 512, 2048, 1, False),
]


def coded_checks() -> list[Check]:
    """(name, launch, float64 result)."""
    made: list[Check] = []
    for form in FORMATS:
        codes, exact = make_codes(form, CUDA)
        name = f"{form.kind} {form.outputs} x {form.inputs} / {form.groups}"
        name += " shifted" if form.shifted else ""
        made.append((f"decoded {name}", lambda c=codes: decoded(c, BF16), lambda e=exact: e))
        bias = torch.randn(form.outputs, device=CUDA, dtype=BF16)
        for rows in (1, 7, 16, 50, 130):
            x = torch.randn(rows, form.inputs, device=CUDA, dtype=BF16)
            multiply = linear_codes if rows <= 16 else linear_wide

            def launch(
                x: Tensor = x,
                codes: DeviceCodes = codes,
                bias: Tensor = bias,
                multiply: Callable[..., Tensor] = multiply,
            ) -> Tensor:
                return multiply(x, codes, bias)

            def wanted(x: Tensor = x, exact: Tensor = exact, bias: Tensor = bias) -> Tensor:
                return x.double() @ exact.T + bias.double()

            made.append((f"{name}, {rows} rows", launch, wanted))
    return [*made, *_row_checks(), *_expert_checks(), *_float8_checks()]


def _row_checks() -> list[Check]:
    if not runs_hopper_kernels(CUDA):
        return []
    made: list[Check] = []
    for form in FORMATS:
        codes, exact = make_codes(form, CUDA)
        bias = torch.randn(form.outputs, device=CUDA, dtype=BF16)
        for spread, size in itertools.product((0, 20), (1.0, 1e25)):
            x = torch.randn(1, form.inputs, device=CUDA) * size
            x = (x * 2.0 ** torch.randint(-spread, spread + 1, x.shape, device=CUDA)).to(BF16)
            name = f"a row by {form.kind} {form.outputs} x {form.inputs} / {form.groups}"
            name += f", inputs of 2 ** +-{spread} times {size:g}"

            def wanted(x: Tensor = x, exact: Tensor = exact, bias: Tensor = bias) -> Tensor:
                return x.double() @ exact.T + bias.double()

            def gated(wanted: Callable[[], Tensor] = wanted) -> Tensor:
                gate, up = wanted().chunk(2, -1)
                return F.silu(gate) * up

            if coded_row.takes(codes):
                made.append((name, partial(coded_row.linear_row, x, codes, bias), wanted))
            # A gate's numbers times the others are more than bfloat16 holds otherwise.
            if coded_row.takes_gated(codes) and spread == 0 and size == 1.0:
                gate = partial(coded_row.gated_row, x, codes, bias)
                made.append((f"{name}, gated", gate, gated))
    return [*made, *_rows_checks(), *(_normed_rows_check(rows) for rows in (1, 5, 50, 128, 200))]


def _rows_checks() -> list[Check]:
    made: list[Check] = []
    for form in FORMATS:
        codes, exact = make_codes(form, CUDA)
        for rows in (3, 16, 50, 128) if coded_rows.takes(codes) else ():
            x = torch.randn(rows, form.inputs, device=CUDA, dtype=BF16)

            def wanted(x: Tensor = x, exact: Tensor = exact) -> Tensor:
                return x.double() @ exact.T

            name = f"{rows} rows by {form.kind} {form.outputs} x {form.inputs} / {form.groups}"
            made.append((name, partial(coded_rows.linear_rows, x, codes, None), wanted))
    return made


def _normed_rows_check(num_rows: int) -> Check:
    """One product adds to a residual and normalizes the sum, the next one reads that."""
    first, exact = make_codes(Format("int8", 4096, 12288, 1, False), CUDA)
    second, its = make_codes(Format("int4", 1024, 4096, 32, False), CUDA)
    x = torch.randn(num_rows, 12288, device=CUDA, dtype=BF16) / 100
    residual = torch.randn(num_rows, 4096, device=CUDA, dtype=BF16)
    weight = torch.rand(4096, device=CUDA, dtype=BF16)

    def launch() -> Tensor:
        scaled = coded_hopper.add(x, first, None, residual.clone(), weight, 1e-6)
        return coded_hopper.gated(scaled, second, None)

    def wanted() -> Tensor:
        total = x.double() @ exact.T + residual.double()
        mean = total.square().mean(-1, keepdim=True)
        normed = total / (mean + 1e-6).sqrt() * weight.double()
        gate, up = (normed @ its.T).chunk(2, -1)
        return F.silu(gate) * up

    return f"{num_rows} rows, added and normalized between two products", launch, wanted


def _expert_checks() -> list[Check]:
    count, hidden, inner, top_k = 16, 1024, 512, 4
    made: list[Check] = []
    for kind, groups in (("int4", 8), ("fp4", 64), ("e4m3", 1)):
        gate_up, first = make_codes(Format(kind, count * 2 * inner, hidden, groups, False), CUDA)
        down, second = make_codes(
            Format(kind, count * hidden, inner, max(1, groups // 2), False), CUDA
        )
        for num_tokens in (1, 33, 500):
            x = torch.randn(num_tokens, hidden, device=CUDA, dtype=BF16) / 50
            logits = torch.randn(num_tokens, count, device=CUDA, dtype=BF16)

            def launch(
                x: Tensor = x,
                logits: Tensor = logits,
                gate_up: DeviceCodes = gate_up,
                down: DeviceCodes = down,
            ) -> Tensor:
                return coded_experts(x, logits, gate_up, down, top_k=top_k, renormalize=True)

            def wanted(
                x: Tensor = x,
                logits: Tensor = logits,
                first: Tensor = first,
                second: Tensor = second,
            ) -> Tensor:
                shares, chosen = logits.double().softmax(-1).topk(top_k, dim=-1)
                shares /= shares.sum(-1, keepdim=True)
                out = torch.zeros(x.shape, dtype=torch.float64, device=CUDA)
                for expert in range(count):
                    token, place = (chosen == expert).nonzero(as_tuple=True)
                    own = first.view(count, 2 * inner, hidden)[expert]
                    gate, up = (x[token].double() @ own.T).chunk(2, -1)
                    some = (F.silu(gate) * up) @ second.view(count, hidden, inner)[expert].T
                    out.index_add_(0, token, some * shares[token, place, None])
                return out

            made.append((f"{kind} experts of {num_tokens} tokens", launch, wanted))
    return made


def _float8_checks() -> list[Check]:
    if not runs_hopper_kernels(CUDA):
        return []
    made: list[Check] = []
    for m, n, k in ((5, 512, 1024), (16, 4096, 12288), (32, 1000, 512), (100, 4096, 12288)):
        rounded = quantize_rows(torch.randn(m, k, device=CUDA, dtype=BF16), Rounding())
        x, x_scales = rounded.rows, rounded.scales
        w = (torch.randn(n, k, device=CUDA) * 30).to(E4M3)
        w_scales = torch.rand(n, device=CUDA) + 0.1

        def launch(
            x: Tensor = x, x_scales: Tensor = x_scales, w: Tensor = w, w_scales: Tensor = w_scales
        ) -> Tensor:
            return hopper_linear_float8(x, x_scales, w, w_scales, None, BF16)

        def wanted(
            x: Tensor = x, x_scales: Tensor = x_scales, w: Tensor = w, w_scales: Tensor = w_scales
        ) -> Tensor:
            return (x.double() * x_scales.double()) @ (w.double() * w_scales.double()[:, None]).T

        made.append((f"E4M3 {m} x {n} x {k}", launch, wanted))
    return made
