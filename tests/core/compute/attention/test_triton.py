from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.core.compute.attention.reference import Case, make_case
from tests.interpreter import DEVICE, MATRIX_DTYPES

from jackfield.compute.attention import triton as triton_backend
from jackfield.compute.attention.triton import TritonAttention
from jackfield.compute.eight_bit_kv import KV_DTYPES
from jackfield.compute.kernels import decode_attention as decodes
from jackfield.compute.kernels import launch
from jackfield.compute.kernels.decode_attention import decode_attention
from jackfield.compute.kernels.decode_config import MANY_SEQS, DecodeConfig
from jackfield.compute.kernels.kv_widen import widen_pages
from jackfield.compute.kv_cache import check_kv_dtype
from jackfield.contracts.attention import AttentionSpec, KVLayer
from jackfield.errors import ConfigError

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

DECODES = [(1, 1), (1, 17), (1, 63), (1, 64), (1, 65), (1, 300), (1, 0)]
FRESH = [(17, 17), (65, 65), (2, 2)]
CHUNKS = [(1, 17), (2, 64), (16, 63), (7, 300), (5, 5)]

# head_dim, KV heads, group, block size, window, soft cap: every value of the grid, and the
# pairs that meet in one line of a kernel (block size and window, head_dim and group).
SHAPES = [
    (64, 2, 2, 16, None, None),
    (80, 1, 3, 8, 37, None),
    (96, 2, 4, 128, None, 5.0),
    (128, 1, 8, 64, 64, 20.0),
    (128, 3, 1, 32, 1, None),
    (256, 1, 5, 32, None, 50.0),
    (64, 1, 7, 48, 100, None),
    (80, 1, 6, 64, None, None),
    (96, 1, 20, 16, None, None),
]


def backend_for(block_size: int, dtype: torch.dtype) -> TritonAttention:
    return TritonAttention(DEVICE, dtype, block_size)


def run(
    lens: list[tuple[int, int]],
    shape: tuple[int, int, int, int, int | None, float | None],
    dtype: torch.dtype,
    kv_dtype: torch.dtype | None = None,
) -> float:
    torch.manual_seed(0)
    head_dim, num_kv_heads, group, block_size, window, cap = shape
    scale = 1.3 * head_dim**-0.5
    spec = AttentionSpec(0, num_kv_heads * group, num_kv_heads, head_dim, scale, window, cap)
    backend = backend_for(block_size, dtype)
    case = make_case(backend, lens, spec, block_size, dtype, DEVICE, kv_dtype)
    return case.error(backend.attend(case.q, case.k, case.v, case.kv, spec, case.batch))


@pytest.mark.parametrize("shape", SHAPES)
def test_decodes_of_any_length_agree_with_float64(
    shape: tuple[int, int, int, int, int | None, float | None],
) -> None:
    assert run(DECODES, shape, torch.float32) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[1] > 1])
def test_decodes_too_many_for_programs_of_their_own_agree_with_float64(
    shape: tuple[int, int, int, int, int | None, float | None],
) -> None:
    lens = [(1, n) for n in range(0, 165, 5)]
    assert run(lens, shape, torch.float32) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_behind_a_prefix_agree_with_float64(
    shape: tuple[int, int, int, int, int | None, float | None],
) -> None:
    assert run(CHUNKS, shape, torch.float32) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_fresh_sequences_beside_decodes_agree_with_float64(
    shape: tuple[int, int, int, int, int | None, float | None],
) -> None:
    assert run([(1, 300), (1, 9), *FRESH], shape, torch.float32) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", MATRIX_DTYPES)
