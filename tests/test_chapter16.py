"""Chapter 16 counts nats and what contrasts pay for by hand; its data are what its sweep says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial import comparison
from sami_tutorial.contrastive import info_nce, sance
from sami_tutorial.results import load_table, provenance
from sami_tutorial.sweep import read_sweep
from sami_tutorial.two_trials import ContrastSampler, EncoderConfig, draw_tasks, play

SWEEP = Path(__file__).parents[1] / "sweeps" / "distractors.toml"
METHODS = ("tesac", "ccm", "satesac", "saccm")


@pytest.fixture(scope="module")
def built():
    return tagged_cells("16_distractors", "from-scratch")


# ---------------------------------------------------------------------- what a classifier reads


def everything(table):
    """(signals of all draws as posterior rows, labels) with exactly the table's frequencies."""
    counts = np.round(table * 1000).astype(int)
    label, signal = np.array(
        [cell for cell in np.ndindex(*table.shape) for _ in range(counts[cell])]
    ).T
    return label, signal


def test_the_true_posterior_reads_the_information_and_no_other_reads_more(built):
    table = np.array([[0.30, 0.05, 0.05], [0.05, 0.15, 0.10], [0.02, 0.08, 0.20]])
    label, signal = everything(table)
    own = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True)
    exact = (table * np.log(table / own)).sum()
    posterior = (table / table.sum(axis=0)).T  # (signal, label)
    assert built["information_read"](posterior[signal], label) == pytest.approx(exact)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = rng.dirichlet(np.ones(3), size=3)
        assert built["information_read"](other[signal], label) < exact


def test_a_classifier_that_says_the_frequencies_reads_nothing(built):
    label = np.array([0, 0, 0, 2])  # a class that never occurs has no entropy
    share = np.array([0.75, 0.0, 0.25])
    assert built["information_read"](np.tile(share, (4, 1)), label) == pytest.approx(0)
    certain = np.eye(3)[label]
    assert built["information_read"](certain, label) == pytest.approx(
        -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    )


def test_exact_information_counts_the_tasks_that_look_alike(built):
    """Two plays of four tasks: all differ in the first, three coincide in the second."""
    trajectory = np.array([[[0, 0], [5, 5]], [[0, 1], [5, 5]], [[1, 0], [5, 5]], [[1, 1], [6, 5]]])
    missing = (0 + 3 / 4 * math.log(3)) / 2
    assert built["exact_information"](trajectory) == pytest.approx(math.log(4) - missing)
    assert built["exact_information"](np.ones((4, 3, 2))) == pytest.approx(0)


# ---------------------------------------------------------------------- what a contrast pays for


@pytest.mark.parametrize("strengths", [(0.0, 1.0), (0.3, 2.5)])
def test_the_inner_product_adds_what_two_trajectories_share(built, strengths):
    skill, task = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    c = built["said"](strengths, skill, task)
    same_skill, same_task = ((x[:, None] == x[None]).double() for x in (skill, task))
    assert torch.allclose(c @ c.T, strengths[0] * same_skill + strengths[1] * same_task)


@pytest.fixture(scope="module")
def trials():
    tasks = draw_tasks(["train"], 0, np.random.default_rng(0))
    return play(tasks, 12, distractors=0, seed=0)


@pytest.fixture(scope="module")
def labels(trials):
    tasks, each = trials.skill.shape
    kind = torch.arange(tasks) % 3
    return trials.skill.flatten(), *(x.repeat_interleave(each) for x in (kind, torch.arange(tasks)))


def contrasts(trials, method):
    config = EncoderConfig(method, num_samples=5, tasks=len(trials.skill), queries=4)
    sampler = ContrastSampler(trials, config, torch.Generator().manual_seed(0))
    return list(zip(*sampler.draw(), strict=True))


@pytest.mark.parametrize("weight", ["min", "max", "none"])
def test_sance_pays_for_nothing_that_a_task_has_in_common(built, trials, labels, weight):
    """Not for the kind of task either, and the weight sees nothing of it."""
    losses = []
    for strengths in ((0.1, 0.0, 0.0), (0.1, 5.0, 0.0), (0.1, 0.0, 5.0)):
        c = built["said"](strengths, *labels)
        drawn = contrasts(trials, "satesac")
        losses.append([sance(c[q], c[p], c[n], 1.0, weight=weight).item() for q, p, n in drawn])
    assert losses[1] == pytest.approx(losses[0]) and losses[2] == pytest.approx(losses[0])
    assert np.std(losses[0]) > 0


