"""What the embeddings of the stored policies hold: probes, clusters, pictures, paths over time.

    python experiments/embeddings_study.py              # every benchmark, a quarter of an hour
    python experiments/embeddings_study.py --benchmarks crippledhopper

Every policy with an encoder that the manifest lists plays test episodes, without updates and with
its mean action; whatever methods are stored are taken. Two tables per benchmark are written:
``results/embeddings_<benchmark>.parquet``, one row per number (benchmark, method, seed, source,
measure, group, step, value), and ``embeddings/<name>.parquet``, the final embeddings of the first
seed's policies with the coordinates of their pictures. What was measured of a policy is kept in
runs/embeddings_study and not measured again, so a benchmark to which methods were added is cheap.

A number has a source: ``c``, the policy's embedding; ``s``, the observation at the same time;
``untrained``, the embedding that a freshly initialised encoder makes of the same episodes; and for
pictures ``umap``, ``tsne`` and ``gaussian``, the last a UMAP of normal noise with the mean and the
covariance of the embeddings.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_mutual_info_score

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.context_sac import ContextSAC
from sami_tutorial.embeddings import (
    Trajectories,
    cluster_agreement,
    islands,
    probe_labels,
    probe_values,
    record,
    settling_time,
    silhouette,
    tsne,
    umap,
)
from sami_tutorial.encoder import ContextEncoder
from sami_tutorial.envs import task_sets
from sami_tutorial.envs.cube_physics import MAX_STEPS
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.evaluate import EVALUATION_SEED
from sami_tutorial.results import data_dir, load_bytes, provenance, read_manifest, store_table

METHODS = ("random", "tesac", "ccm", "satesac", "saccm", "satesac_shuffled")
PICTURED = METHODS[:-1]
PICTURE_SEED = 0
"""The seed of the policies whose pictures are drawn: the first, not the prettiest."""

UMAP_SEEDS = range(5)
UMAP_EPISODES = 10
"""Of each CubeMove task, in the pictures that are drawn again and again; elsewhere, all are."""
RADIUS = 0.25
"""A path has settled within this share of the mean distance between two episodes' ends."""
SMOOTHING = 50
"""Steps of the running mean that takes the gait out of a robot's path."""

KEPT = Path("runs") / "embeddings_study"
CUBE_STEPS = (0, 1, 2, 4, 6, 8, 12, 20, 40)
SECOND_TRIAL_STEPS = (39, 40, 44, 60)
ROBOT_STEPS = (0, 10, 50, 200, 1000)
ARM_STEPS = (0, 5, 10, 20, 30, 40, 50)

Row = dict[str, Any]
Array = NDArray[Any]
Measured = tuple[pd.DataFrame, pd.DataFrame | None, float]


@dataclass(frozen=True)
class Study:
    """Which tasks of which environment are played, and how often.

    Args:
        benchmark: the folder of the stored policies.
        env: a Gymnasium id.
        splits: the task sets.
        episodes: of each task that are measured.
        pictured: of each task that are drawn, for the policies of ``PICTURE_SEED``.
        name: of the table of embeddings.
    """

    benchmark: str
    env: str
    splits: tuple[str, ...]
    episodes: int
    pictured: int
    name: str

    def contexts(self) -> list[tuple[str, dict[str, float]]]:
        return [(split, c) for split in self.splits for c in task_sets(self.env).split(split)]


STUDIES = {
    study.benchmark: study
    for study in (
        Study("cubemove_methods", "sami/CubeMove-v0", ("moderate", "extreme"), 20, 100, "cubemove"),
        Study(
            "crippledhalfcheetah",
            "sami/CrippledHalfCheetah-v0",
            ("train", "moderate", "extreme"),
            6,
            6,
            "crippledhalfcheetah",
        ),
        Study(
            "crippledhopper",
            "sami/CrippledHopper-v0",
            ("train", "moderate"),
            4,
            4,
            "crippledhopper",
        ),
        Study("panda", "sami/Panda-v0", ("train", "moderate", "extreme"), 20, 20, "panda"),
    )
}


def stored_policies(benchmark: str) -> Iterator[tuple[str, int, str]]:
    """Method, seed and name of every stored policy with an encoder, in the order of METHODS."""
    pattern = re.compile(rf"checkpoints/{benchmark}/(\w+)/seed(\d+)\.safetensors")
    found = map(pattern.fullmatch, read_manifest(data_dir())["files"])
    policies = [(m[1], int(m[2]), m[0]) for m in found if m and m[1] in METHODS]
    yield from sorted(policies, key=lambda each: (METHODS.index(each[0]), each[1]))


