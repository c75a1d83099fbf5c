"""The C kernels: built once, refused in one line, and right against float64."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jackfield.compute.native import Turn, attends, build, kernels_for, multiplies
from jackfield.compute.native.build import CannotBuild, load_library
from jackfield.compute.native.library import _DEFINITIONS as DEFINITIONS
from jackfield.compute.native.library import Kernels
from jackfield.contracts.attention import AttentionSpec, KVLayer

needs_compiler = pytest.mark.skipif(
    kernels_for(torch.float32) is None, reason="no C compiler on this machine"
)
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jackfield" / "native"


@needs_compiler
def test_a_library_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_library(())
    (built,) = cache.iterdir()
    monkeypatch.setattr(build, "_compile", pytest.fail)
    load_library(())
    assert list(cache.iterdir()) == [built]
    assert cache.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_element_types_have_libraries_of_their_own(cache: Path) -> None:
    load_library(())
    load_library(("-DSTORED_BF16",))
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_products_by_codes_are_compiled_for_who_has_codes(cache: Path) -> None:
    everything, codes = load_library(()), load_library((), "linear_codes")
    assert len(list(cache.iterdir())) == 2
    assert hasattr(everything, "linear")
    assert not hasattr(everything, "linear_codes")
    assert hasattr(codes, "linear_codes")


def test_without_a_compiler_there_are_no_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    kernels_for.cache_clear()
    try:
        assert kernels_for(torch.float32) is None
    finally:
        kernels_for.cache_clear()
    assert "there is no C compiler" in caplog.text


@needs_compiler
def test_a_compiler_that_fails_is_quoted_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotBuild, match="--no-such-flag") as raised:
        load_library(("--no-such-flag",))
    assert "\n" not in str(raised.value)
    assert not list(cache.glob("*.so"))


@needs_compiler
def test_a_damaged_library_is_no_library(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(compiler: str, definitions: object, sources: object, path: Path) -> None:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not a library")

    monkeypatch.setattr(build, "_compile", damaged)
    with pytest.raises(CannotBuild, match="cannot be loaded"):
        load_library(())


def test_heads_that_the_kernels_have_no_room_for_are_told() -> None:
    assert attends(AttentionSpec(0, 16, 1, 256, 1.0))
    assert not attends(AttentionSpec(0, 17, 1, 64, 1.0))
    assert not attends(AttentionSpec(0, 1, 1, 264, 1.0))


def test_there_are_no_kernels_for_float64() -> None:
    assert kernels_for(torch.float64) is None


@needs_compiler
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(16, 1), (80, 16), (528, 130), (1040, 70)], ids=str
)
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 17, 97, 200, 460])
def test_the_product_is_the_float64_one_rounded_once(
    num_tokens: int, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    kernels = kernels_for(dtype)
    assert isinstance(kernels, Kernels)
    assert_product_is_exact(kernels, num_tokens, inputs, outputs, dtype)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="another kind of processor")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("architecture", "supported"),
    [("x86-64", True), ("x86-64-v3", torch.cpu._is_avx2_supported())],
)
def test_products_of_processors_with_smaller_vectors_are_the_same(
    architecture: str, supported: bool, dtype: torch.dtype
) -> None:
    if not supported:
        pytest.skip("this processor has no AVX2")
    kernels = Kernels(load_library((*DEFINITIONS[dtype], f"-march={architecture}")))
    for num_tokens in (0, 1, 2, 3, 5, 8, 9, 17, 103):
        for inputs, outputs in ((16, 1), (80, 16), (528, 130), (1040, 70)):
            assert_product_is_exact(kernels, num_tokens, inputs, outputs, dtype)


@pytest.fixture(scope="module")
def emulated_tiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    """``linear_amx.h`` with instructions in plain C."""
    if not torch.cpu._is_avx512_supported():
        pytest.skip("this processor has no AVX-512")
    with pytest.MonkeyPatch.context() as patch:
        # A cache of its own: what the emulation is does not belong to a library's name.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("emulated")))
        emulation = str(Path(__file__).with_name("emulated_amx.h"))
        yield Kernels(load_library((*DEFINITIONS[torch.bfloat16], "-include", emulation)))


@needs_compiler
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(32, 16), (32, 17), (96, 40), (544, 130), (1056, 300)], ids=str
)
@pytest.mark.parametrize("num_tokens", [0, 1, 2, 5, 15, 16, 17, 31, 33, 47, 97, 200])
def test_the_product_by_tiles_is_the_float64_one_rounded_once(
    num_tokens: int, inputs: int, outputs: int, emulated_tiles: Kernels
) -> None:
    assert emulated_tiles.has_tiles
    assert_product_is_exact(emulated_tiles, num_tokens, inputs, outputs, torch.bfloat16)


def test_what_is_no_whole_tile_is_multiplied_by_vectors(emulated_tiles: Kernels) -> None:
    for inputs, outputs in ((32, 15), (48, 64)):
        assert_product_is_exact(emulated_tiles, 3, inputs, outputs, torch.bfloat16)


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this processor has no AMX")
@needs_compiler
def test_a_processor_with_tiles_multiplies_by_them() -> None:
    kernels = kernels_for(torch.bfloat16)
    assert isinstance(kernels, Kernels)
    assert kernels.has_tiles
    for num_tokens in (1, 8, 16, 33, 600, 1024):
        for inputs, outputs in ((32, 16), (96, 40), (1024, 300), (3072, 1024)):
            assert_product_is_exact(kernels, num_tokens, inputs, outputs, torch.bfloat16)


def assert_product_is_exact(
    kernels: Kernels, num_tokens: int, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    x = torch.randn(num_tokens, inputs).to(dtype)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs).to(dtype)
    for offset in (None, bias):
        exact = x.double() @ weight.double().T + (0 if offset is None else offset.double())
        product = kernels.linear(x, weight, offset)
        assert product.dtype is dtype
        tolerance = TOLERANCE[dtype]
        # A sum of N random products in float32 is off by about sqrt(N) of its last places.
        torch.testing.assert_close(
            product.double(), exact, rtol=tolerance, atol=tolerance / 4 + 4e-6 * inputs**0.5
        )


def test_weights_of_other_shapes_are_told() -> None:
    assert multiplies(torch.zeros(3, 64))
    assert not multiplies(torch.zeros(3, 72))
    assert not multiplies(torch.zeros(64, 3).T)


def exact_turn(x: Tensor, weight: Tensor | None, angles: Tensor, eps: float) -> Tensor:
    """x [T, N, D] -> float64: normalized, its first dimensions rotated by half (RoPE)."""
    wide = x.double()
    if weight is not None:
        wide = wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    half = angles.shape[-1]
    left, right, rest = torch.split(wide, [half, half, wide.shape[-1] - 2 * half], -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat((left * cos - right * sin, right * cos + left * sin, rest), -1)


@needs_compiler
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "rotary"), [(4, 2, 64, 64), (2, 2, 80, 32), (8, 1, 128, 128)]
)
def test_rotated_keys_and_values_lie_in_their_slots(
    heads: int, kv_heads: int, dim: int, rotary: int, normed: bool, dtype: torch.dtype
) -> None:
    kernels = kernels_for(dtype)
    assert isinstance(kernels, Kernels)
    block_size, num_blocks = 8, 6
    # A sequence that begins block 3 and leaves it unfinished, one in the middle of block 1, and
    # one that fills block 4 and begins block 2.
    slots = torch.tensor([24, 25, 26, 11, *range(32, 40), 16])
    qkv = torch.randn(len(slots), (heads + 2 * kv_heads) * dim).to(dtype)
    positions = torch.randint(0, 40, (len(slots),))
    angles = torch.randn(40, rotary // 2, dtype=torch.float64) * 3
    cos_sin = torch.cat((angles.cos(), angles.sin()), -1).float()
    weights = torch.rand(2, dim).to(dtype) + 0.5
    q_weight, k_weight = (weights[0], weights[1]) if normed else (None, None)
    shape = (kv_heads, num_blocks, block_size, dim)
    kv = KVLayer(*(torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)))
    spec = AttentionSpec(0, heads, kv_heads, dim, 1.0)
    turn = Turn(qkv, positions, cos_sin, q_weight, k_weight, 1e-6)
    q, k, v = kernels.rotate_and_write(turn, kv, spec, slots)
    parts = torch.split(qkv.view(len(slots), -1, dim), [heads, kv_heads, kv_heads], 1)
    for got, part, weight in ((q, parts[0], q_weight), (k, parts[1], k_weight)):
        expected = exact_turn(part, weight, angles[positions], 1e-6)
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=4 * tolerance)
    assert torch.equal(v, parts[2])
    for pages, new in ((kv.key, k), (kv.value, v)):
        tokens = pages.view(kv_heads, -1, dim)
        assert torch.equal(tokens[:, slots], new.transpose(0, 1))
        assert bool((tokens[:, [*range(27, 32), *range(17, 24)]] == 0).all())
        untouched = [*range(11), *range(12, 16), *range(40, 48)]
        assert bool(tokens[:, untouched].isnan().all())
