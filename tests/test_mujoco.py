"""The MuJoCo bodies: physics under a context, rewards, observations, pictures."""

import copy
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
from sami_tutorial.envs.mujoco_body import Motion
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS

# isort: split
import mujoco
from gymnasium.envs.mujoco import MujocoEnv
from mujoco.rollout import rollout

IDS = [task.id for task in MUJOCO_TASKS]
EVERY_BODY = pytest.mark.parametrize("id", IDS)
CRIPPLED = pytest.mark.parametrize("id", [id for id in IDS if "Crippled" in id])
ORIGINAL = {
    "Hopper": "Hopper-v5",
    "HalfCheetah": "HalfCheetah-v5",
    "Ant": "Ant-v5",
    "Walker": "Walker2d-v5",
    "Humanoid": "HumanoidStandup-v5",
}
SIZE_AND_LIMIT = {  # width of the observation, steps of an episode
    "sami/Hopper-v0": (11, 2000),
    "sami/CrippledHopper-v0": (11, 1000),
    "sami/HalfCheetah-v0": (18, 1000),
    "sami/CrippledHalfCheetah-v0": (18, 1000),
    "sami/Ant-v0": (28, 2000),
    "sami/CrippledAnt-v0": (41, 2000),
    "sami/Walker-v0": (17, 2000),
    "sami/CrippledWalker-v0": (17, 2000),
    "sami/SlimHumanoid-v0": (45, 1000),
    "sami/HumanoidStandup-v0": (45, 2000),
}


def make(id: str, **kwargs: object) -> ContextualMujocoEnv:
    env = gym.make(id, **kwargs).unwrapped
    assert isinstance(env, ContextualMujocoEnv)
    return env


def original(id: str, **kwargs: object) -> gym.Env:
    """Gymnasium's own environment of the same body."""
    if "Walker" in id:
        kwargs["xml_file"] = "walker2d.xml"  # Gymnasium's newest walker has a stickier right foot
    return gym.make(next(own for body, own in ORIGINAL.items() if body in id), **kwargs).unwrapped


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
    actions = np.random.default_rng(3).uniform(-1, 1, (50, env.model.nu))
    for action in actions:
        before = np.concatenate([[env.data.time], env.data.qpos, env.data.qvel])
        env.step(action)
        control = np.tile(env.data.ctrl, (env.physics_steps, 1))
        after, _ = rollout(env.model, scratch, initial_state=before, control=control)
        assert np.array_equal(after[0, -1, 1:], np.append(env.data.qpos, env.data.qvel))


@CRIPPLED
def test_a_crippled_limb_gets_no_control(id: str) -> None:
    env = make(id)
    flags = [name for name in env.context_features if name.startswith("crippled")]
    assert len(env.limbs) == len(flags)
    assert sorted(motor for limb in env.limbs for motor in limb) == list(range(env.model.nu))
    for flag, limb in zip(flags, env.limbs, strict=True):
        for weakness in (1.0, 0.25):
            env.reset(seed=0, options={"context": {flag: weakness}})
            env.step(np.full(env.model.nu, 0.8))
            expected = np.full(env.model.nu, 0.8)
            expected[list(limb)] = 0.8 * (1 - weakness)
            assert np.allclose(env.data.ctrl, expected, atol=1e-15)
            assert (env.data.actuator_force[list(limb)] == 0.0).all() == (weakness == 1.0)


@CRIPPLED
def test_the_action_of_a_crippled_motor_changes_nothing(id: str) -> None:
    env, other = make(id), make(id)
    for one in (env, other):
        one.reset(seed=0, options={"context": {"crippled_0": 1}})
    for _ in range(5):
        action = np.full(env.model.nu, 0.5)
        twin = action.copy()
        twin[list(env.limbs[0])] = -1.0
        ours, theirs = env.step(action), other.step(twin)
        assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


