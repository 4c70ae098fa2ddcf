"""Chapter 17's forces, its honest comparison of scripts, and what its text says of the recipe."""

import numpy as np
import pandas as pd
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial import figures
from sami_tutorial.envs import SPLITS, get_task, task_sets
from sami_tutorial.hindsight import relabel
from sami_tutorial.results import load_table, provenance
from sami_tutorial.sac import SAC, SACConfig, Transitions
from sami_tutorial.train import recipe

ID = "sami/Panda-v0"


@pytest.fixture(scope="module")
def built():
    return tagged_cells("17_panda", "from-scratch")


def test_ways_are_those_of_the_forces(built):
    ways = built["ways"]
    assert ways(17.3, 1) == ["lift", "drag"] and "lift" not in ways(17.4, 1)
    # 0.5 f m g < 170 at m = 30: f < 1.155; the simulator counts no friction above 10.
    assert "drag" in ways(30, 1.15) and "drag" not in ways(30, 1.16)
    assert ways(1.7, 1000) == ways(1.7, 20)
    # A cube tips before it slides only if the table holds it with more than half its weight.
    assert "topple" not in ways(1, 1) and "topple" in ways(1, 1.01)
    assert ways(34, 5) == ["topple"] and ways(35, 5) == []  # half the weight against 170 N
    assert all(ways(c["mass"], c["friction"]) for s in SPLITS for c in task_sets(ID).split(s))


def test_measured_strength_agrees_with_the_forces(built):
    strength = load_table("results/panda_strength.parquet")
    lifted = strength[strength["kind"] == "lift"].groupby("load")["far"]
    grip = built["GRIP"]
    assert grip == 170
    assert (lifted.min()[lifted.min().index < 0.6 * grip] > 0.004).all()
    assert (lifted.max()[lifted.max().index > 1.4 * grip] < 0.002).all()
    dragged = strength[strength["kind"] == "drag"].groupby("load")["far"].median()
    assert dragged.is_monotonic_decreasing and dragged.loc[200.0] < 0.002 < 0.05 < dragged.loc[25.0]


def test_the_shoulder_gives_in_before_the_fingers():
    shoulder = load_table("results/panda_shoulder.parquet")
    assert set(shoulder["joint"]) == {2} and shoulder["force"].max() < 170
    by_distance = shoulder.groupby("x")["force"].mean()
    assert by_distance.is_monotonic_decreasing
    assert 50 < shoulder["force"].min() < 55 and 140 < shoulder["force"].max() < 150
    sideways = shoulder.pivot(index="y", columns="x", values="force").to_numpy()
    assert np.allclose(sideways, sideways[::-1], rtol=0.02)  # the arm stands in the middle


def test_luck_is_what_the_text_says():
    """A cube that nothing moves: four of the forty starts are successes."""
    played = load_table("results/panda_scripts.parquet")
    nothing = played[
        (played["context"] == '{"mass": 30, "friction": 30}')
        & (played["script"] == "push")
        & (played["speed"] == 0.2)
    ]
    assert len(nothing) == 40 and nothing["success"].sum() == 4


def test_the_fingers_press_as_the_text_says():
    pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
    from sami_tutorial.envs import panda_physics

    assert panda_physics._FORCES[-2:] == (170.0, 170.0)


def tries(scores: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    """Ten episodes of each script in each of two tasks, with these shares of successes."""
    rows = [
        {"script": script, "speed": 1.0, "mass": mass, "friction": 1.0, "success": k < 10 * share}
        for (script, mass), shares in scores.items()
        for share in shares
        for k in range(10)
    ]
    return pd.DataFrame(rows)


def test_an_informed_choice_is_counted_where_it_was_not_chosen(built):
    """Push is best in one task, grip in the other; counted, the order is the other way round."""
    choose = tries({("push", 1.0): [0.9], ("push", 5.0): [0.0], ("grip", 1.0): [0.6], ("grip", 5.0): [0.5]})  # fmt: skip # noqa: E501
    count = tries({("push", 1.0): [0.2], ("push", 5.0): [0.7], ("grip", 1.0): [0.8], ("grip", 5.0): [0.4]})  # fmt: skip # noqa: E501
    assert built["best_script"](choose) == ("grip", 1.0)
    assert built["success_of"](count, ("grip", 1.0)) == pytest.approx(0.6)
    assert built["success_informed"](choose, count) == pytest.approx((0.2 + 0.4) / 2)
    assert built["success_informed"](choose, choose) == pytest.approx((0.9 + 0.5) / 2)


def test_with_goal_agrees_with_the_library(built):
    rng = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 30, 22, generator=rng)
    batch = Transitions(
        observation, torch.zeros(30, 4), torch.zeros(30), following, torch.zeros(30)
    )
    goals = get_task(ID).goals
    new = relabel(batch, goals, 1.0, rng)
    for i in range(30):
        seen, after, reward = built["with_goal"](
            observation[i], following[i], new.observation[i, 19:21]
        )
        assert torch.equal(seen, new.observation[i]) and torch.equal(after, new.next_observation[i])
        assert float(reward) == pytest.approx(float(new.reward[i]), rel=1e-5)
    assert not torch.equal(observation, new.observation)


