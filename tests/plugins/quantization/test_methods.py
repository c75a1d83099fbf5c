"""Every method over a whole model: logprobs are transformers' with the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.checkpoints import make, reference
from tests.plugins.quantization.bitsandbytes_packers import BITSANDBYTES
from tests.plugins.quantization.checkpoints import (
    ARCHITECTURE,
    Tensors,
    quantized_copy,
    rewritten_copy,
)
from tests.plugins.quantization.marlin_packers import MARLIN
from tests.plugins.quantization.packers import CASES, Packed, compressed
from tests.plugins.quantization.tool_packers import (
    TOOLS,
    modelopt_blocks,
    modelopt_config,
    quark_config,
)

from jackfield.compute.layers.coded_linear import CodedLinear
from jackfield.config.plan import WorkerPlan
from jackfield.config.settings import make_settings
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, ScheduledBatch
from jackfield.errors import CheckpointError, ConfigError
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield_quantization.bitsandbytes import BitsAndBytesQuantization
from jackfield_quantization.compressed_tensors import CompressedTensorsQuantization
from jackfield_quantization.gptq import GptqQuantization
from jackfield_quantization.modelopt import ModelOptQuantization
from jackfield_workers.device import DeviceWorker

ALL = {**CASES, **BITSANDBYTES, **TOOLS, **MARLIN}
IDS = np.random.default_rng(0).integers(3, 400, 48).astype(np.int32)


def worker_plan(directory: Path, **options: object) -> WorkerPlan:
    settings = make_settings(
        {"model": str(directory), "dtype": "float32", "max_model_len": 128, **options}
    )
    return make_plan(settings, Registry.for_settings(settings)).engine.worker


def logprobs(plan: WorkerPlan) -> torch.Tensor:
    """Of every token of the prompt but the first, as one step computes them."""
    worker = DeviceWorker()
    worker.start(plan)
    row = AdmittedRow(0, IDS, len(IDS), TokenSampling(prompt_logprobs=0))
    num_blocks = -(-len(IDS) // plan.block_size)
    batch = ScheduledBatch(
        step=1,
        admitted=(row,),
        rows=np.array([0], dtype=np.int32),
        num_tokens=np.array([len(IDS)], dtype=np.int32),
        first_positions=np.array([0], dtype=np.int32),
        samples=np.array([True]),
        new_blocks=np.array([[0, i, i + 1] for i in range(num_blocks)], dtype=np.int32),
    )
    (found,) = worker.execute(batch).wait().logprobs
    worker.stop()
    return torch.tensor([each.logprob for each in found.prompt])


@torch.inference_mode()
def expected(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.from_numpy(IDS).long()[None]
    scores: torch.Tensor = model(ids).logits[0].log_softmax(-1)
    return scores[:-1].gather(1, ids[0, 1:, None])[:, 0]


@pytest.mark.parametrize("case", list(ALL))
def test_a_checkpoint_is_served_as_the_numbers_it_stands_for(case: str, tmp_path: Path) -> None:
    config, pack = ALL[case]
    directory, model = quantized_copy(tmp_path / "model", config, pack)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_gptq_may_have_a_bias_of_zeros_for_every_layer(tmp_path: Path) -> None:
    config, pack = CASES["gptq-4"]

    def with_bias(weight: torch.Tensor) -> Packed:
        tensors, numbers = pack(weight)
        return {**tensors, "bias": torch.zeros(len(weight), dtype=torch.float16)}, numbers

    directory, model = quantized_copy(tmp_path / "model", config, with_bias)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_blocks_of_modelopt_are_served_where_each_fused_layer_is_of_whole_ones(
    tmp_path: Path,
) -> None:
    source = make(ARCHITECTURE, intermediate_size=128, num_key_value_heads=4)
    config = modelopt_config("FP8_PB_WO")
    directory, model = quantized_copy(tmp_path / "model", config, modelopt_blocks, source)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("method", "most"),
    [
        *(("int8", 0.2), ("fp8", 0.6), ("int4", 2.0), ("bitsandbytes", 2.0)),
        *(("ptpc_fp8", 0.6), ("fp8_per_tensor", 0.6), ("fp8_per_block", 0.6), ("mxfp8", 0.6)),
        *(("deepspeedfp", 0.6), ("nvfp4_online", 2.0)),
    ],
)
def test_online_methods_round_a_plain_checkpoint(method: str, most: float) -> None:
    directory = make(ARCHITECTURE)
    exact = expected(reference(directory))
    found = logprobs(worker_plan(directory, quantization=method))
    assert not torch.equal(found, exact)
    assert float((found - exact).abs().mean()) < most


def test_a_method_that_is_not_the_checkpoints_is_refused_in_one_line(tmp_path: Path) -> None:
    config, pack = CASES["gptq-4"]
    directory, _ = quantized_copy(tmp_path / "model", config, pack)
    with pytest.raises(ConfigError, match=r"--quantization fp8, but the checkpoint .* gptq"):
        worker_plan(directory, quantization="fp8")
    assert worker_plan(directory, quantization="gptq_marlin").quantization == "gptq_marlin"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "gptq", "bits": 5}, "bits 5"),
        ({"quant_method": "gptq"}, "bits must be a whole number"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv", "group_size": 32}, "'gemv'"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8"}, "'W4A8'"),
        (compressed("sparse-24-bitmask", {}), "'sparse-24-bitmask'"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size"),
        ({"quant_method": "hqq"}, "quant_config"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 9}}}, "9"),
        ({"quant_method": "aqlm", "nbits_per_codebook": 20}, "nbits_per_codebook is 20"),
        (quark_config("int4", "per_group"), "int4, per_group"),
        ({"quant_method": "qqq", "wbits": 8}, "8 bits"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "nv_fp"}, "'nv_fp'"),
        ({"quant_method": "auto-round", "bits": 4, "packing_format": "x"}, "'x'"),
        ({"quant_method": "deepspeedfp", "bits": 7}, "not 7"),
        ({"quant_method": "ptpc_fp8"}, "plain checkpoints only"),
    ],
)
def test_what_cannot_be_read_is_named(config: dict[str, object], said: str) -> None:
    method = str(config["quant_method"])
    with pytest.raises(CheckpointError, match=re.escape(said)):
        Registry.for_settings(make_settings({})).load("quantization", method)(config)


@pytest.mark.parametrize(
    "method",
    "aqlm auto-round awq compressed-tensors fbgemm_fp8 gptq gptq_marlin_24 hqq marlin modelopt "
    "mxfp4 qqq quark".split(),
)
def test_what_only_reads_quantized_checkpoints_says_that_this_one_is_plain(method: str) -> None:
    with pytest.raises(CheckpointError, match=f"--quantization {method} .* this one is plain"):
        Registry.for_settings(make_settings({})).load("quantization", method)({})


def test_layers_of_modelopt_may_have_algorithms_of_their_own() -> None:
    names = {f"model.layers.0.self_attn.{name}_proj": "FP8" for name in "qkv"}
    names |= {"model.layers.0.mlp.down_proj": "NVFP4", "model.layers.1.mlp.up_proj": "FP8"}
    layers = {name: {"quant_algo": algorithm} for name, algorithm in names.items()}
    method = ModelOptQuantization(
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers, "exclude_modules": []}
    )
    fused = method.linear_method("model.layers.0.self_attn.qkv_proj")
    packed = method.linear_method("model.layers.0.mlp.down_proj")
    assert fused is not None and packed is not None and type(fused) is not type(packed)
    assert method.linear_method("model.layers.0.mlp.gate_up_proj") is None
    with pytest.raises(CheckpointError, match=r"fused to model\.layers\.1\.mlp\.gate_up_proj"):
        method.linear_method("model.layers.1.mlp.gate_up_proj")


@pytest.mark.parametrize("case", ["bitsandbytes-nf4", "bitsandbytes-int8", "hqq-4-axis-0"])
def test_a_packed_layer_that_is_kept_plain_here_is_decoded(case: str) -> None:
    config, pack = ALL[case]
    method: Any = Registry.for_settings(make_settings({})).load(
        "quantization", str(config["quant_method"])
    )(config)
    packed, numbers = pack(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
    stored = {f"lm_head.{name}": tensor for name, tensor in packed.items()}
    found = dict(method.translate(stored.items()))
    assert list(found) == ["lm_head.weight"]
    torch.testing.assert_close(found["lm_head.weight"], numbers)


@pytest.mark.parametrize("case", ["bitsandbytes-nf4", "bitsandbytes-int8"])
def test_a_fused_layer_with_a_part_that_is_excepted_is_plain(case: str, tmp_path: Path) -> None:
    """Unsloth's dynamic 4-bit checkpoints except single layers."""
    config, pack = ALL[case]
    excepted = "model.layers.1.self_attn.q_proj"

    def pack_others(tensors: Tensors) -> tuple[Tensors, Tensors]:
        stored, numbers = dict(tensors), dict(tensors)
        for name, tensor in tensors.items():
            if name.endswith("_proj.weight") and not name.startswith(excepted):
                packed, numbers[name] = pack(tensor)
                del stored[name]
                stored |= {name.removesuffix("weight") + own: t for own, t in packed.items()}
        return stored, numbers

    config = {**config, "llm_int8_skip_modules": ["lm_head", excepted]}
    directory, model = rewritten_copy(tmp_path / "model", config, pack_others)
    torch.testing.assert_close(logprobs(worker_plan(directory)), expected(model), atol=1e-4, rtol=0)


