"""The requests in the engine, and the one way out of it."""

from __future__ import annotations

import logging

from jackfield.contracts.messages import FinishReason, RequestFailed
from jackfield.contracts.scheduling import Scheduler
from jackfield.engine.block_manager import BlockManager
from jackfield.engine.outbox import NO_TOKEN, Outbox
from jackfield.engine.request import Request
from jackfield.engine.step_builder import StepBuilder
from jackfield.errors import RequestError

log = logging.getLogger(__name__)


class LiveRequests:
    """Every request from ``take_in`` to its end, by key, and what is to be told of them."""

    def __init__(self, scheduler: Scheduler, blocks: BlockManager, builder: StepBuilder) -> None:
        self.by_key: dict[int, Request] = {}
        self.outbox = Outbox()
        self._scheduler = scheduler
        self._blocks = blocks
        self._builder = builder

    def schedule(self, request: Request) -> None:
        """Hands a request to the scheduler, which may refuse it."""
        self._scheduler.add(request)
        request.in_scheduler = True

    def retire(self, request: Request) -> None:
        """The request computes nothing any more; what it held is free for the next step."""
        if request.in_scheduler:
            request.in_scheduler = False
            self._scheduler.finish(request)
        self._blocks.free(request)
        self._builder.free_row(request)

    def end(self, request: Request, finish: FinishReason, token: int = NO_TOKEN) -> None:
        """The one way out of the engine."""
        request.ended = True
        del self.by_key[request.key]
        self.retire(request)
        self.outbox.add(request.key, token, finish)

    def fail(self, request: Request, error: BaseException) -> None:
        """Ends a request with an error of its own; raises one that came of ending it, since nobody
        knows then who has its row and its blocks."""
        if request.ended:
            raise error
        request.ended = True
        del self.by_key[request.key]
        self.retire(request)
        self.report_failure(request.key, error)

    def report_failure(self, key: int, error: BaseException) -> None:
        """Tells of a request that is not here (any more), and why."""
        param = None
        if isinstance(error, RequestError):
            message, param = error.message, error.param
        else:
            log.error("request %d failed", key, exc_info=error)
            message = f"the engine could not process this request ({type(error).__name__})"
        self.outbox.add(key, NO_TOKEN, FinishReason.ERROR)
        self.outbox.failed.append(RequestFailed(key, message, param))
