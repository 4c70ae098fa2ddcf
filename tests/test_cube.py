"""CubeMove: its physics, its batched form, and the proof of its optimal-skill map."""

import math
from itertools import product

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.envs.cube import DISTRACTORS, CubeMoveEnv, context_space
from sami_tutorial.envs.cube_skills import (
    STEP_BUDGET,
    optimal_skill,
    pick_feasible,
    pick_steps,
    push_feasible,
    push_steps,
    scripted_pick,
    scripted_push,
    travel_steps,
)
from sami_tutorial.envs.vector import LockstepVectorEnv

ID = "sami/CubeMove-v0"
SPLITS = ("train", "moderate", "extreme")
EVERY = [context for split in SPLITS for context in task_sets(ID).split(split)]
# Every mass of the task sets with every friction of theirs, impossible tasks included.
GRID = list(product(sorted({c["mass"] for c in EVERY}), sorted({c["friction"] for c in EVERY})))
MASS, FRICTION = np.array(GRID).T
EXPERTS = {
    "push": (scripted_push, push_feasible, push_steps),
    "pick": (scripted_pick, pick_feasible, pick_steps),
}
EVERY_EXPERT = pytest.mark.parametrize("name", EXPERTS)


def play(expert, contexts, distractors=0, seed=0):
    """One episode per context: success at every step (40, n), final skills (n,), first states."""
    env = make_vec(ID, len(contexts), seed=seed, distractors=distractors)
    observation, _ = env.reset(options={"context": contexts})
    first, success = observation, []
    for _ in range(40):
        observation, _, _, ends, info = env.step(expert(observation))
        success.append(info["final_info"]["success"] if ends.all() else info["success"])
    return np.array(success), info["final_info"]["skill"], first


# ---------------------------------------------------------------------- the optimal-skill map


@EVERY_EXPERT
def test_an_expert_solves_exactly_the_tasks_that_the_closed_form_says(name):
    expert, feasible, _ = EXPERTS[name]
    episodes = 100  # per task, with random goals and fingers
    contexts = [{"mass": m, "friction": f} for m, f in GRID] * episodes
    success, skill, first = play(expert, contexts)
    possible = np.tile(feasible(FRICTION, MASS), episodes)
    assert 0.2 < possible.mean() < 0.8
    assert np.array_equal(success[-1], possible)  # all of a task's episodes, or none
    assert np.array_equal(skill, np.where(possible, name, "none"))
    # The sample held near and far goals on both sides, with open and with closed fingers.
    offset, closure = first[:, 0], first[:, 3]
    for side, fingers in product((-1, 1), (0, 1)):
        drawn = (side * offset)[(side * offset > 0) & (closure == fingers)]
        assert drawn.min() < 0.31 and drawn.max() > 0.49


@EVERY_EXPERT
def test_an_expert_needs_no_more_steps_than_the_closed_form(name):
    expert, feasible, steps = EXPERTS[name]
    possible = feasible(FRICTION, MASS)
    contexts = [{"mass": m, "friction": f} for m, f in GRID] * 100
    success, _, _ = play(expert, contexts)
    settled = 40 - np.argmax(~success[::-1], axis=0)  # from this step on, success stays
    slowest = settled.reshape(100, -1).max(axis=0)[possible]
    limit = steps(FRICTION, MASS)[possible]
    assert (slowest <= limit).all()
    assert (slowest >= 0.7 * limit).all()  # and the closed form is not empty caution


@EVERY_EXPERT
def test_no_combination_of_distractors_changes_which_skill_works(name):
    expert, feasible, _ = EXPERTS[name]
    corners = np.array(list(product(*((d.low, d.high) for d in DISTRACTORS))))
    assert len(corners) == 2**8
    contexts = [
        {"mass": m, "friction": f} | {d.name: v for d, v in zip(DISTRACTORS, corner, strict=True)}
        for corner in corners
        for m, f in GRID
    ]
    success, _, _ = play(expert, contexts, distractors=len(DISTRACTORS), seed=1)
    assert np.array_equal(success[-1], np.tile(feasible(FRICTION, MASS), len(corners)))


