"""Short films of episodes, small enough for a page and readable without a player.

A film is an animated WebP: a picture to every browser, so it needs neither JavaScript nor a video
player, and Pillow writes it where an H.264 file would ask readers to install an encoder. Beside
each film lies its *poster*, one still frame, for print and for readers who prefer no motion. The
book keeps both under ``book/_static/videos``, as ``<name>.webp`` and ``<name>-poster.webp``, and
shows them as ::

    <figure>
      <picture>
        <source srcset="<name>-poster.webp" media="(prefers-reduced-motion: reduce), print">
        <img src="<name>.webp" width="480" height="270" loading="lazy" alt="what moves, and how">
      </picture>
      <figcaption>Body, context, policy and its seed; the speed if it is not real time.</figcaption>
    </figure>

Used from chapter 1, *Tasks and skills*, on.

Small films under ``book/_static/thumbnails`` go with the dots of a picture and are shown when a
reader points at one (:func:`sami_tutorial.figures.add_films`): chapter 13, *What the embedding
knows*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sami_tutorial.files import write_whole

Frame = NDArray[np.uint8]  # (height, width, 3): red, green, blue

THUMBNAIL_SIZE = (240, 135)
"""Width and height in pixels of the films that go with a figure's dots; the page keeps room."""

_QUALITIES = (80, 65, 50, 35, 20)


def film_name(prefix: str, context: Mapping[str, float]) -> str:
    """The name of a film without its ending, e.g. ``"hopper_mass0p25_damping2"``.

    Args:
        prefix: what plays, e.g. a body or a benchmark and a method.
        context: the task's features; those at rest (a ``crippled_<i>`` of 0) may be left out.
    """
    features = [
        f"joint{name.removeprefix('crippled_')}"
        if name.startswith("crippled_")
        else f"{name}{value:g}".replace(".", "p")
        for name, value in context.items()
        if value or not name.startswith("crippled_")
    ]
    return "_".join([prefix, *(features or ["nominal"])])


def record_episode(
    env: gym.Env,
    policy: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    start: int = 0,
    every: int = 1,
    max_steps: int | None = None,
    size: tuple[int, int] | None = None,
) -> list[Frame]:
    """Plays one episode and returns its pictures, the state after ``start`` steps first.

    A film of them runs in real time at ``env.metadata["render_fps"] / every`` frames per second.

    Args:
        env: a single environment made with ``render_mode="rgb_array"``.
        policy: from observation to action.
        seed: of the episode.
        options: of the reset, e.g. ``{"context": {"mass": 2.0}}``.
        start: the steps that pass before the first picture.
        every: keep one picture in so many steps, counted from ``start``.
        max_steps: stop after so many steps; None plays to the end of the episode.
        size: (width, height) in pixels to scale the pictures to; None keeps them as drawn.

    Raises:
        ValueError: for an environment that draws no RGB pictures, a negative ``start``, one that
            the episode does not reach, or another number below 1.
    """
    if env.render_mode != "rgb_array":
        raise ValueError(
            f"env has render_mode {env.render_mode!r}; make it with render_mode='rgb_array'"
        )
    if start < 0:
        raise ValueError(f"start is {start!r}; give a number of steps, 0 or more")
    if every < 1:
        raise ValueError(f"every is {every!r}; give an integer of at least 1")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps is {max_steps!r}; give an integer of at least 1, or None")

    observation, _ = env.reset(seed=seed, options=options)
    frames = [] if start else [_picture(env, size)]
    steps, done = 0, False
    while not done and steps != max_steps:
        observation, _, terminated, truncated, _ = env.step(policy(observation))
        steps += 1
        done = terminated or truncated
        if steps >= start and (steps - start) % every == 0:
            frames.append(_picture(env, size))
    if not frames:
        raise ValueError(f"start is {start}, but the episode was over after {steps} steps")
    return frames


def save_video(
    frames: Sequence[Frame],
    path: str | Path,
    poster_path: str | Path,
    fps: float,
    max_bytes: int = 300_000,
) -> int:
    """Writes an endlessly repeating film and its poster, the frame in the middle.

    The film gets the best picture quality with which it fits into ``max_bytes``. Both files are
    written under a temporary name and renamed, so that neither is ever seen half written.

    Args:
        frames: pictures of equal shape (height, width, 3), red, green and blue from 0 to 255.
        path: of the film, ending in ``.webp``.
        poster_path: of the poster; the ending chooses the format (``.webp``, ``.png``, ``.jpg``).
        fps: frames per second, at most 1000.
        max_bytes: the largest film allowed.

    Returns:
        The size of the film in bytes.

    Raises:
        ValueError: if there are no frames, their shapes differ, or the film is too large at any
            quality; nothing is written then.
    """
    path, poster_path = Path(path), Path(poster_path)
    if path.suffix != ".webp":
        raise ValueError(f"path is {str(path)!r}; a film's name ends in .webp")
    still_format = Image.registered_extensions().get(poster_path.suffix.lower())
    if still_format is None:
        raise ValueError(f"poster_path is {str(poster_path)!r}; let it end in .webp, .png or .jpg")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps is {fps!r}; give frames per second, above 0 and at most 1000")
    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or shape[2] != 3:
        raise ValueError(
            f"frames have shapes {sorted({frame.shape for frame in frames})}; "
            "give at least one, all of one shape (height, width, 3)"
        )

    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    for quality in _QUALITIES:
        film = BytesIO()
        pictures[0].save(
            film,
            "WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 / fps),  # milliseconds per frame
            loop=0,
            quality=quality,
            minimize_size=True,
        )
        if film.tell() <= max_bytes:
            break
    else:
        raise ValueError(
            f"frames make a film of {film.tell()} bytes even at the lowest quality, above "
            f"max_bytes={max_bytes}; record fewer (every, max_steps) or smaller ones (size)"
        )

    poster = BytesIO()
    pictures[len(pictures) // 2].save(poster, still_format, quality=_QUALITIES[0])
    write_whole(path, film.getvalue())
    write_whole(poster_path, poster.getvalue())
    return film.tell()


def _picture(env: gym.Env, size: tuple[int, int] | None) -> Frame:
    picture: Any = env.render()
    if size is None or size == picture.shape[1::-1]:
        return picture.copy()
    scaled = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(scaled)
