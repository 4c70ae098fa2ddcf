# %% [markdown]
# # Assignment 3: InfoNCE and the log-K curse
#
# You write the InfoNCE loss and the bound on mutual information that comes with it, and put the bound to the test where the
# truth is known: on correlated Gaussians. You will see it stop at $\log K$, however much there is to know.
#
# **You show that you can** compute a contrastive loss without overflow; say what its bound can and cannot report; build the
# best possible critic for a known distribution; run an estimate that somebody else can repeat.
#
# **Read first:** [chapter 5](../05_infonce.ipynb). **Time:** 60 to 90 minutes. **Points:** 20. All information is in nats.
# $K$ counts *all* keys of a query: one positive and $K - 1$ negatives.
#
# Replace each line that raises `NotImplementedError`, run the check below it, repeat. The checks you see earn about a third
# of the points (a few earn none and only look at the form of an answer); hidden ones earn the rest, and ask whether the *idea* is right: on other numbers, at the edges, in the
# gradients. Any correct way to write it counts. Keep names and arguments as they are.

# %%
import math

import torch

VARIANT = 0  # your course may have another number here; question 6 depends on it
torch.set_num_threads(1)

# %% [markdown] question="q1"
# ## Question 1: the loss (4 points)
#
# A batch holds $K$ pairs. `scores[i, j]` is $\log f(\text{query}_i, \text{key}_j)$; key $i$ is the positive of query $i$,
# and all other keys of the row are its negatives. Return
#
# $$ L = - \frac{1}{K} \sum_i \log \frac{f_{ii}}{\sum_j f_{ij}} , $$
#
# and let it be right for scores of $\pm 10\,000$, too: never form $f = e^{\text{score}}$ itself.


# %% question="q1" answer=true
def infonce(scores):
    """The loss in nats, shape (), from scores (K, K)"""
    # BEGIN SOLUTION
    return (torch.logsumexp(scores, dim=1) - scores.diagonal()).mean()
    # END SOLUTION


# %% question="q1" points=1
def test_infonce_at_chance(infonce):
    """Equal scores: guessing among K keys costs log K."""
    import math

    import torch

    for size in (1, 2, 8):
        loss = infonce(torch.full((size, size), 3.0))
        assert loss.shape == (), f"a loss is one number; yours has shape {tuple(loss.shape)}"
        assert abs(loss.item() - math.log(size)) < 1e-5, (
            f"with {size} equal scores you give {loss.item():.4f}, not log {size} = "
            f"{math.log(size):.4f}; does the sum in the denominator hold the positive, too?"
        )


# %% question="q1" points=1
def test_infonce_by_hand(infonce):
    """Two queries: the first finds its key with odds 3 : 1, the second with 1 : 1."""
    import math

    import torch

    scores = torch.tensor([[math.log(3.0), 0.0], [1.0, 1.0]])
    loss = infonce(scores).item()
    wanted = (math.log(4 / 3) + math.log(2)) / 2
    assert abs(loss - wanted) < 1e-5, (
        f"you give {loss:.4f} instead of (log 4/3 + log 2) / 2 = {wanted:.4f}; each *row* is one "
        "query with its keys, the positives are on the diagonal, and the loss is a mean"
    )


# %% question="q1" points=1 hidden=true
def test_infonce_against_a_loop(infonce):
    """Random, far from symmetric scores, and the gradient (softmax - identity) / K."""
    import torch

    generator = torch.Generator().manual_seed(1)
    scores = 2 * torch.randn(6, 6, generator=generator, dtype=torch.float64) + torch.arange(6.0)
    scores.requires_grad_()
    loss = infonce(scores)
    wanted = 0.0
    for i in range(6):
        row = scores.detach()[i].exp()
        wanted -= float(torch.log(row[i] / row.sum())) / 6
    assert abs(loss.item() - wanted) < 1e-6
    (gradient,) = torch.autograd.grad(loss, scores)
    exact = (scores.detach().softmax(dim=1) - torch.eye(6)) / 6
    assert torch.allclose(gradient, exact.double(), atol=1e-6)


