"""Requests under a grammar: until it is compiled, and in each step they sample in."""

from __future__ import annotations

from itertools import compress

import numpy as np

from jackfield.contracts.work import Executor, HasMaskRoom, TokenMasks
from jackfield.engine.constraint import Constraint
from jackfield.engine.grammar_compiler import Compilation, GrammarCompiler
from jackfield.engine.grammar_work import (
    MIN_BESIDE,
    MIN_JUMP,
    Failure,
    GrammarThread,
    GrammarWork,
    Told,
)
from jackfield.engine.mask_filler import MaskFiller
from jackfield.engine.request import Request
from jackfield.engine.step_builder import BuiltStep
from jackfield.errors import RAISED, RequestError

Outcome = tuple[Request, BaseException | None]


class ConstrainedRequests:
    """What the step loop needs of grammars. Costs nothing where no request has one."""

    def __init__(
        self,
        compiler: GrammarCompiler | None,
        logits_width: int,
        executor: Executor,
        *,
        may_wait: bool,
    ) -> None:
        """``may_wait``: whether the device computes while grammars work."""
        self._compiler = compiler
        self._may_wait = may_wait
        make_room = executor.mask_room if isinstance(executor, HasMaskRoom) else lambda: None
        self._filler = MaskFiller(logits_width, make_room)
        self._waiting: list[tuple[Request, Compilation]] = []
        self._can_jump: dict[Request, None] = {}
        self._told: list[Told] = []
        self._given: list[Told] = []
        self._thread = GrammarThread()
        self._work: GrammarWork | None = None
        """The newest, until its masks are taken."""
        self._places: list[int] = []
        """Of its requests, in their step."""
        self._failed: list[Failure] = []

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

    def tell(self, request: Request, token: int) -> None:
        """A token that a request's grammar is to follow."""
        self._told.append((request, token))

    def tell_given(self, request: Request, token: int) -> None:
        """The same of one that the grammar has forced, behind those told before."""
        self._given.append((request, token))

    def go_on(self, step: BuiltStep | None) -> None:
        """Has grammars follow what was told, and fill the masks of the step that was begun, if
        one was: all tokens before it must have been told. May still be under way on return."""
        if step is None and not self._told and not self._given:
            return
        if self._work is not None:
            self._take_followed(self._work)
        requests: list[Request] = []
        self._places = []
        if step is not None:
            for place in step.constrained:
                request = step.requests[place]
                if request.constraint is not None and not request.ended:
                    self._places.append(place)
                    requests.append(request)
        masks = self._filler.take_room(len(requests)) if step is not None else None
        self._work = work = GrammarWork(self._told, self._given, requests, masks)
        self._told, self._given = [], []
        if self._may_wait and len(work) >= 2 * MIN_BESIDE:
            self._thread.start(work)
        else:
            work.do(beside=False)

    def take_failed(self) -> list[Failure]:
        """Requests whose grammar could not follow their tokens. Waits until all have been."""
        if self._work is not None:
            self._take_followed(self._work)
        if not self._failed:
            return self._failed
        failed, self._failed = self._failed, []
        return failed

    def _take_followed(self, work: GrammarWork) -> None:
        work.wait_followed()
        self._failed += work.failed
        self._can_jump |= dict.fromkeys(work.jumping)
        work.failed, work.jumping = [], []

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

    def masks(self) -> tuple[TokenMasks, list[Outcome]]:
        """What the requests may sample of the step for which grammars went on, and those that end
        before this step's token: complete, or with an error where the grammar leaves nothing to
        sample. The masks hold until they go on again."""
        work, self._work = self._work, None
        assert work is not None and work.masks is not None, "go_on comes before masks"
        self._take_followed(work)
        work.wait_filled()
        outcomes: list[Outcome] = [
            (work.requests[index], error) for index, error in work.unfilled.items()
        ]
        for request, is_complete in self._filler.settle_ends(work.requests, work.masks):
            error = None
            if not is_complete:
                error = RequestError("the grammar cannot go on with the tokens of this model")
            outcomes.append((request, error))
        return TokenMasks(np.array(self._places, dtype=np.int32), work.masks), outcomes
