"""Gymnasium's MuJoCo bodies with a context: masses, dampings and motors vary between episodes.

A body is a class with its model, its first states, its observation and its reward; the context is
handled once, for all of them. There is no termination: an episode ends at the step limit only, by
truncation (``Task.max_episode_steps``). Actions are motor controls in [-1, 1]. The formulas write
``a`` for the control that reaches the motors, v_x for the displacement of the trunk along x during
a step divided by the step's duration (0 at reset), and F for the torques and forces (N m, N) of
contacts on the links as MuJoCo gives them (``cfrc_ext``, six numbers a link).

The environments are those of the paper (section 5 and appendix) on Gymnasium's own models.
Chapter 1, *Tasks and skills*, shows them.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sami_tutorial.envs import mujoco_tasks
from sami_tutorial.envs.context import ContextSampler
from sami_tutorial.envs.headless import advice
from sami_tutorial.envs.mujoco_body import (
    Array,
    Body,
    ContextModel,
    Motion,
    advance,
    nominal_model,
)

# isort: split
import mujoco
from gymnasium.envs.mujoco import MujocoEnv


def _side_view(distance: float, elevation: float) -> dict[str, Any]:
    """A camera beside the body that moves along with it; metres and degrees."""
    return {
        "type": mujoco.mjtCamera.mjCAMERA_TRACKING,
        "trackbodyid": 1,
        "distance": distance,
        "elevation": elevation,
        "azimuth": 90.0,
    }


def _metadata(render_fps: int) -> dict[str, Any]:
    """What Gymnasium asks of an environment that can be drawn: modes, and real time in frames/s."""
    modes = ["human", "rgb_array", "depth_array", "rgbd_tuple"]
    return {"render_modes": modes, "render_fps": render_fps}


class ContextualMujocoEnv(Body, MujocoEnv):
    """A MuJoCo body whose dynamics are set anew at every reset.

    ``mass`` multiplies the mass of every link (not its rotational inertia, as in the paper's
    official code), ``damping`` that of every joint. ``crippled_<i>`` = 1 disconnects the motors of
    limb ``i``: their control is zero, costs nothing, and what they drive is drawn blue. An action
    outside [-1, 1] does and costs what the nearest one inside does.

    Args:
        split: the task set from which each reset draws a context: ``"train"``, ``"moderate"``,
            ``"extreme"`` or ``"nominal"``.
        **kwargs: options of ``gymnasium.envs.mujoco.MujocoEnv`` such as ``render_mode``; pictures
            are 480 by 270 pixels unless ``width`` and ``height`` say otherwise.

    ``reset(options={"context": {...}})`` fixes the context of the episode; ``info["context"]``
    (float32, in the order of ``context_features``) reports it on reset and on every step.

    Raises:
        ContextError: for an unknown split, an unknown feature or a value out of range.
        ValueError: for an action of the wrong shape or with a value that is not finite.
    """

    camera: ClassVar[dict[str, Any]]

    def __init__(self, split: str = "train", **kwargs: Any):
        space = self.task.space
        self._sampler = ContextSampler.from_split(space, self.task.task_sets, split)
        self.context_features: tuple[str, ...] = space.names
        super().__init__(
            self.xml_file,
            self.physics_steps,
            gym.spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float64),
            **{"default_camera_config": self.camera, "width": 480, "height": 270, **kwargs},
        )
        self._set_context(space.vector({}))
        self._step_seconds = self.dt

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = nominal_model(type(self))
        screen = model.vis.global_
        screen.offwidth = max(screen.offwidth, self.width)
        screen.offheight = max(screen.offheight, self.height)
        self._context_model = ContextModel(type(self), model)
        return self._context_model.model, mujoco.MjData(model)

    def _set_action_space(self) -> gym.spaces.Box:
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)
        return self.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        gym.Env.reset(self, seed=seed)  # seeds np_random, from which the context is drawn
        self._set_context(self._sampler.from_options(options, self.np_random))
        return super().reset(options=options)

    def render(self) -> Any:
        """The picture, as ``render_mode`` asks.

        Raises:
            RuntimeError: if this computer has nothing to draw with; it says what to do.
        """
        try:
            return super().render()
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
            # What a missing library raises depends on which one is missing.
            raise RuntimeError(f"{advice(os.environ)} ({error})") from error

    def _set_context(self, vector: Array) -> None:
        self._context_model.set_context(self.task.space.as_dict(vector), self.data)
        self._context = vector.astype(np.float32)

    def reset_model(self) -> Array:
        self.set_state(*self.first_state(self.np_random, self.init_qpos, self.model.nv))
        return self.observe(self._motion(x_velocity=0.0, effort=0.0))

    # The base class declares an info of plain numbers; ours carries the context, an array.
    def step(  # type: ignore[override]
        self, action: NDArray[np.floating]
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        control = np.asarray(action, dtype=np.float64)
        if control.shape != (self.model.nu,):
            raise ValueError(
                f"action has shape {control.shape}; give one number per motor, "
                f"shape {(self.model.nu,)}"
            )
        if not np.isfinite(control).all():
            raise ValueError(f"action is {action}; give finite numbers from -1 to 1")
        # As MuJoCo does it: what never reaches a motor costs nothing.
        control = np.minimum(np.maximum(control, -1.0), 1.0) * self._context_model.motor_power
        effort = float(np.vecdot(control, control))

        x_before = float(self.data.qpos[0])
        advance(type(self), self.model, self.data, control)
        x_velocity = (float(self.data.qpos[0]) - x_before) / self._step_seconds
        if self.render_mode == "human":
            self.render()
        motion = self._motion(x_velocity, effort)
        return self.observe(motion), float(self.reward(motion)), False, False, self._info()

    def _motion(self, x_velocity: float, effort: float) -> Motion:
        data = self.data
        forces = data.cfrc_ext if self.feels_contacts else np.empty((0, 6))
        return Motion(data.qpos, data.qvel, np.array(x_velocity), np.array(effort), forces)

    def _get_reset_info(self) -> dict[str, Any]:
        return self._info()

    def _info(self) -> dict[str, Any]:
        return {"context": self._context.copy()}


def _with_normal_velocities(
    generator: np.random.Generator, qpos: Array, nv: int
) -> tuple[Array, Array]:
    """First states of Gymnasium's half-cheetah and ant: velocities from a normal distribution."""
    noise = generator.uniform(-0.1, 0.1, len(qpos))
    return qpos + noise, 0.1 * generator.standard_normal(nv)


