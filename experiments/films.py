"""The films of chapters 1 and 17, and the small ones behind the dots of pictures.

    python experiments/films.py                              # about 25 minutes on one core
    python experiments/films.py --scripts                                # half a minute
    python experiments/films.py --arm                                    # half a minute
    python experiments/films.py --thumbnails crippledhalfcheetah         # about 15 minutes
    python experiments/films.py --thumbnails panda                       # about 10 minutes

Without an option: one policy per body, the same policy under different features. Each policy is a
context-free SAC trained on the training tasks of its body. The films and their posters go to
book/_static/videos, with the command, config and commit of each in manifest.json there. Finished
policies are kept in runs/films and used again on the next call.

With ``--scripts``: the Panda's scripted hands (`make panda`), each in the first episode of an
evaluation.

With ``--arm``: the Panda under the stored policies of two methods, in the same episode.

With ``--thumbnails``: one film for each method and task of ``embeddings/<benchmark>.parquet``, in
book/_static/thumbnails with its own manifest.json. It shows the end of the first episode that was
recorded there (of the Panda's nearly the whole), up to the step after which the embedding was kept,
by the same stored policy. So that it is that very episode, all episodes are played again as they
were recorded, side by side, and nothing is filmed unless every embedding comes out as it is stored.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from sami_tutorial.agents import FrozenPolicy
from sami_tutorial.embeddings import Trajectories, record
from sami_tutorial.envs.panda_skills import SCRIPTS
from sami_tutorial.evaluate import EVALUATION_SEED
from sami_tutorial.results import load_bytes, load_table, provenance, store_bytes
from sami_tutorial.train import recipe, train
from sami_tutorial.video import THUMBNAIL_SIZE, Frame, film_name, record_episode, save_video

STATIC = Path(__file__).parents[1] / "book" / "_static"
VIDEOS = STATIC / "videos"
THUMBNAILS = STATIC / "thumbnails"
COMMAND = "python experiments/films.py"

# Chapter 1
SIZE = (384, 216)  # pixels
FPS = 20  # at most about so many pictures per second
SECONDS = 5.0
EPISODE_SEED = 7
MOST_BYTES = 200_000

# Chapter 17
PANDA = "sami/Panda-v0"
SCRIPTED = (  # the script, its speed, and the task
    ("push", 0.2, {"mass": 5.0, "friction": 0.1}),
    ("push", 1.0, {"mass": 5.0, "friction": 0.1}),
    ("carry", 1.0, {"mass": 1.0, "friction": 1.0}),
    ("drag", 0.2, {"mass": 30.0, "friction": 0.1}),
)

ARM = ("sac", "satesac")  # seed 0 of each, in the first episode of an evaluation
ARM_CONTEXT = {"mass": 30.0, "friction": 0.1}

# Chapters 13 and 17
PICTURES = 24
"""Of a thumbnail, the last of them the state after the episode's last step."""
MOST_BYTES_OF_A_THUMBNAIL = 30_000


@dataclass(frozen=True)
class Film:
    env: str
    context: dict[str, float]

    @property
    def name(self) -> str:
        return film_name(self.env.removeprefix("sami/").removesuffix("-v0").lower(), self.context)


FILMS = (
    Film("sami/HalfCheetah-v0", {}),
    Film("sami/HalfCheetah-v0", {"mass": 1.8, "damping": 1.8}),
    Film("sami/Hopper-v0", {}),
    Film("sami/Hopper-v0", {"mass": 0.25, "damping": 2.0}),
    Film("sami/CrippledHalfCheetah-v0", {"crippled_3": 1.0}),
    Film("sami/CrippledHalfCheetah-v0", {"crippled_0": 1.0, "crippled_3": 1.0}),
)


def store_film(
    name: str, frames: Sequence[Frame], fps: float, max_bytes: int, **origin: Any
) -> None:
    """A film and its poster in a folder, and how they came about in its manifest."""
    with tempfile.TemporaryDirectory() as folder:
        path, poster = Path(folder) / "film.webp", Path(folder) / "poster.webp"
        size = save_video(frames, path, poster, fps, max_bytes)
        for suffix, file in ((".webp", path), ("-poster.webp", poster)):
            store_bytes(name + suffix, file.read_bytes(), **origin)
    print(f"{name}: {size / 1000:.0f} kB", flush=True)


