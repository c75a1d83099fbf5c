"""Tensors of one layer as hqq, aqlm, quark, auto-round and FBGEMM store them; see ``packers``."""

from __future__ import annotations

import torch
from tests.plugins.quantization.packers import (
    GROUP,
    Packed,
    Packer,
    awq,
    compressed,
    fp8,
    gptq,
    int8_channels,
    mxfp4,
    packed_integers,
)
from torch import Tensor


def hqq(bits: int, axis: int, *, as_floats: bool = False) -> Packer:
    def pack(weight: Tensor) -> Packed:
        shape = (-1, GROUP) if axis == 1 else (GROUP, -1)
        groups = weight.reshape(shape)
        low, high = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
        scale = (high - low) / (2**bits - 1)
        zero = -low / scale
        codes = (groups / scale + zero).round()
        numbers = ((codes - zero) * scale).view_as(weight)
        in_words, count = bits == 3, 10 if bits == 3 else 8 // bits
        rows = torch.nn.functional.pad(codes.int(), (0, 0, 0, -len(codes) % count))
        packed = torch.zeros(len(rows) // count, rows.shape[1], dtype=torch.int32)
        for place, part in enumerate(rows.chunk(count)):
            packed |= part << (bits * (count - 1 - place))
        stored = packed if in_words else packed.to(torch.uint8)
        name = "3bit_32" if in_words else f"{bits}bit_u8"
        return {
            "W_q": stored.view(torch.float32) if as_floats else stored,
            "scale": scale,
            "zero": zero,
            "shape": torch.tensor(weight.shape),
            "packing": torch.tensor(list(name.encode())).byte(),
            "axis": torch.tensor(axis, dtype=torch.int32),
            "nbits": torch.tensor(bits, dtype=torch.int32),
            "group_size": torch.tensor(GROUP, dtype=torch.int32),
            "encoded_state_dict": torch.tensor(1, dtype=torch.uint8),
            "stores_quant_config": torch.tensor(1, dtype=torch.uint8),
        }, numbers

    return pack


def _hqq_config(bits: int, axis: int) -> dict[str, object]:
    own = {"weight_quant_params": {"nbits": bits, "group_size": GROUP, "axis": axis}}
    return {"quant_method": "hqq", "skip_modules": ["lm_head"], "quant_config": own}


def aqlm(codebooks: int, bits: int, out_group: int = 1) -> Packer:
    def pack(weight: Tensor) -> Packed:
        generator = torch.Generator().manual_seed(weight.shape[0])
        outputs, inputs = weight.shape
        groups = (outputs // out_group, inputs // 8)
        codes = torch.randint(0, 2**bits, (*groups, codebooks), generator=generator)
        books = torch.randn(codebooks, 2**bits, out_group, 8, generator=generator) * 0.1
        scales = torch.rand(groups[0], 1, 1, 1, generator=generator) + 0.5
        numbers = torch.zeros(outputs, inputs)
        for row in range(groups[0]):
            entries = sum(books[i, codes[row, :, i]] for i in range(codebooks))
            assert isinstance(entries, Tensor)
            own = (entries * scales[row, 0]).transpose(0, 1).reshape(out_group, inputs)
            numbers[row * out_group : (row + 1) * out_group] = own
        signed = torch.where(codes >= 2 ** (bits - 1), codes - 2**bits, codes)
        dtype = torch.int8 if bits <= 8 else torch.int16
        return {"codes": signed.to(dtype), "codebooks": books, "scales": scales}, numbers

    return pack


def _aqlm_config(codebooks: int, bits: int, out_group: int = 1) -> dict[str, object]:
    return {
        "quant_method": "aqlm",
        "num_codebooks": codebooks,
        "nbits_per_codebook": bits,
        "in_group_size": 8,
        "out_group_size": out_group,
        "linear_weights_not_to_quantize": ["model.embed_tokens.weight", "lm_head.weight"],
    }


def quark_int8(*, static: bool) -> Packer:
    def pack(weight: Tensor) -> Packed:
        tensors, numbers = int8_channels(weight)
        tensors["weight_scale"] = tensors["weight_scale"][:, 0]
        tensors["weight_zero_point"] = torch.zeros(len(weight), dtype=torch.int8)
        if static:
            tensors["input_scale"] = torch.tensor(0.1)
            tensors["input_zero_point"] = torch.tensor(3, dtype=torch.int8)
        return tensors, numbers

    return pack


def quark_mxfp4(weight: Tensor) -> Packed:
    tensors, numbers = mxfp4(weight)
    return {"weight": tensors["weight_packed"], "weight_scale": tensors["weight_scale"]}, numbers


def quark_config(dtype: str, scheme: str, **more: object) -> dict[str, object]:
    return {
        "quant_method": "quark",
        "exclude": ["lm_head"],
        "layer_quant_config": {},
        "global_quant_config": {"weight": {"dtype": dtype, "qscheme": scheme, **more}},
    }


def modelopt_blocks(weight: Tensor) -> Packed:
    """Blocks of 128 by 128, the last ones smaller."""
    outputs, inputs = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -inputs % 128, 0, -outputs % 128))
    blocks = padded.view(len(padded) // 128, 128, -1, 128)
    scales = blocks.abs().amax((1, 3), keepdim=True) / 448
    codes = (blocks / scales).to(torch.float8_e4m3fn)
    numbers = (codes.float() * scales).view_as(padded)[:outputs, :inputs]
    own = codes.view_as(padded)[:outputs, :inputs]
    return {"weight": own, "weight_scale": scales}, numbers


def modelopt_channels(weight: Tensor) -> Packed:
    tensors, numbers = fp8("channel")(weight)
    return {**tensors, "weight_scale": tensors["weight_scale"][:, 0]}, numbers


def mxfp8(weight: Tensor) -> Packed:
    blocks = weight.view(len(weight), -1, 32)
    exponents = (blocks.abs().amax(2) / 448).log2().ceil()
    steps = torch.exp2(exponents)[..., None]
    codes = (blocks / steps).to(torch.float8_e4m3fn)
    tensors = {
        "weight": codes.view_as(weight),
        "weight_scale": (exponents + 127).to(torch.uint8),
    }
    return tensors, (codes.float() * steps).view_as(weight)


def modelopt_config(algorithm: str, **more: object) -> dict[str, object]:
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], **more}