class HalfCheetahEnv(ContextualMujocoEnv):
    """A two-legged runner in the plane: reward v_x - 0.1 |a|^2.

    A step lasts 0.05 s. Observation (18): v_x, joint positions without x (8: m, rad), joint
    velocities (9: m/s, rad/s).
    """

    task = mujoco_tasks.HALF_CHEETAH
    xml_file = "half_cheetah.xml"
    physics_steps = 5
    observation_size = 18
    control_cost = 0.1
    alive_bonus = 0.0
    camera = _side_view(distance=3.2, elevation=-12.0)
    metadata = _metadata(render_fps=20)
    first_state = staticmethod(_with_normal_velocities)

    @staticmethod
    def observe(motion: Motion) -> Array:
        x_velocity = motion.x_velocity[..., np.newaxis]
        return np.concatenate((x_velocity, motion.qpos[..., 1:], motion.qvel), axis=-1)


class CrippledHalfCheetahEnv(HalfCheetahEnv):
    """The half-cheetah with dead motors: 0 to 2 are thigh, shin, foot behind, 3 to 5 in front."""

    task = mujoco_tasks.CRIPPLED_HALF_CHEETAH
    limbs = tuple((motor,) for motor in range(6))


class HopperEnv(ContextualMujocoEnv):
    """A one-legged hopper in the plane: reward v_x + 1 - 0.1 |a|^2, even when it has fallen.

    A step lasts 0.008 s. Observation (11): joint positions without x (5: m, rad), joint velocities
    (6: m/s, rad/s) clipped to [-10, 10].
    """

    task = mujoco_tasks.HOPPER
    xml_file = "hopper.xml"
    physics_steps = 4
    observation_size = 11
    control_cost = 0.1
    alive_bonus = 1.0
    reset_noise = 0.005
    camera = _side_view(distance=3.2, elevation=-12.0)
    metadata = _metadata(render_fps=125)

    @staticmethod
    def observe(motion: Motion) -> Array:
        joint_velocities = np.minimum(np.maximum(motion.qvel, -10.0), 10.0)  # faster than clip
        return np.concatenate((motion.qpos[..., 1:], joint_velocities), axis=-1)


class CrippledHopperEnv(HopperEnv):
    """The hopper with dead motors (0 thigh, 1 leg, 2 foot): reward v_x + 1 - 0.001 |a|^2."""

    task = mujoco_tasks.CRIPPLED_HOPPER
    control_cost = 0.001
    limbs = tuple((motor,) for motor in range(3))


class WalkerEnv(HopperEnv):
    """A two-legged walker in the plane: reward v_x + 1 - 0.001 |a|^2, even when it has fallen.

    The model is that of the paper's code, whose left foot holds the floor better than its right
    one; Gymnasium's newest walker has made them alike. A step lasts 0.008 s. Observation (17):
    joint positions without x (8: m, rad), joint velocities (9: m/s, rad/s) clipped to [-10, 10].
    """

    task = mujoco_tasks.WALKER
    xml_file = "walker2d.xml"
    observation_size = 17
    control_cost = 0.001


class CrippledWalkerEnv(WalkerEnv):
    """The walker with dead motors: 0 to 2 are thigh, leg, foot on the right, 3 to 5 on the left.

    Dead limbs keep their shape. (Not so in parts of the paper's code, which shrinks them.)
    """

    task = mujoco_tasks.CRIPPLED_WALKER
    limbs = tuple((motor,) for motor in range(6))


