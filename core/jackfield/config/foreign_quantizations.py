"""Other engines' names of quantization methods: for kernels, and for what is not served here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PLATFORMS = {
    "ipex": "Intel's extension of PyTorch",
    "mlx_q4": "Apple's MLX",
    "mlx_q8": "Apple's MLX",
    "modelslim": "Huawei's Ascend",
    "neuron_quant": "AWS Neuron",
    "tpu_int8": "Google's TPUs",
}


def _elsewhere(platform: str) -> str:
    return (
        f"it is for {platform}; a platform of the entry-point group jackfield.platforms, with a "
        "method of the group jackfield.quantization, would bring it"
    )


KERNELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "auto_awq": ("awq",),
        "auto_gptq": ("gptq",),
        "auto_round_int8": ("auto-round",),
        "bitblas": ("gptq",),
        "cpu_awq": ("awq",),
        "cpu_gptq": ("gptq",),
        "gptq_bitblas": ("gptq",),
        "inc": ("auto-round",),
        "modelopt_fp4": ("modelopt",),
        "modelopt_fp8": ("modelopt",),
        "modelopt_mixed": ("modelopt",),
        "modelopt_mxfp8": ("modelopt",),
        "moe_wna16": ("gptq", "awq"),
        "nvfp4": ("modelopt",),
        "petit_nvfp4": ("modelopt",),
        "quark_mxfp4": ("quark",),
        "w8a8_fp8": ("compressed-tensors", "quark"),
        "w8a8_int8": ("compressed-tensors", "quark"),
    }
)
"""Names that say how to compute, and the methods of the checkpoints that they are for: here the
checkpoint's own method serves them."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **{name: _elsewhere(platform) for name, platform in _PLATFORMS.items()},
        "deepseek_v4_fp8": "it belongs to one model, which has no plugin here",
        "fp_quant": "its layers rotate their inputs; a plugin of the group jackfield.quantization "
        "would bring it",
        "humming": "it chooses among kernels that are not here; leave the option out",
        "mxfp_w4a8": "it rounds activations to 8 bits; mxfp4 checkpoints are served",
        "online": "it takes its scheme from an option that is not here; name a scheme: int8, int4, "
        "fp8, fp8_per_tensor, fp8_per_block, mxfp8",
        "quark_int4fp8_moe": "it rounds experts in two steps for AMD's kernels; take experts_int8",
        "torchao": "its files hold the tensor classes of one version of torchao; take "
        "compressed-tensors",
        "w4afp8": "it belongs to one model's checkpoints, which have no plugin here",
    }
)
"""Names with no method behind them here, and why."""
