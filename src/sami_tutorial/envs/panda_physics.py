"""The simulation behind the Panda task: an arm, a table and a cube in PyBullet.

Scene, controller and numbers are those of panda-gym 3 (Gallouédec et al., 2021, arXiv 2106.13687),
so that the same actions give the same trajectories, to the last bit. What is left out is work that
no trajectory depends on: meshes that are only looked at, reading one number of the state at a time,
and a call from Python for each of the 20 physics steps in an environment step. Most of the time
goes into Bullet's contact and motor solver, which stays as it is.

Bullet remembers contact points, and the order in which bodies came near each other, in which it
then solves their contacts. So :meth:`World.reset` makes Bullet forget: it puts a new cube in place
of the old one, and lets the arm's links enter the collision detection anew. An episode then never
depends on those before it, as it does in panda-gym, whose every first episode this one equals.

Needs PyBullet (``make panda``). Every world is a Bullet server of its own, of about 30 MB.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops what compiled code prints, which Python's own redirection does not see."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


try:
    with _without_stderr():  # PyBullet greets with the time it was built
        import pybullet as bullet
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sami/Panda-v0 needs the simulator PyBullet, which is not installed; run `make panda` "
        "(without a clone, the command under 'On Colab' in the book's README)",
        name="pybullet",
    ) from error

_DATA = Path(bullet.__file__).with_name("pybullet_data")  # PyBullet's models, installed beside it

SUBSTEPS = 20
"""Physics steps per environment step."""
SUBSTEP_SECONDS = 1 / 500
STEP_SECONDS = SUBSTEPS * SUBSTEP_SECONDS
"""0.04 s: the agent acts 25 times a second."""
CUBE_SIDE = 0.04
"""m."""
HAND_RANGE, GRIP_RANGE = np.float32(0.05), np.float32(0.2)
"""What a command of 1 asks for in a step: a displacement of the hand and of the fingers' gap, m."""

_JOINTS = (0, 1, 2, 3, 4, 5, 6, 9, 10)  # seven of the arm, then the two fingers
_FINGERS = (9, 10)
_HAND = 11  # the link between the finger tips
_LOADED = (0.0,) * 9  # the pose in which an arm is loaded; rad, and m for the fingers
_NEUTRAL = (0.0, 0.41, 0.0, -1.85, 0.0, 2.26, 0.79, 0.0, 0.0)
# Bullet's own groups and masks: the base ignores what cannot move, a link meets everything.
_LINK_FILTERS = {link: (1, -1) for link in range(12)} | {-1: (2, ~2)}
_DOWN = (1.0, 0.0, 0.0, 0.0)  # the hand's orientation, a quaternion
_FORCES = (87.0, 87.0, 87.0, 87.0, 12.0, 120.0, 120.0, 170.0, 170.0)  # N m, and N for the fingers
# Bullet gives a motor force times the length of a *command* as the most impulse that it may spend
# in each *substep*. With 20 substeps to the command, the force must shrink for the same impulse.
_COMMAND_FORCES = tuple(force * SUBSTEP_SECONDS / STEP_SECONDS for force in _FORCES)

_TABLE, _GOAL, _WALL = (221, 208, 190), (0, 158, 115), (247, 248, 250)
_LIGHT, _HEAVY = np.array((160, 208, 240)), np.array((18, 60, 110))
_LIGHTEST, _HEAVIEST = 1.0, 30.0  # kg, the ends of the cube's colour scale

Vector = Sequence[float] | NDArray[np.float64]
"""x, y, z in m; the table's surface is z = 0, the arm stands at x = -0.6."""


