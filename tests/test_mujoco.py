"""The MuJoCo bodies: physics under a context, rewards, observations, pictures."""

import math
import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import sami_tutorial  # noqa: F401  (registers the environments)
from sami_tutorial.envs import ContextError, task_sets
from sami_tutorial.envs.headless import choose_backend
from sami_tutorial.envs.mujoco import ContextualMujocoEnv
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS

# isort: split
import mujoco
from mujoco.rollout import rollout

IDS = [task.id for task in MUJOCO_TASKS]
EVERY_BODY = pytest.mark.parametrize("id", IDS)
CRIPPLED = pytest.mark.parametrize("id", [id for id in IDS if "Crippled" in id])
ORIGINAL = {"Hopper": "Hopper-v5", "HalfCheetah": "HalfCheetah-v5"}


def make(id: str, **kwargs: object) -> ContextualMujocoEnv:
    env = gym.make(id, **kwargs).unwrapped
    assert isinstance(env, ContextualMujocoEnv)
    return env


def original(id: str) -> gym.Env:
    """Gymnasium's own environment of the same body."""
    return gym.make(next(own for body, own in ORIGINAL.items() if body in id)).unwrapped


def model_bytes(env: ContextualMujocoEnv) -> bytes:
    """The whole compiled model."""
    buffer = np.empty(mujoco.mj_sizeModel(env.model), np.uint8)
    mujoco.mj_saveModel(env.model, None, buffer)
    return buffer.tobytes()


def states(env: ContextualMujocoEnv, context: dict, steps: int = 50) -> np.ndarray:
    """Positions of an episode under a fixed random policy, shape (steps, nq)."""
    actions = np.random.default_rng(3).uniform(-1, 1, (steps, env.model.nu))
    env.reset(seed=0, options={"context": context})
    rows = []
    for action in actions:
        env.step(action)
        rows.append(env.data.qpos.copy())
    return np.array(rows)


# The model


@EVERY_BODY
def test_a_context_scales_masses_and_damping_of_the_nominal_model(id: str) -> None:
    env, nominal = make(id), make(id, split="nominal").model
    for mass, damping in ((2.0, 0.5), (0.25, 4.0), (0.25, 4.0)):  # never on top of the last one
        env.reset(options={"context": {"mass": mass, "damping": damping}})
        assert np.array_equal(env.model.body_mass, nominal.body_mass * mass)
        assert np.array_equal(env.model.dof_damping, nominal.dof_damping * damping)
        # What MuJoCo derives from the masses was derived anew.
        assert np.allclose(env.model.body_subtreemass, nominal.body_subtreemass * mass)
        assert not np.allclose(env.model.dof_invweight0, nominal.dof_invweight0)


@EVERY_BODY
def test_the_nominal_context_restores_the_model_bit_for_bit(id: str) -> None:
    env = make(id)
    env.reset(options={"context": {}})
    before = model_bytes(env)
    space = env.task.space
    for context in (
        {feature.name: feature.high for feature in space.features},
        {feature.name: feature.low for feature in space.features},
        *task_sets(id).extreme,
    ):
        env.reset(options={"context": context})
        assert model_bytes(env) != before
        env.reset(options={"context": {}})
        assert model_bytes(env) == before


@EVERY_BODY
def test_the_nominal_physics_is_gymnasiums_own(id: str) -> None:
    ours, theirs = make(id, split="nominal").model, original(id).model
    looks = ("tex_data", "mat_reflectance", "light_castshadow")
    for name in dir(theirs):
        value = getattr(theirs, name)
        if isinstance(value, np.ndarray) and name not in looks:
            assert np.array_equal(getattr(ours, name), value, equal_nan=True), name
    for name in ("timestep", "gravity", "integrator", "iterations", "tolerance"):
        assert np.array_equal(getattr(ours.opt, name), getattr(theirs.opt, name)), name


# Trajectories


@EVERY_BODY
def test_an_extreme_feature_changes_the_trajectory(id: str) -> None:
    env = make(id)
    nominal = states(env, {})
    for feature in env.context_features:
        value = 1.0 if feature.startswith("crippled") else 4.0
        assert np.abs(states(env, {feature: value}) - nominal).max() > 1e-3, feature
    assert np.array_equal(states(env, {}), nominal)


