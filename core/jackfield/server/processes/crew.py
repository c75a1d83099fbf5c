"""The API processes of one server: spawned, asked, replaced, ended."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from jackfield.engine.child import describe
from jackfield.engine.spawning import first_spawn
from jackfield.errors import EngineError, JackfieldError
from jackfield.server.processes.control import (
    Alive,
    ApiFailed,
    ApiReady,
    AskSnapshots,
    Control,
    EngineServes,
    Failure,
    FromApi,
    Snapshot,
    Snapshots,
    StartApi,
    TellAlive,
    TellSnapshot,
)

log = logging.getLogger(__name__)

MAX_EARLY_ENDS = 3
"""Processes in a row that end before they serve: from then on nothing is to be hoped for."""
EXIT_SECONDS = 1.0
"""How long the two halves of an end, the connection's and the process', may be apart."""
SNAPSHOT_SECONDS = 1.0
NO_ROOM_SECONDS = 2.0
ALIVE_SECONDS = 1.0
"""How often a process is asked whether it is alive."""
MAX_ENDED = 8
"""From so many on, what ended processes said is put together."""


class ApiProcess:
    """One child and its end of the control connection."""

    def __init__(
        self, index: int, client: int, words: list[str], listener: socket.socket, replaces: bool
    ) -> None:
        self.index, self.client = index, client
        self.is_ready = False
        self.num_unanswered = 0
        """Times in a row that it was asked whether it is alive, and said nothing."""
        self.failure: Failure | None = None
        self.last: Snapshot | None = None
        """What it said last; its counts live on behind it."""
        environment = dict(os.environ)
        # The child finds every module that this process finds.
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        command = [sys.executable, "-P", "-m", "jackfield.cli.api_process"]
        ours, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), listener.fileno())
        command += map(str, descriptors)
        with theirs:
            try:
                self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, env=environment, pass_fds=descriptors
                )
            except OSError:
                ours.close()
                raise
        self.control: Control[FromApi] = Control(ours, FromApi)
        self.control.send(StartApi(words, client, index == 0, replaces))

    def kill(self) -> None:
        """Ends it at once."""
        self._child.send_signal(signal.SIGKILL)

    async def exit_status(self) -> int:
        """How it ended; one that has hung up and lives is killed."""
        wait = asyncio.to_thread(self._child.wait, EXIT_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            return await wait
        self.kill()
        return await asyncio.to_thread(self._child.wait)


class Crew:
    """As many processes as there are listening sockets. One that dies is replaced, on the same
    socket: connections that wait there wait a little longer. One that says nothing for about
    ``patience_seconds`` is killed. Belongs to one event loop."""

    def __init__(
        self, words: Sequence[str], listeners: Sequence[socket.socket], patience_seconds: float
    ) -> None:
        self._words = list(words)
        self._listeners = listeners
        self._max_unanswered = max(1.0, patience_seconds / ALIVE_SECONDS)
        self._clients = itertools.count(1)
        self._numbers = itertools.count(1)
        self._processes: dict[int, ApiProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._engine: EngineServes | None = None
        self._asked: dict[tuple[int, int], asyncio.Future[Snapshot]] = {}
        self._ended: list[bytes] = []
        self._num_early_ends = 0
        self._is_ending = False
        self._changed = asyncio.Event()
        self._failure: JackfieldError | None = None

    @property
    def count(self) -> int:
        """How many processes there should be."""
        return len(self._listeners)

    async def start(self) -> None:
        """Spawns all of them; ``ConfigError`` where there is no room for one."""
        with first_spawn():
            for index in range(self.count):
                await self._spawn(index, replaces=False)
        self._start(self._watch())

    async def all_ready(self) -> None:
        """Returns when every process serves."""
        await self._until(lambda: self.num_ready == self.count)

    async def wait_failed(self) -> JackfieldError:
        """Returns when processes cannot be kept alive, with what is said at the end."""
        await self._until(lambda: self._failure is not None)
        assert self._failure is not None
        return self._failure

    @property
    def num_ready(self) -> int:
        """How many processes serve."""
        return sum(process.is_ready for process in self._processes.values())

    def tell(self, message: msgspec.Struct) -> None:
        """Sends a message to all."""
        for process in self._processes.values():
            process.control.send(message)

    def tell_engine(self, engine: EngineServes | None) -> None:
        """Where the engine is; processes that are spawned later hear it too. None: there is none
        now."""
        self._engine = engine
        if engine is not None:
            self.tell(engine)

    async def end(self, seconds: float) -> int:
        """Waits for the end of all; kills those that take longer. How many were killed."""
        self._is_ending = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until(lambda: not self._processes)
        late = list(self._processes.values())
        for process in late:
            process.kill()
        await self._until(lambda: not self._processes)
        return len(late)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _watch(self) -> None:
        """Kills processes that are frozen. Questions are counted, not seconds: where this process
        was held up itself, nothing is wrong with the others."""
        while not self._is_ending:
            for process in self._processes.values():
                if not process.is_ready:
                    continue
                if process.num_unanswered >= self._max_unanswered:
                    log.warning("API process %d gives no sign and is killed", process.index)
                    process.kill()
                process.num_unanswered += 1
                process.control.send(TellAlive())
            await asyncio.sleep(ALIVE_SECONDS)

    # --- one process --------------------------------------------------------------------

    async def _spawn(self, index: int, *, replaces: bool) -> None:
        client, listener = next(self._clients), self._listeners[index]
        process = ApiProcess(index, client, self._words, listener, replaces)
        self._processes[index] = process
        if self._engine is not None:
            process.control.send(self._engine)
        await process.control.attach(partial(self._hear, process), partial(self._lost, process))

    def _hear(self, process: ApiProcess, message: FromApi) -> None:
        match message:
            case ApiReady():
                process.is_ready = True
                self._num_early_ends = 0
                self._changed.set()
            case ApiFailed(failure):
                process.failure = failure
            case Alive():
                process.num_unanswered = 0
            case AskSnapshots(number):
                self._start(self._answer(process, number))
            case Snapshot(number):
                process.last = message
                asked = self._asked.get((process.client, number))
                if asked is not None and not asked.done():
                    asked.set_result(message)

    def _lost(self, process: ApiProcess) -> None:
        self._start(self._bury(process))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, process: ApiProcess) -> None:
        """Sees to a process that has hung up, and replaces it."""
        how = describe(await process.exit_status())
        del self._processes[process.index]
        if process.last is not None:
            self._remember(process.last)
        if self._is_ending:
            self._changed.set()
            return
        log.warning("API process %d %s; it is replaced", process.index, how)
        if not process.is_ready:
            self._num_early_ends += 1
        if self._num_early_ends >= MAX_EARLY_ENDS or process.failure is not None:
            failed = EngineError(f"an API process {how} before it served")
            self._failure = process.failure.error() if process.failure else failed
            self._changed.set()
            return
        await self._spawn_successor(process)

    async def _spawn_successor(self, process: ApiProcess) -> None:
        """As soon as the machine has room for a process: clients wait at its socket."""
        while not self._is_ending:
            try:
                return await self._spawn(process.index, replaces=process.is_ready)
            except OSError as error:
                log.warning("API process %d cannot be started: %s", process.index, error)
            await asyncio.sleep(NO_ROOM_SECONDS)

    def _remember(self, snapshot: Snapshot) -> None:
        self._ended.append(snapshot.metrics)
        if len(self._ended) > MAX_ENDED:
            # Imported where it is needed, hardly ever: the keeper is small.
            from jackfield.server.processes.merged_metrics import merged

            self._ended = [merged([], self._ended, ())]

    # --- what all say together ----------------------------------------------------------

    async def _answer(self, process: ApiProcess, number: int) -> None:
        """Asks the others on behalf of one."""
        others = [each for each in self._processes.values() if each is not process]
        told = await asyncio.gather(*map(self._snapshot, others))
        known = [each for each in told if each is not None]
        process.control.send(Snapshots(number, known, self._ended))

    async def _snapshot(self, process: ApiProcess) -> Snapshot | None:
        """What the process says; what it said last if it is slow, None if it never has."""
        if not process.is_ready:
            return process.last
        number = next(self._numbers)
        key = (process.client, number)
        asked = self._asked[key] = asyncio.get_running_loop().create_future()
        process.control.send(TellSnapshot(number))
        try:
            return await asyncio.wait_for(asked, SNAPSHOT_SECONDS)
        except TimeoutError:
            return process.last
        finally:
            del self._asked[key]