def test_the_skill_never_depends_on_the_goal_distance():
    near, far = (
        [steps(FRICTION, MASS, distance) <= STEP_BUDGET for steps in (push_steps, pick_steps)]
        for distance in (0.3, 0.5)
    )
    assert np.array_equal(near, far)


def fine_simulation(press, drag, distance, dt=1e-4):
    """Time from rest to rest, by brute force: full force, then full brake, at most 0.6 m/s."""
    position = speed = time = 0.0
    while position < distance:
        braking = math.sqrt(2 * (press + drag) * (distance - position))
        speed = min(speed + (press - drag) * dt, 0.6, max(braking, 1e-3))
        position += speed * dt
        time += dt
    return time


@pytest.mark.parametrize(
    ("friction", "mass", "distance"),
    [
        (0.1, 2.6, 0.5),
        (0.1, 2.6, 0.3),
        (0.03, 1.4, 0.4),
        (0.9, 0.4, 0.5),
        (0.2, 1.9, 0.5),
        (0.15, 1.9, 0.5),
    ],
)
def test_the_step_counts_match_a_fine_simulation(friction, mass, distance):
    push = fine_simulation(4 / mass, 9.81 * friction, distance) / 0.05
    assert push_steps(friction, mass, distance) - 4 == pytest.approx(push, abs=1.01)
    exact = travel_steps(distance, 4 / mass - 9.81 * friction, 4 / mass + 9.81 * friction)
    assert exact == pytest.approx(push, abs=0.2)
    if mass * 9.81 < 12:
        carry = fine_simulation(4 / mass, 0, distance) / 0.05
        lifting = 0.02 / (0.6 * 0.05 * (1 - mass * 9.81 / 12))
        assert pick_steps(friction, mass, distance) - 6 == pytest.approx(carry + lifting, abs=2.01)


def test_skills_fail_where_the_forces_say():
    assert optimal_skill(0.1, 0.6) == "both"
    assert optimal_skill(0.1, 1.7) == "push"  # 16.7 N cannot be lifted with 12 N
    assert optimal_skill(1.6, 0.6) == "pick"  # 9.4 N of friction against 4 N
    assert optimal_skill(1.6, 1.7) == "none"
    assert np.isinf(push_steps(4.01 / 9.81, 1.0)) and np.isfinite(push_steps(3.99 / 9.81, 1.0))
    assert np.isinf(pick_steps(0.1, 12.01 / 9.81)) and np.isfinite(pick_steps(0.1, 11.9 / 9.81))


def test_the_map_broadcasts():
    frictions, masses = np.array([0.1, 1.6]), np.array([[0.6], [1.7]])
    expected = [["both", "pick"], ["push", "none"]]
    assert np.array_equal(optimal_skill(frictions, masses), expected)
    assert pick_steps(frictions, masses).shape == push_steps(frictions, masses).shape == (2, 2)


# ---------------------------------------------------------------------- task sets


def classes(split):
    return sorted(str(optimal_skill(c["friction"], c["mass"])) for c in task_sets(ID).split(split))


@pytest.mark.parametrize(("split", "each"), [("train", 5), ("moderate", 4), ("extreme", 7)])
def test_every_set_holds_each_class_equally_often_and_nothing_impossible(split, each):
    assert classes(split) == ["both"] * each + ["pick"] * each + ["push"] * each


def test_moderate_tasks_recombine_training_values_and_extreme_ones_leave_their_range():
    sets = task_sets(ID)
    for name in ("mass", "friction"):
        trained = {context[name] for context in sets.train}
        assert {context[name] for context in sets.moderate} <= trained
    bounds = {
        name: (min(c[name] for c in sets.train), max(c[name] for c in sets.train))
        for name in ("mass", "friction")
    }
    for context in sets.extreme:
        assert any(not low <= context[name] <= high for name, (low, high) in bounds.items())


# ---------------------------------------------------------------------- physics and reward


