"""Chapter 11: what it builds from scratch is the library's, and what it says is in the data."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.encoder import ContextEncoder, history
from sami_tutorial.envs.cube_skills import optimal_skill
from sami_tutorial.evaluate import interval
from sami_tutorial.fixed_data import contrast_game
from sami_tutorial.information import contrast_information
from sami_tutorial.results import load_bytes, load_table, provenance
from sami_tutorial.two_trials import (
    ContrastSampler,
    EncoderConfig,
    choose_skills,
    draw_tasks,
    embed,
    play,
    success_rate,
    train_encoder,
)

CHAPTER = "11_what_each_objective_learns"
NAMES = {"ccm": "InfoNCE", "satesac": "SaNCE", "saccm": "Sa+InfoNCE"}


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells(CHAPTER, "from-scratch")


@pytest.fixture(scope="module")
def trials():
    tasks = draw_tasks(["train"], 2, np.random.default_rng(0), draws=1)
    return play(tasks, 6, distractors=2, seed=5)


# ---------------------------------------------------------------------- from scratch


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_formula_counts_the_right_skill_in_a_ranking(chapter, fraction):
    for right in range(1, 40):
        ranked = [True] * right + [False] * (40 - right)  # every right trial beats every wrong one
        count = round(40 * fraction)
        expected = np.mean(ranked[:count]), np.mean(ranked[-count:])
        assert np.allclose(chapter["right_skill_among"](right / 40, fraction), expected)


@pytest.mark.parametrize("objective", list(NAMES))
def test_roles_are_drawn_from_the_trials_that_the_library_takes(chapter, trials, objective):
    config = EncoderConfig(objective, num_samples=5)
    sampler = ContrastSampler(trials, config, torch.Generator().manual_seed(0))
    alike, others = ([set(row.tolist()) for row in x] for x in (sampler.alike, sampler.others))
    rng = np.random.default_rng(0)
    returns = trials.returns.tolist()
    seen = {"query": set(), "positive": set(), "negative": set()}
    tasks_of_negatives = set()
    for _ in range(1500):
        query, positive, negatives = chapter["draw_roles"](returns, NAMES[objective], 5, rng)
        assert query != positive and query[0] == positive[0] and len(negatives) == 4
        flat = [6 * task + trial for task, trial in (query, positive, *negatives)]
        assert flat[0] in alike[query[0]] and flat[1] in alike[query[0]]
        for (task, _), index in zip(negatives, flat[2:], strict=True):
            assert index in others[task]
            tasks_of_negatives.add((query[0], task))
        seen["query"].add(flat[0])
        seen["positive"].add(flat[1])
        seen["negative"] |= set(flat[2:])
    assert seen["query"] == seen["positive"] == set().union(*alike)
    assert seen["negative"] == set().union(*others)
    every = set(itertools.product(range(15), repeat=2))
    same = {(t, t) for t in range(15)}
    wanted = {"ccm": every - same, "satesac": same, "saccm": every}[objective]
    assert tasks_of_negatives == wanted


@pytest.mark.parametrize("objective", list(NAMES))
def test_the_loop_from_scratch_is_the_librarys_trainer(chapter, trials, objective):
    config = EncoderConfig(objective, updates=8, tasks=5, queries=3, hidden=32)
    generator = torch.Generator().manual_seed(3)
    encoder = ContextEncoder(5, 2, generator, hidden=32)
    weights = encoder.state_dict()
    weights["head.weight"] = weights["head.weight"].T
    weights["head.bias"] = weights["head.bias"].squeeze(0)
    reader = chapter["Reader"]()
    reader.load_state_dict(weights)
    steps = history(*(x.flatten(0, 1) for x in (trials.observation, trials.action, trials.reward)))
    sampler = ContrastSampler(trials, config, generator)
    bounds = chapter["learn"](reader, steps, sampler.draw, 8, config.learning_rate)
    library, losses = train_encoder(trials, config, 3)
    assert np.allclose(bounds, -np.array(losses), atol=1e-4)
    with torch.no_grad():
        ours = reader(steps).unflatten(0, trials.skill.shape)
    assert torch.allclose(ours, embed(library, trials), atol=1e-4)
    untouched = ContextEncoder(5, 2, torch.Generator().manual_seed(3), hidden=32)
    assert not torch.allclose(ours, embed(untouched, trials), atol=1e-2)  # it did learn


def test_accuracy_by_hand_is_the_librarys(chapter, trials):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(15, 6, 4)))
    for objective, k in (("ccm", 4), ("satesac", 3), ("saccm", 9)):
        game = contrast_game(
            features, trials, objective, k, torch.Generator().manual_seed(1), draws=1
        )
        config = EncoderConfig(objective, k, tasks=15, queries=8)
        contrast = ContrastSampler(trials, config, torch.Generator().manual_seed(1)).draw()
        ours = chapter["share_recognised"](*(features.flatten(0, 1)[role] for role in contrast))
        assert ours == pytest.approx(game.accuracy, abs=1e-6)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_best_player_of_types_by_enumeration(chapter, k):
    joint = np.random.default_rng(0).dirichlet(np.ones(16)).reshape(4, 4)
    kinds = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]]) / 2  # the chapter's, with ties
    for table in (joint, sum(np.outer(kind, kind) for kind in kinds) / 3, np.full((4, 4), 1 / 16)):
        marginal, expected = table.sum(axis=0), 0.0
        for query, keys in itertools.product(range(4), itertools.product(range(4), repeat=k)):
            ratio = table[query] / marginal
            best = [n for n, i in enumerate(keys) if ratio[i] > max(ratio[list(keys)]) - 1e-9]
            probability = table[query, keys[0]] * math.prod(marginal[list(keys[1:])])
            expected += probability * (0 in best) / len(best)
        # A key of the positive's very type ties with it, and each is as likely to be taken.
        assert chapter["best_accuracy"](table, k) == pytest.approx(expected)


# ---------------------------------------------------------------------- what the chapter says


CENTRE = {
    "num_samples": 4, "distractors": 4, "push_share": 0.5, "right_share": 0.0, "blind": "",
    "ranks": "return",
}  # fmt: skip
READING = (2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module")
def numbers():
    """A function from a cell and a measurement to its values, by seed."""
    study = load_table("results/what_objectives_learn.parquet").fillna({"right_share": 0.0})
    columns = ["objective", *CENTRE, "kind", "what", "seed"]
    values = study.set_index(columns)["value"].sort_index()

    def find(objective, what="all", kind="success", **changes):
        setting = {**CENTRE, **changes}
        return values.loc[(objective, *setting.values(), kind, what)]

    return find


@pytest.fixture(scope="module")
def chapter_8():
    table = load_table("results/two_trials.parquet")
    table = table[(table["kind"] == "success") & table["updates"].isin([0, 500])]
    by_split = table.pivot_table("value", ["run", "seed"], "what")
    return (8 * by_split["moderate"] + 14 * by_split["extreme"]) / 22  # one-skill tasks in each


def ends(differences):
    """The 95% interval of a mean over seeds."""
    return interval(pd.Series(differences).dropna(), np.random.default_rng(0))


def test_infonce_solves_the_test_in_nine_of_ten_seeds_and_sance_beats_its_control(numbers):
    infonce, sance, chance = (
        numbers("ccm"), numbers("satesac"), numbers("satesac", ranks="chance")
    )  # fmt: skip
    assert len(infonce) == len(sance) == 10
    assert (infonce > 0.98).sum() == 9
    for a, b in (
        (infonce, sance),
        (chance, numbers("random")),
    ):
        low, high = ends(a - b)
        assert low < 0 < high  # not told apart
    assert 0 < ends(numbers("critic") - numbers("random"))[0] < 0.01  # "barely"
    assert ends(sance - chance)[0] > 0.05
    low, high = ends(sance - numbers("random"))
    assert (round(float(low), 2), round(float(high), 2)) == (0.07, 0.12)  # quoted in the quiz
    assert numbers("random").mean() > 0.8 > numbers("always push").mean() + 0.2


def test_games_are_won_as_far_as_the_players_of_types_win_them(chapter, numbers):
    kinds = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]]) / 2
    by_type = sum(np.outer(kind, kind) for kind in kinds) / 3
    reached = []
    for k in READING:
        what = f"new tasks, satesac, K={k}, accuracy"
        assert numbers("random", what, "game").mean() == pytest.approx((2 + 1 / k) / 3, abs=0.03)
        for trained in (2, 4, 16, 64):
            played = numbers("ccm", f"new tasks, ccm, K={k}, accuracy", "game", num_samples=trained)
            best = chapter["best_accuracy"](by_type, k)
            assert played.mean() == pytest.approx(best, abs=0.035)
        ceiling = sum(
            row.sum() * contrast_information(row / row.sum(), by_type.sum(axis=0), [k])[0]
            for row in by_type
        )
        loss = numbers("ccm", f"new tasks, ccm, K={k}, loss", "game").mean()
        reached.append((math.log(k) - loss) / ceiling)
    assert 0.7 < min(reached) < np.mean(reached) < max(reached) < 0.8  # about three quarters
    what = "new tasks, satesac, K=4, accuracy"
    assert numbers("ccm", what, "game").mean() > numbers("satesac", what, "game").mean() - 0.02


def test_what_raising_k_lifts_and_what_not(numbers):
    def value(objective, trained, read):
        what = f"new tasks, {objective}, K={read}, loss"
        return math.log(read) - numbers(objective, what, "game", num_samples=trained).mean()

    sance = [value("satesac", 4, k) for k in READING]
    assert all(b > a + 0.05 for a, b in itertools.pairwise(sance))  # climbs with every doubling
    for trained in (2, 4, 16, 64):
        assert max(value("ccm", trained, k) for k in READING) < 0.405  # below the information
    assert value("ccm", 4, 64) - value("ccm", 4, 8) < 0.1  # and flat
    for objective in ("ccm", "satesac"):
        more, fewer = (numbers(objective, num_samples=k) for k in (64, 4))
        assert ends(more - fewer)[0] < 0  # and not shown to be better
        what = f"new tasks, {objective}, K=4, accuracy"
        gain = numbers(objective, what, "game", num_samples=64) - numbers(objective, what, "game")
        assert gain.dropna().mean() < 0.05


def test_five_seeds_saw_what_ten_do_not(numbers):
    """SaNCE's value, read with 64 keys, against the number of keys in training."""
    what = "new tasks, satesac, K=64, loss"
    fewer, more = (numbers("satesac", what, "game", num_samples=k) for k in (4, 64))
    surer = fewer - more  # of losses
    assert len(surer) == 10
    assert ends(surer[surer.index < 5])[0] > 0
    assert surer[surer.index >= 5].mean() < 0
    low, high = ends(surer)
    assert low < 0 < high


