"""The MuJoCo tasks as data: features, task sets, step limits. No simulator is imported here.

Every body varies two scale factors, ``mass`` (of every link) and ``damping`` (of every joint); the
crippled bodies add one flag per limb, ``crippled_<i>``: 0 works, 1 is dead (a value between weakens
it). A limb is one motor, or, for the ant, a leg of two. The paper publishes its task sets (Table 3)
as an image only; the sets below follow it where its official code confirms the values and are
otherwise this project's own, as each one says.

A task joins by one call of ``_task`` here, one environment class in ``mujoco.py`` and one line in
``mujoco_vector.py``.
Shown in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

from itertools import combinations, product

from sami_tutorial.envs.context import Context, ContextSpace, Feature, Task, TaskSets


def _grid(*scales: float) -> list[Context]:
    """Every pair of a mass scale and a damping scale."""
    return [{"mass": mass, "damping": damping} for mass, damping in product(scales, scales)]


def _dead(*limbs: int) -> Context:
    """A body of nominal mass and damping on which these limbs do not work."""
    return {f"crippled_{i}": 1.0 for i in limbs}


def _task(name: str, limbs: int, max_episode_steps: int, task_sets: TaskSets) -> Task:
    """A task of ``mujoco.<name>Env`` (one) and ``mujoco_vector.<name>VectorEnv`` (many).

    ``limbs`` is how many limbs of the body can die.
    """
    features = (
        Feature("mass", nominal=1.0, low=0.05, high=10.0),
        Feature("damping", nominal=1.0, low=0.05, high=10.0),
        *(Feature(f"crippled_{i}", nominal=0.0, low=0.0, high=1.0) for i in range(limbs)),
    )
    return Task(
        id=f"sami/{name}-v0",
        entry_point=f"sami_tutorial.envs.mujoco:{name}Env",
        vector_entry_point=f"sami_tutorial.envs.mujoco_vector:{name}VectorEnv",
        max_episode_steps=max_episode_steps,
        space=ContextSpace(features),
        task_sets=task_sets,
        chaotic=True,
    )


HOPPER = _task(
    "Hopper",
    limbs=0,
    max_episode_steps=2000,
    task_sets=TaskSets(
        # Train and moderate as in the paper: moderate lies outside the training square in both
        # scales at once, so its tasks sit at the four corners around it.
        train=_grid(0.5, 0.75, 1.0, 1.25, 1.5),
        moderate=_grid(0.25, 0.375, 1.75, 2.0),
        # Our choice of values (the paper's are not legible): at least one scale is a tenth or four
        # times the nominal one.
        extreme=[task for task in _grid(0.1, 1.0, 4.0) if set(task.values()) != {1.0}],
    ),
)

CRIPPLED_HOPPER = _task(
    "CrippledHopper",
    limbs=3,  # thigh, leg, foot
    max_episode_steps=1000,
    task_sets=TaskSets(
        # As in the paper, no joint is crippled before the extreme set: a hopper has one leg, and
        # losing a motor of it asks for a way of moving that training never showed.
        train=HOPPER.task_sets.train,
        moderate=HOPPER.task_sets.moderate,
        # Our choice: nominal mass and damping, so that the dead motor is the only change.
        extreme=[_dead(i) for i in range(3)],
    ),
)

_QUADRANTS = TaskSets(
    # As in the paper: moderate, then extreme, lie outside the training square in both scales.
    train=_grid(0.75, 0.85, 1.0, 1.15, 1.25),
    moderate=_grid(0.4, 0.5, 1.5, 1.6),
    extreme=_grid(0.2, 0.3, 1.7, 1.8),
)

HALF_CHEETAH = _task("HalfCheetah", limbs=0, max_episode_steps=1000, task_sets=_QUADRANTS)

_BACK, _FRONT = (0, 1, 2), (3, 4, 5)  # thigh, shin and foot of each leg

CRIPPLED_HALF_CHEETAH = _task(
    "CrippledHalfCheetah",
    limbs=6,
    max_episode_steps=1000,
    # Joints as in the paper: trained with a weak front leg, tested with a weak back leg, then with
    # both. Our choice: nominal mass and damping throughout, so that the legs are the only change.
    task_sets=TaskSets(
        train=[_dead(i) for i in _FRONT],
        moderate=[_dead(i) for i in _BACK],
        extreme=[_dead(back, front) for back, front in product(_BACK, _FRONT)],
    ),
)

ANT = _task("Ant", limbs=0, max_episode_steps=2000, task_sets=_QUADRANTS)

_LEGS = range(4)  # ahead left, behind left, behind right, ahead right

CRIPPLED_ANT = _task(
    "CrippledAnt",
    limbs=len(_LEGS),
    max_episode_steps=2000,
    task_sets=TaskSets(
        # Legs as in the paper: one is dead, then two are.
        train=[_dead(leg) for leg in _LEGS],
        # The paper tests unseen masses and dampings here. Our choice: still with one dead leg, at
        # the four corners of the ant's moderate square that lie nearest to its training square.
        moderate=[_dead(leg) | scales for leg in _LEGS for scales in _grid(0.5, 1.5)],
        # Our choice: nominal mass and damping, so that the legs are the only change.
        extreme=[_dead(*legs) for legs in combinations(_LEGS, 2)],
    ),
)

# As in the paper.
WALKER = _task("Walker", limbs=0, max_episode_steps=2000, task_sets=HOPPER.task_sets)

_RIGHT, _LEFT = (0, 1, 2), (3, 4, 5)  # thigh, leg and foot of each side

CRIPPLED_WALKER = _task(
    "CrippledWalker",
    limbs=6,
    max_episode_steps=2000,
    # Joints as in the paper: trained with a dead right side, tested with a single dead joint there,
    # then on the left side.
    task_sets=TaskSets(
        # Our choice: under the walker's training scales, since the dead side alone were one task.
        train=[_dead(*_RIGHT) | scales for scales in WALKER.task_sets.train],
        # Our choice: nominal mass and damping, so that the joints are the only change.
        moderate=[_dead(i) for i in _RIGHT],
        extreme=[_dead(*_LEFT), *(_dead(i) for i in _LEFT)],
    ),
)

_HUMANOID = TaskSets(
    # As in the paper: moderate, then extreme, lie outside the training square in both scales.
    train=_grid(0.8, 0.9, 1.0, 1.15, 1.25),
    moderate=_grid(0.6, 0.7, 1.5, 1.6),
    extreme=_grid(0.4, 0.5, 1.7, 1.8),
)

SLIM_HUMANOID = _task("SlimHumanoid", limbs=0, max_episode_steps=1000, task_sets=_HUMANOID)
HUMANOID_STANDUP = _task("HumanoidStandup", limbs=0, max_episode_steps=2000, task_sets=_HUMANOID)

MUJOCO_TASKS: tuple[Task, ...] = (
    HOPPER,
    CRIPPLED_HOPPER,
    HALF_CHEETAH,
    CRIPPLED_HALF_CHEETAH,
    ANT,
    CRIPPLED_ANT,
    WALKER,
    CRIPPLED_WALKER,
    SLIM_HUMANOID,
    HUMANOID_STANDUP,
)
