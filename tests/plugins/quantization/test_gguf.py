"""A GGUF file of every type over a whole model: logprobs are transformers' with its numbers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.checkpoints import make
from tests.gguf_blocks import SUPER_BLOCKS, TYPES, pack
from tests.gguf_files import convert, mixed, with_numbers, write
from tests.plugins.quantization.test_methods import expected, logprobs, worker_plan

from jackfield.checkpoint import TENSOR_TYPES
from jackfield.compute.attention.cpu import CpuAttention
from jackfield.compute.kernels.coded_layout import device_codes
from jackfield.compute.layers.coded_linear import Stacked
from jackfield.compute.layers.coded_weight import CodedWeight
from jackfield.compute.layers.embedding import LMHead, VocabParallelEmbedding
from jackfield.compute.layers.linear import ColumnParallelLinear, MergedColumnParallelLinear
from jackfield.compute.weights import load_weights
from jackfield.contracts.model import BuildContext, QuantizationMethod, TensorParallelGroup
from jackfield.errors import CheckpointError, ConfigError
from jackfield.testing import QuantizationContract
from jackfield_quantization.gguf import GgufLinear, GgufQuantization
from jackfield_quantization.gguf_blocks import encode

CPU = torch.device("cpu")
QUANTIZED = [kind for kind in TYPES if kind not in ("F32", "F16", "BF16")]


def weight(rows: int, inputs: int = 256) -> np.ndarray[Any, Any]:
    return np.random.default_rng(rows).normal(size=(rows, inputs)).astype(np.float32)


def encoded(kind: str, numbers: np.ndarray[Any, Any]) -> tuple[CodedWeight, torch.Tensor]:
    """(the weight, the numbers that it stands for)."""
    data, exact = pack(kind, numbers)
    known = TENSOR_TYPES[TYPES[kind][0]]
    return encode(kind, torch.from_numpy(data), known.block_bytes), torch.from_numpy(exact)


def context(
    types: dict[str, str],
    group: TensorParallelGroup | None = None,
    dtype: torch.dtype = torch.float32,
) -> BuildContext:
    return BuildContext(
        dtype=dtype,
        device=CPU,
        group=group or TensorParallelGroup(),
        attention_backend=CpuAttention(CPU, dtype, 8),
        max_model_len=64,
        max_num_batched_tokens=64,
        quantization=GgufQuantization({"tensor_types": types}),
    )


@pytest.mark.parametrize("kind", list(TYPES))
def test_a_file_is_served_as_the_numbers_it_stands_for(kind: str, tmp_path: Path) -> None:
    size = 256 if kind in SUPER_BLOCKS else 96
    source = make(
        "Qwen3ForCausalLM",
        hidden_size=size,
        intermediate_size=size,
        num_hidden_layers=2,
        head_dim=size // 4,
    )
    metadata, tensors, numbers = convert(source, lambda name: kind)
    write(tmp_path / "model.gguf", metadata, tensors)
    found = logprobs(worker_plan(tmp_path / "model.gguf"))
    torch.testing.assert_close(found, expected(with_numbers(source, numbers)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [
        ("LlamaForCausalLM", ("Q4_K", "Q6_K", "F16")),
        ("Qwen2ForCausalLM", ("Q5_K", "Q8_0")),
        ("MistralForCausalLM", ("Q4_0", "IQ4_NL", "BF16")),
        ("Qwen3MoeForCausalLM", ("Q4_K", "Q8_0", "F32")),
        ("GemmaForCausalLM", ("Q4_K", "Q8_0", "F32")),
        ("Gemma2ForCausalLM", ("Q6_K", "Q4_0")),
        ("Gemma3ForCausalLM", ("Q4_K", "Q6_K", "F16")),
        ("Phi3ForCausalLM", ("Q4_K", "Q6_K", "BF16")),
    ],
)
def test_types_may_be_mixed(architecture: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    source = make(
        architecture,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        head_dim=64,
        moe_intermediate_size=256,
        norm_topk_prob=True,
        query_pre_attn_scalar=64,
    )
    metadata, tensors, numbers = convert(source, mixed(kinds))
    write(tmp_path / "model.gguf", metadata, tensors)
    found = logprobs(worker_plan(tmp_path))
    torch.testing.assert_close(found, expected(with_numbers(source, numbers)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kinds", [("Q8_0", "Q5_0"), ("Q4_K", "Q6_K"), ("Q4_0", "IQ4_NL")])
def test_activations_of_bfloat16_are_near(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """As what multiplies codes on this processor rounds them."""
    source = make(
        "Qwen3ForCausalLM",
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        head_dim=64,
    )
    metadata, tensors, numbers = convert(source, mixed(kinds))
    write(tmp_path / "model.gguf", metadata, tensors)
    found = logprobs(worker_plan(tmp_path, dtype="bfloat16"))
    away = (found - expected(with_numbers(source, numbers))).abs()
    # bfloat16 alone is 0.04 and 0.12 away where logprobs differ by 2.5.
    assert float(away.mean()) < 0.08 and float(away.max()) < 0.25


class TestGguf(QuantizationContract):
    method: ClassVar[Callable[[Mapping[str, object]], QuantizationMethod]] = GgufQuantization
    config: ClassVar[Mapping[str, object]] = {"tensor_types": {"layer": "Q8_0", "qkv": "Q8_0"}}

    def stored(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"weight": torch.from_numpy(pack("Q8_0", weight.numpy())[0])}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_every_number_of_a_block_is_exact(kind: str) -> None:
    coded, exact = encoded(kind, weight(7, 512))
    assert coded.shape == (7, 512)
    assert torch.equal(coded.decode(torch.float32), exact)


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
def test_numbers_are_those_of_the_public_package(kind: str) -> None:
    public: Any = importlib.import_module("gguf")
    data, exact = pack(kind, weight(5, 512))
    theirs = public.dequantize(data, public.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(exact, theirs)


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
def test_a_file_of_the_public_package_is_read(tmp_path: Path) -> None:
    public: Any = importlib.import_module("gguf")
    source = make("Qwen3ForCausalLM")
    metadata, tensors, numbers = convert(source, lambda name: "Q8_0")
    writer = public.GGUFWriter(tmp_path / "model.gguf", "qwen3")
    for key, content in metadata.items():
        if key == "general.architecture":
            continue
        kind = public.GGUFValueType.get_type(content)
        is_id = kind is public.GGUFValueType.INT32
        writer.add_key_value(key, content, public.GGUFValueType.UINT32 if is_id else kind)
    for name, each in tensors.items():
        kinds = public.GGMLQuantizationType
        if each.kind == "F32":
            writer.add_tensor(name, each.data.view(np.float32).reshape(each.shape))
        else:
            writer.add_tensor(name, each.data, raw_dtype=kinds[each.kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = logprobs(worker_plan(tmp_path / "model.gguf"))
    torch.testing.assert_close(found, expected(with_numbers(source, numbers)), atol=1e-4, rtol=0)


def test_rows_are_encoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, exact = encoded("Q4_K", weight(9))
    monkeypatch.setattr("jackfield_quantization.gguf_blocks._NUMBERS_AT_ONCE", 700)
    coded, _ = encoded("Q4_K", weight(9))
    assert torch.equal(coded.decode(torch.float32), exact)
    assert torch.equal(coded.packed, whole.packed) and coded.nbytes == whole.nbytes


def test_parts_of_one_type_are_one_weight_and_others_follow() -> None:
    types = {"mlp.a": "Q8_0", "mlp.b": "Q8_0", "mlp.c": "Q4_K"}
    outputs = {"a": 3, "b": 4, "c": 5, "d": 2}
    own = replace(context({}), quantization=_Named(types, tuple(outputs)))
    layer = MergedColumnParallelLinear(256, outputs, context=own, prefix="mlp.abcd")
    stored, exact = {}, []
    for name, rows in outputs.items():
        kind = types.get(f"mlp.{name}", "F32")
        data, numbers = pack(kind, weight(rows))
        exact.append(torch.from_numpy(numbers))
        stored[f"mlp.{name}.weight"] = torch.from_numpy(numbers if kind == "F32" else data)
    with torch.inference_mode():
        load_weights(
            torch.nn.ModuleDict({"mlp": torch.nn.ModuleDict({"abcd": layer})}), stored.items()
        )
        x = torch.randn(5, 256)
        torch.testing.assert_close(layer(x), x @ torch.cat(exact).T, atol=1e-4, rtol=1e-4)
    coded = layer.__dict__["coded"]
    assert isinstance(coded, Stacked) and len(coded.weights) == 3
    assert isinstance(coded.weights[0], CodedWeight) and coded.weights[0].shape == (7, 256)
    # Nothing of the file is kept beside the codes.
    assert not list(layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_head_shares_the_codes_of_the_embedding(dtype: torch.dtype) -> None:
    own = context({"model.embed_tokens": "Q6_K"}, dtype=dtype)
    embedding = VocabParallelEmbedding(11, 256, context=own, prefix="model.embed_tokens")
    head = LMHead(11, 256, context=own, prefix="lm_head", tied=embedding)
    data, exact = pack("Q6_K", weight(11))
    model = torch.nn.ModuleDict({"embed": embedding, "head": head})
    with torch.inference_mode():
        load_weights(model, [("embed.weight", torch.from_numpy(data))])
        numbers = torch.from_numpy(exact)
        assert torch.equal(embedding(torch.tensor([3, 3, 10])), numbers[[3, 3, 10]].to(dtype))
        x = torch.randn(2, 256).to(dtype)
        error = (head(x).double() - x.double() @ numbers.double().T).norm() / x.norm()
        assert float(error) < (1e-4 if dtype is torch.float32 else 4e-2)
    assert not list(model.parameters())
    assert head.__dict__["coded"] is embedding.__dict__["coded"]


def test_a_head_of_8_bits_has_no_other_codes_on_a_gpu() -> None:
    """Its kernels take rows as they are; 16 at a time."""
    coded, _ = encoded("Q6_K", weight(32))
    on_device = device_codes(coded)
    assert on_device is not None and on_device.words.data_ptr() == coded.packed.data_ptr()


def test_a_shard_is_whole_blocks_or_refused() -> None:
    own = context({"layer": "Q4_K"}, TensorParallelGroup(1, 2))
    column = ColumnParallelLinear(256, 6, context=own, prefix="layer")
    data, exact = pack("Q4_K", weight(6))
    with torch.inference_mode():
        load_weights(
            torch.nn.ModuleDict({"layer": column}), [("layer.weight", torch.from_numpy(data))]
        )
        decoded = column.__dict__["coded"].decode(torch.float32)
    assert torch.equal(decoded, torch.from_numpy(exact)[3:])
    with pytest.raises(CheckpointError, match="no whole blocks of 256, which Q4_K has"):
        ColumnParallelLinear(128, 6, context=own, prefix="layer")


def test_a_mismatch_with_the_option_is_one_line(tmp_path: Path) -> None:
    metadata, tensors, _ = convert(make("Qwen3ForCausalLM"), lambda name: "Q8_0")
    write(tmp_path / "model.gguf", metadata, tensors)
    with pytest.raises(ConfigError, match=r"--quantization int8, but the checkpoint .* gguf"):
        worker_plan(tmp_path, quantization="int8")
    assert worker_plan(tmp_path, quantization="gguf", load_format="gguf").quantization == "gguf"
    with pytest.raises(CheckpointError, match=r"has no \.gguf file"):
        worker_plan(make("Qwen3ForCausalLM"), quantization="gguf")


def test_a_plain_file_may_be_rounded_while_it_loads(tmp_path: Path) -> None:
    metadata, tensors, numbers = convert(make("Qwen3ForCausalLM"), lambda name: "F32")
    write(tmp_path / "model.gguf", metadata, tensors)
    exact = expected(with_numbers(make("Qwen3ForCausalLM"), numbers))
    found = logprobs(worker_plan(tmp_path, quantization="int8"))
    assert not torch.equal(found, exact) and float((found - exact).abs().mean()) < 0.2


class _Named(GgufQuantization):
    """Fuses layers of names of its own."""

    def __init__(self, types: dict[str, str], parts: tuple[str, ...]) -> None:
        super().__init__({"tensor_types": types})
        self._parts = parts

    def linear_method(self, prefix: str) -> Any:
        beside = prefix.rpartition(".")[0]
        return GgufLinear(self.types_of([f"{beside}.{part}" for part in self._parts]))
