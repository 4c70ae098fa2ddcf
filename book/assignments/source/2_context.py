# %% [markdown]
# # Assignment 2: a memory of what was tried
#
# An agent that knows neither mass nor friction has to try and to remember. You work out what forgetting costs on CubeMove,
# then write what a recurrent encoder needs: one step of its memory, the right inputs at the right time, a loss that leaves
# padding out, and the slow copy that contrastive learning will use.
#
# **You show that you can** say why a context-free agent fails where a skill exists for every task; make acting and training
# agree to the last digit; keep padded steps out of a loss; average weights without a gradient.
#
# **Read first:** chapters [3](../03_one_policy.ipynb), [4](../04_context_encoder.ipynb) and, for question 5,
# [6](../06_ccm.ipynb). **Time:** 60 to 90 minutes. **Points:** 20. Symbols: $E$ episodes of at most $T$ steps, $S$ and
# $A$ the widths of observations and actions, $H$ of the memory.
#
# Replace each line that raises `NotImplementedError`, run the check below it, repeat. The checks you see earn about a quarter
# of the points (a few earn none and only look at the form of an answer); hidden ones earn the rest, and ask whether the *idea* is right: on other numbers, at the edges, in the
# gradients. Any correct way to write it counts. Keep names and arguments as they are.

# %%
import numpy as np
import torch

from sami_tutorial.envs import task_sets
from sami_tutorial.envs.cube_skills import pick_feasible, push_feasible

VARIANT = 0  # your course may have another number here; question 1 depends on it
torch.set_num_threads(1)

# %% [markdown] question="q1"
# ## Question 1: what forgetting costs (5 points)
#
# `works` is a table of booleans, (tasks, skills): does the skill solve the task? All tasks are equally likely, and all look
# alike at first. An agent commits to one skill per trial.
#
# - *Context-free*: it cannot tell tasks apart, now or later. It chooses the skills with some fixed probabilities, whichever
#   serve best on average.
# - *Oracle*: it is told the task.
# - *With a memory, second trial*: it tries one skill (the same in all tasks, the best choice), sees whether it worked, and
#   then meets the same task again. It knows the whole table `works`.
#
# Return each one's best possible success rate. (For the third: after the first try, all tasks that agree with what was seen
# are still possible, and the agent commits to one skill for them.)


# %% question="q1" answer=true
def success_context_free(works):
    """Best success rate of an agent that cannot tell tasks apart: (tasks, skills) bool -> float"""
    # BEGIN SOLUTION
    return float(works.mean(axis=0).max())
    # END SOLUTION


# %% question="q1" answer=true
def success_oracle(works):
    """Best success rate of an agent that is told the task: (tasks, skills) bool -> float"""
    # BEGIN SOLUTION
    return float(works.any(axis=1).mean())
    # END SOLUTION


# %% question="q1" answer=true
def success_second_trial(works):
    """Best success rate of the trial after one try: (tasks, skills) bool -> float"""
    # BEGIN SOLUTION
    best = 0
    for tried in range(works.shape[1]):
        solved = 0
        for outcome in (True, False):
            possible = works[works[:, tried] == outcome]  # (tasks that agree, skills)
            if len(possible):
                solved += possible.sum(axis=0).max()
        best = max(best, solved)
    return float(best / len(works))
    # END SOLUTION


# %% question="q1" points=1
def test_three_kinds_of_task(success_context_free, success_oracle, success_second_trial):
    """One task for each of two skills, and one for both: 2/3, 1 and 1."""
    import numpy as np

    works = np.array([[True, False], [False, True], [True, True]])
    free = success_context_free(works)
    assert abs(free - 2 / 3) < 1e-6, (
        f"a context-free agent gets {free:.3f}? Whatever it does, it does in every task: each "
        "skill alone solves 2 of 3, and mixing them is no better than the better one"
    )
    told = success_oracle(works)
    assert abs(told - 1) < 1e-6, f"an oracle gets {told:.3f}? Every task has a skill that works"
    second = success_second_trial(works)
    assert abs(second - 1) < 1e-6, (
        f"the second trial succeeds with {second:.3f}? If the first skill worked, repeat it; if "
        "it failed, only the task of the other skill is left"
    )