def test_the_mix_decides_for_sance(numbers):
    """And for the test itself, so SaNCE is held against the untrained encoder of the same mix."""
    for objective in ("satesac", "random"):
        assert ends(numbers(objective, push_share=0.9) - numbers(objective))[1] < -0.05
    for better, worse in (("satesac", "random"), ("ccm", "satesac")):
        mixed = numbers(better, push_share=0.9) - numbers(worse, push_share=0.9)
        assert ends(mixed)[0] > 0.05
    low, high = ends(numbers("ccm", push_share=0.9) - numbers("ccm"))
    assert low < 0.01 and abs(high) < 0.05


def test_quiet_distractors_decide_little(numbers):
    lost = {o: numbers(o, distractors=8) - numbers(o, distractors=0) for o in ("ccm", "satesac")}
    assert all(-0.05 < each.mean() < 0 for each in lost.values())
    untrained = numbers("random", distractors=8) - numbers("random", distractors=0)
    assert ends(untrained)[1] < -0.03


def test_k_shows_no_trend_in_success(numbers):
    for objective in ("ccm", "satesac"):
        change = numbers(objective, num_samples=64) - numbers(objective, num_samples=2)
        low, high = ends(change)
        assert low < 0.001 and high > -0.001 and high - low < 0.08


def test_every_setting_has_ten_seeds():
    config = provenance("results/what_objectives_learn.parquet")["config"]
    assert {len(each["seeds"]) for each in config["settings"]} == {10}