# %% question="q1" points=1 hidden=true
def test_infonce_with_large_scores(infonce):
    """No overflow, no underflow."""
    import torch

    for shift in (-10_000.0, 10_000.0):
        scores = torch.full((3, 3), shift)
        assert abs(infonce(scores).item() - 1.0986) < 1e-2
    hard = torch.tensor([[0.0, 10_000.0], [0.0, 0.0]])
    assert abs(infonce(hard).item() - (10_000 + 0.6931) / 2) < 1


# %% [markdown] question="q2"
# ## Question 2: scores from embeddings (3 points)
#
# `scores[i, j]` is the inner product of query $i$ and key $j$, divided by the temperature; with `normalize=True` it is their
# cosine, divided by the temperature.


# %% question="q2" answer=true
def similarities(query, keys, temperature, normalize):
    """Scores (B, N) from (B, D), (N, D), a positive number and True or False"""
    # BEGIN SOLUTION
    products = torch.einsum("id,jd->ij", query, keys)
    if normalize:
        products = products / (query.norm(dim=1)[:, None] * keys.norm(dim=1)[None, :])
    return products / temperature
    # END SOLUTION


# %% question="q2" points=1
def test_similarities_by_hand(similarities):
    """Two queries, three keys: rows are queries."""
    import torch

    query, keys = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 4.0], [1, 0], [0, 1]])
    scores = similarities(query, keys, 0.5, False)
    assert scores.shape == (2, 3), f"(2, D) queries and (3, D) keys give {tuple(scores.shape)}"
    wanted = torch.tensor([[6.0, 2.0, 0.0], [16.0, 0.0, 4.0]])
    assert torch.allclose(scores, wanted), (
        f"you give {scores.tolist()} instead of {wanted.tolist()}; a temperature of 0.5 doubles "
        "the inner products"
    )


# %% question="q2" points=1 hidden=true
def test_similarities_with_cosines(similarities):
    """Cosines ignore the lengths of both sides, and lie in [-1, 1] before the division."""
    import torch

    generator = torch.Generator().manual_seed(2)
    query, keys = torch.randn(4, 5, generator=generator), torch.randn(6, 5, generator=generator)
    scores = similarities(query, keys, 0.1, True)
    assert scores.abs().max() <= 10.001
    lengths = torch.tensor([[0.5], [7.0], [2.0], [1.0]])
    assert torch.allclose(similarities(query * lengths, 3 * keys, 0.1, True), scores, atol=1e-4)
    assert torch.allclose(similarities(keys, keys, 2.0, True).diagonal(), torch.full((6,), 0.5))


# %% question="q2" points=1 hidden=true
def test_similarities_against_a_loop(similarities):
    """Both forms, one pair at a time, with a gradient for queries and keys."""
    import torch

    generator = torch.Generator().manual_seed(3)
    query = torch.randn(3, 4, generator=generator).requires_grad_()
    keys = torch.randn(5, 4, generator=generator).requires_grad_()
    for normalize in (False, True):
        scores = similarities(query, keys, 0.7, normalize)
        for i in range(3):
            for j in range(5):
                product = (query[i] * keys[j]).sum()
                if normalize:
                    product = product / (query[i] * query[i]).sum() ** 0.5
                    product = product / (keys[j] * keys[j]).sum() ** 0.5
                assert abs(scores[i, j] - product / 0.7) < 1e-4
        for gradient in torch.autograd.grad(scores.sum(), (query, keys)):
            assert gradient.abs().max() > 0


# %% [markdown] question="q3"
# ## Question 3: the bound, and a truth to hold it against (3 points)
#
# With $K$ keys per query, $\log K - L$ is at most the mutual information, in expectation. The truth: if $x$ and $y$ are
# standard Gaussian vectors of `dim` independent dimensions, and $x_i$ and $y_i$ have correlation $\rho$, then
# $I(x; y) = - \frac{\text{dim}}{2} \log (1 - \rho^2)$.


# %% question="q3" answer=true
def lower_bound(loss, num_keys):
    """The bound in nats, from a loss and K (one positive and K - 1 negatives)"""
    # BEGIN SOLUTION
    return math.log(num_keys) - loss
    # END SOLUTION


