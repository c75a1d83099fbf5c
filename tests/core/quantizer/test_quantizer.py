"""Checkpoints that ``jackfield quantize`` writes, read by other code than its own."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make, reference
from tests.plugins.quantization.test_methods import expected, logprobs, worker_plan
from torch import Tensor
from transformers import AutoModelForCausalLM

from jackfield.cli.main import main
from jackfield.cli.quantize import _texts
from jackfield.errors import ConfigError
from jackfield.quantizer import QuantizeJob, Recipe, quantize
from jackfield.quantizer.experts import unstack_experts

ARCHITECTURE = "Qwen3ForCausalLM"
SAMPLES = np.random.default_rng(1).integers(3, 400, (12, 64)).tolist()
RECIPES = {
    "fp8": Recipe("fp8"),
    "int8": Recipe("int8"),
    "int8-gptq": Recipe("int8", "gptq"),
    "w4a16": Recipe("w4a16", group_size=32),
    "w4a16-asymmetric": Recipe("w4a16", group_size=32, symmetric=False),
    "w4a16-gptq": Recipe("w4a16", "gptq", 32),
    "w4a16-gptq-asymmetric": Recipe("w4a16", "gptq", 32, symmetric=False),
    "w4a16-awq": Recipe("w4a16", "awq", 32),
}


def source() -> Path:
    return make(ARCHITECTURE, intermediate_size=128)


def quantized(target: Path, recipe: Recipe, plain: Path | None = None) -> Path:
    samples = SAMPLES if recipe.calibrated else ()
    quantize(QuantizeJob(plain or source(), target, recipe, samples=samples))
    return target


def nibbles(words: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """int32 [N, W] -> 0 .. 15 [N, 8 W], by the documented order: the lowest bits first."""
    raw = words.numpy().astype("<i4").view(np.uint8).astype(np.int64)
    return np.stack([raw & 15, raw >> 4], axis=-1).reshape(len(words), -1)


def numbers(stored: dict[str, Tensor], prefix: str) -> Tensor:
    """What the layout says that a layer's tensors stand for."""
    scale = stored[f"{prefix}.weight_scale"].double()
    if f"{prefix}.weight" in stored:
        return (stored[f"{prefix}.weight"].double() * scale).float()
    rows, columns = stored[f"{prefix}.weight_shape"].tolist()
    codes = nibbles(stored[f"{prefix}.weight_packed"])[:rows, :columns] - 8.0
    packed_zeros = stored.get(f"{prefix}.weight_zero_point")
    if packed_zeros is None:
        zeros = np.zeros_like(scale.numpy())
    else:
        zeros = nibbles(packed_zeros.T.contiguous()).T[:rows] - 8.0
    grouped = torch.from_numpy(codes.reshape(rows, scale.shape[1], -1) - zeros[..., None])
    return (grouped * scale[..., None]).reshape(rows, columns).float()


def dequantized(directory: Path, target: Path) -> Path:
    """A plain checkpoint with the same numbers."""
    stored = load_file(directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    del config["quantization_config"]
    layers = {name.rpartition(".")[0] for name in stored if name.endswith(".weight_scale")}
    plain = {n: t for n, t in stored.items() if n.rpartition(".")[0] not in layers}
    plain |= {f"{layer}.weight": numbers(stored, layer) for layer in layers}
    target.mkdir()
    save_file(plain, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config))
    return target


def layers_of(directory: Path) -> tuple[int, list[str]]:
    """How many layers are quantized, and which are said not to be."""
    described = json.loads((directory / "config.json").read_text())["quantization_config"]
    stored = load_file(directory / "model.safetensors")
    return sum(name.endswith(".weight_scale") for name in stored), described["ignore"]


