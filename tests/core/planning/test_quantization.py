"""Names of quantization methods: the user's, the checkpoint's and other engines'."""

from __future__ import annotations

from typing import Any

import pytest

from jackfield.config.foreign_quantizations import KERNELS, REFUSED
from jackfield.config.settings import make_settings
from jackfield.errors import ConfigError
from jackfield.planning.quantization import choose_quantization
from jackfield.registry import Registry

EARLY_2025 = (
    "aqlm awq deepspeedfp tpu_int8 fp8 ptpc_fp8 fbgemm_fp8 modelopt nvfp4 marlin gguf "
    "gptq_marlin_24 gptq_marlin awq_marlin gptq compressed-tensors bitsandbytes qqq hqq "
    "experts_int8 neuron_quant ipex quark moe_wna16"
).split()
LATE_2026 = (
    "auto_awq auto_gptq fp_quant modelopt_fp4 modelopt_mxfp8 modelopt_mixed torchao inc humming "
    "mxfp4 gpt_oss_mxfp4 deepseek_v4_fp8 online fp8_per_tensor fp8_per_block fp8_per_channel "
    "int8_per_channel_weight_only nvfp4_per_token mxfp8"
).split()
SGLANG = (
    "modelopt_fp8 nvfp4_online petit_nvfp4 w8a8_int8 w8a8_fp8 w4afp8 auto-round auto-round-int8 "
    "modelslim mxfp_w4a8 quark_int4fp8_moe quark_mxfp4 mlx_q4 mlx_q8"
).split()
REGISTRY = Registry.for_settings(make_settings({}))


def choose(asked: str | None, stored: str | None) -> str | None:
    config: dict[str, Any] = {}
    if stored is not None:
        config["quantization_config"] = {"quant_method": stored}
    return choose_quantization(make_settings({"quantization": asked}), config, REGISTRY)


@pytest.mark.parametrize("name", [*EARLY_2025, *LATE_2026, *SGLANG])
def test_every_name_of_the_other_engines_works_is_an_alias_or_is_refused(name: str) -> None:
    key = name.replace("-", "_")
    if key in REFUSED:
        with pytest.raises(ConfigError) as caught:
            choose(name, None)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    elif REGISTRY.offers("quantization", name):
        assert choose(name, None) == name
    else:
        for method in KERNELS[key]:
            assert choose(name, method) == method
            assert REGISTRY.offers("quantization", method)


@pytest.mark.parametrize("name", ["neuron_quant", "tpu_int8", "ipex"])
@pytest.mark.parametrize("stored", [True, False])
def test_what_needs_another_platform_names_what_would_bring_it(name: str, stored: bool) -> None:
    with pytest.raises(ConfigError, match=r"group jackfield\.platforms"):
        choose(None if stored else name, name if stored else None)


def test_a_kernels_name_is_for_its_checkpoints_only() -> None:
    assert choose("moe_wna16", "awq") == "awq"
    with pytest.raises(ConfigError, match=r"moe_wna16 is for checkpoints of gptq or awq; .* plain"):
        choose("moe_wna16", None)
    with pytest.raises(ConfigError, match="this one is quantized with fp8"):
        choose("moe_wna16", "fp8")


def test_a_checkpoint_may_say_a_kernels_name() -> None:
    assert choose(None, "modelopt_fp4") == "modelopt"
    assert choose("modelopt", "modelopt_mixed") == "modelopt"


@pytest.mark.parametrize("entry", REGISTRY.list("quantization"), ids=lambda entry: entry.name)
def test_every_other_method_than_the_checkpoints_is_refused_in_one_line(entry: Any) -> None:
    stored = "gptq" if not entry.value.startswith("jackfield_quantization.gptq:") else "awq"
    if stored == entry.name or entry.name.startswith("awq"):
        stored = "fp8"
    with pytest.raises(ConfigError, match=f"--quantization {entry.name}, but .* with {stored}"):
        choose(entry.name, stored)
    assert choose(entry.name, None) == entry.name
    assert choose(None, entry.name) == entry.name
