# %% [markdown]
# # Assignment 4: skill-aware contrastive learning
#
# SaNCE contrasts good with bad trajectories *of the same task*. You write the split, the estimate, its weight and the loss,
# then train a small encoder with them on CubeMove and measure, with a probe, what its embeddings hold.
#
# **You show that you can** rank trajectories within tasks; turn Equations 3 and 4 of the paper into a loss with the right
# gradient; probe embeddings without cheating; judge what such a number says, and what it does not.
#
# **Read first:** chapters [7](../07_skill_aware_mi.ipynb) and [8](../08_sance.ipynb). **Time:** 60 to 90 minutes.
# **Points:** 20, of which 4 are for question 7, which a person reads. All information is in nats.
#
# Replace each line that raises `NotImplementedError`, run the check below it, repeat. The checks you see earn about a third
# of the points (a few earn none and only look at the form of an answer); hidden ones earn the rest, and ask whether the *idea* is right: on other numbers, at the edges, in the
# gradients. Any correct way to write it counts. Keep names and arguments as they are.

# %%
import math

import numpy as np
import torch

VARIANT = 0  # your course may have another number here; question 6 depends on it
torch.set_num_threads(1)

# %% [markdown] question="q1"
# ## Question 1: good and bad, within each task (4 points)
#
# Each trajectory has a return and the number of its task. Within *every* task, rank its trajectories by return: the upper
# half is good, the lower half is bad. With an odd number the one in the middle is neither; a task with a single trajectory
# has none of either. Among equal returns the one with the lower index counts as the better.


# %% question="q1" answer=true
def good_and_bad(returns, task):
    """Two masks, (E,) bool: which trajectories are good, which are bad; from (E,) and (E,)"""
    # BEGIN SOLUTION
    good, bad = (
        torch.zeros(len(returns), dtype=torch.bool),
        torch.zeros(len(returns), dtype=torch.bool),
    )
    for each in task.unique():
        members = (task == each).nonzero().flatten()
        best_first = members[torch.sort(returns[members], descending=True, stable=True).indices]
        half = len(members) // 2
        good[best_first[:half]] = True
        bad[best_first[len(members) - half :]] = True
    return good, bad
    # END SOLUTION


# %% question="q1" points=1
def test_split_within_tasks(good_and_bad):
    """Two tasks; the worst of task 7 is better than the best of task 3."""
    import torch

    returns = torch.tensor([1.0, 30.0, 2.0, 10.0, 0.0, 20.0, 3.0])
    task = torch.tensor([3, 7, 3, 7, 3, 7, 3])
    good, bad = good_and_bad(returns, task)
    assert good.dtype == torch.bool and good.shape == (7,), "return two masks of shape (E,), bool"
    assert good.tolist() == [False, True, True, False, False, False, True], (
        f"good is {good.tolist()}; rank within each task: in task 3 the returns 3 and 2 are the "
        "upper half, in task 7 only 30"
    )
    assert bad.tolist() == [True, False, False, True, True, False, False], (
        f"bad is {bad.tolist()}; in task 7 the middle one of three is neither good nor bad"
    )


# %% question="q1" points=1 hidden=true
def test_split_of_edge_cases(good_and_bad):
    """Single trajectories, ties, negative returns."""
    import torch

    good, bad = good_and_bad(torch.tensor([5.0, -1.0]), torch.tensor([0, 1]))
    assert not good.any() and not bad.any()
    good, bad = good_and_bad(torch.zeros(4), torch.zeros(4, dtype=torch.long))
    assert good.tolist() == [True, True, False, False]
    assert bad.tolist() == [False, False, True, True]
    good, bad = good_and_bad(torch.tensor([-3.0, -1.0, -2.0]), torch.zeros(3, dtype=torch.long))
    assert good.tolist() == [False, True, False]
    assert bad.tolist() == [True, False, False]


