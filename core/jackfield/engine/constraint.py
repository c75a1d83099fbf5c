"""What the grammar of one request still allows."""

from __future__ import annotations

from jackfield.contracts.grammar import GrammarBackend, GrammarMatcher, KeepsMask
from jackfield.contracts.sampling import TokenSampling
from jackfield.engine.grammar_compiler import ReadyGrammar
from jackfield.errors import RequestError


class Constraint:
    """The grammar of one request, begun where its reasoning has ended.

    An output that does not begin inside the reasoning may still open it: as long as it is the
    start marker so far, the marker's next id is allowed beside what the grammar allows.
    """

    __slots__ = (
        "_end",
        "_may_force",
        "_num_accepted",
        "_num_opened",
        "_start",
        "_tail",
        "backend",
        "forced",
        "is_under_way",
        "is_waiting",
        "keeper",
        "mark",
        "matcher",
    )

    def __init__(self, grammar: ReadyGrammar, sampling: TokenSampling) -> None:
        self.backend: GrammarBackend = grammar.backend
        self.matcher: GrammarMatcher = grammar.compiled.matcher()
        self.keeper = self.matcher if isinstance(self.matcher, KeepsMask) else None
        """The matcher, if it can say that a mask stays."""
        self.mark = object()
        """What is left where its masks are when the request is gone."""
        self._start = sampling.reasoning_start_ids if sampling.reasoning_end_ids else ()
        self._end = sampling.reasoning_end_ids
        self.is_waiting = sampling.starts_in_reasoning and bool(self._end)
        """Whether the reasoning is still under way: anything but the end is allowed."""
        self._num_opened = -1 if self.is_waiting or not self._start else 0
        """How many ids of the start marker the output consists of; -1 if it is no marker."""
        self.is_under_way = False
        """Whether the grammar alone says what comes next: no reasoning goes on or may begin."""
        self._num_accepted = 0
        self._tail: list[int] = []
        self._may_force = not _forbids_ids(sampling)
        self.forced: list[int] = []
        """The ids that must follow, in their order, if the grammar forces a longer text."""
        self._look_ahead()

    @property
    def opening_id(self) -> int | None:
        """The id that would go on opening the reasoning, where that is possible."""
        return self._start[self._num_opened] if self._num_opened >= 0 else None

    @property
    def is_begun(self) -> bool:
        """Whether the grammar itself allows what was output so far."""
        return self._num_opened <= self._num_accepted

    def accept(self, token_id: int) -> None:
        """Takes the next id; ``RequestError`` where it is not allowed."""
        if self.is_under_way:
            if not self.matcher.accept(token_id):
                raise _not_allowed(token_id)
            if self.forced:
                del self.forced[0]
            elif self._may_force:
                self.forced = self.matcher.jump()
        elif self.is_waiting:
            self._look_for_end(token_id)
            self._look_ahead()
        elif not self._accept_first(token_id):
            raise _not_allowed(token_id)

    def _accept_first(self, token_id: int) -> bool:
        """An id of an output that is the beginning of the start marker so far."""
        opens = token_id == self.opening_id
        if self.is_begun and self.matcher.accept(token_id):
            self._num_accepted += 1
        elif not opens:
            return False
        if not opens:
            self._num_opened = -1
            self._look_ahead()
            return self._num_accepted > 0
        self._num_opened += 1
        if self._num_opened == len(self._start):
            self.matcher.rollback(self._num_accepted)
            self._num_opened = -1
            self.is_waiting = True
        return True

    def _look_ahead(self) -> None:
        self.is_under_way = not self.is_waiting and self._num_opened < 0
        if self.is_under_way and self._may_force:
            self.forced = self.matcher.jump()

    def _look_for_end(self, token_id: int) -> None:
        self._tail.append(token_id)
        del self._tail[: -len(self._end)]
        if tuple(self._tail) == self._end:
            self.is_waiting = False


def _not_allowed(token_id: int) -> RequestError:
    return RequestError(f"the grammar does not allow token {token_id}, which was sampled")


def _forbids_ids(sampling: TokenSampling) -> bool:
    """Whether the request may forbid an id with which a forced text would be written."""
    return bool(
        sampling.allowed_token_ids is not None
        or sampling.bad_words
        or sampling.logit_bias
        or sampling.logits_processors
        or sampling.extra_args
    )
