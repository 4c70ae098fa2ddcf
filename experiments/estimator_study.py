"""InfoNCE, SaNCE and Sa+InfoNCE in a world where every probability is known, over K.

    python experiments/estimator_study.py               # about three minutes on one core
    python experiments/estimator_study.py --seeds 0     # a look; stores nothing

One row is one estimate from one batch of queries. With ``critic`` "best" the critic is the ratio of
the two distributions that positives and negatives are drawn from, so nothing is left to learn; with
"trained" it is a table of free numbers that Adam has fitted, in one of the worlds. What the
estimates should be on average, and the information they are held against, is exact and needs no
storing: chapter 8 computes it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch

from sami_tutorial.results import store_table
from sami_tutorial.skill_world import (
    ESTIMATORS,
    SkillWorld,
    best_critic,
    estimate_contrast,
    positives_and_negatives,
    train_critic,
)

NAME = "results/estimator_study.parquet"
COMMAND = "python experiments/estimator_study.py"
BASE = SkillWorld(skills=2, follow=0.8, sensor=0.9)
EVIDENCE = (0.6, 0.9)  # clarity and reliability: how well good and bad trajectories tell apart
DISTRACTORS = (1, 4, 16, 64, 128)  # |c| is twice that
NUM_SAMPLES = tuple(2**n for n in range(1, 10))
BATCH = 256
SEEDS = tuple(range(50))
TRAINED = {"evidence": (0.6,), "distractors": (16,), "num_samples": (2, 8, 32, 128)}
TRAINED_SEEDS = SEEDS[:5]
TRAINED_BATCH = 8192


def world(evidence: float, distractors: int) -> SkillWorld:
    settings = asdict(BASE) | {"clarity": evidence, "reliability": evidence}
    return SkillWorld(**settings | {"distractors": distractors})


def rows(seed: int, critic: str) -> list[dict]:
    """All estimates of one seed."""
    trained = critic == "trained"
    found = []
    for evidence in TRAINED["evidence"] if trained else EVIDENCE:
        for distractors in TRAINED["distractors"] if trained else DISTRACTORS:
            for estimator in ESTIMATORS:
                drawn = positives_and_negatives(world(evidence, distractors), estimator)
                best = torch.from_numpy(best_critic(*drawn))
                rng = np.random.default_rng(
                    [seed, int(10 * evidence), distractors, ESTIMATORS.index(estimator), trained]
                )
                for k in TRAINED["num_samples"] if trained else NUM_SAMPLES:
                    table = train_critic(*drawn, k, rng) if trained else best
                    batch = TRAINED_BATCH if trained else BATCH
                    estimate = estimate_contrast(table, *drawn, k, batch, rng).item()
                    found.append(
                        {
                            "evidence": evidence,
                            "distractors": distractors,
                            "estimator": estimator,
                            "critic": critic,
                            "num_samples": k,
                            "seed": seed,
                            "estimate": estimate,
                        }
                    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", help="only these; store nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    seeds = arguments.seeds or SEEDS
    table = pd.DataFrame(
        [row for seed in seeds for row in rows(seed, "best")]
        + [row for seed in seeds if seed in TRAINED_SEEDS for row in rows(seed, "trained")]
    )
    if arguments.seeds:
        keys = ["critic", "evidence", "distractors", "estimator"]
        print(table.pivot_table("estimate", keys, "num_samples").round(2).to_string())
        return
    store_table(
        NAME,
        table,
        command=COMMAND,
        config={
            "world": asdict(BASE),
            "evidence": EVIDENCE,
            "distractors": DISTRACTORS,
            "num_samples": NUM_SAMPLES,
            "batch": BATCH,
            "seeds": SEEDS,
            "trained": TRAINED | {"seeds": TRAINED_SEEDS, "batch": TRAINED_BATCH},
        },
        wall_seconds=round(time.perf_counter() - start, 1),
    )


if __name__ == "__main__":
    main()
