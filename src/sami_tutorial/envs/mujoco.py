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
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from numpy.typing import NDArray

from sami_tutorial.envs import mujoco_tasks
from sami_tutorial.envs.context import ContextSampler, Task

Array = NDArray[np.float64]

_FEATURE_FIELDS = ("body_mass", "dof_damping")
_DERIVED_FIELDS = (
    "actuator_acc0",
    "body_invweight0",
    "body_subtreemass",
    "dof_M0",
    "dof_invweight0",
    "tendon_invweight0",
)
"""What MuJoCo computes from the masses; ``mj_setConst`` renews it."""


class ContextualMujocoEnv(MujocoEnv):
    """A MuJoCo body whose dynamics are set anew at every reset.

    Features: ``mass`` multiplies every link's mass (its inertia tensor and shape stay, as in the
    paper's experiments), ``damping`` every joint's damping, and ``crippled_<i>`` = 1 disconnects
    motor ``i``: its control is zero and costs nothing.

    Args:
        split: the task set from which each reset draws a context: ``"train"``, ``"moderate"``,
            ``"extreme"`` or ``"nominal"``.
        **kwargs: options of ``gymnasium.envs.mujoco.MujocoEnv``, e.g. ``render_mode``, ``width``.

    ``reset(options={"context": {...}})`` fixes the context of the episode; ``info["context"]``
    (float32, in the order of ``context_features``) reports it on reset and on every step.

    Raises:
        ContextError: for an unknown split, feature or value out of range.
        ValueError: for an action of the wrong shape or with a value that is not finite.
    """

    task: ClassVar[Task]
    xml_file: ClassVar[str]
    physics_steps: ClassVar[int]  # per environment step
    observation_size: ClassVar[int]
    control_cost: ClassVar[float]
    camera: ClassVar[dict[str, Any]]

    metadata: dict[str, Any] = {  # noqa: RUF012  (Gymnasium's own attribute)
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"]
    }

    def __init__(self, split: str = "train", **kwargs: Any):
        space = self.task.space
        self._sampler = ContextSampler.from_split(space, self.task.task_sets, split)
        self.context_features: tuple[str, ...] = space.names
        super().__init__(
            self.xml_file,
            self.physics_steps,
            gym.spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float64),
            **{"default_camera_config": self.camera, **kwargs},
        )
        self.metadata = {**self.metadata, "render_fps": round(1 / self.dt)}
        self._seconds = self.dt
        self._nominal_model = copy.copy(self.model)
        self._set_context(space.vector({}))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        gym.Env.reset(self, seed=seed)  # np_random must be seeded before the context is drawn
        self._set_context(self._sampler.from_options(options, self.np_random))
        return super().reset(options=options)

    def step(self, action: NDArray[np.floating]) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        control = np.asarray(action, dtype=np.float64)
        if control.shape != (self.model.nu,):
            raise ValueError(f"action has shape {control.shape}; expected ({self.model.nu},)")
        control = control * self._motor_works
        effort = float(control @ control)
        if not math.isfinite(effort):
            raise ValueError(f"action is {action}; give finite numbers from -1 to 1")

        data = self.data
        data.ctrl[:] = control
        # The solver starts cold, so that a step depends on position, velocity and action alone.
        data.qacc_warmstart[:] = 0.0
        x_before = data.qpos[0]
        mujoco.mj_step(self.model, data, self.physics_steps)
        x_velocity = float(data.qpos[0] - x_before) / self._seconds

        reward = self._reward(x_velocity) - self.control_cost * effort
        if self.render_mode == "human":
            self.render()
        return self._observation(x_velocity), reward, False, False, self._info()

    def reset_model(self) -> Array:
        position_noise, velocity_noise = self._reset_noise()
        self.set_state(self.init_qpos + position_noise, self.init_qvel + velocity_noise)
        return self._observation(x_velocity=0.0)

    def _get_reset_info(self) -> dict[str, Any]:
        return self._info()

    def _info(self) -> dict[str, Any]:
        return {"context": self._context.copy()}

    def _set_context(self, vector: Array) -> None:
        """Scales the nominal model: never the model of the previous episode."""
        context = self.task.space.as_dict(vector)
        model, nominal = self.model, self._nominal_model
        for field in (*_FEATURE_FIELDS, *_DERIVED_FIELDS):
            getattr(model, field)[...] = getattr(nominal, field)
        model.body_mass *= context["mass"]
        model.dof_damping *= context["damping"]
        if context["mass"] != 1.0:
            mujoco.mj_setConst(model, self.data)
        self._motor_works = np.array(
            [1.0 - context.get(f"crippled_{i}", 0.0) for i in range(model.nu)]
        )
        self._context = vector.astype(np.float32)

    # What a body defines.

    def _reset_noise(self) -> tuple[Array, Array]:
        """Offsets of the initial position (nq,) and velocity (nv,)."""
        raise NotImplementedError

    def _observation(self, x_velocity: float) -> Array:
        """What the agent sees, shape (observation_size,)."""
        raise NotImplementedError

    def _reward(self, x_velocity: float) -> float:
        """The reward of the step just taken, before the control cost."""
        raise NotImplementedError


class HalfCheetahEnv(ContextualMujocoEnv):
    """Run: reward v_x - 0.1 |a|^2.

    v_x is the mean forward velocity over the step in m/s: displacement of the torso divided by
    0.05 s (zero at reset). Observation (18): v_x, joint positions without x (8: m, rad), joint
    velocities (9: m/s, rad/s).
    """

    task = mujoco_tasks.HALF_CHEETAH
    xml_file = "half_cheetah.xml"
    physics_steps = 5
    observation_size = 18
    control_cost = 0.1
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0}

    def _reset_noise(self) -> tuple[Array, Array]:
        position = self.np_random.uniform(-0.1, 0.1, self.model.nq)
        return position, 0.1 * self.np_random.standard_normal(self.model.nv)

    def _observation(self, x_velocity: float) -> Array:
        return np.concatenate(([x_velocity], self.data.qpos[1:], self.data.qvel))

    def _reward(self, x_velocity: float) -> float:
        return x_velocity
