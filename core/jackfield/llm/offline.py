"""The synchronous door: ``LLM(directory).generate(prompts)``, for programs and benchmarks."""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import weakref
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from jackfield.config.command_line import parse_arguments
from jackfield.config.settings import Settings, make_settings
from jackfield.contracts.generation import ChoiceDelta, GenerationRequest
from jackfield.contracts.sampling import SamplingParams
from jackfield.contracts.text import Tokenizer
from jackfield.errors import RequestError
from jackfield.hooks import Hooks
from jackfield.llm.door import AsyncLLM
from jackfield.llm.offline_pooling import OfflinePooling, gather_all, is_one_prompt
from jackfield.llm.offline_pooling import Prompt as Prompt
from jackfield.llm.outputs import RequestOutput, merge_choice
from jackfield.planning import make_plan
from jackfield.registry import HOOKS, Registry

log = logging.getLogger(__name__)

Message = Mapping[str, object]
T = TypeVar("T")


class LLM(OfflinePooling):
    """A model in an engine process of its own, used from ordinary code.

    ``LLM(model, **options)`` takes every option of ``jackfield serve`` by its name with
    underscores (``max_model_len=4096``). It is ready when the constructor returns. Use it as a
    context manager, or call ``close``; the engine process also ends with the program. Methods
    may be called from several threads.

        with LLM("path/to/model") as llm:
            print(llm.generate("Once upon a time")[0].outputs[0].text)
    """

    def __init__(self, model: str | None = None, **options: object) -> None:
        named = {} if model is None else {"model": model}
        self._begin(make_settings({**named, **options}))

    @classmethod
    def from_arguments(cls, words: Sequence[str]) -> LLM:
        """An engine from command-line words, those of ``jackfield serve``."""
        settings, notes = parse_arguments(words)
        for note in notes:
            log.warning("%s", note)
        self = cls.__new__(cls)
        self._begin(settings)
        return self

    def _begin(self, settings: Settings) -> None:
        registry = Registry.for_settings(settings)
        hooks = Hooks.installed(registry) if registry.list(HOOKS) else None
        self._llm = AsyncLLM(make_plan(settings, registry, hooks), registry)
        self._llm.launch()
        self._ids = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="jackfield", daemon=True)
        thread.start()
        self._finalizer = weakref.finalize(self, _shut_down, self._llm, self._loop, thread)
        try:
            self._call(self._llm.start())
        except BaseException:
            self._finalizer()
            raise

    def close(self) -> None:
        """Ends the engine process; idempotent."""
        self._finalizer()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None with ``skip_tokenizer_init``."""
        return self._llm.tokenizer

    @property
    def max_model_len(self) -> int:
        """Context length in tokens."""
        return self._llm.max_model_len

    def default_sampling_params(self) -> SamplingParams:
        """What the checkpoint's generation_config recommends, with 16 tokens at most."""
        return SamplingParams(**self._llm.plan.generation_defaults)  # type: ignore[arg-type]

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continues every prompt, all at once, and returns the results in the prompts' order.

        A prompt is a text, a list of token ids, or a mapping with ``prompt`` or
        ``prompt_token_ids``. One ``SamplingParams`` is for all prompts; a list has one for each.
        Raises ``RequestError`` for the first prompt that cannot be served.
        """
        listed = [prompts] if is_one_prompt(prompts) else list(prompts)
        requests = [
            self._request(prompt, params)  # type: ignore[arg-type]
            for prompt, params in zip(listed, _one_each(sampling_params, len(listed)), strict=True)
        ]
        return self._call(self._collect_all(requests, use_tqdm))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, object]] = (),
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, object] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """``generate`` for one conversation or several, through the chat template.

        The text of an output is the model's own, reasoning and tool calls included.
        """
        one = not messages or isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = [messages] if one else messages
        requests = []
        for conversation, params in zip(
            conversations, _one_each(sampling_params, len(conversations)), strict=True
        ):
            rendered = self._llm.prompts.from_chat(
                conversation,
                tools=tools,
                chat_template=chat_template,
                template_kwargs=chat_template_kwargs or {},
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
            requests.append(self._make(rendered.token_ids, rendered.text, params))
        return self._call(self._collect_all(requests, use_tqdm))

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Iterator[ChoiceDelta]:
        """Continues one prompt and yields what its choices gain, as it comes.

        Closing the iterator aborts the request.
        """
        request = self._request(prompt, sampling_params)
        deltas: queue.SimpleQueue[list[ChoiceDelta] | BaseException | None] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async for gained in self._llm.stream(request):
                    deltas.put(gained)
                deltas.put(None)
            except BaseException as error:
                deltas.put(error)
                raise

        task = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        try:
            while (gained := deltas.get()) is not None:
                if isinstance(gained, BaseException):
                    raise gained
                yield from gained
        finally:
            task.cancel()

    def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> list[object]:
        """Calls a method of every worker by its name: see ``AsyncLLM.collective_rpc``."""
        return self._call(self._llm.collective_rpc(method, timeout, args, kwargs))

    # --- inside ------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop's thread; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _request(self, prompt: Prompt, params: SamplingParams | None) -> GenerationRequest:
        return self._make(*self._ids_of(prompt), params)

    def _ids_of(self, prompt: Prompt) -> tuple[tuple[int, ...], str | None]:
        """A prompt's ids, and its text if it has one."""
        content: object = prompt
        if isinstance(prompt, Mapping):
            content = prompt.get("prompt_token_ids")
            if content is None:
                content = prompt.get("prompt")
        if isinstance(content, str):
            return self._llm.prompts.from_text(content), content
        if isinstance(content, Sequence):
            return self._llm.prompts.from_ids(content), None
        raise RequestError(
            "a prompt is a text, a list of token ids, or a mapping with 'prompt' or "
            f"'prompt_token_ids', not {type(prompt).__name__}",
            param="prompt",
        )

    def _make(
        self, token_ids: tuple[int, ...], text: str | None, params: SamplingParams | None
    ) -> GenerationRequest:
        return GenerationRequest(
            request_id=f"offline-{next(self._ids)}",
            prompt_token_ids=token_ids,
            sampling=params or self.default_sampling_params(),
            prompt_text=text,
        )

    async def _collect_all(
        self, requests: Sequence[GenerationRequest], use_tqdm: bool
    ) -> list[RequestOutput]:
        async def one(request: GenerationRequest) -> RequestOutput:
            return _assemble(request, await self._llm.collect(request))

        return await gather_all(map(one, requests), len(requests), use_tqdm)


