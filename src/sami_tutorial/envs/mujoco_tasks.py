"""The MuJoCo tasks as data: features, task sets, step limits. No simulator is imported here.

Every body varies two scale factors, ``mass`` (of every link) and ``damping`` (of every joint); the
crippled bodies add one flag per joint, ``crippled_<i>``: 1 cuts the joint's motor. The paper
publishes its task sets (Table 3) as an image only, so each set below says whether it follows that
table as far as it can be read, or is a choice of this project.

A task joins the list by one :func:`_task` call and an environment class in ``mujoco.py``.
Shown in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from sami_tutorial.envs.context import Context, ContextSpace, Feature, Task, TaskSets


def _grid(values: Iterable[float]) -> list[Context]:
    """Every combination of a mass and a damping scale from ``values``."""
    values = tuple(values)
    return [{"mass": mass, "damping": damping} for mass, damping in product(values, values)]


def _task(name: str, num_joints: int, max_episode_steps: int, task_sets: TaskSets) -> Task:
    """A task whose class is ``mujoco.<name>Env``; ``num_joints`` counts those that can fail."""
    features = (
        Feature("mass", nominal=1.0, low=0.05, high=10.0),
        Feature("damping", nominal=1.0, low=0.05, high=10.0),
        *(Feature(f"crippled_{i}", nominal=0.0, low=0.0, high=1.0) for i in range(num_joints)),
    )
    return Task(
        id=f"sami/{name}-v0",
        entry_point=f"sami_tutorial.envs.mujoco:{name}Env",
        max_episode_steps=max_episode_steps,
        space=ContextSpace(features),
        task_sets=task_sets,
    )


HALF_CHEETAH = _task(
    "HalfCheetah",
    num_joints=0,
    max_episode_steps=1000,
    # As in the paper: moderate and extreme lie outside the training square on all four sides.
    task_sets=TaskSets(
        train=_grid((0.75, 0.85, 1.0, 1.15, 1.25)),
        moderate=_grid((0.4, 0.5, 1.5, 1.6)),
        extreme=_grid((0.2, 0.3, 1.7, 1.8)),
    ),
)

MUJOCO_TASKS: tuple[Task, ...] = (HALF_CHEETAH,)
