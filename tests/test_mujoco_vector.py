"""The batched MuJoCo bodies: bit-equal to single ones, whatever the threads and the batch."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import sami_tutorial  # noqa: F401  (registers the environments)
from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.envs.mujoco_body import Motion
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS
from sami_tutorial.envs.mujoco_vector import MujocoVectorEnv
from sami_tutorial.envs.vector import LockstepVectorEnv

IDS = [task.id for task in MUJOCO_TASKS]
EVERY_BODY = pytest.mark.parametrize("id", IDS)
HOPPER, CHEETAH, ANT = "sami/Hopper-v0", "sami/CrippledHalfCheetah-v0", "sami/CrippledAnt-v0"


def actions_of(env: MujocoVectorEnv, steps: int) -> np.ndarray:
    shape = (steps, *env.action_space.shape)
    return np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)


def assert_same(one: object, other: object) -> None:
    """Equal bits, types and, for infos, entries."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif one.dtype == object:
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one.dtype == other.dtype and np.array_equal(one, other)


@EVERY_BODY
def test_batched_equals_side_by_side_bit_for_bit(id: str) -> None:
    options = {"split": "extreme", "seed": 5, "max_episode_steps": 10}
    batched, lockstep = make_vec(id, 4, **options), LockstepVectorEnv(id, 4, **options)
    assert isinstance(batched, MujocoVectorEnv)
    assert batched.observation_space == lockstep.observation_space
    assert batched.action_space == lockstep.action_space
    assert batched.single_observation_space == lockstep.single_observation_space
    assert batched.single_action_space == lockstep.single_action_space
    assert batched.context_features == lockstep.context_features
    assert batched.max_episode_steps == lockstep.max_episode_steps == 10
    contexts = task_sets(id).train[:3] + task_sets(id).extreme[:1]
    for arguments in (
        {},
        {"options": {"context": contexts[1]}},
        {"seed": 9, "options": {"context": contexts}},
        {"seed": [3, None, 4, None]},
    ):
        for one, other in zip(batched.reset(**arguments), lockstep.reset(**arguments), strict=True):
            assert_same(one, other)
        for actions in actions_of(batched, 22):  # across two ends of episodes
            for one, other in zip(batched.step(actions), lockstep.step(actions), strict=True):
                assert_same(one, other)


@pytest.mark.parametrize("id", [HOPPER, ANT])  # MuJoCo's batch stepper, and body by body
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_number_of_threads_changes_nothing(id: str, threads: int) -> None:
    one = make_vec(id, 5, max_episode_steps=30)
    many = make_vec(id, 5, max_episode_steps=30, threads=threads)
    one.reset(seed=1)
    many.reset(seed=1)
    for actions in actions_of(one, 70):
        for expected, result in zip(one.step(actions), many.step(actions), strict=True):
            assert_same(expected, result)


@EVERY_BODY
def test_the_formulas_take_any_leading_axes(id: str) -> None:
    env = gym.make(id).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    rows = 20.0 * rng.standard_normal((2, 3, env.model.nq + env.model.nv + 2))
    qpos, qvel = rows[..., : env.model.nq], rows[..., env.model.nq : -2]
    forces = rng.standard_normal((2, 3, env.model.nbody, 6))
    together = Motion(qpos, qvel, rows[..., -2], rows[..., -1], forces)
    observations, rewards = env.observe(together), env.reward(together)
    assert observations.shape == (2, 3, env.observation_size) and rewards.shape == (2, 3)
    for i in np.ndindex(2, 3):
        alone = Motion(*(array[i] for array in together))
        assert np.array_equal(env.observe(alone), observations[i])
        assert np.array_equal(env.reward(alone), rewards[i])


def test_bad_arguments_are_rejected_by_name() -> None:
    for value in (0, -1, 2.5, "two", True):
        with pytest.raises(ValueError, match=r"threads.*positive integer"):
            make_vec(HOPPER, 2, threads=value)
        with pytest.raises(ValueError, match=r"max_episode_steps.*positive integer"):
            make_vec(HOPPER, 2, max_episode_steps=value)


def test_actions_that_fit_no_motor_are_rejected_before_anything_moves() -> None:
    env = make_vec(CHEETAH, 2)
    still = np.zeros((2, 6), np.float32)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(still)
    env.reset(seed=0)
    expected = env.step(still)
    env.reset(seed=0)
    for shape in ((6,), (3, 6), (2, 5), (2, 6, 1)):
        with pytest.raises(ValueError, match=r"actions.*shape \(2, 6\)"):
            env.step(np.zeros(shape, np.float32))
    for value in (np.nan, np.inf, -np.inf):
        actions = still.copy()
        actions[1, 3] = value
        with pytest.raises(ValueError, match=r"actions\[1\] is .*finite"):
            env.step(actions)
    for one, other in zip(expected, env.step(still), strict=True):
        assert_same(one, other)


def test_an_action_out_of_range_is_and_costs_the_nearest_one_within() -> None:
    far = np.random.default_rng(0).uniform(-3, 3, (2, 6)).astype(np.float32)
    outcomes = []
    for actions in (far, np.clip(far, -1, 1)):
        env, single = make_vec(CHEETAH, 2), gym.make(CHEETAH, disable_env_checker=True)
        env.reset(seed=0)
        single.reset(seed=0)
        outcomes.append([*env.step(actions)[:2], *single.step(actions[0])[:2]])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other)


def test_a_body_that_breaks_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo puts a body that flies apart back to its start; the others must not notice."""
    monkeypatch.chdir(tmp_path)  # where MuJoCo then writes a log
    env, other = make_vec(HOPPER, 3), make_vec(HOPPER, 3)
    env.reset(seed=0)
    other.reset(seed=0)
    env._state[1, -1] = 1e12
    for actions in actions_of(env, 5):
        broken, whole = env.step(actions), other.step(actions)
        assert not np.array_equal(broken[0][1], whole[0][1]) and np.isfinite(broken[0]).all()
        for i in (0, 2):
            assert np.array_equal(broken[0][i], whole[0][i]) and broken[1][i] == whole[1][i]
