"""The Panda task: panda-gym's physics under a context, skills, determinism, worlds that close."""

import gc
from functools import partial

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from sami_tutorial.context_sac import ContextConfig
from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.envs.panda import GOALS, PandaEnv
from sami_tutorial.envs.panda_skills import Teacher, scripted_grip
from sami_tutorial.evaluate import evaluate
from sami_tutorial.sac import SACConfig
from sami_tutorial.train import Run, TrainConfig, rounds_together, train, train_together
from sami_tutorial.video import record_episode

bullet = pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
pytest.importorskip("panda_gym", reason="needs panda-gym (`make panda`)")
from panda_gym.envs.core import RobotTaskEnv  # noqa: E402
from panda_gym.envs.robots.panda import Panda  # noqa: E402
from panda_gym.envs.tasks.pick_and_place import PickAndPlace  # noqa: E402
from panda_gym.envs.tasks.push import Push  # noqa: E402
from panda_gym.pybullet import PyBullet  # noqa: E402

ID = "sami/Panda-v0"
HAND, CUBE, GOAL = slice(0, 3), slice(7, 10), slice(19, 22)


# Three ways to handle a cube, from observation and time to an action


def pick(observation: np.ndarray, t: int) -> np.ndarray:
    """Grasp the cube, lift it, carry it to the goal."""
    hand, cube, goal = observation[HAND], observation[CUBE], observation[GOAL]
    if t < 18:
        way, grip = cube - hand, 1
        way[2] += 0.08 if t < 10 else 0.0
    elif t < 30:
        way, grip = np.array([0, 0, 0.0 if t < 24 else 0.08]), -1
    else:
        way, grip = goal - hand, -1
        way[2] += 0.06 if t < 42 else 0.0
    return np.append(10 * way, grip).clip(-1, 1).astype(np.float32)


def shove(observation: np.ndarray, t: int, height: float = 0.0) -> np.ndarray:
    """Come down behind the cube and sweep through it to the goal, ``height`` above its centre."""
    hand, cube, goal = observation[HAND], observation[CUBE], observation[GOAL]
    direction = (goal - cube) * (1, 1, 0)
    spot = goal if t >= 18 else cube - 0.06 * direction / np.linalg.norm(direction)
    way = (spot - hand).clip(-0.03, 0.03) if t >= 18 else spot - hand
    way[2] = 0.02 + height + (0.08 if t < 10 else 0.0) - hand[2]
    return np.append(10 * way, -1).clip(-1, 1).astype(np.float32)


def flail(observation: np.ndarray, t: int) -> np.ndarray:
    """Random commands, a third of them out of range."""
    return np.random.default_rng(t).uniform(-1.5, 1.5, 4).astype(np.float32)