# ---------------------------------------------------------------------- chapter 1


def film_trained_policies(run_dir: Path) -> None:
    for env_id in dict.fromkeys(film.env for film in FILMS):
        config = recipe(env_id, method="sac", seed=0)
        finished = train(config, run_dir / env_id.removeprefix("sami/"))
        wall_seconds = finished.curve["wall_seconds"].iloc[-1]
        for film in (each for each in FILMS if each.env == env_id):
            env = gym.make(env_id, render_mode="rgb_array", camera_name="track")
            every = max(1, round(env.metadata["render_fps"] / FPS))
            fps = env.metadata["render_fps"] / every
            frames = record_episode(
                env,
                lambda obs, agent=finished.agent: agent.act(obs[None], deterministic=True)[0],
                seed=EPISODE_SEED,
                options={"context": film.context},
                every=every,
                max_steps=int(SECONDS * fps * every),
                size=SIZE,
            )
            env.close()
            store_film(
                film.name,
                frames,
                fps,
                MOST_BYTES,
                command=COMMAND,
                config=json.loads(config.to_json())
                | {"context": film.context, "episode_seed": EPISODE_SEED},
                wall_seconds=round(float(wall_seconds), 1),
                directory=VIDEOS,
            )


# ---------------------------------------------------------------------- chapter 17


def film_scripts() -> None:
    for name, speed, context in SCRIPTED:
        film_panda(
            f"panda_{name}{speed:g}".replace(".", "p"),
            panda(),
            partial(SCRIPTS[name], speed=speed),
            context,
            option="--scripts",
            acting={"script": name, "speed": speed},
        )


def film_arm() -> None:
    for method in ARM:
        checkpoint = f"checkpoints/panda/{method}/seed0.safetensors"
        env = Deployed(panda(), FrozenPolicy(load_bytes(checkpoint)))
        film_panda(
            f"panda_{method}",
            env,
            env.act,
            ARM_CONTEXT,
            option="--arm",
            acting={"checkpoint": checkpoint},
        )


def panda() -> gym.Env:
    return gym.make(PANDA, render_mode="rgb_array", width=SIZE[0], height=SIZE[1])


def film_panda(
    name: str,
    env: gym.Env,
    act: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    context: Mapping[str, float],
    option: str,
    acting: dict[str, Any],
) -> None:
    """The first episode of an evaluation; ``acting`` tells the manifest what acts."""
    began = time.perf_counter()
    frames = record_episode(env, act, seed=EVALUATION_SEED, options={"context": context})
    env.close()
    store_film(
        film_name(name, context),
        frames,
        env.metadata["render_fps"],
        MOST_BYTES,
        command=f"{COMMAND} {option}",
        config={"env": PANDA} | acting | {"context": context, "episode_seed": EVALUATION_SEED},
        wall_seconds=round(time.perf_counter() - began, 1),
        directory=VIDEOS,
    )


class Deployed(gym.Wrapper):
    """An environment that lets a policy know what came of its actions."""

    def __init__(self, env: gym.Env, policy: FrozenPolicy):
        super().__init__(env)
        self.policy = policy

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**arguments)
        self.policy.begin(observation[None])
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        outcome = super().step(action)
        observation, reward = outcome[:2]
        self.policy.observe(action[None], np.array([reward]), observation[None])
        return outcome

    def act(self, observation: NDArray[np.floating]) -> NDArray[np.float32]:
        return self.policy.act(observation[None], deterministic=True)[0]


# ---------------------------------------------------------------------- chapters 13 and 17


class EndlessFloor(gym.Wrapper):
    """A MuJoCo body on a floor that is drawn without an edge, for one that runs far.

    Only the looks change: for contacts, every plane is endless.
    """

    TILES_PER_METRE = 0.75  # as close as they are on Gymnasium's floor

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        outcome = super().reset(**arguments)
        model = self.env.unwrapped.model  # type: ignore[attr-defined]
        floor = model.geom("floor")
        material = int(floor.matid[0])
        model.geom_size[floor.id, :2] = 0.0  # MuJoCo's sign for endless
        model.mat_texuniform[material] = True
        model.mat_texrepeat[material] = self.TILES_PER_METRE
        return outcome