# %% question="q1" points=1 hidden=true
def test_context_free_and_oracle_on_random_tables(success_context_free, success_oracle):
    """Against plain counting, with tasks that nothing solves."""
    import numpy as np

    rng = np.random.default_rng(1)
    for tasks, skills in ((1, 2), (7, 3), (20, 4)):
        works = rng.random((tasks, skills)) < 0.4
        free = max(sum(works[t, k] for t in range(tasks)) for k in range(skills)) / tasks
        told = sum(any(row) for row in works) / tasks
        assert abs(success_context_free(works) - free) < 1e-6
        assert abs(success_oracle(works) - told) < 1e-6


# %% question="q1" points=1 hidden=true
def test_second_trial_with_many_skills(success_second_trial):
    """One try need not settle everything."""
    import numpy as np

    assert abs(success_second_trial(np.eye(2, dtype=bool)) - 1) < 1e-6
    assert abs(success_second_trial(np.eye(5, dtype=bool)) - 2 / 5) < 1e-6
    assert abs(success_second_trial(np.zeros((3, 2), dtype=bool))) < 1e-6
    assert abs(success_second_trial(np.array([[True, False, False]] * 3)) - 1) < 1e-6
    telling = np.array([[False, True, False], [False, False, True]])  # only skills 1 and 2 tell
    assert abs(success_second_trial(telling) - 1) < 1e-6


# %% question="q1" points=1 hidden=true
def test_second_trial_by_brute_force(success_second_trial):
    """Every plan (first skill, next if it worked, next if not) on random tables."""
    from itertools import product

    import numpy as np

    rng = np.random.default_rng(2)
    for tasks, skills in ((6, 2), (9, 3), (12, 3)):
        works = rng.random((tasks, skills)) < 0.5
        rates = [
            np.mean([works[t, yes if works[t, first] else no] for t in range(tasks)])
            for first, yes, no in product(range(skills), repeat=3)
        ]
        assert abs(success_second_trial(works) - max(rates)) < 1e-6


# %% [markdown] question="q1"
# Now the real tasks. `tasks` are CubeMove's training tasks (or, in another variant of this assignment, another set).
# Make the table `works` of shape (tasks, 2), columns Push and Pick, with `push_feasible(friction, mass)` and
# `pick_feasible(friction, mass)`, which take numbers or arrays.

# %% question="q1"
split = ("train", "moderate", "extreme")[VARIANT % 3]
tasks = getattr(task_sets("sami/CubeMove-v0"), split)  # dicts with "mass" and "friction"
friction, mass = np.array([[task["friction"], task["mass"]] for task in tasks]).T

# %% question="q1" answer=true
works = np.column_stack([push_feasible(friction, mass), pick_feasible(friction, mass)])  # SOLUTION


# %% question="q1" points=0
def test_table_has_its_shape(works):
    """A boolean for every task and skill."""
    import numpy as np

    assert np.shape(works)[1:] == (2,), "one row per task, two columns: Push and Pick"
    assert np.asarray(works).dtype == bool, "True or False, not numbers of steps"


# %% question="q1" points=1 hidden=true
def test_table_of_the_real_tasks(works):
    """Friction and mass in their places."""
    import numpy as np

    from sami_tutorial.envs import task_sets
    from sami_tutorial.envs.cube_skills import optimal_skill

    VARIANT = 0
    tasks = getattr(task_sets("sami/CubeMove-v0"), ("train", "moderate", "extreme")[VARIANT % 3])
    best = np.array([str(optimal_skill(task["friction"], task["mass"])) for task in tasks])
    wanted = np.stack([np.isin(best, ("push", "both")), np.isin(best, ("pick", "both"))], axis=1)
    assert (np.asarray(works) == wanted).all()


