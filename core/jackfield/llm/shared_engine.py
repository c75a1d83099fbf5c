"""An engine that another process keeps: this one has a connection of its own to it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from jackfield.contracts.messages import Answer, EngineReady, Question, ToEngine
from jackfield.engine.channel import JoinEngine
from jackfield.engine.protocol import EngineProtocol
from jackfield.errors import EngineError, JackfieldError
from jackfield.llm.engine_link import EngineEvents

log = logging.getLogger(__name__)

WORD_SECONDS = 1.0
"""How long the keeper's word on how an engine died may come after the connection's end."""
RETRY_SECONDS = 0.5


class SharedEngine:
    """The engine of now, as its keeper says where it is. ``client`` is this process' number at
    every engine (``engine.clients``)."""

    def __init__(self, client: int, events: EngineEvents) -> None:
        self.num_restarts = 0
        self.pid: int | None = None
        self.death: JackfieldError | None = None
        self._client = client
        self._events = events
        self._protocol: EngineProtocol | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._word: asyncio.Future[JackfieldError] | None = None
        self._has_started = False
        self._started: asyncio.Future[EngineReady] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    # --- the keeper's word ------------------------------------------------------------

    def engine_serves(self, path: str, pid: int, num_restarts: int) -> None:
        """There is an engine, which listens at ``path``."""
        self.pid, self.num_restarts = pid, num_restarts
        if self._keeping is not None:
            self._keeping.cancel()
        self._keeping = asyncio.create_task(self._keep(path))

    def engine_died(self, error: JackfieldError) -> None:
        """The engine of before is gone; another one is being started."""
        if self._word is not None and not self._word.done():
            self._word.set_result(error)

    def no_engine(self, error: JackfieldError) -> None:
        """There is no engine, and there will be none."""
        self.engine_died(error)
        self.death = error
        self._ended.set()
        if not self._started.done():
            self._started.set_exception(error)

    # --- as the door sees it ----------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        """Whether there is a connection to an engine that serves."""
        protocol = self._protocol
        return protocol is not None and protocol.serving and not protocol.closed.done()

    def launch(self) -> None:
        """The keeper has."""

    async def start(self) -> EngineReady:
        """Waits for the first engine."""
        return await asyncio.shield(self._started)

    async def stop(self, timeout: float = 5.0) -> None:
        """Leaves the engine, which ends what still runs of this process."""
        if self._protocol is not None:
            self._protocol.stopping = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping}, timeout=timeout)

    async def wait_dead(self) -> JackfieldError:
        """Returns when the keeper has given up, with its error."""
        await self._ended.wait()
        assert self.death is not None
        return self.death

    def send(self, message: ToEngine) -> None:
        """Hands a message to the engine of now."""
        if self._protocol is not None:
            self._protocol.send(message)

    async def ask(self, message: Question) -> Answer:
        """Sends a message that is answered."""
        if self._protocol is None:
            raise EngineError("the engine was not started")
        return await self._protocol.ask(message)

    # --- the connection ---------------------------------------------------------------

    async def _keep(self, path: str) -> None:
        """Stays connected to the engine at ``path`` until the keeper tells of another one."""
        while True:
            with suppress(OSError):
                await self._connect_once(path)
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect_once(self, path: str) -> None:
        protocol = EngineProtocol(self._events.on_step, self._events.on_lost, self._events.on_sleep)
        await asyncio.get_running_loop().create_unix_connection(lambda: protocol, path)
        self._word = asyncio.get_running_loop().create_future()
        protocol.send(JoinEngine(self._client))
        ends: set[asyncio.Future[object]] = {protocol.ready, protocol.closed}  # type: ignore[arg-type]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not protocol.ready.done():
            return
        self._protocol = protocol
        if self._has_started:
            self._events.on_replaced(protocol.ready.result())
        else:
            self._has_started = True
            self._started.set_result(protocol.ready.result())
        await self._until_lost(protocol, self._word)

    async def _until_lost(
        self, protocol: EngineProtocol, word: asyncio.Future[JackfieldError]
    ) -> None:
        """Returns when the connection has ended, and says why: as the keeper does, who knows more,
        if it does so soon."""
        try:
            await asyncio.shield(protocol.closed)
            with suppress(TimeoutError):
                failure = await asyncio.wait_for(asyncio.shield(word), WORD_SECONDS)
                protocol.fail(failure)
        finally:
            # Also where the next engine is there already.
            protocol.close()
            protocol.end(EngineError("the connection to the engine was lost"))
