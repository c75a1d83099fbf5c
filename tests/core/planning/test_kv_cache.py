"""What keys and values are kept as: what the option says, else what the checkpoint does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.core.planning.conftest import CONFIG, Plan

from jackfield.errors import ConfigError

SCHEME = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"


def kv_dtype(plan: Plan, **options: object) -> str | None:
    found: str | None = plan(**options).engine.worker.kv_dtype
    return found


def say(checkpoint: Path, **quantization: object) -> None:
    config = {
        **CONFIG,
        "quantization_config": {"quant_method": "compressed-tensors", **quantization},
    }
    (checkpoint / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("said", "kept"),
    [("auto", None), ("float32", None), ("fp8", E4M3), ("fp8_e4m3", E4M3), ("fp8_e5m2", E5M2)],
)
def test_the_option_decides(plan: Plan, said: str, kept: str | None) -> None:
    assert kv_dtype(plan, kv_cache_dtype=said) == kept


@pytest.mark.parametrize(
    "quantization", [{"kv_cache_scheme": SCHEME}, {"kv_cache_quant_algo": "FP8"}]
)
def test_a_checkpoint_may_ask_for_8_bits_and_the_option_may_not(
    plan: Plan, checkpoint: Path, quantization: dict[str, object]
) -> None:
    say(checkpoint, **quantization)
    assert kv_dtype(plan) == E4M3
    assert kv_dtype(plan, kv_cache_dtype="fp8_e5m2") == E5M2
    model = plan().engine.worker.dtype
    assert kv_dtype(plan, kv_cache_dtype=model) is None


@pytest.mark.parametrize(
    "quantization",
    [{"kv_cache_scheme": {**SCHEME, "type": "int"}}, {"kv_cache_quant_algo": "NVFP4"}],
)
def test_another_scheme_is_refused_unless_the_option_says_otherwise(
    plan: Plan, checkpoint: Path, quantization: dict[str, object]
) -> None:
    say(checkpoint, **quantization)
    with pytest.raises(ConfigError, match="is not served; choose with --kv-cache-dtype"):
        plan()
    assert kv_dtype(plan, kv_cache_dtype="fp8") == E4M3


def test_null_schemes_ask_for_nothing(plan: Plan, checkpoint: Path) -> None:
    say(checkpoint, kv_cache_scheme=None, kv_cache_quant_algo=None)
    assert kv_dtype(plan) is None


def test_contradictions_are_one_line(plan: Plan) -> None:
    with pytest.raises(ConfigError, match="float16: the model computes in float32"):
        plan(kv_cache_dtype="float16")
    with pytest.raises(ConfigError, match="--calculate-kv-scales is for 8 bits"):
        plan(calculate_kv_scales=True)
