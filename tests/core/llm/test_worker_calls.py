"""Methods of workers, called through an engine process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.checkpoints import make

from jackfield import LLM, SamplingParams
from jackfield.errors import ConfigError, EngineError, RequestError

GREEDY = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)


def start(extension: str) -> LLM:
    return LLM(
        str(make("Qwen3ForCausalLM")),
        device="cpu",
        max_model_len=64,
        use_tqdm_on_load=False,
        worker_extension_cls=extension,
    )


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with start("tests.core.engine.extensions.Extension") as llm:
        yield llm


def test_arguments_and_results_are_plain_values(llm: LLM) -> None:
    assert llm.collective_rpc("add", args=(2, 3)) == [5]
    assert llm.collective_rpc("add", args=(2,), kwargs={"scale": 10}) == [30]
    sent = (None, True, -7, 2.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}})
    answer = [{"args": list(sent), "kwargs": {"x": [1]}}]
    assert llm.collective_rpc("echo", None, sent, {"x": [1]}) == answer


def test_a_method_may_change_the_model(llm: LLM) -> None:
    ids = [3, 1, 4, 1, 5]
    before = llm.generate([ids], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    (total,) = llm.collective_rpc("scale_head", args=(-1.0,))
    after = llm.generate([ids], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    assert llm.collective_rpc("scale_head", args=(-1.0,)) == [pytest.approx(-float(str(total)))]
    again = llm.generate([ids], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    assert before == again != after


def test_what_cannot_be_sent_is_refused_and_nothing_is_called(llm: LLM) -> None:
    calls = llm.collective_rpc("num_calls")
    with pytest.raises(RequestError, match="no code is sent to the workers") as error:
        llm.collective_rpc(lambda worker: worker.add(1))  # type: ignore[arg-type]
    assert error.value.param == "method"
    for field, more in (("args", {"args": (object(),)}), ("kwargs", {"kwargs": {"a": object()}})):
        with pytest.raises(RequestError, match=f"^{field} are plain values") as error:
            llm.collective_rpc("add", **more)
        assert error.value.param == field
    with pytest.raises(RequestError, match="is no method of worker 'device'"):
        llm.collective_rpc("no_such_method")
    assert llm.collective_rpc("num_calls") == calls


def test_a_method_that_fails_is_its_callers_affair(llm: LLM) -> None:
    with pytest.raises(RequestError, match=r"^fail raised ValueError: on purpose$"):
        llm.collective_rpc("fail")
    with pytest.raises(RequestError, match="give_object was called, but returned what is no plain"):
        llm.collective_rpc("give_object")
    with pytest.raises(RequestError, match="give_bytes was called, but returned 67108869 bytes"):
        llm.collective_rpc("give_bytes", args=((64 << 20) - 1,))
    with pytest.raises(RequestError, match="add raised TypeError"):
        llm.collective_rpc("add")
    assert llm.generate([[3, 4]], GREEDY, use_tqdm=False)


def test_a_call_that_is_too_long_to_be_sent_takes_nobodys_answer(llm: LLM) -> None:
    with pytest.raises(EngineError, match="longer than 67108864"):
        llm.collective_rpc("echo", args=(bytes(65 << 20),))
    assert llm.collective_rpc("add", timeout=60.0, args=(20, 3)) == [23]


def test_nobody_waits_longer_than_asked_and_later_answers_are_ones_own(llm: LLM) -> None:
    with pytest.raises(TimeoutError, match=r"nap has not returned within 0.1 s; the call goes on"):
        llm.collective_rpc("nap", timeout=0.1, args=(0.5,))
    assert llm.collective_rpc("add", timeout=10.0, args=(20, 3)) == [23]


def test_an_extension_that_clashes_ends_the_start_in_one_line() -> None:
    with pytest.raises(ConfigError, match="worker 'device' has execute too"):
        start("tests.core.engine.extensions:Clashing")
    with pytest.raises(ConfigError, match="-cls Extension: give a class as module"):
        start("Extension")