# %% question="q3" answer=true
def gaussian_information(rho, dim):
    """I(x; y) in nats, from a correlation in (-1, 1) and a number of dimensions"""
    # BEGIN SOLUTION
    return -dim * math.log1p(-rho * rho) / 2
    # END SOLUTION


# %% question="q3" points=1
def test_bound_at_the_ends(lower_bound):
    """Chance level stands for 0 nats; a perfect loss stands for log K."""
    import math

    import torch

    at_chance = float(lower_bound(torch.tensor(math.log(8.0)), 8))
    perfect = float(lower_bound(torch.tensor(0.0), 8))
    assert abs(at_chance) < 1e-5, (
        f"8 equal scores tell nothing, and you report {at_chance:.4f} nats; K is the number of "
        "all keys, so neither 7 nor 9"
    )
    assert abs(perfect - math.log(8)) < 1e-5, f"at loss 0 you report {perfect:.4f}, not log 8"


# %% question="q3" points=1 hidden=true
def test_bound_keeps_the_gradient(lower_bound):
    """Raising the bound and lowering the loss are the same thing."""
    import torch

    loss = torch.tensor(0.4, requires_grad=True)
    bound = lower_bound(loss, 16)
    assert abs(bound.item() - 2.372589) < 1e-4
    (gradient,) = torch.autograd.grad(bound, loss)
    assert gradient.item() == -1


# %% question="q3" points=1 hidden=true
def test_gaussian_information_by_integration(gaussian_information):
    """Against the integral of p(x, y) log p(x, y) / (p(x) p(y)), and dimensions add up."""
    import math

    import numpy as np

    grid = np.linspace(-7, 7, 561)
    x, y = np.meshgrid(grid, grid)
    for rho in (-0.8, 0.0, 0.5):
        rest = 1 - rho * rho
        log_joint = -(x * x - 2 * rho * x * y + y * y) / (2 * rest) - 0.5 * math.log(rest)
        log_ratio = log_joint + (x * x + y * y) / 2
        density = np.exp(log_joint) / (2 * math.pi)
        wanted = (density * log_ratio).sum() * (grid[1] - grid[0]) ** 2
        assert abs(float(gaussian_information(rho, 1)) - wanted) < 1e-3
        assert abs(float(gaussian_information(rho, 7)) - 7 * wanted) < 1e-2


# %% [markdown] question="q4"
# ## Question 4: the best critic (4 points)
#
# InfoNCE is tightest for $f(x, y) = p(y \mid x) / p(y)$. For our Gaussians $y \mid x$ is Gaussian, in each dimension with
# mean $\rho x_i$ and variance $1 - \rho^2$, and $y$ is standard Gaussian. Return $\log f$ for *all pairs* of rows.


# %% question="q4" answer=true
def log_ratio(x, y, rho):
    """log p(y_j | x_i) - log p(y_j), shape (B, N), from (B, D), (N, D) and a number"""
    # BEGIN SOLUTION
    given, alone = x[:, None, :], y[None, :, :]  # (B, 1, D), (1, N, D)
    rest = 1 - rho**2
    conditional = -((alone - rho * given) ** 2) / (2 * rest) - math.log(rest) / 2
    marginal = -(alone**2) / 2
    return (conditional - marginal).sum(dim=-1)
    # END SOLUTION


# %% question="q4" points=1
def test_log_ratio_without_correlation(log_ratio):
    """rho = 0: x says nothing about y, so the ratio is 1 everywhere."""
    import torch

    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(3, 2, generator=generator), torch.randn(5, 2, generator=generator)
    scores = log_ratio(x, y, 0.0)
    assert scores.shape == (3, 5), (
        f"3 rows of x and 5 of y are 15 pairs, shape (3, 5); yours is {tuple(scores.shape)}. "
        "Indexing with None makes room for broadcasting: x[:, None], y[None]"
    )
    assert scores.abs().max() < 1e-5, "p(y | x) = p(y) here, so the logarithm of the ratio is 0"


# %% question="q4" points=1
def test_log_ratio_at_the_origin(log_ratio):
    """At x = y = 0 only the heights of the two Gaussians differ."""
    import torch

    value = log_ratio(torch.zeros(1, 3), torch.zeros(1, 3), 0.6).item()
    assert abs(value - 3 * 0.22314) < 1e-3, (
        f"you give {value:.4f}, not 3 * -log(1 - 0.36) / 2 = 0.6694; the narrower "
        "Gaussian p(y | x) is the higher one, and 1 - rho^2 is its *variance*"
    )


