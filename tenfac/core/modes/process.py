"""Gaussian processes as linear state-space models: what one is, and how they are summed and multiplied.

A process is ``f(x) = H(x) s(x)`` with a Gauss-Markov state ``s`` of stationary covariance ``P``: over a
distance ``dt``, ``s(x + dt) = A(dt) s(x) + w`` with ``w ~ N(0, Q(dt))`` and ``Q = P - A P A^T``. What does
not decay (constants, trends, periodic parts) is a state that stands still, seen through an ``H`` that
depends on the place; so every state is stationary, and no process has a preferred end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import comb, inf, isfinite
from numbers import Real
from typing import Any

import numpy as np

from tenfac.core.arrays import device_of, is_array, namespace_of, to_number
from tenfac.core.errors import DataError


class Process:
    """A Gaussian process in state-space form: ``A(dt)``, ``Q(dt)``, ``P`` and ``H(x)``.

    Subclasses are frozen dataclasses. Hyperparameters are numbers, or 0-d torch tensors for gradients;
    arrays come back in the library, dtype and device of the argument, numpy's in float64. ``p + q`` is the
    sum of independent processes, ``p * q`` the process whose covariance is the product, ``2.0 * p`` has twice
    the variance.

    Attributes
    ----------
    order : int
        Dimension of the state.
    smoothness : float
        How many derivatives the process has; ``inf`` for all.
    """

    positive: tuple[str, ...] = ()  # hyperparameters that must be above 0

    @property
    def order(self) -> int:
        """Dimension of the state."""
        raise NotImplementedError

    @property
    def smoothness(self) -> float:
        """How many derivatives the process has; ``inf`` for all."""
        return inf

    def transition(self, dt: Any) -> Any:
        """Transition matrices ``A(dt)`` over distances ``dt >= 0``, shape (len(dt), order, order)."""
        raise NotImplementedError

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances ``Q(dt)``, shape (len(dt), order, order)."""
        raise NotImplementedError

    def stationary(self, like: Any = None) -> Any:
        """State covariance ``P``, shape (order, order), in the library of ``like`` (None: numpy)."""
        raise NotImplementedError

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H`` at places ``x``, shape (len(x), order): of the value, or of a derivative of it."""
        raise NotImplementedError

    def parts(self) -> tuple[Process, ...]:
        """Processes that this one is made of; none for a single one."""
        return ()

    def check(self, where: str) -> None:
        """Raise DataError if a hyperparameter is not a finite number, or not positive where it must be."""
        for name in self.positive:
            value = getattr(self, name)
            if not (_is_number(value) and isfinite(to_number(value)) and to_number(value) > 0):
                raise DataError(
                    f"{where}: `{name}` of {type(self).__name__} must be a finite number above 0; got "
                    f"{value!r}."
                )
        for part in self.parts():
            part.check(where)

    def tensors(self) -> list[Any]:
        """Hyperparameters that are arrays, of this process and its parts."""
        own = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        found = [value for value in own if is_array(value)]
        return found + [value for part in self.parts() for value in part.tensors()]

    def __add__(self, other: Any) -> Sum:
        if not isinstance(other, Process):
            return NotImplemented
        return Sum((self, other))

    def __mul__(self, other: Any) -> Process:
        if isinstance(other, Process):
            return Product((self, other))
        return Scaled(self, other) if _is_number(other) else NotImplemented

    __rmul__ = __mul__


@dataclass(frozen=True)
class Scaled(Process):
    """A process times ``sqrt(variance)``.

    Parameters
    ----------
    process : Process
    variance : float
        Factor of the covariance.

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> (4.0 * StateSpace("matern12", 1.0)).stationary().tolist()
    [[4.0]]
    """

    process: Process
    variance: Any
    positive = ("variance",)

    @property
    def order(self) -> int:
        """Dimension of the state."""
        return self.process.order

    @property
    def smoothness(self) -> float:
        """Number of derivatives."""
        return self.process.smoothness

    def parts(self) -> tuple[Process, ...]:
        """The process scaled."""
        return (self.process,)

    def transition(self, dt: Any) -> Any:
        """Transition matrices ``A(dt)``: those of the process."""
        return self.process.transition(dt)

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances ``variance * Q(dt)``."""
        return self.variance * self.process.innovation(dt)

    def stationary(self, like: Any = None) -> Any:
        """State covariance ``variance * P``."""
        return self.variance * self.process.stationary(like)

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H`` at places ``x``: that of the process."""
        return self.process.observation(x, derivative)


@dataclass(frozen=True)
class _Several(Process):
    processes: tuple[Process, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "processes", tuple(self.processes))
        if not self.processes or not all(isinstance(process, Process) for process in self.processes):
            raise DataError(
                f"{type(self).__name__}: `processes` must be one process or more; got {self.processes!r}."
            )

    @property
    def smoothness(self) -> float:
        """Number of derivatives: those that all parts have."""
        return min(process.smoothness for process in self.processes)

    def parts(self) -> tuple[Process, ...]:
        """The processes combined."""
        return self.processes


@dataclass(frozen=True)
class Sum(_Several):
    """Sum of independent processes: their states side by side.

    Parameters
    ----------
    processes : tuple of Process

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> (StateSpace("matern12", 1.0) + StateSpace("matern52", 3.0)).order
    4
    """

    @property
    def order(self) -> int:
        """Dimension of the state: the sum of those of the parts."""
        return sum(process.order for process in self.processes)

    def transition(self, dt: Any) -> Any:
        """Transition matrices, block diagonal."""
        return _block_diagonal([process.transition(dt) for process in self.processes])

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances, block diagonal."""
        return _block_diagonal([process.innovation(dt) for process in self.processes])

    def stationary(self, like: Any = None) -> Any:
        """State covariance, block diagonal."""
        return _block_diagonal([process.stationary(like) for process in self.processes])

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H`` at places ``x``, side by side."""
        rows = [process.observation(x, derivative) for process in self.processes]
        return namespace_of(rows[0]).concat(rows, axis=-1)


@dataclass(frozen=True)
class Independent(Sum):
    """Several independent processes kept apart: a function with R values.

    ``observation`` has shape (len(x), R, order).

    Parameters
    ----------
    processes : tuple of Process, length R

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> pair = Independent((StateSpace("matern12", 1.0), StateSpace("matern32", 1.0)))
    >>> pair.observation(np.zeros(1)).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H`` at places ``x``, one row a process."""
        return _block_diagonal([process.observation(x, derivative)[:, None] for process in self.processes])


@dataclass(frozen=True)
class Product(_Several):
    """The process whose covariance is the product of covariances: Kronecker product of the states.

    Parameters
    ----------
    processes : tuple of Process

    Notes
    -----
    With ``A P A^T = P - Q`` in each part, ``Q = Q_1 ⊗ P_2 + (A_1 P_1 A_1^T) ⊗ Q_2``: a sum of positive
    semidefinite terms, so a short step does not cancel.

    References
    ----------
    .. [1] A. Solin and S. Särkkä, Explicit link between periodic covariance functions and state space
       models, AISTATS (2014), section 3.3 (quasi-periodic). https://proceedings.mlr.press/v33/solin14.html

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> (StateSpace("matern32", 1.0) * StateSpace("matern52", 3.0)).order
    6
    """

    @property
    def order(self) -> int:
        """Dimension of the state: the product of those of the parts."""
        return int(np.prod([process.order for process in self.processes]))

    def transition(self, dt: Any) -> Any:
        """Transition matrices: Kronecker products."""
        out = self.processes[0].transition(dt)
        for process in self.processes[1:]:
            out = _kron(out, process.transition(dt))
        return out

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances, without subtractions."""
        first = self.processes[0]
        stationary, new = first.stationary(dt), first.innovation(dt)
        for process in self.processes[1:]:
            other, other_new = process.stationary(dt), process.innovation(dt)
            new = _kron(new, other) + _kron(stationary - new, other_new)
            stationary = _kron(stationary, other)
        return new

    def stationary(self, like: Any = None) -> Any:
        """State covariance: Kronecker product."""
        out = self.processes[0].stationary(like)
        for process in self.processes[1:]:
            out = _kron(out, process.stationary(like))
        return out

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H`` at places ``x``: Kronecker product, by the product rule for a derivative."""
        rows = [self.processes[0].observation(x, k) for k in range(derivative + 1)]
        for process in self.processes[1:]:
            others = [process.observation(x, k) for k in range(derivative + 1)]
            rows = [
                sum(comb(n, k) * _kron_rows(rows[k], others[n - k]) for k in range(n + 1))
                for n in range(derivative + 1)
            ]
        return rows[derivative]


def like_of(like: Any) -> tuple[Any, dict[str, Any]]:
    """Namespace of an array (None: numpy) and the keywords that give an array its dtype and device.

    Numpy's are in float64: of integers, or in float32, covariances would lose their digits.
    """
    if like is None or isinstance(like, np.ndarray):
        return namespace_of(np.empty(())), {"dtype": np.float64}
    return namespace_of(like), {"dtype": like.dtype, "device": device_of(like)}


def steps_of(dt: Any) -> Any:
    """Distances as an array: numpy in float64, another library's as they are."""
    return dt if is_array(dt) and not isinstance(dt, np.ndarray) else np.asarray(dt, dtype=float)


