"""An engine that sleeps: its device memory is given to others until it wakes up."""

from __future__ import annotations

from jackfield.contracts.messages import Sleep, SleepState, WakeUp
from jackfield.contracts.work import CanSleep, Executor, GivesBackBlocks, UsesIdleTime
from jackfield.engine.idle import trim_heap
from jackfield.engine.step_loop import EngineCore
from jackfield.errors import RequestError


class Sleeper:
    """Obeys ``Sleep`` and ``WakeUp`` between two steps, with no request in the engine.

    A request to sleep that cannot be met changes nothing; an exception on the way to sleep or
    back ends the engine.
    """

    def __init__(self, core: EngineCore, executor: Executor) -> None:
        self._core = core
        self.executor = executor
        self.is_asleep = False

    def use_idle_time(self) -> bool:
        """Lets the workers do a piece of what they will need later; whether there was one."""
        if self.is_asleep or not isinstance(self.executor, UsesIdleTime):
            return False
        return self.executor.use_idle_time()

    def give_back_memory(self) -> bool:
        """Lets the system have some of what nobody needs, and says whether there may be more: KV
        blocks beyond what the prefix cache may keep, and last the free pages of the heap."""
        if not self.is_asleep and isinstance(self.executor, GivesBackBlocks):
            blocks = self._core.give_back_blocks()
            if len(blocks):
                self.executor.give_back(blocks)
                return True
        trim_heap()
        return False

    def obey(self, message: Sleep | WakeUp) -> SleepState:
        """The state afterwards, and why it is not the one asked for."""
        try:
            if isinstance(message, Sleep):
                self._sleep(message.level)
            elif self.is_asleep:
                self._able().wake_up()
                self.is_asleep = False
        except RequestError as error:
            return SleepState(self.is_asleep, str(error))
        return SleepState(self.is_asleep)

    def _sleep(self, level: int) -> None:
        able = self._able()
        if self.is_asleep:
            raise RequestError("the engine sleeps already")
        self._core.forget_device_memory()
        able.sleep(level)
        self.is_asleep = True

    def _able(self) -> CanSleep:
        if not isinstance(self.executor, CanSleep):
            raise RequestError(f"executor {self.executor.name!r} cannot sleep")
        return self.executor
