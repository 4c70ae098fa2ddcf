"""Looking at embeddings, and measuring what they hold, so that no picture stands alone.

:func:`record` lets a stored policy play and keeps its embeddings. A picture in two dimensions
suggests clusters; numbers say what is there. Four kinds:

* **projections** to two coordinates: :func:`pca`, :func:`tsne`, :func:`umap`;
* **linear probes**: can a label or a number be read off the embedding of an episode whose task was
  held out? :func:`probe_labels`, :func:`probe_values`;
* **agreement of geometry and labels**: :func:`silhouette`, :func:`cluster_agreement`,
  :func:`islands`;
* **the path within an episode**: :func:`settling_time`.

A probe tests on whole groups that it never saw. Without that, an embedding that merely tells tasks
apart would seem to hold everything that differs between tasks.

Sources: t-SNE, van der Maaten and Hinton (2008); UMAP, McInnes et al., arXiv 1802.03426;
silhouette, Rousseeuw (1987); adjusted mutual information, Vinh et al. (2010); HDBSCAN, Campello et
al. (2013); probes, Alain and Bengio, arXiv 1610.01644. All computed by scikit-learn and umap-learn.
Used from chapter 4, *A context encoder*, on; silhouette and adjusted mutual information are built
by hand in chapter 13, *What the embedding knows*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.context_sac import ContextSAC
from sami_tutorial.envs import Context, get_task, make_vec

Array = NDArray[np.float64]

RIDGES = np.logspace(-3, 3, 7)
"""Strengths of the ridge penalty among which a regression probe chooses, on its training part."""


class Trajectories(NamedTuple):
    """Whole episodes of one policy, and the embedding that it had at every time.

    ``embedding[:, t]`` is c_t: what the policy knew when it saw ``observation[:, t]``.
    """

    observation: NDArray[np.float32]  # (N, T+1, S)
    action: NDArray[np.float32]  # (N, T, A)
    reward: NDArray[np.float32]  # (N, T)
    embedding: NDArray[np.float32]  # (N, T+1, D)
    final_info: dict[str, NDArray[Any]]  # of the last step; each entry has shape (N, ...)


def record(
    policy: FrozenPolicy,
    env: str,
    contexts: Sequence[Context],
    seeds: Sequence[int] | NDArray[np.integer],
    *,
    env_options: dict[str, Any] | None = None,
) -> Trajectories:
    """One episode in each context, with the policy's mean action and without updates.

    Args:
        policy: with an encoder.
        env: a Gymnasium id.
        contexts: the task of each episode.
        seeds: the seed of each episode.
        env_options: further options of the environment.

    Raises:
        ValueError: for a policy without an encoder, no episodes, or not one seed for each context.
    """
    if not isinstance(policy.agent, ContextSAC):
        raise ValueError("policy has no encoder; give one of a method that sees s and c")
    if not contexts or len(contexts) != len(seeds):
        raise ValueError(
            f"contexts has {len(contexts)} entries and seeds {len(seeds)}; give one seed for each "
            "of at least one context"
        )
    side_by_side = get_task(env).side_by_side
    parts = [
        _play(
            policy.agent,
            make_vec(env, len(contexts[i : i + side_by_side]), **(env_options or {})),
            contexts[i : i + side_by_side],
            seeds[i : i + side_by_side],
        )
        for i in range(0, len(contexts), side_by_side)
    ]
    infos = [part.final_info for part in parts]
    return Trajectories(
        np.concatenate([part.observation for part in parts]),
        np.concatenate([part.action for part in parts]),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.embedding for part in parts]),
        {name: np.concatenate([info[name] for info in infos]) for name in infos[0]},
    )


def _play(
    agent: ContextSAC,
    env: VectorEnv,
    contexts: Sequence[Context],
    seeds: Sequence[int] | NDArray[np.integer],
) -> Trajectories:
    """Episodes side by side; all of this library's last equally long."""
    observation, _ = env.reset(seed=list(seeds), options={"context": list(contexts)})  # type: ignore[arg-type]
    agent.begin(observation)
    observations, actions, rewards = [observation], [], []
    embeddings = [agent.memory.embedding.numpy()]
    last = False
    while not last:
        action = agent.act(observation, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        last = bool((terminated | truncated).any())
        if last:
            observation = np.stack(info["final_obs"])
        agent.observe(action, reward, observation)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward.astype(np.float32))
        embeddings.append(agent.memory.embedding.numpy())
    env.close()
    final = {name: each for name, each in info["final_info"].items() if not name.startswith("_")}
    return Trajectories(
        np.stack(observations, axis=1, dtype=np.float32, casting="same_kind"),
        np.stack(actions, axis=1, dtype=np.float32, casting="same_kind"),
        np.stack(rewards, axis=1),
        np.stack(embeddings, axis=1),
        final,
    )


