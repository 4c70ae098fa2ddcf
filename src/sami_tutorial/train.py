"""The training loop: act, store, update, and survive a kill.

Training proceeds in rounds. In a round all environments run one episode in lockstep; its reset
seed depends only on the run's seed and the round's number. Between rounds the state of a run is
therefore the agent, the replay and a few counters, and that is what a checkpoint holds: a resumed
run goes on exactly as if it had never stopped. The replay is allocated once, so the memory that a
run will need is known when it starts.

Built in chapter 2, *Soft actor-critic from scratch*.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gymnasium.spaces import flatdim
from gymnasium.vector import VectorEnv
from tqdm.auto import tqdm

from sami_tutorial.agents import get_method
from sami_tutorial.checkpoint import (
    CheckpointError,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sami_tutorial.checks import keep_integers
from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.device import move, usable
from sami_tutorial.encoder import PEARLEncoder
from sami_tutorial.envs import get_task, make_vec
from sami_tutorial.envs.mujoco_tasks import MUJOCO_TASKS
from sami_tutorial.envs.panda import PANDA
from sami_tutorial.files import write_whole
from sami_tutorial.hindsight import relabel, relabel_episodes
from sami_tutorial.lock import exclusive
from sami_tutorial.population import stack, stack_agents
from sami_tutorial.replay import Episodes, Replay
from sami_tutorial.results import current_origin
from sami_tutorial.sac import SAC, SACConfig, Transitions
from sami_tutorial.sampling import (
    ContrastiveBatch,
    NotEnoughTrajectories,
    contrastive_batch,
    held_out_batch,
)

CHECKPOINT = "checkpoint.safetensors"
EXPLODED = 1e8  # no logged quantity comes near it in a healthy run
DIAGNOSE_EVERY = 10_000
"""Environment steps from one diagnosis of the contrast to the next; short rounds share one."""
CONFIG = "config.json"
ORIGIN = "origin.json"


class TrainingDiverged(RuntimeError):
    """A logged quantity or a weight is no longer a sensible number."""


@dataclass(frozen=True)
class TrainConfig:
    """One run, completely: the same config gives the same weights on the same machine.

    Args:
        env: a Gymnasium id such as ``"sami/CubeMove-v0"``.
        method: one of ``sami_tutorial.agents.METHODS``.
        seed: of everything random in the run.
        steps: environment steps, counted over all environments.
        split: the task set to train on.
        env_options: further options of the environment.
        num_envs: environments stepped in lockstep.
        warmup_steps: environment steps with random actions before the first update.
        warmup_hold: environment steps for which each random action is held; more than one makes
            the warm-up reach states that independent noise would not.
        exploring_envs: how many of the environments go on with such random actions after the
            warm-up, so that the replay never runs out of tries of every kind. Their episodes train
            the agent, but do not count in the curve.
        update_every: lockstep steps per update, so one update per ``num_envs * update_every``
            environment steps.
        updates_at_once: updates made whenever one is due; more than one spares steps of a slow
            environment.
        teacher: whether the task's teacher acts in the warm-up and in the exploring environments,
            instead of random actions.
        imitation_updates: additional updates behind the warm-up, before the agent first acts.
        imitation_steps: the actor is also drawn towards what the teacher would do, with a weight
            on a line from 1 at the first environment step to 0 at this one; 0 means never.
        imitation_left: the weight falls no lower than this, and stays.
        hindsight: share of the sampled transitions, or windows, that are learned from under another
            goal, see :mod:`sami_tutorial.hindsight`; for tasks that have goals.
        batch_size: transitions per update; without effect where windows are used, all of whose
            transitions are taken.
        replay_capacity: in transitions.
        sac: settings of the update.
        context: settings of the encoder, for the methods that have one.
    """

    env: str
    method: str = "sac"
    seed: int = 0
    steps: int = 300_000
    split: str = "train"
    env_options: dict[str, Any] = field(default_factory=dict)
    num_envs: int = 16
    warmup_steps: int = 4_800
    warmup_hold: int = 1
    exploring_envs: int = 0
    update_every: int = 1
    updates_at_once: int = 1
    teacher: bool = False
    imitation_updates: int = 0
    imitation_steps: int = 0
    imitation_left: float = 0.0
    hindsight: float = 0.0
    batch_size: int = 256
    replay_capacity: int = 300_000
    sac: SACConfig = field(default_factory=SACConfig)
    context: ContextConfig = field(default_factory=ContextConfig)

    def __post_init__(self) -> None:
        task = get_task(self.env)
        task.task_sets.split(self.split)
        get_method(self.method)
        keep_integers(self, "seed", "exploring_envs", least=0)
        keep_integers(self, "steps", "num_envs", "warmup_steps", "warmup_hold")
        keep_integers(self, "update_every", "updates_at_once", "batch_size", "replay_capacity")
        keep_integers(self, "imitation_updates", "imitation_steps", least=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; give an integer below 2**63")
        if self.exploring_envs >= self.num_envs:
            raise ValueError(
                f"exploring_envs is {self.exploring_envs}; give fewer than the {self.num_envs} "
                "environments"
            )
        if self.warmup_steps < self.num_envs:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}; give at least one for each of the "
                f"{self.num_envs} environments"
            )
        if self.teacher and task.teacher is None:
            raise ValueError(f"teacher is True, but {self.env} has no teacher; give False")
        if self.imitation_steps and not self.teacher:
            raise ValueError(
                f"imitation_steps is {self.imitation_steps}, but there is nobody to imitate; set "
                "teacher True, or imitation_steps 0"
            )
        if not 0 <= self.imitation_left <= 1 or (self.imitation_left and not self.imitation_steps):
            raise ValueError(
                f"imitation_left is {self.imitation_left}; give a number from 0 to 1, and 0 where "
                "nobody is imitated"
            )
        if 0 < self.imitation_steps <= self.warmup_steps and not self.imitation_left:
            raise ValueError(
                f"imitation_steps is {self.imitation_steps}, no more than the {self.warmup_steps} "
                "of the warm-up (warmup_steps), so that it would be over before it began; give "
                "more, or 0"
            )
        if not 0 <= self.hindsight <= 1:
            raise ValueError(f"hindsight is {self.hindsight}; give a number from 0 to 1")
        if self.hindsight and task.goals is None:
            raise ValueError(
                f"hindsight is {self.hindsight}, but {self.env} has no goals to exchange; give 0"
            )
        if self.context.window and get_method(self.method).encoder is PEARLEncoder:
            raise ValueError(
                f"context.window is {self.context.window}, but the encoder of {self.method!r} "
                "reads whole episodes; give 0"
            )
        if self.steps < self.warmup_steps:
            raise ValueError(
                f"steps is {self.steps}, fewer than the {self.warmup_steps} of the warm-up "
                "(warmup_steps); give more steps"
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: if the text is something else.
        """
        try:
            values = json.loads(text)
            sac, context = values.pop("sac"), values.pop("context", {})
            return cls(**values, sac=SACConfig(**sac), context=ContextConfig(**context))
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not the config of a run: {error!r}") from error


