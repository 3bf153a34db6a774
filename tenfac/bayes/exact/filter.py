"""Posterior of a Gaussian process in state-space form under Gaussian sites, at any place, in linear time.

A Kalman filter runs forward over the places of the sites and gives the log evidence; an information filter
runs backward. At any place, between the sites or beyond either end, the two are fused: what the sites
before say about the state is ``N(m, P)``, what those after say is ``exp(-s' L s / 2 + v' s)``. Recursions
and fusion are sums of positive semidefinite terms, and none inverts the covariance of a state, so a state
that stands still and two sites at one place are nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tenfac.bayes.exact import recursions
from tenfac.bayes.exact.recursions import Chain, Moments, apply, fuse
from tenfac.bayes.exact.sites import Sites, check_places
from tenfac.core.arrays import device_of, generator, library_name, namespace_of, points_like, to_number
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.modes.process import Process
from tenfac.core.precision import astype, double_of
from tenfac.core.tracing import constant

_MOST_ROUNDING = 2e-5  # of prior standard deviations, as `disagreement` overestimates it
_SMALL = 8  # up to this order a scan in batches is faster than a loop
_METHODS = ("auto", "sequential", "scan")


@dataclass(frozen=True, eq=False, repr=False)
class ProcessPosterior:
    """Posterior of ``f(x) = H(x) s(x)`` given sites at N places; made by ``filter_smooth``.

    For a process of R values (``Independent``) a mean has a last axis R and a variance is a matrix (R, R).

    Parameters
    ----------
    prior : Process
    places : array, shape (N,)
        Ascending places of the sites, float64.
    forward : pair of arrays, shapes (N + 1, order) and (N + 1, order, order)
        Mean and covariance of the state at site ``n - 1`` given the first n sites; the prior for n = 0.
    backward : pair of arrays, shapes (N + 1, order) and (N + 1, order, order)
        Information vector and matrix on the state at site n from that site on; zero for n = N.
    log_evidence : array, shape ()
        Log density of the sites' means; with torch it has a gradient.
    dtype : dtype
        Of the arrays returned.
    chain : Chain or None
        What the recursions ran on; None without sites.
    """

    prior: Process
    places: Any
    forward: Moments
    backward: Moments
    log_evidence: Any
    dtype: Any
    chain: Chain | None

    def __repr__(self) -> str:
        sites, evidence = self.places.shape[0], to_number(self.log_evidence)
        return f"ProcessPosterior({sites} sites, state of {self.prior.order}, log_evidence={evidence:.6g})"

    @cached_property
    def disagreement(self) -> float:
        """Rounding error of the smoothed states, in prior standard deviations (an upper estimate)."""
        if self.chain is None:
            return 0.0
        (mean, cov), (vector, info) = self.forward, self.backward
        return recursions.disagreement(self.chain, (mean[1:], cov[1:]), (vector[:-1], info[:-1]))

    def at(self, x: Any, *, derivative: int = 0) -> tuple[Any, Any]:
        """Posterior mean and variance at any places.

        Parameters
        ----------
        x : sequence or array, shape (M,)
            In any order.
        derivative : int
            Of the function by its index; the process must have that many.

        Returns
        -------
        mean : array, shape (M,) or (M, R)
        variance : array, shape (M,) or (M, R, R)
            Of the function, without noise; never negative.

        Raises
        ------
        DataError
            If a place is not finite, the process has no such derivative, or the sites are so precise that
        rounding spoils the answer (the log evidence of the sequential method stands).
        """
        x, rows, scalar = self._query(x, derivative)
        mean, cov, _ = self._states(x)
        xp = namespace_of(x)
        means, spread = apply(rows, mean), rows @ cov @ rows.mT
        if scalar:
            means, spread = means[:, 0], xp.clip(spread[:, 0, 0], 0.0, None)
        return astype(means, self.dtype, xp), astype(spread, self.dtype, xp)

    def cov(self, x: Any, *, derivative: int = 0) -> Any:
        """Posterior covariance between places.

        Parameters
        ----------
        x : sequence or array, shape (M,)
            In any order.
        derivative : int

        Returns
        -------
        array, shape (M, M), or (M, R, M, R)

        Notes
        -----
        One walk over the sites from the lowest of ``x`` to the highest: cost ``O((M + N) M)``.
        """
        x, rows, scalar = self._query(x, derivative)
        xp, count, size = namespace_of(x), x.shape[0], rows.shape[1]
        order = xp.argsort(x, stable=True)
        x, rows = x[order], rows[order]
        _, covs, later = self._states(x)
        walk = self._walk(x, later)
        out = xp.zeros((count * size, 0), dtype=x.dtype, device=device_of(x))
        carry, step = rows[:0] @ covs[:0], 0
        for m, node in enumerate(walk.nodes):
            for move in walk.moves[step:node]:
                carry = carry @ move.mT
            step = node
            carry = xp.concat([carry, (rows[m] @ covs[m])[None]])
            column = xp.reshape(carry @ rows[m].mT, ((m + 1) * size, size))
            below = xp.zeros(((count - 1 - m) * size, size), dtype=x.dtype, device=device_of(x))
            out = xp.concat([out, xp.concat([column, below])], axis=1)
        out = xp.triu(out) + xp.triu(out, k=1).mT
        back = xp.argsort(order)
        full = xp.reshape(out, (count, size, count, size))[back][:, :, back]
        return astype(full[:, 0, :, 0] if scalar else full, self.dtype, xp)

    def sample(
        self, n: int, x: Any, *, random_state: int | np.random.Generator | None = None, derivative: int = 0
    ) -> Any:
        """Draw functions from the joint posterior.

        Parameters
        ----------
        n : int
            Number of draws.
        x : sequence or array, shape (M,)
            In any order; a place given twice gets one value.
        random_state : int, numpy Generator or None
        derivative : int

        Returns
        -------
        array, shape (n, M) or (n, M, R)

        Notes
        -----
        The mirror image of forward filtering and backward sampling [1]_: information is filtered backward
        and states are drawn forward, which inverts no covariance. One walk serves all draws.

        References
        ----------
        .. [1] S. Frühwirth-Schnatter, Data augmentation and dynamic linear models, Journal of Time Series
           Analysis 15 (1994), section 3. doi:10.1111/j.1467-9892.1994.tb00184.x
        """
        x, rows, scalar = self._query(x, derivative)
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
            raise DataError(f"sample: `n` must be an integer of 0 or more; got {n!r}.")
        rng, xp = generator(random_state), namespace_of(x)
        order = xp.argsort(x, stable=True)
        x, rows = x[order], rows[order]
        means, covs, later = self._states(x)
        walk = self._walk(x, later)
        roots, shape = _root(xp.concat([covs[:1], walk.noises])), (int(n), self.prior.order)
        state, step, values = None, 0, []
        for m, node in enumerate(walk.nodes):
            if state is None:
                state = means[0] + _normal(rng, shape, x) @ roots[0].mT
            for k in range(step, node):
                noise = _normal(rng, shape, x) @ roots[k + 1].mT
                state = state @ walk.moves[k].mT + walk.shifts[k] + noise
            step = node
            values.append(state @ rows[m].mT)
        empty = xp.zeros((int(n), 0, rows.shape[1]), dtype=x.dtype, device=device_of(x))
        full = xp.stack(values, axis=1)[:, xp.argsort(order)] if values else empty
        return constant(astype(full[..., 0] if scalar else full, self.dtype, xp))

    def _query(self, x: Any, derivative: int) -> tuple[Any, Any, bool]:
        """Places in float64, the observation rows (M, R, order) there, and whether R is left out."""
        _check_rounding(self.disagreement, "at")
        x = points_like(x, self.places, "at")
        check_places(x, "at", "x")
        x = astype(x, self.places.dtype, namespace_of(x))
        if isinstance(derivative, bool) or not isinstance(derivative, int) or derivative < 0:
            raise DataError(f"at: `derivative` must be an integer of 0 or more; got {derivative!r}.")
        if derivative > self.prior.smoothness:
            raise DataError(
                f"at: `derivative` must be at most {self.prior.smoothness:g}, the number of derivatives that "
                f"this process has; got {derivative}. Take a smoother kernel."
            )
        rows = self.prior.observation(x, derivative)
        return (x, rows[:, None], True) if rows.ndim == 2 else (x, rows, False)

    def _states(self, x: Any) -> tuple[Any, Any, Moments]:
        """Mean and covariance of the state at places, and the information from the sites at or after them."""
        xp = namespace_of(x)
        after = xp.searchsorted(self.places, x)
        count = self.places.shape[0]
        since = _gap(x, self.places, xp.clip(after - 1, 0, None), after > 0)
        until = -_gap(x, self.places, xp.clip(after, None, max(count - 1, 0)), after < count)
        move, noise = self.prior.transition(since), self.prior.innovation(since)
        mean, cov = (part[after] for part in self.forward)
        earlier = apply(move, mean), move @ cov @ move.mT + noise
        later = recursions.pull(
            (self.backward[0][after], self.backward[1][after]),
            self.prior.transition(until),
            self.prior.innovation(until),
        )
        mean, cov, _ = fuse(earlier, later)
        return mean, cov, later

    def _walk(self, x: Any, later: Moments) -> _Walk:
        """Steps of the posterior process through ascending places and the sites between them."""
        xp = namespace_of(x)
        low, high = (int(xp.searchsorted(self.places, x)[i]) for i in (0, -1)) if x.shape[0] else (0, 0)
        nodes = xp.concat([x, self.places[low:high]])
        order = xp.argsort(nodes, stable=True)  # a place asked for stands before the sites there
        vectors, infos = (
            xp.concat([mine, sites[low:high]])[order][1:]
            for mine, sites in zip(later, self.backward, strict=True)
        )
        gaps = xp.diff(nodes[order])
        noises = self.prior.innovation(gaps)
        shifts, noises, damp = fuse((0 * vectors, noises), (vectors, infos))
        at = xp.argsort(order)[: x.shape[0]]
        return _Walk(damp @ self.prior.transition(gaps), shifts, noises, [int(node) for node in at])


@dataclass(frozen=True, eq=False)
class _Walk:
    """``s_{k+1} = moves[k] s_k + shifts[k] + N(0, noises[k])``; ``nodes`` are the places asked for."""

    moves: Any
    shifts: Any
    noises: Any
    nodes: list[int]


def filter_smooth(prior: Process, positions: Any, sites: Sites, *, method: str = "auto") -> ProcessPosterior:
    """Compute the posterior and the log evidence of a Gaussian process under Gaussian sites.

    Parameters
    ----------
    prior : Process
        For example ``StateSpace("matern32", 2.0)``, or sums and products of processes.
    positions : sequence or array, shape (N,)
        Place of each site, in any order; places may coincide.
    sites : Sites
        Sets library, device and dtype of what comes back. Computed in float64.
    method : {"auto", "sequential", "scan"}
        One site after the other, or a parallel scan over the sites, of depth ``2 log2 N``. The scan is a few
        times faster for small states and on a GPU, and needs more noise in the sites to be accurate: "auto"
        takes it up to order 8, and goes one by one if rounding shows.

    Returns
    -------
    ProcessPosterior

    Raises
    ------
    DataError
        If a hyperparameter or position cannot be used.
    ShapeError
        If positions, sites and prior do not fit.
    TypeError
        If hyperparameters are tensors and the sites are not.

    Notes
    -----
    Cost ``O(N order^3)``. A singular precision observes only its range, and the evidence is the density
    there; a zero precision observes nothing.

    References
    ----------
    .. [1] S. Särkkä and A. Solin, Applied Stochastic Differential Equations, Cambridge (2019), sections
       10.6 and 12.4. doi:10.1017/9781108186735
    .. [2] D. Q. Mayne, A solution of the smoothing problem for linear dynamic systems, Automatica 4 (1966):
       fusion of a forward and a backward filter. doi:10.1016/0005-1098(66)90019-7

    Examples
    --------
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> sites = Sites.from_observations(np.array([1.0, 0.0]), 0.1)
    >>> post = filter_smooth(StateSpace("matern12", 1.0), [0.0, 5.0], sites)
    >>> post.at([0.0, 100.0])[0].round(3).tolist()
    [0.909, 0.0]
    """
    if not isinstance(prior, Process):
        raise TypeError(f"filter_smooth: `prior` must be a Process; got {type(prior).__name__}.")
    if not isinstance(sites, Sites):
        raise TypeError(
            f"filter_smooth: `sites` must be Sites; got {type(sites).__name__}. Write "
            "Sites.from_observations(y, variance)."
        )
    if method not in _METHODS:
        raise DataError(f"filter_smooth: `method` must be one of {', '.join(_METHODS)}; got {method!r}.")
    prior.check("filter_smooth")
    xp, where = namespace_of(sites.mean), "filter_smooth"
    places = points_like(positions, sites.mean, where)
    check_places(places, where, "positions")
    _check_fit(prior, places, sites)
    places = astype(places, double_of(xp), xp)
    order = xp.argsort(places, stable=True)
    places = places[order]
    chain = _chain(prior, places, sites, order)
    _check_noise(chain)
    start = prior.stationary(places)
    forward = xp.zeros((1, prior.order), dtype=places.dtype, device=device_of(places)), start[None]
    nothing = forward[0], 0 * start[None]
    if places.shape[0] == 0:
        return ProcessPosterior(prior, places, forward, nothing, xp.sum(places), sites.mean.dtype, None)
    ahead, behind = _recur(chain, method)
    return ProcessPosterior(
        prior,
        places,
        (xp.concat([forward[0], ahead[0]]), xp.concat([forward[1], ahead[1]])),
        (xp.concat([behind[0], nothing[0]]), xp.concat([behind[1], nothing[1]])),
        recursions.log_evidence(chain, ahead),
        sites.mean.dtype,
        chain,
    )


def _check_noise(chain: Chain) -> None:
    """Refuse sites whose noise is lost in the rounding of the prior's variance."""
    xp = namespace_of(chain.rows)
    if chain.rows.shape[0] == 0:
        return
    variance = xp.sum((chain.rows @ chain.noises[0]) * chain.rows, axis=-1)
    ratio = constant(xp.linalg.diagonal(chain.precisions) * 1e-13 * variance)
    if xp.max(ratio) > 1:
        raise DataError(
            "filter_smooth: a precision must be at most 1e13 times that of the prior there, the limit of "
            f"rounding; got {1e13 * float(xp.max(ratio)):.1g} times. Say more noise: a lower precision."
        )


