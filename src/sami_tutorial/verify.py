"""Are the stored results what they say they are?

Two checks. Every file that ``data/manifest.json`` lists must have the hash given there. And stored
policies, run again in the tasks and from the seeds of the episodes in a result table, must bring
the returns that the table holds.

The second check needs a tolerance. Another processor, or another number of episodes side by side,
rounds the last bit of a sum otherwise; a contact can then come one step sooner, and an episode end
elsewhere. Few episodes are so close to such a border, and nothing shifts the mean. So returns count
as reproduced if almost all of them agree closely, and their mean as well. Bodies of many links are
chaotic: there every episode ends elsewhere, and only the mean is compared, with its standard error.
So too for PEARL, whose c is a draw, from a generator whose state no file keeps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sami_tutorial.agents import FrozenPolicy, get_method
from sami_tutorial.checkpoint import CheckpointError, read_policy
from sami_tutorial.encoder import PEARLEncoder
from sami_tutorial.envs import get_task
from sami_tutorial.evaluate import evaluate
from sami_tutorial.results import MANIFEST, ResultsError, load_bytes, load_table, read_manifest

RETURN_TOLERANCE = 1e-3
"""Two returns agree if they differ by at most this share of the returns' standard deviation."""
AGREEING = 0.95
"""The share of episodes whose returns must agree."""
MEAN_TOLERANCE = 0.05
"""How far the two means may be apart, as a share of the returns' standard deviation."""


@dataclass(frozen=True)
class Reproduction:
    """A stored policy, run again.

    Args:
        table: the result table, as named in the manifest.
        checkpoint: the policy, likewise.
        episodes: how many were run.
        agreeing: the share whose return agrees with the stored one.
        largest: the largest difference of two returns.
        mean_difference: of the means, in standard deviations of the stored returns.
        standard_error: of that difference, in the same unit.
        only_means: whether only means can agree: in a chaotic task, and for PEARL.
    """

    table: str
    checkpoint: str
    episodes: int
    agreeing: float
    largest: float
    mean_difference: float
    standard_error: float
    only_means: bool

    @property
    def holds(self) -> bool:
        """Whether the stored returns are reproduced."""
        if self.only_means:
            return self.mean_difference <= MEAN_TOLERANCE + 3 * self.standard_error
        return self.agreeing >= AGREEING and self.mean_difference <= MEAN_TOLERANCE

    def __str__(self) -> str:
        return (
            f"{self.checkpoint}: {self.agreeing:.1%} of {self.episodes} returns agree with "
            f"{self.table} (largest difference {self.largest:.2g}, "
            f"means {self.mean_difference:.2g} standard deviations apart)"
        )


def check_files(directory: Path) -> tuple[int, list[str]]:
    """How many files the manifest lists, and what is wrong with them, one line each.

    Raises:
        ResultsError: if the manifest cannot be read or lists nothing.
    """
    try:
        files = sorted(read_manifest(directory)["files"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{directory / MANIFEST} is damaged ({error!r}); restore it with git"
        ) from error
    if not files:
        raise ResultsError(f"{directory / MANIFEST} lists no files; restore it with git")
    wrong = []
    for name in files:
        try:
            load_bytes(name, directory)
        except ResultsError as error:
            wrong.append(str(error))
    return len(files), wrong


def stored_policies(directory: Path) -> list[tuple[str, str]]:
    """Every pair of a result table and a checkpoint that it names."""
    pairs = []
    for name in sorted(read_manifest(directory)["files"]):
        if name.startswith("results/"):
            table = load_table(name, directory)
            if "checkpoint" in table:
                pairs += [(name, each) for each in sorted(table["checkpoint"].dropna().unique())]
    return pairs


def reproduce(
    directory: Path, *, number: int, episodes: int, seed: int
) -> Iterator[Reproduction | str]:
    """Runs randomly chosen stored policies again, in every task of their tables.

    Args:
        directory: the data folder.
        number: of policies; all, if there are fewer.
        episodes: per task, from the first on; all, if there are fewer.
        seed: of the choice.

    Yields:
        what came of each policy, or one line on why it could not be run.
    """
    pairs = stored_policies(directory)
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:number]
    for name, checkpoint in (pairs[i] for i in sorted(chosen)):
        table = load_table(name, directory)
        table = table[(table["checkpoint"] == checkpoint) & (table["episode"] < episodes)]
        if "actions" in table:
            table = table[table["actions"] == "mean"]
        if checkpoint not in read_manifest(directory)["files"]:
            yield f"{checkpoint}, which {name} names, is not in {MANIFEST}"
            continue
        try:
            yield rerun(table, load_bytes(checkpoint, directory), name, checkpoint)
        except (CheckpointError, ResultsError) as error:
            yield f"{checkpoint}, which {name} names, cannot be run: {error}"


def rerun(stored: pd.DataFrame, policy: bytes, name: str, checkpoint: str) -> Reproduction:
    """Runs a policy in the tasks of the rows of ``stored``, from their seeds."""
    config, _ = read_policy(policy)
    stored = stored.drop_duplicates(["context", "episode"])  # a task may be in two splits
    contexts = list(stored["context"].unique())
    again = evaluate(
        FrozenPolicy(policy),
        config["env"],
        [json.loads(context) for context in contexts],
        episodes=int(stored["episode"].max()) + 1,
        method=config["method"],
        env_options=config["env_options"],
        first_seed=int((stored["episode_seed"] - stored["episode"]).iloc[0]),
    )
    both = stored.merge(again, on=["context", "episode_seed"], suffixes=("", "_again"))
    if len(both) != len(stored):
        raise ResultsError(f"only {len(both)} of {len(stored)} rows have a seed of evaluation")
    difference = both["episode_return_again"] - both["episode_return"]
    spread = max(float(both["episode_return"].std(ddof=0)), 1e-9)
    return Reproduction(
        table=name,
        checkpoint=checkpoint,
        episodes=len(both),
        agreeing=float((difference.abs() <= RETURN_TOLERANCE * spread).mean()),
        largest=float(difference.abs().max()),
        mean_difference=abs(float(difference.mean())) / spread,
        standard_error=float(difference.std(ddof=0)) / spread / len(both) ** 0.5,
        only_means=get_task(config["env"]).chaotic
        or get_method(config["method"]).encoder is PEARLEncoder,
    )