_ROBOT: dict[str, Any] = {
    "steps": 240_000,
    "num_envs": 16,
    "warmup_steps": 4_800,
    "batch_size": 240,
    "replay_capacity": 240_000,
    "sac": SACConfig(hidden=(128, 128)),
}

RECIPES: dict[str, dict[str, Any]] = {
    **{task.id: _ROBOT for task in MUJOCO_TASKS},
    # From scratch the arm learns to keep away: most touches throw the cube off. So a teacher shows
    # what can be tried, and is imitated. Of context-free tries on training tasks, one seed each,
    # only those rose to .8 and more that asked the teacher in every state; copying the actions in
    # the replay gave .1 to .45. When imitation ended altogether (after 80,000 steps) success fell
    # from .86 to .23; with a tenth of it left, it was about .7 (stopped at 72,000).
    PANDA.id: _ROBOT
    | {
        "steps": 100_000,
        "warmup_steps": 6_400,
        "exploring_envs": 4,
        "updates_at_once": 4,
        "teacher": True,
        "imitation_updates": 3_000,
        "imitation_steps": 50_000,
        "imitation_left": 0.2,
        "hindsight": 0.5,
        "replay_capacity": 100_000,
        "sac": SACConfig(
            hidden=(128, 128),
            discount=0.95,
            target_rate=0.05,
            initial_temperature=0.01,
            target_entropy=-3.0,
            standardize=True,
        ),
    },
    "sami/CubeMove-v0": {
        "steps": 250_000,
        "num_envs": 48,
        "warmup_steps": 9_600,
        "warmup_hold": 8,
        "batch_size": 256,
        "sac": SACConfig(
            hidden=(96, 96),
            learning_rate=3e-3,
            discount=0.95,
            target_rate=0.05,
            target_entropy=-1.0,
        ),
    },
}
"""Settings that differ from the defaults, per environment, the same for all methods."""

