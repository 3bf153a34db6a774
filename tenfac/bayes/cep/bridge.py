"""Priors of one mode's functions: independent Matérn processes, thinned out level by level.

A Gauss-Markov process is thinned by taking out every other index: given its two neighbors, the state at an
index is ``x_m = B_l x_l + B_r x_r + e`` with ``e ~ N(0, C)``, whatever happens elsewhere. All indices of a
level are treated at once, so that a chain of M indices takes ``log2(M)`` array operations. Only covariances
are formed, never the inverse of an innovation, which for close indices is singular to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.modes.state_space import KERNELS, StateSpace

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Level:
    """Which nodes a level takes out: ``out`` between ``left`` and ``right`` (node numbers).

    ``kept`` and ``gone`` are their places among the nodes still there; ``carried`` says whether the last edge
    passes to the next level unchanged.
    """

    out: NDArray[np.intp]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    kept: NDArray[np.intp]
    gone: NDArray[np.intp]
    carried: bool


def thinned(size: int) -> list[Level]:
    """Levels that reduce ``size`` nodes to the first and the last.

    Examples
    --------
    >>> [level.out.tolist() for level in thinned(5)]
    [[1, 3], [2]]
    """
    nodes, levels = np.arange(size), []
    while nodes.size > 2:
        gone = np.arange(1, nodes.size - 1, 2)
        kept = np.setdiff1d(np.arange(nodes.size), gone)
        levels.append(Level(nodes[gone], nodes[gone - 1], nodes[gone + 1], kept, gone, nodes.size % 2 == 0))
        nodes = nodes[kept]
    return levels


@cache
def _model(kernel: str) -> StateSpace:
    return StateSpace(kernel, np.sqrt(2 * KERNELS[kernel] - 1.0))  # rate 1: distances in units of 1 / rate


def rates(kernel: str, lengthscales: Array) -> Array:
    """Decay rate of each process, shape (R,)."""
    return np.sqrt(2 * KERNELS[kernel] - 1.0) / lengthscales


def steps(kernel: str, rate: Array, dt: Array) -> tuple[Array, Array]:
    """Transitions and innovations of R unit processes over M steps, both of shape (M, R, order, order)."""
    order, model = KERNELS[kernel], _model(kernel)
    scaled = (dt[:, None] * rate[None, :]).ravel()
    shape = (dt.size, rate.size, order, order)
    return model.transition(scaled).reshape(shape), model.innovation(scaled).reshape(shape)


def bridges(kernel: str, rate: Array, before: Array, after: Array) -> tuple[Array, Array, Array]:
    """``B_l, B_r, C`` of R unit processes between two neighbors, each of shape (M, R, order, order)."""
    a1, q1 = steps(kernel, rate, before)
    a2, q2 = steps(kernel, rate, after)
    if KERNELS[kernel] == 1:
        whole = a2 * a2 * q1 + q2
        to_right = q1 * a2 / whole
        return a1 * q2 / whole, to_right, q1 * q2 / whole
    whole = a2 @ q1 @ _t(a2) + q2
    size = np.sqrt(np.maximum(np.diagonal(whole, axis1=-2, axis2=-1), np.finfo(float).tiny))
    scaled = whole / size[..., :, None] / size[..., None, :]
    right_side = (a2 @ q1) / size[..., :, None]
    to_right = _t(np.linalg.solve(scaled, right_side)) / size[..., None, :]
    rest = np.eye(KERNELS[kernel]) - to_right @ a2
    return rest @ a1, to_right, rest @ q1 @ _t(rest) + to_right @ q2 @ _t(to_right)


def joined(blocks: Array) -> Array:
    """Block-diagonal matrices of (M, R, o, o) blocks, shape (M, R o, R o)."""
    count, parts, order, _ = blocks.shape
    out = np.zeros((count, parts, order, parts, order))
    for r in range(parts):
        out[:, r, :, r, :] = blocks[:, r]
    return out.reshape(count, parts * order, parts * order)


def _t(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)
