"""What every registered task promises, whatever it simulates."""

import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sami_tutorial
from sami_tutorial.envs import SPLITS, TASKS, ContextError, ContextObservation, get_task, task_sets

EVERY_TASK = pytest.mark.parametrize("id", TASKS)


def roll_out(env: gym.Env, steps: int, *, seed: int, options: dict | None = None) -> np.ndarray:
    """Observation and reward of every step under a fixed random policy: (steps + 1, size + 1)."""
    actions = np.random.default_rng(7)
    observation, _ = env.reset(seed=seed, options=options)
    rows = [np.append(observation, 0.0)]
    for _ in range(steps):
        action = actions.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, *_ = env.step(action)
        rows.append(np.append(observation, reward))
    return np.array(rows)


@EVERY_TASK
def test_gymnasium_accepts_the_environment(id: str) -> None:
    with warnings.catch_warnings():
        # An observation without bounds is legitimate, and Gymnasium's own bodies have one too.
        warnings.filterwarnings("ignore", message=".*Box observation space.*infinity.*")
        check_env(gym.make(id).unwrapped, skip_render_check=True)


@EVERY_TASK
def test_the_step_limit_truncates_and_nothing_terminates(id: str) -> None:
    env = gym.make(id)
    env.reset(seed=0)
    limit = get_task(id).max_episode_steps
    still = np.zeros(env.action_space.shape, np.float32)
    ends = [env.step(still)[2:4] for _ in range(limit)]
    assert ends[:-1] == [(False, False)] * (limit - 1)
    assert ends[-1] == (False, True)


@EVERY_TASK
def test_actions_lie_between_minus_one_and_one(id: str) -> None:
    space = gym.make(id).action_space
    assert isinstance(space, gym.spaces.Box)
    assert (space.low == -1).all() and (space.high == 1).all()


@EVERY_TASK
def test_the_context_is_reported_in_feature_order_on_reset_and_every_step(id: str) -> None:
    env = gym.make(id)
    features = get_task(id).space.features
    assert env.unwrapped.context_features == tuple(feature.name for feature in features)

    last = features[-1]
    _, info = env.reset(seed=0, options={"context": {last.name: last.high}})
    expected = np.array([f.nominal for f in features[:-1]] + [last.high], np.float32)
    for _ in range(3):
        assert info["context"].dtype == np.float32
        assert np.array_equal(info["context"], expected)
        info = env.step(env.action_space.sample())[-1]


@EVERY_TASK
def test_the_reported_context_is_a_copy(id: str) -> None:
    env = gym.make(id)
    _, info = env.reset(seed=0)
    before = info["context"].copy()
    info["context"][:] = -1
    assert np.array_equal(env.step(env.action_space.sample())[-1]["context"], before)


@EVERY_TASK
@pytest.mark.parametrize("split", SPLITS)
def test_every_task_of_a_split_is_drawn_and_no_other(id: str, split: str) -> None:
    env = gym.make(id, split=split)
    space = get_task(id).space
    expected = {tuple(space.vector(c).astype(np.float32)) for c in task_sets(id).split(split)}
    env.reset(seed=0)
    # The chance to miss one of n tasks in 20 n draws is below n exp(-20).
    drawn = {tuple(env.reset()[1]["context"]) for _ in range(20 * len(expected))}
    assert drawn == expected


@EVERY_TASK
def test_the_nominal_split_is_the_unmodified_task(id: str) -> None:
    env = gym.make(id, split="nominal")
    nominal = np.array([f.nominal for f in get_task(id).space.features], np.float32)
    assert np.array_equal(env.reset(seed=3)[1]["context"], nominal)


@EVERY_TASK
def test_task_sets_are_disjoint_and_without_repetition(id: str) -> None:
    space = get_task(id).space
    vectors = [
        tuple(space.vector(context)) for split in SPLITS for context in task_sets(id).split(split)
    ]
    assert len(vectors) == len(set(vectors))


