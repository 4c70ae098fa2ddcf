"""What each objective learns from fixed data: K, distractors and the mix of skills, ten seeds each.

    python experiments/what_objectives_learn.py                        # about an hour on one core
    python experiments/what_objectives_learn.py --coarse               # without levels in between
    python experiments/what_objectives_learn.py --seeds 0 --runs-only  # one seed, store nothing

A seed draws everything anew: the distractors, the starts of all trials, the encoder, the batches;
so runs with the same seed and the same data are paired. Similarity and learning rate of each
contrast are those of experiments/two_trials.py, chosen there on training tasks with other seeds.
Finished runs are kept in runs/what_objectives_learn and skipped on the next call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from two_trials import NEIGHBORS, residual_ranks

from sami_tutorial.embeddings import RIDGES, probe_labels
from sami_tutorial.envs.cube_physics import OBSERVATION
from sami_tutorial.fixed_data import blind, contrast_game, play_skilled
from sami_tutorial.results import provenance, store_table
from sami_tutorial.runs import write_table
from sami_tutorial.sampling import CONTRASTS
from sami_tutorial.two_trials import (
    PICK,
    PUSH,
    EncoderConfig,
    Trials,
    choose_skills,
    draw_tasks,
    embed,
    play,
    train_encoder,
)

NAME = "what_objectives_learn"
COMMAND = f"python experiments/{NAME}.py"
SEEDS = tuple(range(10))
KEYS = (2, 4, 8, 16, 32, 64)
TRIALS, TEST_TRIALS = 40, 20  # of a task, where each pair of mass and friction comes four times
CLOSURE = OBSERVATION.index("closure")


@dataclass(frozen=True)
class Setting:
    """One cell: data and objective. ``objective`` may also be "critic" or "random"."""

    objective: str
    num_samples: int = 4
    distractors: int = 4
    push_share: float = 0.5
    right_share: float | None = None  # takes the place of push_share
    blind: tuple[str, ...] = ()
    ranks: str = "return"  # or "chance", or "residual"


def settings(coarse: bool) -> list[Setting]:
    """All cells; neighbours share their data. The levels between the ends of an axis come last."""
    pair, three = ("ccm", "satesac"), ("ccm", "satesac", "random")
    found = [Setting(name) for name in (*CONTRASTS, "critic", "random")]
    found += [Setting("satesac", ranks=ranks) for ranks in ("chance", "residual")]
    found += [Setting(name, blind=("closure",)) for name in three]
    # The mix: a habit, and (right_share) a choice that is good already
    found += [Setting(name, push_share=0.9) for name in three]
    found += [Setting(name, distractors=8) for name in three]
    found += [Setting(name, distractors=0) for name in three]
    found += [Setting(name, num_samples=k) for k in (2, 64, 16) for name in pair]
    found += [Setting(name, right_share=0.9) for name in three]
    if coarse:
        return found
    found += [Setting(name, push_share=share) for share in (0.7, 0.8, 0.6) for name in pair]
    found += [Setting(name, distractors=distractors) for distractors in (2, 1) for name in pair]
    found += [Setting(name, num_samples=k) for k in (8, 32) for name in pair]
    found += [Setting(name, push_share=0.9) for name in ("saccm", "critic")]
    found += [Setting(name, distractors=8) for name in ("saccm", "critic")]
    return found


def config_of(setting: Setting, chosen: dict[str, dict]) -> EncoderConfig:
    if setting.objective == "random":
        return EncoderConfig(updates=0)
    config = EncoderConfig(
        objective=setting.objective,
        num_samples=setting.num_samples,
        shuffle_returns=setting.ranks == "chance",
    )
    return replace(config, **chosen.get(setting.objective, {}))


def data_of(setting: Setting) -> tuple[int, float, float | None]:
    """What distinguishes the data of settings."""
    return setting.distractors, setting.push_share, setting.right_share


@lru_cache(maxsize=1)
def datasets(
    seed: int, distractors: int, push_share: float, right_share: float | None
) -> dict[str, Trials]:
    """Training trials; new trials in the same tasks; new tasks; one-skill tasks to test on.

    All but the first are tried with either skill equally often. Without distractors a task recurs
    more often instead, so that the number of trials stays the same.
    """
    draws, more = (1, 4) if distractors == 0 else (4, 1)
    rng = np.random.default_rng([seed, distractors])
    known, new, test = (
        draw_tasks(splits, distractors, rng, draws=draws, one_skill=one_skill)
        for splits, one_skill in (
            (["train"], False),
            (["moderate"], False),
            (["moderate", "extreme"], True),
        )
    )
    start, each = 100_000 * seed, {"distractors": distractors}
    if right_share is None:
        train = play(known, more * TRIALS, seed=start, push_share=push_share, **each)
    else:
        train = play_skilled(known, more * TRIALS, seed=start, right_share=right_share, **each)
    return {
        "train": train,
        "new trials": play(known, more * TRIALS, seed=start + 20_000, **each),
        "new tasks": play(new, more * TRIALS, seed=start + 30_000, **each),
        "test": play(test, more * TEST_TRIALS, seed=start + 40_000, **each),
    }


def success(skill: Tensor, test: Trials) -> dict[str, float]:
    """Success of second trials with these skills, in all and in parts."""
    right = test.next_success.gather(2, skill[..., None]).squeeze(2).double()
    closed = test.observation[:, :, 0, CLOSURE] > 0.5
    wants_pick = test.next_success[..., PICK]
    parts = {
        "all": torch.ones_like(closed),
        "trial 1 won": test.success,
        "trial 1 lost": ~test.success,
        "fingers open": ~closed,
        "fingers closed": closed,
        "only Push works": ~wants_pick,
        "only Pick works": wants_pick,
    }
    return {name: right[part].mean().item() for name, part in parts.items()}


def probes(features: Tensor, test: Trials) -> dict[str, float]:
    """What can be read off linearly in the test tasks.

    Groups are pairs of mass and friction, which several tasks share: no pair is on both sides. In
    one-skill tasks heavy and slippery go together, and so do light and rough; "within" is what is
    left of a feature when the mean over the tasks with the same right skill is taken off.
    """
    trials = features.shape[1]
    x = features.flatten(0, 1).double().numpy()
    context = test.context.double().numpy()
    _, pair = np.unique(context[:, :2].round(4), axis=0, return_inverse=True)
    groups = np.repeat(pair.reshape(-1), trials)
    labels = {
        "skill tried": test.skill,
        "success": test.success,
        "skill that works": test.next_success[..., PICK],
    }
    found = {
        name: probe_labels(x, label.flatten().numpy(), groups).score
        for name, label in labels.items()
    }
    logs = np.log(context[:, :2])
    wants_pick = test.next_success[:, 0, PICK].numpy()
    within = logs.copy()
    for side in (True, False):
        within[wants_pick == side] -= within[wants_pick == side].mean(axis=0)
    values = np.concatenate([logs, within, context[:, 2:]], axis=1).repeat(trials, axis=0)
    names = ["log mass", "log friction", "log mass, within", "log friction, within"]
    names += [f"distractor_{i}" for i in range(context.shape[1] - 2)]
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=RIDGES, alpha_per_target=True))
    folds = list(GroupKFold(n_splits=5).split(x, groups=groups))
    predicted = cross_val_predict(model, x, values, groups=groups, cv=folds)
    unexplained = ((values - predicted) ** 2).sum(axis=0) / values.var(axis=0) / len(values)
    return found | dict(zip(names, (1 - unexplained).tolist(), strict=True))


def games(features: dict[str, Tensor], data: dict[str, Trials], seed: int) -> dict[str, float]:
    """Held-out accuracy and loss in the game of every objective, for every K."""
    found = {}
    for where in ("new trials", "new tasks"):
        for objective in CONTRASTS:
            for k in KEYS:
                generator = torch.Generator().manual_seed(seed)
                game = contrast_game(features[where], data[where], objective, k, generator)
                for name, value in game._asdict().items():
                    found[f"{where}, {objective}, K={k}, {name}"] = value
    return found


def run(setting: Setting, config: EncoderConfig, seed: int) -> list[dict]:
    """All measurements of one run: rows of kind, what, value."""
    data = datasets(seed, *data_of(setting))
    seen = {name: blind(each, setting.blind) for name, each in data.items()}
    learned = residual_ranks(seen["train"]) if setting.ranks == "residual" else seen["train"]
    start = time.process_time()
    encoder, losses = train_encoder(learned, config, seed)
    seconds = time.process_time() - start
    features = {name: embed(encoder, each) for name, each in seen.items()}
    found = measure(features, data, seed)
    every = 50
    means = np.array(losses).reshape(-1, every).mean(axis=1)
    found["loss"] = {f"{every * (i + 1)}": float(value) for i, value in enumerate(means)}
    found["seconds"] = {"training, of one core": seconds}
    return in_rows(found)


def measure(
    features: dict[str, Tensor], data: dict[str, Trials], seed: int
) -> dict[str, dict[str, float]]:
    """Decision, probes and games, with these features of all trials."""
    skill = choose_skills(features["train"], data["train"], features["test"], NEIGHBORS)
    return {
        "success": success(skill, data["test"]),
        "probe": probes(features["test"], data["test"]),
        "game": games(features, data, seed),
    }


def in_rows(found: dict[str, dict[str, float]]) -> list[dict]:
    return [
        {"kind": kind, "what": what, "value": value}
        for kind, values in found.items()
        for what, value in values.items()
    ]


def rulers(setting: Setting, seed: int) -> dict[str, list[dict]]:
    """Rules that need no encoder, and the observation itself in the place of the embedding."""
    data = datasets(seed, *data_of(setting))
    test = data["test"]
    rules = {
        "always push": torch.full_like(test.skill, PUSH),
        "always pick": torch.full_like(test.skill, PICK),
        "skill that works": test.next_success.long().argmax(dim=-1),
    }
    found = {name: in_rows({"success": success(skill, test)}) for name, skill in rules.items()}
    for name, t in {"last observation": -2, "next start": -1}.items():
        features = {part: trials.observation[:, :, t] for part, trials in data.items()}
        skill = choose_skills(features["train"], data["train"], features["test"], NEIGHBORS)
        found[name] = in_rows(
            {"success": success(skill, test), "probe": probes(features["test"], test)}
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path(f"runs/{NAME}"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--coarse", action="store_true", help="only the ends of most axes")
    parser.add_argument("--stop", action="store_true", help="run nothing, store what is there")
    parser.add_argument("--runs-only", action="store_true", help="store nothing in data/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run_dir.mkdir(parents=True, exist_ok=True)
    chosen = provenance("results/two_trials.parquet")["config"]["chosen"]
    chosen = {name: chosen[name] for name in CONTRASTS}

    def kept(name: str, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The rows of a run, from its file if it is there and was made with the same settings."""
        path = arguments.run_dir / f"{name}.parquet"
        if path.exists():
            table = pd.read_parquet(path)
            if table.attrs.get("key") == key:
                return table
        if arguments.stop:
            return pd.DataFrame()
        table = make()
        table.attrs["key"] = key
        write_table(table, path)
        return table

    def labelled(rows: list[dict], setting: Setting, seed: int) -> pd.DataFrame:
        columns = asdict(setting) | {"blind": " ".join(setting.blind), "seed": seed}
        return pd.DataFrame(rows).assign(**columns)

    cells = settings(arguments.coarse)
    tables, seeds = [], {setting: list[int]() for setting in cells}
    for _, alike in itertools.groupby(cells, data_of):  # a seed's data serve all cells of a group
        group = list(alike)
        for seed, setting in itertools.product(arguments.seeds, group):
            config = config_of(setting, chosen)
            key = json.dumps([asdict(setting), asdict(config)])
            name = ", ".join(str(value) for value in asdict(setting).values())

            def one(
                setting: Setting = setting, config: EncoderConfig = config, seed: int = seed
            ) -> pd.DataFrame:
                return labelled(run(setting, config, seed), setting, seed)

            table = kept(f"{name}, seed {seed}", key, one)
            if len(table):
                tables.append(table)
                seeds[setting].append(seed)
        print(f"{len(tables)} runs; last:", group[-1], flush=True)
    for distractors in (4,) if arguments.coarse else (4, 8, 0):
        setting = Setting("random", distractors=distractors)
        for seed in arguments.seeds:

            def every_rule(setting: Setting = setting, seed: int = seed) -> pd.DataFrame:
                return pd.concat(
                    [
                        labelled(rows, replace(setting, objective=rule), seed)
                        for rule, rows in rulers(setting, seed).items()
                    ],
                    ignore_index=True,
                )

            tables.append(kept(f"rulers, D={distractors}, seed {seed}", "rulers", every_rule))
    if arguments.runs_only:
        return
    table = pd.concat(tables, ignore_index=True)
    table["right_share"] = table["right_share"].astype(float)
    store_table(
        f"results/{NAME}.parquet",
        table,
        command=COMMAND + (" --coarse" if arguments.coarse else ""),
        config={
            "settings": [asdict(each) | {"seeds": done} for each, done in seeds.items() if done],
            "encoders": {
                name: asdict(config_of(Setting(name), chosen)) for name in (*CONTRASTS, "critic")
            },
            "trials": TRIALS,
            "test_trials": TEST_TRIALS,
            "neighbors": NEIGHBORS,
        },
        wall_seconds=round(float(table.loc[table["kind"] == "seconds", "value"].sum()), 1),
    )


if __name__ == "__main__":
    main()
