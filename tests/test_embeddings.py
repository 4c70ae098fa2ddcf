"""Projections, probes and agreement measures on data whose answer is known."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.embeddings import (
    cluster_agreement,
    islands,
    pca,
    probe_labels,
    probe_values,
    record,
    settling_time,
    silhouette,
    tsne,
    umap,
)
from sami_tutorial.envs import task_sets
from sami_tutorial.evaluate import EVALUATION_SEED, evaluate
from sami_tutorial.results import load_bytes

CUBE = "sami/CubeMove-v0"


def blobs(per=20, distance=12.0, dimensions=6, seed=0):
    """Three clouds of unit variance, their centres ``distance`` apart along three axes."""
    centres = distance * np.eye(3, dimensions)
    labels = np.repeat(np.arange(3), per)
    noise = np.random.default_rng(seed).normal(size=(3 * per, dimensions))
    return centres[labels] + noise, labels


def nearest_share(coordinates, labels):
    """Of how many points the nearest other point has the same label."""
    distance = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return (labels[distance.argmin(axis=1)] == labels).mean()


# ---------------------------------------------------------------------- projections


def test_pca_finds_the_two_longest_axes():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    flat = np.zeros((40, 5))
    flat[:, 0], flat[:, 1] = 10 * rng.normal(size=40), 3 * rng.normal(size=40)
    result = pca(flat @ rotation + 7)
    centred = flat[:, :2] - flat[:, :2].mean(axis=0)
    # A rotation within the plane and a shift are all that may differ: distances are kept.
    between = lambda z: np.linalg.norm(z[:, None] - z[None], axis=-1)  # noqa: E731
    assert np.allclose(between(result.coordinates), between(centred))
    assert sum(result.parameters["explained_variance"]) == pytest.approx(1)
    assert result.coordinates[:, 0].var() > result.coordinates[:, 1].var()


def test_tsne_keeps_neighbours_repeats_with_its_seed_and_tells_its_settings():
    x, labels = blobs()
    first, again = tsne(x, seed=3, perplexity=10), tsne(x, seed=3, perplexity=10)
    assert np.array_equal(first.coordinates, again.coordinates)
    assert first.coordinates.shape == (60, 2)
    assert nearest_share(first.coordinates, labels) == 1
    assert first.parameters.items() >= {"method": "tsne", "perplexity": 10, "seed": 3}.items()


def test_umap_keeps_neighbours_repeats_with_its_seed_and_tells_its_settings():
    """In a process of its own without compiling, which would take a minute or two."""
    code = """
import numpy as np
from test_embeddings import blobs, nearest_share
from sami_tutorial.embeddings import umap
x, labels = blobs(per=6)
first, again = (umap(x, seed=3, neighbors=4, min_dist=0.2) for _ in range(2))
assert np.array_equal(first.coordinates, again.coordinates)
assert first.coordinates.shape == (18, 2)
assert nearest_share(first.coordinates, labels) == 1
settings = {"method": "umap", "neighbors": 4, "min_dist": 0.2, "seed": 3}
assert first.parameters.items() >= settings.items(), first.parameters
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        cwd=os.path.dirname(__file__),
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
    )


def test_importing_embeddings_does_not_import_umap():
    code = "import sys, sami_tutorial.embeddings; sys.exit('umap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------- probes


def grouped(groups=40, per=6, seed=0):
    """Embeddings that carry a label linearly, in groups; the label belongs to the group."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(groups) % 2)
    group = np.repeat(np.arange(groups), per)
    x = rng.normal(size=(groups * per, 4))
    x[:, 1] += 8 * labels[group]
    return x, labels[group], group, rng


def test_a_label_that_is_there_is_read():
    x, labels, group, _ = grouped()
    probe = probe_labels(x, np.where(labels == 1, "push", "pick"), group)
    assert probe.score == 1.0 and probe.chance == 0.5
    assert set(probe.predictions) == {"push", "pick"}


def test_a_label_that_is_not_there_is_not_read():
    """Labels by coin. With n = 600 independent groups the accuracy is within 4 sigma of 1/2
    (0.082) in all but 6e-5 of all samples; a probe tested on its training part beats that."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(600, 4)), rng.integers(2, size=600)
    assert abs(probe_labels(x, labels, np.arange(600)).score - 0.5) < 0.082