def reference_step(state, action, context):
    """One step for one cube in plain Python, written from the description with if and else."""
    x, v, z, w, goal = state
    n = {d.name: d.nominal for d in DISTRACTORS} | context
    m, weight = n["mass"], n["mass"] * 9.81
    target = 0.6 * (n["distractor_0"] * action[0] + n["distractor_6"])
    dt = 0.05

    if action[1] > 0:
        w = min(1.0, w + 0.25 * n["distractor_4"])
        if w == 1.0 and weight < 12:
            z = min(0.06, z + dt * 0.6 * action[1] * (1 - weight / 12))
    else:
        on_table = z == 0
        if w == 1.0:
            z = max(0.0, z + dt * 0.6 * action[1])
        if on_table:
            w = max(0.0, w - 0.25 * n["distractor_4"])

    if z > 0.02:
        force = m * (target + n["distractor_2"] - v) / dt
        v += dt / m * max(-4, min(4, force))
    else:
        drag = n["friction"] * weight
        if w == 0.0:
            ahead = (target > 0) - (target < 0)
            force = m * (target - v) / dt + ahead * drag
            v += dt / m * max(-4, min(4, force))
        v = max(0.0, v - dt / m * drag) if v > 0 else min(0.0, v + dt / m * drag)
    x += dt * v
    if abs(x) > 1:
        x, v = (1.0 if x > 0 else -1.0), 0.0

    reward = -(abs(x - goal) + z) / 0.5 - 0.01 * (action[0] ** 2 + action[1] ** 2)
    seen_x = x + n["distractor_1"]
    seen = (
        goal + n["distractor_7"] - seen_x,
        v * n["distractor_3"],
        z / 0.06 * n["distractor_5"],
        w,
        seen_x,
    )
    return (x, v, z, w, goal), seen, reward, abs(x - goal) + z <= 0.05


def sticky_actions(rng, steps, num_envs):
    """Commands that change now and then, so that fingers close, lift, lower and open."""
    fresh = rng.random((steps, num_envs, 1)) < 0.15
    actions = rng.uniform(-1.2, 1.2, (steps, num_envs, 2)).astype(np.float32)
    for t in range(1, steps):
        actions[t] = np.where(fresh[t], actions[t], actions[t - 1])
    return actions


def test_physics_reward_and_observation_equal_a_plain_reference():
    num_envs = 300
    rng = np.random.default_rng(3)
    space = context_space(8)
    contexts = [
        {f.name: rng.uniform(f.low, f.high) for f in space.features[2:]}
        | {"mass": float(m), "friction": float(f)}
        for m, f in rng.permutation(GRID * 5)[:num_envs]
    ]
    env = make_vec(ID, num_envs, distractors=8, seed=1)
    observation, _ = env.reset(options={"context": contexts})
    states = [
        (0.0, 0.0, 0.0, float(o[3]), float(o[0] - c["distractor_7"] + c["distractor_1"]))
        for o, c in zip(observation, contexts, strict=True)
    ]
    lifted = pushed = 0
    for actions in sticky_actions(rng, 39, num_envs):
        observation, rewards, _, _, info = env.step(actions)
        for i, context in enumerate(contexts):
            command = np.clip(actions[i].astype(float), -1, 1).tolist()
            before = states[i]
            states[i], seen, expected, success = reference_step(before, command, context)
            assert np.allclose(observation[i], seen, atol=3e-6)
            assert rewards[i] == pytest.approx(expected, abs=1e-6)
            assert info["success"][i] == success
            lifted += states[i][2] > 0.02
            pushed += states[i][2] == 0 and states[i][0] != before[0]
    assert lifted > 500 and pushed > 500  # both kinds of motion were compared


def steer(env, command, steps):
    for _ in range(steps):
        observation, _, _, _, info = env.step(np.array(command, np.float32))
    return observation, info


def started(fingers, **context):
    """A single environment whose fingers start open (0) or closed (1), and its observation."""
    env = CubeMoveEnv()
    for seed in range(100):
        observation, _ = env.reset(seed=seed, options={"context": context})
        if observation[3] == fingers and observation[0] > 0:
            return env, observation
    raise AssertionError("no such start in 100 seeds")


def test_extreme_features_change_the_trajectory():
    def trajectory(**context):
        env, _ = started(0, **context)
        return steer(env, (1, -1), 10)[0]

    nominal = trajectory()
    assert np.array_equal(nominal, trajectory(mass=0.6, friction=0.1))  # the stated nominal values
    assert abs(nominal - trajectory(mass=2.6)).max() > 0.05
    assert abs(nominal - trajectory(friction=5)).max() > 0.05


