"""A model whose keys and values are kept in 8 bits, against transformers' own with the same
rounding, and against itself however the engine schedules, caches or preempts.

In float32, where nothing else is rounded. Scales come with the checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints import make, reference
from tests.core.test_greedy_equals_transformers import HARDEST, Setup, prompts, run
from torch import Tensor
from transformers.models.qwen3 import modeling_qwen3

from jackfield.config.settings import make_settings
from jackfield.contracts.messages import TokenLogprobs
from jackfield.contracts.sampling import SamplingParams
from jackfield.llm import LLM
from jackfield.planning import make_plan
from jackfield.registry import Registry
from jackfield_workers.device import DeviceWorker

DTYPES = {"fp8": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
SCALES = {0: (0.02, 0.01), 1: (0.3, 0.03), 2: (1.0, 0.002)}
LARGEST_DIFFERENCE = 5e-3
"""Of a logprob. The two sum in different orders, so that a number halfway between two of 8 bits
may be rounded to the other one, a sixteenth away; seldom, and it is one of thousands."""


@dataclass(frozen=True)
class EightBits(Setup):
    kv_cache_dtype: str = "fp8"
    calculate: bool = False

    @property
    def options(self) -> dict[str, object]:
        eight = {"kv_cache_dtype": self.kv_cache_dtype, "calculate_kv_scales": self.calculate}
        return {**super().options, **eight}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a scale for the keys and one for the values of each layer."""
    directory = tmp_path_factory.mktemp("scaled")
    shutil.copytree(make("Qwen3ForCausalLM"), directory, dirs_exist_ok=True)
    weights = load_file(directory / "model.safetensors")
    for layer, scales in SCALES.items():
        for name, scale in zip("kv", scales, strict=True):
            weights[f"model.layers.{layer}.self_attn.{name}_scale"] = torch.tensor([scale])
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> dict[int, list[int]]:
    """Ids of prompts that are computed whole and side by side."""
    return run(checkpoint, EightBits(prefix_cache=False))[0]


def as_kept(x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    largest = torch.finfo(dtype).max
    return (x / scale).clamp(-largest, largest).to(dtype).float() * scale


def rounded_logprobs(
    directory: Path,
    ids: Mapping[int, list[int]],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[int, Tensor]:
    """What transformers' model, whose attention sees rounded keys and values, says of each id."""
    eager = modeling_qwen3.eager_attention_forward

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **m: Any) -> Any:
        k_scale, v_scale = SCALES[module.layer_idx]
        key, value = as_kept(key, k_scale, dtype), as_kept(value, v_scale, dtype)
        return eager(module, query, key, value, *rest, **m)

    monkeypatch.setattr(modeling_qwen3, "eager_attention_forward", attend)
    model, found = reference(directory), {}
    with torch.inference_mode():
        for index, said in ids.items():
            prompt = prompts()[index]
            logits = model(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
            logprobs = logits.double().log_softmax(-1)
            found[index] = logprobs.gather(1, torch.tensor(said)[:, None])[:, 0]
    return found


def logprobs_of(entries: list[TokenLogprobs]) -> Tensor:
    return torch.tensor([entry.logprob for entry in entries], dtype=torch.float64)


@pytest.mark.parametrize("name", DTYPES)
def test_logprobs_are_those_of_transformers_with_the_same_rounding(
    name: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = EightBits(chunked=True, few_blocks=True, logprobs=1, kv_cache_dtype=name)
    ids, logprobs = run(checkpoint, setup)
    some = {index: ids[index] for index in range(0, 64, 3)}
    exact = rounded_logprobs(checkpoint, some, DTYPES[name], monkeypatch)
    differences = torch.cat([(logprobs_of(logprobs[i]) - exact[i]).abs() for i in some])
    assert differences.max() < LARGEST_DIFFERENCE
    assert differences.median() < 1e-5


@pytest.mark.parametrize(
    "setup",
    [
        EightBits(prefix_cache=False, chunked=True),
        EightBits(chunked=True, few_blocks=True),
    ],
    ids=str,
)
def test_ids_do_not_depend_on_how_a_prompt_was_cut_or_cached(
    setup: EightBits, checkpoint: Path, plain: dict[int, list[int]]
) -> None:
    ids, _ = run(checkpoint, setup)
    assert ids == plain


def test_measured_scales_lose_less_than_scales_that_do_not_fit(checkpoint: Path) -> None:
    plain = make("Qwen3ForCausalLM")
    exact, _ = run(plain, HARDEST)
    same = {}
    for calculate in (False, True):
        ids, _ = run(checkpoint, EightBits(calculate=calculate, kv_cache_dtype="fp8_e4m3"))
        same[calculate] = sum(ids[i][:8] == exact[i][:8] for i in ids)
    # The checkpoint's scales cut many keys and values off.
    assert same[True] > same[False]


def start_notes(model: Path | None, options: Mapping[str, object]) -> list[str]:
    named = {} if model is None else {"model": str(model)}
    settings = make_settings({**named, **options})
    worker = DeviceWorker()
    notes = worker.start(make_plan(settings, Registry(settings.plugin_sources)).engine.worker).notes
    worker.stop()
    return [note for note in notes if note.startswith("KV")]


def test_the_story_of_a_start_says_what_is_kept_and_where_scales_are_from(checkpoint: Path) -> None:
    plain = make("Qwen3ForCausalLM")
    for directory, setup, told in (
        (checkpoint, EightBits(), "KV scales: the checkpoint's, of 3 of 3 layers"),
        (plain, EightBits(), "KV scales: 1, since the checkpoint has none"),
        (checkpoint, EightBits(calculate=True), "KV scales: measured, keys "),
    ):
        size, scales = start_notes(directory, setup.options)
        assert size.endswith("of float8_e4m3fn")
        assert scales.startswith(told)


def test_the_cache_holds_four_times_as_many_tokens_as_in_float32(checkpoint: Path) -> None:
    room = {**Setup().options, "num_gpu_blocks_override": None, "cpu_kv_cache_gib": 0.001}
    plain, *_ = start_notes(checkpoint, room)
    eight, *_ = start_notes(checkpoint, {**room, "kv_cache_dtype": "fp8"})
    tokens, more = (int(note.split()[2]) for note in (plain, eight))
    assert 3.8 < more / tokens < 4.3


def test_the_bundled_model_says_mostly_the_same() -> None:
    texts = ["Once upon a time", "The capital of France is", "def f(n):", "Water boils at", "2 + 2"]
    params = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True, logprobs=1)
    common: dict[str, Any] = {"num_threads": 1, "use_tqdm_on_load": False, "dtype": "float32"}
    with LLM(max_model_len=256, **common) as llm:
        exact = llm.generate(texts, params, use_tqdm=False)
        whole = [(*out.prompt_token_ids, *out.outputs[0].token_ids) for out in exact]
    eight_bits: dict[str, Any] = {"kv_cache_dtype": "fp8", "calculate_kv_scales": True}
    with LLM(max_model_len=256, **common, **eight_bits) as llm:
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        forced = llm.generate(whole, asked, use_tqdm=False)
    # Of the same tokens: one that differs makes what follows another text.
    ranks, differences = [], []
    for one, again in zip(exact, forced, strict=True):
        logprobs = one.outputs[0].logprobs
        said = again.prompt_logprobs[-len(logprobs) :]
        ranks += [entry.rank for entry in said]
        differences += [abs(a.logprob - b.logprob) for a, b in zip(logprobs, said, strict=True)]
    assert ranks.count(1) >= 0.9 * len(ranks)
    assert sum(differences) / len(differences) < 0.05 and max(differences) < 0.6
