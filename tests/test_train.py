"""The loop: counts, determinism, resuming after a kill, evaluation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sami_tutorial.agents import METHODS
from sami_tutorial.checkpoint import CheckpointError, save_checkpoint
from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.envs import TASKS, get_task, task_sets
from sami_tutorial.evaluate import evaluate, interval
from sami_tutorial.runs import evaluate_run
from sami_tutorial.sac import SAC, SACConfig
from sami_tutorial.train import (
    CHECKPOINT,
    Run,
    TrainConfig,
    TrainingDiverged,
    recipe,
    rounds_together,
    train,
)

CUBE = "sami/CubeMove-v0"


def small(**changes) -> TrainConfig:
    values = {
        "env": CUBE,
        "steps": 960,
        "num_envs": 4,
        "warmup_steps": 160,
        "batch_size": 16,
        "replay_capacity": 400,
        "sac": SACConfig(hidden=(8,)),
    }
    return TrainConfig(**{**values, **changes})


def weights(agent) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.parameters()])


@pytest.mark.parametrize(("update_every", "expected"), [(1, 201), (3, 67)])
def test_updates_per_environment_step(update_every, expected):
    """960 steps in 4 environments are 240 lockstep steps; updates start with the 40th."""
    result = train(small(update_every=update_every), progress=False)
    assert result.curve["env_steps"].iloc[-1] == 960
    assert result.curve["updates"].iloc[-1] == expected


def test_budget_that_ends_within_an_episode():
    curve = train(small(steps=1000), progress=False).curve
    assert curve["env_steps"].tolist() == [160, 320, 480, 640, 800, 960, 1000]
    assert curve["episode_return"].isna().tolist() == [False] * 6 + [True]


def test_same_seed_same_weights():
    first, again = (train(small(), progress=False) for _ in range(2))
    other = train(small(seed=1), progress=False)
    assert torch.equal(weights(first.agent), weights(again.agent))
    assert not torch.equal(weights(first.agent), weights(other.agent))
    columns = ["episode_return", "critic_loss"]
    assert first.curve[columns].equals(again.curve[columns])


@pytest.mark.parametrize("method", ["sac", "oracle"])
def test_what_a_method_sees(method):
    run = Run(small(method=method))
    extra = len(get_task(CUBE).space.names) if method == "oracle" else 0
    plain = Run(small()).env.single_observation_space.shape[0]
    assert run.agent.actor.mlp.layers[0].weight.shape[0] == plain + extra


def test_the_last_transition_of_an_episode_leads_to_its_true_end():
    """Autoreset must not leak the next episode's first observation into the replay."""
    run = Run(small())
    next(run.rounds())
    replay = run.replay
    again = Run(small())
    again.env.reset(seed=int(np.random.SeedSequence([0, 0]).generate_state(1)[0]))
    for t in range(run.horizon):
        *_, info = again.env.step(replay.action[:4, t].numpy())
    assert np.array_equal(np.stack(info["final_obs"]), replay.observation[:4, -1].numpy())
    assert replay.terminated.sum() == 0  # a time limit is no termination


@pytest.mark.parametrize("method", ["sac", "satesac", "pearl"])
def test_resumed_run_equals_the_uninterrupted_one(method, tmp_path):
    settings = {} if method == "sac" else {"context": ContextConfig(episodes=4, hidden=8)}
    config = small(method=method, **settings)
    whole = train(config, progress=False)

    class Killed(Exception):
        pass

    def kill(run):
        if run.round == 2:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path, progress=False, checkpoint_seconds=0, on_round=kill)
    resumed = train(config, tmp_path, progress=False)
    assert torch.equal(weights(whole.agent), weights(resumed.agent))
    assert len(resumed.curve) == len(whole.curve)
    assert resumed.curve["critic_loss"].equals(whole.curve["critic_loss"])