def _recur(chain: Chain, method: str) -> tuple[Moments, Moments]:
    """Filtered moments and information at every site."""
    if method == "scan" or (method == "auto" and chain.moves.shape[-1] <= _SMALL):
        try:
            ahead, behind = recursions.forward_scan(chain), recursions.backward_scan(chain)
            _check_rounding(recursions.disagreement(chain, ahead, behind), "filter_smooth")
            return ahead, behind
        except DataError:
            if method == "scan":
                raise
    return recursions.forward(chain), recursions.backward(chain)


def _chain(prior: Process, places: Any, sites: Sites, order: Any) -> Chain:
    """The recursions' input: sites in ascending order, in float64, with an axis for R."""
    xp = namespace_of(places)
    gaps = xp.diff(places)
    rows, start = prior.observation(places), prior.stationary(places)[None]
    moves = xp.concat([0 * start, prior.transition(gaps)])
    noises = xp.concat([start, prior.innovation(gaps)])
    means, precisions = (astype(part, places.dtype, xp)[order] for part in (sites.mean, sites.precision))
    if rows.ndim == 2:
        rows, means, precisions = rows[:, None], means[:, None], precisions[:, None, None]
    return Chain(moves, noises, rows, precisions, means)


def _check_fit(prior: Process, places: Any, sites: Sites) -> None:
    if places.shape[0] != sites.size:
        raise ShapeError(
            f"filter_smooth: `positions` and `sites` must be equally many; got {places.shape[0]} and "
            f"{sites.size}. Give every site its position."
        )
    for value in prior.tensors():
        if library_name(value) not in ("numpy", library_name(sites.mean)):
            raise TypeError(
                f"filter_smooth: the prior's hyperparameters are {library_name(value)} arrays, so the sites "
                f"must be too; got {library_name(sites.mean)}. Convert one of them."
            )
    xp = namespace_of(places)
    values = prior.observation(xp.zeros(1, dtype=double_of(xp), device=device_of(places))).shape[1:-1]
    if tuple(values) != tuple(sites.mean.shape[1:]):
        want = f"{values[0]} values each" if values else "one value each, shape (N,)"
        raise ShapeError(
            f"filter_smooth: sites of this prior must have {want}; got `mean` of shape "
            f"{tuple(sites.mean.shape)}."
        )


def _check_rounding(disagreement: float, where: str) -> None:
    if not disagreement <= _MOST_ROUNDING:
        raise DataError(
            f"{where}: the sites must leave more noise than rounding can hide; got smoothed states that "
            f"differ by {disagreement:.1g} prior standard deviations between two ways to compute them. Lower "
            "the precisions (1e8 times the prior's is safe for most), or take method='sequential'."
        )


def _gap(x: Any, places: Any, index: Any, exists: Any) -> Any:
    """``x - places[index]`` where that place exists, else 0."""
    xp = namespace_of(x)
    return xp.where(exists, x - places[index], xp.zeros_like(x)) if places.shape[0] else 0 * x


def _root(cov: Any) -> Any:
    """Matrices whose squares are the positive semidefinite ``cov``, singular ones too."""
    xp = namespace_of(cov)
    values, vectors = xp.linalg.eigh(cov)
    return vectors * xp.sqrt(xp.clip(values, 0.0, None))[..., None, :]


def _normal(rng: np.random.Generator, shape: tuple[int, int], like: Any) -> Any:
    return namespace_of(like).asarray(rng.standard_normal(shape), device=device_of(like))