# %% question="q4" points=1 hidden=true
def test_log_ratio_against_distributions(log_ratio):
    """Pair by pair, for correlations of both signs."""
    import torch
    from torch.distributions import Normal

    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(4, 3, generator=generator), torch.randn(6, 3, generator=generator)
    for rho in (-0.9, 0.3, 0.95):
        scores = log_ratio(x, y, rho)
        for i in range(4):
            conditional = Normal(rho * x[i], (1 - rho**2) ** 0.5)
            wanted = (conditional.log_prob(y) - Normal(0.0, 1.0).log_prob(y)).sum(dim=1)
            assert torch.allclose(scores[i], wanted, atol=1e-3)


# %% question="q4" points=1 hidden=true
def test_log_ratio_is_a_ratio_of_densities(log_ratio):
    """Its exponential averages to 1 over draws of y alone, and its mean over pairs is I(x; y)."""
    import torch

    generator = torch.Generator().manual_seed(6)
    x = torch.randn(20_000, 1, generator=generator)
    noise = torch.randn(20_000, 1, generator=generator)
    assert abs(log_ratio(x[:1], noise, 0.5).exp().mean().item() - 1) < 0.05
    y = 0.5 * x + 0.75**0.5 * noise
    paired = log_ratio(x[:1000], y[:1000], 0.5).diagonal()
    assert abs(paired.mean().item() - 0.1438) < 0.05


# %% [markdown] question="q5"
# ## Question 5: an estimate (4 points)
#
# Draw `batches` batches of `num_keys` independent pairs, with fresh pairs in each. Score every batch with `log_ratio` (the
# best critic), turn its loss into the bound, and return the *mean* of the bounds as a Python float. All random numbers come
# from `generator`, so that the same seed gives the same number. A pair is $x \sim \mathcal{N}(0, 1)$ and
# $y = \rho x + \sqrt{1 - \rho^2} \, \varepsilon$ with $\varepsilon \sim \mathcal{N}(0, 1)$, per dimension.