class World:
    """One arm, one table, one cube.

    After :meth:`reset` and :meth:`step`, ``state`` holds 19 numbers: the hand's position (3, m) and
    velocity (3, m/s), the gap between the fingers (m), and the cube's position (3, m), orientation
    (3 Euler angles, rad), velocity (3, m/s) and angular velocity (3, rad/s).

    Args:
        drawn: whether :meth:`draw` will be used; it takes meshes that cost time to load.
    """

    state: tuple[float, ...]

    def __init__(self, drawn: bool = False):
        self._drawn = drawn
        self._client = client = bullet.connect(bullet.DIRECT)
        # Frees the server with close(), or with the last reference to this object.
        self._disconnect = weakref.finalize(self, bullet.disconnect, client)
        bullet.setTimeStep(SUBSTEP_SECONDS, physicsClientId=client)
        bullet.setGravity(0, 0, -9.81, physicsClientId=client)
        bullet.setPhysicsEngineParameter(enableFileCaching=0, physicsClientId=client)  # saves 10 MB

        self._arm = bullet.loadURDF(
            str(_DATA / "franka_panda" / "panda.urdf"),
            basePosition=(-0.6, 0, 0),
            useFixedBase=True,
            flags=0 if drawn else bullet.URDF_IGNORE_VISUAL_SHAPES,
            physicsClientId=client,
        )
        for finger in _FINGERS:
            bullet.changeDynamics(
                self._arm, finger, lateralFriction=1, spinningFriction=0.001, physicsClientId=client
            )
        self._box((6, 6, 0.02), (0, 0, -0.41))  # the floor, for a cube that falls off the table
        self._table = self._box((1.1, 0.7, 0.4), (-0.3, 0, -0.2), _TABLE)
        self._cube_shape = bullet.createCollisionShape(
            bullet.GEOM_BOX, halfExtents=(CUBE_SIDE / 2,) * 3, physicsClientId=client
        )
        self._mat_look = -1
        if drawn:
            self._mat_look = bullet.createVisualShape(
                bullet.GEOM_BOX,
                halfExtents=(0.03, 0.03, 0.002),
                visualFramePosition=(0, 0, -CUBE_SIDE / 2),
                rgbaColor=[*(c / 255 for c in _GOAL), 1],
                physicsClientId=client,
            )
        self._loose: tuple[int, ...] = ()  # the cube and the mat of the last episode

        # One command of 20 substeps takes over from commands of one.
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=STEP_SECONDS, numSubSteps=SUBSTEPS, physicsClientId=client
        )

    def _box(self, size: Vector, position: Vector, colour: Sequence[int] | None = None) -> int:
        """A box that cannot move; ``colour`` is used where the world is drawn."""
        half = [side / 2 for side in size]
        look = -1
        if self._drawn and colour is not None:
            look = bullet.createVisualShape(
                bullet.GEOM_BOX,
                halfExtents=half,
                rgbaColor=[*(c / 255 for c in colour), 1],
                physicsClientId=self._client,
            )
        return bullet.createMultiBody(
            baseCollisionShapeIndex=bullet.createCollisionShape(
                bullet.GEOM_BOX, halfExtents=half, physicsClientId=self._client
            ),
            baseVisualShapeIndex=look,
            basePosition=position,
            physicsClientId=self._client,
        )

    def reset(self, cube: Vector, goal: Vector, mass: float, friction: float) -> None:
        """Puts arm and cube at rest where an episode begins.

        Args:
            cube: where the cube's centre starts.
            goal: where its centre should come to; only drawn here.
            mass: of the cube, kg.
            friction: lateral friction of the table.
        """
        client = self._client
        # What a freshly loaded scene looks like to the collision detection.
        for body in reversed(self._loose):
            bullet.removeBody(body, physicsClientId=client)
        self._pose_arm(_LOADED)
        for link, (group, mask) in _LINK_FILTERS.items():
            bullet.setCollisionFilterGroupMask(self._arm, link, group, mask, physicsClientId=client)
        self._cube = bullet.createMultiBody(
            baseMass=mass,
            baseCollisionShapeIndex=self._cube_shape,
            basePosition=(0, 0, CUBE_SIDE / 2),
            physicsClientId=client,
        )
        mat = bullet.createMultiBody(
            baseVisualShapeIndex=self._mat_look,
            basePosition=(0, 0, CUBE_SIDE / 2),
            physicsClientId=client,
        )
        self._loose = self._cube, mat

        self._pose_arm(_NEUTRAL)
        bullet.changeDynamics(self._table, -1, lateralFriction=friction, physicsClientId=client)
        for body, position in ((self._cube, cube), (mat, goal)):
            bullet.resetBasePositionAndOrientation(
                body, position, (0, 0, 0, 1), physicsClientId=client
            )
        if self._drawn:
            share = np.clip(np.log(mass / _LIGHTEST) / np.log(_HEAVIEST / _LIGHTEST), 0, 1)
            colour = (_LIGHT + share * (_HEAVY - _LIGHT)) / 255
            bullet.changeVisualShape(self._cube, -1, rgbaColor=[*colour, 1], physicsClientId=client)
        self._read()

    def _pose_arm(self, angles: Sequence[float]) -> None:
        """The arm at rest with these joint angles."""
        for joint, angle in zip(_JOINTS, angles, strict=True):
            bullet.resetJointState(self._arm, joint, angle, physicsClientId=self._client)

    def step(self, command: NDArray[np.float32]) -> None:
        """Moves the hand for 0.04 s.

        Args:
            command: displacement of the hand along x, y, z and change of the fingers' gap, each in
                [-1, 1], in units of ``HAND_RANGE`` and ``GRIP_RANGE``; shape (4,). Its arithmetic
                stays in float32, as panda-gym's does.
        """
        x, y, z = self.state[:3]
        dx, dy, dz = (command[:3] * HAND_RANGE).tolist()
        finger = float((np.float32(self.state[6]) + command[3] * GRIP_RANGE) / 2)
        angles = bullet.calculateInverseKinematics(
            self._arm,
            _HAND,
            (x + dx, y + dy, max(0.0, z + dz)),  # never into the table
            _DOWN,
            physicsClientId=self._client,
        )
        bullet.setJointMotorControlArray(
            self._arm,
            _JOINTS,
            bullet.POSITION_CONTROL,
            targetPositions=(*angles[:7], finger, finger),
            forces=_COMMAND_FORCES,
            physicsClientId=self._client,
        )
        bullet.stepSimulation(physicsClientId=self._client)
        self._read()

    def _read(self) -> None:
        client = self._client
        link = bullet.getLinkState(self._arm, _HAND, computeLinkVelocity=1, physicsClientId=client)
        left, right = bullet.getJointStates(self._arm, _FINGERS, physicsClientId=client)
        position, rotation = bullet.getBasePositionAndOrientation(
            self._cube, physicsClientId=client
        )
        velocity, spin = bullet.getBaseVelocity(self._cube, physicsClientId=client)
        angles = bullet.getEulerFromQuaternion(rotation)
        self.state = (*link[0], *link[6], left[0] + right[0], *position, *angles, *velocity, *spin)

    def cube_on_table(self) -> bool:
        """Whether the cube touches the table."""
        return bool(bullet.getContactPoints(self._cube, self._table, physicsClientId=self._client))

    def cube_between_fingers(self) -> bool:
        """Whether both fingers touch the cube."""
        return all(
            bullet.getContactPoints(
                self._arm, self._cube, linkIndexA=finger, physicsClientId=self._client
            )
            for finger in _FINGERS
        )

    def draw(self, width: int, height: int) -> NDArray[np.uint8]:
        """The scene as an RGB image, shape (height, width, 3); by Bullet's software renderer."""
        client = self._client
        view = bullet.computeViewMatrixFromYawPitchRoll(
            cameraTargetPosition=(-0.12, 0, 0.12),
            distance=0.95,
            yaw=75,
            pitch=-32,
            roll=0,
            upAxisIndex=2,
        )
        lens = bullet.computeProjectionMatrixFOV(
            fov=45, aspect=width / height, nearVal=0.1, farVal=10
        )
        *_, colours, _, bodies = bullet.getCameraImage(
            width,
            height,
            view,
            lens,
            shadow=0,
            lightDirection=(1, -1, 2),
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        # Some builds of PyBullet return nested tuples.
        picture = np.array(colours, np.uint8).reshape(height, width, 4)[..., :3].copy()
        picture[np.array(bodies).reshape(height, width) < 0] = _WALL
        return picture

    def close(self) -> None:
        """Frees the server; closing twice does no harm."""
        self._disconnect()