@EVERY_TASK
def test_same_seed_same_episode(id: str) -> None:
    episode = roll_out(gym.make(id), 30, seed=11)
    assert np.array_equal(episode, roll_out(gym.make(id), 30, seed=11))
    assert not np.array_equal(episode, roll_out(gym.make(id), 30, seed=12))


@EVERY_TASK
def test_an_episode_does_not_depend_on_those_before_it(id: str) -> None:
    used, fresh = gym.make(id), gym.make(id)
    roll_out(used, 30, seed=1)
    assert np.array_equal(roll_out(used, 30, seed=11), roll_out(fresh, 30, seed=11))


@EVERY_TASK
def test_a_seed_gives_one_first_state_in_every_context(id: str) -> None:
    env = gym.make(id)
    drawn, info = env.reset(seed=5)
    for context in task_sets(id).train[:3]:
        given, given_info = env.reset(seed=5, options={"context": context})
        assert np.array_equal(given, drawn)
    given, given_info = env.reset(
        seed=5, options={"context": get_task(id).space.as_dict(info["context"].astype(float))}
    )
    assert np.allclose(given_info["context"], info["context"])


@EVERY_TASK
def test_bad_contexts_are_rejected_by_name(id: str) -> None:
    env = gym.make(id)
    feature = get_task(id).space.features[0]
    for value in (feature.high + 1, feature.low - 1, float("nan"), float("inf"), "heavy", None):
        with pytest.raises(ContextError, match=feature.name):
            env.reset(options={"context": {feature.name: value}})
    with pytest.raises(ContextError, match="gravity"):
        env.reset(options={"context": {"gravity": 9.0}})
    with pytest.raises(ContextError, match="context"):
        env.reset(options={"context": [1.0]})
    env.reset(seed=0)  # and it still works


@EVERY_TASK
def test_an_unknown_split_is_rejected_by_name(id: str) -> None:
    with pytest.raises(ContextError, match=r"hard.*train"):
        gym.make(id, split="hard")


@EVERY_TASK
def test_actions_that_fit_no_motor_are_rejected(id: str) -> None:
    env = gym.make(id).unwrapped
    env.reset(seed=0)
    size = env.action_space.shape[0]
    with pytest.raises(ValueError, match=r"action.*shape"):
        env.step(np.zeros(size + 1, np.float32))
    with pytest.raises(ValueError, match=r"action.*nan"):
        env.step(np.full(size, np.nan, np.float32))


@EVERY_TASK
def test_the_oracle_sees_the_context_at_the_end_of_the_observation(id: str) -> None:
    plain, oracle = gym.make(id), ContextObservation(gym.make(id))
    count = len(plain.unwrapped.context_features)
    observation, info = plain.reset(seed=2)
    seen, _ = oracle.reset(seed=2)
    action = np.full(plain.action_space.shape, 0.5, np.float32)
    for _ in range(3):
        assert oracle.observation_space.contains(seen)
        assert np.array_equal(seen[:-count], observation)
        assert np.array_equal(seen[-count:], info["context"])
        observation, *_, info = plain.step(action)
        seen, *_ = oracle.step(action)


def test_an_unknown_task_is_rejected_by_name() -> None:
    with pytest.raises(ContextError, match=r"Snake.*sami/CubeMove-v0"):
        get_task("sami/Snake-v0")


def test_looking_up_task_sets_loads_no_simulator() -> None:
    code = (
        "import sys, sami_tutorial; sami_tutorial.envs.task_sets('sami/Panda-v0');"
        "sys.exit('mujoco' in sys.modules or 'pybullet' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_simulator_is_named_with_the_fix() -> None:
    code = (
        "import sys, gymnasium, sami_tutorial; sys.modules['pybullet'] = None;"
        "gymnasium.make('sami/Panda-v0')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ModuleNotFoundError: sami/Panda-v0 needs")
    assert "PyBullet" in last_line and "`make panda`" in last_line


def test_importing_registers_every_task() -> None:
    assert sami_tutorial.envs.TASKS.keys() <= gym.registry.keys()