def test_a_failed_try_leaves_no_trace_in_the_observation():
    for fingers, command in ((0, (1, -1)), (1, (1, 1))):  # push; lift
        env, before = started(fingers, mass=1.7, friction=1.6)
        assert np.array_equal(steer(env, command, 10)[0], before)


def test_closed_fingers_do_not_push_and_open_ones_do_not_lift():
    env, before = started(1, mass=0.1, friction=0.01)
    assert np.array_equal(steer(env, (1, -1e-9), 1)[0][:3], before[:3])  # still opening
    env, _ = started(0, mass=0.1, friction=0.01)
    assert steer(env, (0, 1), 3)[0][2] == 0  # still closing
    assert steer(env, (0, 1), 1)[0][2] > 0


def test_the_skill_is_the_first_that_moved_the_cube():
    light = {"mass": 0.4, "friction": 0.06}
    env, _ = started(0, **light)
    steer(env, (1, -1), 8)
    assert steer(env, (1, 1), 32)[1]["skill"] == "push"  # pushed first, then carried
    env, _ = started(1, **light)
    steer(env, (1, 1), 8)
    assert steer(env, (1, -1), 32)[1]["skill"] == "pick"  # carried first, then pushed
    env, _ = started(1, **light)
    assert steer(env, (0, 0), 40)[1]["skill"] == "none"


def test_success_is_judged_at_the_last_step():
    env, observation = started(0)
    for _ in range(30):
        observation, *_, info = env.step(scripted_push(observation))
    assert info["success"] and "skill" not in info
    _, info = steer(env, (-1, -1), 10)  # and away again
    assert not info["success"] and info["skill"] == "push"


# ---------------------------------------------------------------------- two trials


def two_trials(seed, context, first, second):
    """Plays ``first`` for 40 steps and ``second`` for 40: observations (81, 5), rewards, infos."""
    env = gym.make(ID, trials=2)
    observation, _ = env.reset(seed=seed, options={"context": context})
    path, rewards, infos = [observation], [], []
    for t in range(80):
        expert = first if t < 40 else second
        observation, reward, _, truncated, info = env.step(expert(path[-1]))
        assert truncated == (t == 79)
        path.append(observation)
        rewards.append(reward)
        infos.append(info)
    return np.array(path), np.array(rewards), infos


def one_trial(seed, context, expert):
    env = gym.make(ID)
    observation, _ = env.reset(seed=seed, options={"context": context})
    path, rewards, infos = [observation], [], []
    for _ in range(40):
        observation, reward, _, _, info = env.step(expert(path[-1]))
        path.append(observation)
        rewards.append(reward)
        infos.append(info)
    return np.array(path), np.array(rewards), infos


def test_a_first_trial_is_an_episode_of_one_trial():
    context = {"mass": 1.7, "friction": 0.06}
    path, rewards, infos = two_trials(3, context, scripted_push, scripted_push)
    alone, alone_rewards, alone_infos = one_trial(3, context, scripted_push)
    assert np.array_equal(path[:40], alone[:40])
    assert np.array_equal(rewards[:40], alone_rewards)
    assert [i["success"] for i in infos[:40]] == [i["success"] for i in alone_infos]
    assert infos[39]["skill"] == alone_infos[39]["skill"] == "push"
    assert "trial_success" not in infos[39] and "trial_success" not in alone_infos[39]