def test_unlikeness_agrees(built):
    agent, generator = SAC(22, 4, SACConfig(hidden=(8,))), torch.Generator().manual_seed(0)
    seen, shown = torch.randn(50, 22, generator=generator), torch.rand(50, 4, generator=generator)
    mean = torch.from_numpy(agent.act(seen.numpy(), deterministic=True))
    ours, library = built["unlikeness"](mean, shown), agent.unlikeness(seen, shown)
    assert float(ours) == pytest.approx(float(library.detach()), rel=1e-5)


def test_the_tables_are_complete():
    played = load_table("results/panda_scripts.parquet")
    counts = played.groupby(["script", "speed", "split", "context"]).size()
    assert set(counts) == {provenance("results/panda_scripts.parquet")["config"]["episodes"]}
    assert len(counts) == 9 * 20
    random = load_table("results/panda_random.parquet")
    still = random[random["moved"] < 1e-4]
    assert np.allclose(still["episode_return"], still["return_if_still"], atol=0.02)


def test_random_tries_are_as_the_text_says():
    """Four of five touches cost, those that throw the cube off the table most; small ones miss."""
    random = load_table("results/panda_random.parquet")
    gain = random["episode_return"] - random["return_if_still"]
    touched, large = random["moved"] > 0.01, random["size"] == 1
    assert not touched[~large].any()
    assert (gain[touched] > 0).mean() == pytest.approx(0.2, abs=0.02) and gain[touched].mean() < 0
    assert gain[random["fell"]].mean() < 2 * gain[touched].mean()


def test_the_recipe_is_as_the_text_says():
    for method in ("sac", "satesac"):
        config = recipe(ID, method)
        assert config.teacher and config.hindsight == 0.5
        assert config.exploring_envs / config.num_envs == 1 / 4
        assert config.imitation_updates == 3_000 and config.imitation_left == 0.2
        assert 16 * config.steps == 1_600_000  # "a sixteenth of the paper's"
        assert config.updates_at_once == 4 and recipe("sami/Hopper-v0", method).updates_at_once == 1


def test_every_agent_plays_twenty_episodes_in_every_task():
    agents = load_table("results/panda.parquet")
    counts = agents.groupby(["method", "seed", "split", "context"]).size()
    assert set(counts) == {20}
    assert (counts.groupby(["method", "seed"]).size() == 20).all()
    scripts = load_table("results/panda_scripts.parquet")
    starts = scripts.groupby(["context", "episode"])["episode_seed"].first()
    played = agents.groupby(["context", "episode"])["episode_seed"].first()
    assert (starts.loc[played.index] == played).all()  # "in the same episodes"


def test_curves_rise_as_the_figure_says():
    curves = load_table("curves/panda.parquet")
    curves = curves[curves["env_steps"] > recipe(ID).warmup_steps]
    share = curves["env_steps"] / curves["env_steps"].max()
    first = curves[share <= 0.2].groupby("method")["success"].mean()
    last = curves[share > 0.9].groupby("method")["success"].mean()
    assert first.between(0.4, 0.65).all() and last.between(0.8, 0.95).all()


def by_seed(name: str) -> pd.Series:
    return (
        load_table(f"results/{name}.parquet").groupby(["method", "split", "seed"])["success"].mean()
    )


def test_parts_of_the_recipe_are_worth_what_the_text_says():
    """Without a teacher only luck succeeds; imitation is needed to the end; hindsight helps."""
    whole, without = by_seed("panda").loc["sac"].loc["train", :2], by_seed("panda_recipe")
    scripts = load_table("results/panda_scripts.parquet")
    unmoved = scripts[(scripts["script"] == "push") & (scripts["speed"] == 0.2)]
    unmoved = unmoved[unmoved["context"] == '{"mass": 30, "friction": 30}']
    luck = unmoved[unmoved["episode"] < 20]["success"].mean()
    assert (without.loc["no_teacher"] == luck).all()
    for part in ("tries_only", "imitation_fades"):
        assert without.loc[part, "train"].max() < whole.min() - 0.2
    assert 0.05 < whole.mean() - without.loc["no_hindsight", "train"].mean() < 0.15


def test_what_imitation_has_built_falls_when_it_ends():
    config = provenance("results/panda_recipe.parquet")["config"]["methods"]["imitation_fades"]
    assert config["imitation_steps"] == recipe(ID).imitation_steps == 50_000
    assert config["imitation_left"] == 0
    curves = load_table("curves/panda_recipe.parquet")
    curves = curves[curves["method"] == "imitation_fades"]
    steps = curves["env_steps"]

    def mean(first: int, last: int) -> float:
        return curves[(steps > first) & (steps <= last)]["success"].mean()

    assert mean(60_000, 80_000) < mean(80_000, 100_000) < mean(30_000, 50_000) - 0.2