def assert_served(directory: Path, tmp_path: Path) -> None:
    """The logprobs are transformers' with the same numbers."""
    model = reference(dequantized(directory, tmp_path / "plain"))
    served = logprobs(worker_plan(directory))
    torch.testing.assert_close(served, expected(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_served_as_what_its_numbers_say(name: str, tmp_path: Path) -> None:
    directory = quantized(tmp_path / "quantized", RECIPES[name])
    assert layers_of(directory) == (3 * 7, ["lm_head"])
    assert_served(directory, tmp_path)
    assert (directory / "tokenizer.json").read_bytes() == (source() / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["fp8", "int8-gptq", "w4a16-asymmetric", "w4a16-gptq"])
@pytest.mark.parametrize(
    ("architecture", "block"),
    [("Qwen3MoeForCausalLM", "mlp"), ("MixtralForCausalLM", "block_sparse_moe")],
)
def test_experts_are_quantized_and_what_chooses_them_is_not(
    architecture: str, block: str, name: str, tmp_path: Path
) -> None:
    plain = make(architecture)
    directory = quantized(tmp_path / "quantized", RECIPES[name], plain)
    routers = [f"model.layers.{layer}.{block}.gate" for layer in range(3)]
    assert layers_of(directory) == (3 * (4 + 4 * 3), ["lm_head", *routers])
    assert_served(directory, tmp_path)


def test_tensors_that_nothing_names_are_refused(tmp_path: Path) -> None:
    directory = shutil.copytree(make("MixtralForCausalLM"), tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    renamed = {name.replace("block_sparse_moe", "feed_forward"): t for name, t in tensors.items()}
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="the checkpoint has not: its tensors have other names"):
        quantized(tmp_path / "quantized", RECIPES["fp8"], directory)


def test_linear_experts_compute_what_stacked_ones_do() -> None:
    model = AutoModelForCausalLM.from_pretrained(make("Qwen3MoeForCausalLM")).eval()
    ids = torch.tensor(SAMPLES[:2])
    with torch.no_grad():
        before = model(ids).logits
        unstack_experts(model)
        after = model(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def output_error(directory: Path, tmp_path: Path) -> float:
    """How far the logits are from the plain model's, on the calibration's text."""
    ids = torch.tensor(SAMPLES)
    with torch.inference_mode():
        plain = reference(source())(ids).logits
        other = reference(dequantized(directory, tmp_path))(ids).logits
    return float((other - plain).pow(2).mean())


def test_gptq_and_awq_lose_less_than_rounding_to_nearest(tmp_path: Path) -> None:
    errors = {
        name: output_error(quantized(tmp_path / name, RECIPES[name]), tmp_path / f"{name}-plain")
        for name in ("w4a16", "w4a16-gptq", "w4a16-awq")
    }
    assert errors["w4a16-gptq"] < 0.8 * errors["w4a16"]
    assert errors["w4a16-awq"] < errors["w4a16"]


def test_scaling_by_awq_leaves_the_model_what_it_was(tmp_path: Path) -> None:
    from jackfield.quantizer.awq import scale_inputs, scaled_groups

    model = AutoModelForCausalLM.from_pretrained(source(), dtype=torch.float32).eval()
    ids = torch.tensor(SAMPLES[:2])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = model(ids).logits
        names = dict(model.named_modules())
        for group in scaled_groups(names, "model.layers.1"):
            width = names[group.layers[0]].in_features
            scale_inputs(group, names, 0.5 + torch.rand(width, generator=generator))
        after = model(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "w3"], "--method w3: there are fp8, int8, w4a16"),
        (["--method", "fp8", "--algorithm", "gptq"], "is for integers"),
        (["--method", "int8", "--algorithm", "awq"], "awq is for --method w4a16"),
        (["--method", "w4a16", "--algorithm", "gptq"], "needs a text: --calibration"),
        (["--method", "w4a16"], "--group-size 128 does not divide 64 inputs"),
        (["--method", "int8", "--calibration", "no-such-file"], "no-such-file cannot be read"),
        (["--method", "int8", "--sequence-length", "0"], "--sequence-length: 0 is not above 0"),
        (
            ["--method", "int8", "--calibration", __file__, "--sequence-length", "1"],
            "and no two in --sequence-length 1",
        ),
        ([], "--method"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(source()), str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 25])
def test_what_measures_has_not_calibrated(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [[index] for index in range(count)]
    monkeypatch.setattr("jackfield.cli.quantize._windows", lambda *_: windows)
    args = Namespace(calibration="a", evaluation=None, sequence_length=1, num_samples=count)
    calibration, measured = _texts(args, Path())
    assert measured and sorted(calibration + measured) == windows


def test_neither_what_is_quantized_nor_what_is_there_is_touched(tmp_path: Path) -> None:
    directory = quantized(tmp_path / "quantized", RECIPES["fp8"])
    with pytest.raises(ConfigError, match="is quantized already"):
        quantize(QuantizeJob(directory, tmp_path / "again", RECIPES["int8"]))
    with pytest.raises(ConfigError, match="is not an empty directory"):
        quantize(QuantizeJob(source(), directory, RECIPES["int8"]))


def test_the_command_says_what_became_of_a_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    words = ["quantize", str(source()), str(tmp_path / "out"), "--method", "int8"]
    words += ["--calibration", str(text), "--sequence-length", "32"]
    assert main(words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].startswith("perplexity of ")
    before, after = (float(part.split()[-1]) for part in lines[-1].split(","))
    assert before > 1 and abs(after / before - 1) < 0.05
