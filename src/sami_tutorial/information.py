"""Exact information measures of finite joint distributions, in nats.

A joint distribution of n variables is a table with n axes: ``table[i, j, ...]`` is the probability
that the first variable takes its value i, the second its value j, and so on. A *variable* below is
an axis or a tuple of axes, so that what an agent saw may be several things at once:
``mutual_information(table, (0, 1), (3, 4))``.

    H(X)        = -sum p(x) log p(x)                       entropy
    I(X; Y | Z) = H(X, Z) + H(Y, Z) - H(Z) - H(X, Y, Z)    mutual_information
    I(X; Y; Z)  = I(X; Y) - I(X; Y | Z)                    interaction_information
    KL(P || Q)  = sum p(x) log p(x) / q(x)                 kl_divergence

``interaction_information(table, c, tau, pi)`` is the paper's I_SaMI (arXiv 2406.04815, Eq. 2); some
authors define it with the other sign. Source: McGill (1954); Cover and Thomas (2006), chapter 2.
Built in chapter 7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Variable = int | tuple[int, ...]


def joint_table(table: ArrayLike, name: str = "table") -> Array:
    """``table`` as float64, checked.

    Raises:
        ValueError: if it has no axis, or holds anything but probabilities that add up to 1.
    """
    array = np.asarray(table, dtype=np.float64)
    if array.ndim == 0:
        raise ValueError(f"{name} is the single number {array}; give one axis per variable")
    if not np.isfinite(array).all() or array.min(initial=0.0) < 0:
        raise ValueError(f"{name} holds a negative or non-finite entry; give probabilities")
    if not np.isclose(total := array.sum(), 1.0, rtol=0, atol=1e-9):
        raise ValueError(f"{name} adds up to {total:.6g}; divide it by its sum")
    return array


def _axes(variable: Variable, dimensions: int, name: str) -> frozenset[int]:
    """The axes of a variable, counted from the front."""
    given = (variable,) if isinstance(variable, int | np.integer) else tuple(variable)
    axes = frozenset(axis + dimensions if axis < 0 else axis for axis in given)
    if len(axes) != len(given) or not all(0 <= axis < dimensions for axis in axes):
        raise ValueError(
            f"{name} is {variable!r}; choose different axes of the table, 0 to {dimensions - 1}"
        )
    return axes


def _disjoint(**variables: frozenset[int]) -> None:
    names = list(variables)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if shared := variables[first] & variables[second]:
                raise ValueError(
                    f"{first} and {second} share axis {min(shared)}; give every axis to one of them"
                )


def _entropy(table: Array, axes: frozenset[int]) -> float:
    marginal = table.sum(axis=tuple(set(range(table.ndim)) - axes)).ravel()
    positive = marginal[marginal > 0]
    return float(-(positive * np.log(positive)).sum())


def entropy(table: ArrayLike, x: Variable | None = None) -> float:
    """H(X): the expected surprise -log p(x); of all variables together if ``x`` is None.

    Raises:
        ValueError: for a table that is no distribution, or an axis it does not have.
    """
    array = joint_table(table)
    everything = frozenset(range(array.ndim))
    return _entropy(array, everything if x is None else _axes(x, array.ndim, "x"))


def _information(table: Array, x: frozenset[int], y: frozenset[int], z: frozenset[int]) -> float:
    """I(X; Y | Z) from four entropies."""
    return (
        _entropy(table, x | z) + _entropy(table, y | z) - _entropy(table, z)
        - _entropy(table, x | y | z)
    )  # fmt: skip


def mutual_information(table: ArrayLike, x: Variable, y: Variable, given: Variable = ()) -> float:
    """I(X; Y | Z): what X and Y tell about each other for who knows Z; I(X; Y) without ``given``.

    Never negative, except by rounding.

    Raises:
        ValueError: for a table that is no distribution, an axis it does not have, or an axis given
            twice.
    """
    array = joint_table(table)
    x_axes, y_axes, z_axes = (
        _axes(variable, array.ndim, name)
        for name, variable in {"x": x, "y": y, "given": given}.items()
    )
    _disjoint(x=x_axes, y=y_axes, given=z_axes)
    return _information(array, x_axes, y_axes, z_axes)


def interaction_information(table: ArrayLike, x: Variable, y: Variable, z: Variable) -> float:
    """I(X; Y; Z) = I(X; Y) - I(X; Y | Z): how much of what X and Y share goes when Z is known.

    The same in every order of the three. At most the smallest of I(X; Y), I(X; Z), I(Y; Z), and
    negative where knowing one variable *makes* the other two informative about each other.

    Raises:
        ValueError: as :func:`mutual_information`.
    """
    array = joint_table(table)
    x_axes, y_axes, z_axes = (
        _axes(variable, array.ndim, name) for name, variable in {"x": x, "y": y, "z": z}.items()
    )
    _disjoint(x=x_axes, y=y_axes, z=z_axes)
    nothing: frozenset[int] = frozenset()
    return _information(array, x_axes, y_axes, nothing) - _information(
        array, x_axes, y_axes, z_axes
    )


def kl_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """KL(P || Q) of two distributions over the same values; infinite if Q misses a value of P.

    Raises:
        ValueError: if one is no distribution, or their shapes differ.
    """
    first, second = joint_table(p, "p"), joint_table(q, "q")
    if first.shape != second.shape:
        raise ValueError(f"p has shape {first.shape}, q {second.shape}; give them the same values")
    drawn = first > 0
    if (second[drawn] == 0).any():
        return float("inf")
    return float((first[drawn] * np.log(first[drawn] / second[drawn])).sum())


def contrast_information(p: ArrayLike, q: ArrayLike, num_samples: ArrayLike) -> Array:
    """What K candidates tell about which one of them was drawn from P, the others being from Q.

    One candidate, at a random position, is a draw from P; the other K - 1 are draws from Q. The
    result is I(position; candidates) in nats, and that is the value of the K-sample contrast (the
    paper's Eq. 1 and 3) at its best critic f = p / q:

        E[ log( K f_1 / (f_1 + ... + f_K) ) ],    f_1 from P, the others from Q.

    It rises with K, and stays below log K and below KL(P || Q), its limit. The expectation takes no
    sampling: log X is the integral of (exp(-t) - exp(-t X)) / t over t > 0, and with X a sum of
    independent terms the expectation inside is a product.

    Args:
        p, q: distributions over the same values.
        num_samples: K, whole numbers of at least 1, shape (n,).

    Returns:
        One value per K, shape (n,).

    Raises:
        ValueError: if one is no distribution, their shapes differ, or a K is below 1.
    """
    first, second = joint_table(p, "p").ravel(), joint_table(q, "q").ravel()
    if np.shape(p) != np.shape(q):
        raise ValueError(f"p has shape {np.shape(p)}, q {np.shape(q)}; give them the same values")
    k = np.asarray(num_samples, dtype=np.float64)
    if k.ndim != 1 or not (k >= 1).all() or (k % 1 != 0).any():
        raise ValueError(f"num_samples is {num_samples!r}; give a list of whole numbers from 1 on")
    # A draw that Q cannot produce gives itself away: it is worth log K at every K.
    seen = (first > 0) & (second > 0)
    shared = first[seen].sum()
    if shared == 0:
        return np.log(k)
    ratio = first[second > 0] / second[second > 0]
    weights = np.stack([first[second > 0], second[second > 0]])  # (2, values)
    # The integrand falls off like t X for small t, and like exp(-t) + exp(-t X) for large t. In
    # log t it is smooth, and the trapezoidal rule is as exact as the arithmetic.
    smallest, largest = min(1.0, ratio[ratio > 0].min()), max(1.0, ratio.max() * k.max())
    log_t = np.arange(-36 - np.log(largest), 5 - np.log(smallest), 0.2)
    t = np.exp(log_t)
    decay_p, decay_q = weights @ np.exp(-np.outer(ratio, t))  # each (t,)
    sums = shared * np.exp(-t) - decay_p * decay_q ** (k[:, None] - 1)  # (n, t)
    expected_log_sum = 0.2 * sums.sum(axis=1)
    expected_log_ratio = (first[seen] * np.log(first[seen] / second[seen])).sum()
    return np.log(k) + expected_log_ratio - expected_log_sum