def rest(observation: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(4, np.float32)


def play(env: gym.Env, policy, seed: int, **context: float) -> tuple[np.ndarray, np.ndarray, dict]:
    """Observation and reward of every step (51, 23), the actions (50, 4) and the last info."""
    observation, info = env.reset(seed=seed, options={"context": context})
    rows, actions = [np.append(observation, 0.0)], []
    for t in range(50):
        actions.append(policy(observation, t))
        observation, reward, *_, info = env.step(actions[-1])
        rows.append(np.append(observation, reward))
    return np.array(rows), np.array(actions), info


# panda-gym's own simulation


class Original(RobotTaskEnv):
    """panda-gym's arm and task, through its own classes, with a context and a free gripper."""

    def __init__(self, goal: str, mass: float, friction: float):
        self.world = world = PyBullet(render_mode="rgb_array", renderer="Tiny")
        robot = Panda(world, block_gripper=False, base_position=np.array([-0.6, 0, 0]))
        task = (Push if goal == "table" else PickAndPlace)(world, reward_type="dense")
        super().__init__(robot, task)
        self.bodies = world._bodies_idx
        world.physics_client.changeDynamics(self.bodies["object"], -1, mass=mass)
        world.set_lateral_friction("table", -1, friction)

    def touches(self, body: str, link: int) -> bool:
        """Whether the cube touches a link of a body."""
        return bool(
            self.world.physics_client.getContactPoints(
                self.bodies["object"], self.bodies[body], linkIndexB=link
            )
        )

    def replay(self, actions: np.ndarray, seed: int) -> tuple[np.ndarray, set[str]]:
        """Observations and rewards (51, 23), and every skill that one of the steps shows."""
        seen, _ = self.reset(seed=seed)
        rows = [[*seen["observation"], *seen["desired_goal"], 0.0]]
        shown = set()
        for action in actions:
            seen, reward, *_ = self.step(action)
            rows.append([*seen["observation"], *seen["desired_goal"], reward])
            if self.world.get_base_position("object")[2] > 0.021:
                free = not self.touches("table", -1)
                held = self.touches("panda", 9) and self.touches("panda", 10)
                shown.add("pick" if free and held else "roll")
        return np.array(rows), shown


CASES = {
    # how, goal, seed, mass, friction, the skill
    "lift": (pick, "air", 1, 1.0, 0.5, "pick"),
    "lift a heavy cube": (pick, "table", 1, 10.0, 0.1, "roll"),
    "too heavy to lift": (pick, "air", 3, 30.0, 1.0, "push"),
    "slide": (shove, "table", 2, 5.0, 0.1, "push"),
    "topple": (shove, "table", 1, 10.0, 5.0, "roll"),
    "flail": (flail, "air", 5, 10.0, 10.0, "push"),
    "rest": (rest, "table", 6, 30.0, 30.0, "push"),
}


@pytest.fixture(scope="module")
def ours() -> dict[str, PandaEnv]:
    """One environment for all cases of a kind of goal: episodes must not depend on their past."""
    return {goal: PandaEnv(goal=goal) for goal in GOALS}


@pytest.mark.parametrize("case", CASES)
def test_same_trajectories_rewards_and_contacts_as_panda_gym(
    case: str, ours: dict[str, PandaEnv]
) -> None:
    how, goal, seed, mass, friction, skill = CASES[case]
    rows, actions, info = play(ours[goal], how, seed, mass=mass, friction=friction)
    original = Original(goal, mass, friction)
    expected, shown = original.replay(actions, seed)
    original.close()
    assert np.abs(rows - expected).max() <= 1e-9
    # The paper's rule: the first of pick, roll, push that some step shows.
    assert info["skill"] == ("pick" if "pick" in shown else "roll" if "roll" in shown else "push")
    assert info["skill"] == skill
    assert info["success"] == (-rows[-1, -1] < 0.05)


def test_the_cases_disturb_the_cube(ours: dict[str, PandaEnv]) -> None:
    """Else their agreement would say nothing about contacts."""
    farthest = {}
    for case, (how, goal, seed, mass, friction, _) in CASES.items():
        cube = play(ours[goal], how, seed, mass=mass, friction=friction)[0][:, CUBE]
        farthest[case] = np.linalg.norm(cube - cube[0], axis=1).max()
    assert farthest["rest"] < 1e-3
    assert farthest["topple"] > 0.005
    assert min(farthest[case] for case in ("lift", "lift a heavy cube", "slide")) > 0.1


# The context


def test_mass_and_friction_change_the_trajectory(ours: dict[str, PandaEnv]) -> None:
    nominal, *_ = play(ours["table"], shove, 2)
    assert np.array_equal(play(ours["table"], shove, 2, mass=1.0, friction=0.5)[0], nominal)
    for context in ({"mass": 5.0}, {"friction": 5.0}):
        assert np.abs(play(ours["table"], shove, 2, **context)[0] - nominal).max() > 1e-3


def test_a_table_of_30_holds_the_cube_no_better_than_one_of_20(ours: dict[str, PandaEnv]) -> None:
    """Bullet multiplies the frictions of table and cube (0.5) and counts at most 10."""

    def shoved(friction: float) -> np.ndarray:
        shove_high = partial(shove, height=0.015)  # so that the fingers do not touch the table
        return play(ours["table"], shove_high, 1, mass=5.0, friction=friction)[0]

    assert np.array_equal(shoved(30.0), shoved(20.0))
    assert not np.array_equal(shoved(19.0), shoved(20.0))


def test_task_sets_are_the_papers() -> None:
    def cells(split: str) -> set[tuple[float, float]]:
        return {(c["friction"], c["mass"]) for c in task_sets(ID).split(split)}

    assert cells("train") == {(0.1, 1), (0.1, 5), (0.1, 10), (1, 1), (5, 1), (10, 1)}
    assert cells("moderate") == {(f, m) for f in (1, 5, 10) for m in (5, 10)}
    heavy, rough = {(f, 30) for f in (0.1, 1, 5, 10, 30)}, {(30, m) for m in (1, 5, 10)}
    assert cells("extreme") == heavy | rough


# Goals and starts


@pytest.mark.parametrize("goal", GOALS)
def test_cube_and_goal_are_drawn_from_their_ranges(goal: str, ours: dict[str, PandaEnv]) -> None:
    env = ours[goal]
    env.reset(seed=0)
    first = np.array([env.reset()[0] for _ in range(300)])
    for drawn in (first[:, CUBE], first[:, GOAL]):
        assert np.abs(drawn[:, :2]).max() <= 0.15
        # 300 uniform draws all miss the outer tenth on both sides with probability 1e-13.
        assert np.abs(drawn[:, :2]).max(axis=0).min() > 0.135
    assert np.allclose(first[:, CUBE][:, 2], 0.02)
    height = first[:, GOAL][:, 2]
    if goal == "table":
        assert np.allclose(height, 0.02)
    else:
        assert height.min() == np.float32(0.02) and 0.2 < height.max() <= 0.22
        # 90 of 300 expected; a binomial is four standard deviations off once in 16000 times.
        assert 58 <= (height == np.float32(0.02)).sum() <= 122


def test_a_seed_starts_the_same_episode_in_every_split() -> None:
    starts = [PandaEnv(split).reset(seed=8)[0] for split in ("train", "moderate", "nominal")]
    assert np.array_equal(starts[0], starts[1]) and np.array_equal(starts[0], starts[2])


# Determinism


def test_no_episode_depends_on_what_was_played_before(ours: dict[str, PandaEnv]) -> None:
    """Neither in the same world, with a cube held or fallen, nor in others beside it."""
    episodes = [
        (how, seed, {"mass": mass, "friction": friction})
        for seed, (how, mass, friction) in enumerate(
            [(pick, 1.0, 0.5), (shove, 10.0, 5.0), (shove, 1.0, 0.1), (flail, 5.0, 1.0)]
        )
    ]
    fresh = []
    for how, seed, context in episodes:
        env = PandaEnv()
        fresh.append(play(env, how, seed, **context)[0])
        env.close()
    for k in np.random.default_rng(0).permutation(len(episodes) * 3) % len(episodes):
        how, seed, context = episodes[k]
        assert np.array_equal(play(ours["table"], how, seed, **context)[0], fresh[k])


def test_worlds_in_lockstep_do_not_disturb_each_other() -> None:
    contexts = [{"mass": 1.0, "friction": 0.5}, {"mass": 10.0, "friction": 5.0}]
    together = make_vec(ID, 2, seed=30)
    observation, _ = together.reset(options={"context": contexts})
    rows, actions = [], []
    for t in range(50):
        actions.append(np.stack([pick(observation[0], t), shove(observation[1], t)]))
        observation, reward, _, truncated, info = together.step(actions[-1])
        seen = np.stack(info["final_obs"]) if truncated.all() else observation
        rows.append(np.column_stack([seen, reward]))
    together.close()
    assert truncated.all()
    for i, context in enumerate(contexts):
        alone = PandaEnv()
        expected, _, last = play(alone, lambda _, t, i=i: actions[t][i], 30 + i, **context)
        alone.close()
        assert np.array_equal(np.array(rows)[:, i], expected[1:])
        for key, value in last.items():
            assert np.array_equal(info["final_info"][key][i], value), key


# Worlds that close


def servers() -> int:
    """How many Bullet servers this process has."""
    return sum(bullet.isConnected(client) for client in range(100))


def test_fifty_environments_leave_no_server_behind() -> None:
    gc.collect()
    before = servers()
    for _ in range(25):
        env = PandaEnv("nominal")
        assert servers() == before + 1
        env.close()
        assert servers() == before
        env.close()  # again does no harm
    for _ in range(25):
        PandaEnv("nominal")  # not closed, but no longer held by anyone
    gc.collect()
    assert servers() == before


# Pictures


def blue(picture: np.ndarray) -> np.ndarray:
    """The pixels of the cube: clearly more blue than red."""
    colours = picture.astype(int)
    return picture[colours[..., 2] - colours[..., 0] > 40]


def test_pictures_show_the_scene_and_change_nothing(ours: dict[str, PandaEnv]) -> None:
    env = PandaEnv(render_mode="rgb_array", width=160, height=90)
    drawn, *_ = play(env, shove, 2, mass=5.0)
    assert np.array_equal(drawn, play(ours["table"], shove, 2, mass=5.0)[0])

    picture = env.render()
    assert picture.shape == (90, 160, 3) and picture.dtype == np.uint8
    red, green, _ = np.moveaxis(picture.astype(int), -1, 0)
    assert (green - red > 80).sum() > 5  # the mat at the goal
    assert len(blue(picture)) > 5
    env.reset(seed=2, options={"context": {"mass": 30.0}})
    dark = blue(env.render()).mean()
    env.reset(seed=2, options={"context": {"mass": 1.0}})
    assert dark < blue(env.render()).mean() - 40  # the heavier, the darker
    env.close()


def test_films_and_sizes() -> None:
    env = gym.make(ID, render_mode="rgb_array")
    frames = record_episode(env, lambda _: np.ones(4, np.float32), seed=0, every=10, max_steps=20)
    assert [frame.shape for frame in frames] == [(270, 480, 3)] * 3
    assert not np.array_equal(frames[0], frames[-1])
    env.close()
    env = PandaEnv()
    env.reset(seed=0)
    assert env.render() is None
    env.close()


@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity")
def test_gymnasium_accepts_the_pictures_too() -> None:
    check_env(gym.make(ID, render_mode="rgb_array", width=64, height=36).unwrapped)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "moon"}, r"goal is 'moon'; choose one of .*table.*air"),
        ({"render_mode": "human"}, r"render_mode is 'human'; choose 'rgb_array'"),
        ({"width": 0}, r"width is 0; give a positive integer"),
        ({"height": 2.5}, r"height is 2.5; give a positive integer"),
        ({"split": "hard"}, r"split is 'hard'; choose one of .*train"),
    ],
)
def test_bad_options_are_rejected_by_name(options: dict, message: str) -> None:
    gc.collect()
    before = servers()
    with pytest.raises(ValueError, match=message):
        PandaEnv(**options)
    assert servers() == before


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros((1, 4)), r"action has shape \(1, 4\).*shape \(4,\)"),
        (np.full(4, np.inf), "action is .*inf.*finite numbers from -1 to 1"),
    ],
)
def test_bad_actions_are_rejected_and_change_nothing(
    action: np.ndarray, message: str, ours: dict[str, PandaEnv]
) -> None:
    env = ours["table"]
    expected, *_ = play(env, rest, 3)
    first, _ = env.reset(seed=3, options={"context": {}})
    with pytest.raises(ValueError, match=message):
        env.step(action)
    rows = [np.append(first, 0.0)]
    for _ in range(50):
        observation, reward, _, last, _ = env.step(np.zeros(4, np.float32))
        rows.append(np.append(observation, reward))
    assert last and np.array_equal(rows, expected)