@EVERY_BODY
def test_a_step_depends_on_position_velocity_and_action_alone(id: str) -> None:
    """So MuJoCo's own batch stepper, which keeps no solver state, gives the same bits."""
    env = make(id, split="nominal")
    env.reset(seed=0)
    scratch = mujoco.MjData(env.model)
    actions = np.random.default_rng(3).uniform(-1, 1, (100, env.model.nu))
    for action in actions:
        before = np.concatenate([[env.data.time], env.data.qpos, env.data.qvel])
        env.step(action)
        control = np.tile(action, (env.physics_steps, 1))
        after, _ = rollout(env.model, scratch, initial_state=before, control=control)
        assert np.array_equal(after[0, -1, 1:], np.append(env.data.qpos, env.data.qvel))


@CRIPPLED
def test_a_crippled_motor_gets_no_control(id: str) -> None:
    env = make(id)
    for motor in range(env.model.nu):
        env.reset(seed=0, options={"context": {f"crippled_{motor}": 1}})
        env.step(np.full(env.model.nu, 0.7))
        expected = np.full(env.model.nu, 0.7)
        expected[motor] = 0.0
        assert np.array_equal(env.data.ctrl, expected)
        assert env.data.actuator_force[motor] == 0.0


@CRIPPLED
def test_the_action_of_a_crippled_motor_changes_nothing(id: str) -> None:
    env, other = make(id), make(id)
    for one in (env, other):
        one.reset(seed=0, options={"context": {"crippled_0": 1}})
    for _ in range(5):
        action = np.full(env.model.nu, 0.5)
        twin = action.copy()
        twin[0] = -1.0
        ours, theirs = env.step(action), other.step(twin)
        assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


# Rewards and observations, written out once more from the table of the paper


def expected_reward(id: str, v_x: float, control: np.ndarray) -> float:
    squares = sum(u**2 for u in control.tolist())
    if "HalfCheetah" in id:
        return v_x - 0.1 * squares
    return v_x + 1 - (0.001 if "Crippled" in id else 0.1) * squares


def expected_observation(id: str, v_x: float, qpos: np.ndarray, qvel: np.ndarray) -> list[float]:
    if "HalfCheetah" in id:
        return [v_x, *qpos[1:], *qvel]
    return [*qpos[1:], *(min(max(v, -10.0), 10.0) for v in qvel)]


@EVERY_BODY
@pytest.mark.parametrize("split", ["train", "extreme"])
def test_rewards_and_observations_equal_the_formulas(id: str, split: str) -> None:
    env = make(id, split=split)
    rng = np.random.default_rng(0)
    seconds = 0.05 if "HalfCheetah" in id else 0.008
    clipped = 0
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        qpos, qvel = env.data.qpos, env.data.qvel
        assert np.array_equal(observation, expected_observation(id, 0.0, qpos, qvel))
        alive = np.ones(env.model.nu)
        for i, name in enumerate(env.context_features):
            if name.startswith("crippled"):
                alive[int(name.removeprefix("crippled_"))] -= info["context"][i]
        for _ in range(100):
            x = qpos[0]
            action = rng.uniform(-1, 1, env.model.nu).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            v_x = (qpos[0] - x) / seconds
            control = action.astype(np.float64) * alive
            assert math.isclose(reward, expected_reward(id, v_x, control), abs_tol=1e-9)
            expected = expected_observation(id, v_x, qpos, qvel)
            assert np.allclose(observation, expected, rtol=0, atol=1e-9)
            assert (terminated, truncated) == (False, False)
            clipped += int(np.abs(qvel).max() > 10)
    assert clipped > 0  # so that clipping, or its absence, was tested


@EVERY_BODY
def test_observation_widths_and_step_limits(id: str) -> None:
    size, limit = {
        "sami/Hopper-v0": (11, 2000),
        "sami/CrippledHopper-v0": (11, 1000),
        "sami/HalfCheetah-v0": (18, 1000),
        "sami/CrippledHalfCheetah-v0": (18, 1000),
    }[id]
    env = gym.make(id)
    assert env.observation_space.shape == (size,)
    assert env.spec is not None and env.spec.max_episode_steps == limit


@EVERY_BODY
def test_episodes_start_as_in_gymnasium(id: str) -> None:
    ours, theirs = make(id, split="nominal"), original(id)
    ours.reset(seed=4)  # the nominal split has one task: drawing it takes no random number
    theirs.reset(seed=4)
    assert np.array_equal(ours.data.qpos, theirs.data.qpos)
    assert np.array_equal(ours.data.qvel, theirs.data.qvel)


