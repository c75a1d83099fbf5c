"""Drives a model runner as an engine would: rows, blocks and steps, one request a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from tests.core.compute.paged_model import PlainAttention, PlainModel

from jackfield.compute.cuda_graphs import CaptureError
from jackfield.compute.logits_processors import LoadProcessor
from jackfield.compute.model_runner import ModelRunner
from jackfield.config.plan import WorkerPlan
from jackfield.contracts.sampling import TokenSampling
from jackfield.contracts.work import AdmittedRow, PendingStep, RowLogprobs, ScheduledBatch

CPU = torch.device("cpu")
BLOCK = 4


class HostPlatform:
    name: ClassVar[str] = "host"
    api_version: ClassVar[int] = 1
    steps_in_flight: ClassVar[int] = 1
    default_attention_backend: ClassVar[str] = "plain"

    @classmethod
    def available(cls) -> bool:
        return True

    def device(self, rank: int) -> torch.device:
        return CPU

    def memory(self, device: torch.device) -> tuple[int, int]:
        return (1 << 30, 1 << 30)


class ReplayedFunction:
    """A ``GraphRecorder`` without CUDA: to replay is to run the recorded function again."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0
        self.num_cuts = 0
        self.room = True
        self.most: int | None = None
        """Bodies that can be captured; those behind them wait for the device."""

    def cut(self) -> None:
        self.num_cuts += 1

    def has_room(self) -> bool:
        return self.room

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        body()
        if self.recorded == self.most:
            raise CaptureError("this one waits for the device")
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            body()

        return replay


def plan(**changes: object) -> WorkerPlan:
    values: dict[str, object] = {
        "model": "",
        "config": {"hidden_size": 32, "vocab_size": 96, "num_attention_heads": 2},
        "device": "host",
        "dtype": "float32",
        "max_model_len": 64,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "block_size": BLOCK,
        "cpu_kv_cache_bytes": 1 << 22,
        **changes,
    }
    return WorkerPlan(**values)  # type: ignore[arg-type]


@dataclass
class Request:
    row: int
    tokens: list[int]
    sampling: TokenSampling
    num_prompt: int
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    admitted: bool = False
    output: list[int] = field(default_factory=list)
    logprobs: list[RowLogprobs] = field(default_factory=list)
    failed: str | None = None


class Driver:
    """Runs requests; the host looks at a sampled token only ``steps_ahead`` steps later."""

    def __init__(
        self,
        runner_plan: WorkerPlan | None = None,
        recorder: ReplayedFunction | None = None,
        load_processor: LoadProcessor | None = None,
        make_model: Callable[[PlainAttention], PlainModel] = PlainModel,
    ) -> None:
        self.plan = runner_plan or plan()
        backend = PlainAttention(CPU, torch.float32, self.plan.block_size)
        self.model = make_model(backend)
        self.runner = ModelRunner(
            self.plan, HostPlatform(), self.model, backend, CPU, recorder, load_processor
        )
        self.capacity = self.runner.start()
        self._free = list(range(1, self.capacity.num_blocks))
        self._steps = 0

    def request(
        self, row: int, tokens: Sequence[int], sampling: TokenSampling | None = None
    ) -> Request:
        return Request(row, list(tokens), sampling or TokenSampling(), len(tokens))

    def step(self, work: Sequence[tuple[Request, int]]) -> None:
        """Computes (request, tokens) and takes in what came out."""
        work = sorted(work, key=lambda pair: pair[1] != 1)
        admitted, blocks = [], []
        for request, count in work:
            if not request.admitted:
                request.admitted = True
                ids = np.array(request.tokens, dtype=np.int32)
                admitted.append(AdmittedRow(request.row, ids, request.num_prompt, request.sampling))
                blocks += [(request.row, i, b) for i, b in enumerate(request.blocks)]
            while len(request.blocks) * self.plan.block_size < request.computed + count:
                blocks.append((request.row, len(request.blocks), self._free[0]))
                request.blocks.append(self._free.pop(0))
        self._steps += 1
        samples = [r.computed + count == r.num_prompt + len(r.output) for r, count in work]
        batch = ScheduledBatch(
            step=self._steps,
            admitted=tuple(admitted),
            rows=np.array([r.row for r, _ in work], dtype=np.int32),
            num_tokens=np.array([count for _, count in work], dtype=np.int32),
            first_positions=np.array([r.computed for r, _ in work], dtype=np.int32),
            samples=np.array(samples, dtype=np.bool_),
            new_blocks=np.array(blocks, dtype=np.int32).reshape(-1, 3),
        )
        output = self.execute(batch).wait()
        failed = dict(output.failed)
        for (request, count), sampled, token in zip(
            work, samples, output.token_ids.tolist(), strict=True
        ):
            request.computed += count
            request.failed = failed.get(request.row, request.failed)
            if sampled:
                request.output.append(token)
        for logprobs in output.logprobs:
            next(r for r, _ in work if r.row == logprobs.row).logprobs.append(logprobs)

    def execute(self, batch: ScheduledBatch) -> PendingStep:
        """Gives the step to the runner."""
        return self.runner.execute(batch)

    def run(self, requests: Sequence[Request], num_tokens: int, budget: int = 1000) -> None:
        """All requests to ``num_tokens`` output tokens, at most ``budget`` tokens a step."""
        while any(len(r.output) < num_tokens for r in requests):
            work, left = [], budget
            for r in requests:
                todo = r.num_prompt + len(r.output) - r.computed
                count = min(todo, left)
                if len(r.output) < num_tokens and count:
                    work.append((r, count))
                    left -= count
            self.step(work)
