"""The synchronous door over a real engine process and a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints import make, reference

from jackfield import LLM, SamplingParams
from jackfield.errors import ConfigError, RequestError
from jackfield.llm.offline import Prompt

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def directory() -> Path:
    return make("Qwen3ForCausalLM")


@pytest.fixture(scope="module")
def llm(directory: Path) -> Iterator[LLM]:
    with LLM(str(directory), device="cpu", max_model_len=128, use_tqdm_on_load=False) as llm:
        yield llm


def greedy(directory: Path, ids: list[int], count: int) -> list[int]:
    inputs = torch.tensor([ids])
    out = reference(directory).generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
    )
    found: list[int] = out[0, len(ids) :].tolist()
    return found


def test_text_ids_and_mappings_are_prompts(llm: LLM, directory: Path) -> None:
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode("Hello")
    prompts: list[Prompt] = ["Hello", ids, {"prompt": "Hello"}, {"prompt_token_ids": ids}]
    results = llm.generate(prompts, GREEDY, use_tqdm=False)
    right = greedy(directory, ids, 12)
    assert [list(result.outputs[0].token_ids) for result in results] == [right] * 4
    assert results[0].outputs[0].text == llm.tokenizer.decode(right, skip_special_tokens=True)
    assert {result.outputs[0].finish_reason for result in results} == {"length"}


def test_prompts_may_come_from_an_iterator(llm: LLM) -> None:
    prompts: Any = ([3 + index] for index in range(3))
    results = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert [result.prompt_token_ids for result in results] == [(3,), (4,), (5,)]


def test_results_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = [[3 + index] * (index + 1) for index in range(20)]
    params = [SamplingParams(max_tokens=1 + index % 5, ignore_eos=True) for index in range(20)]
    results = llm.generate(prompts, params, use_tqdm=False)
    assert [list(result.prompt_token_ids) for result in results] == prompts
    assert [len(result.outputs[0].token_ids) for result in results] == [
        1 + index % 5 for index in range(20)
    ]


def test_seeded_choices_differ_from_each_other_and_are_repeated(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=11, temperature=1.5, max_tokens=12, ignore_eos=True)
    first, again = (llm.generate("Hi", params, use_tqdm=False)[0].outputs for _ in range(2))
    assert [choice.index for choice in first] == [0, 1, 2]
    assert len({choice.token_ids for choice in first}) == 3
    assert [choice.token_ids for choice in first] == [choice.token_ids for choice in again]


def test_stream_gives_what_generate_gives(llm: LLM) -> None:
    whole = llm.generate("Hello", GREEDY, use_tqdm=False)[0].outputs[0]
    deltas = list(llm.stream("Hello", GREEDY))
    assert "".join(delta.text for delta in deltas) == whole.text
    assert tuple(token for delta in deltas for token in delta.token_ids) == whole.token_ids
    assert [delta.finish for delta in deltas if delta.finish] == [deltas[-1].finish]


def test_a_closed_stream_leaves_the_engine_to_others(llm: LLM) -> None:
    stream = llm.stream("Hello", SamplingParams(max_tokens=100, ignore_eos=True))
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert llm.generate("Hello", GREEDY, use_tqdm=False)[0].outputs[0].finish_reason == "length"


def test_a_stop_string_ends_the_choice(llm: LLM) -> None:
    whole = llm.generate("Hello", GREEDY, use_tqdm=False)[0].outputs[0].text
    stop = whole[3:5]
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, stop=stop)
    output = llm.generate("Hello", params, use_tqdm=False)[0].outputs[0]
    assert output.text == whole[: whole.index(stop)]
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)


def test_chat_renders_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    result = llm.chat(messages, GREEDY, use_tqdm=False)[0]
    assert result.prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_prompt_logprobs_are_those_of_transformers(llm: LLM, directory: Path) -> None:
    ids = list(range(3, 40))
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1)
    result = llm.generate([ids], params, use_tqdm=False)[0]
    with torch.inference_mode():
        logits = reference(directory)(torch.tensor([ids])).logits[0, :-1]
    right = logits.double().log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    ours = [entry.logprob for entry in result.prompt_logprobs]
    assert ours == pytest.approx(right.tolist(), abs=1e-4)


def test_a_prompt_that_cannot_be_served_raises_its_own_error(llm: LLM) -> None:
    with pytest.raises(RequestError, match="128") as caught:
        llm.generate([[3] * 10, [3] * 200], GREEDY, use_tqdm=False)
    assert caught.value.param == "prompt"
    with pytest.raises(RequestError, match="not float"):
        llm.generate([0.5], GREEDY, use_tqdm=False)  # type: ignore[arg-type]
    assert llm.generate("Hello", GREEDY, use_tqdm=False)


def test_a_missing_model_is_one_error_before_any_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        LLM(str(tmp_path / "nowhere"))


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="max_model_len"):
        LLM("somewhere", max_model_length=3)
