"""Contrastive losses: how well does a query tell its positive key from the negatives?

    similarity   f(q, k) = exp(q . k / temperature)
    InfoNCE      I = E[ log( K f+ / (f+ + sum f-) ) ]    K keys: one positive, K - 1 negatives
    loss         log K - I = -E[ log( f+ / (f+ + sum f-) ) ], the cross-entropy of guessing f+
    SaNCE        the same ratio with keys of one task, weighted while its trajectories look alike

Everything is in nats. A function differentiates with respect to whatever it is given, except the
weight of SaNCE, which is a constant; keys from the momentum encoder come in detached. The checks of
the arguments cost microseconds, and so they run in every update.

Sources: van den Oord et al., arXiv 1807.03748 (InfoNCE); Yu et al., arXiv 2406.04815, equations 1,
3 and 4 (called "the paper" below). Built in chapters 5 (InfoNCE) and 8 (SaNCE).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    temperature: float = 0.1,
    normalize: bool = False,
) -> Tensor:
    """InfoNCE as a loss to minimise, the mean of -log( f+ / (f+ + sum f-) ) over the queries.

    The paper's equation 1 is log K minus this loss (:func:`mi_lower_bound`); the two have the same
    gradient but for the sign. Built in chapter 5.

    Args:
        query: (B, D).
        positive: (B, D), row i is the key that belongs to query i.
        negatives: (N, D), shared by all queries, or (B, N, D), a set of its own for each query.
        temperature: beta of the paper; the smaller, the more a difference in similarity counts.
        normalize: compare directions only (cosines instead of inner products).

    Returns:
        The loss in nats, shape (). Chance level, where all similarities are equal, is log(N + 1).

    Raises:
        ValueError: for tensors that are empty or, on the processor, not finite, for shapes that do
            not fit, or a temperature that is not a positive number.
    """
    _check_keys(query, positive, negatives, temperature)
    if positive.shape != query.shape:
        raise ValueError(
            f"positive has shape {tuple(positive.shape)}; give one key for each query, shape "
            f"{tuple(query.shape)}"
        )
    if negatives.ndim == 3 and len(negatives) != len(query):
        raise ValueError(
            f"negatives has shape {tuple(negatives.shape)}; its first axis must hold one set for "
            f"each of the {len(query)} queries (or give (N, D): one set for all)"
        )
    if normalize:
        query, positive, negatives = (F.normalize(x, dim=-1) for x in (query, positive, negatives))
    to_positive = (query * positive).sum(dim=-1, keepdim=True)  # (B, 1)
    if negatives.ndim == 2:
        to_negatives = query @ negatives.T  # (B, N)
    else:
        to_negatives = (negatives @ query.unsqueeze(-1)).squeeze(
            -1
        )  # (B, N, D) (B, D, 1) -> (B, N)
    logits = torch.cat([to_positive, to_negatives], dim=1) / temperature  # (B, K)
    # log f+ / (f+ + sum f-) is the log-softmax of column 0, which never forms exp(logits) itself.
    return -F.log_softmax(logits, dim=1)[:, 0].mean()


def mi_lower_bound(loss: Tensor, num_samples: int) -> Tensor:
    """The bound on mutual information that an InfoNCE loss stands for: log K - loss, in nats.

    Its expectation lies below I(x; y) if the negatives are independent draws from the marginal of
    the keys, and no value of it exceeds log K. Equation 1 of the paper. Built in chapter 5.

    Args:
        loss: of :func:`info_nce`, shape ().
        num_samples: K, the number of keys per query: one positive and K - 1 negatives.

    Raises:
        ValueError: if ``num_samples`` is below 1 or ``loss`` is not finite.
    """
    if num_samples < 1:
        raise ValueError(
            f"num_samples is {num_samples}; give K, the positive and its negatives, at least 1"
        )
    if _known_to_be_broken(loss):
        raise ValueError(f"loss is {loss}; find the update in which it stopped being finite")
    return math.log(num_samples) - loss


def sance(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    temperature: float = 0.1,
    normalize: bool = False,
    weight: str = "min",
) -> Tensor:
    """SaNCE as a loss to minimise: the mean of -w log( K f+ / (f+ + sum f-) ) within one task.

    Queries and positives come from trajectories with high return, negatives from trajectories of
    the same task with low return; K = N + 1. The loss averages over the queries and is negative
    where the estimate is positive. It bounds no mutual information of context and trajectory: its
    negatives are not draws from the marginal. Equations 3 and 4 of the paper. Built in chapter 8.

    The weight follows d, the mean Euclidean distance between queries and negative keys (before
    ``normalize``); it is a constant to the gradient. The paper prints w = max(d, 1), which never
    drops below 1 and grows with the distance. Its stated intent is the opposite: a weak signal
    while the trajectories of a task are still alike. That is min(d, 1), the default.

    Args:
        query: (P, D).
        positive: (P, D), row i is the key that belongs to query i.
        negatives: (N, D), shared by all queries of the task.
        temperature: beta of the paper.
        normalize: compare directions only (cosines instead of inner products).
        weight: "min" for w = min(d, 1), "max" for max(d, 1) as printed, "none" for w = 1.

    Returns:
        The loss in nats, shape (). Chance level is 0, the least possible value -w log K.

    Raises:
        ValueError: as :func:`info_nce`, or for an unknown weight.
    """
    if weight not in ("min", "max", "none"):
        raise ValueError(f'weight is {weight!r}; choose "min", "max" or "none"')
    if negatives.ndim != 2:
        raise ValueError(
            f"negatives has shape {tuple(negatives.shape)}; give (N, D), the negative keys of one "
            "task, which all its queries share"
        )
    loss = info_nce(query, positive, negatives, temperature, normalize)
    estimate = mi_lower_bound(loss, len(negatives) + 1)
    return -_weight(weight, query, negatives) * estimate


@torch.no_grad()
def _weight(weight: str, query: Tensor, negatives: Tensor) -> Tensor | float:
    if weight == "none":
        return 1.0
    # The route through a matrix product would lose half the digits where embeddings are alike.
    distance = torch.cdist(
        query, negatives, compute_mode="donot_use_mm_for_euclid_dist"
    ).mean()  # (P, N) -> ()
    return distance.clamp(max=1.0) if weight == "min" else distance.clamp(min=1.0)


def bce_contrast(
    query: Tensor, positive: Tensor, negatives: Tensor, temperature: float = 0.1
) -> Tensor:
    """The official code's loss: each pair is judged on its own, by a sigmoid of its cosine.

    -mean log sigmoid(cos(q, k+) / temperature) - mean log sigmoid(-cos(q, k-) / temperature), each
    mean over all pairs of a query with a key. Keys do not compete as in a softmax, and the value is
    no bound on mutual information. Source: the code of the paper (uoe-agents/SaMI), which departs
    here from equation 3. Built in chapter 8.

    Args:
        query: (P, D).
        positive: (P', D), every one a positive key for every query.
        negatives: (N, D), every one a negative key for every query.
        temperature: divides the cosines.

    Returns:
        The loss in nats, shape (). Chance level, where all cosines are 0, is 2 log 2.

    Raises:
        ValueError: for empty or non-finite tensors, shapes that do not fit, or a temperature that
            is not a positive number.
    """
    if negatives.ndim != 2:
        raise ValueError(
            f"negatives has shape {tuple(negatives.shape)}; give (N, D), keys that all queries "
            "share"
        )
    _check_keys(query, positive, negatives, temperature)
    query, positive, negatives = (F.normalize(x, dim=-1) for x in (query, positive, negatives))
    to_positive = query @ positive.T / temperature  # (P, P')
    to_negatives = query @ negatives.T / temperature  # (P, N)
    return -F.logsigmoid(to_positive).mean() - F.logsigmoid(-to_negatives).mean()


def _check_keys(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> None:
    """What all losses ask for: matrices of finite embeddings of one width, a positive number."""
    for name, tensor, axes in (
        ("query", query, (2,)),
        ("positive", positive, (2,)),
        ("negatives", negatives, (2, 3)),
    ):
        shape = tuple(tensor.shape)
        if tensor.ndim not in axes:
            wanted = "(B, D)" if axes == (2,) else "(N, D) or (B, N, D)"
            raise ValueError(f"{name} has shape {shape}; give embeddings of shape {wanted}")
        if tensor.numel() == 0:
            raise ValueError(
                f"{name} has shape {shape} and so is empty; give at least one embedding"
            )
        if tensor.shape[-1] != query.shape[-1]:
            raise ValueError(
                f"{name} has shape {shape}; its last axis must have the length of the query's, "
                f"{query.shape[-1]}"
            )
        if _known_to_be_broken(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{name} holds NaN or infinity in {bad} of {tensor.numel()} entries; find the "
                "update in which the encoder stopped being finite"
            )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; give a finite number above 0")


def _known_to_be_broken(tensor: Tensor) -> bool:
    """Whether it holds NaN or infinity. A graphics card is not asked, for it would have to stop and
    answer; what is broken there shows in the loss.
    """
    return tensor.device.type == "cpu" and not bool(torch.isfinite(tensor).all())