def test_a_second_trial_starts_afresh_with_the_features_kept():
    starts = []
    for seed in range(40):
        context = {"mass": 1.7, "friction": 0.06}
        path, rewards, infos = two_trials(seed, context, scripted_push, scripted_push)
        goal, velocity, height, closure, position = path[40]
        assert velocity == height == position == 0
        assert 0.3 <= abs(goal) <= 0.5 and closure in (0, 1)
        assert all(np.array_equal(i["context"], infos[0]["context"]) for i in infos)
        assert infos[79]["success"]  # a heavy cube can still be pushed
        starts.append((path[0, 0], path[0, 3], goal, closure))
        # The physics of the second trial is that of any trial: another episode from its start.
        state = (0.0, 0.0, 0.0, float(closure), float(goal))
        for t in range(40, 80):
            action = scripted_push(path[t]).astype(float).tolist()
            state, seen, reward, _ = reference_step(state, action, context)
            assert rewards[t] == pytest.approx(reward, abs=1e-5)
            if t < 79:
                assert np.allclose(path[t + 1], seen, atol=1e-5)
    goal, fingers, next_goal, next_fingers = np.array(starts).T
    assert len(np.unique(np.abs(next_goal))) == 40
    # Independent of the first trial: each share is 1/2 over 40 seeds; 4 and 36 are 5 sigma away.
    assert 4 < (np.sign(goal) == np.sign(next_goal)).sum() < 36
    assert 4 < (fingers == next_fingers).sum() < 36
    assert not np.isclose(np.abs(goal), np.abs(next_goal)).all()


def test_each_trial_has_its_own_success_and_skill():
    light = {"mass": 0.4, "friction": 1.6}  # pick works, push does not
    for experts, success, skill in (
        ((scripted_push, scripted_pick), [False, True], ["none", "pick"]),
        ((scripted_pick, scripted_push), [True, False], ["pick", "none"]),
    ):
        _, _, infos = two_trials(0, light, *experts)
        last = infos[-1]
        assert last["trial_success"].tolist() == success and last["trial_success"].dtype == bool
        assert last["trial_skill"].tolist() == skill
        assert (last["success"], last["skill"]) == (success[1], skill[1])
        assert (infos[39]["success"], infos[39]["skill"]) == (success[0], skill[0])


def test_a_second_trial_draws_no_number_that_one_trial_would_not_leave():
    """The features and the first start depend on the seed alone, whatever the number of trials."""
    for distractors in (0, 4):
        one = gym.make(ID, distractors=distractors)
        two = gym.make(ID, distractors=distractors, trials=2)
        for seed in range(20):
            a, info_a = one.reset(seed=seed)
            b, info_b = two.reset(seed=seed)
            assert np.array_equal(a, b) and np.array_equal(info_a["context"], info_b["context"])


# ---------------------------------------------------------------------- the vector environment