def untrained(agent: ContextSAC, trajectories: Trajectories, seed: int) -> Array:
    """What an encoder with fresh weights makes of the same episodes: (N, T+1, D)."""
    s, a, r = (
        torch.as_tensor(each)
        for each in (trajectories.observation, trajectories.action, trajectories.reward)
    )
    encoder = ContextEncoder(
        s.shape[-1],
        a.shape[-1],
        torch.Generator().manual_seed(1_000 + seed),
        agent.context.hidden,
        agent.context.embedding_dim,
    )
    with torch.inference_mode():
        return encoder(agent.standardize(s), a, r).numpy()


def scaled(x: Array) -> Array:
    """Every coordinate with mean 0 and standard deviation 1 over all episodes and times."""
    flat = x.reshape(-1, x.shape[-1])
    return (x - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-6)


def typical_distance(points: Array) -> float:
    """The mean distance between two of them."""
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    return float(between.sum() / (len(points) * (len(points) - 1)))


class Table:
    """Collects rows that share what names a policy."""

    def __init__(self, **shared: Any):
        self.shared = shared
        self.rows: list[Row] = []

    def add(self, source: str, measure: str, value: float, step: int, group: str = "all") -> None:
        entry = {"source": source, "measure": measure, "group": group, "step": step}
        self.rows.append(self.shared | entry | {"value": float(value)})


def path_numbers(
    table: Table, sources: dict[str, Array], groups: Array, steps: list[int], smoothing: int = 1
) -> None:
    """How far each source is from its own end over time, and when it is there for good."""
    for source, x in sources.items():
        x = x.astype(np.float64)
        if smoothing > 1:
            sums = np.cumsum(np.concatenate([np.zeros_like(x[:, :1]), x], axis=1), axis=1)
            x = (sums[:, smoothing:] - sums[:, :-smoothing]) / smoothing
        scale = typical_distance(x[:, -1])
        away = np.linalg.norm(x - x[:, -1:], axis=2) / scale
        for t in steps:
            if t < x.shape[1]:
                table.add(source, "distance to the end", away[:, t].mean(), t)
        settled = settling_time(x, RADIUS * scale)
        last = x.shape[1] - 1
        table.add(source, "settled after", np.median(settled), last)
        for group in np.unique(groups):
            table.add(source, "settled after", np.median(settled[groups == group]), last, group)


