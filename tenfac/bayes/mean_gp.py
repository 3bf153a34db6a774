"""The functions of one continuous mode of a posterior mean, exactly: as a GP mode with knots where rows were.

Between knots a posterior mean is a combination of kernel functions at them, so it is the noise-free
interpolant of its own values there, process by process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.collapsed.mode_prior import ModePrior
from tenfac.core.modes.bend import Bend
from tenfac.core.modes.gp import GP
from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.process import Process, Sum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moving:
    """Some of the C functions of a mode: without their level, values at knots of a process.

    Parameters
    ----------
    process : Process
    knots : array, shape (M,)
        In the unit of the index.
    values : array, shape (M, C)
        0 for functions that do not move by this process.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> Moving(StateSpace("matern12", 1.0), np.array([0.0, 1.0]), np.ones((2, 3))).values.shape
    (2, 3)
    """

    process: Process
    knots: Array
    values: Array


def basis_functions(prior: ModePrior, nodes: Array, half: Array) -> tuple[Array, Array]:
    """Level ``(K,)`` and values at the nodes ``(M, K)`` of functions ``(c + k(x, nodes)) @ half``.

    Examples
    --------
    >>> prior = ModePrior("matern12", 2.0, 1.0, 1e-3, 0.5)
    >>> level, moving = basis_functions(prior, np.array([0.0, 1.0]), np.eye(2))
    >>> level, moving.round(4).tolist()
    (array([2., 2.]), [[1.0, 0.3679], [0.3679, 1.0]])
    """
    return prior.constant * half.sum(axis=0), prior.varying(nodes, nodes) @ half


def gp_mode(
    parts: list[Moving],
    level: Array,
    prior: ModePrior,
    start: float,
    span: float,
    domain: tuple[float, float],
) -> tuple[GP, Array]:
    """The mode and factor of functions that are a level and what moves by one process or several.

    Parameters
    ----------
    parts : list of Moving
        On the axis of one prior; at least one.
    level : array, shape (C,)
    prior : ModePrior
        Its bend is that of all parts.
    start, span : float
        Of the observed range.
    domain : tuple of float

    Returns
    -------
    mode : GP
        Of the sum of the processes, with the knots of all.
    factor : array, shape (mode.size, C)

    Examples
    --------
    >>> prior = ModePrior("matern12", 2.0, 1.0, 1e-3, 0.5)
    >>> part = Moving(prior.process(), np.array([10.0, 12.0]), np.array([[1.0], [2.0]]))
    >>> mode, factor = gp_mode([part], np.array([5.0]), prior, 10.0, 2.0, (10.0, 12.0))
    >>> mode.rows(factor, [10.0, 12.0]).ravel().round(9)
    array([6., 7.])
    """
    bend = None if prior.swings else Bend(prior.sharpness, prior.center, start, span)
    parts = [replace(part, process=_in_unit(part.process, span)) for part in parts]
    grid = np.unique(np.concatenate([part.knots for part in parts]))
    states: dict[Process, Any] = {}
    for part in parts:
        own = GP(part.process, tuple(part.knots), domain=domain, bend=bend)
        whole = GP(part.process, tuple(grid), domain=domain, bend=bend)
        found = own.embed(whole, own.factor(part.values))[:-1].reshape(grid.size, part.process.order, -1)
        states[part.process] = found + states.get(part.process, 0.0)
    kernel = next(iter(states)) if len(states) == 1 else Sum(tuple(states))
    mode = GP(kernel, tuple(grid), domain=domain, bend=bend)
    rows = np.concatenate(list(states.values()), axis=1).reshape(grid.size * kernel.order, -1)
    return mode, np.concatenate([rows, level[None, :]])


def _in_unit(process: Process, span: float) -> Process:
    """The process on the axis of its mode: that of an oscillator is straight, in the unit of the index."""
    return replace(process, period=process.period * span) if isinstance(process, Oscillator) else process