def matrices(rows: list[list[Any]], xp: Any) -> Any:
    """Matrices ``(N, m, n)`` of entries ``(N,)``."""
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def _is_number(value: Any) -> bool:
    if isinstance(value, Real) and not isinstance(value, bool):
        return True
    return is_array(value) and value.ndim == 0


def _kron(a: Any, b: Any) -> Any:
    """Kronecker product over the last two axes; leading axes broadcast."""
    out = a[..., :, None, :, None] * b[..., None, :, None, :]
    rows, columns = a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1]
    return namespace_of(out).reshape(out, (*out.shape[:-4], rows, columns))


def _kron_rows(a: Any, b: Any) -> Any:
    out = a[..., :, None] * b[..., None, :]
    return namespace_of(out).reshape(out, (*out.shape[:-2], a.shape[-1] * b.shape[-1]))


def _block_diagonal(blocks: list[Any]) -> Any:
    """Blocks ``(*b, m_i, n_i)`` on the diagonal of one matrix ``(*b, sum m, sum n)``."""
    xp, keywords = like_of(blocks[0])
    width = sum(block.shape[-1] for block in blocks)
    rows, before = [], 0
    for block in blocks:
        lead, after = block.shape[:-1], width - before - block.shape[-1]
        pieces = [xp.zeros((*lead, before), **keywords), block, xp.zeros((*lead, after), **keywords)]
        rows.append(xp.concat(pieces, axis=-1))
        before += block.shape[-1]
    return xp.concat(rows, axis=-2)
