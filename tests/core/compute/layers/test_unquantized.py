"""The packed linear layer against float64 products."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import Tensor, nn

from jackfield.compute.layers import unquantized
from jackfield.compute.layers.unquantized import (
    UnquantizedLinear,
    has_products,
    packs,
    products_of,
)
from jackfield.compute.native import kernels_for

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}


class Layer(nn.Module):
    packed_weight: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs


def loaded(inputs: int, outputs: int, dtype: torch.dtype) -> tuple[Layer, Tensor]:
    layer, method = Layer(inputs, outputs), UnquantizedLinear()
    method.create_weights(layer, dtype, torch.device("cpu"))
    weight = torch.randn(outputs, inputs).to(dtype)
    layer.get_parameter("weight").data.copy_(weight)
    method.process_weights_after_loading(layer)
    return layer, weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 33, 130])
def test_product_equals_float64(rows: int, bias: bool, dtype: torch.dtype) -> None:
    layer, weight = loaded(96, 272, dtype)
    x = torch.randn(rows, 96).to(dtype)
    offset = torch.randn(272).to(dtype) if bias else None
    product = UnquantizedLinear().apply(layer, x, offset)
    exact = x.double() @ weight.double().T + (0 if offset is None else offset.double())
    assert product.dtype == dtype
    assert product.shape == (rows, 272)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(product.double(), exact, rtol=tolerance, atol=tolerance * 8)


@pytest.mark.skipif(
    packs(torch.bfloat16) or kernels_for(torch.bfloat16) is None,
    reason="oneDNN multiplies bfloat16 here, or there is no C compiler",
)
def test_a_weight_that_c_multiplies_stays_where_it_lies() -> None:
    layer, method = Layer(64, 48), UnquantizedLinear()
    mapped = torch.randn(48, 64).bfloat16()
    method.create_weights(layer, torch.bfloat16, torch.device("cpu"))
    layer.get_parameter("weight").data = mapped
    method.process_weights_after_loading(layer)
    assert products_of(torch.bfloat16).startswith("compiled C")
    assert layer.get_parameter("weight").data_ptr() == mapped.data_ptr()


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported() or kernels_for(torch.bfloat16) is None,
    reason="oneDNN takes no bfloat16 here, or there is no C compiler",
)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("with_tiles", [True, False])
def test_bfloat16_is_packed_where_it_is_multiplied_but_not_by_tiles_or_without_a_compiler(
    native: bool, compiler: bool, with_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    if not compiler:
        monkeypatch.setattr(unquantized, "kernels_for", lambda dtype: None)
    monkeypatch.setattr(unquantized, "has_products", has_products.__wrapped__)
    tiles = compiler and with_tiles
    if compiler:
        monkeypatch.setattr(kernels_for(torch.bfloat16), "has_tiles", tiles)
    assert packs.__wrapped__(torch.bfloat16) is (not tiles and (native or not compiler))
    assert packs.__wrapped__(torch.float32)
    assert not packs.__wrapped__(torch.float16)


def test_rows_of_a_view_are_multiplied_as_they_are() -> None:
    layer, weight = loaded(64, 64, torch.float32)
    x = torch.randn(5, 128)[:, 32:96]
    torch.testing.assert_close(UnquantizedLinear().apply(layer, x, None), x @ weight.T)


@pytest.mark.skipif(not packs(torch.float32), reason="this CPU build has no oneDNN")
def test_the_plain_weight_is_dropped_once_packed() -> None:
    layer, _ = loaded(64, 64, torch.float32)
    assert not list(layer.parameters())


@pytest.mark.skipif(not packs(torch.float32), reason="this CPU build has no oneDNN")
def test_a_weight_tied_to_the_embedding_stays_there() -> None:
    embedding = nn.Embedding(80, 64)
    head = Layer(64, 80)
    head.register_parameter("weight", embedding.get_parameter("weight"))
    UnquantizedLinear().process_weights_after_loading(head)
    x = torch.randn(3, 64)
    torch.testing.assert_close(
        UnquantizedLinear().apply(head, x, None), x @ embedding.weight.detach().T
    )
    assert embedding.weight.shape == (80, 64)
    assert "weight" not in dict(head.named_parameters())
