"""Requests under a grammar: until it is compiled, and in each step they sample in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import cast

import numpy as np

from jackfield.contracts.grammar import AcceptsTogether, GrammarBackend
from jackfield.contracts.work import Executor, HasMaskRoom, TokenMasks
from jackfield.engine.constraint import Constraint, MaskedRow, MaskFiller
from jackfield.engine.grammar_compiler import Compilation, GrammarCompiler
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep
from jackfield.errors import RAISED, RequestError

MIN_JUMP = 2
"""So many forced ids are worth a step with a prompt-like part."""

Outcome = tuple[Request, BaseException | None]
Failure = tuple[Request, BaseException]


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
            self._compiler.forget(grammar)
            return None if grammar.best_effort else error
        return None

    def accept(self, request: Request, token: int) -> None:
        """Tells a request's grammar the next token; raises if it is not allowed."""
        constraint = request.constraint
        assert constraint is not None
        if not constraint.accept(token):
            raise _not_allowed(token)
        self._note_jump(request, constraint)

    def accept_all(self, sampled: Sequence[tuple[Request, int]]) -> list[Failure]:
        """Tells the grammars of requests their next tokens, side by side where backends can.
        Returns those that fail."""
        by_backend: dict[GrammarBackend, list[tuple[Request, int]]] = {}
        failed: list[Failure] = []
        for each in sampled:
            constraint = each[0].constraint
            assert constraint is not None
            if constraint.is_under_way:
                by_backend.setdefault(constraint.backend, []).append(each)
            else:
                failed += self._accept_each([each])
        for backend, own in by_backend.items():
            if len(own) > 1 and isinstance(backend, AcceptsTogether):
                failed += self._accept_together(backend, own)
            else:
                failed += self._accept_each(own)
        return failed

    def _accept_each(self, sampled: Sequence[tuple[Request, int]]) -> list[Failure]:
        failed: list[Failure] = []
        for request, token in sampled:
            try:
                self.accept(request, token)
            except Exception as error:
                failed.append((request, error))
        return failed

    def _accept_together(
        self, backend: AcceptsTogether, sampled: Sequence[tuple[Request, int]]
    ) -> list[Failure]:
        constraints = [cast(Constraint, request.constraint) for request, _ in sampled]
        tokens = [token for _, token in sampled]
        try:
            taken = backend.accept_tokens([each.matcher for each in constraints], tokens)
        except RAISED as error:
            return [(request, error) for request, _ in sampled]
        failed: list[Failure] = []
        for (request, token), constraint, is_taken in zip(sampled, constraints, taken, strict=True):
            if not is_taken:
                failed.append((request, _not_allowed(token)))
                continue
            try:
                constraint.go_on()
            except RAISED as error:
                failed.append((request, error))
                continue
            if constraint.forced:
                self._note_jump(request, constraint)
        return failed

    def _note_jump(self, request: Request, constraint: Constraint) -> None:
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


def _not_allowed(token: int) -> RequestError:
    return RequestError(f"the grammar does not allow token {token}, which was sampled")


def _needs_no_logits(request: Request) -> bool:
    return request.sampling.logprobs is None and request.sampling.prompt_logprobs is None