# Training


TAUGHT = {
    "steps": 800,
    "num_envs": 4,
    "warmup_steps": 400,
    "exploring_envs": 1,
    "teacher": True,
    "imitation_updates": 3,
    "imitation_steps": 600,
    "updates_at_once": 2,
    "update_every": 10,
    "hindsight": 0.5,
    "replay_capacity": 1_000,
    "sac": SACConfig(hidden=(16, 16)),
}


@pytest.mark.parametrize("method", ["oracle", "tesac", "pearl"])
def test_a_taught_run_that_is_killed_goes_on_as_if_it_had_not_been(method: str, tmp_path) -> None:
    window = {} if method == "pearl" else {"window": 10}
    config = TrainConfig(
        ID, method=method, context=ContextConfig(episodes=4, hidden=8, **window), **TAUGHT
    )
    whole = train(config, progress=False)

    class Killed(Exception):
        pass

    def kill(run: Run) -> None:
        if run.round == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path, progress=False, checkpoint_seconds=0, on_round=kill)
    resumed = train(config, tmp_path, progress=False)
    for name, value in whole.agent.state_dict().items():
        assert torch.equal(value, resumed.agent.state_dict()[name]), name


@pytest.mark.parametrize("method", ["sac", "tesac"])
def test_a_taught_population_is_its_members(method: str) -> None:
    """Also where goals are exchanged and a teacher is imitated."""
    context = ContextConfig(episodes=4, hidden=8, window=10)
    settings = TAUGHT | {"steps": 440}  # rounding grows with every update
    configs = [
        TrainConfig(ID, method=method, seed=seed, context=context, **settings) for seed in (0, 5)
    ]
    together = train_together(configs, progress=False)
    for config, member in zip(configs, together, strict=True):
        for name, value in train(config, progress=False).agent.state_dict().items():
            own = member.agent.state_dict()[name]
            torch.testing.assert_close(own, value, atol=1e-5, rtol=1e-5, msg=name)


