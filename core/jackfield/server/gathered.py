"""One choice of an answer that is not streamed: its deltas, put together."""

from __future__ import annotations

from jackfield.contracts.generation import ChoiceDelta, Finish
from jackfield.contracts.messages import TokenLogprobs
from jackfield.server.errors import check_finish


class GatheredChoice:
    """Grows by ``add`` until the delta with ``finish``."""

    __slots__ = ("_pieces", "finish", "logprobs", "prompt_logprobs", "token_ids")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.finish: Finish | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)

    def add(self, delta: ChoiceDelta) -> None:
        """Takes one delta; raises what a choice that failed means for its request."""
        self._pieces.append(delta.text)
        self.token_ids += delta.token_ids
        if delta.logprobs:
            self.logprobs += delta.logprobs
        if delta.prompt_logprobs:
            self.prompt_logprobs += delta.prompt_logprobs
        if delta.finish is not None:
            check_finish(delta.finish)
            self.finish = delta.finish