def test_a_part_of_a_packed_layer_is_not_enough() -> None:
    config, pack = ALL["bitsandbytes-nf4"]
    packed, _ = pack(torch.randn(64, 128))
    del packed["weight.absmax"]
    stored = {f"layer.{name}": tensor for name, tensor in packed.items()}
    method = BitsAndBytesQuantization(config)
    with pytest.raises(CheckpointError, match=r"has only .* of the quantized layer layer"):
        list(method.translate(stored.items()))


def test_exceptions_and_rules_leave_layers_plain() -> None:
    rules = {"-:.*layers\\.0\\..*": {}, r"+:.*down_proj": {"bits": 8}}
    gptq = GptqQuantization({**CASES["gptq-4"][0], "dynamic": rules})
    assert gptq.linear_method("model.layers.0.mlp.down_proj") is None
    assert gptq.linear_method("lm_head") is None
    assert gptq.linear_method("model.layers.1.self_attn.qkv_proj") is not None
    packed = CompressedTensorsQuantization(
        {
            **CASES["packed-4"][0],
            "ignore": ["lm_head", "model.layers.2.self_attn.q_proj", "re:.*layers.3.*"],
        }
    )
    assert packed.linear_method("model.layers.2.self_attn.qkv_proj") is None
    assert packed.linear_method("model.layers.3.mlp.gate_up_proj") is None
    assert packed.linear_method("model.layers.20.self_attn.qkv_proj") is not None


def test_a_group_that_names_a_layer_goes_before_one_that_names_its_class() -> None:
    weights = {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True}
    groups = {
        "group_0": {"targets": ["Linear"], "weights": weights},
        "group_1": {"targets": ["re:.*down_proj"], "weights": {**weights, "num_bits": 8}},
    }
    method = CompressedTensorsQuantization(
        {"format": "pack-quantized", "config_groups": groups, "quant_method": "compressed-tensors"}
    )
    for name, words in (("down_proj", 64 // 4), ("gate_up_proj", 64 // 8)):
        layer = method.linear_method(f"model.layers.0.mlp.{name}")
        assert isinstance(layer, CodedLinear)
        assert layer.stored(32, 64, torch.float32)["weight_packed"].shape == (32, words)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"-:layers.(": {}}},
        {"quant_method": "gptq", "bits": 4, "modules_to_not_convert": ["re:layers.("]},
    ],
)
def test_a_pattern_that_is_none_is_told_as_the_checkpoints_fault(config: dict[str, Any]) -> None:
    method = GptqQuantization(config)
    with pytest.raises(CheckpointError, match=r"'layers\.\(' is no pattern"):
        method.linear_method("model.layers.0.mlp.down_proj")