_ROBOT_ENCODER: dict[str, Any] = {
    "context": ContextConfig(
        episodes=24,
        window=10,
        hidden=128,
        contrast_every=4,
        contrast_rate=3e-4,
        contrast_start="zero",
        fraction=0.25,
    ),
}

ENCODER_RECIPES: dict[str, dict[str, Any]] = {
    **{task.id: _ROBOT_ENCODER for task in (*MUJOCO_TASKS, PANDA)},
    "sami/CubeMove-v0": {
        "update_every": 2,
        "exploring_envs": 6,
        "replay_capacity": 60_000,
        "sac": replace(RECIPES["sami/CubeMove-v0"]["sac"], standardize=True),
        "context": ContextConfig(contrast_weight=0.01),
    },
}
"""What the methods with an encoder change; chapters 4 and 9 give the reasons and the controls."""


def recipe(env: str, method: str = "sac", **overrides: Any) -> TrainConfig:
    """The book's settings for ``method`` in ``env``, with any of them overridden.

    Raises:
        ValueError: for an unknown environment or method, or settings that :class:`TrainConfig`
            refuses.
        TypeError: for an override that is no field of it.
    """
    settings = RECIPES.get(env, {})
    encoder = get_method(method).encoder
    if encoder is not None:
        settings = settings | ENCODER_RECIPES.get(env, {})
    if encoder is PEARLEncoder and settings.get("context", ContextConfig()).window:
        # Its belief is a product over the whole episode; fewer of them cost as many votes.
        whole = replace(settings["context"], window=0, episodes=4)
        settings = settings | {"context": whole}
    return TrainConfig(env=env, method=method, **{**settings, **overrides})


