"""The tasks. Importing this package registers every one of them with Gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from sami_tutorial.envs.context import (
    SPLITS,
    Context,
    ContextError,
    ContextSpace,
    Feature,
    Task,
    TaskSets,
)
from sami_tutorial.envs.cube import CUBE_MOVE
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS
from sami_tutorial.envs.observation import ContextObservation, VectorContextObservation
from sami_tutorial.envs.panda import PANDA
from sami_tutorial.envs.vector import make_vec

TASKS: dict[str, Task] = {task.id: task for task in (CUBE_MOVE, *MUJOCO_TASKS, PANDA)}

for _task in TASKS.values():
    if _task.id not in gym.registry:
        gym.register(
            id=_task.id,
            entry_point=_task.entry_point,
            vector_entry_point=_task.vector_entry_point,
            max_episode_steps=None if _task.ends_itself else _task.max_episode_steps,
            disable_env_checker=True,
        )


def get_task(id: str) -> Task:
    """The registered task.

    Raises:
        ContextError: if ``id`` is none of this library's environments.
    """
    if id not in TASKS:
        raise ContextError(f"there is no environment {id!r}; choose one of {sorted(TASKS)}")
    return TASKS[id]


def task_sets(id: str, **options: Any) -> TaskSets:
    """The train, moderate and extreme tasks of an environment, each a list of contexts.

    Args:
        id: of the environment.
        **options: of the environment, as for ``make_vec``; some change the tasks.
    """
    task = get_task(id)
    return task.task_sets if task.task_sets_with is None else task.task_sets_with(**options)


__all__ = [
    "SPLITS",
    "TASKS",
    "Context",
    "ContextError",
    "ContextObservation",
    "ContextSpace",
    "Feature",
    "Task",
    "TaskSets",
    "VectorContextObservation",
    "get_task",
    "make_vec",
    "task_sets",
]