def test_knowing_the_group_is_not_knowing_the_label():
    """The embedding names its group, one hot; labels belong to groups by coin. Whoever tests on
    groups seen in training reads the label perfectly; on new groups there is nothing to read."""
    groups, per = 100, 5
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(groups), per)
    x = np.eye(groups)[group] + 0.01 * rng.normal(size=(groups * per, groups))
    labels = rng.permutation(np.arange(groups) % 2)[group]
    assert probe_labels(x, labels, np.arange(groups * per)).score > 0.99  # groups are split
    # Five episodes of a group agree, so it is 100 coins: 4 sigma are 0.2.
    assert probe_labels(x, labels, group).score < 0.7
    values = rng.normal(size=groups)[group]
    assert probe_values(x, values, np.arange(groups * per)).score > 0.9
    assert probe_values(x, values, group).score < 0.2


def test_r2_is_the_share_of_variance_that_is_linear():
    """y = 2 x_0 + noise: R^2 = 4 / (4 + noise^2) in the limit; 3000 rows give it within 0.05."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 4))
    for noise in (0.0, 1.0, 2.0):
        y = 2 * x[:, 0] + noise * rng.normal(size=3000) + 5
        score = probe_values(x, y, np.arange(3000) // 3).score
        assert score == pytest.approx(4 / (4 + noise**2), abs=0.05)
    assert probe_values(x, rng.normal(size=3000), np.arange(3000)).score < 0.01


def test_predictions_are_of_held_out_groups():
    """An outlier group's value cannot be predicted from the others, whose values are near 0."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(50, 2))
    group = np.repeat(np.arange(10), 5)
    values = np.where(group == 7, 100.0, 0.0) + 0.1 * rng.normal(size=50)
    probe = probe_values(x, values, group, folds=10)
    assert abs(probe.predictions[group == 7]).max() < 20
    assert probe.score < 0.1


# ---------------------------------------------------------------------- agreement


def test_silhouette_of_four_points_by_hand():
    """Pairs 2 apart, 10 between the pairs on a line: a = 2 for all; b = 11 outside, 9 inside."""
    x = np.array([[0, 0], [2, 0], [10, 0], [12, 0]])
    expected = np.mean([9 / 11, 7 / 9, 7 / 9, 9 / 11])
    assert silhouette(x, ["a", "a", "b", "b"]) == pytest.approx(expected)
    assert silhouette(x, ["a", "b", "a", "b"]) < 0


def test_clusters_agree_with_labels_whatever_they_are_called():
    x, labels = blobs()
    assert cluster_agreement(x, labels, seed=0) == pytest.approx(1)
    assert cluster_agreement(x, (labels + 1) % 3, seed=0) == pytest.approx(1)
    # Shuffled labels: adjusted for chance, so about 0, not just small. 60 points spread it by 0.03.
    shuffled = np.random.default_rng(5).permutation(labels)
    assert abs(cluster_agreement(x, shuffled, seed=0)) < 0.1
    # More clusters than labels cut the labels up and agree less.
    assert 0.5 < cluster_agreement(x, labels, seed=0, clusters=6) < 0.95


def test_islands_are_dense_regions_and_nothing_is_said_of_their_number():
    x, labels = blobs(per=30, distance=40.0)
    found = islands(x, smallest=10)
    assert found.max() == 2
    for island in range(3):  # each island has one label, though its number is arbitrary
        assert len(set(labels[found == island])) == 1
    lonely = np.vstack([x, np.full((1, 6), 500.0)])
    assert islands(lonely, smallest=10)[-1] == -1
    assert islands(np.random.default_rng(0).normal(size=(200, 6)), smallest=20).max() < 1


# ---------------------------------------------------------------------- paths


def test_settling_time_by_hand():
    """Distances to the end: 3 2 1 0 | 0.5 2 0.5 0, out again | 0 0 0 0, never away | 3 3 3 0."""
    path = np.array([[3, 2, 1, 0], [0.5, 2, 0.5, 0], [0, 0, 0, 0], [3, 3, 3, 0]])[..., None]
    assert settling_time(path, 1.0).tolist() == [2, 2, 0, 3]
    assert settling_time(path, 2.5).tolist() == [1, 0, 0, 3]
    # Two coordinates: the distance counts, not one of them; and where the end lies does not matter.
    plane = np.array([[[3.0, 4.0], [0.6, 0.8], [0.0, 0.0]]]) + 7
    assert settling_time(plane, 0.9).tolist() == [2]
    assert settling_time(plane, 1.1).tolist() == [1]


