"""Final-step embeddings of the stored CubeMove policies, with projections and numbers.

    python experiments/cubemove_embeddings.py          # a few minutes on one core

Every stored policy with an encoder plays EPISODES episodes of every task, without updates and with
its mean action. Kept are c after the last step, the last observation, the task, the skill and the
success. UMAP and t-SNE see the embeddings of one policy at a time.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd
import torch
from cubemove_methods import BENCHMARK, ENV, SEEDS, checkpoint_name

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.embeddings import tsne, umap
from sami_tutorial.envs import SPLITS, make_vec, task_sets
from sami_tutorial.envs.cube_physics import OBSERVATION
from sami_tutorial.evaluate import EVALUATION_SEED, evaluate
from sami_tutorial.results import load_bytes, store_table

METHODS = ("random", "tesac", "ccm", "satesac", "saccm")
EPISODES = 8
PROJECTIONS: dict[str, dict] = {}
"""Settings of the projections, for the manifest."""


class Recorder:
    """A policy that keeps the last observation it was shown."""

    def __init__(self, policy: FrozenPolicy):
        self.policy = policy
        self.begin, self.act = policy.begin, policy.act

    def observe(self, action: np.ndarray, reward: np.ndarray, observation: np.ndarray) -> None:
        self.policy.observe(action, reward, observation)
        self.last = observation


def embeddings(method: str, seed: int) -> pd.DataFrame:
    """One row per episode of one stored policy."""
    policy = Recorder(FrozenPolicy(load_bytes(checkpoint_name(method, seed)), seed))
    tables = []
    for split in SPLITS:
        contexts = task_sets(ENV).split(split)
        episodes = len(contexts) * EPISODES
        table = evaluate(policy, ENV, contexts, episodes=EPISODES, method=method, max_envs=episodes)
        c = policy.policy.agent.memory.embedding.numpy()
        c = pd.DataFrame(c, columns=[f"c_{i}" for i in range(c.shape[1])])
        last = pd.DataFrame(policy.last, columns=[f"last_{name}" for name in OBSERVATION])
        start, _ = make_vec(ENV, episodes).reset(
            seed=[EVALUATION_SEED + k for k in table["episode"]],
            options={"context": [json.loads(each) for each in table["context"]]},
        )
        table["fingers"] = np.where(start[:, 3] > 0.5, "closed", "open")
        tables.append(pd.concat([table, c, last], axis=1).assign(split=split))
    table = pd.concat(tables, ignore_index=True)
    c = table.filter(regex=r"^c_\d").to_numpy()
    for name, project in {"umap": umap, "tsne": tsne}.items():
        projection = project(c, seed=seed)
        table[[f"{name}_x", f"{name}_y"]] = projection.coordinates
        PROJECTIONS[name] = projection.parameters | {"seed": "the policy's"}
    return table.assign(benchmark=BENCHMARK, method=method, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    table = pd.concat(
        [embeddings(method, seed) for method in METHODS for seed in arguments.seeds],
        ignore_index=True,
    )
    store_table(
        f"embeddings/{BENCHMARK}.parquet",
        table,
        command="python experiments/cubemove_embeddings.py",
        config={"methods": METHODS, "seeds": arguments.seeds, "episodes": EPISODES} | PROJECTIONS,
        wall_seconds=round(time.perf_counter() - start, 1),
    )


if __name__ == "__main__":
    main()
