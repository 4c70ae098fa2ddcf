"""What scripted hands achieve in the Panda tasks, and what the arm can lift, drag and push.

    python experiments/panda_scripts.py                    # about a quarter of an hour on one core
    python experiments/panda_scripts.py --only random      # one of the four parts

The scripts see what an agent sees and nothing of mass or friction. Each plays the episodes that the
evaluation of an agent would play (`sami evaluate`), in every task of the three splits:
results/panda_scripts.parquet, one row per episode. The arm's strength is measured on cubes of
growing weight: results/panda_strength.parquet, one row per episode with the load in newtons and how
far the cube was lifted or moved. results/panda_shoulder.parquet: what the joints' torques leave for
a load, from the arm's own equations of motion. Random actions show what an agent meets that has not
learned anything: results/panda_random.parquet, one row per episode. Needs PyBullet (`make panda`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pybullet as bullet
from numpy.typing import NDArray

from sami_tutorial.envs import SPLITS, Context, make_vec, task_sets
from sami_tutorial.envs.panda import MAX_STEPS
from sami_tutorial.envs.panda_physics import _DOWN, _FORCES, _HAND, CUBE_SIDE, World
from sami_tutorial.envs.panda_skills import SCRIPTS, scripted_grip, scripted_push
from sami_tutorial.evaluate import EVALUATION_SEED, evaluate
from sami_tutorial.results import store_table

ENV = "sami/Panda-v0"
COMMAND = "python experiments/panda_scripts.py"
EPISODES = 40  # of each script in each task
SPEEDS = (0.2, 0.45, 1.0)

GRAVITY = 9.81  # m/s^2
CUBE_FRICTION = 0.5  # Bullet multiplies the table's friction by it
LIFTED = (1, 5, 10, 12, 14, 16, 18, 20, 25, 30)  # kg
MOVED = (25, 50, 75, 100, 150, 200, 300, 400)  # N of friction that hold a cube of 30 kg
TRIALS = 16
RANDOM = (1.0, 0.3)  # how large random actions are at most
RANDOM_ROUNDS = 30  # of TRIALS episodes each

Script = Callable[[NDArray[np.floating]], NDArray[np.float32]]


def play_all() -> pd.DataFrame:
    """Every script in every task."""
    tables = []
    for speed, (skill, script) in product(SPEEDS, SCRIPTS.items()):
        act = partial(script, speed=speed)
        for split in SPLITS:
            table = evaluate(act, ENV, task_sets(ENV).split(split), episodes=EPISODES)
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
    for _ in range(MAX_STEPS - 1):
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


def measure_shoulder() -> pd.DataFrame:
    """The largest weight that the joints can hold at rest, wherever the gripping hand may be."""
    rows = []
    world = World()
    arm, client = world._arm, world._client
    for x, y in product(np.linspace(-0.15, 0.15, 13), repeat=2):
        for _ in range(100):  # the solver improves on the pose that it finds
            angles = bullet.calculateInverseKinematics(
                arm, _HAND, (x, y, 0.03), _DOWN, physicsClientId=client
            )
            world._pose_arm(angles)
        rest = [0.0] * len(angles)
        own = np.array(bullet.calculateInverseDynamics(arm, angles, rest, rest, client))[:7]
        jacobian, _ = bullet.calculateJacobian(arm, _HAND, [0] * 3, angles, rest, rest, client)
        lever = np.array(jacobian)[2, :7]  # N m that a joint must add per N of load
        room = np.where(lever > 0, np.array(_FORCES[:7]) - own, np.array(_FORCES[:7]) + own)
        force = room / np.maximum(np.abs(lever), 1e-9)  # the first joint carries nothing upright
        rows.append({"x": x, "y": y, "force": force.min(), "joint": int(force.argmin()) + 1})
    world.close()
    return pd.DataFrame(rows)


def play_randomly() -> pd.DataFrame:
    """What random actions bring, against an arm that stays away from the cube."""
    rows = []
    env = make_vec(ENV, TRIALS)
    for size in RANDOM:
        rng = np.random.default_rng(0)
        for number in range(RANDOM_ROUNDS):
            seeds = [EVALUATION_SEED + TRIALS * number + i for i in range(TRIALS)]
            seen, info = env.reset(seed=seeds)
            context = info["context"]
            start, far = seen[:, 7:10].copy(), np.zeros(TRIALS)
            still = -MAX_STEPS * np.linalg.norm(start - seen[:, 19:22], axis=1)
            total, lowest = np.zeros(TRIALS), start[:, 2].copy()
            for _ in range(MAX_STEPS):
                seen, reward, _, _, info = env.step(rng.uniform(-size, size, (TRIALS, 4)))
                total += reward
                last = np.stack(info["final_obs"]) if "final_obs" in info else seen
                far = np.maximum(far, np.linalg.norm(last[:, 7:9] - start[:, :2], axis=1))
                lowest = np.minimum(lowest, last[:, 9])
            for i in range(TRIALS):
                rows.append(
                    {
                        "size": size,
                        "mass": float(context[i, 0]),
                        "friction": float(context[i, 1]),
                        "episode_seed": seeds[i],
                        "episode_return": total[i],
                        "return_if_still": still[i],
                        "moved": far[i],
                        "fell": bool(lowest[i] < 0),
                        "success": bool(info["final_info"]["success"][i]),
                    }
                )
    env.close()
    return pd.DataFrame(rows)


PARTS: dict[str, tuple[Callable[[], pd.DataFrame], dict]] = {
    "strength": (measure_strength, {"trials": TRIALS, "lifted": LIFTED, "moved": MOVED}),
    "shoulder": (measure_shoulder, {"height": 0.03}),
    "random": (play_randomly, {"rounds": RANDOM_ROUNDS, "trials": TRIALS, "sizes": RANDOM}),
    "scripts": (play_all, {"episodes": EPISODES, "speeds": SPEEDS}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else PARTS:
        measure, settings = PARTS[name]
        begun = time.perf_counter()
        store_table(
            f"results/panda_{name}.parquet",
            measure(),
            command=f"{COMMAND} --only {name}",
            config={"env": ENV, **settings},
            wall_seconds=round(time.perf_counter() - begun, 1),
        )


if __name__ == "__main__":
    main()