# %% [markdown] question="q2"
# ## Question 2: one step of an LSTM (4 points)
#
# PyTorch's `nn.LSTM` reads a whole sequence at once; an agent needs one step at a time. With $W_x, b_x, W_h, b_h$ =
# `lstm.weight_ih_l0`, `lstm.bias_ih_l0`, `lstm.weight_hh_l0`, `lstm.bias_hh_l0`, whose rows hold four blocks of $H$ each
# in the order $i, f, g, o$:
#
# $$ (i, f, g, o) = W_x x_t + b_x + W_h h_{t-1} + b_h, \quad k_t = \sigma(f) \odot k_{t-1} + \sigma(i) \odot \tanh(g), \quad
# h_t = \sigma(o) \odot \tanh(k_t) . $$


# %% question="q2" answer=true
def lstm_step(lstm, x, hidden, cell):
    """The next hidden and cell state, (N, H) twice, from (N, inputs), (N, H), (N, H)"""
    # BEGIN SOLUTION
    from_input = torch.nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0)
    from_memory = torch.nn.functional.linear(hidden, lstm.weight_hh_l0, lstm.bias_hh_l0)
    write, keep, content, show = torch.split(from_input + from_memory, lstm.hidden_size, dim=1)
    cell = keep.sigmoid() * cell + write.sigmoid() * content.tanh()
    return show.sigmoid() * cell.tanh(), cell
    # END SOLUTION


# %% question="q2" points=1
def test_lstm_step_from_zero(lstm_step):
    """The first step of a sequence, from the zero state."""
    import torch

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 1, 3)
    _, (hidden, cell) = lstm(x)
    mine = lstm_step(lstm, x[:, 0], torch.zeros(2, 4), torch.zeros(2, 4))
    assert len(mine) == 2 and mine[0].shape == (2, 4), (
        "return two tensors of shape (N, H): hidden state, then cell state"
    )
    assert torch.allclose(mine[1], cell[0], atol=1e-5), (
        "the cell state differs; are the blocks in the order i, f, g, o, and tanh only on g?"
    )
    assert torch.allclose(mine[0], hidden[0], atol=1e-5), (
        "the cell state is right, the hidden state is not: it is sigmoid(o) times the tanh of the "
        "*new* cell state"
    )


# %% question="q2" points=2 hidden=true
def test_lstm_step_equals_sequence(lstm_step):
    """Step by step is the same as all at once."""
    import torch

    torch.manual_seed(1)
    lstm = torch.nn.LSTM(5, 7, batch_first=True).double()
    x = torch.randn(3, 20, 5, dtype=torch.float64)
    wanted, (_, last_cell) = lstm(x)
    hidden, cell = torch.zeros(2, 3, 7, dtype=torch.float64)
    for t in range(20):
        hidden, cell = lstm_step(lstm, x[:, t], hidden, cell)
        assert torch.allclose(hidden, wanted[:, t], atol=1e-8)
    assert torch.allclose(cell, last_cell[0], atol=1e-8)


# %% question="q2" points=1 hidden=true
def test_lstm_step_learns(lstm_step):
    """Gradients reach all four parameters, and the state that came in is left alone."""
    import torch

    torch.manual_seed(2)
    lstm = torch.nn.LSTM(2, 3, batch_first=True)
    hidden, cell = torch.randn(2, 4, 3)
    before = hidden.clone(), cell.clone()
    new_hidden, _ = lstm_step(lstm, torch.randn(4, 2), hidden, cell)
    for gradient in torch.autograd.grad(new_hidden.sum(), list(lstm.parameters())):
        assert gradient.abs().max() > 0
    assert torch.equal(hidden, before[0]) and torch.equal(cell, before[1])