def test_no_linear_probe_reads_mass_friction_or_a_distractor(numbers):
    for objective in ("ccm", "satesac", "saccm", "critic", "random", "last observation"):
        for what in ("log mass, within", "log friction, within"):
            assert numbers(objective, what, "probe").mean() < 0.05
    assert numbers("ccm", "log mass", "probe").mean() > 0.5  # what looks like knowledge
    assert numbers("ccm", "skill that works", "probe").mean() > 0.98
    for objective in ("ccm", "satesac"):
        for i in range(4):
            assert numbers(objective, f"distractor_{i}", "probe").mean() < 0.1


def test_the_conclusions_survive_the_controls(numbers):
    blind = {name: numbers(name, blind="closure") for name in ("ccm", "satesac", "random")}
    for name in ("ccm", "satesac"):
        assert (blind[name] - blind["random"]).dropna().mean() > 0.05
    cleaned = numbers("satesac", ranks="residual")
    assert abs((cleaned - numbers("satesac")).dropna().mean()) < 0.03
    for name in ("ccm", "satesac", "random"):
        closed, opened = (numbers(name, f"fingers {state}").mean() for state in ("closed", "open"))
        assert abs(closed - opened) < 0.06
        assert numbers(name, "trial 1 lost").mean() > 0.97
    assert numbers("next start").mean() == pytest.approx(0.5, abs=0.06)


