"""Requests under a grammar: until it is compiled, and in each step they sample in."""

from __future__ import annotations

from itertools import compress

import numpy as np

from jackfield.contracts.work import Executor, HasMaskRoom, TokenMasks
from jackfield.engine.constraint import Constraint
from jackfield.engine.grammar_compiler import Compilation, GrammarCompiler
from jackfield.engine.mask_filler import MaskFiller
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep
from jackfield.errors import RAISED, RequestError

MIN_JUMP = 2
"""So many forced ids are worth a step with a prompt-like part."""

Outcome = tuple[Request, BaseException | None]


class ConstrainedRequests:
    """What the step loop needs of grammars. Costs nothing where no request has one."""

    def __init__(
        self, compiler: GrammarCompiler | None, logits_width: int, executor: Executor
    ) -> None:
        self._compiler = compiler
        make_room = executor.mask_room if isinstance(executor, HasMaskRoom) else lambda: None
        self._filler = MaskFiller(logits_width, make_room)
        self._waiting: list[tuple[Request, Compilation]] = []
        self._can_jump: dict[Request, None] = {}

    def __len__(self) -> int:
        """Requests that wait for their grammar."""
        return len(self._waiting)

    @property
    def has_ready(self) -> bool:
        """Whether ``take_ready`` would return something."""
        return any(compilation.is_over for _, compilation in self._waiting)

    def warm_up(self) -> None:
        """Loads what the first grammar needs."""
        if self._compiler is not None:
            self._compiler.warm_up()

    def forget_room(self) -> None:
        """The executor is asked for room for masks again when a step needs them."""
        self._filler.forget_room()

    def add(self, request: Request) -> None:
        """A new request with a grammar."""
        grammar = request.sampling.grammar
        assert grammar is not None
        if self._compiler is None:
            raise RequestError(
                "structured output needs the model's tokenizer, and this server runs without one",
                param="structured_outputs",
            )
        self._waiting.append((request, self._compiler.compile(grammar)))

    def take_ready(self) -> list[Outcome]:
        """Requests whose grammar is compiled, now with their constraint, or whose fails."""
        # Asked once of each: the threads go on meanwhile.
        over = [compilation.is_over for _, compilation in self._waiting]
        if not any(over):
            return []
        ready = list(compress(self._waiting, over))
        self._waiting = [
            each for each, is_over in zip(self._waiting, over, strict=True) if not is_over
        ]
        return [(request, self._settle(request, compiled)) for request, compiled in ready]

    def _settle(self, request: Request, compilation: Compilation) -> BaseException | None:
        try:
            request.constraint = Constraint(compilation.result(), request.sampling)
        except RAISED as error:
            grammar = request.sampling.grammar
            assert grammar is not None and self._compiler is not None
            self._compiler.forget(grammar, compilation)
            return None if grammar.best_effort else error
        return None

    def accept(self, request: Request, token: int) -> None:
        """Tells a request's grammar the next token; raises if it is not allowed."""
        constraint = request.constraint
        assert constraint is not None
        constraint.accept(token)
        if len(constraint.forced) >= MIN_JUMP and _needs_no_logits(request):
            self._can_jump[request] = None

    def take_jumps(self) -> list[tuple[Request, list[int]]]:
        """Requests that run, and the forced ids that follow on those known and in flight: as many
        as leave a token to sample, none of which ends the output."""
        jumps = []
        for request in self._can_jump:
            assert request.constraint is not None
            ids = request.constraint.forced[request.num_in_flight :]
            ids = ids[: max(0, request.max_num_tokens - request.num_tokens - 1)]
            ends = [place for place, each in enumerate(ids) if each in request.stop_token_ids]
            ids = ids[: ends[0]] if ends else ids
            if len(ids) >= MIN_JUMP and request.row >= 0 and not request.given:
                jumps.append((request, ids))
        self._can_jump.clear()
        return jumps

    def masks(self, step: BuiltStep) -> tuple[TokenMasks, list[Outcome]]:
        """What the step's requests may sample, and those that end before this step's token:
        complete, or with an error where the grammar leaves nothing to sample. All tokens before
        the step must have been accepted; the masks hold until the next call."""
        places: list[int] = []
        requests: list[Request] = []
        slots: list[int] = []
        for place in step.constrained:
            request = step.requests[place]
            if request.constraint is not None and not request.ended:
                places.append(place)
                requests.append(request)
                slots.append(step.rows[place])
        bits, are_new, stuck = self._filler.fill(requests, slots)
        masks = TokenMasks(
            np.array(places, np.int32), np.array(slots, np.int32), np.array(are_new, np.bool_), bits
        )
        return masks, stuck


def _needs_no_logits(request: Request) -> bool:
    return request.sampling.logprobs is None and request.sampling.prompt_logprobs is None