# %% [markdown] question="q3"
# ## Question 3: what goes in, and when (4 points)
#
# At time $t$ the encoder reads $(s_t, a_{t-1}, r_{t-1})$; at $t = 0$ nothing came before, so zeros take the place of action
# and reward. Training computes $c_0 .. c_T$ with `encoder(observation, action, reward)` from a stored episode. Write the
# acting side: go through the episode *one step at a time* with `encoder.initial_memory(E)` and
# `encoder.step(observation, previous_action, previous_reward, memory)`, which returns $c_t$ and the next memory. The result
# must equal the training side.


# %% question="q3" answer=true
def embed_while_acting(encoder, observation, action, reward):
    """c_0 .. c_T, (E, T+1, D), from (E, T+1, S), (E, T, A), (E, T), by encoder.step alone"""
    # BEGIN SOLUTION
    memory = encoder.initial_memory(len(observation))
    previous_action, previous_reward = (
        torch.zeros_like(action[:, 0]),
        torch.zeros_like(reward[:, 0]),
    )
    embeddings = []
    for t in range(observation.shape[1]):
        if t > 0:
            previous_action, previous_reward = action[:, t - 1], reward[:, t - 1]
        c, memory = encoder.step(observation[:, t], previous_action, previous_reward, memory)
        embeddings.append(c)
    return torch.stack(embeddings, dim=1)
    # END SOLUTION


# %% question="q3" points=1
def test_acting_equals_training(embed_while_acting):
    """The same numbers as the library's whole-sequence call."""
    import torch

    from sami_tutorial.encoder import ContextEncoder

    generator = torch.Generator().manual_seed(0)
    encoder = ContextEncoder(5, 2, generator)
    s, a, r = (torch.randn(shape, generator=generator) for shape in ((3, 7, 5), (3, 6, 2), (3, 6)))
    with torch.no_grad():
        mine, wanted = embed_while_acting(encoder, s, a, r), encoder(s, a, r)
    assert mine.shape == wanted.shape, (
        f"7 observations make 7 embeddings, shape {tuple(wanted.shape)}; yours is "
        f"{tuple(mine.shape)}. Does s_0 reach the encoder before the first action?"
    )
    late = (mine - wanted).abs().amax(dim=(0, 2)) > 1e-4
    assert not late.any(), (
        f"differs from time {int(late.nonzero()[0])} on; at time t the encoder knows a_(t-1) and "
        "r_(t-1), and its memory is the one that step t-1 returned"
    )


# %% question="q3" points=1 hidden=true
def test_acting_calls_the_encoder_in_order(embed_while_acting):
    """Each time once, with the outcome next to the action that caused it."""
    import torch

    seen = []

    class Spy:
        embedding_dim = 1

        def initial_memory(self, num_envs):
            return (torch.zeros(num_envs, 1),)

        def step(self, observation, previous_action, previous_reward, memory):
            seen.append((observation.item(), previous_action.item(), previous_reward.item()))
            return memory[0] + observation, (memory[0] + observation,)

    s = torch.tensor([[[1.0], [2.0], [3.0]]])
    result = embed_while_acting(
        Spy(), s, torch.tensor([[[0.5], [0.6]]]), torch.tensor([[7.0, 8.0]])
    )
    wanted = [(1.0, 0.0, 0.0), (2.0, 0.5, 7.0), (3.0, 0.6, 8.0)]
    assert torch.allclose(torch.tensor(seen), torch.tensor(wanted))
    assert torch.allclose(result.reshape(-1), torch.tensor([1.0, 3.0, 6.0]))


# %% question="q3" points=1 hidden=true
def test_acting_cannot_see_the_future(embed_while_acting):
    """Changing step t changes no embedding up to time t, and some after it."""
    import torch

    from sami_tutorial.encoder import ContextEncoder

    generator = torch.Generator().manual_seed(1)
    encoder = ContextEncoder(4, 2, generator)
    s, a, r = (torch.randn(shape, generator=generator) for shape in ((2, 9, 4), (2, 8, 2), (2, 8)))
    with torch.no_grad():
        before = embed_while_acting(encoder, s, a, r)
        a[:, 5] += 1
        r[:, 5] += 1
        change = (embed_while_acting(encoder, s, a, r) - before).abs().amax(dim=(0, 2))
    assert change[:6].max() == 0
    assert change[6:].min() > 0


