"""What scripted hands achieve in the Panda tasks, and what the arm can lift, drag and push.

    python experiments/panda_scripts.py          # about a quarter of an hour on one core

The scripts see what an agent sees and nothing of mass or friction. Each plays the episodes that the
evaluation of an agent would play (`sami evaluate`), in every task of the three splits:
results/panda_scripts.parquet, one row per episode. The arm's strength is measured on cubes of
growing weight: results/panda_strength.parquet, one row per episode with the load in newtons and how
far the cube was lifted or moved. Needs PyBullet (`make panda`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sami_tutorial.envs import SPLITS, Context, make_vec, task_sets
from sami_tutorial.envs.panda_physics import CUBE_SIDE
from sami_tutorial.envs.panda_skills import scripted_grip, scripted_push
from sami_tutorial.evaluate import EVALUATION_SEED, evaluate
from sami_tutorial.results import store_table

ENV = "sami/Panda-v0"
COMMAND = "python experiments/panda_scripts.py"
EPISODES = 48  # of each script in each task
SPEEDS = (0.2, 0.45, 1.0)
LIFTS = {"carry": 0.03, "drag": 0.0}  # m

GRAVITY = 9.81  # m/s^2
CUBE_FRICTION = 0.5  # Bullet multiplies the table's friction by it
LIFTED = (1, 5, 10, 12, 14, 16, 18, 20, 25, 30)  # kg
MOVED = (25, 50, 75, 100, 150, 200, 300, 400)  # N of friction that hold a cube of 30 kg
TRIALS = 16

Script = Callable[[NDArray[np.floating]], NDArray[np.float32]]


def scripts() -> dict[tuple[str, float], Script]:
    """(skill, speed) -> what acts."""
    found: dict[tuple[str, float], Script] = {}
    for speed in SPEEDS:
        found["push", speed] = lambda seen, speed=speed: scripted_push(seen, speed)
        for name, lift in LIFTS.items():
            found[name, speed] = lambda seen, speed=speed, lift=lift: scripted_grip(
                seen, speed, lift
            )
    return found


def play_all() -> pd.DataFrame:
    """Every script in every task."""
    tables = []
    for (skill, speed), script in scripts().items():
        for split in SPLITS:
            table = evaluate(script, ENV, task_sets(ENV).split(split), episodes=EPISODES)
            tables.append(table.assign(script=skill, speed=speed, split=split))
        print(
            f"{skill} at speed {speed}: {tables[-3]['success'].mean():.2f} in training", flush=True
        )
    return pd.concat(tables, ignore_index=True)


def lift(seen: NDArray[np.floating]) -> NDArray[np.float32]:
    """Grips the cube and goes straight up."""
    action = scripted_grip(seen)
    held = (action[:, 3] < 0) & (seen[:, 6] < CUBE_SIDE + 0.0015)
    action[held, :3] = (0, 0, 1)
    return action


def strength(script: Script, context: Context) -> tuple[NDArray, NDArray]:
    """How far up and how far along the table a cube ever gets, m, in each of some episodes."""
    env = make_vec(ENV, TRIALS)
    seeds = [EVALUATION_SEED + i for i in range(TRIALS)]
    seen, _ = env.reset(seed=seeds, options={"context": context})
    start, up, along = seen[:, 7:10].copy(), np.zeros(TRIALS), np.zeros(TRIALS)
    for _ in range(49):
        seen, *_ = env.step(script(seen))
        up = np.maximum(up, seen[:, 9] - start[:, 2])
        along = np.maximum(along, np.linalg.norm(seen[:, 7:9] - start[:, :2], axis=1))
    env.close()
    return up, along


def measure_strength() -> pd.DataFrame:
    """Cubes that grow too heavy, and a heavy cube on tables that grow too rough."""
    rows = []

    def add(kind: str, load: float, far: NDArray) -> None:
        rows.extend({"kind": kind, "load": load, "episode": i, "far": d} for i, d in enumerate(far))

    for mass in LIFTED:
        add("lift", mass * GRAVITY, strength(lift, {"mass": float(mass), "friction": 1.0})[0])
    mass = 30.0
    for load in MOVED:
        context = {"mass": mass, "friction": load / (CUBE_FRICTION * mass * GRAVITY)}
        add("push", load, strength(scripted_push, context)[1])
        add("drag", load, strength(lambda seen: scripted_grip(seen, lift=-0.02), context)[1])
    return pd.DataFrame(rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    begun = time.perf_counter()
    measured = measure_strength()
    store_table(
        "results/panda_strength.parquet",
        measured,
        command=COMMAND,
        config={"env": ENV, "trials": TRIALS, "lifted": LIFTED, "moved": MOVED},
        wall_seconds=round(time.perf_counter() - begun, 1),
    )
    begun = time.perf_counter()
    played = play_all()
    store_table(
        "results/panda_scripts.parquet",
        played,
        command=COMMAND,
        config={"env": ENV, "episodes": EPISODES, "speeds": SPEEDS, "lifts": LIFTS},
        wall_seconds=round(time.perf_counter() - begun, 1),
    )


if __name__ == "__main__":
    main()