def test_a_dead_leg_of_the_ant_shrinks_and_keeps_its_mass() -> None:
    env = make("sami/CrippledAnt-v0")
    env.reset(seed=0, options={"context": {"crippled_1": 1}})
    model, nominal = env.model, make("sami/Ant-v0", split="nominal").model
    upper, lower = (model.geom(name).id for name in ("right_leg_geom", "right_ankle_geom"))
    changed = np.flatnonzero((model.geom_size != nominal.geom_size).any(axis=1))
    assert changed.tolist() == [upper, lower]
    assert np.array_equal(model.geom_size[changed], nominal.geom_size[changed] / 2)
    # The lower link is drawn in as far as the upper reaches.
    assert np.allclose(model.geom_pos[lower], nominal.geom_pos[upper])
    assert np.array_equal(
        np.delete(model.geom_pos, lower, 0), np.delete(nominal.geom_pos, lower, 0)
    )
    assert np.array_equal(model.body_mass, nominal.body_mass)
    assert np.array_equal(model.body_inertia, nominal.body_inertia)

    env.reset(seed=0, options={"context": {"crippled_1": 0.5}})
    assert np.allclose(env.model.geom_size[changed], nominal.geom_size[changed] * 0.75)


def test_collisions_follow_the_new_shape_of_a_dead_leg() -> None:
    """MuJoCo's shortcuts to what may touch still hold the old shape; they must not miss a touch."""
    env = make("sami/CrippledAnt-v0")
    env.reset(seed=0, options={"context": {"crippled_0": 1, "crippled_2": 1}})
    model = copy.copy(env.model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    model.geom_rbound[model.geom_rbound > 0] = 10.0  # no pair is too far apart to be looked at
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = env.data.qpos, env.data.qvel
    touching = set()
    for action in np.random.default_rng(3).uniform(-1, 1, (150, model.nu)):
        env.step(action)
        data.ctrl[:] = env.data.ctrl
        data.qacc_warmstart[:] = 0.0
        mujoco.mj_step(model, data, env.physics_steps)
        assert np.array_equal(data.qpos, env.data.qpos)
        touching |= set(env.data.contact.geom.ravel().tolist())
    assert {model.geom(name).id for name in ("left_ankle_geom", "third_ankle_geom")} <= touching


# Rewards and observations, written out once more from the table of the paper


def expected_reward(id: str, v_x: float, control: np.ndarray, data: mujoco.MjData) -> float:
    squares = sum(u**2 for u in control.tolist())
    forces = data.cfrc_ext.ravel().tolist()
    if "HalfCheetah" in id:
        return v_x - 0.1 * squares
    if "Ant" in id:
        contacts = sum(min(max(f, -1.0), 1.0) ** 2 for f in forces)
        return v_x - 0.01 * squares - 0.5 * contacts + 1
    if "SlimHumanoid" in id:
        return 0.25 / 0.015 * data.qvel[0] - 0.1 * squares + 5 * (1 <= data.qpos[2] <= 2)
    if "HumanoidStandup" in id:
        impact = min(5e-7 * sum(f**2 for f in forces), 10.0)
        return data.qpos[2] / 0.003 - 0.1 * squares - impact + 1
    return v_x + 1 - (0.1 if id == "sami/Hopper-v0" else 0.001) * squares


def expected_observation(id: str, v_x: float, data: mujoco.MjData) -> list[float]:
    qpos, qvel = data.qpos.tolist(), data.qvel.tolist()
    if "HalfCheetah" in id:
        return [v_x, *qpos[1:], *qvel]
    if id == "sami/Ant-v0":
        return [v_x, *qpos[2:], *qvel]
    if "CrippledAnt" in id:
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7] / np.linalg.norm(data.qpos[3:7]))
        return [*qpos, *qvel, *rotation.tolist(), *qpos[:3]]
    if "Humanoid" in id:
        return [*qpos[2:], *qvel]
    return [*qpos[1:], *(min(max(v, -10.0), 10.0) for v in qvel)]