class AntEnv(ContextualMujocoEnv):
    """A four-legged walker: reward v_x + 1 - 0.01 |a|^2 - 0.5 |clip(F, -1, 1)|^2.

    A step lasts 0.05 s. The ant needs no posture to be rewarded. The price of contacts is that of
    the paper's formula, a thousand times Gymnasium's: standing on four feet costs more than the
    ant can earn by standing. Observation (28): v_x, position without x and y (13: height in m,
    orientation as a quaternion, eight joint angles in rad), velocities (14: m/s, rad/s).
    """

    task = mujoco_tasks.ANT
    xml_file = "ant.xml"
    physics_steps = 5
    observation_size = 28
    control_cost = 0.01
    alive_bonus = 1.0
    feels_contacts = True
    camera = _side_view(distance=3.8, elevation=-25.0)
    metadata = _metadata(render_fps=20)
    first_state = staticmethod(_with_normal_velocities)

    @staticmethod
    def observe(motion: Motion) -> Array:
        x_velocity = motion.x_velocity[..., np.newaxis]
        return np.concatenate((x_velocity, motion.qpos[..., 2:], motion.qvel), axis=-1)

    @classmethod
    def reward(cls, motion: Motion) -> Array:
        clipped = _per_body(np.clip(motion.contact_forces, -1.0, 1.0))
        return super().reward(motion) - 0.5 * np.vecdot(clipped, clipped)


class CrippledAntEnv(AntEnv):
    """The ant with dead legs: 0 ahead left, 1 behind left, 2 behind right, 3 ahead right.

    Ahead is x, where the reward leads (the names of the model's parts look towards y). Both motors
    of a dead leg are disconnected and its two links shrink to half, as in the paper's code: the
    lower from the knee, the upper around its middle. Masses stay. Observation (41): position (15),
    velocities (14), rotation matrix of the torso by rows (9) and its centre (3: m).
    """

    task = mujoco_tasks.CRIPPLED_ANT
    observation_size = 41
    limbs = ((2, 3), (4, 5), (6, 7), (0, 1))  # hip and ankle

    @staticmethod
    def observe(motion: Motion) -> Array:
        qpos = motion.qpos
        rotation = _rotation_matrix(qpos[..., 3:7])
        return np.concatenate((qpos, motion.qvel, rotation, qpos[..., :3]), axis=-1)

    @staticmethod
    def deform(model: mujoco.MjModel, links: NDArray[np.integer], weakness: float) -> None:
        upper, lower = (np.flatnonzero(model.geom_bodyid == link) for link in links)
        share = 1.0 - 0.5 * weakness
        model.geom_size[upper] *= share
        model.geom_size[lower] *= share
        model.geom_pos[lower] *= share  # measured from the knee


class SlimHumanoidEnv(ContextualMujocoEnv):
    """A humanoid that starts on its back: reward (0.25 / 0.015) v - 0.1 |a|^2 + 5 [1 <= z <= 2].

    v is the velocity of the torso along x after the step (m/s), z its height (m); the last term
    counts while the humanoid stands. A step lasts 0.015 s. The motors take controls up to 0.4, so
    an action of 1 gives 0.4. Observation (45): position without x and y (22: height in m,
    orientation as a quaternion, 17 joint angles in rad), velocities (23: m/s, rad/s).
    """

    task = mujoco_tasks.SLIM_HUMANOID
    xml_file = "humanoidstandup.xml"
    physics_steps = 5
    observation_size = 45
    control_cost = 0.1
    alive_bonus = 5.0
    reset_noise = 0.01
    camera = _side_view(distance=3.2, elevation=-20.0)
    metadata = _metadata(render_fps=67)

    @staticmethod
    def observe(motion: Motion) -> Array:
        return np.concatenate((motion.qpos[..., 2:], motion.qvel), axis=-1)

    @classmethod
    def reward(cls, motion: Motion) -> Array:
        height = motion.qpos[..., 2]
        standing = (height >= 1.0) & (height <= 2.0)
        progress = (0.25 / 0.015) * motion.qvel[..., 0]
        return progress - cls.control_cost * motion.effort + cls.alive_bonus * standing


class HumanoidStandupEnv(SlimHumanoidEnv):
    """The humanoid that is to stand up: reward z / 0.003 - 0.1 |a|^2 - min(5e-7 |F|^2, 10) + 1.

    z is the height of the torso after the step (m). The rest is as for :class:`SlimHumanoidEnv`.
    """

    task = mujoco_tasks.HUMANOID_STANDUP
    alive_bonus = 1.0
    feels_contacts = True

    @classmethod
    def reward(cls, motion: Motion) -> Array:
        forces = _per_body(motion.contact_forces)
        impact = np.minimum(5e-7 * np.vecdot(forces, forces), 10.0)
        rise = motion.qpos[..., 2] / 0.003
        return rise - cls.control_cost * motion.effort - impact + cls.alive_bonus


def _per_body(forces: Array) -> Array:
    """The forces on all links of a body in one row, shape (..., 6 links)."""
    return forces.reshape(*forces.shape[:-2], -1)


def _rotation_matrix(quaternion: Array) -> Array:
    """Rotation matrices by rows, shape (..., 9), of quaternions (..., 4) of any length."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0) / np.sqrt(np.vecdot(quaternion, quaternion))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([entry for row in rows for entry in row], axis=-1)
