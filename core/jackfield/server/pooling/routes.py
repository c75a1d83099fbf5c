"""Which POST paths a server has, by what its model is served for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jackfield.errors import NotFoundError
from jackfield.planning.pooling import PoolingPlan
from jackfield.server.asgi import ASGIApp, Receive, Scope, Send, send_error
from jackfield.server.door import Frontend, Generation
from jackfield.server.generation_route import GenerationRoute, Prepare
from jackfield.server.invocations import PATH as INVOCATIONS_PATH
from jackfield.server.invocations import Invocations
from jackfield.server.pooling.pairs import Rerank, Score
from jackfield.server.pooling.vectors import (
    Classification,
    Embeddings,
    Pooling,
)

_SCORE = ("/score", "/v1/score")
_RERANK = ("/rerank", "/v1/rerank", "/v2/rerank")
PATHS = ("/v1/embeddings", "/pooling", "/classify", *_SCORE, *_RERANK)


def pooling_routes(frontend: Frontend, plan: PoolingPlan, llm: Generation) -> dict[str, ASGIApp]:
    """The routes that the model can serve, of ``PATHS``."""
    found: dict[str, Prepare] = {"/pooling": Pooling(frontend, plan)}
    if plan.served_for == "embed":
        found["/v1/embeddings"] = Embeddings(frontend, plan)
    elif plan.served_for == "classify":
        found["/classify"] = Classification(frontend, plan)
    if plan.served_for == "embed" or plan.scores_pairs:
        found |= dict.fromkeys(_SCORE, Score(frontend, plan))
        found |= dict.fromkeys(_RERANK, Rerank(frontend, plan))
    found[INVOCATIONS_PATH] = Invocations(found)
    return {path: GenerationRoute(frontend, preparer, llm) for path, preparer in found.items()}


class Unserved:
    """A path of another kind of model: a 404 that says so."""

    def __init__(self, message: str) -> None:
        self._message = message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses."""
        await send_error(scope, send, NotFoundError(self._message, code="unsupported_endpoint"))


def unserved_routes(
    plan: PoolingPlan | None, served: Collection[str], others: Collection[str]
) -> Mapping[str, ASGIApp]:
    """The paths in ``others`` and ``PATHS`` that are not ``served``."""
    if plan is None:
        does = "generates text: start the server with --task embed, or with another model"
    else:
        paths = sorted(path for path in served if path != INVOCATIONS_PATH)
        does = f"is served for {plan.served_for} and has {', '.join(paths)}"
    refused = Unserved(f"There is nothing at this path: the model {does}")
    return {path: refused for path in (*others, *PATHS) if path not in served}
