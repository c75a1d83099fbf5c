"""bitsandbytes' tensors of one layer, as transformers stores them; see ``packers``."""

from __future__ import annotations

import json

import torch
from tests.plugins.quantization.packers import Packed, Packer
from torch import Tensor

# QLoRA (arXiv 2305.14314), appendix E.
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
]
_FP4 = [0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4]
TABLES = {"nf4": NF4, "fp4": [*_FP4, *(-number for number in _FP4)]}


def bnb_4_bits(kind: str, *, nested: bool = False, block: int = 64) -> Packer:
    def pack(weight: Tensor) -> Packed:
        table = torch.tensor(TABLES[kind])
        flat = weight.reshape(-1, block)
        magnitudes = flat.abs().amax(1)
        codes = (flat[..., None] / magnitudes[:, None, None] - table).abs().argmin(-1).view(-1, 2)
        state: dict[str, object] = {
            "quant_type": kind,
            "blocksize": block,
            "dtype": "float32",
            "shape": list(weight.shape),
        }
        tensors = {
            "weight": (codes[:, 0] << 4 | codes[:, 1]).to(torch.uint8)[:, None],
            "weight.absmax": magnitudes,
            "weight.quant_map": table,
        }
        if nested:
            steps = torch.linspace(-1, 1, 256)
            offset = float(magnitudes.mean())
            padded = torch.nn.functional.pad(magnitudes - offset, (0, -len(magnitudes) % 8))
            factors = padded.view(-1, 8).abs().amax(1)
            places = (padded.view(-1, 8, 1) / factors[:, None, None] - steps).abs().argmin(-1)
            magnitudes = (steps[places] * factors[:, None] + offset).flatten()[: len(magnitudes)]
            tensors |= {
                "weight.absmax": places.flatten()[: len(magnitudes)].to(torch.uint8),
                "weight.nested_absmax": factors,
                "weight.nested_quant_map": steps,
            }
            state |= {"nested_blocksize": 8, "nested_dtype": "float32", "nested_offset": offset}
        text = json.dumps(state).encode()
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(text)).byte()
        numbers = table[codes.view(-1, block)] * magnitudes[:, None]
        return tensors, numbers.view_as(weight)

    return pack


def bnb_8_bits(weight: Tensor) -> Packed:
    magnitudes = weight.abs().amax(1)
    codes = (weight * 127 / magnitudes[:, None]).round()
    tensors = {
        "weight": codes.to(torch.int8),
        "SCB": magnitudes,
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    return tensors, codes * magnitudes[:, None] / 127


_CONFIG: dict[str, object] = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": None}
BITSANDBYTES: dict[str, tuple[dict[str, object], Packer]] = {
    "bitsandbytes-nf4": (
        {**_CONFIG, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        bnb_4_bits("nf4"),
    ),
    "bitsandbytes-nf4-nested": (
        {**_CONFIG, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        bnb_4_bits("nf4", nested=True, block=128),
    ),
    "bitsandbytes-fp4": (
        {**_CONFIG, "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        bnb_4_bits("fp4"),
    ),
    "bitsandbytes-int8": ({**_CONFIG, "load_in_8bit": True}, bnb_8_bits),
}