# %% question="q5" answer=true
def average_bound(rho, dim, num_keys, batches, generator):
    """The mean InfoNCE bound in nats, a float"""
    # BEGIN SOLUTION
    total = 0.0
    for _ in range(batches):
        x, noise = torch.randn(2, num_keys, dim, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        total += lower_bound(infonce(log_ratio(x, y, rho)), num_keys).item()
    return total / batches
    # END SOLUTION


# %% question="q5" points=1
def test_average_bound_with_nothing_to_know(average_bound):
    """rho = 0: zero nats. And a seed makes it repeatable."""
    import torch

    nothing = average_bound(0.0, 3, 16, 5, torch.Generator().manual_seed(0))
    assert isinstance(nothing, float), "return a Python float (.item() turns a tensor into one)"
    assert abs(nothing) < 1e-4, (
        f"independent x and y share 0 nats; you report {nothing:.4f}. Do questions 1, 3 and 4 hold?"
    )
    first, second, other = (
        average_bound(0.7, 3, 16, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == second, "the same seed gives two numbers; draw everything from `generator`"
    assert first != other, "two seeds give one number; draw from the generator that is passed in"


# %% question="q5" points=1 hidden=true
def test_average_bound_finds_little_information(average_bound):
    """Where I is far below log K, the bound is close to it, from below."""
    import math

    import torch

    information = -0.5 * math.log(1 - 0.6**2)
    estimate = average_bound(0.6, 1, 128, 60, torch.Generator().manual_seed(3))
    assert information - 0.06 < estimate < information + 0.04


# %% question="q5" points=1 hidden=true
def test_average_bound_stops_at_log_k(average_bound):
    """Where I is far above log K, the bound is log K."""
    import math

    import torch

    for num_keys in (2, 32):
        estimate = average_bound(0.99, 10, num_keys, 20, torch.Generator().manual_seed(4))
        assert math.log(num_keys) - 0.02 < estimate <= math.log(num_keys) + 1e-5


# %% question="q5" points=1 hidden=true
def test_average_bound_between(average_bound):
    """K = 2 and one dimension: the expectation, by integrating over all pairs."""
    import numpy as np
    import torch

    rho, nodes = 0.8, 16
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / weight.sum()
    x, e, other = np.meshgrid(at, at, at, indexing="ij")
    y = rho * x + (1 - rho**2) ** 0.5 * e

    def score(given, value):
        return -((value - rho * given) ** 2) / (2 * (1 - rho**2)) + value**2 / 2

    expected = np.log(2) - np.log1p(np.exp(score(x, other) - score(x, y)))
    expected = (expected * weight[:, None, None] * weight[:, None] * weight).sum()
    estimate = average_bound(rho, 1, 2, 300, torch.Generator().manual_seed(5))
    assert abs(estimate - expected) < 0.08


# %% [markdown] question="q6"
# ## Question 6: how many keys does it take? (2 points)
#
# A representation of `dim` dimensions correlates with what matters by `rho` in each. You train with 64 keys per query.

# %% question="q6"
rho, dim = 0.9 + 0.01 * (VARIANT % 5), 4 + VARIANT % 3

# %% question="q6" answer=true
# The largest number of nats that the bound can report with 64 keys:
ceiling = math.log(64)  # SOLUTION
# The smallest whole number of keys whose ceiling is not below the mutual information:
keys_needed = math.ceil(math.exp(gaussian_information(rho, dim)))  # SOLUTION


# %% question="q6" points=0
def test_ceiling_and_keys_are_numbers(ceiling, keys_needed):
    """A number of nats, and a whole number of keys that is larger than 1."""
    assert isinstance(ceiling, int | float), "give `ceiling` as a number or a formula"
    assert isinstance(keys_needed, int), "keys are counted: round *up* to a Python int"
    assert keys_needed > 1, "with one key there is nothing to contrast: log 1 = 0"


# %% question="q6" points=1 hidden=true
def test_ceiling(ceiling):
    """Natural logarithm of 64."""
    assert abs(ceiling - 4.158883) < 1e-3


# %% question="q6" points=1 hidden=true
def test_keys_needed(keys_needed):
    """One key fewer would not do, and this many do."""
    import math

    VARIANT = 0
    rho, dim = 0.9 + 0.01 * (VARIANT % 5), 4 + VARIANT % 3
    information = -dim / 2 * math.log(1 - rho**2)
    assert math.log(keys_needed - 1) < information <= math.log(keys_needed)


# %% [markdown]
# ## The curse, drawn
#
# Each line is your estimate for one amount of information, with more and more keys. The dotted lines are the truths, the
# dashed one is the ceiling $\log K$. To report one nat more, $K$ has to grow by the factor $e$, and so has the batch.

# %% tags=["otter_ignore"]
from sami_tutorial import figures

if all(done.get(question) for question in ("q1", "q3", "q4", "q5")):
    generator = torch.Generator().manual_seed(0)
    num_keys = [2, 4, 8, 16, 32, 64, 128, 256]
    figure = figures.new_figure("keys per query K", "nats")
    for colour, correlation in zip(figures.PALETTE, (0.5, 0.9, 0.99), strict=False):
        truth = gaussian_information(correlation, 3)
        bounds = [average_bound(correlation, 3, k, 30, generator) for k in num_keys]
        name = f"rho = {correlation}"
        figure.add_scatter(x=num_keys, y=bounds, name=name, line={"color": colour})
        figure.add_scatter(
            x=[2, 256], y=[truth, truth], line={"color": colour, "dash": "dot"}, showlegend=False
        )
    figure.add_scatter(
        x=num_keys, y=[math.log(k) for k in num_keys], name="log K", line={"dash": "dash"}
    )
    figure.update_xaxes(type="log")
    figures.show(
        figure,
        alt="The InfoNCE bound against the number of keys for three correlations: each curve stays "
        "below log K and below the true information; the two smaller truths are reached, the "
        "largest is not with 256 keys.",
    )
else:
    print("Finish questions 1, 3, 4 and 5 first.")

# %% [markdown]
# Before you submit: restart the kernel, run all cells, save. Then hand in this notebook as
# [the student's page](../how_to_submit.md) says.
