"""Requests under a grammar: until it is compiled, and in each step they sample in."""

from __future__ import annotations

import numpy as np

from jackfield.contracts.work import Executor, HasMaskRoom, TokenMasks
from jackfield.engine.constraint import Constraint, MaskedRow, MaskFiller
from jackfield.engine.grammar_compiler import Compilation, GrammarCompiler
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep
from jackfield.errors import RAISED, RequestError

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

    def __len__(self) -> int:
        """Requests that wait for their grammar."""
        return len(self._waiting)

    @property
    def has_ready(self) -> bool:
        """Whether ``take_ready`` would return something."""
        return any(compilation.is_over for _, compilation in self._waiting)

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
        ready = [each for each in self._waiting if each[1].is_over]
        if not ready:
            return []
        self._waiting = [each for each in self._waiting if not each[1].is_over]
        return [(request, self._settle(request, compiled)) for request, compiled in ready]

    def _settle(self, request: Request, compilation: Compilation) -> BaseException | None:
        try:
            request.constraint = Constraint(compilation.result(), request.sampling)
        except RAISED as error:
            grammar = request.sampling.grammar
            assert grammar is not None and self._compiler is not None
            self._compiler.forget(grammar)
            return None if grammar.best_effort else error
        return None

    def accept(self, request: Request, token: int) -> None:
        """Tells a request's grammar the token that was sampled; raises if it is not allowed."""
        assert request.constraint is not None
        if not request.constraint.accept(token):
            raise RequestError(f"the grammar does not allow token {token}, which was sampled")

    def masks(self, step: BuiltStep) -> tuple[TokenMasks, list[Outcome]]:
        """What the step's requests may sample, and those that end before this step's token:
        complete, or with an error where the grammar leaves nothing to sample. All tokens before
        the step must have been accepted; the masks hold until the next call."""
        requests, rows = step.requests, []
        for place in step.constrained:
            request = requests[place]
            constraint = request.constraint
            if constraint is None or request.ended:
                continue
            may_stop = len(request.token_ids) >= request.min_num_tokens
            stop_ids = request.sampling.stop_token_ids
            rows.append(MaskedRow(place, constraint, stop_ids, may_stop))
        masks, failed = self._filler.fill(rows)
        stuck = self._filler.settle_ends(rows, masks)
        outcomes: list[Outcome] = [
            (requests[rows[index].index], error) for index, error in failed.items()
        ]
        for row, is_complete in stuck:
            error = None
            if not is_complete:
                error = RequestError("the grammar cannot go on with the tokens of this model")
            outcomes.append((requests[row.index], error))
        places = np.array([row.index for row in rows], dtype=np.int32)
        return TokenMasks(places, masks), outcomes