def _assemble(request: GenerationRequest, deltas: Sequence[ChoiceDelta]) -> RequestOutput:
    by_choice: dict[int, list[ChoiceDelta]] = {index: [] for index in range(request.sampling.n)}
    for delta in deltas:
        by_choice[delta.index].append(delta)
    outputs = tuple(merge_choice(index, part) for index, part in by_choice.items())
    failed = next((d.finish for d in deltas if d.finish and d.finish.reason == "error"), None)
    if failed is not None:
        raise RequestError(failed.message or "the request failed in the engine", failed.param)
    return RequestOutput(
        prompt=request.prompt_text,
        prompt_token_ids=request.prompt_token_ids,
        outputs=outputs,
        prompt_logprobs=tuple(entry for d in by_choice[0] for entry in d.prompt_logprobs),
        num_cached_tokens=max((d.num_cached_tokens for d in deltas), default=0),
    )


def _one_each(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> list[SamplingParams | None]:
    if params is None or isinstance(params, SamplingParams):
        return [params] * count
    if len(params) != count:
        raise RequestError(
            f"{len(params)} sampling_params for {count} prompts", param="sampling_params"
        )
    return list(params)


def _shut_down(llm: AsyncLLM, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Ends the engine process and the loop; holds no reference to the ``LLM``."""
    if loop.is_closed():
        return
    if thread.is_alive():
        asyncio.run_coroutine_threadsafe(llm.stop(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)
    loop.close()