@EVERY_BODY
def test_the_hardest_motions_never_make_the_physics_diverge(id: str) -> None:
    env = make(id)
    actions = np.random.default_rng(0).choice([-1.0, 1.0], (100, env.model.nu))
    for context in task_sets(id).extreme:
        env.reset(seed=0, options={"context": context})
        rewards = [env.step(action)[1] for action in actions]
        assert np.isfinite(rewards).all()
        assert not any(warning.number for warning in env.data.warning), context


# Task sets


def test_crippled_bodies_lose_the_joints_that_the_splits_say() -> None:
    def dead(id: str, split: str) -> set[tuple[int, ...]]:
        return {
            tuple(int(name[-1]) for name, value in c.items() if "crippled" in name and value == 1)
            for c in task_sets(id).split(split)
        }

    cheetah = "sami/CrippledHalfCheetah-v0"
    assert dead(cheetah, "train") == {(3,), (4,), (5,)}
    assert dead(cheetah, "moderate") == {(0,), (1,), (2,)}
    assert dead(cheetah, "extreme") == {(b, f) for b in (0, 1, 2) for f in (3, 4, 5)}
    hopper = "sami/CrippledHopper-v0"
    assert dead(hopper, "train") == dead(hopper, "moderate") == {()}
    assert dead(hopper, "extreme") == {(0,), (1,), (2,)}


def test_motors_are_numbered_as_documented() -> None:
    cheetah, hopper = make(IDS[3]).model, make(IDS[1]).model
    names = [cheetah.actuator(i).name for i in range(6)]
    assert names == ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    joints = [hopper.joint(hopper.actuator_trnid[i, 0]).name for i in range(3)]
    assert joints == ["thigh_joint", "leg_joint", "foot_joint"]


@EVERY_BODY
def test_scales_of_harder_sets_lie_outside_the_training_range(id: str) -> None:
    sets = task_sets(id)
    for name in ("mass", "damping"):
        train = [context.get(name, 1.0) for context in sets.train]
        low, high = min(train), max(train)
        if low == high:
            continue  # this body varies its joints instead
        for context in sets.moderate:
            assert not low <= context[name] <= high
    with pytest.raises(ContextError, match="split"):
        sets.split("test")


# Pictures


@EVERY_BODY
def test_render(id: str, can_draw: None) -> None:
    env = gym.make(id, render_mode="rgb_array", width=160, height=90)
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (90, 160, 3) and picture.dtype == np.uint8
    assert picture.std() > 10  # not blank
    env.close()


def test_pictures_are_wide_by_default(can_draw: None) -> None:
    env = gym.make("sami/HalfCheetah-v0", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (270, 480, 3)
    env.close()


@CRIPPLED
def test_crippled_limbs_are_drawn_in_another_colour(id: str, can_draw: None) -> None:
    env = gym.make(id, render_mode="rgb_array", width=240, height=135)

    def blue() -> int:
        """How many pixels are clearly more blue than red."""
        picture = env.render().astype(int)
        return int((picture[..., 2] - picture[..., 0] > 40).sum())

    env.reset(seed=0, options={"context": {}})
    assert blue() == 0
    env.reset(seed=0, options={"context": {"crippled_1": 1}})
    assert blue() > 20
    env.close()


def test_making_an_environment_prints_nothing() -> None:
    code = "import gymnasium, sami_tutorial; gymnasium.make('sami/HalfCheetah-v0').reset()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    ("variables", "platform", "libraries", "expected"),
    [
        ({}, "linux", ("EGL", "OSMesa"), "egl"),
        ({}, "linux", ("OSMesa",), "osmesa"),
        ({}, "linux", (), None),
        ({"DISPLAY": ":0"}, "linux", ("EGL",), None),
        ({"MUJOCO_GL": "osmesa"}, "linux", ("EGL",), None),
        ({}, "darwin", ("EGL",), None),
    ],
)
def test_the_renderer_is_chosen_by_what_the_computer_has(
    variables: dict, platform: str, libraries: tuple, expected: str | None
) -> None:
    found = choose_backend(variables, platform, lambda name: name if name in libraries else None)
    assert found == expected


def test_a_renderer_that_the_user_chose_stays() -> None:
    code = "import os, sami_tutorial.envs.headless; print(os.environ['MUJOCO_GL'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "osmesa"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "osmesa"
