"""Integrals from the left end of functions of a GP mode: whole segments, and quadrature in the last one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfac.core.arrays import device_of, spans
from tenfac.core.modes.bridge import Array, Segment, block_of, segments
from tenfac.core.precision import astype
from tenfac.core.tracing import constant

if TYPE_CHECKING:
    from tenfac.core.modes.gp import GP


@lru_cache(maxsize=16)
def _whole(mode: GP) -> tuple[tuple[Segment, ...], Array]:
    """Segments of the functions, and integrals of the states up to the start of each, ``(S, order M)``."""
    order, last = mode.kernel.order, len(mode.grid) - 1
    held = segments(mode.kernel, mode.grid, mode.domain, 0, mode.bend)
    found = np.zeros((len(held), last + 1, order))
    for n, one in enumerate(held[:-1]):
        found[n + 1, max(one.place - 1, 0)] += one.integral[:order]
        found[n + 1, min(one.place, last)] += one.integral[order : 2 * order]
    return held, np.cumsum(found, axis=0).reshape(len(held), -1)


def integrals_at(mode: GP, factor: Any, x: Any, xp: Any) -> Any:
    """Evaluate a factor of an integral at points.

    Parameters
    ----------
    mode : GP
        With ``derivative=-1``.
    factor : array, shape (*b, size, R)
        States, slope, constant.
    x : array, shape (N,)
        Points of the domain, in double precision.
    xp : module

    Returns
    -------
    array, shape (*b, N, R)

    Examples
    --------
    >>> from tenfac.core.modes.gp import GP
    >>> mode = GP("matern12", [0.0, 1.0], lengthscale=1.0)
    >>> mode, factor = mode.antiderivative(np.array([[1.0], [1.0], [0.0]]))
    >>> float(integrals_at(mode, factor, np.array([1.0]), np)[0, 0].round(12) - (2 * np.tanh(0.5)).round(12))
    0.0
    """
    held, before = _whole(mode)
    rule = max(held, key=lambda one: one.nodes.size)
    like = {"dtype": x.dtype, "device": device_of(x)}
    starts, nodes, weights, before = (
        xp.asarray(array, **like)
        for array in (np.array([one.start for one in held]), rule.nodes, rule.weights, before)
    )
    function = replace(mode, derivative=0, lengthscale=None)
    states, slope, level = factor[..., :-2, :], factor[..., -2:-1, :], factor[..., -1:, :]
    plain = xp.concat([states, xp.zeros_like(level)], axis=-2)
    parts = []
    for span in spans(x.shape[0], max(block_of(mode.kernel) // rule.nodes.size, 1)):
        part = x[span]
        segment = xp.searchsorted(starts, constant(part), side="right") - 1
        start = xp.take(starts, segment)
        places = xp.reshape(start[:, None] + (part - start)[:, None] * nodes[None, :], (-1,))
        values = function._rows(plain, places, xp)
        values = xp.reshape(values, (*values.shape[:-2], part.shape[0], nodes.shape[0], values.shape[-1]))
        inner = astype((part - start)[:, None, None] * weights[None, None, :], factor.dtype, xp)
        whole = astype(xp.take(before, segment, axis=0), factor.dtype, xp)
        along = astype(part - mode.domain[0], factor.dtype, xp)[:, None]
        parts.append(xp.matmul(whole, states) + xp.matmul(inner, values)[..., 0, :] + along * slope + level)
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-2)


def quadrature(mode: GP) -> tuple[Array, Array]:
    """Weights ``(P,)``, and values of the integrals of unit factors ``(P, size)``, over the domain.

    Examples
    --------
    >>> from tenfac.core.modes.gp import GP
    >>> weights, rows = quadrature(GP("matern12", [0.0, 2.0], lengthscale=1.0, derivative=-1))
    >>> (weights @ rows).round(12)[-2:]  # of x and of 1
    array([2., 2.])
    """
    held = segments(mode.kernel, mode.grid, mode.domain, 0, mode.bend)
    x = np.concatenate([one.start + one.length * one.nodes for one in held])
    weights = np.concatenate([one.length * one.weights for one in held])
    return weights, mode.rows(np.eye(mode.size), x)