@dataclass(frozen=True)
class Projection:
    """Two coordinates per embedding, and all it takes to compute them again.

    ``coordinates`` has shape (N, 2). ``parameters`` names the method, its settings, the seed and
    the version of the library: two versions may draw two different pictures.
    """

    coordinates: Array
    parameters: dict[str, Any]


def pca(embedding: ArrayLike) -> Projection:
    """The two directions of greatest variance: linear, instant, the same on every machine.

    Args:
        embedding: shape (N, D).

    Raises:
        ValueError: for fewer than two embeddings or dimensions, NaN or infinity.
    """
    x = _embedding(embedding, least=2)
    fitted = PCA(n_components=2, svd_solver="full").fit(x)
    explained = [float(share) for share in fitted.explained_variance_ratio_]
    parameters = {"method": "pca", "explained_variance": explained, "sklearn": sklearn.__version__}
    return Projection(fitted.transform(x), parameters)


def tsne(embedding: ArrayLike, *, seed: int, perplexity: float = 30.0) -> Projection:
    """t-SNE: keeps near points near. Distances between clusters and their sizes mean little.

    Args:
        embedding: shape (N, D).
        seed: of the optimisation.
        perplexity: about how many neighbours count as near; below N.

    Raises:
        ValueError: for fewer than three embeddings, NaN or infinity, or a perplexity out of range.
    """
    x = _embedding(embedding, least=3)
    if not 0 < perplexity < len(x):
        raise ValueError(
            f"perplexity is {perplexity}; give a number above 0 and below {len(x)}, the number of "
            "embeddings"
        )
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    parameters = {"method": "tsne", "perplexity": perplexity, "seed": seed}
    return Projection(
        model.fit_transform(x).astype(np.float64), parameters | {"sklearn": sklearn.__version__}
    )


