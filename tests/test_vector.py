"""Vector environments: the same bits as single ones, and Gymnasium's same-step autoreset."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

import sami_tutorial  # noqa: F401  (registers the environments)
from sami_tutorial.envs import (
    TASKS,
    ContextError,
    ContextObservation,
    VectorContextObservation,
    make_vec,
    task_sets,
)
from sami_tutorial.envs.vector import LockstepVectorEnv

EVERY_TASK = pytest.mark.parametrize("id", TASKS)
CUBE, CHEETAH = "sami/CubeMove-v0", "sami/CrippledHalfCheetah-v0"
EVERY_KIND = pytest.mark.parametrize(
    ("id", "make"),
    [(CUBE, make_vec), (CHEETAH, make_vec), (CHEETAH, LockstepVectorEnv)],
    ids=["CubeMove batched", "MuJoCo batched", "MuJoCo side by side"],
)
Make = Callable[..., VectorEnv]


def short(id: str) -> dict[str, Any]:
    """Options for episodes short enough to end several times in a test."""
    return {} if id == CUBE else {"max_episode_steps": 15}


def length(id: str) -> int:
    return TASKS[id].max_episode_steps if id == CUBE else 15


def random_actions(env: VectorEnv, steps: int) -> np.ndarray:
    shape = (steps, *env.action_space.shape)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@EVERY_TASK
@pytest.mark.parametrize("split", ["train", "extreme"])
def test_equal_to_single_environments_bit_for_bit(id: str, split: str) -> None:
    count = 3
    env = make_vec(id, count, split=split, seed=40, **short(id))
    singles = [gym.make(id, split=split, **short(id)) for _ in range(count)]
    actions = random_actions(env, 2 * length(id) + 5)  # two ends of episodes and some steps

    observation, info = env.reset()
    for i, single in enumerate(singles):
        expected, expected_info = single.reset(seed=40 + i)
        assert np.array_equal(observation[i], expected)
        assert np.array_equal(info["context"][i], expected_info["context"])

    ended = 0
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        for i, single in enumerate(singles):
            expected, r, term, trunc, expected_info = single.step(action[i])
            assert (reward[i], terminated[i], truncated[i]) == (r, term, trunc)
            if term or trunc:
                ended += 1
                assert np.array_equal(info["final_obs"][i], expected)
                for key, value in expected_info.items():
                    assert np.array_equal(info["final_info"][key][i], value), key
                expected, expected_info = single.reset()
            assert np.array_equal(observation[i], expected)
            assert np.array_equal(info["context"][i], expected_info["context"])
    assert ended == 2 * count
    assert observation.dtype == env.observation_space.dtype


@EVERY_KIND
def test_the_end_of_an_episode_follows_same_step_autoreset(id: str, make: Make) -> None:
    env = make(id, 2, seed=0, **short(id))
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    _, info = env.reset()
    for step, action in enumerate(random_actions(env, 2 * length(id)), start=1):
        old_context = info["context"].copy()
        observation, _, terminated, truncated, info = env.step(action)
        assert not terminated.any()
        assert truncated.tolist() == [step % length(id) == 0] * 2
        assert info["_context"].all()
        if truncated.any():
            assert info["_final_obs"].all() and info["_final_info"].all()
            assert not np.array_equal(np.stack(info["final_obs"]), observation)
            # The context that the episode had, beside that of the episode that begins.
            assert np.array_equal(info["final_info"]["context"], old_context)
        else:
            assert "final_obs" not in info and "final_info" not in info
            assert np.array_equal(info["context"], old_context)


@EVERY_TASK
def test_a_vector_tells_how_long_its_episodes_are(id: str) -> None:
    assert make_vec(id, 1).unwrapped.max_episode_steps == TASKS[id].max_episode_steps
    wrapped = VectorContextObservation(make_vec(id, 1, **short(id)))
    assert wrapped.unwrapped.max_episode_steps == length(id)


@EVERY_KIND
def test_every_environment_draws_its_own_contexts(id: str, make: Make) -> None:
    env = make(id, 16, seed=0)
    first = env.reset()[1]["context"]
    second = env.reset()[1]["context"]
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, second)


@EVERY_KIND
def test_the_seed_given_at_construction_serves_the_first_reset_only(id: str, make: Make) -> None:
    env, other = make(id, 4, seed=7), make(id, 4, seed=1)
    first, second = env.reset()[0], env.reset()[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(other.reset(seed=7)[0], first)
    assert np.array_equal(other.reset()[0], second)
    assert np.array_equal(other.reset(seed=[7, 8, 9, 10])[0], first)


@EVERY_KIND
def test_one_context_for_all_or_one_for_each(id: str, make: Make) -> None:
    env = make(id, 3, **short(id))
    space = TASKS[id].space
    contexts = task_sets(id).extreme[:3]
    vectors = np.stack([space.vector(context) for context in contexts]).astype(np.float32)

    _, info = env.reset(options={"context": contexts[0]})
    assert np.array_equal(info["context"], np.tile(vectors[0], (3, 1)))
    _, info = env.reset(options={"context": contexts})
    actions = random_actions(env, length(id))
    for action in actions[:-1]:
        assert np.array_equal(info["context"], vectors)
        *_, info = env.step(action)
    # Options serve one episode: the next ones draw from the split again.
    *_, info = env.step(actions[-1])
    assert np.array_equal(info["final_info"]["context"], vectors)
    train = np.stack([space.vector(c) for c in task_sets(id).train]).astype(np.float32)
    assert all((train == row).all(axis=1).any() for row in info["context"])


@EVERY_KIND
def test_results_are_not_overwritten_by_later_steps(id: str, make: Make) -> None:
    env = make(id, 2)
    observation, info = env.reset()
    kept = observation.copy(), info["context"].copy()
    action = random_actions(env, 2)
    second, reward, *_ = env.step(action[0])
    kept_second = second.copy(), reward.copy()
    env.step(action[1])
    assert np.array_equal(observation, kept[0]) and np.array_equal(info["context"], kept[1])
    assert np.array_equal(second, kept_second[0]) and np.array_equal(reward, kept_second[1])


@EVERY_KIND
def test_the_reported_contexts_are_copies(id: str, make: Make) -> None:
    env = make(id, 2)
    _, info = env.reset(seed=0)
    before = info["context"].copy()
    for action in random_actions(env, 3):
        info["context"][:] = -1
        *_, info = env.step(action)
        assert np.array_equal(info["context"], before)


@EVERY_KIND
def test_the_oracle_sees_the_same_in_a_vector_as_alone(id: str, make: Make) -> None:
    env = VectorContextObservation(make(id, 2, seed=3, **short(id)))
    singles = [ContextObservation(gym.make(id, **short(id))) for _ in range(2)]
    count = len(env.unwrapped.context_features)
    size = singles[0].env.observation_space.shape[0] + count
    assert env.single_observation_space == singles[0].observation_space
    assert env.observation_space.shape == (2, size)

    observation, _ = env.reset()
    for i, single in enumerate(singles):
        assert np.array_equal(single.reset(seed=3 + i)[0], observation[i])
    for action in random_actions(env, length(id) + 2):
        observation, _, _, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        for i, single in enumerate(singles):
            expected = single.step(action[i])[0]
            if truncated[i]:
                # The last observation carries the context of the episode that it ends.
                assert np.array_equal(info["final_obs"][i], expected)
                expected = single.reset()[0]
            assert np.array_equal(observation[i], expected)


@EVERY_KIND
def test_bad_input_is_rejected_by_name(id: str, make: Make) -> None:
    for number in (0, -3, 2.5, "four", None):
        with pytest.raises(ValueError, match=r"num_envs.*positive integer"):
            make_vec(id, number)  # type: ignore[arg-type]
    with pytest.raises(ContextError, match="split"):
        make(id, 2, split="hard")

    env = make(id, 2)
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        env.reset(seed=[1, 2, 3])
    for seeds, named in (([0, 1.5], "1.5"), ("ab", "'a'"), (2.0, "2.0")):
        with pytest.raises(ValueError, match=f"seed holds {named}"):
            env.reset(seed=seeds)
    first, _ = env.reset(seed=[3, 4])
    assert np.array_equal(env.reset(seed=np.array([3, 4]))[0], first)
    with pytest.raises(ContextError, match="1 contexts for 2 environments"):
        env.reset(options={"context": [{}]})
    with pytest.raises(ContextError, match="gravity"):
        env.reset(options={"context": [{}, {"gravity": 1.0}]})
    with pytest.raises(ContextError, match="mass"):
        env.reset(options={"context": {"mass": -1.0}})
    env.reset(seed=0)  # and it still works


def test_an_unknown_id_is_rejected_by_gymnasium() -> None:
    with pytest.raises(gym.error.NameNotFound, match="Snake"):
        make_vec("sami/Snake-v0", 2)


@EVERY_KIND
def test_every_kind_names_its_features(id: str, make: Make) -> None:
    expected = {CUBE: ("mass", "friction"), CHEETAH: ("mass", "damping", "crippled_0")}[id]
    assert make(id, 2).unwrapped.context_features[:3] == expected
