"""The contrastive losses against plain loops, closed forms, and known mutual information."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_tutorial.contrastive import bce_contrast, info_nce, mi_lower_bound, sance

D = 4
NAN = float("nan")


def embeddings(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=g, dtype=torch.float64)


def batch(queries: int = 5, negatives: tuple[int, ...] = (7,), seed: int = 0):
    return (
        embeddings(queries, D, seed=seed),
        embeddings(queries, D, seed=seed + 1),
        embeddings(*negatives, D, seed=seed + 2),
    )


# --- the same numbers from plain Python, one query and one key at a time ----------------------


def dot(a, b) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cosine(a, b) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def loop_info_nce(query, positive, negatives, temperature, normalize) -> float:
    similarity = cosine if normalize else dot
    losses = []
    for i in range(len(query)):
        own = negatives if negatives.ndim == 2 else negatives[i]
        f_plus = math.exp(similarity(query[i], positive[i]) / temperature)
        f_minus = [math.exp(similarity(query[i], key) / temperature) for key in own]
        losses.append(-math.log(f_plus / (f_plus + sum(f_minus))))
    return sum(losses) / len(losses)


def loop_sance(query, positive, negatives, temperature, normalize, weight) -> float:
    num_samples = len(negatives) + 1
    estimate = math.log(num_samples) - loop_info_nce(
        query, positive, negatives, temperature, normalize
    )
    distances = [math.dist(q.tolist(), k.tolist()) for q in query for k in negatives]
    d = sum(distances) / len(distances)
    return -{"min": min(d, 1.0), "max": max(d, 1.0), "none": 1.0}[weight] * estimate


def loop_bce(query, positive, negatives, temperature) -> float:
    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    plus = [log_sigmoid(cosine(q, k) / temperature) for q in query for k in positive]
    minus = [log_sigmoid(-cosine(q, k) / temperature) for q in query for k in negatives]
    return -sum(plus) / len(plus) - sum(minus) / len(minus)


sizes = st.integers(1, 6)
temperatures = st.floats(0.05, 5.0)


@settings(deadline=None, max_examples=50)
@given(sizes, sizes, temperatures, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_info_nce_is_the_loop(queries, negatives, temperature, own, normalize, seed):
    shape = (queries, negatives) if own else (negatives,)
    q, p, n = batch(queries, shape, seed)
    loss = info_nce(q, p, n, temperature, normalize)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(
        loop_info_nce(q, p, n, temperature, normalize), rel=1e-6, abs=1e-6
    )


@settings(deadline=None, max_examples=50)
@given(
    sizes,
    sizes,
    temperatures,
    st.booleans(),
    st.sampled_from(["min", "max", "none"]),
    st.floats(1e-4, 3.0),  # from embeddings that are alike to embeddings far apart
    st.integers(0, 1000),
)
def test_sance_is_the_loop(queries, negatives, temperature, normalize, weight, scale, seed):
    q, p, n = (scale * x for x in batch(queries, (negatives,), seed))
    loss = sance(q, p, n, temperature, normalize, weight)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(
        loop_sance(q, p, n, temperature, normalize, weight), rel=1e-6, abs=1e-6
    )


@settings(deadline=None, max_examples=50)
@given(sizes, sizes, sizes, temperatures, st.integers(0, 1000))
def test_bce_contrast_is_the_loop(queries, positives, negatives, temperature, seed):
    q = embeddings(queries, D, seed=seed)
    p = embeddings(positives, D, seed=seed + 1)
    n = embeddings(negatives, D, seed=seed + 2)
    loss = bce_contrast(q, p, n, temperature)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(loop_bce(q, p, n, temperature), rel=1e-6, abs=1e-6)


# --- closed forms -----------------------------------------------------------------------------


def test_equal_similarities_are_chance():
    one = torch.ones(3, D, dtype=torch.float64)
    assert float(info_nce(one, one, one[:1].expand(9, D))) == pytest.approx(math.log(10))
    assert float(sance(one, one, one[:1].expand(9, D), weight="none")) == pytest.approx(0)
    across = torch.eye(D, dtype=torch.float64)
    assert float(bce_contrast(across[:1], across[1:2], across[2:])) == pytest.approx(
        2 * math.log(2)
    )


def test_a_positive_along_the_query_and_opposite_negatives():
    """Cosines 1 and -1: log(1 + N exp(-2 / temperature)), whatever the lengths."""
    q = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    n = -q.expand(4, 2)
    expected = math.log1p(4 * math.exp(-2 / 0.5))
    assert float(info_nce(q, 7 * q, n, 0.5, normalize=True)) == pytest.approx(expected)
    estimate = math.log(5) - expected
    assert float(sance(q, 7 * q, n, 0.5, normalize=True, weight="none")) == pytest.approx(-estimate)
    # Query and negatives are 6 apart, and the weight is of the embeddings, not of the directions.
    assert float(sance(q, 7 * q, n, 0.5, True, "max")) == pytest.approx(-6 * estimate)
    assert float(sance(q, 7 * q, n, 0.5, True, "min")) == pytest.approx(-estimate)
    expected = 2 * math.log1p(math.exp(-1 / 0.5))
    assert float(bce_contrast(q, 7 * q, n, 0.5)) == pytest.approx(expected)


def test_the_default_weight_is_weak_while_embeddings_are_alike():
    q, p, n = (1e-3 * x for x in batch())
    unweighted = sance(q, p, n, weight="none")
    distance = torch.linalg.norm(q[:, None] - n[None], dim=-1).mean()
    assert distance < 1
    assert torch.allclose(sance(q, p, n), distance * unweighted)
    assert torch.allclose(sance(q, p, n, weight="max"), unweighted)


def test_the_distance_keeps_its_digits_for_embeddings_far_from_the_origin():
    q, n = embeddings(30, D, scale=1e-6) + 1e3, embeddings(40, D, seed=1, scale=1e-6) + 1e3
    loss, estimate = sance(q, q, n, temperature=1e3), sance(q, q, n, 1e3, weight="none")
    distance = torch.linalg.norm(q[:, None] - n[None], dim=-1).mean()
    assert float(loss) == pytest.approx(float(distance * estimate), rel=1e-6)


def test_bound_is_log_k_minus_loss():
    assert float(mi_lower_bound(torch.tensor(0.25), 8)) == pytest.approx(math.log(8) - 0.25)
    assert float(mi_lower_bound(torch.tensor(0.0), 1)) == 0


@settings(deadline=None, max_examples=30)
@given(sizes, sizes, temperatures, st.integers(0, 1000))
def test_no_batch_lifts_the_bound_above_log_k(queries, negatives, temperature, seed):
    q, _, n = batch(queries, (negatives,), seed)
    bound = mi_lower_bound(info_nce(q, 10 * q, n, temperature), negatives + 1)
    assert float(bound) <= math.log(negatives + 1)


def test_default_temperature_and_raw_products():
    q, p, n = batch()
    assert torch.equal(info_nce(q, p, n), info_nce(q, p, n, temperature=0.1, normalize=False))
    assert torch.equal(sance(q, p, n), sance(q, p, n, 0.1, False, "min"))
    assert torch.equal(bce_contrast(q, p, n), bce_contrast(q, p, n, 0.1))
    assert torch.allclose(info_nce(q, p, n, 0.1), info_nce(q / 0.1, p, n, 1.0))


# --- symmetry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [info_nce, sance, bce_contrast])
def test_the_order_of_negatives_does_not_matter(loss):
    q, p, n = batch()
    assert torch.allclose(loss(q, p, n), loss(q, p, n[torch.tensor([3, 1, 0, 6, 5, 2, 4])]))


@pytest.mark.parametrize("loss", [info_nce, sance])
def test_a_query_keeps_its_positive(loss):
    q, p, n = batch()
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(loss(q, p, n), loss(q[order], p[order], n))
    assert not torch.allclose(loss(q, p, n), loss(q, p[order], n))


def test_negatives_of_its_own_equal_shared_ones_when_repeated():
    q, p, n = batch()
    assert torch.allclose(info_nce(q, p, n), info_nce(q, p, n.expand(5, 7, D)))


def test_cosines_ignore_lengths():
    q, p, n = batch()
    assert torch.allclose(info_nce(q, p, n, 0.5, True), info_nce(3 * q, p / 2, 5 * n, 0.5, True))
    assert torch.allclose(bce_contrast(q, p, n), bce_contrast(3 * q, p / 2, 5 * n))


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("negatives", [(7,), (5, 7)])
def test_gradients_of_info_nce(negatives, normalize):
    inputs = [x.requires_grad_() for x in batch(negatives=negatives)]
    assert torch.autograd.gradcheck(lambda q, p, n: info_nce(q, p, n, 0.7, normalize), inputs)


def test_gradients_of_sance_without_weight_and_of_bce():
    inputs = [x.requires_grad_() for x in batch()]
    assert torch.autograd.gradcheck(lambda q, p, n: sance(q, p, n, 0.7, weight="none"), inputs)
    assert torch.autograd.gradcheck(lambda q, p, n: bce_contrast(q, p, n, 0.7), inputs)


@pytest.mark.parametrize(("weight", "scale"), [("min", 0.1), ("max", 3.0)])
def test_the_weight_is_a_constant_to_the_gradient(weight, scale):
    q, p, n = ((scale * x).requires_grad_() for x in batch())
    w = torch.linalg.norm(q[:, None] - n[None], dim=-1).mean().detach()
    assert (w < 1) == (weight == "min")
    weighted = torch.autograd.grad(sance(q, p, n, 0.7, weight=weight), [q, p, n])
    unweighted = torch.autograd.grad(sance(q, p, n, 0.7, weight="none"), [q, p, n])
    for ours, plain in zip(weighted, unweighted, strict=True):
        assert torch.allclose(ours, w * plain)


def test_detached_keys_get_no_gradient_and_the_query_does():
    q, p, n = batch()
    q.requires_grad_()
    for loss in (info_nce(q, p, n), sance(q, p, n), bce_contrast(q, p, n)):
        (gradient,) = torch.autograd.grad(loss, q)
        assert gradient.abs().sum() > 0


# --- large logits -----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [info_nce, sance])
@pytest.mark.parametrize("sign", [1, -1])
def test_large_logits_stay_finite(loss, sign):
    q = torch.full((3, D), 30.0, requires_grad=True)
    p, n = sign * q.detach(), -sign * q.detach()  # logits of 36 000: exp overflows even in float64
    value = loss(q, p, n)
    (gradient,) = torch.autograd.grad(value, q)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    if loss is info_nce:
        assert value.item() == pytest.approx(0 if sign > 0 else 72_000 + math.log(3), rel=1e-6)


def test_large_cosines_over_small_temperatures_stay_finite():
    q = torch.ones(2, D, requires_grad=True)
    value = bce_contrast(q, -q.detach(), q.detach(), temperature=1e-4)
    assert value.item() == pytest.approx(2e4, rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(value, q)[0]).all()


# --- bad input --------------------------------------------------------------------------------


def broken(which: int, value: torch.Tensor) -> list[torch.Tensor]:
    inputs = list(batch())
    inputs[which] = value
    return inputs


NAMES = ("query", "positive", "negatives")


@pytest.mark.parametrize("loss", [info_nce, sance, bce_contrast])
@pytest.mark.parametrize("which", range(3))
def test_empty_and_non_finite_tensors_are_refused_by_name(loss, which):
    with pytest.raises(ValueError, match=rf"^{NAMES[which]} has shape \(0, 4\).*empty"):
        loss(*broken(which, torch.zeros(0, D, dtype=torch.float64)))
    for number in (NAN, math.inf):
        bad = batch()[which].clone()
        bad[0, 1] = number
        with pytest.raises(ValueError, match=rf"^{NAMES[which]} holds NaN or infinity in 1 of"):
            loss(*broken(which, bad))


@pytest.mark.parametrize("loss", [info_nce, sance, bce_contrast])
@pytest.mark.parametrize("which", range(3))
def test_shapes_that_do_not_fit_are_refused_by_name(loss, which):
    with pytest.raises(ValueError, match=rf"^{NAMES[which]} has shape \(4,\)"):
        loss(*broken(which, embeddings(D)))
    if which:
        with pytest.raises(ValueError, match=rf"^{NAMES[which]} has shape \(5, 3\).*query's, 4"):
            loss(*broken(which, embeddings(5, 3)))


@pytest.mark.parametrize("loss", [info_nce, sance])
def test_one_positive_for_each_query(loss):
    with pytest.raises(ValueError, match=r"^positive has shape \(6, 4\).*\(5, 4\)"):
        loss(*broken(1, embeddings(6, D)))


def test_negatives_of_its_own_for_each_query():
    with pytest.raises(ValueError, match=r"^negatives has shape \(6, 7, 4\).*5 queries"):
        info_nce(*broken(2, embeddings(6, 7, D)))
    for loss in (sance, bce_contrast):
        with pytest.raises(ValueError, match=r"^negatives has shape \(5, 7, 4\).*\(N, D\)"):
            loss(*broken(2, embeddings(5, 7, D)))


@pytest.mark.parametrize("loss", [info_nce, sance, bce_contrast])
@pytest.mark.parametrize("temperature", [0.0, -0.1, NAN, math.inf])
def test_temperature_must_be_positive(loss, temperature):
    with pytest.raises(ValueError, match=r"^temperature is .*above 0"):
        loss(*batch(), temperature=temperature)


def test_unknown_weight():
    with pytest.raises(ValueError, match=r"^weight is 'median'.*min"):
        sance(*batch(), weight="median")


def test_bound_of_no_samples_or_a_broken_loss():
    with pytest.raises(ValueError, match=r"^num_samples is 0"):
        mi_lower_bound(torch.tensor(1.0), 0)
    with pytest.raises(ValueError, match=r"^loss is .*nan"):
        mi_lower_bound(torch.tensor(NAN), 4)
