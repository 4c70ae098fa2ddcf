"""The films of chapter 1: one policy per body, the same policy under different features.

    python experiments/films.py                              # about 25 minutes on one core

Each policy is a context-free SAC trained on the training tasks of its body. The films and their
posters go to book/_static/videos, with the command, config and commit of each in manifest.json
there. Finished policies are kept in runs/films and used again on the next call.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import torch

from sami_tutorial.results import store_bytes
from sami_tutorial.train import recipe, train
from sami_tutorial.video import record_episode, save_video

VIDEOS = Path(__file__).parents[1] / "book" / "_static" / "videos"
SIZE = (384, 216)  # pixels
FPS = 20  # at most about so many pictures per second
SECONDS = 5.0
EPISODE_SEED = 7


@dataclass(frozen=True)
class Film:
    env: str
    context: dict[str, float]

    @property
    def name(self) -> str:
        values = self.context.items()
        features = [f"{k}{v:g}" for k, v in values if not k.startswith("crippled_")]
        features += [
            k.replace("crippled_", "joint") for k, v in values if k.startswith("crippled_")
        ]
        body = self.env.removeprefix("sami/").removesuffix("-v0").lower()
        return "_".join([body, *(features or ["nominal"])]).replace(".", "p")


FILMS = (
    Film("sami/HalfCheetah-v0", {}),
    Film("sami/HalfCheetah-v0", {"mass": 1.8, "damping": 1.8}),
    Film("sami/Hopper-v0", {}),
    Film("sami/Hopper-v0", {"mass": 0.25, "damping": 2.0}),
    Film("sami/CrippledHalfCheetah-v0", {"crippled_3": 1.0}),
    Film("sami/CrippledHalfCheetah-v0", {"crippled_0": 1.0, "crippled_3": 1.0}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/films"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for env_id in dict.fromkeys(film.env for film in FILMS):
        config = recipe(env_id, method="sac", seed=0)
        finished = train(config, arguments.run_dir / env_id.removeprefix("sami/"))
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
            with tempfile.TemporaryDirectory() as folder:
                path, poster = Path(folder) / "film.webp", Path(folder) / "poster.webp"
                size = save_video(frames, path, poster, fps, max_bytes=200_000)
                for suffix, file in ((".webp", path), ("-poster.webp", poster)):
                    store_bytes(
                        film.name + suffix,
                        file.read_bytes(),
                        command="python experiments/films.py",
                        config=json.loads(config.to_json())
                        | {"context": film.context, "episode_seed": EPISODE_SEED},
                        wall_seconds=round(float(wall_seconds), 1),
                        directory=VIDEOS,
                    )
            print(f"{film.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