def picture_numbers(
    table: Table, c: Array, labels: dict[str, Array], seeds: Iterable[int], step: int
) -> dict[str, Array]:
    """UMAPs of one set of embeddings, what an eye would find in them, and their coordinates.

    With several seeds also the UMAP of normal noise with the mean and covariance of ``c``.
    """
    pictures = {f"umap_{seed}": umap(c, seed=seed).coordinates for seed in seeds}
    drawn = {**pictures, "c": c}
    if len(pictures) > 1:
        rng = np.random.default_rng(PICTURE_SEED)
        normal = rng.multivariate_normal(c.mean(axis=0), np.cov(c.T), len(c))
        drawn["gaussian"] = umap(normal, seed=PICTURE_SEED).coordinates
    smallest = max(5, len(c) // 50)
    found = {name: islands(x, smallest=smallest) for name, x in drawn.items()}
    for name, x in drawn.items():
        source, _, number = name.partition("_")
        group = f"picture {number or 0}"
        table.add(source, "islands", found[name].max() + 1, step, group)
        if source == "gaussian":
            continue
        for label, y in labels.items():
            table.add(source, f"silhouette, {label}", silhouette(x, y), step, group)
            agreement = cluster_agreement(x, y, seed=0)
            table.add(source, f"clusters and {label}", agreement, step, group)
            agreement = adjusted_mutual_info_score(y, found[name])
            table.add(source, f"islands and {label}", agreement, step, group)
    for a, b in combinations(pictures, 2):
        agreement = adjusted_mutual_info_score(found[a], found[b])
        table.add("umap", "islands of two pictures", agreement, step, f"{a} {b}")
    return drawn


# ---------------------------------------------------------------------- CubeMove


def cube_numbers(
    study: Study, policy: FrozenPolicy, table: Table, seed: int, draw: bool
) -> pd.DataFrame | None:
    """The numbers of one policy; and its final embeddings if they are to be drawn."""
    tasks = study.contexts()
    each = study.pictured if draw else study.episodes
    task = np.repeat(np.arange(len(tasks)), each)
    episode = np.tile(np.arange(each), len(tasks))
    contexts = [tasks[i][1] for i in task]
    seeds = (EVALUATION_SEED + episode).tolist()
    all_played = record(policy, study.env, contexts, seeds)
    kind = optimal_skill(
        np.array([c["friction"] for c in contexts]), np.array([c["mass"] for c in contexts])
    )
    # Held out together: one task of each class, so that what a probe learns from is balanced.
    counters: dict[str, int] = {}
    rank_of_task = []
    for k in kind[::each]:
        rank_of_task.append(counters.get(str(k), 0))
        counters[str(k)] = rank_of_task[-1] + 1
    held_out = np.array(rank_of_task)[task]

    kept = episode < study.episodes
    played = Trajectories(
        *(x[kept] for x in all_played[:4]),
        {name: x[kept] for name, x in all_played.final_info.items()},
    )
    measure_cube(
        table,
        {
            "c": played.embedding,
            "s": played.observation,
            "untrained": untrained(policy.agent, played, seed),
        },
        task=task[kept],
        episode=episode[kept],
        kind=kind[kept],
        held_out=held_out[kept],
        skill=played.final_info["skill"].astype(str),
        success=played.final_info["success"].astype(bool),
        fingers=np.where(played.observation[:, 0, 3] > 0.5, "closed", "open"),
        mass=np.log([c["mass"] for c, k in zip(contexts, kept, strict=True) if k]),
        friction=np.log([c["friction"] for c, k in zip(contexts, kept, strict=True) if k]),
    )

    one_skill = kept & (kind != "both")
    two = record(
        policy,
        study.env,
        [c for c, k in zip(contexts, one_skill, strict=True) if k],
        [s for s, k in zip(seeds, one_skill, strict=True) if k],
        env_options={"trials": 2},
    )
    sources = {
        "c": two.embedding,
        "s": two.observation,
        "untrained": untrained(policy.agent, two, seed),
    }
    first = two.final_info["trial_success"][:, 0].astype(bool)
    for source, x in sources.items():
        for t in SECOND_TRIAL_STEPS:
            probe = probe_labels(x[:, t], kind[one_skill], held_out[one_skill])
            table.add(source, "skill wanted, two trials", probe.score, t)
            if t == MAX_STEPS:
                score = (probe.predictions == kind[one_skill])[first].mean()
                table.add(source, "skill wanted, two trials", score, t, "first solved")

    if table.shared["method"] not in PICTURED:
        return None
    skill = all_played.final_info["skill"].astype(str)
    c = all_played.embedding[:, -1].astype(np.float64)
    few = (episode < UMAP_EPISODES) & (skill != "none")
    labels = {"skill used": skill[few], "task": task[few]}
    drawn = picture_numbers(table, c[few], labels, UMAP_SEEDS if draw else [0], MAX_STEPS)
    if not draw:
        return None
    frame = embeddings_table(tasks, task, episode, all_played).assign(
        kind=kind,
        skill=skill,
        success=all_played.final_info["success"].astype(bool),
        fingers=np.where(all_played.observation[:, 0, 3] > 0.5, "closed", "open"),
    )
    add_coordinates(frame, few, drawn)
    add_pictures(table, frame, c, {"skill used": skill, "task": task}, MAX_STEPS)
    return frame


def measure_cube(
    table: Table,
    sources: dict[str, Array],
    *,
    task: Array,
    episode: Array,
    kind: Array,
    held_out: Array,
    skill: Array,
    success: Array,
    fingers: Array,
    mass: Array,
    friction: Array,
) -> None:
    """Probes at every time, and all other numbers at the end of the episode."""
    end = MAX_STEPS
    one_skill, moved = kind != "both", skill != "none"

    def within_class(y: Array) -> Array:
        return y - pd.Series(y).groupby(kind).transform("mean").to_numpy()

    values = {
        "log mass": mass,
        "log friction": friction,
        "log mass, within class": within_class(mass),
        "log friction, within class": within_class(friction),
    }
    observation = sources["s"]
    for source, x in sources.items():
        for t in CUBE_STEPS:
            probe = probe_labels(x[one_skill, t], kind[one_skill], held_out[one_skill])
            table.add(source, "skill wanted", probe.score, t)
            if t == end:
                right = probe.predictions == kind[one_skill]
                table.add(source, "skill wanted", right[success[one_skill]].mean(), t, "solved")
                if not success[one_skill].all():
                    score = right[~success[one_skill]].mean()
                    table.add(source, "skill wanted", score, t, "failed")
            if source != "s":
                fit = LinearRegression().fit(observation[:, t], x[:, t])
                table.add(source, "told by s", fit.score(observation[:, t], x[:, t]), t)
        last = x[:, end]
        probe = probe_labels(last[moved], skill[moved], held_out[moved])
        table.add(source, "skill used", probe.score, end)
        table.add(source, "skill used, chance", probe.chance, end)
        table.add(source, "task", probe_labels(last, task, episode).score, end)
        for name, y in values.items():
            table.add(source, f"R², {name}", probe_values(last, y, held_out).score, end)
        space = scaled(x)[:, end] if source == "s" else last
        for label, y, part in (("skill used", skill, moved), ("task", task, moved | ~moved)):
            table.add(source, f"silhouette, {label}", silhouette(space[part], y[part]), end)
            agreement = cluster_agreement(space[part], y[part], seed=0)
            table.add(source, f"clusters and {label}", agreement, end)
    groups = np.char.add(np.char.add(kind.astype(str), ", "), fingers)
    paths = sources | {"s": scaled(observation)}
    path_numbers(table, paths, groups, list(range(end + 1)))


# ---------------------------------------------------------------------- robots and the arm


def play_all(
    study: Study, policy: FrozenPolicy, seed: int
) -> tuple[list[tuple[str, dict[str, float]]], Array, Array, Trajectories, dict[str, Array]]:
    """The tasks; each episode's task and number (N,); what happened; what is probed (N, T+1, D)."""
    tasks = study.contexts()
    task = np.repeat(np.arange(len(tasks)), study.episodes)
    episode = np.tile(np.arange(study.episodes), len(tasks))
    seeds = (EVALUATION_SEED + episode).tolist()
    played = record(policy, study.env, [tasks[i][1] for i in task], seeds)
    sources = {
        "c": played.embedding,
        "s": played.observation,
        "untrained": untrained(policy.agent, played, seed),
    }
    return tasks, task, episode, played, sources


def robot_numbers(
    study: Study, policy: FrozenPolicy, table: Table, seed: int, draw: bool
) -> pd.DataFrame | None:
    """As :func:`cube_numbers`, for a body that walks and has no labelled skills."""
    tasks, task, episode, played, sources = play_all(study, policy, seed)
    contexts = [tasks[i][1] for i in task]
    end = played.reward.shape[1]
    starts = min(5, study.episodes)  # folds where starts are held out
    features = {
        name: np.array([c.get(name, 0.0) for c in contexts])
        for name in dict.fromkeys(name for _, c in tasks for name in c)
    }
    for name in ("mass", "damping"):
        if name in features:
            features[f"log {name}"] = np.log(features.pop(name))
    for source, x in sources.items():
        ends = {"last": x[:, -1], "mean": x[:, -2 * SMOOTHING :].mean(axis=1)}
        for t in ROBOT_STEPS:
            score = probe_labels(x[:, t], task, episode, folds=starts).score
            table.add(source, "task", score, t)
        for group, last in ends.items():
            if group == "mean":
                score = probe_labels(last, task, episode, folds=starts).score
                table.add(source, "task", score, end, group)
            for name, y in features.items():
                score = probe_values(last, y, task).score
                table.add(source, f"R², {name}", score, end, group)
            space = (last - last.mean(axis=0)) / last.std(axis=0) if source == "s" else last
            table.add(source, "silhouette, task", silhouette(space, task), end, group)
            score = cluster_agreement(space, task, seed=0)
            table.add(source, "clusters and task", score, end, group)
        shares(table, source, x[:, -10 * SMOOTHING :], task, end)
        if source != "s":
            fit = LinearRegression().fit(played.observation[:, -1], x[:, -1])
            table.add(source, "told by s", fit.score(played.observation[:, -1], x[:, -1]), end)
    splits = np.array([tasks[i][0] for i in task])
    paths = sources | {"s": scaled(played.observation)}
    path_numbers(table, paths, splits, list(range(0, end + 1, 10)), SMOOTHING)

    c = played.embedding[:, -1].astype(np.float64)
    drawn = picture_numbers(table, c, {"task": task}, UMAP_SEEDS if draw else [0], end)
    if not draw:
        return None
    frame = embeddings_table(tasks, task, episode, played)
    add_coordinates(frame, np.ones(len(c), bool), drawn)
    add_pictures(table, frame, c, {"task": task}, end)
    return frame


def shares(table: Table, source: str, x: Array, task: Array, step: int) -> None:
    """Of the variance of x (N, times, D): between tasks, between episodes of a task, over time."""
    total = ((x - x.mean(axis=(0, 1))) ** 2).sum(axis=2).mean()
    episodes = x.mean(axis=1)  # (N, D)
    tasks = np.stack([episodes[task == k].mean(axis=0) for k in np.unique(task)])[task]
    between_tasks = ((tasks - episodes.mean(axis=0)) ** 2).sum(axis=1).mean()
    between_episodes = ((episodes - tasks) ** 2).sum(axis=1).mean()
    over_time = ((x - episodes[:, None]) ** 2).sum(axis=2).mean()
    for group, part in (
        ("between tasks", between_tasks),
        ("between episodes", between_episodes),
        ("within an episode", over_time),
    ):
        table.add(source, "share of variance", part / total, step, group)


def arm_numbers(
    study: Study, policy: FrozenPolicy, table: Table, seed: int, draw: bool
) -> pd.DataFrame | None:
    """As :func:`robot_numbers`, for an arm whose episodes are labelled with the skill they used."""
    tasks, task, episode, played, sources = play_all(study, policy, seed)
    contexts = [tasks[i][1] for i in task]
    end = played.reward.shape[1]
    skill = played.final_info["skill"].astype(str)
    labels = {"skill used": skill, "task": task}
    for source, x in sources.items():
        for t in ARM_STEPS:
            table.add(source, "task", probe_labels(x[:, t], task, episode).score, t)
            for name in ("mass", "friction"):
                y = np.log([c[name] for c in contexts])
                table.add(source, f"R², log {name}", probe_values(x[:, t], y, task).score, t)
        last = x[:, end]
        probe = probe_labels(last, skill, task)
        table.add(source, "skill used", probe.score, end)
        table.add(source, "skill used, chance", probe.chance, end)
        space = scaled(x)[:, end] if source == "s" else last
        for label, y in labels.items():
            table.add(source, f"silhouette, {label}", silhouette(space, y), end)
            table.add(source, f"clusters and {label}", cluster_agreement(space, y, seed=0), end)
        if source != "s":
            fit = LinearRegression().fit(played.observation[:, end], last)
            table.add(source, "told by s", fit.score(played.observation[:, end], last), end)
    path_numbers(table, sources | {"s": scaled(played.observation)}, skill, list(range(end + 1)))

    c = played.embedding[:, -1].astype(np.float64)
    drawn = picture_numbers(table, c, labels, UMAP_SEEDS if draw else [0], end)
    if not draw:
        return None
    frame = embeddings_table(tasks, task, episode, played).assign(
        skill=skill, success=played.final_info["success"].astype(bool)
    )
    add_coordinates(frame, np.ones(len(c), bool), drawn)
    add_pictures(table, frame, c, labels, end)
    return frame


# ---------------------------------------------------------------------- all


def embeddings_table(
    tasks: list[tuple[str, dict[str, float]]], task: Array, episode: Array, played: Trajectories
) -> pd.DataFrame:
    """One row per episode: its final embedding, its task, its return."""
    c = played.embedding[:, -1]
    return pd.DataFrame(c, columns=[f"c_{i}" for i in range(c.shape[1])]).assign(
        split=[tasks[i][0] for i in task],
        context=[json.dumps(tasks[i][1]) for i in task],
        episode=episode,
        episode_return=played.reward.sum(axis=1),
    )


def add_coordinates(frame: pd.DataFrame, rows: Array, drawn: dict[str, Array]) -> None:
    """The pictures of some rows; the others stay empty."""
    for name, coordinates in drawn.items():
        if name != "c":
            for axis, values in zip("xy", coordinates.T, strict=True):
                frame.loc[rows, f"{name}_{axis}"] = values.astype(np.float32)


def add_pictures(
    table: Table, frame: pd.DataFrame, c: Array, labels: dict[str, Array], step: int
) -> None:
    """The coordinates of UMAP and t-SNE in the frame, and their numbers in the table."""
    for name, project in {"umap": umap, "tsne": tsne}.items():
        coordinates = project(c, seed=PICTURE_SEED).coordinates.astype(np.float32)
        frame[[f"{name}_x", f"{name}_y"]] = coordinates
        for label, y in labels.items():
            score = silhouette(coordinates, y)
            table.add(name, f"silhouette, {label}", score, step, "pictured")
            score = cluster_agreement(coordinates, y, seed=0)
            table.add(name, f"clusters and {label}", score, step, "pictured")
    for label, y in labels.items():
        table.add("c", f"silhouette, {label}", silhouette(c, y), step, "pictured")
        score = cluster_agreement(c, y, seed=0)
        table.add("c", f"clusters and {label}", score, step, "pictured")


def one_policy(study: Study, method: str, seed: int, checkpoint: str) -> Measured:
    """All numbers of a policy, its final embeddings if they are drawn, and the seconds it took."""
    start = time.process_time()
    torch.set_num_threads(1)
    table = Table(benchmark=study.benchmark, method=method, seed=seed)
    policy = FrozenPolicy(load_bytes(checkpoint), seed)
    measure = {"cubemove": cube_numbers, "panda": arm_numbers}.get(study.name, robot_numbers)
    with sklearn.config_context(skip_parameter_validation=True):  # faster on small tables
        frame = measure(study, policy, table, seed, draw=seed == PICTURE_SEED)
    if frame is not None:
        frame = frame.assign(method=method, seed=seed, benchmark=study.benchmark)
    return pd.DataFrame(table.rows), frame, time.process_time() - start


def kept_policy(study: Study, method: str, seed: int, checkpoint: str) -> Measured:
    """As :func:`one_policy`, but a policy that was measured before is read from runs/."""
    content = provenance(checkpoint)["sha256"][:12]
    folder = KEPT / study.benchmark / f"{method}-{seed}-{content}"
    pictures = folder / "pictures.parquet"
    if not (folder / "numbers.parquet").exists():
        numbers, frame, seconds = one_policy(study, method, seed, checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        if frame is not None:
            frame.to_parquet(pictures)
        (folder / "seconds").write_text(str(seconds))
        numbers.to_parquet(folder / "unfinished.parquet")
        (folder / "unfinished.parquet").rename(folder / "numbers.parquet")
        print(f"{seconds:6.0f} s  {study.benchmark} {method} {seed}", flush=True)
    return (
        pd.read_parquet(folder / "numbers.parquet"),
        pd.read_parquet(pictures) if pictures.exists() else None,
        float((folder / "seconds").read_text()),
    )


def run(study: Study, workers: int) -> None:
    policies = stored_policies(study.benchmark)
    measured = Parallel(n_jobs=workers)(delayed(kept_policy)(study, *each) for each in policies)
    origin = {
        "command": f"python experiments/embeddings_study.py --benchmarks {study.benchmark}",
        "config": {
            "env": study.env,
            "splits": study.splits,
            "episodes_per_task": study.episodes,
            "pictured_per_task": study.pictured,
            "picture_seed": PICTURE_SEED,
            "umap_episodes_per_task": min(UMAP_EPISODES, study.episodes)
            if study.name == "cubemove"
            else study.episodes,
            "radius": RADIUS,
            "smoothing": 1 if study.name in ("cubemove", "panda") else SMOOTHING,
            "umap": {"neighbors": 15, "min_dist": 0.1, "version": version("umap-learn")},
            "tsne": {"perplexity": 30, "sklearn": sklearn.__version__},
        },
        "wall_seconds": round(sum(seconds for _, _, seconds in measured), 1),
    }
    numbers = pd.concat([each for each, _, _ in measured], ignore_index=True)
    store_table(f"results/embeddings_{study.name}.parquet", numbers, **origin)
    pictures = pd.concat(
        [frame for _, frame, _ in measured if frame is not None], ignore_index=True
    )
    store_table(f"embeddings/{study.name}.parquet", pictures, **origin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    arguments = parser.parse_args()
    for benchmark in arguments.benchmarks:
        run(STUDIES[benchmark], arguments.workers)


if __name__ == "__main__":
    main()
