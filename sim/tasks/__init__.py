"""The suite `tabletop`: its tasks by name, and every word they use."""

from __future__ import annotations

from reflexarc.configs.errors import SimulationError, unknown
from reflexarc.sim.tasks.base import HOLD_S, Goal, Hand, Task, instructions
from reflexarc.sim.tasks.button import Button
from reflexarc.sim.tasks.drawer import Drawer
from reflexarc.sim.tasks.lift import Lift
from reflexarc.sim.tasks.place import Place
from reflexarc.sim.tasks.push import Push
from reflexarc.sim.tasks.reach import Reach
from reflexarc.sim.tasks.stack import Stack

TASKS: dict[str, type[Task]] = {task.name: task for task in (Reach, Push, Lift, Place, Stack, Drawer, Button)}

SUITES: dict[str, tuple[str, ...]] = {"tabletop": tuple(TASKS)}


def get_task(name: str) -> type[Task]:
    """The task of that name; raises SimulationError listing the known ones."""
    if name not in TASKS:
        raise SimulationError(unknown("task", name, TASKS))
    return TASKS[name]


def get_suite(name: str) -> tuple[str, ...]:
    """The names of a suite's tasks; raises SimulationError listing the known suites."""
    if name not in SUITES:
        raise SimulationError(unknown("suite", name, SUITES))
    return SUITES[name]


def all_instructions() -> list[str]:
    """Every instruction of every task, held-out paraphrases included."""
    return [
        text
        for task in TASKS.values()
        for text in instructions(task, task.templates_train + task.templates_held_out)
    ]


def vocabulary() -> tuple[str, ...]:
    """Every word of every instruction, sorted: a closed vocabulary for a word-level tokenizer."""
    return tuple(sorted({word for text in all_instructions() for word in text.split()}))


__all__ = [
    "HOLD_S",
    "SUITES",
    "TASKS",
    "Goal",
    "Hand",
    "Task",
    "all_instructions",
    "get_suite",
    "get_task",
    "instructions",
    "vocabulary",
]