@pytest.mark.parametrize("method", ["ccm", "saccm"])
def test_contrasts_between_tasks_pay_for_the_task(built, trials, labels, method):
    strengths = torch.ones(3, dtype=torch.float64, requires_grad=True)
    c = built["said"](strengths, *labels)
    loss = torch.stack([info_nce(c[q], c[p], c[n], 1.0) for q, p, n in contrasts(trials, method)])
    (slope,) = torch.autograd.grad(loss.mean(), strengths)
    assert slope[2] < -0.1


def test_on_unit_vectors_a_task_part_is_a_temperature_to_sance_alone(built, trials, labels):
    skill, _, task = labels
    for method in METHODS[1:]:
        for w in (0.2, 0.7):
            shared, alone = built["said"]((1 - w, w), skill, task), built["said"]((1.0,), skill)
            gaps = [
                info_nce(shared[q], shared[p], shared[n], 0.1).item()
                - info_nce(alone[q], alone[p], alone[n], 0.1 / (1 - w)).item()
                for q, p, n in contrasts(trials, method)
            ]
            assert (np.abs(gaps).max() < 1e-9) == (method == "satesac")


# ---------------------------------------------------------------------- the stored runs


def test_a_name_says_all_that_differs_from_the_runs_without_distractors():
    """What the chapter joins by a line are runs of one recipe."""
    jobs = {job.variant: job.config for job in read_sweep(SWEEP, Path("runs"))}
    plain = provenance("results/one_change.parquet")["config"]["methods"]
    seen = set()
    for variant, config in jobs.items():
        method, _, count, *keys = variant.split("_")
        assert config.env_options == {"distractors": int(count), "distractors_of": "task"}
        context = dict(plain[method]["context"])
        if keys:
            context["contrast_batch"] = int(keys[1]) - 1
        assert vars(config.context) == context
        assert config.steps == plain[method]["steps"]
        assert config.replay_capacity == plain[method]["replay_capacity"]
        seen.add((method, int(count), int(keys[1]) if keys else 13))
    assert seen == {(m, n, 13) for m in METHODS for n in (1, 2, 4, 8)} | {
        (m, 8, K) for m in METHODS[1:] for K in (4, 64, 256)
    }


def test_every_stored_policy_was_probed():
    probes = load_table("results/distractors_probes.parquet")
    seeds = provenance("results/distractors.parquet")["config"]["seeds"]
    own = {(v, s) for v, of in seeds.items() for s in of}
    without = {(m, s) for m in METHODS for s in range(5)}
    assert set(map(tuple, probes[["method", "seed"]].drop_duplicates().to_numpy())) == own | without
    for (method, _), rows in probes.groupby(["method", "seed"]):
        count = int(method.split("_")[2]) if "distractors" in method else 0
        of_distractors = rows[rows["measure"] == "distractor"]
        assert set(of_distractors["group"]) == {f"distractor_{k}" for k in range(count)}
        assert set(rows["source"]) == {"c", "untrained"}
        assert rows[rows["measure"] != "distractor"]["value"].between(0, 1).all()
        assert (rows["value"] <= 1).all()


# ---------------------------------------------------------------------- what the text says of them


@pytest.fixture(scope="module")
def probed():
    """Scores of c and of fresh weights for (measure, group, step): (seeds,) each."""
    table = load_table("results/distractors_probes.parquet")

    def scores(method, step, measure, group="all"):
        rows = table[(table["method"] == method) & (table["measure"] == measure)]
        rows = rows[(rows["group"] == group) & (rows["step"] == step)]
        c, fresh = (
            rows[rows["source"] == s].sort_values("seed")["value"] for s in ("c", "untrained")
        )
        assert len(c) == len(fresh) == 5
        return c.to_numpy(), fresh.to_numpy()

    return scores


def velocity_scale(probed, method):
    return probed(method, 39, "distractor", "distractor_3")[0]


def test_ccm_learned_one_distractor_with_many_keys_and_not_with_four(probed):
    assert velocity_scale(probed, "ccm_distractors_8_keys_4").max() < 0.1
    assert velocity_scale(probed, "ccm_distractors_4").min() > 0.2
    assert velocity_scale(probed, "ccm_distractors_8").min() > 0.2
    means = [
        velocity_scale(probed, f"ccm_distractors_8{keys}").mean()
        for keys in ("", "_keys_64", "_keys_256")
    ]
    assert 0.4 < means[0] < 0.5 and means[1] > 0.6 and means[2] > 0.6