@pytest.mark.parametrize("lens", [DECODES[:4], CHUNKS[:3], FRESH[:1]])
def test_error_is_the_rounding_of_the_dtype(
    lens: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    assert run(lens, (64, 2, 2, 16, None, None), dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("shape", "kv_dtype"), [(SHAPES[1], KV_DTYPES[0]), (SHAPES[3], KV_DTYPES[1])]
)
@pytest.mark.parametrize("lens", [DECODES, CHUNKS, [(1, 300), (1, 9), *FRESH]])
def test_keys_and_values_of_8_bits_agree_with_float64_of_the_same_numbers(
    shape: tuple[int, int, int, int, int | None, float | None],
    lens: list[tuple[int, int]],
    kv_dtype: torch.dtype,
) -> None:
    assert run(lens, shape, torch.float32, kv_dtype) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("lens", [DECODES[:4], CHUNKS[:3], FRESH[:1]])
def test_a_bfloat16_query_meets_8_bits_with_the_rounding_of_its_own(
    lens: list[tuple[int, int]],
) -> None:
    shape = (64, 2, 2, 16, None, None)
    error = run(lens, shape, torch.bfloat16, torch.float8_e4m3fn)
    assert error < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_rounded_to_the_nearest_and_saturates(
    dtype: torch.dtype, kv_dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(40, 2, 64) * 2.0 ** torch.randint(-12, 6, (40, 2, 64))).to(dtype)
    x[:4, 0, 0] = torch.tensor([1e30, torch.nan, torch.inf, -torch.inf])
    x = x.to(DEVICE)
    backend = backend_for(16, dtype)
    spec = AttentionSpec(0, 4, 2, 64, 1.0)
    case = make_case(backend, [(40, 40)], spec, 16, dtype, DEVICE, kv_dtype)
    backend.write(x, x, case.kv, case.batch)
    assert case.kv.scales is not None
    largest = torch.finfo(kv_dtype).max
    slots = case.batch.slots
    for pages, scale in zip((case.kv.key, case.kv.value), case.kv.scales, strict=True):
        stored = pages.float()[slots // 16, :, slots % 16]
        exact = (x.float() / scale).clamp(-largest, largest)
        exact = torch.where(x.isnan(), largest, exact)
        assert torch.equal(stored, exact.to(kv_dtype).float())
        assert stored.abs().max() == largest


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_widened_pages_hold_the_same_numbers(kv_dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec, block_size = AttentionSpec(0, 4, 2, 64, 0.125), 16
    lens = [(1, 40), (20, 20), (9, 33), (3, 3)]
    backend = backend_for(block_size, torch.float32)
    case = make_case(backend, lens, spec, block_size, torch.float32, DEVICE, kv_dtype)
    batch, first, max_blocks = case.batch, case.batch.num_decodes, 3
    assert case.kv.scales is not None
    key, value = widen_pages(
        case.kv.key,
        case.kv.value,
        case.kv.scales,
        batch.rows,
        batch.seq_lens,
        batch.block_table,
        first_seq=first,
        num_seqs=batch.num_seqs,
        max_blocks=max_blocks,
        dtype=torch.float32,
    )
    count = (batch.num_seqs - first) * max_blocks
    table = torch.arange(count, dtype=torch.int32, device=DEVICE).view(-1, max_blocks)
    rows = torch.arange(-first, batch.num_seqs - first, dtype=torch.int32, device=DEVICE)
    moved = replace(batch, rows=rows, block_table=table, fresh=False)
    out = backend.attend(case.q, case.k, case.v, case.kv, spec, batch)
    wide = KVLayer(key.nan_to_num(), value.nan_to_num())
    backend._prefill(case.q, case.k, case.v, wide, spec, moved, None, out)
    assert case.error(out) < 1e-5


def _decode_case(lens: list[int], block_size: int = 16) -> tuple[Case, TritonAttention]:
    torch.manual_seed(0)
    spec = AttentionSpec(0, 4, 2, 64, 0.125)
    backend = backend_for(block_size, torch.float32)
    case = make_case(backend, [(1, n) for n in lens], spec, block_size, torch.float32, DEVICE)
    return case, backend


# Sequences of few and of many tiles, with programs of their own (up to 32 of two heads) and
# without, whose parts are merged at once or not (132 processors).
@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize(
    ("lens", "processors", "programs_per_processor", "least"),
    [
        ([129, 1, 300, 0, 7], 4, 1, 1),
        ([129, 1, 300, 0, 7], 4, 4, 1),
        ([64, 33], 4, 2, 1),
        ([1200, 40], 132, 1, 1),
        ([n * 13 % 150 for n in range(33)], 4, 3, 1),
        ([n * 13 % 150 for n in range(33)], 20, 4, 4),
        ([n * 13 % 150 for n in range(33)], 20, 4, 60),
    ],
)
def test_any_division_of_the_work_gives_the_same_result(
    lens: list[int],
    processors: int,
    programs_per_processor: int,
    least: int,
    block_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decodes, "num_processors", lambda device: processors)
    case, backend = _decode_case(lens, block_size)
    out = torch.full_like(case.q, float("nan"))
    # Twice in one workspace: the first run must leave it as it found it.
    for _ in range(2):
        decode_attention(
            case.q,
            case.kv.key,
            case.kv.value,
            case.batch.rows,
            case.batch.seq_lens,
            case.batch.block_table,
            out,
            backend._workspace,
            scale=case.spec.scale,
            config=DecodeConfig(32, 3, 4, programs_per_processor, least=least),
        )
        assert case.error(out) < 1e-5


def test_many_decodes_agree_with_float64() -> None:
    case, backend = _decode_case([n * 37 % 90 for n in range(MANY_SEQS + 2)])
    out = backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)
    assert case.error(out) < 1e-5


def test_lengths_may_change_between_replays_of_one_launch() -> None:
    case, backend = _decode_case([300, 129, 65])
    before = backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)
    case.batch.seq_lens.zero_()
    padding = backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)
    assert case.error(before) < 1e-5
    assert not padding.any()


