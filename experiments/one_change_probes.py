"""What the contexts of the sweep `one_change` hold of the skill that a task wants.

    python experiments/one_change_probes.py          # some minutes on one core

Each stored policy of the sweep plays test tasks in which one skill works, two trials in a row,
without updates and with its mean action. The wanted skill is then read, linearly and with whole
tasks held out, off c at the end of the first trial, and again when the second one begins: by then
cube, goal and fingers have started afresh, and only memory can know. There the same is asked of an
encoder with fresh weights on the same episodes. Chapter 13 gives the reasons; chapter 14 reads the
table: benchmark, method, seed, source, measure, group, step, value.

What was measured of a policy is kept in runs/one_change_probes and not measured again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from embeddings_study import Table, untrained

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.embeddings import probe_labels, record
from sami_tutorial.envs import task_sets
from sami_tutorial.envs.cube_physics import MAX_STEPS
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.evaluate import EVALUATION_SEED
from sami_tutorial.results import data_dir, load_bytes, provenance, read_manifest, store_table
from sami_tutorial.runs import write_table

BENCHMARK = "one_change"
ENV = "sami/CubeMove-v0"
SPLITS = ("moderate", "extreme")
EPISODES = 10

Policy = tuple[str, int, str]
"""A name, a seed and the stored file."""

Measure = Callable[[str, int, str], pd.DataFrame]


def measure(variant: str, seed: int, checkpoint: str) -> pd.DataFrame:
    """The numbers of one policy."""
    table = Table(benchmark=BENCHMARK, method=variant, seed=seed)
    policy = FrozenPolicy(load_bytes(checkpoint), seed)
    contexts = [context for split in SPLITS for context in task_sets(ENV).split(split)]
    friction, mass = (np.array([c[name] for c in contexts]) for name in ("friction", "mass"))
    kind = optimal_skill(friction, mass)
    one_skill = np.flatnonzero(kind != "both")
    # Held out together: one task of each class, so that what a probe learns from is balanced.
    rank = pd.Series(kind[one_skill]).groupby(kind[one_skill]).cumcount().to_numpy()
    played = record(
        policy,
        ENV,
        [contexts[i] for i in one_skill for _ in range(EPISODES)],
        [EVALUATION_SEED + k for _ in one_skill for k in range(EPISODES)],
        env_options={"trials": 2},
    )
    wanted, held_out = (x.repeat(EPISODES) for x in (kind[one_skill], rank))
    fresh = untrained(policy.agent, played, seed)
    for source, c, step in (
        ("c", played.embedding, MAX_STEPS - 1),
        ("c", played.embedding, MAX_STEPS),
        ("untrained", fresh, MAX_STEPS),
    ):
        table.add(source, "skill wanted", probe_labels(c[:, step], wanted, held_out).score, step)
    length = np.sqrt((played.embedding[:, MAX_STEPS - 1] ** 2).sum(axis=1).mean())
    table.add("c", "length", length, MAX_STEPS - 1)
    return pd.DataFrame(table.rows)


def kept(measure: Measure, folder: Path, policy: Policy) -> tuple[pd.DataFrame, float]:
    """What `measure` says of a policy and the seconds it took, from the folder if it is there."""
    variant, seed, checkpoint = policy
    path = folder / f"{variant}-{seed}-{provenance(checkpoint)['sha256'][:12]}.parquet"
    if not path.exists():
        start = time.process_time()
        numbers = measure(*policy)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(numbers.assign(seconds=time.process_time() - start), path)
    numbers = pd.read_parquet(path)
    return numbers.drop(columns="seconds"), float(numbers["seconds"].iloc[0])


def store(benchmark: str, measure: Measure, policies: list[Policy], config: dict[str, Any]) -> None:
    """Measures what was not measured before, and stores the table of all policies."""
    folder = Path("runs") / f"{benchmark}_probes"
    with sklearn.config_context(skip_parameter_validation=True):  # faster on small tables
        measured = [kept(measure, folder, policy) for policy in policies]
    store_table(
        f"results/{benchmark}_probes.parquet",
        pd.concat([numbers for numbers, _ in measured], ignore_index=True),
        command=f"python experiments/{benchmark}_probes.py",
        config=config | {"policies": len(policies), "sklearn": sklearn.__version__},
        wall_seconds=round(sum(seconds for _, seconds in measured), 1),
    )


def main() -> None:
    torch.set_num_threads(1)
    pattern = re.compile(rf"checkpoints/{BENCHMARK}/(\w+)/seed(\d+)\.safetensors")
    found = map(pattern.fullmatch, read_manifest(data_dir())["files"])
    policies = [(match[1], int(match[2]), match[0]) for match in found if match]
    config = {"env": ENV, "splits": SPLITS, "episodes_per_task": EPISODES, "trials": 2}
    store(BENCHMARK, measure, policies, config)


if __name__ == "__main__":
    main()