def umap(
    embedding: ArrayLike, *, seed: int, neighbors: int = 15, min_dist: float = 0.1
) -> Projection:
    """UMAP: keeps near points near, and more of the large shape than t-SNE.

    The first call in a process compiles for half a minute to two minutes, and the picture depends
    on machine and version even for one seed; so the book computes coordinates once and stores them.

    Args:
        embedding: shape (N, D).
        seed: of the optimisation, which a seed confines to one thread.
        neighbors: how many neighbours count as near; from 2 to N - 1.
        min_dist: how close points may lie in the picture.

    Raises:
        ValueError: for fewer than three embeddings, NaN or infinity, or settings out of range.
    """
    x = _embedding(embedding, least=3)
    if not 2 <= neighbors < len(x):
        raise ValueError(
            f"neighbors is {neighbors}; give an integer from 2 to {len(x) - 1}, one less than the "
            "number of embeddings"
        )
    if not 0 <= min_dist <= 1:
        raise ValueError(f"min_dist is {min_dist}; give a number from 0 to 1")
    import umap as library  # here, because importing it takes seconds

    model = library.UMAP(n_neighbors=neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
    parameters = {"method": "umap", "neighbors": neighbors, "min_dist": min_dist, "seed": seed}
    return Projection(
        model.fit_transform(x).astype(np.float64), parameters | {"umap": library.__version__}
    )


@dataclass(frozen=True)
class Probe:
    """What a linear probe read off embeddings of groups that it was not trained on.

    ``score`` is the accuracy or R^2 over all held-out predictions, ``predictions`` of shape (N,);
    ``chance`` is what the best constant prediction scores (the largest class's share; 0 for R^2).
    """

    score: float
    chance: float
    predictions: NDArray[Any]


def probe_labels(
    embedding: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, folds: int = 5
) -> Probe:
    """Accuracy of logistic regression from embedding to label, cross-validated over groups.

    Args:
        embedding: shape (N, D); standardised within each training part.
        labels: shape (N,), at least two different ones.
        groups: shape (N,), the task or episode of each embedding. A group is never split between
            training and test.
        folds: parts of the cross-validation, from 2 to the number of groups.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, one label only (overall or in some
            training part), or fewer groups than folds.
    """
    x = _embedding(embedding, least=2)
    y = _labels("labels", labels, len(x))
    g, splits = _splits(x, groups, folds)
    for train, _ in splits:
        if len(np.unique(y[train])) < 2:
            raise ValueError(
                f"groups leaves a training part with the label {y[train][0]!r} only; "
                "use more folds, or groups that mix the labels"
            )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    predictions = cross_val_predict(model, x, y, groups=g, cv=splits)
    _, counts = np.unique(y, return_counts=True)
    return Probe(float((predictions == y).mean()), float(counts.max() / len(y)), predictions)


def probe_values(
    embedding: ArrayLike, values: ArrayLike, groups: ArrayLike, *, folds: int = 5
) -> Probe:
    """R^2 of ridge regression from embedding to a number, cross-validated over groups.

    R^2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2 over all held-out predictions. It is below
    0 where the probe predicts worse than the mean.

    Args:
        embedding, groups, folds: as for :func:`probe_labels`.
        values: shape (N,), not all equal.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, constant values, or fewer groups
            than folds.
    """
    x = _embedding(embedding, least=2)
    y = np.asarray(values, dtype=np.float64)
    if y.shape != (len(x),) or not np.isfinite(y).all():
        raise ValueError(
            f"values has shape {y.shape}; give one finite number for each of {len(x)} embeddings"
        )
    if np.ptp(y) == 0:
        raise ValueError(f"values are all {y[0]:g}; a probe needs at least two different ones")
    g, splits = _splits(x, groups, folds)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=RIDGES))
    predictions = cross_val_predict(model, x, y, groups=g, cv=splits)
    unexplained = ((y - predictions) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return Probe(float(1 - unexplained), 0.0, predictions)


def silhouette(embedding: ArrayLike, labels: ArrayLike) -> float:
    """How much nearer an embedding lies to its own label's than to the nearest other label's.

    The mean of (b - a) / max(a, b): a is the mean Euclidean distance to the others of the same
    label, b the least mean distance to another label. From -1 to 1, and 0 without structure.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, or a number of labels outside 2 to
            N - 1.
    """
    x = _embedding(embedding, least=3)
    y = _labels("labels", labels, len(x))
    if len(np.unique(y)) >= len(x):
        raise ValueError(
            f"labels names {len(x)} embeddings differently; none has another beside it"
        )
    return float(silhouette_score(x, y))


def cluster_agreement(
    embedding: ArrayLike, labels: ArrayLike, *, seed: int, clusters: int | None = None
) -> float:
    """Adjusted mutual information between k-means clusters and labels.

    1 if the clusters are the labels under other names, about 0 if they have nothing to do with each
    other, whatever the number of clusters.

    Args:
        embedding: shape (N, D), used as it is: directions with a larger spread count more.
        labels: shape (N,), at least two different ones.
        seed: of k-means, which starts ten times and keeps the best.
        clusters: how many; default: as many as there are labels.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, one label only, or a number of
            clusters outside 2 to N.
    """
    x = _embedding(embedding, least=2)
    y = _labels("labels", labels, len(x))
    clusters = len(np.unique(y)) if clusters is None else clusters
    if not 2 <= clusters <= len(x):
        raise ValueError(f"clusters is {clusters}; give an integer from 2 to {len(x)}")
    found = KMeans(n_clusters=clusters, n_init=10, random_state=seed).fit_predict(x)
    return float(adjusted_mutual_info_score(y, found))


def islands(coordinates: ArrayLike, *, smallest: int) -> NDArray[np.intp]:
    """Clumps as an eye finds them: dense regions of any shape, set apart by sparse ones (HDBSCAN).

    Unlike k-means it is not told how many there are, and there may be none.

    Args:
        coordinates: shape (N, D), a picture's or an embedding's.
        smallest: the fewest points that make an island, from 2 to N.

    Returns:
        Shape (N,): the number of each point's island from 0 on, or -1 for a point between islands.

    Raises:
        ValueError: for a shape that does not fit, NaN or infinity, or ``smallest`` out of range.
    """
    x = _embedding(coordinates, least=3)
    if not 2 <= smallest <= len(x):
        raise ValueError(f"smallest is {smallest}; give an integer from 2 to {len(x)}")
    return HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(x)


def settling_time(path: ArrayLike, radius: float) -> NDArray[np.intp]:
    """After how many steps each path is within ``radius`` of its end for good.

    Args:
        path: shape (N, T+1, D), one path per episode.
        radius: Euclidean, positive.

    Returns:
        Shape (N,): the first t of which it holds that from t on all points of the path lie within
        ``radius`` of its last one; 0 for a path that never leaves, T for one that arrives last.

    Raises:
        ValueError: for a shape that does not fit, NaN or infinity, or a radius that is not
            positive.
    """
    x = np.asarray(path, dtype=np.float64)
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"path has shape {x.shape}; give (N, T+1, D)")
    if not np.isfinite(x).all():
        raise ValueError("path holds NaN or infinity; drop those episodes or fix what made them")
    if not radius > 0:
        raise ValueError(f"radius is {radius}; give a positive distance")
    outside = np.linalg.norm(x - x[:, -1:], axis=2) > radius  # (N, T+1), False at the end
    still_inside = np.cumsum(outside[:, ::-1], axis=1) == 0  # counted from the end
    return x.shape[1] - still_inside.sum(axis=1)