class Run:
    """A run in progress: environments, agent, replay, counters. Iterate over :meth:`rounds`.

    Args:
        config: the run.
        device: where its networks compute, see :mod:`sami_tutorial.device`.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu"):
        self.config = config
        self.device = usable(device)
        self.method = method = get_method(config.method)
        task = get_task(config.env)
        self.goals, self.teacher = task.goals, task.teacher if config.teacher else None
        self.env: VectorEnv = method.wrap(
            make_vec(config.env, config.num_envs, config.split, **config.env_options)
        )
        self.horizon: int = self.env.unwrapped.max_episode_steps  # type: ignore[attr-defined]
        self.observation_dim = flatdim(self.env.single_observation_space)
        self.action_dim = flatdim(self.env.single_action_space)
        self.agent = self.make_agent()
        # Draws the batches. The agent's own generator starts from the same seed: the same numbers,
        # put to other uses. Another seed here would change every run that is stored.
        self.generator = torch.Generator().manual_seed(config.seed)
        self.replay = Replay(
            config.replay_capacity,
            config.num_envs,
            self.horizon,
            self.observation_dim,
            self.action_dim,
            len(self.env.unwrapped.context_features),  # type: ignore[attr-defined]
            window=config.context.window if method.encoder is not None else 0,
            memory_dim=config.context.hidden,
        )
        self.round = 0
        self.env_steps = 0
        self.updates = 0
        self.wall_seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.metrics: dict[str, torch.Tensor] = {}  # of the round, each as last measured

    def make_agent(self) -> SAC:
        """A fresh agent for the environment."""
        agent = self.method.make_agent(
            self.observation_dim,
            self.action_dim,
            self.config.sac,
            self.config.context,
            self.config.seed,
        )
        return agent.to(self.device)

    def rounds(self) -> Iterator[dict[str, float]]:
        """Runs round after round until the step budget is spent; yields each round's record."""
        for records in rounds_together([self], self.update):
            yield records[0]

    def turns(self) -> Iterator[dict[str, float] | None]:
        """Acts and stores; yields None whenever an update is due, and a record after each round."""
        while self.env_steps < self.config.steps:
            yield from self.turns_of_a_round()

    def turns_of_a_round(self) -> Iterator[dict[str, float] | None]:
        """One episode in every environment."""
        config = self.config
        round_seed = np.random.SeedSequence([config.seed, self.round])
        rng = np.random.default_rng(round_seed)
        teacher = self.teacher(config.num_envs, rng) if self.teacher else None
        observation, info = self.env.reset(seed=int(round_seed.generate_state(1)[0]))
        self.replay.start_episodes(observation, info["context"])
        self.agent.begin(observation)
        episode_return = np.zeros(config.num_envs)
        self.metrics = {}
        diagnosed = self.env_steps // DIAGNOSE_EVERY

        for t in itertools.count():
            if teacher is not None:
                tried = teacher.act(observation)
            elif t % config.warmup_hold == 0:
                tried = rng.uniform(-1, 1, self.env.action_space.shape).astype(np.float32)
            if self.env_steps < config.warmup_steps:
                action = tried
            else:
                action = self.agent.act(observation)
                action[: config.exploring_envs] = tried[: config.exploring_envs]
            if self.replay.window and t % self.replay.window == 0:
                assert isinstance(self.agent, ContextSAC)
                self.replay.remember(self.agent.memory.before)

            observation, reward, terminated, truncated, info = self.env.step(action)
            done = terminated | truncated
            last = bool(done.any())  # lockstep: all episodes end together
            next_observation = np.stack(info["final_obs"]) if last else observation
            self.replay.add(action, reward, next_observation, terminated)
            self.agent.observe(action, reward, next_observation)
            episode_return += reward
            self.env_steps += config.num_envs
            if last:  # before an update can have seen the finished episodes
                passed = self.env_steps // DIAGNOSE_EVERY > diagnosed
                diagnostics = self.diagnostics() if passed else {}

            warm = self.env_steps >= config.warmup_steps
            if warm and self.env_steps // config.num_envs % config.update_every == 0:
                due = config.updates_at_once
                if self.updates == 0:
                    self.fit_standardize()
                    due += config.imitation_updates
                for _ in range(due):
                    yield None
                    self.updates += 1
                    self.check(self.metrics)
            if last or self.env_steps >= config.steps:
                break

        record: dict[str, float] = {"env_steps": self.env_steps, "updates": self.updates}
        if last:
            counted = slice(config.exploring_envs, None)
            record["episode_return"] = float(episode_return[counted].mean())
            if "success" in info["final_info"]:
                record["success"] = float(np.mean(info["final_info"]["success"][counted]))
            self.metrics |= diagnostics
        self.round += 1
        yield record | {name: float(value) for name, value in self.metrics.items()}

    def finish_round(self, record: dict[str, float], seconds: float) -> dict[str, float]:
        """Adds a round's record to the curve."""
        self.wall_seconds += seconds
        self.curve.append(record | {"wall_seconds": self.wall_seconds})
        return self.curve[-1]

    def fit_standardize(self) -> None:
        """Makes the warm-up the measure of all observations, where the config asks for one."""
        if self.config.sac.standardize:
            everything = self.replay.episodes(self.replay.length.nonzero().squeeze(-1))
            self.agent.standardize.fit(everything.observation[:, :-1][everything.mask])

    def update(self) -> None:
        """One update of the agent from the replay."""
        self.metrics |= self.agent.update(*self.batch())

    def batch(self) -> tuple[Any, ...]:
        """What the agent's update takes, where its networks are."""
        if not isinstance(self.agent, ContextSAC):
            return move((self.transitions(self.generator), self.imitation), self.device)
        due = self.updates % self.config.context.contrast_every == 0
        batch = (
            self.sequences(self.generator),
            self.config.batch_size,
            (self.contrast(self.generator) if due else None),
            self.imitation,
        )
        return move(batch, self.device)

    @property
    def imitation(self) -> float:
        """How much the actor is drawn towards what the teacher would do."""
        if not self.config.imitation_steps:
            return 0.0
        fallen = 1 - self.env_steps / self.config.imitation_steps
        return max(self.config.imitation_left, fallen)

    def transitions(self, generator: torch.Generator) -> Transitions:
        """A batch of the replay, some of it in hindsight."""
        batch = self.replay.sample(self.config.batch_size, generator)
        if self.config.hindsight and self.goals is not None:
            batch = relabel(batch, self.goals, self.config.hindsight, generator)
        return batch._replace(shown=self.shown(batch.observation))

    def sequences(self, generator: torch.Generator) -> Episodes:
        """Whole episodes, or windows of them, some of them in hindsight."""
        sample = self.replay.sample_windows if self.replay.window else self.replay.sample_episodes
        batch = sample(self.config.context.episodes, generator)
        if self.config.hindsight and self.goals is not None:
            batch = relabel_episodes(batch, self.goals, self.config.hindsight, generator)
        return batch._replace(shown=self.shown(batch.observation[:, :-1]))

    def shown(self, observation: torch.Tensor) -> torch.Tensor | None:
        """What the teacher would do, (..., S) -> (..., A); None if nobody is imitated now."""
        if self.teacher is None or self.imitation == 0:
            return None
        return torch.from_numpy(self.teacher.advise(observation.numpy()))

    def contrast(self, generator: torch.Generator) -> ContrastiveBatch | None:
        """The trajectories that the method compares; None if it compares none, or not yet."""
        if self.method.contrast is None:
            return None
        settings = self.config.context
        try:
            return contrastive_batch(
                self.replay,
                self.method.contrast,
                settings.contrast_batch,
                generator,
                fraction=settings.fraction,
                same_task=settings.same_task,
                shuffle_returns=settings.shuffle_returns,
                phase=settings.contrast_phase,
            )
        except NotEnoughTrajectories:
            return None

    def diagnostics(self) -> dict[str, torch.Tensor]:
        """What tells whether the contrast is learned, and whether it can move the encoder.

        With random numbers of its own: a run is the same whether or not it is asked.
        """
        if self.method.contrast is None or not self.updates:
            return {}
        assert isinstance(self.agent, ContextSAC)
        settings = self.config.context
        generator = torch.Generator().manual_seed(self.round)
        found = {}
        try:
            fresh = held_out_batch(
                self.replay,
                self.method.contrast,
                settings.contrast_batch,
                generator,
                fraction=settings.fraction,
            )
            found["held_out_accuracy"] = self.agent.held_out_accuracy(move(fresh, self.device))
        except NotEnoughTrajectories:
            pass
        contrast = self.contrast(generator)
        if contrast is not None:
            sequences = self.sequences(generator)
            found["gradient_ratio"] = self.agent.gradient_ratio(
                move(sequences, self.device), self.config.batch_size, move(contrast, self.device)
            )
        return found

    def check(self, quantities: dict[str, torch.Tensor]) -> None:
        """Stops a run that went wrong, before it can overwrite a good checkpoint.

        Raises:
            TrainingDiverged: if any entry is NaN, infinite or enormous.
        """
        if not quantities:
            return
        # A graphics card is asked once for all of them: every question waits for its work to end.
        extremes = [value.detach().abs().max() for value in quantities.values()]
        for name, largest in zip(quantities, torch.stack(extremes).tolist(), strict=True):
            if not largest < EXPLODED:  # also true for NaN
                raise TrainingDiverged(
                    f"{name} is {largest} after {self.env_steps} environment steps "
                    f"({self.updates} updates)"
                )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything a resumed run needs that is an array."""
        state = {f"agent.{name}": value for name, value in self.agent.state_dict().items()}
        for name, optimizer in self.agent.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                for key, value in moments.items():
                    state[f"optimizer.{name}.{index}.{key}"] = value
        state["generator.agent"] = self.agent.generator.get_state()
        state["generator.batches"] = self.generator.get_state()
        state |= {
            f"replay.{name}": value
            for name, value in vars(self.replay).items()
            if isinstance(value, torch.Tensor)
        }
        return state

    def counters(self) -> dict[str, Any]:
        """Everything a resumed run needs that is a number."""
        return {
            "round": self.round,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "wall_seconds": self.wall_seconds,
            "head": self.replay.head,
            "curve": self.curve,
        }

    def memory(self) -> str:
        """What the run keeps in memory from start to end, in one line.

        A trained parameter is there four times, with its gradient and Adam's two moments.
        """
        mebibyte = 2**20
        replay = sum(each.nbytes for each in vars(self.replay).values() if torch.is_tensor(each))
        trained = sum(p.nbytes for p in self.agent.parameters() if p.requires_grad)
        networks = sum(each.nbytes for each in self.agent.state_dict().values()) + 3 * trained
        transitions = self.replay.reward.numel()
        return (
            f"memory: replay {replay / mebibyte:.1f} MiB ({transitions:,} transitions), "
            f"networks and optimisers {networks / mebibyte:.1f} MiB; "
            f"each of the two checkpoints about {(replay + networks - trained) / mebibyte:.1f} MiB"
        )

    def restore(self, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
        """The inverse of :meth:`tensors` and :meth:`counters`.

        Raises:
            CheckpointError: if they were saved by a version of the library that kept others.
        """
        try:
            self._restore(tensors, counters)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"the checkpoint was written by another version of the library ({reason}); "
                "go on with that version, or delete the run directory to start again"
            ) from error

    def _restore(self, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
        self.agent.load_state_dict(
            {n.removeprefix("agent."): v for n, v in tensors.items() if n.startswith("agent.")}
        )
        for name, optimizer in self.agent.optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{name}."):
                    _, _, index, moment = key.split(".")
                    state.setdefault(int(index), {})[moment] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.agent.generator.set_state(tensors["generator.agent"])
        self.generator.set_state(tensors["generator.batches"])
        for name, value in vars(self.replay).items():
            if isinstance(value, torch.Tensor):
                value.copy_(tensors[f"replay.{name}"])
        self.replay.head = counters["head"]
        self.round = counters["round"]
        self.env_steps = counters["env_steps"]
        self.updates = counters["updates"]
        self.wall_seconds = counters["wall_seconds"]
        self.curve = counters["curve"]


def rounds_together(
    runs: Sequence[Run], update: Callable[[], None]
) -> Iterator[list[dict[str, float]]]:
    """Round after round of runs in step with one another; yields the records of each round.

    Args:
        runs: at the same step of the same number.
        update: called whenever an update is due, in all runs at once.
    """
    start = time.perf_counter()
    for turn in zip(*(run.turns() for run in runs), strict=True):
        if turn[0] is None:
            update()
            continue
        seconds = (time.perf_counter() - start) / len(runs)
        yield [run.finish_round(record, seconds) for run, record in zip(runs, turn, strict=True)]
        start = time.perf_counter()


def population_update(runs: Sequence[Run]) -> Callable[[], None]:
    """An update of all runs at once; for one run alone, its own."""
    if len(runs) == 1:
        return runs[0].update
    stacked = stack_agents([run.agent for run in runs], runs[0].make_agent())

    def update() -> None:
        batches = [run.batch() for run in runs]
        # One run may find trajectories to compare before another does.
        alike = len({tuple(part is None for part in batch) for batch in batches}) == 1
        if not alike:
            for run, batch in zip(runs, batches, strict=True):
                run.metrics |= run.agent.update(*batch)
            return
        metrics = stacked.update(*stack(batches))
        for i, run in enumerate(runs):
            run.metrics |= {name: values[i] for name, values in metrics.items()}

    return update


@dataclass(frozen=True)
class TrainResult:
    """A finished run: the agent and one row of ``curve`` per round."""

    config: TrainConfig
    agent: SAC
    curve: pd.DataFrame


def train(
    config: TrainConfig,
    run_dir: str | Path | None = None,
    *,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
    on_round: Callable[[Run], None] | None = None,
    device: str = "cpu",
) -> TrainResult:
    """Trains one agent; with a ``run_dir``, resumes by itself what a kill interrupted.

    Args:
        config: the run.
        run_dir: where to keep ``config.json``, the checkpoint, and ``origin.json`` (the commit and
            the hardware that the run began with); ``None`` keeps nothing.
        checkpoint_seconds: least time between two checkpoints; one is always written at the end.
        progress: whether to print the memory that the run needs and to show a progress bar.
        on_round: called after every round, e.g. to draw a live curve. If it lets ``run.agent`` act,
            sampled actions, and PEARL's c even with mean actions, are drawn from the training's
            generator, and the run then goes on differently.
        device: where the networks compute. It is no part of the config: a run may go on elsewhere,
            with the same random numbers.

    Raises:
        ValueError: if ``run_dir`` holds a run with another config, or the device cannot be used.
        RunDirBusy: if another process trains there.
        CheckpointError: if neither the last checkpoint nor the one before it can be used, or if
            one cannot be written.
        TrainingDiverged: at the first NaN or exploding quantity, with its name, the step and the
            last good checkpoint.
    """
    (result,) = train_together(
        [config],
        None if run_dir is None else [run_dir],
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        on_round=on_round,
        device=device,
    )
    return result


def train_together(
    configs: Sequence[TrainConfig],
    run_dirs: Sequence[str | Path] | None = None,
    *,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
    on_round: Callable[[Run], None] | None = None,
    device: str = "cpu",
) -> list[TrainResult]:
    """Trains a population: several seeds of one config, updated at once.

    Each run is, up to rounding, the one that :func:`train` makes of its config alone, and is kept
    in a directory of its own in the same form. Together they take less time than one by one
    (chapter 10).

    Args:
        configs: equal but for the seed.
        run_dirs: one for each config, or ``None``.
        checkpoint_seconds, progress, on_round, device: as in :func:`train`.

    Raises:
        ValueError: if the configs differ in more than the seed, or seeds or directories repeat.
        As :func:`train`: what stops one run stops all.
    """
    _check_population(configs, run_dirs)
    runs = [Run(config, device) for config in configs]
    checkpoints = [Path(each) / CHECKPOINT for each in run_dirs or []]
    written: list[str] = []  # the configs as the run directories hold them

    def save() -> None:
        for run, checkpoint, config in zip(runs, checkpoints, written, strict=False):
            run.check(dict(run.agent.named_parameters()))
            save_checkpoint(checkpoint, run.tensors(), run.counters(), config)

    with ExitStack() as held:
        for run in runs:
            held.callback(run.env.close)
        for run, checkpoint in zip(runs, checkpoints, strict=False):
            held.enter_context(exclusive(checkpoint.parent))
            written.append(_claim(checkpoint.parent, run.config, run.device))
            if has_checkpoint(checkpoint):
                resume(run, checkpoint, written[-1])
        if progress:
            tqdm.write(runs[0].memory() + (f"; times {len(runs)} runs" if len(runs) > 1 else ""))

        saved_at, saved_round = time.monotonic(), _common_round(runs)
        steps = configs[0].steps
        try:
            _catch_up(runs)
            with tqdm(total=steps, initial=runs[0].env_steps, desc=_title(configs), unit="step",
                      unit_scale=True, disable=not progress) as bar:  # fmt: skip
                for records in rounds_together(runs, population_update(runs)):
                    bar.update(min(runs[0].env_steps, steps) - bar.n)
                    returns = [
                        each["episode_return"] for each in records if "episode_return" in each
                    ]
                    if returns:
                        bar.set_postfix({"episode_return": f"{np.mean(returns):.3g}"})
                    if on_round is not None:
                        for run in runs:
                            on_round(run)
                    if time.monotonic() - saved_at >= checkpoint_seconds:
                        save()
                        saved_at, saved_round = time.monotonic(), runs[0].round
            if saved_round != runs[0].round:
                save()
        except TrainingDiverged as error:
            good = [str(checkpoint) for checkpoint in checkpoints if checkpoint.exists()]
            raise TrainingDiverged(
                f"{error}; last good checkpoint: {', '.join(good) or 'none'}"
            ) from None
    return [TrainResult(run.config, run.agent, pd.DataFrame(run.curve)) for run in runs]


def _check_population(
    configs: Sequence[TrainConfig], run_dirs: Sequence[str | Path] | None
) -> None:
    if not configs:
        raise ValueError("configs is empty; give at least one")
    for config in configs:
        if replace(config, seed=0) != replace(configs[0], seed=0):
            raise ValueError("configs differ in more than the seed; train those apart")
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the configs' seeds are {seeds}; name each once")
    if run_dirs is None:
        return
    different = {Path(each).resolve() for each in run_dirs}
    if not len(run_dirs) == len(configs) == len(different):
        raise ValueError(
            f"run_dirs is {[str(each) for each in run_dirs]}; give a directory of its own for each "
            f"of the {len(configs)} configs"
        )


def _common_round(runs: Sequence[Run]) -> int | None:
    """The round that all runs were saved after; None if there is none, or not the same."""
    rounds = {run.round for run in runs}
    return runs[0].round if runs[0].curve and len(rounds) == 1 else None


def _catch_up(runs: Sequence[Run]) -> None:
    """Brings runs to the same round: a kill may have come between two of their checkpoints."""
    last = max(run.round for run in runs)
    for run in runs:
        rounds = run.rounds()
        while run.round < last:
            next(rounds)


def _title(configs: Sequence[TrainConfig]) -> str:
    seeds = ", ".join(str(config.seed) for config in configs)
    first = configs[0]
    word = "seeds" if len(configs) > 1 else "seed"
    return f"{first.method} on {first.env.removeprefix('sami/')}, {word} {seeds}"


def resume(run: Run, checkpoint: Path, config: str) -> None:
    """Brings a run to where its last usable checkpoint was written."""
    saved = load_checkpoint(checkpoint, config)
    run.restore(saved.tensors, saved.counters)
    if saved.path != checkpoint:
        # Else the next save would keep the damaged one as "the one before".
        saved.path.replace(checkpoint)


def read_config(directory: Path) -> tuple[TrainConfig, str]:
    """The config of the run in ``directory``, and its text.

    Raises:
        ValueError: if it cannot be read.
    """
    path = directory / CONFIG
    try:
        text = path.read_text()
        return TrainConfig.from_json(text), text
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}); delete {str(directory)!r} to start again"
        ) from error


def _claim(directory: Path, config: TrainConfig, device: torch.device) -> str:
    """Writes the config into a new run directory; refuses the directory of another run."""
    path = directory / CONFIG
    if path.exists():
        held, text = read_config(directory)
        if held != config:
            raise ValueError(
                f"run_dir {str(directory)!r} holds a run with another config; "
                "choose another directory, or delete this one"
            )
        return text
    write_whole(directory / ORIGIN, json.dumps(current_origin(device)).encode())
    write_whole(path, config.to_json().encode())
    return config.to_json()
