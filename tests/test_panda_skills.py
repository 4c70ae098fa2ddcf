"""The Panda's scripted hands: what they command, and what they achieve in the simulation."""

import numpy as np
import pytest

from sami_tutorial.envs import make_vec
from sami_tutorial.envs.panda_skills import REACH, Teacher, scripted_grip, scripted_push

HAND, GAP, CUBE, GOAL = slice(0, 3), 6, slice(7, 10), slice(19, 22)


def scene(hand, gap=0.0, cube=(0.0, 0.0, 0.02), goal=(0.1, 0.0, 0.02)) -> np.ndarray:
    observation = np.zeros(22, np.float32)
    observation[HAND], observation[GAP] = hand, gap
    observation[CUBE], observation[GOAL] = cube, goal
    return observation


def test_the_pushing_hand_goes_behind_comes_down_and_pushes():
    far = scripted_push(scene((0.04, 0.0, 0.2)))
    assert far[0] < 0 and far[2] < 0 and far[3] == -1  # behind the cube, as seen from the goal
    above = scripted_push(scene((-0.06, 0.0, 0.12)))
    assert above[2] == -1 and np.allclose(above[:2], 0, atol=1e-6)
    pushing = scripted_push(scene((-0.04, 0.0, 0.015)), speed=0.3)
    assert np.allclose(pushing, [0.3, 0, 0, -1], atol=1e-6)


def test_the_gripping_hand_goes_above_comes_down_closes_and_carries():
    far = scripted_grip(scene((0.04, 0.0, 0.2)))
    assert far[0] < 0 and far[3] == 1
    above = scripted_grip(scene((0.0, 0.0, 0.12), gap=0.08))
    assert above[2] == -1 and np.allclose(above[:2], 0, atol=1e-6)
    assert np.allclose(scripted_grip(scene((0.0, 0.0, 0.02), gap=0.08)), [0, 0, 0, -1])
    carrying = scripted_grip(scene((0.0, 0.0, 0.02), gap=0.04), speed=0.3)
    assert np.allclose(carrying, [0.3, 0, 0.03 / REACH, -1], atol=1e-6)
    arrived = scripted_grip(scene((0.1, 0.0, 0.05), gap=0.04, cube=(0.09, 0, 0.05)))
    assert np.allclose(arrived[:2], 0) and arrived[2] < 0  # puts it down


@pytest.mark.parametrize("script", [scripted_push, scripted_grip])
def test_many_hands_act_as_each_would_alone(script):
    rng = np.random.default_rng(0)
    seen = np.stack([scene(rng.uniform(-0.1, 0.1, 3), gap=0.08 * rng.random()) for _ in range(200)])
    seen[:, CUBE] += rng.uniform(-0.05, 0.05, (200, 3))
    speed = rng.random(200)
    together = script(seen, speed)
    assert together.shape == (200, 4) and together.dtype == np.float32
    assert np.abs(together).max() <= 1
    alone = np.stack([script(each, pace) for each, pace in zip(seen, speed, strict=True)])
    assert np.array_equal(together, alone)
    with_context = np.concatenate([seen, rng.random((200, 2))], axis=1)  # as the oracle sees it
    assert np.array_equal(script(with_context, speed), together)


def test_a_teachers_hands_keep_their_skill_for_an_episode_and_differ_between_episodes():
    teacher = Teacher(400, np.random.default_rng(0))
    teacher.shakiness[:] = 0
    above = np.tile(scene((0.0, 0.0, 0.12), gap=0.08), (400, 1))
    first, second = teacher.act(above), teacher.act(above)
    assert np.array_equal(first, second)
    assert 150 < int((first[:, 3] == 1).sum()) < 250  # about half of them grip
    assert 0.19 < teacher.speed.min() < 0.25 and 0.9 < teacher.speed.max() <= 1
    other = Teacher(400, np.random.default_rng(1))
    assert (other.grips != teacher.grips).any()


def test_noise_stays_within_the_range_of_actions():
    teacher = Teacher(50, np.random.default_rng(0))
    above = np.tile(scene((0.0, 0.0, 0.12), gap=0.08), (50, 1))
    tries = np.stack([teacher.act(above) for _ in range(30)])
    assert np.abs(tries).max() <= 1 and tries.dtype == np.float32
    assert (tries.std(axis=0).max(axis=1) > 0).all()


def success(script, mass: float, friction: float) -> float:
    """Share of 16 episodes in which the cube ends at its goal."""
    env = make_vec("sami/Panda-v0", 16)
    context = {"mass": mass, "friction": friction}
    observation, _ = env.reset(seed=list(range(16)), options={"context": context})
    for _ in range(50):
        observation, *_, info = env.step(script(observation))
    env.close()
    return float(np.mean(info["final_info"]["success"]))


def test_what_the_scripts_achieve():
    pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
    assert success(scripted_grip, 1, 1) > 0.9
    assert success(lambda seen: scripted_push(seen, 1.0), 1, 1) > 0.5
    # Pushed that hard, a cube on a slippery table is lost; a gentle push keeps it.
    hard = success(lambda seen: scripted_push(seen, 1.0), 5, 0.1)
    gentle = success(lambda seen: scripted_push(seen, 0.25), 5, 0.1)
    assert hard < 0.2 < 0.4 < gentle
    # Nobody lifts, drags or pushes 30 kg where the table holds it with 736 N.
    assert success(scripted_grip, 30, 5) < 0.2 and success(scripted_push, 30, 5) < 0.2