def test_satesac_learned_no_distractor(probed):
    names = ["satesac_distractors_4", "satesac_distractors_8"]
    names += [f"satesac_distractors_8_keys_{K}" for K in (4, 64, 256)]
    assert max(velocity_scale(probed, name).max() for name in names) < 0.1
    for group in (f"distractor_{k}" for k in range(8)):
        c, fresh = probed("satesac_distractors_8", 39, "distractor", group)
        assert (c - fresh).mean() < 0.1


def test_saccm_has_it_in_three_seeds_of_five_with_64_keys_and_in_all_with_256(probed):
    assert velocity_scale(probed, "saccm_distractors_8").max() < 0.1
    assert (velocity_scale(probed, "saccm_distractors_8_keys_64") > 0.3).sum() == 3
    assert velocity_scale(probed, "saccm_distractors_8_keys_256").min() > 0.1


def test_ccm_kept_the_skill_and_satesac_has_little_more_than_fresh_weights(probed):
    names = ["", *(f"_distractors_{n}" for n in (1, 2, 4, 8))]
    names += [f"_distractors_8_keys_{K}" for K in (4, 64, 256)]
    for name in names:
        assert probed(f"ccm{name}", 39, "skill wanted")[0].min() > 0.97
        c, fresh = probed(f"satesac{name}", 39, "skill wanted")
        assert c.mean() < 0.95 and (c - fresh).mean() < 0.12


def test_the_planned_trends_are_what_the_text_says():
    tables = {
        name: load_table(f"results/{name}.parquet").astype({"success": float})
        for name in ("distractors", "one_change")
    }

    def success(name, source="distractors"):
        rows = tables[source]
        rows = rows[(rows["method"] == name) & (rows["split"] != "train") & (rows["seed"] < 5)]
        return rows.groupby("seed")["success"].mean().to_numpy()

    at_count = {
        m: np.column_stack(
            [success(m, "one_change"), *(success(f"{m}_distractors_{n}") for n in (1, 2, 4, 8))]
        )
        for m in METHODS
    }
    at_keys = {
        m: np.column_stack(
            [success(f"{m}_distractors_8{k}") for k in ("_keys_4", "", "_keys_64", "_keys_256")]
        )
        for m in METHODS[1:]
    }
    steps, doublings = np.log2([1, 2, 3, 5, 9]), np.log2([4, 13, 64, 256])
    claim = at_keys["ccm"] - at_keys["satesac"]
    planned = [(steps, at_count["tesac"]), (steps, at_count["ccm"] - at_count["satesac"])]
    planned += [(steps, at_count[m] - at_count["tesac"]) for m in METHODS[1:]]
    planned += [(doublings, at_keys[m]) for m in METHODS[1:]] + [(doublings, claim)]
    p = [comparison.trend_p(x, y, np.random.default_rng(0)) for x, y in planned]
    assert len(p) == 9 and min(p) == p[-1] and 0.05 / 9 < p[-1] < 0.05
    assert (comparison.slopes(doublings, claim) > 0).all()
    assert claim.mean(axis=0)[0] < 0 and claim.mean(axis=0)[1:].min() > 0.05
    rest = comparison.trend_p(doublings[1:], claim[:, 1:], np.random.default_rng(0))
    assert rest > 0.5  # it rests on four keys
    assert at_keys["ccm"].mean(axis=0).argmin() == 0
    late = at_count["tesac"][1:]  # without seed 0
    assert (comparison.slopes(steps, late) < 0).all()


def test_sance_pays_for_a_lean_towards_the_right_skill():
    """The gap in the argument: shared by a task's trajectories, and yet not without effect."""
    good, bad = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    lean = 0.5 * torch.tensor([[1.0, -1.0]])
    plain = info_nce(good, good, bad, 1.0)
    assert info_nce(good + lean, good + lean, bad + lean, 1.0) < plain - 0.1
    apart = torch.nn.functional.pad  # in a direction of its own it does nothing
    shifted = [apart(each, (0, 1), value=0.5) for each in (good, good, bad)]
    assert info_nce(*shifted, 1.0).item() == pytest.approx(plain.item())


def test_satesacs_question_fades():
    curves = load_table("curves/distractors.parquet")
    own = curves[curves["method"].str.fullmatch(r"satesac_distractors_\d")]
    steps = own["env_steps"] / own["env_steps"].max()
    early, late = (
        own[part]["held_out_accuracy"].mean() * 13 for part in (steps <= 0.5, steps > 0.8)
    )
    assert early > 3 and late < 1.5