class Replay:
    """Plays recorded actions, and sees to it that they lead where they led before."""

    def __init__(self, observations: NDArray[np.float32], actions: NDArray[np.float32]):
        self.recorded = zip(observations, actions, strict=False)  # one observation more: the last

    def __call__(self, observation: NDArray[np.floating]) -> NDArray[np.float32]:
        expected, action = next(self.recorded)
        if not np.array_equal(observation.astype(np.float32), expected):
            raise RuntimeError("the episode left its recorded path, so it is not the one recorded")
        return action


def film_the_end(
    env: gym.Env, played: Trajectories, i: int, seed: int, context: Any, every: int
) -> list[Frame]:
    """``PICTURES`` states, one in ``every``, at the end of one of the recorded episodes."""
    steps = played.action.shape[1]
    width, height = THUMBNAIL_SIZE
    frames = record_episode(
        env,
        Replay(played.observation[i], played.action[i]),
        seed=seed,
        options={"context": context},
        start=steps - every * (PICTURES - 1),
        every=every,
        size=(width, width * 3 // 4),
    )
    return [frame[-height:] for frame in frames]  # what is above is sky, or wall


def film_pictured_episodes(benchmark: str) -> None:
    name = f"embeddings/{benchmark}.parquet"
    table = load_table(name)
    origin = provenance(name)
    env_id, seed = origin["config"]["env"], origin["config"]["picture_seed"]
    camera = {"render_mode": "rgb_array", "width": 480, "height": 360}
    if env_id == PANDA:
        env, every = gym.make(env_id, **camera), 2  # nearly the whole episode
    else:
        env, every = EndlessFloor(gym.make(env_id, camera_name="track", **camera)), 1
    for method, rows in table.groupby("method", sort=False):
        began = time.perf_counter()
        checkpoint = f"checkpoints/{benchmark}/{method}/seed{seed}.safetensors"
        contexts = [json.loads(each) for each in rows["context"]]
        seeds = (EVALUATION_SEED + rows["episode"]).tolist()
        played = record(FrozenPolicy(load_bytes(checkpoint), seed), env_id, contexts, seeds)
        stored = rows.filter(regex=r"^c_\d+$").to_numpy()
        if not np.array_equal(played.embedding[:, -1], stored):
            raise SystemExit(
                f"{checkpoint} does not lead to the embeddings of {name} on this machine, so its "
                "films would be of other episodes. Make the table here first, with: "
                + origin["command"]
            )
        recorded = time.perf_counter()
        for i in np.flatnonzero(rows["episode"] == 0).tolist():
            filmed = time.perf_counter()
            frames = film_the_end(env, played, i, seeds[i], contexts[i], every)
            store_film(
                film_name(f"{benchmark}_{method}", contexts[i]),
                frames,
                env.metadata["render_fps"] / every,
                MOST_BYTES_OF_A_THUMBNAIL,
                command=f"{COMMAND} --thumbnails {benchmark}",
                config={
                    "embeddings": name,
                    "checkpoint": checkpoint,
                    "context": contexts[i],
                    "episode_seed": seeds[i],
                    "episode_return": float(rows["episode_return"].iloc[i]),
                    "pictures": PICTURES,
                    "every": every,
                },
                wall_seconds=round(recorded - began + time.perf_counter() - filmed, 1),
                directory=THUMBNAILS,
            )
    env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/films"))
    parser.add_argument("--scripts", action="store_true", help="films of the Panda's scripts")
    parser.add_argument("--arm", action="store_true", help="films of the Panda's agents")
    parser.add_argument(
        "--thumbnails", metavar="BENCHMARK", help="films of the episodes of its stored embeddings"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.scripts:
        film_scripts()
    elif arguments.arm:
        film_arm()
    elif arguments.thumbnails:
        film_pictured_episodes(arguments.thumbnails)
    else:
        film_trained_policies(arguments.run_dir)


if __name__ == "__main__":
    main()