def test_the_teacher_plays_the_warm_up_and_its_share_of_the_rest() -> None:
    """Rounds 0 and 1 are the warm-up of four environments; then one of four goes on exploring."""
    run = Run(TrainConfig(ID, **TAUGHT))
    for number, taught in ((0, 4), (1, 4), (2, 1)):
        seeds = np.random.SeedSequence([0, number])
        rng = np.random.default_rng(seeds)
        next(run.rounds())
        teacher = Teacher(4, rng)
        episode = run.replay.episodes(torch.arange(4 * number, 4 * number + 4))
        for t in range(50):
            shown = teacher.act(episode.observation[:, t].numpy())
            same = np.isclose(shown, episode.action[:, t].numpy()).all(axis=1)
            assert same[:taught].all() and not same[taught:].any()


def test_imitation_fades_and_copies_what_the_teacher_would_do() -> None:
    """Also under an exchanged goal; 800 steps of 4 environments, the first 400 a warm-up."""
    run = Run(TrainConfig(ID, **TAUGHT))
    seen = []

    def look() -> None:
        batch, weight = run.batch()
        if weight > 0:
            advice = scripted_grip(batch.observation.numpy(), speed=0.45)
            assert np.array_equal(batch.shown.numpy(), advice)
            assert not np.array_equal(advice, batch.action.numpy())
        else:
            assert batch.shown is None
        seen.append((run.env_steps, weight))

    for _ in rounds_together([run], look):
        pass
    for steps, weight in seen:
        assert weight == pytest.approx(max(0.0, 1 - steps / 600))
    assert seen[0] == (400, pytest.approx(1 / 3)) and seen[-1] == (800, 0.0)
    run = Run(TrainConfig(ID, **TAUGHT, imitation_left=0.25))
    for steps, left in ((0, 1.0), (300, 0.5), (450, 0.25), (800, 0.25)):
        run.env_steps = steps
        assert run.imitation == pytest.approx(left)

    run = Run(TrainConfig(ID, method="tesac", context=ContextConfig(window=10), **TAUGHT))
    rounds = run.rounds()
    next(rounds)
    windows = run.sequences(torch.Generator().manual_seed(0))
    advice = scripted_grip(windows.observation[:, :10].numpy(), speed=0.45)
    assert np.array_equal(windows.shown.numpy(), advice)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imitation_steps": 400}, "imitation_steps is 400, no more than the 400 of the warm-up"),
        ({"teacher": False}, "imitation_steps is 600, but there is nobody to imitate"),
        ({"imitation_left": -0.1}, "imitation_left is -0.1; give a number from 0 to 1"),
        ({"imitation_left": 0.1, "imitation_steps": 0}, "and 0 where nobody is imitated"),
    ],
)
def test_an_imitation_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(ID, **TAUGHT | changes)


def test_training_and_evaluation_run() -> None:
    """What the library does with every task: an encoder trained, then judged without updates."""
    config = TrainConfig(
        ID,
        method="satesac",
        steps=400,
        num_envs=2,
        warmup_steps=200,
        update_every=10,
        replay_capacity=1_000,
        sac=SACConfig(hidden=(16, 16)),
    )
    result = train(config, progress=False)
    assert len(result.curve) == 4
    assert result.curve["episode_return"].between(-50, 0).all()
    contexts = task_sets(ID).extreme[:2]
    table = evaluate(result.agent, ID, contexts, episodes=1, method="satesac")
    assert isinstance(table, pd.DataFrame) and len(table) == 2
    assert table["skill"].isin(["push", "pick", "roll"]).all()
    assert table["success"].isin([True, False]).all()