def test_what_is_recorded_is_what_the_evaluation_plays():
    """More episodes than run side by side, so that two parts have to be joined."""
    policy = FrozenPolicy(load_bytes("checkpoints/cubemove_methods/tesac/seed0.safetensors"))
    contexts = task_sets(CUBE).train
    jobs = [(context, k) for context in contexts for k in range(20)]
    played = record(policy, CUBE, [c for c, _ in jobs], [EVALUATION_SEED + k for _, k in jobs])
    table = evaluate(policy, CUBE, contexts, episodes=20, method="tesac")
    assert played.observation.shape == (300, 41, 5) and played.embedding.shape == (300, 41, 6)
    assert np.allclose(played.reward.sum(axis=1), table["episode_return"], atol=1e-4)
    assert (played.final_info["skill"] == table["skill"]).all()
    # The last observation is this episode's, not the next one's first: the goal has not moved.
    goal = played.observation[:, :, 0] + played.observation[:, :, 4]
    assert np.allclose(goal, goal[:, :1], atol=1e-5)
    # c_t is what the encoder makes of everything before and of s_t itself.
    s, a, r = (torch.as_tensor(x[:9]) for x in played[:3])
    with torch.no_grad():
        c = policy.agent.encoder(policy.agent.standardize(s), a, r)
    assert np.allclose(c.numpy(), played.embedding[:9], atol=1e-5)


def test_record_wants_an_encoder_and_a_seed_for_each_context():
    plain = FrozenPolicy(load_bytes("checkpoints/cubemove_methods/sac/seed0.safetensors"))
    with pytest.raises(ValueError, match="policy has no encoder"):
        record(plain, CUBE, task_sets(CUBE).train[:1], [0])
    policy = FrozenPolicy(load_bytes("checkpoints/cubemove_methods/tesac/seed0.safetensors"))
    with pytest.raises(ValueError, match="contexts has 2 entries and seeds 1"):
        record(policy, CUBE, task_sets(CUBE).train[:2], [0])


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x, y, g: pca(x[0]), r"embedding has shape \(6,\)"),
        (lambda x, y, g: pca(x[:, :1]), r"embedding has shape \(60, 1\)"),
        (lambda x, y, g: pca(np.where(x > 5, np.nan, x)), "embedding holds NaN"),
        (lambda x, y, g: tsne(x, seed=0, perplexity=60), "perplexity is 60.*below 60"),
        (lambda x, y, g: umap(x, seed=0, neighbors=1), "neighbors is 1.*from 2 to 59"),
        (lambda x, y, g: umap(x, seed=0, min_dist=2), "min_dist is 2"),
        (lambda x, y, g: probe_labels(x, y[1:], g), r"labels has shape \(59,\)"),
        (lambda x, y, g: probe_labels(x, 0 * y, g), "labels are all"),
        (lambda x, y, g: probe_labels(x, ["a", None] * 30, g), "labels holds None or NaN"),
        (lambda x, y, g: silhouette(x, np.where(y == 0, np.nan, y)), "labels holds None or NaN"),
        (lambda x, y, g: probe_labels(x, y, np.where(g < 9, np.nan, g)), "groups holds None"),
        (lambda x, y, g: probe_labels(x, y, g, folds=21), "folds is 21 with 20 groups"),
        (lambda x, y, g: probe_labels(x, y, g, folds=1), "folds is 1"),
        (lambda x, y, g: probe_labels(x, g == 0, g), "training part with the label"),
        (lambda x, y, g: probe_labels(x, y, 0 * g), "groups are all"),
        (lambda x, y, g: probe_values(x, np.ones(60), g), "values are all 1"),
        (lambda x, y, g: probe_values(x, np.full(60, np.inf), g), "finite"),
        (lambda x, y, g: silhouette(x, np.arange(60)), "labels names 60 embeddings differently"),
        (lambda x, y, g: silhouette(x, y[1:]), r"labels has shape \(59,\)"),
        (lambda x, y, g: cluster_agreement(x, y, seed=0, clusters=1), "clusters is 1"),
        (lambda x, y, g: islands(x, smallest=1), "smallest is 1; .*from 2 to 60"),
        (lambda x, y, g: settling_time(x, 1.0), r"path has shape \(60, 6\)"),
        (lambda x, y, g: settling_time(x[:, :, None], 0), "radius is 0"),
        (lambda x, y, g: settling_time(np.full((1, 2, 2), np.nan), 1.0), "path holds NaN"),
    ],
)
def test_bad_input_is_rejected_by_name(call, named):
    x, labels = blobs()
    with pytest.raises(ValueError, match=named):
        call(x, labels, np.arange(60) // 3)
