"""What a MuJoCo body is, and how a context changes its model.

The single environments (``mujoco.py``) and the batched ones (``mujoco_vector.py``) both stand on
this module, so that there is one description of every body and both follow it bit for bit.
"""

from __future__ import annotations

import copy
import warnings
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sami_tutorial.envs import headless  # noqa: F401  (headless comes before mujoco)
from sami_tutorial.envs.context import Context, Task

# isort: split
import mujoco
from gymnasium.envs.mujoco.mujoco_env import expand_model_path

Array = NDArray[np.float64]

_DEAD_LIMB = (0.1, 0.45, 1.0, 1.0)  # blue against the bodies' orange, for every kind of eye
_STATISTICS = ("extent", "meaninertia", "meanmass", "meansize")  # some depend on the masses


class Motion(NamedTuple):
    """What a step led to; every array may have leading axes ``...``, one entry per environment."""

    qpos: Array  # (..., nq) positions: m, rad
    qvel: Array  # (..., nv) velocities: m/s, rad/s
    x_velocity: Array  # (...,) displacement during the step over its duration, m/s; 0 at reset
    effort: Array  # (...,) squared norm of the control
    contact_forces: Array  # (..., links, 6) torque and force of contacts on each link: N m, N;
    # (..., 0, 6) if the body's reward does not ask for them


class Body:
    """What tells one body from another: its model, first states, observation and reward.

    Observation and reward are formulas on arrays with any leading axes and know no simulator.
    """

    task: ClassVar[Task]
    xml_file: ClassVar[str]  # in gymnasium/envs/mujoco/assets
    physics_steps: ClassVar[int]  # per environment step
    observation_size: ClassVar[int]
    control_cost: ClassVar[float]  # reward lost per unit of squared control
    alive_bonus: ClassVar[float]  # reward of every step
    reset_noise: ClassVar[float]  # of first states: half the width of a uniform distribution
    feels_contacts: ClassVar[bool] = False  # whether the reward asks for the contact forces
    limbs: ClassVar[tuple[tuple[int, ...], ...]] = ()  # the motors that crippled_<i> disconnects

    @classmethod
    def first_state(
        cls, generator: np.random.Generator, qpos: Array, nv: int
    ) -> tuple[Array, Array]:
        """Position (nq,) and velocity (nv,) at the start of an episode, around ``qpos`` at rest."""
        noise = generator.uniform(-cls.reset_noise, cls.reset_noise, len(qpos))
        return qpos + noise, generator.uniform(-cls.reset_noise, cls.reset_noise, nv)

    @staticmethod
    def observe(motion: Motion) -> Array:
        """What the agent sees, shape (..., observation_size)."""
        raise NotImplementedError

    @classmethod
    def reward(cls, motion: Motion) -> Array:
        """The reward of the step that led to ``motion``, shape (...,)."""
        return motion.x_velocity + cls.alive_bonus - cls.control_cost * motion.effort

    @staticmethod
    def deform(model: mujoco.MjModel, links: NDArray[np.integer], weakness: float) -> None:
        """What becomes of the shape of a limb, its links given from the trunk on; here: nothing.

        ``weakness`` is the value of the limb's flag: 0 sound, 1 dead.
        """


def nominal_model(body: type[Body]) -> mujoco.MjModel:
    """Gymnasium's model of a body; only its looks are this project's."""
    with warnings.catch_warnings():
        # Of no use to our readers: an attribute in Gymnasium's half_cheetah.xml is deprecated.
        warnings.filterwarnings("ignore", message=".*settotalmass")
        model = mujoco.MjSpec.from_file(expand_model_path(body.xml_file)).compile()
    # A pale floor without mirror images or shadows shows the body best and renders many times
    # faster in software.
    model.mat_reflectance[:] = 0.0
    model.light_castshadow[:] = False
    np.maximum(model.tex_data, 180, out=model.tex_data)
    return model


def _arrays(model: mujoco.MjModel) -> list[NDArray]:
    """Every array of a model that can be written, each a view into it.

    All of them, because from the masses MuJoCo derives more than one would list by heart, down to
    where the cameras hang. Only the pictures are left out: they are large and never change.
    """
    arrays = [getattr(model, name) for name in dir(model) if name != "tex_data"]
    return [
        array
        for array in arrays
        if isinstance(array, np.ndarray) and array.flags.writeable and array.size > 0
    ]


class ContextModel:
    """A copy of a body's model that a context changes.

    Args:
        body: which body.
        nominal: its unmodified model, read and never written; any number of copies may share it.
    """

    def __init__(self, body: type[Body], nominal: mujoco.MjModel):
        self.model = copy.copy(nominal)
        self.motor_power = np.zeros(nominal.nu)  # the control that an action of 1 gives
        self._body, self._nominal = body, nominal
        # Views, made once: to ask MuJoCo for an array takes longer than to write into one.
        self._arrays = list(zip(_arrays(self.model), _arrays(nominal), strict=True))

    def set_context(self, context: Context, scratch: mujoco.MjData) -> None:
        """Scales the nominal model, never the model that the last episode left behind.

        ``scratch`` is a place for MuJoCo to compute in; its state is lost.
        """
        model, nominal = self.model, self._nominal
        for array, value in self._arrays:
            array[...] = value
        for name in _STATISTICS:
            setattr(model.stat, name, getattr(nominal.stat, name))

        model.body_mass *= context["mass"]
        model.dof_damping *= context["damping"]
        if context["mass"] != 1.0:
            mujoco.mj_setConst(model, scratch)

        self.motor_power = model.actuator_ctrlrange[:, 1].copy()
        for i, motors in enumerate(self._body.limbs):
            weakness = context[f"crippled_{i}"]
            if weakness == 0.0:
                continue
            self.motor_power[list(motors)] *= 1.0 - weakness
            links = model.jnt_bodyid[model.actuator_trnid[list(motors), 0]]
            model.geom_rgba[np.isin(model.geom_bodyid, links)] = _DEAD_LIMB
            self._body.deform(model, links, weakness)


def advance(body: type[Body], model: mujoco.MjModel, data: mujoco.MjData, control: Array) -> None:
    """One environment step under a constant control, shape (nu,)."""
    data.ctrl[:] = control
    # The contact solver starts cold at every step, so that what follows depends on position,
    # velocity and action alone.
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_step(model, data, body.physics_steps)
    if body.feels_contacts:
        mujoco.mj_rnePostConstraint(model, data)  # else MuJoCo leaves data.cfrc_ext empty