def test_nan_stops_training_and_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = small(method="tesac", context=ContextConfig(episodes=4, hidden=8))
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.json").write_text(config.to_json())
    run = Run(config)
    while run.env_steps < 480:
        next(run.rounds())
    save_checkpoint(run_dir / CHECKPOINT, run.tensors(), run.counters(), config.to_json())
    content = (run_dir / CHECKPOINT).read_bytes()

    update = ContextSAC.update

    def poisoned(self, episodes, *arguments):
        return update(self, episodes._replace(reward=episodes.reward * float("nan")), *arguments)

    monkeypatch.setattr(ContextSAC, "update", poisoned)
    with pytest.raises(TrainingDiverged) as stop:
        train(config, run_dir, checkpoint_seconds=0, progress=False)
    message = str(stop.value)
    assert "is nan after 484 environment steps" in message
    assert str(run_dir / CHECKPOINT) in message
    assert (run_dir / CHECKPOINT).read_bytes() == content  # nothing bad was written over it
    with pytest.raises(TrainingDiverged, match="last good checkpoint: none"):
        train(config, progress=False)


def test_a_loss_that_explodes_stops_training_before_it_is_infinite(monkeypatch):
    """Rewards a hundred thousand times too large: squared errors of 1e10, all of them finite."""
    update = SAC.update

    def inflated(self, batch, *arguments):
        return update(self, batch._replace(reward=1e5 * batch.reward), *arguments)

    monkeypatch.setattr(SAC, "update", inflated)
    with pytest.raises(TrainingDiverged, match=r"critic_loss is \d.* after 160 environment steps"):
        train(small(), progress=False)


def test_exploding_weights_are_not_saved(tmp_path):
    def spoil(run):
        with torch.no_grad():
            run.agent.actor.mlp.layers[0].weight[0, 0] = float("inf")

    with pytest.raises(TrainingDiverged, match=r"actor.mlp.layers.0.weight is inf"):
        train(small(steps=160), tmp_path, progress=False, on_round=spoil)
    assert not (tmp_path / CHECKPOINT).exists()


def test_exploring_environments_act_at_random_and_do_not_count():
    class Still(SAC):
        def act(self, observation, deterministic=False):
            return np.zeros((len(observation), 2), np.float32)

    run = Run(small(exploring_envs=1, warmup_hold=8))
    run.agent.__class__ = Still
    for _ in range(2):
        record = next(run.rounds())
    action = run.replay.action[4:8]  # the round after the warm-up
    assert not action[1:].any()
    assert len(action[0].unique(dim=0)) == 5  # 40 steps, each draw held for 8
    assert record["episode_return"] == pytest.approx(
        float(run.replay.returns[5:8].mean()), rel=1e-5
    )


def test_several_updates_at_once():
    """160 steps of 4 environments: a warm-up of 80, then 20 lockstep steps."""
    run = Run(small(steps=160, warmup_steps=80, updates_at_once=3, imitation_updates=5))
    at = []
    for _ in rounds_together([run], lambda: at.append(run.env_steps)):
        pass
    assert at[:5] == [80] * 5  # before the agent acts
    assert at[5:] == [steps for steps in range(80, 161, 4) for _ in range(3)]
    assert run.updates == len(at) and run.imitation == 0.0


def test_another_config_or_a_damaged_checkpoint_is_refused(tmp_path):
    train(small(steps=200), tmp_path, progress=False)
    with pytest.raises(ValueError, match="another config"):
        train(small(steps=200, seed=3), tmp_path, progress=False)
    (tmp_path / CHECKPOINT).write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        train(small(steps=200), tmp_path, progress=False)


def test_config_survives_json():
    config = recipe(CUBE, seed=7, env_options={"distractors": 2})
    assert TrainConfig.from_json(config.to_json()) == config


