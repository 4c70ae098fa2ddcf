"""Gymnasium's MuJoCo bodies with a context: masses, dampings and motors vary between episodes.

The context is handled once, in :class:`ContextualMujocoEnv`; a body adds its model, its reset
noise, its observation and its reward. There is no termination: an episode ends at the step limit
only, by truncation (``Task.max_episode_steps``). Actions are motor controls in [-1, 1].

The environments are those of the paper (section 5 and appendix) on Gymnasium's own models.
Chapter 1, *Tasks and skills*, shows them.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sami_tutorial.envs import headless, mujoco_tasks  # noqa: F401  (headless comes before mujoco)
from sami_tutorial.envs.context import ContextSampler, Task

# isort: split
import mujoco
from gymnasium.envs.mujoco import MujocoEnv

Array = NDArray[np.float64]

_DEAD_LIMB = (0.1, 0.45, 1.0, 1.0)  # blue against the bodies' orange, for every kind of eye


_STATISTICS = ("extent", "meaninertia", "meanmass", "meansize")  # some depend on the masses


def _array_names(model: mujoco.MjModel) -> list[str]:
    """Every array of a model that can be written.

    All of them, because from the masses MuJoCo derives more than one would list by heart, down to
    where the cameras hang. Only the pictures are left out: they are large and never change.
    """
    arrays = {name: getattr(model, name) for name in dir(model) if name != "tex_data"}
    return [
        name
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.flags.writeable and array.size > 0
    ]


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


class ContextualMujocoEnv(MujocoEnv):
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

    # A body sets these, and the methods at the end of the class.
    task: ClassVar[Task]
    xml_file: ClassVar[str]  # in gymnasium/envs/mujoco/assets
    physics_steps: ClassVar[int]  # per environment step
    observation_size: ClassVar[int]
    control_cost: ClassVar[float]  # reward lost per unit of squared action
    alive_bonus: ClassVar[float]  # reward of every step
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
        self._nominal_model = copy.copy(self.model)
        self._array_names = _array_names(self.model)
        self._set_context(space.vector({}))
        self._step_seconds = self.dt

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        with warnings.catch_warnings():
            # Of no use to our readers: an attribute in Gymnasium's half_cheetah.xml is deprecated.
            warnings.filterwarnings("ignore", message=".*settotalmass")
            model = mujoco.MjSpec.from_file(self.fullpath).compile()
        # Looks only: a pale floor without mirror images or shadows shows the body best and renders
        # many times faster in software.
        model.mat_reflectance[:] = 0.0
        model.light_castshadow[:] = False
        np.maximum(model.tex_data, 180, out=model.tex_data)
        screen = model.vis.global_
        screen.offwidth = max(screen.offwidth, self.width)
        screen.offheight = max(screen.offheight, self.height)
        return model, mujoco.MjData(model)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        gym.Env.reset(self, seed=seed)  # seeds np_random, from which the context is drawn
        self._set_context(self._sampler.from_options(options, self.np_random))
        return super().reset(options=options)

    def reset_model(self) -> Array:
        self.set_state(*self._initial_state())
        return self._observe(x_velocity=0.0)

    # The base class declares an info of plain numbers; ours carries the context, an array.
    def step(  # type: ignore[override]
        self, action: NDArray[np.floating]
    ) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        control = np.asarray(action, dtype=np.float64)
        if control.shape != self._motor_power.shape:
            raise ValueError(
                f"action has shape {control.shape}; give one number per motor, "
                f"shape {self._motor_power.shape}"
            )
        control = control * self._motor_power
        effort = float(control @ control)
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
        reward = self._reward(x_velocity, effort)
        return self._observe(x_velocity), reward, False, False, self._info()

    def _get_reset_info(self) -> dict[str, Any]:
        return self._info()

    def _info(self) -> dict[str, Any]:
        return {"context": self._context.copy()}

    def _set_context(self, vector: Array) -> None:
        """Scales the nominal model, never the model that the last episode left behind."""
        context = self.task.space.as_dict(vector)
        model, nominal = self.model, self._nominal_model
        for name in self._array_names:
            getattr(model, name)[...] = getattr(nominal, name)
        for name in _STATISTICS:
            setattr(model.stat, name, getattr(nominal.stat, name))

        model.body_mass *= context["mass"]
        model.dof_damping *= context["damping"]
        if context["mass"] != 1.0:
            mujoco.mj_setConst(model, self.data)

        crippled = np.array([context.get(f"crippled_{i}", 0.0) for i in range(model.nu)])
        self._motor_power = 1.0 - crippled
        for motor in np.flatnonzero(crippled):
            limb = model.jnt_bodyid[model.actuator_trnid[motor, 0]]
            model.geom_rgba[model.geom_bodyid == limb] = _DEAD_LIMB
        self._context = vector.astype(np.float32)

    def _initial_state(self) -> tuple[Array, Array]:
        """Position (nq,) and velocity (nv,) to start an episode from, drawn with ``np_random``."""
        raise NotImplementedError

    def _observe(self, x_velocity: float) -> Array:
        """What the agent sees, shape (observation_size,)."""
        raise NotImplementedError

    def _reward(self, x_velocity: float, effort: float) -> float:
        """The reward of a step with mean forward velocity in m/s and squared control ``effort``."""
        return x_velocity + self.alive_bonus - self.control_cost * effort


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

    def _initial_state(self) -> tuple[Array, Array]:
        position_noise = self.np_random.uniform(-0.1, 0.1, self.model.nq)
        velocity_noise = 0.1 * self.np_random.standard_normal(self.model.nv)
        return self.init_qpos + position_noise, self.init_qvel + velocity_noise

    def _observe(self, x_velocity: float) -> Array:
        return np.concatenate(([x_velocity], self.data.qpos[1:], self.data.qvel))


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

    def _initial_state(self) -> tuple[Array, Array]:
        position_noise = self.np_random.uniform(-0.005, 0.005, self.model.nq)
        velocity_noise = self.np_random.uniform(-0.005, 0.005, self.model.nv)
        return self.init_qpos + position_noise, self.init_qvel + velocity_noise

    def _observe(self, x_velocity: float) -> Array:
        return np.concatenate((self.data.qpos[1:], np.clip(self.data.qvel, -10.0, 10.0)))


class CrippledHopperEnv(HopperEnv):
    """The hopper with dead motors (0 thigh, 1 leg, 2 foot): reward v_x + 1 - 0.001 |a|^2."""

    task = mujoco_tasks.CRIPPLED_HOPPER
    control_cost = 0.001
