"""The methods of the book, each a composition of the pieces below it.

| method    | what the policy sees     | what trains the encoder                         | chapter |
|-----------|--------------------------|-------------------------------------------------|---------|
| `sac`     | s                        |                                                 | 2       |
| `oracle`  | s and the hidden context |                                                 | 3       |
| `random`  | s and c                  | nothing                                         | 4       |
| `tesac`   | s and c                  | the critic's loss                               | 4       |
| `pearl`   | s and c                  | the critic's loss, KL to the prior              | 4       |
| `ccm`     | s and c                  | the critic's loss, InfoNCE between tasks        | 6       |
| `satesac` | s and c                  | the critic's loss, SaNCE within a task          | 8       |
| `saccm`   | s and c                  | the critic's loss, SaNCE, negatives of any task | 8       |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv

from sami_tutorial.checkpoint import CheckpointError, read_policy
from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.encoder import ContextEncoder, PEARLEncoder
from sami_tutorial.envs import VectorContextObservation
from sami_tutorial.sac import SAC, SACConfig


@dataclass(frozen=True)
class Method:
    """What makes one method different from the others.

    Args:
        name: the key on the command line and in every table.
        sees_context: whether the hidden features are appended to the observation.
        encoder: the kind of context encoder, or None.
        train_encoder: False keeps the encoder as it was initialised.
        contrast: which trajectories are compared, one of ``sami_tutorial.sampling.CONTRASTS``, or
            None.
    """

    name: str
    sees_context: bool = False
    encoder: type[ContextEncoder] | type[PEARLEncoder] | None = None
    train_encoder: bool = True
    contrast: str | None = None

    def wrap(self, env: VectorEnv) -> VectorEnv:
        """The environment as this method sees it."""
        return VectorContextObservation(env) if self.sees_context else env

    def make_agent(
        self,
        observation_dim: int,
        action_dim: int,
        config: SACConfig,
        context: ContextConfig,
        seed: int,
    ) -> SAC:
        """A fresh agent for the widths of an environment that :meth:`wrap` returned."""
        if self.encoder is None:
            return SAC(observation_dim, action_dim, config, seed)
        return ContextSAC(
            observation_dim,
            action_dim,
            config,
            context,
            encoder_class=self.encoder,
            contrast=self.contrast,
            train_encoder=self.train_encoder,
            seed=seed,
        )


METHODS = {
    method.name: method
    for method in (
        Method("sac"),
        Method("oracle", sees_context=True),
        Method("random", encoder=ContextEncoder, train_encoder=False),
        Method("tesac", encoder=ContextEncoder),
        Method("pearl", encoder=PEARLEncoder),
        Method("ccm", encoder=ContextEncoder, contrast="ccm"),
        Method("satesac", encoder=ContextEncoder, contrast="satesac"),
        Method("saccm", encoder=ContextEncoder, contrast="saccm"),
    )
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {sorted(METHODS)}")
    return METHODS[name]


class FrozenPolicy:
    """A stored policy: for acting and never for learning.

    Args:
        content: what ``sami_tutorial.checkpoint.policy_bytes`` wrote.
        seed: of the sampled actions, and of PEARL's c.

    Raises:
        CheckpointError: if it is damaged, or lacks weights that its method needs.
    """

    def __init__(self, content: bytes, seed: int = 0):
        config, weights = read_policy(content)
        alone = "mlp.layers.0.weight" in weights  # an actor, as in chapter 3
        if alone:
            weights = {f"actor.{name}": weight for name, weight in weights.items()}
        if "actor.mlp.layers.0.weight" not in weights:
            raise CheckpointError(f"the stored policy has no actor; it holds {sorted(weights)}")
        method = get_method(config["method"])
        context = ContextConfig(**config.get("context", {}))
        layers = len([name for name in weights if re.fullmatch(r"actor.*weight", name)])
        seen_dim = len(weights["actor.mlp.layers.0.weight"])  # (in, out)
        action_dim = weights[f"actor.mlp.layers.{layers - 1}.weight"].shape[1] // 2
        embedding_dim = 0 if method.encoder is None else context.embedding_dim
        self.agent = method.make_agent(
            seen_dim - embedding_dim,
            action_dim,
            SACConfig(**config["sac"]),
            context,
            seed,
        )
        policy = self.agent.policy()
        expected = policy.state_dict()
        missing, foreign = expected.keys() - weights.keys(), weights.keys() - expected.keys()
        if alone:
            missing -= {name for name in missing if name.startswith("standardize.")}
        if missing or foreign:
            raise CheckpointError(
                f"the stored policy does not fit its method {method.name!r}: it lacks "
                f"{sorted(missing)} and has {sorted(foreign)} beside what is asked for"
            )
        policy.load_state_dict(expected | weights)

    def begin(self, observation: np.ndarray) -> None:
        """A new episode starts everywhere: (N, S)."""
        self.agent.begin(observation)

    def observe(self, action: np.ndarray, reward: np.ndarray, observation: np.ndarray) -> None:
        """The step's outcome: (N, A), (N,), (N, S)."""
        self.agent.observe(action, reward, observation)

    def act(self, observation: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """Actions in [-1, 1]: (N, S) -> (N, A)."""
        return self.agent.act(observation, deterministic)
