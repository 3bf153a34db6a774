"""Fast marginal likelihood of sparse Bayesian learning: columns come, change and go one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from tenfac.bayes.sparse.observed import Array, Observed
from tenfac.core.arrays import spans

_BLOCK = 2**22  # numbers in a block of correlations: 32 MB


class Sequential:
    """Active columns, their variances and posterior, and what every other column would add to the evidence.

    With ``C = noise I + A_S diag(gamma) A_S^H`` over the active columns S, a column a enters the evidence
    only by ``s = a^H C^-1 a`` and ``q_t = a^H C^-1 y_t``, C without its own term [1]_: as a function of its
    variance g it is ``c T [m g / (1 + g s) - log(1 + g s)]`` with m the mean of ``|q_t|^2``, largest at
    ``g = (m - s) / s^2``, or 0. A change of one variance changes ``C^-1`` by ``rho v v^H``, ``v = C^-1 a``:
    the statistics of all N columns follow from ``A^H v``: one chain of mode products. The k columns that
    are active are kept, nothing of size k N is.

    Parameters
    ----------
    data : Observed
    noise : float
        Of the scaled values.

    References
    ----------
    .. [1] M. E. Tipping and A. C. Faul, Fast marginal likelihood maximisation for sparse Bayesian models,
       AISTATS 2003, equations 18 to 24 and the appendix.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.bayes.sparse.observed import observe
    >>> state = Sequential(observe([np.eye(3)], np.array([[0.0], [5.0], [0.1]])), noise=0.01)
    >>> state.best_action(0.0)[0]
    1
    """

    def __init__(self, data: Observed, noise: float) -> None:
        self.data, self.noise = data, noise
        self.norms = data.square_norms()
        self.active = np.zeros(0, dtype=np.intp)
        self.gammas = np.zeros(0)
        self.columns = np.zeros((0, data.size), dtype=data.values.dtype)
        self.refresh()

    # --- the posterior of the active columns ---

    def refresh(self) -> None:
        """Compute everything from the variances and the noise, without what rounding has added."""
        self._correlate(self.weigh())

    def weigh(self) -> Array:
        """Compute posterior and evidence only; a square root of the covariance."""
        self.products = self.columns.conj() @ self.data.values
        gram = self.columns.conj() @ self.columns.T
        precision = gram / self.noise + np.diag(1 / self.gammas)
        scales = 1 / np.sqrt(np.real(np.diag(precision)))
        lower = np.linalg.cholesky(precision * scales[:, None] * scales)
        root = scales[:, None] * _inverse(lower).conj().T
        self.covariance = root @ root.conj().T
        self.mean = root @ (root.conj().T @ self.products) / self.noise
        logdet = 2 * float(np.log(np.diag(lower).real / scales).sum())
        logdet += float(np.log(self.gammas).sum()) + self.data.size * np.log(self.noise)
        self.residual = self.data.values - self.columns.T @ self.mean
        fit = float(np.sum(abs(self.residual) ** 2)) / self.noise
        fit += float(np.sum(abs(self.mean) ** 2 / self.gammas[:, None]))
        c, snapshots = self.data.weight, self.data.snapshots
        self.evidence = self.data.log_constant() - c * (snapshots * logdet + fit)
        return root

    def kept(self) -> tuple[Any, ...]:
        """What defines the state, for ``restore``."""
        return self.noise, self.active, self.gammas.copy(), self.columns

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Go back to a state that was ``kept``."""
        self.noise, self.active, self.gammas, self.columns = kept
        self.refresh()

    def _correlate(self, root: Array) -> None:
        """Statistics ``a^H C^-1 a`` and ``a^H C^-1 Y`` of all columns; the covariance is ``root root^H``."""
        lost = np.zeros_like(self.norms)
        step = max(_BLOCK // max(self.norms.size, self.data.size), 1)
        for span in spans(len(self.gammas), step):
            part = self.data.correlate(root[:, span].T @ self.columns)
            lost += np.sum(abs(part) ** 2, axis=0)
        self.s = (self.norms - lost / self.noise) / self.noise
        self.q = self.data.correlate(self.residual.T).T / self.noise

    # --- actions ---

    def _leave_out(self) -> tuple[Array, Array]:
        """``s`` and mean ``|q|^2`` of all columns, the active ones without their own term."""
        s, m = self.s.copy(), np.mean(abs(self.q) ** 2, axis=1)
        variances = np.real(np.diag(self.covariance))
        s[self.active] = 1 / variances - 1 / self.gammas
        m[self.active] = np.mean(abs(self.mean) ** 2, axis=1) / variances**2
        return s, m

    def gains(self, cost: float) -> tuple[Array, Array]:
        """What the best variance of each column adds to the evidence less ``cost`` a column, others fixed.

        Returns
        -------
        gains, gammas : arrays, shape (N,)
            A variance of zero: the column is better left out.
        """
        s, m = self._leave_out()
        usable = s > 1e-12 * self.norms / self.noise
        s = np.where(usable, s, 1.0)
        scale = self.data.weight * self.data.snapshots
        ratio = np.where(usable, m / s, 0.0)
        found = ratio > 1
        best = scale * (np.where(found, ratio, 1.0) - 1 - np.log(np.where(found, ratio, 1.0))) - cost
        found &= best > 0
        gammas = np.where(found, (ratio - 1) / s, 0.0)
        gains = np.where(found, best, 0.0)
        gs = self.gammas * s[self.active]
        gains[self.active] -= scale * (self.gammas * m[self.active] / (1 + gs) - np.log1p(gs)) - cost
        return gains, gammas

    def best_action(self, cost: float) -> tuple[int, float, float]:
        """Column, its new variance and what that gains, of the change of one variance that gains most."""
        gains, gammas = self.gains(cost)
        j = int(np.argmax(gains))
        return j, float(gammas[j]), float(gains[j])

    def set(self, j: int, gamma: float) -> None:
        """Give column ``j`` the variance ``gamma``: it comes, changes, or (0) goes."""
        where = np.flatnonzero(self.active == j)
        if where.size:
            self._change(int(where[0]), gamma)
        elif gamma > 0:
            self._add(j, gamma)

    def _add(self, j: int, gamma: float) -> None:
        column = self.data.columns(np.array([j]))[0]
        inner = self.columns.conj() @ column / self.noise
        shared = self.covariance @ inner
        v = (column - self.columns.T @ shared) / self.noise
        s = float(np.vdot(column, v).real)
        variance = 1 / (1 / gamma + s)
        q = column.conj() @ self.residual / self.noise
        cross = -variance * shared
        self._shift(v, s, gamma)
        outer = variance * np.outer(shared, shared.conj())
        self.covariance = np.block(
            [[self.covariance + outer, cross[:, None]], [cross.conj()[None], np.full((1, 1), variance)]]
        )
        self.mean = np.vstack([self.mean - np.outer(shared, variance * q), variance * q[None]])
        self.columns = np.vstack([self.columns, column])
        self.active = np.append(self.active, j)
        self.gammas = np.append(self.gammas, gamma)
        self.residual = self.data.values - self.columns.T @ self.mean

    def _change(self, k: int, gamma: float) -> None:
        old, own = self.gammas[k], self.covariance[:, k].copy()
        variance = own[k].real
        v = self.columns.T @ own / (self.noise * old)
        self._shift(v, (1 - variance / old) / old, gamma - old)
        if gamma > 0:
            step = 1 / gamma - 1 / old
            rate = step / (1 + step * variance)
            self.gammas[k] = gamma
        else:
            rate = 1 / variance
        mean = self.mean[k].copy()
        self.covariance -= rate * np.outer(own, own.conj())
        self.mean = self.mean - rate * np.outer(own, mean)
        if gamma == 0:
            for name in ("active", "gammas", "columns", "mean"):
                setattr(self, name, np.delete(getattr(self, name), k, axis=0))
            self.covariance = np.delete(np.delete(self.covariance, k, axis=0), k, axis=1)
        self.residual = self.data.values - self.columns.T @ self.mean

    def _shift(self, v: Array, s: float, change: float) -> None:
        """Update ``s`` and ``q`` of all columns for a change in the variance of that with ``C^-1 a = v``."""
        rate = change / (1 + change * s)
        w = self.data.correlate(v[None])[0]
        self.s -= rate * abs(w) ** 2
        self.q -= rate * np.outer(w, v.conj() @ self.data.values)

    # --- noise ---

    def determined(self) -> float:
        """Number of measurements that the active columns explain, ``sum_j (1 - Sigma_jj / gamma_j)``."""
        return float(np.sum(1 - np.real(np.diag(self.covariance)) / self.gammas))

    def noise_steps(self) -> tuple[float, float]:
        """Noise variances to try: the fixed point [1]_, and EM's, which never lowers the evidence."""
        misfit = float(np.sum(abs(self.residual) ** 2)) / self.data.snapshots
        explained, n = self.determined(), self.data.size
        return misfit / max(n - explained, 1e-3), (misfit + self.noise * explained) / n


def _inverse(lower: Array) -> Array:
    eye: NDArray[np.float64] = np.eye(len(lower))
    return solve_triangular(lower, eye, lower=True) if len(lower) else eye.astype(lower.dtype)