def test_decodes_that_are_not_there_take_no_token() -> None:
    torch.manual_seed(5)
    backend = backend_for(16, torch.float32)
    spec = AttentionSpec(0, 4, 2, 64, 0.1)
    case = make_case(backend, [(1, 70), (1, 9), (20, 33), (5, 5)], spec, 16, torch.float32, DEVICE)
    rows, starts, lens = case.batch.rows, case.batch.query_starts, case.batch.seq_lens
    absent = torch.zeros(3, dtype=torch.int32, device=DEVICE)
    batch = replace(
        case.batch,
        rows=torch.cat([rows[:2], absent, rows[2:]]),
        seq_lens=torch.cat([lens[:2], absent, lens[2:]]),
        query_starts=torch.cat([starts[:2], absent, starts[2:]]),
        num_decodes=5,
        num_seqs=7,
        fresh=False,
    )
    out = backend.attend(case.q, case.k, case.v, case.kv, spec, batch)
    assert case.error(out) < 1e-5


def test_wide_groups_widen_the_workspace() -> None:
    backend = backend_for(16, torch.float32)
    for group, head_dim in ((2, 64), (8, 64), (1, 128)):
        torch.manual_seed(group)
        spec = AttentionSpec(0, group, 1, head_dim, 0.1)
        case = make_case(backend, [(1, 130), (1, 40)], spec, 16, torch.float32, DEVICE)
        out = backend.attend(case.q, case.k, case.v, case.kv, spec, case.batch)
        assert case.error(out) < 1e-5


def test_warming_up_leaves_the_pages_and_the_results_as_they_are() -> None:
    case, backend = _decode_case([130, 40])
    pages = case.kv.key.clone()
    backend.warm_up(case.kv, case.spec, 2)
    assert torch.equal(case.kv.key.nan_to_num(), pages.nan_to_num())
    out = backend.attend(case.q, case.k, case.v, case.kv, case.spec, case.batch)
    assert case.error(out) < 1e-5


def test_keys_that_do_not_lie_together_are_written_right() -> None:
    case, backend = _decode_case([30, 17])
    k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (case.k, case.v))
    case.kv.key.fill_(float("nan"))
    backend.write(k, v, case.kv, case.batch)
    row, last = int(case.batch.rows[0]), 29
    block = int(case.batch.block_table[row, last // 16])
    assert torch.equal(case.kv.key[block, :, last % 16], case.k[0])


def test_queries_that_do_not_lie_together_are_read_right() -> None:
    case, backend = _decode_case([30, 17])
    apart = case.q.transpose(0, 1).contiguous().transpose(0, 1)
    out = backend.attend(apart, case.k, case.v, case.kv, case.spec, case.batch)
    assert case.error(out) < 1e-5


def test_a_gpu_that_knows_no_e4m3_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "converts_e4m3", lambda device: False)
    backend = backend_for(16, torch.bfloat16)
    check_kv_dtype(backend, torch.float8_e5m2)
    with pytest.raises(ConfigError, match=r"fp8_e4m3 on this device: set .* or fp8_e5m2$"):
        check_kv_dtype(backend, torch.float8_e4m3fn)


@pytest.mark.parametrize(("capability", "converts"), [((8, 0), False), ((8, 9), True)])
def test_gpus_from_ada_on_convert_e4m3(
    capability: tuple[int, int], converts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert launch.converts_e4m3.__wrapped__(torch.device("cuda", 0)) is converts
