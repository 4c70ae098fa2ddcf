"""Looking at embeddings, and measuring what they hold, so that no picture stands alone.

A picture in two dimensions suggests clusters; numbers say what is there. Three kinds:

* **projections** to two coordinates: :func:`pca`, :func:`tsne`, :func:`umap`;
* **linear probes**: can a label or a number be read off the embedding of an episode whose task was
  held out? :func:`probe_labels`, :func:`probe_values`;
* **agreement of geometry and labels**: :func:`silhouette`, :func:`cluster_agreement`.

A probe tests on whole groups that it never saw. Without that, an embedding that merely tells tasks
apart would seem to hold everything that differs between tasks.

Sources: t-SNE, van der Maaten and Hinton (2008); UMAP, McInnes et al., arXiv 1802.03426;
silhouette, Rousseeuw (1987); adjusted mutual information, Vinh et al. (2010); probes, Alain and
Bengio, arXiv 1610.01644. All computed by scikit-learn and umap-learn. Used from chapter 4, *A
context encoder*, on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

RIDGES = np.logspace(-3, 3, 7)
"""Strengths of the ridge penalty among which a regression probe chooses, on its training part."""


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
