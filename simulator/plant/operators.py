"""The persons who set machines up, repair and maintain them: so many in each shift, others wait."""

from collections import deque
from typing import TYPE_CHECKING, Annotated, Literal

import simpy
from pydantic import BaseModel, ConfigDict, Field

from simulator.device import Process, World, ns

if TYPE_CHECKING:
    from simulator.mes import Calendar

Task = Literal["set_up", "repair", "maintain"]
TASKS: tuple[Task, ...] = ("set_up", "repair", "maintain")


class OperatorsSpec(BaseModel):
    """The table `[operators]`: who comes when a machine needs somebody. Without it, somebody is
    there at once, always."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    per_shift: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    """Persons in each shift of the calendar, in its order; one number stands for all shifts."""
    tasks: Annotated[tuple[Task, ...], Field(strict=False)] = TASKS
    """What needs one of them; anything else the machine's own people do at once."""
    response_s: Annotated[float, Field(ge=0, json_schema_extra={"unit": "s"})] = 0.0
    """Time from a stop to somebody at the machine who knows what to do, if anybody is free: until
    it is seen, told, and walked to."""


class Operators:
    """The operators at work: first come, first served; nobody comes outside planned time, and who
    has begun finishes."""

    def __init__(self, setting: OperatorsSpec | None, env: World, calendar: "Calendar") -> None:
        self._setting = setting
        self._env = env
        self._calendar = calendar
        self._waiting: deque[simpy.Event] = deque()
        self.busy = 0
        """Persons at a machine."""

    @property
    def present(self) -> int:
        """Persons who are there now."""
        setting, shift = self._setting, self._calendar.shift(self._env.now)
        if setting is None or not shift:
            return 0
        return setting.per_shift[min(shift, len(setting.per_shift)) - 1]

    def fetch(self, task: Task = "repair") -> Process:
        """Wait until a person is there for a task. Give the person back by ``release`` of the same
        task."""
        setting = self._setting
        if setting is None or task not in setting.tasks:
            return
        if setting.response_s:
            yield self._env.timeout(ns(setting.response_s))
        if self._waiting or self.busy >= self.present:
            turn = self._env.event()
            self._waiting.append(turn)
            yield turn
        else:
            self.busy += 1

    def release(self, task: Task = "repair") -> None:
        """A person goes to who waits longest."""
        setting = self._setting
        if setting is None or task not in setting.tasks:
            return
        self.busy -= 1
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self.busy < self.present:
            self.busy += 1
            self._waiting.popleft().succeed()

    def run(self) -> Process:
        """Shift after shift: others come."""
        if self._setting is None:
            return
        while (change_ns := self._calendar.next_shift_ns(self._env.now)) is not None:
            self._serve()
            yield self._env.timeout(change_ns - self._env.now)
            self._serve()