# %% question="q1" points=2 hidden=true
def test_split_against_a_loop(good_and_bad):
    """Random tasks of random sizes with ties."""
    import torch

    generator = torch.Generator().manual_seed(1)
    returns = torch.randint(6, (60,), generator=generator).float()
    task = torch.randint(9, (60,), generator=generator) * 5
    good, bad = good_and_bad(returns, task)
    assert not (good & bad).any()
    for e in range(60):
        same = [i for i in range(60) if task[i] == task[e]]
        better = sum(
            bool(returns[i] > returns[e] or (returns[i] == returns[e] and i < e)) for i in same
        )
        assert bool(good[e]) == (better < len(same) // 2)
        assert bool(bad[e]) == (better >= len(same) - len(same) // 2)


# %% [markdown] question="q2"
# ## Question 2: the estimate (3 points)
#
# Queries and positives come from good trajectories, negatives from bad ones of the same task, shared by all queries. With
# similarity $f(q, k) = \exp(q \cdot k / \beta)$ and $K = N + 1$ keys per query,
#
# $$ \hat I = \frac{1}{P} \sum_i \log \frac{K \, f(q_i, k_i^+)}{f(q_i, k_i^+) + \sum_j f(q_i, k_j^-)} . $$
#
# Never form $f$ itself: inner products of $\pm 10^4$ are no error.


# %% question="q2" answer=true
def sance_estimate(query, positive, negatives, beta):
    """The estimate in nats, shape (), from (P, D), (P, D), (N, D) and a number"""
    # BEGIN SOLUTION
    attract = torch.einsum("pd,pd->p", query, positive) / beta
    repel = torch.einsum("pd,nd->pn", query, negatives) / beta
    everything = torch.logaddexp(attract, repel.logsumexp(dim=1))
    return math.log(len(negatives) + 1) + (attract - everything).mean()
    # END SOLUTION


# %% question="q2" points=1
def test_estimate_at_the_ends(sance_estimate):
    """Keys that are all alike tell nothing; a perfect contrast is worth log K."""
    import math

    import torch

    query, alike = torch.ones(2, 3), torch.ones(5, 3)
    nothing = sance_estimate(query, query, alike, 0.5)
    assert nothing.shape == (), f"one number for all queries; yours has shape {nothing.shape}"
    assert abs(nothing.item()) < 1e-5, (
        f"equal keys give {nothing.item():.4f} nats instead of 0; 5 negatives and the positive are "
        "K = 6 keys"
    )
    perfect = sance_estimate(query, query, -10 * alike, 0.5).item()
    assert abs(perfect - math.log(6)) < 1e-4, (
        f"a perfect contrast gives {perfect:.4f} instead of log 6 = 1.7918; is the positive in the "
        "denominator, and K in the numerator?"
    )


# %% question="q2" points=1 hidden=true
def test_estimate_against_a_loop(sance_estimate):
    """Random embeddings; each query keeps its own positive."""
    import math

    import torch

    generator = torch.Generator().manual_seed(2)
    query, positive = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    negatives = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    wanted = 0.0
    for i in range(4):
        own = math.exp(float(query[i] @ positive[i]) / 0.7)
        others = sum(math.exp(float(query[i] @ negatives[j]) / 0.7) for j in range(6))
        wanted += math.log(7 * own / (own + others)) / 4
    assert abs(sance_estimate(query, positive, negatives, 0.7).item() - wanted) < 1e-6


# %% question="q2" points=1 hidden=true
def test_estimate_with_large_products(sance_estimate):
    """No overflow, and never above log K."""
    import torch

    big = torch.full((1, 1), 100.0)
    assert abs(sance_estimate(big, big, -big, 1.0).item() - 0.6931) < 1e-3
    assert abs(sance_estimate(big, big, big, 1.0).item()) < 1e-2
    assert abs(sance_estimate(big, -big, big, 1.0).item() - (0.6931 - 20_000)) < 1


# %% [markdown] question="q3"
# ## Question 3: the weight (2 points)
#
# While the trajectories of a task are still alike, the contrast should hardly count: $w = \min(d, 1)$, where $d$ is the
# mean Euclidean distance over *all pairs* of a query and a negative. (The paper prints $\max(d, 1)$;
# [chapter 8](../08_sance.ipynb) discusses the difference.) The weight is a constant: no gradient flows through it.


# %% question="q3" answer=true
def sance_weight(query, negatives):
    """w, shape (), from (P, D) and (N, D)"""
    # BEGIN SOLUTION
    differences = query.detach()[:, None] - negatives.detach()[None]  # (P, N, D)
    return differences.norm(dim=2).mean().clamp(max=1.0)
    # END SOLUTION


# %% question="q3" points=1
def test_weight_by_hand(sance_weight):
    """Distances 0.5 and 0.3 make 0.4; far away it stays at 1."""
    import torch

    near = sance_weight(torch.zeros(1, 2), torch.tensor([[0.3, 0.4], [0.3, 0.0]]))
    assert abs(float(near) - 0.4) < 1e-5, (
        f"you give {float(near):.4f} instead of 0.4, the mean of the lengths 0.5 and 0.3; average "
        "the distances, not the vectors or the squares"
    )
    far = sance_weight(torch.zeros(2, 2), torch.full((3, 2), 9.0))
    assert abs(float(far) - 1) < 1e-6, f"far apart the weight is 1, yours is {float(far):.4f}"


# %% question="q3" points=1 hidden=true
def test_weight_is_a_constant_over_all_pairs(sance_weight):
    """Every query meets every negative, and no gradient comes back."""
    import torch

    generator = torch.Generator().manual_seed(3)
    query = (0.2 * torch.randn(4, 3, generator=generator)).requires_grad_()
    negatives = (0.2 * torch.randn(6, 3, generator=generator)).requires_grad_()
    weight = sance_weight(query, negatives)
    pairs = [(query[i] - negatives[j]).detach().norm() for i in range(4) for j in range(6)]
    assert abs(float(torch.as_tensor(weight).detach()) - float(sum(pairs)) / 24) < 1e-5
    assert not torch.as_tensor(weight).requires_grad


# %% [markdown] question="q4"
# ## Question 4: the loss (2 points)
#
# Minimise $-w \hat I$. The gradient reaches queries and keys through the estimate alone.


# %% question="q4" answer=true
def sance_loss(query, positive, negatives, beta):
    """The loss, shape (), from (P, D), (P, D), (N, D) and a number"""
    # BEGIN SOLUTION
    return -sance_weight(query, negatives) * sance_estimate(query, positive, negatives, beta)
    # END SOLUTION


# %% question="q4" points=1
def test_loss_sign_and_scale(sance_loss):
    """A good contrast has a negative loss; near negatives shrink it."""
    import math

    import torch

    query = torch.tensor([[1.0, 0.0]])
    loss = sance_loss(query, 50 * query, torch.tensor([[-1.0, 0.0]]), 1.0)
    assert loss.shape == (), f"a loss is one number; yours has shape {tuple(loss.shape)}"
    assert abs(loss.item() + math.log(2)) < 1e-3, (
        f"a perfect contrast with w = 1 and K = 2 has loss -log 2, yours {loss.item():.4f}"
    )
    close = sance_loss(query, 50 * query, torch.tensor([[0.75, 0.0]]), 1.0)
    assert abs(close.item() + 0.25 * math.log(2)) < 1e-3, (
        f"a negative at distance 0.25 gives weight 0.25; your loss is {close.item():.4f}"
    )


# %% question="q4" points=1 hidden=true
def test_loss_gradient(sance_loss):
    """Against the gradient written out, with the weight held fixed."""
    import torch

    generator = torch.Generator().manual_seed(4)
    query, positive = (0.3 * torch.randn(2, 5, 3, generator=generator)).double()
    negatives = (0.3 * torch.randn(4, 3, generator=generator)).double()
    query.requires_grad_()
    (gradient,) = torch.autograd.grad(sance_loss(query, positive, negatives, 0.5), query)
    q = query.detach()
    weight = min(1.0, float(torch.cdist(q, negatives).mean()))
    logits = torch.cat([(q * positive).sum(dim=1, keepdim=True), q @ negatives.T], dim=1) / 0.5
    share = logits.softmax(dim=1)  # (5, 1 + 4)
    pull = positive - share[:, :1] * positive - share[:, 1:] @ negatives
    assert torch.allclose(gradient, -weight * pull / 0.5 / 5, atol=1e-6)


# %% [markdown] question="q5"
# ## Question 5: an honest probe (3 points)
#
# Does an embedding hold a label? Hold out one *group* (one task) at a time. On all other groups compute the mean embedding
# of each label; give each held-out embedding the label of the *nearest* mean; return the share of right answers over all
# embeddings. (Labels that only the held-out group has cannot be predicted and count as wrong.) Testing on tasks that the
# means have seen would reward an embedding that merely tells tasks apart.


# %% question="q5" answer=true
def probe_accuracy(embedding, labels, group):
    """Share of right answers, a float, from numpy arrays (E, D), (E,) and (E,)"""
    # BEGIN SOLUTION
    right = 0
    for held_out in np.unique(group):
        test, train = group == held_out, group != held_out
        known = np.unique(labels[train])
        means = np.stack([embedding[train & (labels == label)].mean(axis=0) for label in known])
        distance = np.linalg.norm(embedding[test][:, None] - means[None], axis=2)
        right += int((known[distance.argmin(axis=1)] == labels[test]).sum())
    return right / len(labels)
    # END SOLUTION


# %% question="q5" points=1
def test_probe_of_clear_clusters(probe_accuracy):
    """Labels that lie apart in every task are read off perfectly."""
    import numpy as np

    embedding = np.array([[0.0, 0], [5, 5], [0.2, 0], [5, 5.2], [0, 0.1], [4.9, 5]])
    labels, group = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    found = probe_accuracy(embedding, labels, group)
    assert isinstance(found, float), "return a Python float between 0 and 1"
    assert abs(found - 1) < 1e-9, f"you give {found:.3f}; every point lies at its label's mean"
    contradicted = probe_accuracy(embedding[:4], np.array([0, 1, 1, 0]), group[:4])
    assert abs(contradicted) < 1e-9, (
        f"you give {contradicted:.3f} instead of 0 for two tasks that contradict each other: each "
        "one is judged by the means of the other alone, so leave a whole group out at a time"
    )


# %% question="q5" points=1 hidden=true
def test_probe_does_not_reward_memory_of_tasks(probe_accuracy):
    """Each task a tight cluster of one label, labels at random over tasks: chance, not 1."""
    import numpy as np

    rng = np.random.default_rng(5)
    centre = 10 * rng.normal(size=(40, 12))
    label = rng.integers(0, 2, 40)
    group = np.repeat(np.arange(40), 5)
    embedding = centre[group] + 0.01 * rng.normal(size=(200, 12))
    assert probe_accuracy(embedding, label[group], group) < 0.75


# %% question="q5" points=1 hidden=true
def test_probe_against_a_loop(probe_accuracy):
    """Three labels, groups of any size, a label that only one group has."""
    import numpy as np

    rng = np.random.default_rng(6)
    labels = rng.choice(["pick", "push", "roll"], 50)
    group = rng.integers(0, 6, 50)
    labels[group == 3] = "none"
    where = {"pick": 0.0, "push": 1.5, "roll": 3.0, "none": 5.0}
    embedding = np.array([[where[label], 0.0] for label in labels]) + rng.normal(size=(50, 2))
    right = 0
    for e in range(50):
        distance = {}
        for label in set(labels[group != group[e]]):
            rows = [i for i in range(50) if group[i] != group[e] and labels[i] == label]
            mean = sum(embedding[i] for i in rows) / len(rows)
            distance[label] = ((embedding[e] - mean) ** 2).sum()
        right += min(distance, key=distance.get) == labels[e]
    assert abs(probe_accuracy(embedding, labels, group) - right / 50) < 1e-9


# %% [markdown] question="q6"
# ## Question 6: two weights (2 points)
#
# Training has reached a perfect contrast with `num_negatives` negatives, whose mean distance from the queries is `distance`.

# %% question="q6"
num_negatives, distance = 15 + VARIANT % 8, 0.4 + 0.1 * (VARIANT % 5)

# %% question="q6" answer=true
# w times the estimate, in nats, with w = min(d, 1):
value_min = min(distance, 1) * math.log(num_negatives + 1)  # SOLUTION
# ... and with the printed w = max(d, 1):
value_max = max(distance, 1) * math.log(num_negatives + 1)  # SOLUTION


# %% question="q6" points=0
def test_values_of_both_weights(value_min, value_max):
    """Two numbers, in this order."""
    assert isinstance(value_min, int | float), "give `value_min` as a number or a formula"
    assert isinstance(value_max, int | float), "give `value_max` as a number or a formula"
    assert value_min <= value_max, "min(d, 1) is never above max(d, 1)"


# %% question="q6" points=1 hidden=true
def test_value_with_min(value_min):
    """The distance times log K."""
    import math

    VARIANT = 0
    wanted = min(0.4 + 0.1 * (VARIANT % 5), 1) * math.log(16 + VARIANT % 8)
    assert abs(value_min - wanted) < 1e-3


# %% question="q6" points=1 hidden=true
def test_value_with_max(value_max):
    """log K, since the distance is below 1."""
    import math

    VARIANT = 0
    assert abs(value_max - math.log(16 + VARIANT % 8)) < 1e-3


# %% [markdown]
# ## A small training run
#
# Scripted experts push or pick in each of CubeMove's training tasks. An encoder reads the episodes; your loss makes good
# episodes of a task alike and unlike its bad ones. Then your probe asks, each time in a task that its means have not seen (the encoder has
# trained on all of them): was the episode good?
# The same question goes to the encoder before training. The number need not rise: the loss contrasts within each task, and
# nothing asks for the same direction in all of them. Look at yours with question 7 in mind. (For brevity there is
# no momentum encoder here, and the negatives carry a gradient, unlike in chapter 8.)

# %% tags=["otter_ignore"]
from sami_tutorial.encoder import ContextEncoder
from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.envs.cube_skills import scripted_pick, scripted_push


def collect(per_skill, seed):
    """Episodes of both experts in every task: s (E, T+1, S), a (E, T, A), r (E, T), task (E,)"""
    contexts = task_sets("sami/CubeMove-v0").train
    rng = np.random.default_rng(seed)
    parts = []
    for expert in (scripted_push, scripted_pick):
        chosen = [context for context in contexts for _ in range(per_skill)]
        env = make_vec("sami/CubeMove-v0", len(chosen))
        seeds = rng.integers(1_000_000, size=len(chosen)).tolist()
        observation, _ = env.reset(seed=seeds, options={"context": chosen})
        s, a, r, last = [observation], [], [], False
        while not last:
            noise = 0.3 * rng.normal(size=(len(chosen), 2))
            action = np.clip(expert(s[-1]) + noise, -1, 1).astype(np.float32)
            observation, reward, _, truncated, info = env.step(action)
            last = truncated.any()  # all episodes have the same length
            s.append(np.stack(info["final_obs"]) if last else observation)
            a.append(action)
            r.append(reward)
        stacked = (np.stack(each, axis=1).astype(np.float32) for each in (s, a, r))
        parts.append([torch.as_tensor(each) for each in stacked])
    task = torch.arange(len(contexts)).repeat_interleave(per_skill).repeat(2)
    return *(torch.cat(each) for each in zip(*parts, strict=True)), task


if all(done.get(question) for question in ("q1", "q2", "q3", "q4", "q5")):
    s, a, r, task = collect(per_skill=8, seed=0)
    good, bad = good_and_bad(r.sum(dim=1), task)
    generator = torch.Generator().manual_seed(0)
    encoder = ContextEncoder(5, 2, generator)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)

    def accuracy():
        with torch.no_grad():
            embedding = encoder(s, a, r)[:, -1]  # after the last step
        ranked = good | bad
        return probe_accuracy(embedding[ranked].numpy(), good[ranked].numpy(), task[ranked].numpy())

    print(f"before training: {accuracy():.2f}")
    for _ in range(200):
        e = torch.randint(int(task.max()) + 1, (), generator=generator)
        of_task = [(mask & (task == e)).nonzero().flatten() for mask in (good, bad)]
        query = of_task[0][torch.randperm(len(of_task[0]), generator=generator)]
        q, negatives = (encoder(s[i], a[i], r[i])[:, -1] for i in (query, of_task[1]))
        loss = sance_loss(q, q.detach().roll(1, dims=0), negatives, beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"after training:  {accuracy():.2f}")
else:
    print("Finish questions 1 to 5 first.")

# %% [markdown] question="q7" manual=4
# ## Question 7: what does the number say? (4 points)
#
# In 150 to 250 words: (a) The probe reads "good" off the embedding of a *finished* episode. Why is that weaker evidence than
# an agent that acts better, and which other explanation of a high number can you name? (b) SaNCE's negatives are not draws
# from the marginal. What does $\hat I$ therefore *not* bound? (c) Propose one control experiment that would tell
# "the embedding holds the skill" from "the embedding holds the return", and say which result would speak for which.

# %% [markdown] question="q7" answer=true
# A model answer, with the rubric of the instructor's guide. (a) The embedding may hold what the episode showed at its end,
# including the sum of the rewards it has read, or features that go with success, without anything that helps to choose an action
# early in the next try; and the probe was trained on the very ranking that the loss used. An agent that acts better on new
# tasks is direct evidence. (b) Queries and positives are chosen by return, negatives are the bad trajectories, so the
# products of marginals that InfoNCE's bound needs never occur: the value is no lower bound on I(c; skill) or on any mutual
# information of context and trajectory; it says how well two chosen groups can be told apart, at most log K. (c) Probe for the
# skill among episodes of one task that have *equal* return and used different skills, with tasks held out: accuracy above
# chance says that the embedding holds the skill beyond the return; chance says that what was read was the return or what goes
# with it. A second control asks about the ranking: shuffle the returns within each task before the split; if a probe for the
# skill then falls, the ranking had taught it, and if it stays, the ranking taught nothing about it.

# %% [markdown]
# Before you submit: restart the kernel, run all cells, save. Then hand in this notebook as
# [the student's page](../how_to_submit.md) says.
