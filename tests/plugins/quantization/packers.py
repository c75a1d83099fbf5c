"""Quantized tensors of one layer, packed as the formats' documents say and by nothing of ours.

Each packer takes a weight [N, K] and gives the checkpoint's tensors of the layer and the numbers
that they stand for, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Packed = tuple[dict[str, Tensor], Tensor]
Packer = Callable[[Tensor], Packed]

E4M3 = torch.float8_e4m3fn
GROUP = 32


def affine(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Asymmetric rounding by groups -> codes int64 [N, K], scales and zeros [N, G], numbers."""
    blocks = weight.view(len(weight), -1, group)
    low, high = blocks.amin(2).clamp_max(0), blocks.amax(2).clamp_min(0)
    scales = ((high - low) / (2**bits - 1)).half().float()
    zeros = (-low / scales).round().clamp(1, 2**bits - 1)
    codes = (blocks / scales[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1)
    numbers = (codes - zeros[..., None]) * scales[..., None]
    return codes.view_as(weight).long(), scales, zeros.long(), numbers.view_as(weight)


def bit_string(numbers: Tensor, bits: int) -> Tensor:
    """int64 [X, Y] -> int32 [X, Y * bits / 32]: each row one long string, the lowest bits first."""
    rows = []
    for row in numbers.tolist():
        value = sum(number << (bits * i) for i, number in enumerate(row))
        raw = value.to_bytes(len(row) * bits // 8, "little")
        rows.append(np.frombuffer(raw, dtype="<i4").copy())
    return torch.from_numpy(np.stack(rows))


def gptq(bits: int, *, act_order: bool = False, version: int = 1) -> Packer:
    def pack(weight: Tensor) -> Packed:
        inputs = weight.shape[1]
        groups = torch.arange(inputs) // GROUP
        order = torch.arange(inputs)
        if act_order:
            order = torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs))
        codes, scales, zeros, numbers = affine(weight[:, order], bits, GROUP)
        back = torch.empty_like(order)
        back[order] = torch.arange(inputs)
        tensors = {
            "qweight": bit_string(codes[:, back], bits).T.contiguous(),
            "qzeros": bit_string((zeros - (1 if version == 1 else 0)).T, bits),
            "scales": scales.T.half().contiguous(),
            "g_idx": groups[back].int(),
        }
        return tensors, numbers[:, back]

    return pack