def test_what_json_would_change_is_put_right_before():
    """A list of widths and NumPy's integers: else the run could not be resumed."""
    config = small(seed=np.int64(1), steps=np.int32(160), sac=SACConfig(hidden=[8]))
    assert config == small(seed=1, steps=160)
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"env": "sami/Moon-v0"}, "sami/Moon-v0"),
        ({"method": "magic"}, "magic"),
        ({"steps": 0}, "steps is 0"),
        ({"warmup_steps": 3}, "warmup_steps is 3"),
        ({"steps": 100}, "steps is 100, fewer than"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5; give an integer from 0 up"),
        ({"seed": True}, "seed is True"),
        ({"seed": 2**63}, "give an integer below"),
        ({"steps": 1e5}, "steps is 100000.0; give a positive integer"),
        ({"split": "hard"}, "split is 'hard'; choose one of"),
        ({"replay_capacity": 0}, "replay_capacity is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"updates_at_once": 0}, "updates_at_once is 0"),
        ({"imitation_steps": 160}, "imitation_steps is 160, but there is nobody to imitate"),
        ({"imitation_steps": -1}, "imitation_steps is -1"),
        ({"teacher": True}, "teacher is True, but sami/CubeMove-v0 has no teacher; give False"),
        ({"hindsight": 0.5}, "hindsight is 0.5, but sami/CubeMove-v0 has no goals"),
        ({"hindsight": 1.5}, "hindsight is 1.5; give a number from 0 to 1"),
    ],
)
def test_bad_settings_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        small(**changes)


@pytest.mark.parametrize("env", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_there_is_a_recipe_for_every_method_in_every_environment(env, method):
    config = recipe(env, method, seed=3)
    assert (config.env, config.method, config.seed) == (env, method, 3)
    horizon, window = get_task(env).max_episode_steps, config.context.window
    assert window == 0 or (method != "pearl" and horizon % window == 0)


def test_evaluation_runs_each_context_with_the_same_episodes():
    contexts = task_sets(CUBE).train[:3]
    seen = []

    def policy(observation):
        seen.append(observation)
        return np.zeros((len(observation), 2), np.float32)

    table = evaluate(policy, CUBE, contexts, episodes=4)
    starts = seen[0].reshape(3, 4, -1)
    assert np.array_equal(starts[0], starts[1]) and np.array_equal(starts[0], starts[2])
    assert len(table) == 12 and table["context"].nunique() == 3
    split = evaluate(policy, CUBE, contexts, episodes=4, max_envs=5)
    assert split["episode_return"].tolist() == table["episode_return"].tolist()
    with pytest.raises(ValueError, match="at least one"):
        evaluate(policy, CUBE, [], episodes=4)


def test_an_evaluation_of_nothing_is_refused():
    run = Run(small())
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"max_envs is {number}"):
            evaluate(run.agent, CUBE, [{}], max_envs=number)
    for splits in ([], ["train", "extreme", "train"]):
        with pytest.raises(ValueError, match=r"splits is .* each once"):
            evaluate_run(run, splits, 1)
    with pytest.raises(ValueError, match="resamples is 0"):
        interval([1.0, 2.0], np.random.default_rng(0), resamples=0)


def test_an_evaluation_runs_no_more_side_by_side_than_the_task_names(monkeypatch):
    small_task = replace(get_task(CUBE), side_by_side=5)
    monkeypatch.setattr("sami_tutorial.evaluate.get_task", lambda env: small_task)
    widths = set()

    def policy(observation):
        widths.add(len(observation))
        return np.zeros((len(observation), 2), np.float32)

    table = evaluate(policy, CUBE, task_sets(CUBE).train[:3], episodes=4)
    assert len(table) == 12 and widths == {5, 2}


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        low, high = interval(rng.normal(3.0, 2.0, 30), rng, resamples=500)
        hits += low <= 3.0 <= high
    # 95% nominal; the percentile bootstrap at n = 30 covers about 93.5%. Four sigma below: 0.885.
    assert 0.885 < hits / 400 < 0.99
