"""Keeps one engine process serving: replaces it when it dies or freezes, and knows when to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from jackfield.config.plan import EnginePlan
from jackfield.config.settings import Settings
from jackfield.contracts.messages import (
    Answer,
    EngineReady,
    Question,
    StepTokens,
    ToEngine,
)
from jackfield.engine.client import EngineClient
from jackfield.engine.pulse import WatchLimits
from jackfield.engine.spawning import SpawnedEngine, first_spawn
from jackfield.errors import ConfigError, EngineError, EngineStartError, JackfieldError
from jackfield.llm.engine_link import EngineEvents

log = logging.getLogger(__name__)

EARLY_SECONDS = 60.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
NO_ROOM_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """``max_early_crashes``: after so many crashes in a row, each before the engine had sampled
    one token and within ``EARLY_SECONDS``, nothing is to be hoped for. 0: an engine that dies is
    not replaced at all."""

    max_early_crashes: int = 0
    heartbeat_seconds: float = 10.0
    step_seconds: float = 300.0
    """When an engine counts as frozen; see ``engine.pulse``."""


def restart_policy(settings: Settings) -> RestartPolicy:
    """When an engine is replaced, from all options."""
    return RestartPolicy(
        max_early_crashes=settings.engine_restart_limit,
        heartbeat_seconds=settings.engine_heartbeat_timeout,
        step_seconds=settings.engine_step_timeout,
    )


class Supervisor:
    """One engine at a time. Belongs to the event loop that runs ``start``.

    The first engine's start is not retried: what is wrong then is better said than tried again.
    Shared engines take other clients, too. The first engine's process may be ``spawned`` already.
    """

    def __init__(
        self,
        plan: EnginePlan,
        policy: RestartPolicy,
        events: EngineEvents,
        spawned: SpawnedEngine | None = None,
        *,
        is_shared: bool = False,
    ) -> None:
        self.is_serving = False
        self.num_restarts = 0
        self._plan = plan
        self._policy = policy
        self._events = events
        self._is_shared = is_shared
        self._limits = WatchLimits(policy.heartbeat_seconds, policy.step_seconds)
        self._client = self._new_client(spawned)
        self._keeping: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[JackfieldError] | None = None
        self._death: JackfieldError | None = None
        self._ended = asyncio.Event()
        self._began = 0.0
        self._has_sampled = False
        self._num_early = 0

    @property
    def pid(self) -> int | None:
        """Process id of the engine of now."""
        return self._client.pid

    @property
    def clients_path(self) -> str:
        """Where other processes connect to the engine of now, if it is shared."""
        return self._client.clients_path

    @property
    def death(self) -> JackfieldError | None:
        """Why no engine will serve any more, if none will."""
        return self._death

    async def wait_dead(self) -> JackfieldError:
        """Returns when there is no engine and there will be none, with the last one's error."""
        await self._ended.wait()
        assert self._death is not None
        return self._death

    def launch(self) -> None:
        """Spawns the first engine and returns; ``ConfigError`` where no process has room.
        Idempotent, needs no event loop."""
        with first_spawn():
            self._client.launch()

    async def start(self) -> EngineReady:
        """Waits until the first engine serves; ``ConfigError``, ``EngineError``: it never will."""
        ready = await self._connect()
        self._keeping = asyncio.create_task(self._keep())
        return ready

    def send(self, message: ToEngine) -> None:
        """Hands a message to the engine of now; never blocks. Without one it goes nowhere."""
        self._client.send(message)

    async def ask(self, message: Question) -> Answer:
        """Sends a message that is answered; ``EngineError`` if the engine ends before."""
        return await self._client.ask(message)

    async def stop(self, timeout: float = 5.0) -> None:
        """Ends the engine, and the replacing. Once more does nothing more."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
        self.is_serving = False
        await self._client.stop(timeout)

    def _new_client(self, spawned: SpawnedEngine | None = None) -> EngineClient:
        return EngineClient(self._plan, self._limits, spawned, is_shared=self._is_shared)

    async def _connect(self) -> EngineReady:
        self._lost = asyncio.get_running_loop().create_future()
        ready = await self._client.connect(self._stepped, self._died)
        self._began = time.monotonic()
        self._has_sampled = False
        self.is_serving = True
        return ready

    def _stepped(self, step: StepTokens) -> None:
        self._has_sampled = True
        self._events.on_step(step)

    def _died(self, error: JackfieldError) -> None:
        self.is_serving = False
        is_early = not self._has_sampled and time.monotonic() - self._began < EARLY_SECONDS
        self._num_early = self._num_early + 1 if is_early else 0
        assert self._lost is not None
        self._lost.set_result(error)
        self._events.on_lost(error)

    async def _keep(self) -> None:
        try:
            while True:
                assert self._lost is not None
                error: JackfieldError | None = await self._lost
                while error is not None:
                    error = await self._replace(error)
        except JackfieldError as error:
            self._death = error
        except Exception as error:
            log.exception("the engine could not be replaced")
            self._death = EngineError(f"the engine could not be replaced: {error}")
        self._ended.set()

    async def _replace(self, error: JackfieldError) -> JackfieldError | None:
        """Starts another engine; returns what it died of where it did not come to serve. Raises
        the error with which the server is to end."""
        limit = self._policy.max_early_crashes
        if not limit:
            raise error
        if self._num_early >= limit:
            raise EngineStartError(str(error)) from error
        delay = _delay(self._num_early)
        log.warning("%s; it is replaced%s", error, f" in {delay:g} s" if delay else "")
        await asyncio.sleep(delay)
        await self._client.stop()
        self._client = self._new_client()
        self.num_restarts += 1
        begin = time.monotonic()
        try:
            ready = await self._connect()
        except ConfigError:
            raise
        except EngineError as failure:
            self._num_early += 1
            return failure
        except OSError as failure:
            # No process, file or disk is left for one now: no engine has crashed, and it passes.
            await asyncio.sleep(NO_ROOM_SECONDS)
            return EngineError(f"an engine process cannot be started: {failure}")
        log.info("a new engine serves after %.1f s", time.monotonic() - begin)
        self._events.on_replaced(ready)
        return None


def _delay(num_early: int) -> float:
    """An engine that has served is replaced at once; one that has not waits longer each time."""
    if not num_early:
        return 0.0
    return min(FIRST_DELAY_SECONDS * 2.0 ** (num_early - 1), LONGEST_DELAY_SECONDS)
