"""Layers packed by the public packages, where they are installed, and by transformers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.paged_steps import context
from torch import Tensor, nn
from transformers.integrations import mxfp4

from jackfield.compute.layers.linear import ColumnParallelLinear
from jackfield.compute.weights import load_weights, translated
from jackfield.contracts.model import QuantizationMethod
from jackfield_quantization.aqlm import AqlmQuantization
from jackfield_quantization.bitsandbytes import BitsAndBytesQuantization
from jackfield_quantization.hqq import HqqQuantization
from jackfield_quantization.mxfp4 import Mxfp4Quantization

WEIGHT = torch.randn(128, 256, generator=torch.Generator().manual_seed(0))


def installed(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip(name)
    return module


def numbers(method: QuantizationMethod, stored: Mapping[str, Tensor]) -> Tensor:
    """What a layer of 256 inputs and 128 outputs multiplies by."""
    layer = ColumnParallelLinear(
        256, 128, context=replace(context(), quantization=method), prefix="layer"
    )
    model = nn.ModuleDict({"layer": layer})
    with torch.inference_mode():
        load_weights(model, translated(stored.items(), method))
        product: Tensor = layer(torch.eye(256))
    return product.T


@pytest.mark.parametrize("part", ["gate_proj", "up_proj", "down_proj"])
def test_experts_are_what_transformers_makes_of_them(part: str) -> None:
    generator = torch.Generator().manual_seed(1)
    name = "down_proj" if part == "down_proj" else "gate_up_proj"
    rows = 128 if part == "down_proj" else 256
    blocks = torch.randint(0, 256, (1, rows, 8, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(120, 130, (1, rows, 8), dtype=torch.uint8, generator=generator)
    whole = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)[0].T
    expected = {"gate_proj": whole[0::2], "up_proj": whole[1::2], "down_proj": whole}[part]
    method = Mxfp4Quantization({"quant_method": "mxfp4"})
    stored = {f"m.experts.{name}_blocks": blocks, f"m.experts.{name}_scales": scales}
    own = {
        key.removeprefix(f"m.experts.0.{part}."): tensor
        for key, tensor in method.translate(stored.items())
        if f".{part}." in key
    }
    found = numbers(method, {f"layer.{key}": own[key] for key in own})
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_reads_the_same(kind: str, nested: bool) -> None:
    functional: Any = installed("bitsandbytes").functional
    packed, state = functional.quantize_4bit(WEIGHT, quant_type=kind, compress_statistics=nested)
    stored = {"layer.weight": packed}
    stored |= {f"layer.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    method = BitsAndBytesQuantization(
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    )
    found = numbers(method, stored)
    torch.testing.assert_close(found, functional.dequantize_4bit(packed, state))


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_hqq_reads_the_same(bits: int, axis: int) -> None:
    quantize: Any = installed("hqq.core.quantize")
    config = quantize.BaseQuantizeConfig(nbits=bits, group_size=64, axis=axis)
    plain = nn.Linear(256, 128, bias=False)
    plain.weight.data = WEIGHT.clone()
    layer = quantize.HQQLinear(
        plain, quant_config=config, compute_dtype=torch.float32, device="cpu", del_orig=False
    )
    stored = {f"layer.{key}": value for key, value in layer.state_dict().items()}
    method = HqqQuantization({"quant_method": "hqq", "quant_config": dict(config)})
    torch.testing.assert_close(numbers(method, stored), layer.dequantize())


@pytest.mark.parametrize(("codebooks", "bits"), [(1, 16), (2, 8)])
def test_aqlm_reads_the_same(codebooks: int, bits: int) -> None:
    aqlm: Any = installed("aqlm.utils")
    codes = torch.randint(0, 2**bits, (128, 32, codebooks))
    books, scales = torch.randn(codebooks, 2**bits, 1, 8), torch.rand(128, 1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = aqlm._dequantize_weight(codes, books, scales)
    stored = {
        "layer.codes": aqlm.pack_int_data(codes.clone(), bits),
        "layer.codebooks": books,
        "layer.scales": scales,
    }
    method = AqlmQuantization(
        {"quant_method": "aqlm", "num_codebooks": codebooks, "nbits_per_codebook": bits}
    )
    torch.testing.assert_close(numbers(method, stored), expected)
