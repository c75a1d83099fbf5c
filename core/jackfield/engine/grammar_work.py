"""The work of grammars between two steps: told the tokens of one, they fill the masks of the next.

Where it is much, it is done in a thread beside the step loop, which meanwhile sends the tokens and
builds a step. The loop touches no constraint before it has waited for the part that changes it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from queue import SimpleQueue

from jackfield.contracts.grammar import GrammarBackend, Masks, WorksBeside
from jackfield.engine.constraint import Constraint
from jackfield.engine.mask_filler import fill_masks
from jackfield.engine.request import Request
from jackfield.errors import RAISED, RequestError

MIN_BESIDE = 16
"""To hand so many tokens and masks to a thread costs less than to follow and fill them."""
MIN_JUMP = 2
"""So many forced ids are worth a step with a prompt-like part."""
_SWITCH_SECONDS = 0.0001
"""For how long one of the two threads may keep the other from the interpreter."""

Told = tuple[Request, int]
Failure = tuple[Request, BaseException]


class GrammarWork:
    """What is to be done behind one step.

    ``told``: tokens of requests, each request once; ``given``: more of them, which its grammar
    forced, in their order. ``requests`` sample in the step that comes, under ``masks`` [rows, W].
    """

    def __init__(
        self,
        told: Sequence[Told],
        given: Sequence[Told],
        requests: Sequence[Request],
        masks: Masks | None,
    ) -> None:
        self.requests, self.masks = requests, masks
        self._told, self._given = told, given
        self.failed: list[Failure] = []
        """Requests to which something happened while their token was followed."""
        self.jumping: list[Request] = []
        """Requests of which a longer text is forced now."""
        self.unfilled: dict[int, BaseException] = {}
        """What went wrong with masks, by their index."""
        self._followed, self._filled = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._told) + len(self.requests)

    def do(self, beside: bool) -> None:
        """Does all of it. What the requests' own grammars raise is kept for them; anything else
        is raised where the work is waited for."""
        try:
            self._follow(beside)
            self._followed.set()
            if self.masks is not None:
                constraints = [each.constraint for each in self.requests if each.constraint]
                self.unfilled = fill_masks(constraints, self.masks, beside)
        except BaseException as error:
            self._error = error
        finally:
            self._followed.set()
            self._filled.set()

    def wait_followed(self) -> None:
        """Until every token has been followed."""
        self._followed.wait()
        self._raise()

    def wait_filled(self) -> None:
        """Until the masks are filled."""
        self._filled.wait()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _follow(self, beside: bool) -> None:
        one_by_one: Iterable[Told] = self._told
        if beside:
            one_by_one = self._follow_beside()
        for request, token in (*one_by_one, *self._given):
            constraint = _constraint(request)
            try:
                if not constraint.accept(token):
                    raise _not_allowed(token)
                if constraint.forced:
                    self._note_jump(request, constraint)
            except RAISED as error:
                self._note_failed(request, error)

    def _follow_beside(self) -> list[Told]:
        """Tells the tokens of many. Returns the others."""
        by_backend: dict[GrammarBackend, list[Told]] = {}
        others: list[Told] = []
        for each in self._told:
            constraint = _constraint(each[0])
            if constraint.is_under_way:
                by_backend.setdefault(constraint.backend, []).append(each)
            else:
                others.append(each)
        for backend, own in by_backend.items():
            if isinstance(backend, WorksBeside):
                self._follow_many(backend, own)
            else:
                others += own
        return others

    def _follow_many(self, backend: WorksBeside, told: Sequence[Told]) -> None:
        constraints = [_constraint(request) for request, _ in told]
        try:
            taken = backend.accept_beside(
                [each.matcher for each in constraints], [token for _, token in told]
            )
        except RAISED as error:
            for request, _ in told:
                self._note_failed(request, error)
            return
        for (request, token), constraint, is_taken in zip(told, constraints, taken, strict=True):
            try:
                if not is_taken:
                    raise _not_allowed(token)
                constraint.go_on()
                if constraint.forced:
                    self._note_jump(request, constraint)
            except RAISED as error:
                self._note_failed(request, error)

    def _note_jump(self, request: Request, constraint: Constraint) -> None:
        if len(constraint.forced) >= MIN_JUMP and _needs_no_logits(request):
            self.jumping.append(request)

    def _note_failed(self, request: Request, error: BaseException) -> None:
        self.failed.append((request, error))
        _constraint(request).let_go()


class GrammarThread:
    """A thread that does such work. Started with the first; ends with the process."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[GrammarWork] | None = None

    def start(self, work: GrammarWork) -> None:
        """Begins a work; one at a time."""
        if self._queue is None:
            self._queue = SimpleQueue()
            sys.setswitchinterval(min(_SWITCH_SECONDS, sys.getswitchinterval()))
            threading.Thread(target=_do_all, args=(self._queue,), daemon=True).start()
        self._queue.put(work)


def _do_all(queue: SimpleQueue[GrammarWork]) -> None:
    while True:
        queue.get().do(beside=True)


def _constraint(request: Request) -> Constraint:
    assert request.constraint is not None
    return request.constraint


def _not_allowed(token: int) -> RequestError:
    return RequestError(f"the grammar does not allow token {token}, which was sampled")


def _needs_no_logits(request: Request) -> bool:
    return request.sampling.logprobs is None and request.sampling.prompt_logprobs is None