def test_what_is_said_of_chapter_8s_runs(chapter_8):
    assert chapter_8["ccm, push 7/8"].mean() > 0.98
    to_untrained = chapter_8["satesac, push 7/8"] - chapter_8["random, D=4"]
    assert abs(to_untrained.mean()) < 0.05
    lost = {m: chapter_8[f"{m}, D=0"] - chapter_8[f"{m}, D=8"] for m in ("ccm", "satesac")}
    assert 0 < lost["ccm"].mean() < lost["satesac"].mean() < 0.1
    low, high = ends(lost["satesac"] - lost["ccm"])
    assert low < 0 < high  # a larger estimate, and no more than that
    assert abs((chapter_8["satesac, K=16"] - chapter_8["satesac, K=2"]).mean()) < 0.03


def test_more_data_help_where_there_is_something_to_gain(numbers, chapter_8):
    runs = {"ccm": "ccm, D=4", "satesac": "satesac, D=4", "saccm": "saccm, D=4",
            "critic": "critic", "random": "random, D=4"}  # fmt: skip
    gained = {name: ends(numbers(name) - chapter_8[run]) for name, run in runs.items()}
    assert all(gained[name][0] > 0 for name in ("saccm", "critic", "random"))
    assert gained["satesac"][0] < 0 < gained["satesac"][1]
    assert chapter_8["ccm, D=4"].mean() > 0.995  # nothing to gain


# ---------------------------------------------------------------------- beside RL


@pytest.fixture(scope="module")
def one_skill_episodes():
    """What trained policies do in training tasks where one skill works."""
    table = load_table("results/cubemove_methods.parquet")
    table = table[(table["split"] == "train") & (table["actions"] == "sampled")]
    context = table["context"].map(json.loads)
    friction, mass = (context.map(lambda c, k=k: c[k]).to_numpy() for k in ("friction", "mass"))
    table = table.assign(works=optimal_skill(friction, mass))
    return table[table["works"] != "both"]


def test_a_skill_is_labelled_only_where_it_moves_the_cube(one_skill_episodes):
    """So that its label is right by construction in a task with one skill."""
    labelled = one_skill_episodes[one_skill_episodes["skill"] != "none"]
    assert (labelled["skill"] == labelled["works"]).all()
    assert not labelled["success"].all()  # and is no success


def test_most_bad_trials_of_a_trained_policy_are_successes(chapter, one_skill_episodes):
    of_satesac = one_skill_episodes[one_skill_episodes["method"] == "satesac"]
    share = of_satesac["success"].astype(float).groupby(of_satesac["seed"]).mean().mean()
    assert chapter["right_skill_among"](share)[1] > 0.85


def test_what_encoders_of_rl_add_to_an_untrained_one(numbers):
    draw = np.random.default_rng([0, 0])
    known = draw_tasks(["train"], 0, draw)
    assert len(known) == 15 and len(draw_tasks(["train"], 4, draw)) == 60
    data = play(known, 40, distractors=0, seed=0)
    test_tasks = draw_tasks(["moderate", "extreme"], 0, draw, one_skill=True)
    test = play(test_tasks, 20, distractors=0, seed=40_000)

    def score(method, seed):
        stored = load_bytes(f"checkpoints/cubemove_methods/{method}/seed{seed}.safetensors")
        agent = FrozenPolicy(stored).agent
        assert agent.encoder.lstm.hidden_size == 64
        c, d = (
            embed(agent.encoder, t._replace(observation=agent.standardize(t.observation)))
            for t in (data, test)
        )
        return success_rate(test, choose_skills(c, data, d))

    scores = {
        m: pd.Series([score(m, seed) for seed in range(10)])
        for m in ("random", "tesac", "ccm", "satesac", "saccm")
    }
    untrained = numbers("random")
    assert untrained.mean() - scores["random"].mean() > 0.05  # so raw scores do not compare
    gain = {m: scores[m] - scores["random"] for m in scores}
    alone = {m: numbers(m) - untrained for m in ("ccm", "satesac", "saccm")}
    assert abs(gain["ccm"].mean() - alone["ccm"].mean()) < 0.02
    assert gain["satesac"].mean() < alone["satesac"].mean()
    low, high = ends(gain["satesac"] - alone["satesac"])
    assert low < 0 < high
    assert ends(gain["saccm"] - alone["saccm"])[1] < 0
    assert ends(gain["tesac"])[0] > 0