def assert_same(a, b, where="info"):
    """Equal dtypes, shapes, keys and values, all the way down."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif a.dtype == object and isinstance(a[0], np.ndarray):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y, where)
    else:
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        assert np.array_equal(a, b), where


@pytest.mark.parametrize(
    ("split", "trials", "others"),
    [
        ("train", 1, {}),
        ("extreme", 1, {"distractors": 3}),
        ("train", 1, {"distractors": 8}),
        ("train", 1, {"distractors": 8, "distractors_of": "task"}),
        ("nominal", 1, {"distractors": 8}),
        ("train", 2, {}),
        ("extreme", 2, {"distractors": 3}),
    ],
)
def test_batched_equals_lockstep_bit_for_bit(split, trials, others):
    options = {"seed": 5, "split": split, "trials": trials, **others}
    batched, lockstep = make_vec(ID, 6, **options), LockstepVectorEnv(ID, 6, **options)
    assert batched.observation_space == lockstep.observation_space
    assert batched.action_space == lockstep.action_space
    assert batched.context_features == lockstep.context_features
    assert batched.max_episode_steps == lockstep.max_episode_steps == 40 * trials
    assert batched.metadata["autoreset_mode"] == lockstep.metadata["autoreset_mode"]
    rng = np.random.default_rng(0)
    contexts = [{"mass": m} for m in (0.1, 0.5, 0.9, 1.3, 1.7, 2.1)]
    for arguments in (
        {},
        {"options": {"context": {"mass": 0.4}}},
        {"seed": 9, "options": {"context": contexts}},
        {"seed": [3, None, 4, None, 5, 6]},
    ):
        assert_same(batched.reset(**arguments)[0], lockstep.reset(**arguments)[0], "reset")
        for actions in sticky_actions(rng, 85 * trials, 6):  # across two autoresets
            for one, other in zip(batched.step(actions), lockstep.step(actions), strict=True):
                assert_same(one, other)


@pytest.mark.parametrize("split", ["train", "extreme"])
def test_distractors_of_a_task_are_the_same_in_all_its_episodes(split):
    options = {"distractors": 3, "distractors_of": "task"}
    env = make_vec(ID, 500, split=split, **options)
    seen = {tuple(row) for row in env.reset()[1]["context"]}
    tasks = task_sets(ID, **options).split(split)
    assert seen == {tuple(np.float32(list(task.values()))) for task in tasks}
    plain = task_sets(ID).split(split)
    assert [{k: task[k] for k in ("mass", "friction")} for task in tasks] == plain
    assert len({task["distractor_0"] for task in tasks}) == len(tasks)
    # More of them leave the first as they are, and a task that is given keeps its own.
    more = task_sets(ID, distractors=5, distractors_of="task").split(split)
    assert [{k: task[k] for k in tasks[0]} for task in more] == tasks
    given = env.reset(options={"context": tasks[4]})[1]["context"]
    assert (given == np.float32(list(tasks[4].values()))).all()


def test_distractors_of_a_task_leave_other_options_and_starts_as_they_are():
    assert task_sets(ID, distractors=3, trials=2) == task_sets(ID)
    each = [make_vec(ID, 64, distractors=3, distractors_of=of) for of in ("episode", "task")]
    contexts = [env.reset(seed=2)[1]["context"] for env in each]
    assert (contexts[0][:, :2] == contexts[1][:, :2]).all()
    assert (contexts[0][:, 2:] != contexts[1][:, 2:]).all()
    with pytest.raises(ValueError, match="distractors_of is 'day'"):
        make_vec(ID, 1, distractors_of="day")


def test_distractors_are_drawn_over_their_whole_range_and_each_has_an_effect():
    env = make_vec(ID, 2000, distractors=8)
    contexts = env.reset()[1]["context"]
    for column, feature in enumerate(DISTRACTORS, start=2):
        share = (contexts[:, column] - feature.low) / (feature.high - feature.low)
        assert (share >= -1e-6).all() and (share <= 1 + 1e-6).all()
        assert np.histogram(share, bins=4, range=(0, 1))[0].min() > 400  # uniform: 500 each

    def trajectory(**context):
        env = make_vec(ID, 16, distractors=8)
        observation, _ = env.reset(options={"context": context})
        path = [observation]
        for t in range(30):
            path.append(env.step((scripted_pick if t < 15 else scripted_push)(path[-1]))[0])
        return np.array(path)

    nominal = trajectory()
    for feature in DISTRACTORS:
        assert abs(trajectory(**{feature.name: feature.high}) - nominal).max() > 0.005, feature


def test_bad_arguments_are_rejected_by_name():
    for distractors in (-1, 9, 1.5, "two"):
        with pytest.raises(ValueError, match="distractors"):
            gym.make(ID, distractors=distractors)
        with pytest.raises(ValueError, match="distractors"):
            make_vec(ID, 2, distractors=distractors)
    for trials in (0, 3, -1, 1.5, True, "two", None):
        with pytest.raises(ValueError, match=r"trials.*choose one of \(1, 2\)"):
            gym.make(ID, trials=trials)
        with pytest.raises(ValueError, match="trials"):
            make_vec(ID, 2, trials=trials)
    env = make_vec(ID, 2, distractors=1)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="distractor_1"):
        env.reset(options={"context": {"distractor_1": 0.0}})
    env.reset()
    with pytest.raises(ValueError, match=r"action.*\(2, 2\)"):
        env.step(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"action.*nan"):
        env.step(np.full((2, 2), np.nan, np.float32))


# ---------------------------------------------------------------------- pictures


def test_the_picture_shows_the_state_and_not_the_friction():
    def picture(steps=0, **context):
        env = CubeMoveEnv(render_mode="rgb_array")
        env.reset(seed=0, options={"context": context})
        for _ in range(steps):
            env.step(np.array([1, -1], np.float32))
        return env.render()

    still = picture()
    assert still.shape == (160, 480, 3) and still.dtype == np.uint8
    assert np.array_equal(still, picture(friction=2.0))
    assert not np.array_equal(still, picture(mass=2.0))
    assert not np.array_equal(still, picture(steps=10))
    assert CubeMoveEnv().render() is None