@EVERY_BODY
@pytest.mark.parametrize("split", ["train", "extreme"])
def test_rewards_and_observations_equal_the_formulas(id: str, split: str) -> None:
    """Against MuJoCo itself, stepped here, and the formulas above in plain Python."""
    env = make(id, split=split)
    model, data = env.model, mujoco.MjData(env.model)
    rng = np.random.default_rng(0)
    greatest = 0.4 if "Humanoid" in id else 1.0
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = env.data.qpos, env.data.qvel
        expected = expected_observation(id, 0.0, data)
        assert np.allclose(observation, expected, rtol=0, atol=1e-12)
        alive = np.full(model.nu, greatest)
        for name, value in zip(env.context_features, info["context"], strict=True):
            if name.startswith("crippled"):
                alive[list(env.limbs[int(name.removeprefix("crippled_"))])] *= 1 - value
        for _ in range(60):
            action = rng.uniform(-1, 1, model.nu).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            x, duration = data.qpos[0], env.physics_steps * model.opt.timestep
            data.ctrl[:] = action.astype(np.float64) * alive
            data.qacc_warmstart[:] = 0.0
            for _ in range(env.physics_steps):
                mujoco.mj_step(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            v_x = (data.qpos[0] - x) / duration
            expected = expected_reward(id, v_x, data.ctrl, data)
            assert math.isclose(reward, expected, abs_tol=1e-9)
            expected = expected_observation(id, v_x, data)
            assert np.allclose(observation, expected, rtol=0, atol=1e-9)
            assert (terminated, truncated) == (False, False)


def test_velocities_of_hopper_and_walker_are_clipped() -> None:
    for id in ("sami/Hopper-v0", "sami/Walker-v0"):
        env = make(id)
        env.reset(seed=0)
        still = np.zeros(env.model.nu)
        env.data.qvel[3:5] = 50.0, -50.0
        observation = env.step(still)[0]
        assert np.abs(env.data.qvel).max() > 10
        assert np.abs(observation[env.model.nq - 1 :]).max() == 10


def test_reward_of_the_humanoid_counts_standing_between_one_and_two_metres() -> None:
    env = make("sami/SlimHumanoid-v0")
    qpos = np.zeros((6, 24))
    qpos[:, 2] = 0.999, 1.0, 1.5, 2.0, 2.001, 0.1
    nothing = np.zeros(6)
    motion = Motion(qpos, np.zeros((6, 23)), nothing, nothing, np.empty((6, 0, 6)))
    assert env.reward(motion).tolist() == [0, 5, 5, 5, 0, 0]


NO_FALL = {"healthy_z_range": (-np.inf, np.inf)}
NO_WALKER_FALL = {**NO_FALL, "healthy_angle_range": (-np.inf, np.inf)}
SAME_REWARD = [
    ("sami/HalfCheetah-v0", {}),
    ("sami/CrippledHopper-v0", {**NO_WALKER_FALL, "healthy_state_range": (-np.inf, np.inf)}),
    ("sami/Walker-v0", NO_WALKER_FALL),
    ("sami/CrippledWalker-v0", NO_WALKER_FALL),
    ("sami/Ant-v0", {**NO_FALL, "ctrl_cost_weight": 0.01, "contact_cost_weight": 0.5}),
    ("sami/CrippledAnt-v0", {**NO_FALL, "ctrl_cost_weight": 0.01, "contact_cost_weight": 0.5}),
    ("sami/HumanoidStandup-v0", {}),
]


@pytest.mark.parametrize(("id", "options"), SAME_REWARD)
def test_the_nominal_reward_is_gymnasiums_where_the_formulas_agree(id: str, options: dict) -> None:
    ours, theirs = make(id, split="nominal"), original(id, **options)
    ours.reset(seed=4)
    theirs.reset(seed=4)
    greatest = theirs.model.actuator_ctrlrange[0, 1]
    for action in np.random.default_rng(0).uniform(-1, 1, (60, ours.model.nu)):
        x = theirs.data.qpos[0]
        theirs.data.qacc_warmstart[:] = 0.0
        reward = ours.step(action)[1]
        _, expected, _, _, info = theirs.step(action * greatest)
        assert np.array_equal(ours.data.qpos, theirs.data.qpos)
        if "Ant" in id:  # Gymnasium takes the velocity one physics step late
            expected += (theirs.data.qpos[0] - x) / theirs.dt - info["x_velocity"]
        assert math.isclose(reward, expected, rel_tol=1e-6, abs_tol=1e-6)


def test_an_ant_that_stands_still_pays_more_for_its_contacts_than_it_earns() -> None:
    env = make("sami/Ant-v0", split="nominal")
    env.reset(seed=0)
    rewards = [env.step(np.zeros(8))[1] for _ in range(100)]
    assert max(rewards[-20:]) < 0


@EVERY_BODY
def test_observation_widths_and_step_limits(id: str) -> None:
    size, limit = SIZE_AND_LIMIT[id]
    env = gym.make(id)
    assert env.observation_space.shape == (size,)
    assert env.spec is not None and env.spec.max_episode_steps == limit
    motors = 17 if "Humanoid" in id else 8 if "Ant" in id else 3 if "Hopper" in id else 6
    assert env.action_space.shape == (motors,)


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
    actions = np.random.default_rng(0).choice([-1.0, 1.0], (50, env.model.nu))
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
    ant = "sami/CrippledAnt-v0"
    assert dead(ant, "train") == dead(ant, "moderate") == {(0,), (1,), (2,), (3,)}
    assert dead(ant, "extreme") == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    walker = "sami/CrippledWalker-v0"
    assert dead(walker, "train") == {(0, 1, 2)}
    assert dead(walker, "moderate") == {(0,), (1,), (2,)}
    assert dead(walker, "extreme") == {(3, 4, 5), (3,), (4,), (5,)}


def test_motors_are_numbered_as_documented() -> None:
    def joints(id: str) -> list[list[str]]:
        env = make(id)
        return [
            [env.model.joint(env.model.actuator_trnid[motor, 0]).name for motor in limb]
            for limb in env.limbs
        ]

    cheetah = ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
    assert joints("sami/CrippledHalfCheetah-v0") == [[name] for name in cheetah]
    leg = ["thigh_joint", "leg_joint", "foot_joint"]
    assert joints("sami/CrippledHopper-v0") == [[name] for name in leg]
    left = ["thigh_left_joint", "leg_left_joint", "foot_left_joint"]
    assert joints("sami/CrippledWalker-v0") == [[name] for name in leg + left]
    assert joints("sami/CrippledAnt-v0") == [[f"hip_{i}", f"ankle_{i}"] for i in (1, 2, 3, 4)]
    model = make("sami/Ant-v0").model
    feet = [model.geom(f"aux_{i}_geom").pos[:2] > 0 for i in (1, 2, 3, 4)]  # ahead, to the left
    assert np.array(feet).tolist() == [[True, True], [False, True], [False, False], [True, False]]


@EVERY_BODY
def test_scales_of_harder_sets_lie_outside_the_training_range(id: str) -> None:
    sets = task_sets(id)
    for name in ("mass", "damping"):
        train = [context.get(name, 1.0) for context in sets.train]
        low, high = min(train), max(train)
        if low == high:
            continue  # this body varies its joints instead
        for context in sets.moderate:
            if name in context:
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


@pytest.mark.parametrize(
    "cause",
    [
        mujoco.FatalError("an OpenGL platform library has not been loaded"),
        AttributeError("'NoneType' object has no attribute 'eglQueryString'"),
        RuntimeError("no backend"),
    ],
    ids=["no screen", "no EGL", "nothing"],
)
def test_where_nothing_can_draw_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    def fail(self: MujocoEnv) -> None:
        raise cause

    monkeypatch.setattr(MujocoEnv, "render", fail)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    env = gym.make("sami/Hopper-v0", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match=r"'glfw'.*libegl1.*unset MUJOCO_GL and start") as caught:
        env.render()
    assert str(cause) in str(caught.value)
    env.close()