def test_the_oracle_is_last_beyond_its_tasks():
    agents = load_table("results/panda.parquet")
    means = agents.groupby(["split", "method"])["success"].mean()
    assert means["extreme"].idxmin() == "oracle"
    behind = means[:, "sac"] - means[:, "oracle"]
    assert behind["extreme"] > 2 * max(behind["train"], behind["moderate"])


def test_pairs_are_as_the_text_says():
    success = pd.concat([by_seed("panda"), by_seed("panda_controls")]).sort_index()

    def interval(a: str, b: str, split: str) -> tuple[float, float]:
        gains = (success[a, split] - success[b, split]).to_numpy()
        return figures.interval(gains, np.random.default_rng(0))

    for split in SPLITS:  # "TESAC is not above SAC anywhere"
        assert interval("tesac", "sac", split)[0] < 0
    for a, b in (("tesac", "random"), ("satesac", "shuffled_ranks")):
        assert interval(a, b, "train")[0] > -0.01  # "seem"
        assert all(interval(a, b, split)[0] < 0 < interval(a, b, split)[1] for split in SPLITS[1:])
    assert interval("random", "sac", "train")[1] < 0.01


def test_trained_contexts_tell_no_more_than_untrained_ones():
    known = load_table("results/embeddings_panda.parquet")
    known = known[known["group"] == "all"]
    means = known.groupby(["measure", "source", "step", "method"])["value"].mean()
    for measure, margin in (("task", 0.02), ("R², log mass", 0.1), ("R², log friction", 0.1)):
        for step in (10, 20, 30, 40, 50):
            assert (means[measure, "c", step] < means[measure, "untrained", step] + margin).all()
    assert (means["R², log mass", "s", 10] > 0.25).all()
    assert means["R², log friction"].max() < 0.1
    assert (means["skill used", "c", 50] < means["skill used", "untrained", 50] + 0.05).all()


def test_contrasts_learned_what_the_text_says():
    """CCM's finds its key as often as by guessing; SaTESAC's tells good from bad."""
    curves = load_table("curves/panda.parquet")
    late = curves[curves["env_steps"] > 80_000]
    accuracy = late.groupby(["method", "seed"])["held_out_accuracy"].mean()
    low, high = figures.interval(accuracy["ccm"].to_numpy(), np.random.default_rng(0))
    assert low < 1 / 13 < high
    assert accuracy["satesac"].min() > 2 / 13
    assert recipe(ID, "ccm").context.contrast_batch == 12


def test_the_picture_shows_one_policy_of_each_method():
    drawn = load_table("embeddings/panda.parquet")
    assert drawn.groupby("method")["seed"].nunique().to_dict() == dict.fromkeys(
        ("tesac", "ccm", "satesac", "saccm"), 1
    )
    assert (drawn.groupby(["method", "context"])["episode"].min() == 0).all()  # which is filmed


def test_the_filmed_agents_succeed_without_lifting():
    agents = load_table("results/panda.parquet")
    context = agents["context"] == '{"mass": 30, "friction": 0.1}'
    filmed = agents[context & (agents["episode"] == 0) & (agents["seed"] == 0)]
    filmed = filmed[filmed["method"].isin(["sac", "satesac"])]
    assert len(filmed) == 2 and filmed["success"].all() and set(filmed["skill"]) == {"push"}
    assert set(agents[context]["split"]) <= {"moderate", "extreme"}  # "was not trained"


def test_films_show_what_their_captions_say():
    """Replays the filmed episodes; the captions are plain text."""
    pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
    import gymnasium as gym

    from sami_tutorial.envs.panda_skills import SCRIPTS
    from sami_tutorial.evaluate import EVALUATION_SEED

    filmed = (("push", 0.2, 5.0, 0.1), ("push", 1, 5.0, 0.1), ("carry", 1, 1.0, 1.0))
    filmed += (("drag", 0.2, 30.0, 0.1),)
    ends = {}
    env = gym.make(ID)
    for name, speed, mass, friction in filmed:
        context = {"mass": mass, "friction": friction}
        seen, _ = env.reset(seed=EVALUATION_SEED, options={"context": context})
        for _ in range(50):
            seen, reward, *_ = env.step(SCRIPTS[name](seen, speed))
        ends[f"{name} {speed:g}"] = -reward
    assert ends["push 0.2"] < 0.05 and ends["carry 1"] < 0.05
    assert ends["push 1"] == pytest.approx(0.7, abs=0.05)
    assert ends["drag 0.2"] == pytest.approx(0.09, abs=0.005)