def _embedding(embedding: ArrayLike, least: int) -> Array:
    x = np.asarray(embedding, dtype=np.float64)
    if x.ndim != 2 or len(x) < least or x.shape[1] < 2:
        raise ValueError(
            f"embedding has shape {x.shape}; give (N, D) with at least {least} embeddings of at "
            "least 2 dimensions"
        )
    if not np.isfinite(x).all():
        raise ValueError("embedding holds NaN or infinity; drop those rows or fix what made them")
    return x


def _labels(name: str, labels: ArrayLike, length: int) -> NDArray[Any]:
    y = np.asarray(labels)
    if y.shape != (length,):
        raise ValueError(f"{name} has shape {y.shape}; give one for each of {length} embeddings")
    if pd.isna(y).any():
        raise ValueError(f"{name} holds None or NaN; drop those embeddings or name their label")
    if len(np.unique(y)) < 2:
        raise ValueError(f"{name} are all {y[0]!r}; give at least two different ones")
    return y


def _splits(
    x: Array, groups: ArrayLike, folds: int
) -> tuple[NDArray[Any], list[tuple[NDArray[np.intp], NDArray[np.intp]]]]:
    g = _labels("groups", groups, len(x))
    count = len(np.unique(g))
    if not 2 <= folds <= count:
        raise ValueError(
            f"folds is {folds} with {count} groups; give an integer from 2 to the number of groups"
        )
    return g, list(GroupKFold(n_splits=folds).split(x, groups=g))
