"""The two-trial test for every objective, over K and distractors, ten seeds each.

    python experiments/two_trials.py                        # an hour or two of one core
    python experiments/two_trials.py --seeds 0 --runs-only  # one seed, store nothing

A seed draws everything anew: the distractors, the starts of all trials, the encoder, the batches.
Settings are chosen on the training tasks with other seeds (runs "selection"): "validation" is new
trials with new distractors in the training pairs of mass and friction. Finished runs are kept in
runs/two_trials and skipped on the next call; with --keep-stored, so are those that data/ holds with
equal settings.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression

from sami_tutorial.embeddings import probe_labels, probe_values
from sami_tutorial.envs.cube_physics import OBSERVATION
from sami_tutorial.results import load_table, provenance, store_table
from sami_tutorial.sampling import CONTRASTS
from sami_tutorial.two_trials import (
    PICK,
    PUSH,
    EncoderConfig,
    Trials,
    choose_skills,
    draw_tasks,
    embed,
    move_camera,
    play,
    success_rate,
    train_encoder,
)

NAME = "two_trials"
COMMAND = "python experiments/two_trials.py"
SEEDS = tuple(range(10))
SELECTION_SEEDS = (100, 101, 102)
NEIGHBORS = 15

LONG = 1000  # updates of the main comparison; all others make EncoderConfig().updates
CAMERAS = (0.03, 0.1, 0.3, 1.0)  # m, how far the camera hangs off

GRID = [
    {"normalize": normalize, "learning_rate": rate}
    for normalize in (True, False)
    for rate in (3e-3, 1e-3)
]


def runs(chosen: dict[str, dict]) -> dict[str, tuple[EncoderConfig, dict]]:
    """Name -> how the encoder is trained, and what is special about the data.

    ``chosen`` holds the settings of each contrast.
    """

    def contrast(objective: str, **settings: object) -> EncoderConfig:
        return EncoderConfig(objective=objective, **{**chosen[objective], **settings})

    found: dict[str, tuple[EncoderConfig, dict]] = {}
    for objective in CONTRASTS:
        # The main comparison trains on, for the question whether that changes anything.
        found[f"{objective}, D=4"] = contrast(objective, updates=LONG), {}
        for distractors in (0, 8):
            special = {"distractors": distractors}
            found[f"{objective}, D={distractors}"] = contrast(objective), special
        for k in (2, 16):
            found[f"{objective}, K={k}"] = contrast(objective, num_samples=k), {}
        for spread in CAMERAS:
            found[f"{objective}, camera {spread}"] = contrast(objective), {"camera": spread}
    found["ccm, camera 1.0, K=16"] = contrast("ccm", num_samples=16), {"camera": 1.0}
    for spread in CAMERAS:
        found[f"random, camera {spread}"] = EncoderConfig(updates=0), {"camera": spread}
    for distractors in (0, 4, 8):
        special = {"distractors": distractors}
        found[f"random, D={distractors}"] = EncoderConfig(updates=0), special
    found["critic"] = EncoderConfig(objective="critic"), {}
    found["outlook"] = EncoderConfig(objective="outlook"), {}
    chance = contrast("satesac", shuffle_returns=True)
    found["satesac, shuffled"] = chance, {}
    for distractors in (0, 8):
        special = {"distractors": distractors}
        found[f"critic, D={distractors}"] = EncoderConfig(objective="critic"), special
        found[f"satesac, shuffled, D={distractors}"] = chance, special
    for k in (2, 16):
        found[f"satesac, shuffled, K={k}"] = replace(chance, num_samples=k), {}
    for objective in ("ccm", "satesac"):
        found[f"{objective}, push 7/8"] = contrast(objective), {"push_share": 7 / 8}
    found["satesac, residual ranks"] = contrast("satesac"), {"residual": True}
    found["satesac, both ways"] = contrast("satesac", both_ways=True), {}
    for weight in ("min", "max"):
        found[f"satesac, weight {weight}"] = contrast("satesac", weight=weight), {}
    found["satesac, sigmoid"] = contrast("satesac", sigmoid=True), {}
    return found


def datasets(
    seed: int, distractors: int = 4, push_share: float = 0.5, camera: float = 0.0
) -> dict[str, Trials]:
    """Training trials, and one-skill tasks to test on. Without distractors a task recurs more."""
    draws, trials = (1, 32) if distractors == 0 else (4, 8)
    rng = np.random.default_rng([seed, distractors])
    data = {}
    for i, (name, split) in enumerate(
        {
            "train": "train",
            "validation": "train",
            "moderate": "moderate",
            "extreme": "extreme",
        }.items()
    ):
        tasks = draw_tasks([split], distractors, rng, draws=draws, one_skill=name != "train")
        share = push_share if name == "train" else 0.5
        start = 10_000 * seed + 2_000 * i
        played = play(tasks, trials, distractors=distractors, seed=start, push_share=share)
        data[name] = move_camera(played, camera, rng)
    return data


def residual_ranks(trials: Trials) -> Trials:
    """Returns without what the start explains: |goal| and fingers, by linear regression."""
    start = trials.observation[:, :, 0].flatten(0, 1).numpy()
    inputs = np.stack([np.abs(start[:, 0]), start[:, 3]], axis=1)
    returns = trials.returns.flatten().numpy()
    residual = returns - LinearRegression().fit(inputs, returns).predict(inputs)
    return trials._replace(returns=torch.from_numpy(residual).reshape(trials.returns.shape))


def scores(features: dict[str, torch.Tensor], data: dict[str, Trials], neighbors: int) -> dict:
    """Success of the second trials in each set of held-out trials."""
    return {
        name: success_rate(
            data[name], choose_skills(features["train"], data["train"], features[name], neighbors)
        )
        for name in data
        if name != "train"
    }


def probes(features: dict[str, torch.Tensor], data: dict[str, Trials]) -> dict[str, float]:
    """What can be read off linearly in the held-out one-skill tasks; a task is never split."""
    parts = [data[name] for name in ("moderate", "extreme")]
    x = torch.cat([features[name] for name in ("moderate", "extreme")])
    tasks, trials, _ = x.shape
    groups = np.repeat(np.arange(tasks), trials)
    labels = {
        "skill tried": torch.cat([each.skill for each in parts]),
        "success": torch.cat([each.success for each in parts]),
        "skill that works": torch.cat([each.next_success[..., PICK] for each in parts]),
    }
    x = x.flatten(0, 1).numpy()
    found = {
        name: probe_labels(x, label.flatten().numpy(), groups).score
        for name, label in labels.items()
    }
    context = torch.cat([each.context for each in parts]).numpy().repeat(trials, axis=0)
    found["log mass"] = probe_values(x, np.log(context[:, 0]), groups).score
    found["log friction"] = probe_values(x, np.log(context[:, 1]), groups).score
    # Every trial starts at 0, so what is seen there is what the camera adds.
    start = torch.cat([each.observation[:, :, 0, OBSERVATION.index("position")] for each in parts])
    if start.std() > 0:
        found["camera"] = probe_values(x, start.flatten().numpy(), groups).score
    if context.shape[1] > 2:
        each = [probe_values(x, column, groups).score for column in context[:, 2:].T]
        found["distractors, best"] = max(each)
        found["distractors, mean"] = float(np.mean(each))
    return found


def run(config: EncoderConfig, special: dict, seed: int) -> list[dict]:
    """All measurements of one run: rows of kind, what, updates, value."""
    start = time.perf_counter()
    special = dict(special)
    residual = special.pop("residual", False)
    data = datasets(seed, **special)
    rows: list[dict] = []

    def add(kind: str, values: dict, updates: int = config.updates) -> None:
        rows.extend(
            {"kind": kind, "what": w, "updates": updates, "value": v} for w, v in values.items()
        )

    def features(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: embed(encoder, each) for name, each in data.items()}

    def watch(encoder: torch.nn.Module, updates: int) -> None:
        if updates % 100 == 0 and updates < config.updates:
            now = features(encoder)
            add("success", scores(now, data, NEIGHBORS), updates)
            if updates == EncoderConfig().updates:
                add("probe", probes(now, data), updates)

    seen = residual_ranks(data["train"]) if residual else data["train"]
    encoder, losses = train_encoder(seen, config, seed, watch)
    final = features(encoder)
    add("success", scores(final, data, NEIGHBORS))
    add("probe", probes(final, data))
    for neighbors in (5, 45):
        add(f"success, {neighbors} neighbors", scores(final, data, neighbors))
    for i in range(0, len(losses), 50):
        add("loss", {"training": float(np.mean(losses[i : i + 50]))}, i + 50)
    add("seconds", {"wall": time.perf_counter() - start})
    return rows


def rulers(seed: int, distractors: int) -> list[dict]:
    """Rules that need no encoder, and the observation itself in the place of the embedding."""
    data = datasets(seed, distractors)
    held_out = [name for name in data if name != "train"]
    found = {}
    for name in held_out:
        each = data[name]
        found["always push", name] = success_rate(each, torch.full_like(each.skill, PUSH))
        found["always pick", name] = success_rate(each, torch.full_like(each.skill, PICK))
        best = each.next_success.long().argmax(dim=-1)
        found["skill that works", name] = success_rate(each, best)
        switch = torch.where(each.success, each.skill, 1 - each.skill)
        found["win: stay, lose: switch", name] = success_rate(each, switch)
    for label, t in {"last observation": 39, "next start": 40}.items():
        features = {name: each.observation[:, :, t] for name, each in data.items()}
        values = scores(features, data, NEIGHBORS)
        found |= {(label, name): value for name, value in values.items()}
    return [
        {"run": f"{rule}, D={distractors}", "seed": seed, "kind": "success", "what": name,
         "updates": 0, "value": value}
        for (rule, name), value in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/two_trials"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs-only", action="store_true", help="store nothing in data/")
    parser.add_argument("--keep-stored", action="store_true", help="skip what data/ holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.run_dir.mkdir(parents=True, exist_ok=True)

    stored = load_table(f"results/{NAME}.parquet")
    before = provenance(f"results/{NAME}.parquet")["config"]

    def stored_settings(name: str) -> str:
        if name.startswith("selection: "):
            objective, settings = name.removeprefix("selection: ").split(", ", 1)
            for each in before["grid"]:
                if settings == json.dumps(each).replace('"', ""):
                    return json.dumps([asdict(EncoderConfig(objective=objective, **each)), {}])
        return json.dumps(before["runs"].get(name))

    def kept(name: str, seed: int, config: EncoderConfig, special: dict) -> pd.DataFrame:
        """The run's rows, those that are kept if they were made with the same settings."""
        settings = json.dumps([asdict(config), special])
        found = stored[(stored["run"] == name) & (stored["seed"] == seed)]
        if arguments.keep_stored and len(found) and stored_settings(name) == settings:
            return found
        path = arguments.run_dir / f"{name}, seed {seed}.parquet".replace("/", "_")
        if path.exists():
            table = pd.read_parquet(path)
            if table.attrs.get("settings") == settings:
                return table
        table = pd.DataFrame(run(config, special, seed)).assign(run=name, seed=seed)
        table.attrs["settings"] = settings
        table.to_parquet(path)
        return table

    tables, chosen = [], {}
    for objective in CONTRASTS:
        validation = []
        for settings in GRID:
            config = EncoderConfig(objective=objective, **settings)
            name = f"selection: {objective}, {json.dumps(settings)}".replace('"', "")
            found = pd.concat([kept(name, seed, config, {}) for seed in SELECTION_SEEDS])
            # Nothing of the test tasks takes part in a choice, so nothing of them is stored.
            found = found[found["what"].isin(["validation", "training", "wall"])]
            last = (found["kind"] == "success") & (found["updates"] == config.updates)
            validation.append(found.loc[last, "value"].mean())
            tables.append(found)
        chosen[objective] = GRID[int(np.argmax(validation))]  # ties go to the first
    for seed in arguments.seeds:
        for name, (config, special) in runs(chosen).items():
            tables.append(kept(name, seed, config, special))
        tables += [pd.DataFrame(rulers(seed, distractors)) for distractors in (0, 4, 8)]
    table = pd.concat(tables, ignore_index=True)
    if arguments.runs_only:
        return
    store_table(
        f"results/{NAME}.parquet",
        table,
        command=COMMAND,
        config={
            "runs": {name: [asdict(c), special] for name, (c, special) in runs(chosen).items()},
            "chosen": chosen,
            "grid": GRID,
            "seeds": arguments.seeds,
            "selection_seeds": SELECTION_SEEDS,
            "neighbors": NEIGHBORS,
        },
        wall_seconds=round(float(table.loc[table["kind"] == "seconds", "value"].sum()), 1),
    )


if __name__ == "__main__":
    main()