# %% question="q3" points=1 hidden=true
def test_acting_starts_every_call_afresh(embed_while_acting):
    """Nothing is carried from one episode into the next, and episodes do not mix."""
    import torch

    from sami_tutorial.encoder import ContextEncoder

    generator = torch.Generator().manual_seed(2)
    encoder = ContextEncoder(4, 1, generator)
    s, a, r = (torch.randn(shape, generator=generator) for shape in ((3, 6, 4), (3, 5, 1), (3, 5)))
    with torch.no_grad():
        first, second = embed_while_acting(encoder, s, a, r), embed_while_acting(encoder, s, a, r)
        alone = embed_while_acting(encoder, s[1:2], a[1:2], r[1:2])
    assert torch.equal(first, second)
    assert torch.allclose(first[1:2], alone, atol=1e-5)


# %% [markdown] question="q4"
# ## Question 4: a loss that leaves padding out (4 points)
#
# Episodes end at different times; behind its end a row is padded, and `mask` is True where a step is real. The critics'
# loss over sequences is the squared error, *averaged over all real steps of the batch together* (a long episode counts for
# more than a short one) and *summed over the two critics*. What stands in the padding is arbitrary and must not matter.


# %% question="q4" answer=true
def sequence_loss(q, target, mask):
    """The loss, shape (), from (2, E, T), (E, T) and (E, T) bool"""
    # BEGIN SOLUTION
    error = q[:, mask] - target[mask]  # (2, real steps)
    return (error**2).mean(dim=1).sum()
    # END SOLUTION


# %% question="q4" points=1
def test_sequence_loss_by_hand(sequence_loss):
    """Real errors 1, 1, 2 and 0, 0, 3 of the two critics: (6 + 9) / 3 = 5."""
    import torch

    mask = torch.tensor([[True, True], [True, False]])
    q = torch.tensor([[[1.0, 1.0], [2.0, 50.0]], [[0.0, 0.0], [3.0, -9.0]]])
    loss = sequence_loss(q, torch.zeros(2, 2), mask)
    assert loss.shape == (), f"a loss is one number; yours has shape {tuple(loss.shape)}"
    assert abs(loss.item() - 5) < 1e-4, (
        f"you give {loss.item():.4f}. 3.75 would be a division by all 4 steps, real or not; "
        "7 a mean over episodes of means over steps; 2.5 a mean over the critics"
    )


# %% question="q4" points=1 hidden=true
def test_sequence_loss_against_a_loop(sequence_loss):
    """Random lengths, whatever the padding holds."""
    import torch

    generator = torch.Generator().manual_seed(3)
    q = torch.randn(2, 5, 6, generator=generator)
    target = torch.randn(5, 6, generator=generator)
    mask = torch.arange(6) < torch.tensor([6, 1, 3, 2, 5])[:, None]
    total = 0.0
    for e, t in mask.nonzero().tolist():
        total += float((q[0, e, t] - target[e, t]) ** 2 + (q[1, e, t] - target[e, t]) ** 2)
    wanted = total / 17
    for padding in (0.0, 1e6):
        loss = sequence_loss(
            torch.where(mask, q, padding), torch.where(mask, target, -padding), mask
        )
        assert abs(loss.item() - wanted) < 1e-3


# %% question="q4" points=1 hidden=true
def test_sequence_loss_gradient(sequence_loss):
    """2 error / (real steps) where steps are real, 0 in the padding."""
    import torch

    generator = torch.Generator().manual_seed(4)
    q = torch.randn(2, 3, 4, generator=generator).requires_grad_()
    target = torch.randn(3, 4, generator=generator)
    mask = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    (gradient,) = torch.autograd.grad(sequence_loss(q, target, mask), q)
    wanted = torch.where(mask, 2 * (q.detach() - target) / 7, torch.zeros(()))
    assert torch.allclose(gradient, wanted, atol=1e-6)


