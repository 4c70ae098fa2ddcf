"""Gymnasium's MuJoCo bodies with a context: masses, dampings and motors vary between episodes.

A body is a class with its model, its first states, its observation and its reward; the context is
handled once, for all of them. There is no termination: an episode ends at the step limit only, by
truncation (``Task.max_episode_steps``). Actions are motor controls in [-1, 1].

The environments are those of the paper (section 5 and appendix) on Gymnasium's own models.
Chapter 1, *Tasks and skills*, shows them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sami_tutorial.envs import mujoco_tasks
from sami_tutorial.envs.context import ContextSampler
from sami_tutorial.envs.mujoco_body import Array, Body, ContextModel, Motion, nominal_model

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
    official code), ``damping`` that of every joint. ``crippled_<i>`` = 1 disconnects motor ``i``:
    its control is zero, costs nothing, and the limb it drives is drawn blue.

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
        self._context_model = ContextModel(model)
        return self._context_model.model, mujoco.MjData(model)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        gym.Env.reset(self, seed=seed)  # seeds np_random, from which the context is drawn
        self._set_context(self._sampler.from_options(options, self.np_random))
        return super().reset(options=options)

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
        control = control * self._context_model.motor_power
        effort = float(np.vecdot(control, control))
        if not math.isfinite(effort):
            raise ValueError(f"action is {action}; give finite numbers from -1 to 1")

        data = self.data
        data.ctrl[:] = control
        # The contact solver starts cold at every step, so that what follows depends on position,
        # velocity and action alone.
        data.qacc_warmstart[:] = 0.0
        x_before = float(data.qpos[0])
        mujoco.mj_step(self.model, data, self.physics_steps)
        x_velocity = (float(data.qpos[0]) - x_before) / self._step_seconds
        if self.render_mode == "human":
            self.render()
        motion = self._motion(x_velocity, effort)
        return self.observe(motion), float(self.reward(motion)), False, False, self._info()

    def _motion(self, x_velocity: float, effort: float) -> Motion:
        data = self.data
        return Motion(data.qpos, data.qvel, np.array(x_velocity), np.array(effort))

    def _get_reset_info(self) -> dict[str, Any]:
        return self._info()

    def _info(self) -> dict[str, Any]:
        return {"context": self._context.copy()}


class HalfCheetahEnv(ContextualMujocoEnv):
    """A two-legged runner in the plane: reward v_x - 0.1 |a|^2.

    v_x is the displacement of the torso during the step divided by the step's 0.05 s (0 at reset).
    Observation (18): v_x, joint positions without x (8: m, rad), joint velocities (9: m/s, rad/s).
    """

    task = mujoco_tasks.HALF_CHEETAH
    xml_file = "half_cheetah.xml"
    physics_steps = 5
    observation_size = 18
    control_cost = 0.1
    alive_bonus = 0.0
    camera = _side_view(distance=3.2, elevation=-12.0)
    metadata = _metadata(render_fps=20)

    @staticmethod
    def first_state(generator: np.random.Generator, qpos: Array, nv: int) -> tuple[Array, Array]:
        noise = generator.uniform(-0.1, 0.1, len(qpos))
        return qpos + noise, 0.1 * generator.standard_normal(nv)

    @staticmethod
    def observe(motion: Motion) -> Array:
        x_velocity = motion.x_velocity[..., np.newaxis]
        return np.concatenate((x_velocity, motion.qpos[..., 1:], motion.qvel), axis=-1)


class CrippledHalfCheetahEnv(HalfCheetahEnv):
    """The half-cheetah with dead motors: 0 to 2 are thigh, shin, foot behind, 3 to 5 in front."""

    task = mujoco_tasks.CRIPPLED_HALF_CHEETAH


class HopperEnv(ContextualMujocoEnv):
    """A one-legged hopper in the plane: reward v_x + 1 - 0.1 |a|^2, even when it has fallen.

    v_x is the displacement of the torso during the step divided by the step's 0.008 s.
    Observation (11): joint positions without x (5: m, rad), joint velocities (6: m/s, rad/s)
    clipped to [-10, 10].
    """

    task = mujoco_tasks.HOPPER
    xml_file = "hopper.xml"
    physics_steps = 4
    observation_size = 11
    control_cost = 0.1
    alive_bonus = 1.0
    camera = _side_view(distance=3.2, elevation=-12.0)
    metadata = _metadata(render_fps=125)

    @staticmethod
    def first_state(generator: np.random.Generator, qpos: Array, nv: int) -> tuple[Array, Array]:
        noise = generator.uniform(-0.005, 0.005, len(qpos))
        return qpos + noise, generator.uniform(-0.005, 0.005, nv)

    @staticmethod
    def observe(motion: Motion) -> Array:
        joint_velocities = np.minimum(np.maximum(motion.qvel, -10.0), 10.0)  # faster than clip
        return np.concatenate((motion.qpos[..., 1:], joint_velocities), axis=-1)


class CrippledHopperEnv(HopperEnv):
    """The hopper with dead motors (0 thigh, 1 leg, 2 foot): reward v_x + 1 - 0.001 |a|^2."""

    task = mujoco_tasks.CRIPPLED_HOPPER
    control_cost = 0.001
