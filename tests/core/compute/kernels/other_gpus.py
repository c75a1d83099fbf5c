"""Compiles for GPUs that are not Hopper what serving launches there: ``python -m`` this, a compute
capability, ``8 6`` say. Prints what does not compile, or needs more shared memory than there is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"

import torch
from tests.core.compute.kernels import hopper_variants as variants
from tests.core.compute.kernels.coded_cases import Format, make_codes
from tests.core.compute.kernels.hopper import Compiled, Driver, compiling
from triton.backends.compiler import GPUTarget

from jackfield.compute.kernels import (
    coded,
    coded_decode,
    coded_wide,
    decode_attention,
    experts,
    launch,
    prefill_attention,
    quantize_rows,
)
from jackfield.compute.kernels.scaled_rows import Rounding

BF16, CPU = torch.bfloat16, torch.device("cpu")
SHARED = 99 << 10
"""What the GPUs with least of it let a program have."""


@contextmanager
def gpu(capability: tuple[int, int]) -> Iterator[list[Compiled]]:
    """As ``compiling``, for a GPU of this compute capability."""
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    room = launch.shared_bytes_of(capability)
    with (
        compiling() as compiled,
        mock.patch.object(Driver, "get_current_target", lambda self: target),
        mock.patch.object(launch, "_overlaps", lambda device: capability >= (9, 0)),
        mock.patch.object(decode_attention, "shared_bytes", lambda device: room),
        mock.patch.object(prefill_attention, "shared_bytes", lambda device: room),
        mock.patch.object(experts, "shared_bytes", lambda device: room),
    ):
        yield compiled


def attentions(capability: tuple[int, int]) -> Iterator[Callable[[], None]]:
    shapes = [(128, BF16, 64)]
    # What these take is the same on any: once is enough.
    if capability < (9, 0):
        shapes += [(256, BF16, 64), (128, torch.float32, 64), (256, torch.float32, 16)]
    for head_dim, dtype, block_size in shapes:
        for lens in (variants.DECODES, variants.LONG_CHUNKS):
            yield partial(variants.attention, lens, 4, head_dim, block_size, dtype)
    yield partial(variants.attention, [(1, 9)] * 60, 4, 128, 64, BF16)
    kv_dtype = torch.float8_e4m3fn if capability >= (8, 9) else torch.float8_e5m2
    for lens in (variants.DECODES, variants.CHUNKS):
        yield partial(variants.attention, lens, 4, 128, 64, BF16, kv_dtype)


def products() -> Iterator[Callable[[], object]]:
    for kind, groups in (("int4", 4), ("fp4", 32), ("any", 8), ("int8", 1), ("e4m3", 4)):
        codes, _ = make_codes(Format(kind, 128, 512, groups, kind == "int4"), CPU)
        one, many = (torch.empty((rows, 512), dtype=BF16) for rows in (1, 200))
        yield partial(coded.linear_codes, one, codes, None)
        yield partial(coded_wide.linear_wide, many, codes, None)
    yield partial(coded_decode.decoded, codes, BF16)
    picked = partial(experts.experts, top_k=2, renormalize=True)
    first, second = torch.empty(8, 1536, 2048, dtype=BF16), torch.empty(8, 2048, 768, dtype=BF16)
    for num_tokens in (1, 4000):
        x, logits = (torch.empty(num_tokens, n, dtype=BF16) for n in (2048, 8))
        yield partial(picked, x, logits, first, second)


def main() -> int:
    capability = (int(sys.argv[1]), int(sys.argv[2]))
    failures: list[str] = []
    with gpu(capability) as compiled:
        launches = [*attentions(capability), *products()]
        if capability >= (8, 9):
            rows = torch.empty((20, 4096), dtype=BF16)
            launches.append(partial(quantize_rows.quantize_rows, rows, Rounding()))
        for run in launches:
            try:
                run()
            except Exception as error:
                failures.append(f"{run}: {type(error).__name__}: {str(error)[-300:]}")
    for row in compiled:
        if row.shared_bytes > SHARED:
            failures.append(f"{row.kernel} takes {row.shared_bytes} bytes of shared memory")
    print("\n".join(sorted(set(failures))))
    print(len(compiled), "variants", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