# %% question="q4" points=1 hidden=true
def test_sequence_loss_survives_nan_in_padded_targets(sequence_loss):
    """A target computed from padding may be NaN; 0 times NaN is NaN."""
    import torch

    mask = torch.tensor([[True, False], [True, True]])
    target = torch.tensor([[0.0, float("nan")], [0.0, 0.0]])
    assert abs(sequence_loss(torch.ones(2, 2, 2), target, mask).item() - 2) < 1e-5


# %% [markdown] question="q5"
# ## Question 5: the slow copy (3 points)
#
# Keys of a contrast come from a *momentum copy* of the encoder: $\psi^* \leftarrow \psi^* + m\,(\psi - \psi^*)$, with $m$ = `rate`,
# for every parameter and with no gradient. Change `target` in place; leave `source` alone.


# %% question="q5" answer=true
def momentum_update(target, source, rate):
    """Moves each parameter of the module `target` by `rate` towards that of `source`"""
    # BEGIN SOLUTION
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
            slow.mul_(1 - rate).add_(rate * fast)
    # END SOLUTION


# %% question="q5" points=1
def test_momentum_update_once(momentum_update):
    """From 0 a tenth of the way to 1."""
    import torch

    source, target = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    for module, value in ((source, 1.0), (target, 0.0)):
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, value)
    momentum_update(target, source, 0.1)
    for parameter in target.parameters():
        assert torch.allclose(parameter, torch.full_like(parameter, 0.1)), (
            f"a parameter went from 0 to {parameter.flatten()[0].item():.3g}, not to 0.1; `rate` "
            "is the share of the *new* weights, and biases move like weights"
        )


# %% question="q5" points=1 hidden=true
def test_momentum_update_many_times(momentum_update):
    """After n updates the distance has shrunk by (1 - rate)^n; the source has not moved."""
    import copy

    import torch

    torch.manual_seed(5)
    source, target = torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    fixed, start = copy.deepcopy(source), copy.deepcopy(target)
    for _ in range(20):
        momentum_update(target, source, 0.05)
    for now, then, goal in zip(
        target.parameters(), start.parameters(), fixed.parameters(), strict=True
    ):
        assert torch.allclose(now, goal + 0.95**20 * (then - goal), atol=1e-5)
    assert all(map(torch.equal, source.parameters(), fixed.parameters()))
    momentum_update(target, source, 1.0)
    assert all(map(torch.allclose, target.parameters(), source.parameters()))


# %% question="q5" points=1 hidden=true
def test_momentum_update_in_place_without_gradient(momentum_update):
    """The same tensors as before, no history, and the source can still learn."""
    import torch

    source, target = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False)
    before = list(target.parameters())
    momentum_update(target, source, 0.5)
    for old, new in zip(before, target.parameters(), strict=True):
        assert old is new and new.grad_fn is None and not new.requires_grad
    assert all(parameter.requires_grad for parameter in source.parameters())
    learning = torch.nn.Linear(2, 2)
    momentum_update(learning, source, 0.5)
    assert all(p.grad_fn is None and p.requires_grad for p in learning.parameters())


# %% [markdown]
# ## What it costs, on CubeMove
#
# Your three numbers for the real tasks. The gap between the first and the others is what chapters 4 to 9 are about.

# %% tags=["otter_ignore"]
if done.get("q1"):
    for name, rate in (
        ("context-free", success_context_free(works)),
        ("second trial", success_second_trial(works)),
        ("oracle", success_oracle(works)),
    ):
        print(f"{name:13} {rate:.2f}")
else:
    print("Finish question 1 first.")

# %% [markdown]
# Before you submit: restart the kernel, run all cells, save. Then hand in this notebook as
# [the student's page](../how_to_submit.md) says.