def awq(weight: Tensor) -> Packed:
    codes, scales, zeros, numbers = affine(weight, 4, GROUP)

    def interleave(rows: Tensor) -> Tensor:
        eight = rows.view(len(rows), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        return bit_string(eight.reshape(len(rows), -1), 4)

    tensors = {
        "qweight": interleave(codes.T.contiguous()),
        "qzeros": interleave(zeros.T.contiguous()),
        "scales": scales.T.half().contiguous(),
    }
    return tensors, numbers


def packed_integers(bits: int, *, symmetric: bool, act_order: bool = False) -> Packer:
    """compressed-tensors, pack-quantized."""

    def pack(weight: Tensor) -> Packed:
        inputs = weight.shape[1]
        order = torch.arange(inputs)
        if act_order:
            order = torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs))
        back = torch.empty_like(order)
        back[order] = torch.arange(inputs)
        sorted_weight = weight[:, order]
        if symmetric:
            blocks = sorted_weight.view(len(weight), -1, GROUP)
            scales = (blocks.abs().amax(2) / (2 ** (bits - 1) - 1)).bfloat16().float()
            signed = (blocks / scales[..., None]).round().clamp(-(2 ** (bits - 1)), 127)
            numbers = (signed * scales[..., None]).view_as(weight)
            codes = signed.view_as(weight).long() + 2 ** (bits - 1)
            tensors = {}
        else:
            codes, scales, zeros, numbers = affine(sorted_weight, bits, GROUP)
            tensors = {"weight_zero_point": bit_string(zeros.T, bits).T.contiguous()}
        tensors |= {
            "weight_packed": bit_string(codes[:, back], bits),
            "weight_scale": scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if act_order:
            tensors["weight_g_idx"] = (torch.arange(inputs) // GROUP)[back].int()
        return tensors, numbers[:, back]

    return pack


def int8_channels(weight: Tensor) -> Packed:
    scales = weight.abs().amax(1, keepdim=True) / 127
    codes = (weight / scales).round()
    return {"weight": codes.to(torch.int8), "weight_scale": scales}, codes * scales


def fp8(shape: str, name: str = "weight_scale", *, static: bool = False) -> Packer:
    """Scales by "tensor", "channel" or "block" (16 outputs, 32 inputs)."""

    def pack(weight: Tensor) -> Packed:
        outputs, inputs = weight.shape
        size = {"tensor": (outputs, inputs), "channel": (1, inputs), "block": (16, 32)}[shape]
        blocks = weight.view(outputs // size[0], size[0], inputs // size[1], size[1])
        scales = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / scales[:, None, :, None]).to(E4M3)
        numbers = codes.float() * scales[:, None, :, None]
        tensors = {
            "weight": codes.view(outputs, inputs),
            name: scales.view(()) if shape == "tensor" else scales,
        }
        if static:
            tensors["input_scale"] = torch.tensor(0.5)
        return tensors, numbers.view(outputs, inputs)

    return pack


FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def fp4_codes(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest E2M1 numbers -> (codes int64 with the sign in bit 3, numbers)."""
    table = torch.tensor(FP4)
    place = (blocks.abs()[..., None] - table).abs().argmin(-1)
    negative = (blocks < 0) & (place > 0)
    return place + 8 * negative, table[place] * torch.where(negative, -1.0, 1.0)


def halves(codes: Tensor) -> Tensor:
    return (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)


def nvfp4(*, packed_name: str, divisor: bool, input_name: str | None = None) -> Packer:
    def pack(weight: Tensor) -> Packed:
        blocks = weight.view(len(weight), -1, 16)
        whole = weight.abs().max() / (6 * 448)
        scales = (blocks.abs().amax(2) / 6 / whole).to(E4M3)
        steps = scales.float()[..., None] * whole
        codes, numbers = fp4_codes(blocks / steps)
        tensors = {packed_name: halves(codes.view_as(weight)), "weight_scale": scales}
        if divisor:
            tensors["weight_global_scale"] = (1 / whole).view(1)
        else:
            tensors["weight_scale_2"] = whole
        if input_name is not None:
            tensors[input_name] = torch.ones(1) if divisor else torch.tensor(1.0)
        return tensors, (numbers * steps).view_as(weight)

    return pack


def mxfp4(weight: Tensor) -> Packed:
    blocks = weight.view(len(weight), -1, 32)
    exponents = (blocks.abs().amax(2) / 4).log2().ceil()
    steps = torch.exp2(exponents)[..., None]
    codes, numbers = fp4_codes(blocks / steps)
    tensors = {
        "weight_packed": halves(codes.view_as(weight)),
        "weight_scale": (exponents + 127).to(torch.uint8),
    }
    return tensors, (numbers * steps).view_as(weight)


def compressed(form: str, weights: Mapping[str, object], **more: object) -> dict[str, object]:
    """A compressed-tensors configuration of one group."""
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, **more}},
    }


_GROUPED = {"type": "int", "strategy": "group", "group_size": GROUP}
_GPTQ = {"quant_method": "gptq", "group_size": GROUP}
CASES: dict[str, tuple[dict[str, object], Packer]] = {
    "gptq-4": ({**_GPTQ, "bits": 4}, gptq(4)),
    "gptq-4-act-order": ({**_GPTQ, "bits": 4, "desc_act": True}, gptq(4, act_order=True)),
    "gptq-2": ({**_GPTQ, "bits": 2}, gptq(2)),
    "gptq-3": ({**_GPTQ, "bits": 3}, gptq(3)),
    "gptq-8-v2": ({**_GPTQ, "bits": 8, "checkpoint_format": "gptq_v2"}, gptq(8, version=2)),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}, awq),
    "packed-4": (
        compressed("pack-quantized", {**_GROUPED, "num_bits": 4, "symmetric": True}),
        packed_integers(4, symmetric=True),
    ),
    "packed-4-zeros": (
        compressed("pack-quantized", {**_GROUPED, "num_bits": 4, "symmetric": False}),
        packed_integers(4, symmetric=False),
    ),
    "packed-8-act-order": (
        compressed(
            "pack-quantized", {**_GROUPED, "num_bits": 8, "symmetric": True, "actorder": "group"}
        ),
        packed_integers(8, symmetric=True, act_order=True),
    ),
    "int8": (
        compressed("int-quantized", {"type": "int", "num_bits": 8, "strategy": "channel"}),
        int8_channels,
    ),
    "floats-channel": (
        compressed("float-quantized", {"type": "float", "num_bits": 8, "strategy": "channel"}),
        fp8("channel"),
    ),
    "floats-block": (
        compressed(
            "float-quantized",
            {"type": "float", "num_bits": 8, "strategy": "block", "block_structure": [16, 32]},
        ),
        fp8("block"),
    ),
    "floats-tensor-static": (
        compressed(
            "float-quantized",
            {"type": "float", "num_bits": 8, "strategy": "tensor"},
            input_activations={"dynamic": False, "symmetric": True},
        ),
        fp8("tensor", static=True),
    ),
    "nvfp4": (
        compressed(
            "nvfp4-pack-quantized",
            {"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16},
            input_activations={"dynamic": "local"},
        ),
        nvfp4(packed_name="weight_packed", divisor=True, input_name="input_global_scale"),
    ),
    "mxfp4": (
        compressed(
            "mxfp4-pack-quantized",
            {"type": "float", "num_bits": 4, "strategy": "group", "group_size": 32},
        ),
        mxfp4,
    ),
    "fp8-tensor": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, fp8("tensor")),
    "fp8-tensor-static": (
        {"quant_method": "fp8", "activation_scheme": "static"},
        fp8("tensor", static=True),
    ),
    "fp8-block": (
        {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": [16, 32],
        },
        fp8("block", "weight_scale_inv"),
    ),
    "modelopt-fp8": (
        {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]},
        fp8("tensor", static=True),
    ),
    "modelopt-nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
        nvfp4(packed_name="weight", divisor=False, input_name="input_scale"),
    ),
}
"""Name -> (``quantization_config``, packer)."""
