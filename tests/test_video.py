"""Films of episodes: which frames are kept, what lands on disk and how large it is."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import sami_tutorial  # noqa: F401  (registers the environments)
from sami_tutorial.video import film_name, record_episode, save_video


class Counter(gym.Env):
    """Draws the number of its steps as a grey level; ends after 10."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.options = options
        self.picture = np.zeros((6, 8, 3), np.uint8)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert action == self.steps + 1  # the policy saw the last observation
        self.steps += 1
        return np.full(1, self.steps, np.float32), 0.0, self.steps == 10, False, {}

    def render(self):
        self.picture[:] = self.steps  # one buffer for all pictures, as some renderers have it
        return self.picture


def grey_levels(frames: list[np.ndarray]) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


def moving_square(count: int, height: int = 60, width: int = 90) -> list[np.ndarray]:
    frames = np.full((count, height, width, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        frame[20:40, 2 * i : 2 * i + 20] = (200, 30, 30)
    return list(frames)


@pytest.mark.parametrize(
    ("every", "max_steps", "expected"),
    [
        (1, None, list(range(11))),
        (4, None, [0, 4, 8]),
        (3, 7, [0, 3, 6]),
        (1, 2, [0, 1, 2]),
        (1, 99, list(range(11))),
    ],
)
def test_frames_kept(every: int, max_steps: int | None, expected: list[int]) -> None:
    env = Counter()
    frames = record_episode(env, lambda o: o + 1, seed=0, every=every, max_steps=max_steps)
    assert grey_levels(frames) == expected
    assert all(frame.shape == (6, 8, 3) and frame.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize(
    ("start", "every", "expected"), [(8, 1, [8, 9, 10]), (3, 4, [3, 7]), (10, 5, [10])]
)
def test_a_film_can_begin_later(start: int, every: int, expected: list[int]) -> None:
    frames = record_episode(Counter(), lambda o: o + 1, seed=0, start=start, every=every)
    assert grey_levels(frames) == expected


@pytest.mark.parametrize(("start", "message"), [(11, "over after 10 steps"), (-1, "0 or more")])
def test_a_film_begins_within_the_episode(start: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_episode(Counter(), lambda o: o + 1, seed=0, start=start)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({}, "body_nominal"),
        ({"mass": 0.25, "damping": 2.0}, "body_mass0p25_damping2"),
        ({"crippled_0": 1.0, "crippled_3": 1.0}, "body_joint0_joint3"),
        ({"crippled_0": 0.0}, "body_nominal"),
    ],
)
def test_films_are_named_for_their_task(context: dict[str, float], expected: str) -> None:
    assert film_name("body", context) == expected


def test_pictures_are_scaled_and_options_reach_the_reset() -> None:
    env = Counter()
    frames = record_episode(env, lambda o: o + 1, seed=0, options={"a": 1}, size=(16, 12))
    assert {frame.shape for frame in frames} == {(12, 16, 3)}
    assert grey_levels(frames) == list(range(11))
    assert env.options == {"a": 1}


def test_same_seed_same_film(can_draw: None) -> None:
    env = gym.make("sami/HalfCheetah-v0", render_mode="rgb_array", width=96, height=54)

    def film(seed: int) -> np.ndarray:
        return np.stack(record_episode(env, lambda _: np.ones(6), seed=seed, max_steps=5))

    first = film(1)
    assert first.shape == (6, 54, 96, 3)
    assert not np.array_equal(first, film(2))
    assert np.array_equal(first, film(1))
    env.close()


def test_the_film_holds_every_frame_at_the_right_speed(tmp_path: Path) -> None:
    frames = moving_square(12)
    film, poster = tmp_path / "new" / "square.webp", tmp_path / "new" / "square-poster.png"
    size = save_video(frames, film, poster, fps=20)
    assert size == film.stat().st_size
    assert sorted(path.name for path in film.parent.iterdir()) == [poster.name, film.name]

    with Image.open(film) as picture:
        assert (picture.format, picture.n_frames, picture.size) == ("WEBP", 12, (90, 60))
        assert picture.info["loop"] == 0  # endless
        for i, frame in enumerate(frames):
            picture.seek(i)
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert np.abs(shown - frame).mean() < 5
            assert picture.info["duration"] == 50
    with Image.open(poster) as still:
        assert np.abs(np.asarray(still.convert("RGB")).astype(int) - frames[6]).mean() < 1


def test_quality_gives_way_to_size_and_then_the_film_is_refused(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (5, 90, 120, 3), np.uint8))
    film, poster = tmp_path / "noise.webp", tmp_path / "noise-poster.webp"
    best = save_video(noise, film, poster, fps=10)
    smaller = save_video(noise, film, poster, fps=10, max_bytes=int(0.7 * best))
    assert smaller <= 0.7 * best

    before = film.read_bytes()
    with pytest.raises(ValueError, match=r"max_bytes=100; record fewer"):
        save_video(noise, film, poster, fps=10, max_bytes=100)
    assert film.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, poster = tmp_path / "a.webp", tmp_path / "a-poster.webp"
    save_video(moving_square(3), film, poster, fps=10)
    before = film.read_bytes()

    def full_disk(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_video(moving_square(9), film, poster, fps=10)
    assert film.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2  # and no temporary file


def test_bad_input_is_rejected_by_name(tmp_path: Path) -> None:
    film, poster = tmp_path / "a.webp", tmp_path / "a.png"
    good = moving_square(2)
    for frames in ([], [good[0], good[1][:9]], [good[0][..., 0]], [good[0][..., :2]]):
        with pytest.raises(ValueError, match="frames have shapes"):
            save_video(frames, film, poster, fps=10)
    for fps in (0, -1, float("nan"), 2000):
        with pytest.raises(ValueError, match="fps is"):
            save_video(good, film, poster, fps=fps)
    with pytest.raises(ValueError, match=r"path is .*a\.mp4"):
        save_video(good, tmp_path / "a.mp4", poster, fps=10)
    with pytest.raises(ValueError, match=r"poster_path is .*a\.txt"):
        save_video(good, film, tmp_path / "a.txt", fps=10)
    assert not list(tmp_path.iterdir())

    with pytest.raises(ValueError, match="every is 0"):
        record_episode(Counter(), lambda o: o, seed=0, every=0)
    with pytest.raises(ValueError, match="max_steps is 0"):
        record_episode(Counter(), lambda o: o, seed=0, max_steps=0)
    silent = gym.make("sami/CubeMove-v0")
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        record_episode(silent, lambda o: o, seed=0)