def without_order(pack: Packer) -> Packer:
    def packed(weight: Tensor) -> Packed:
        tensors, numbers = pack(weight)
        return {name: tensor for name, tensor in tensors.items() if name != "g_idx"}, numbers

    return packed


_ROUND: dict[str, object] = {
    "quant_method": "auto-round",
    "bits": 4,
    "group_size": GROUP,
    "data_type": "int",
    "block_name_to_quantize": "model.layers",
}
TOOLS: dict[str, tuple[dict[str, object], Packer]] = {
    **{
        f"hqq-{bits}-axis-{axis}": (_hqq_config(bits, axis), hqq(bits, axis))
        for bits, axis in ((8, 1), (4, 1), (3, 1), (2, 1), (4, 0), (3, 0))
    },
    "hqq-4-as-floats": (_hqq_config(4, 1), hqq(4, 1, as_floats=True)),
    "aqlm-1x16": (_aqlm_config(1, 16), aqlm(1, 16)),
    "aqlm-2x8": (_aqlm_config(2, 8), aqlm(2, 8)),
    "aqlm-2x8-two-outputs": (_aqlm_config(2, 8, 2), aqlm(2, 8, 2)),
    "quark-fp8": (quark_config("fp8_e4m3", "per_tensor"), fp8("tensor", static=True)),
    "quark-fp8-channel": (quark_config("fp8_e4m3", "per_channel"), fp8("channel")),
    "quark-int8": (quark_config("int8", "per_channel"), quark_int8(static=False)),
    "quark-int8-static": (quark_config("int8", "per_channel"), quark_int8(static=True)),
    "quark-mxfp4": (
        quark_config("fp4", "per_group", group_size=32, scale_format="e8m0"),
        quark_mxfp4,
    ),
    "modelopt-channels": (modelopt_config("FP8_PER_CHANNEL_PER_TOKEN"), modelopt_channels),
    "modelopt-mxfp8": (modelopt_config("MXFP8"), mxfp8),
    "compressed-tensors-mxfp8": (
        compressed(
            "mxfp8-quantized",
            {"type": "float", "num_bits": 8, "strategy": "group", "group_size": 32},
        ),
        mxfp8,
    ),
    **{
        f"packed-{bits}": (
            compressed(
                "pack-quantized",
                {
                    **{"type": "int", "num_bits": bits, "strategy": "group"},
                    **{"group_size": GROUP, "symmetric": False},
                },
            ),
            packed_integers(bits, symmetric=False),
        )
        for bits in (3, 6)
    },
    "fbgemm-fp8": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, fp8("channel")),
    "auto-round-gptq": (
        {**_ROUND, "packing_format": "auto_round:auto_gptq"},
        without_order(gptq(4)),
    ),
    "auto-round-gptqmodel": (
        {**_ROUND, "bits": 8, "packing_format": "auto_round:gptqmodel"},
        gptq(8, version=2),
    ),
    "auto-round-awq": ({**_ROUND, "packing_format": "auto_round:auto_awq"}, awq),
}
"""Name -> (``quantization_config``, packer)."""
