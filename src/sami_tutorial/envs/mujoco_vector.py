"""Many copies of one MuJoCo body in lockstep, at nearly the speed of the bare simulator.

``make_vec`` builds them for every MuJoCo task. Each environment keeps a model of its own, since
contexts change the model; control, observation, reward and info are computed for all at once.
The physics runs in MuJoCo's batch stepper, or body by body where the reward asks for the contact
forces, which that stepper does not give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sami_tutorial.envs import mujoco
from sami_tutorial.envs.context import ContextSampler
from sami_tutorial.envs.mujoco_body import Array, Body, ContextModel, Motion, advance, nominal_model
from sami_tutorial.envs.vector import options_per_env, reseeded, seeds_per_env

# isort: split
from mujoco import MjData, MjModel, mj_getState, mj_setState, mj_stateSize, mjtState
from mujoco.rollout import Rollout

_STATE = mjtState.mjSTATE_FULLPHYSICS


class MujocoVectorEnv(VectorEnv):
    """``num_envs`` copies of a body, each under its own context.

    Spaces, rewards and infos are those of :class:`~sami_tutorial.envs.mujoco.ContextualMujocoEnv`,
    batched; environment ``i`` is bit-equal to a single one reset with ``seed + i``. Episodes have
    the same length, so all end together; the same step returns the first observations of the next
    ones (same-step autoreset).

    Args:
        body: which body.
        num_envs: how many, at least 1.
        seed: for the first ``reset()`` that is given none.
        split: ``"train"``, ``"moderate"``, ``"extreme"`` or ``"nominal"``.
        max_episode_steps: length of an episode; by default the task's.
        threads: how many threads share the environments. MuJoCo works on them side by side, and
            the results are the same for every number.

    Raises:
        ContextError: for an unknown split, or at reset for a context that the task does not know.
        ValueError: for a length or a number of threads that is no positive integer, and for
            actions of the wrong shape or with a value that is not finite.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self,
        body: type[Body],
        num_envs: int,
        seed: int = 0,
        split: str = "train",
        max_episode_steps: int | None = None,
        threads: int = 1,
    ):
        if max_episode_steps is None:
            max_episode_steps = body.task.max_episode_steps
        for name, value in (("max_episode_steps", max_episode_steps), ("threads", threads)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a positive integer")
        space = body.task.space
        self._body = body
        self._sampler = ContextSampler.from_split(space, body.task.task_sets, split)
        self.max_episode_steps = int(max_episode_steps)
        self.context_features = space.names
        self.num_envs = num_envs

        nominal = nominal_model(body)
        self._bodies = [ContextModel(body, nominal) for _ in range(num_envs)]
        stepper = _LoopStepper if body.feels_contacts else _RolloutStepper
        models = [each.model for each in self._bodies]
        self._advance = stepper(body, models, [MjData(nominal) for _ in range(threads)])
        self._scratch = MjData(nominal)
        self._nominal_qpos, self._nq, self._nv = nominal.qpos0, nominal.nq, nominal.nv
        self._step_seconds = nominal.opt.timestep * body.physics_steps
        # Time, positions and velocities of every body.
        self._state = np.zeros((num_envs, mj_stateSize(nominal, _STATE)))

        unbounded = np.full(body.observation_size, np.inf)
        self.single_observation_space = gym.spaces.Box(-unbounded, unbounded, dtype=np.float64)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (nominal.nu,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._first_seed: int | None = seed
        self._generators: list[np.random.Generator] = []
        self._all = np.ones(num_envs, dtype=np.bool_)
        self._no_forces = np.empty((num_envs, 0, 6))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        seeds = seeds_per_env(self._first_seed if seed is None else seed, self.num_envs)
        self._first_seed = None
        self._generators = reseeded(self._generators, seeds)
        return self._start(options_per_env(options, self.num_envs))

    def _start(self, options: Sequence[Mapping[str, Any] | None]) -> tuple[Array, dict[str, Any]]:
        """Begins an episode everywhere."""
        space = self._body.task.space
        self._state[:] = 0.0
        contexts = []
        for i, (each, generator) in enumerate(zip(self._bodies, self._generators, strict=True)):
            context = self._sampler.from_options(options[i], generator)
            each.set_context(space.as_dict(context), self._scratch)
            first = self._body.first_state(generator, self._nominal_qpos, self._nv)
            self._state[i, 1:] = np.concatenate(first)
            contexts.append(context)
        self._context = np.array(contexts, dtype=np.float32)
        self._motor_power = np.array([each.motor_power for each in self._bodies])
        self._steps = 0
        still = np.zeros(self.num_envs)
        motion = self._motion(x_velocity=still, effort=still, contact_forces=self._no_forces)
        return self._body.observe(motion), self._info()

    def step(
        self, actions: NDArray[np.floating]
    ) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        if not self._generators:
            raise ResetNeeded("call reset() before step()")
        control = np.asarray(actions, dtype=np.float64)
        if control.shape != self._motor_power.shape:
            raise ValueError(
                f"actions have shape {control.shape}; give one row of motors per environment, "
                f"shape {self._motor_power.shape}"
            )
        finite = np.isfinite(control)
        if not finite.all():
            i = np.flatnonzero(~finite.all(axis=1))[0]
            raise ValueError(f"actions[{i}] is {actions[i]}; give finite numbers from -1 to 1")
        # As MuJoCo does it: what never reaches a motor costs nothing.
        control = np.minimum(np.maximum(control, -1.0), 1.0) * self._motor_power
        effort = np.vecdot(control, control)

        x_before = self._state[:, 1]
        self._state, contact_forces = self._advance(self._state, control)
        x_velocity = (self._state[:, 1] - x_before) / self._step_seconds
        self._steps += 1

        motion = self._motion(x_velocity, effort, contact_forces)
        observations, rewards = self._body.observe(motion), self._body.reward(motion)
        never = np.zeros(self.num_envs, dtype=np.bool_)
        info = self._info()
        if self._steps < self.max_episode_steps:
            return observations, rewards, never, never.copy(), info

        final_obs = np.empty(self.num_envs, dtype=object)
        final_obs[:] = list(observations)
        observations, new_info = self._start([None] * self.num_envs)
        new_info |= {"final_obs": final_obs, "_final_obs": self._all.copy()}
        new_info |= {"final_info": info, "_final_info": self._all.copy()}
        return observations, rewards, never, self._all.copy(), new_info

    def _motion(self, x_velocity: Array, effort: Array, contact_forces: Array) -> Motion:
        start = 1 + self._nq
        qpos, qvel = self._state[:, 1:start], self._state[:, start:]
        return Motion(qpos, qvel, x_velocity, effort, contact_forces)

    def _info(self) -> dict[str, Any]:
        """Gymnasium's form: beside each entry, which environments it holds for (here: all)."""
        return {"context": self._context.copy(), "_context": self._all.copy()}


class _RolloutStepper:
    """Steps all bodies by MuJoCo's batch stepper, out of which come positions and velocities only.

    Args:
        body: which body.
        models: one for each environment.
        datas: where MuJoCo computes, one for each thread.
    """

    def __init__(self, body: type[Body], models: list[MjModel], datas: list[MjData]):
        self._models, self._datas, self._physics_steps = models, datas, body.physics_steps
        self._rollout = Rollout(nthread=len(datas) if len(datas) > 1 else 0)
        shape = len(models), body.physics_steps
        self._control = np.empty((*shape, models[0].nu))
        self._states = np.empty((*shape, mj_stateSize(models[0], _STATE)))
        self._no_forces = np.empty((len(models), 0, 6))

    def __call__(self, state: Array, control: Array) -> tuple[Array, Array]:
        """The states that follow, (num_envs, 1 + nq + nv), and no forces, (num_envs, 0, 6)."""
        self._control[:] = control[:, np.newaxis]
        # Without a warm start given, the solver starts cold, as in mujoco_body.advance.
        self._rollout.rollout(
            self._models,
            self._datas,
            state,
            self._control,
            nstep=self._physics_steps,
            state=self._states,
            skip_checks=True,
        )
        return self._states[:, -1].copy(), self._no_forces


class _LoopStepper:
    """Steps one body after the other, for the contact forces. Arguments as above."""

    def __init__(self, body: type[Body], models: list[MjModel], datas: list[MjData]):
        self._body, self._models, self._datas = body, models, datas
        bounds = np.linspace(0, len(models), len(datas) + 1).astype(int)
        self._shares = [range(*pair) for pair in pairwise(bounds)]
        self._pool = ThreadPoolExecutor(len(datas)) if len(datas) > 1 else None

    def __call__(self, state: Array, control: Array) -> tuple[Array, Array]:
        """The states that follow, (num_envs, 1 + nq + nv), and the forces, (num_envs, links, 6)."""
        states = np.empty_like(state)
        forces = np.empty((len(state), *self._datas[0].cfrc_ext.shape))

        def advance_share(share: range, data: MjData) -> None:
            for i in share:
                mj_setState(self._models[i], data, state[i], _STATE)
                advance(self._body, self._models[i], data, control[i])
                mj_getState(self._models[i], data, states[i], _STATE)
                forces[i] = data.cfrc_ext

        run = map if self._pool is None else self._pool.map
        list(run(advance_share, self._shares, self._datas))
        return states, forces


HopperVectorEnv = partial(MujocoVectorEnv, mujoco.HopperEnv)
CrippledHopperVectorEnv = partial(MujocoVectorEnv, mujoco.CrippledHopperEnv)
HalfCheetahVectorEnv = partial(MujocoVectorEnv, mujoco.HalfCheetahEnv)
CrippledHalfCheetahVectorEnv = partial(MujocoVectorEnv, mujoco.CrippledHalfCheetahEnv)
AntVectorEnv = partial(MujocoVectorEnv, mujoco.AntEnv)
CrippledAntVectorEnv = partial(MujocoVectorEnv, mujoco.CrippledAntEnv)
WalkerVectorEnv = partial(MujocoVectorEnv, mujoco.WalkerEnv)
CrippledWalkerVectorEnv = partial(MujocoVectorEnv, mujoco.CrippledWalkerEnv)
SlimHumanoidVectorEnv = partial(MujocoVectorEnv, mujoco.SlimHumanoidEnv)
HumanoidStandupVectorEnv = partial(MujocoVectorEnv, mujoco.HumanoidStandupEnv)
