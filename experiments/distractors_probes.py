"""What the contexts of the sweep `distractors` hold: the wanted skill, the task, the distractors.

    python experiments/distractors_probes.py         # some minutes on one core

The stored policies of `distractors` and, for no distractor, of the same seeds in `one_change` play
test episodes, without updates and with their mean action, and what c holds is read linearly:

- *skill wanted*: unseen tasks in which one skill works, each pair of mass and friction with four
  new draws of the distractors; two trials in a row; at the end of the first and when the second has
  begun. Whole pairs are held out.
- *distractor*, R^2 of each: the same episodes, at the end of the first trial.
- *task*: which of the training tasks it is, distractors and all, at the end of an episode. Whole
  starts are held out, so that a start seen in no task has to be told.

Each is asked of c and of an encoder with fresh weights on the same episodes. Chapter 16 reads the
table: benchmark, method, seed, source, measure, group, step, value. What was measured of a policy
is kept in runs/distractors_probes and not measured again.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import torch
from embeddings_study import Table, untrained
from one_change_probes import store

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.embeddings import probe_labels, probe_values, record
from sami_tutorial.envs import task_sets
from sami_tutorial.envs.cube_physics import MAX_STEPS
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.evaluate import EVALUATION_SEED
from sami_tutorial.results import data_dir, load_bytes, provenance, read_manifest
from sami_tutorial.two_trials import draw_tasks

BENCHMARK = "distractors"
WITHOUT = "one_change"
METHODS = ("tesac", "ccm", "satesac", "saccm")
ENV = "sami/CubeMove-v0"
SPLITS = ("moderate", "extreme")
DRAWS = 4
EPISODES = 4
"""In each drawn task; with DRAWS of them, 16 for each pair of mass and friction."""

STARTS = 20
"""Episodes in each training task, all tasks from the same starts."""


def measure(variant: str, seed: int, checkpoint: str) -> pd.DataFrame:
    """The numbers of one policy."""
    table = Table(benchmark=BENCHMARK, method=variant, seed=seed)
    policy = FrozenPolicy(load_bytes(checkpoint), seed)
    options = provenance(checkpoint)["config"]["env_options"]
    count = options.get("distractors", 0)

    draws = np.random.default_rng(EVALUATION_SEED)  # the same tasks for every policy
    contexts = draw_tasks(SPLITS, count, draws, draws=DRAWS, one_skill=True)
    episodes = EPISODES if count else EPISODES * DRAWS
    drawn = pd.DataFrame([c for c in contexts for _ in range(episodes)])
    played = record(
        policy,
        ENV,
        drawn.to_dict("records"),
        [EVALUATION_SEED + k for _ in contexts for k in range(episodes)],
        env_options={"distractors": count, "trials": 2},
    )
    fresh = untrained(policy.agent, played, seed)
    wanted = optimal_skill(drawn["friction"], drawn["mass"])
    pairs = drawn[["mass", "friction"]].drop_duplicates()
    kinds = pd.Series(optimal_skill(pairs["friction"], pairs["mass"]), index=pairs.index)
    # Held out together: one pair of each class, so that what a probe learns from is balanced.
    held_out = drawn.merge(pairs.assign(fold=kinds.groupby(kinds).cumcount()))["fold"].to_numpy()
    for source, c in (("c", played.embedding), ("untrained", fresh)):
        for step in (MAX_STEPS - 1, MAX_STEPS):
            score = probe_labels(c[:, step], wanted, held_out).score
            table.add(source, "skill wanted", score, step)
        for name in drawn.columns[2:]:
            score = probe_values(c[:, MAX_STEPS - 1], drawn[name], held_out).score
            table.add(source, "distractor", score, MAX_STEPS - 1, group=name)

    known = task_sets(ENV, **options).train
    starts = np.tile(np.arange(STARTS), len(known))
    played = record(
        policy,
        ENV,
        [context for context in known for _ in range(STARTS)],
        [EVALUATION_SEED + int(k) for k in starts],
        env_options=options,
    )
    fresh = untrained(policy.agent, played, seed)
    which = np.arange(len(known)).repeat(STARTS)
    for source, c in (("c", played.embedding), ("untrained", fresh)):
        table.add(source, "task", probe_labels(c[:, MAX_STEPS], which, starts).score, MAX_STEPS)
    return pd.DataFrame(table.rows)


def main() -> None:
    torch.set_num_threads(1)
    stored = read_manifest(data_dir())["files"]
    own = provenance(f"results/{BENCHMARK}.parquet")["config"]["seeds"]
    seeds = {seed for each in own.values() for seed in each}
    pattern = re.compile(r"checkpoints/(\w+)/(\w+)/seed(\d+)\.safetensors")
    policies = [
        (match[2], int(match[3]), match[0])
        for match in map(pattern.fullmatch, stored)
        if match
        and (
            match[1] == BENCHMARK
            or (match[1] == WITHOUT and match[2] in METHODS and int(match[3]) in seeds)
        )
    ]
    config = {"env": ENV, "splits": SPLITS, "draws": DRAWS, "episodes_per_task": EPISODES}
    store(BENCHMARK, measure, policies, config | {"starts": STARTS})


if __name__ == "__main__":
    main()
