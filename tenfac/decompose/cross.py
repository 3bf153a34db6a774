"""Tucker approximation of a function of indices from few of its entries: adaptive cross approximation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from tenfac.core.arrays import eps, generator, seed_of, to_numpy
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, warn_user
from tenfac.core.progress import STOPPED, Progress
from tenfac.core.rank import check_tol
from tenfac.core.report import Report
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import check_count
from tenfac.decompose.sampler import Sampler, checked_shape

Array = NDArray[Any]

# Tensors of at most this many entries are evaluated in full.
_SMALL = 50_000
# Most evaluations when no limit is given.
_MOST = 5_000_000
# Most entries drawn to test a fit, at most this part of the limit; how many times as many confirm the one
# that passes.
_TEST, _TEST_PART, _CONFIRM = 1000, 20, 4
# Entries whose largest is the scale of the values, at most this part of the limit.
_LOOK, _LOOK_PART = 100, 50
# Share of the tolerance left outside the bases, and reached by a fit before it is compressed.
_BASIS, _FIT = 0.1, 0.5
# Entries that fix the core, as a multiple of its size: a stable least-squares problem.
_OVERSAMPLING = 4.0
# Fits without a new best after which to stop.
_PATIENCE = 4
# Fibres added per round and mode beyond half of the rank, and entries of the worst error they go through.
_EXTRA, _WORST = 8, 4
# The rank over this is how many fibres more are added; a round reads at most this part of what is left, some
# fibres at least.
_GROWTH, _ROUND, _FIRST, _LEAST = 2, 2, 2, 4
# Fibres drawn for each that is added.
_POOL = 4
# Rows of each mode before there is a basis.
_ROWS = 16
# Share of the error that the condensed fibres may lose.
_CONDENSED = 0.01
# What is left of a basis whose entries would be too many, and the fewest rows of one.
_SHRINK, _FEW = 0.8, 2
# Part of what the test leaves of the tolerance that is spent on smaller ranks; how much less the next time.
_ROOM, _LESS = 0.8, 2


@door
def tucker_cross(
    f: Callable[[Array], Any] | Any,
    shape: Sequence[int],
    tol: float,
    *,
    max_evals: int | None = None,
    batch: int = 100_000,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> Tucker:
    """Approximate a tensor in Tucker format from few of its entries, the ranks chosen by ``tol``.

    Fibres of each mode, through chosen rows of the others and through the worst errors found, give its basis
    [1]_; rows of the bases, chosen by pivoted QR [2]_ and leverage, give the entries that fix the core by
    least squares. Rounds go on until entries that were not used agree to ``tol``.

    Parameters
    ----------
    f : callable or array
        ``f(indices)`` maps an integer array of shape (N, D) to N values (real or complex, finite). Or an
        array, a format, or anything of this shape that ``x[i, j, k]`` reads at arrays of indices, such as a
        memory map.
    shape : sequence of D int
        Sizes of the tensor.
    tol : float
        Relative Frobenius error to reach.
    max_evals : int, optional
        Most entries evaluated. By default a tenth of all, at most 5 million; of small tensors half, at most
        500 000.
    batch : int, default 100000
        Most entries asked of ``f`` in one call.
    random_state : int, numpy Generator or None, default 0
        Draws the first fibres and the entries of the tests.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar of the entries evaluated, 2 logs each fit too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, error)`` after each round, as in ``info.history``; after a true answer the bases
        found so far are fitted, and the best fit is returned.

    Returns
    -------
    Tucker
        With orthonormal factors, in the library and precision of the values. ``info.rel_error`` is the error
        *estimated* on random entries that were not used in the fit, ``info.n_evals`` the entries evaluated,
        ``info.history`` the error of each
        round: of the entries that test its fit or, where none was due, what its new fibres have outside the
        bases so far.

    Raises
    ------
    DataError
        If a setting is not valid, or ``f`` returns something else than N finite numbers.

    Warns
    -----
    ConvergenceWarning
        If the next round would pass ``max_evals``: the best fit so far is returned, with
        ``info.converged=False`` and its error. A function with kinks or noise ends here.

    Notes
    -----
    For smooth functions about ``5 sum(I) R`` evaluations for the bases (ranks of one size R), ``4 R^D`` for
    each fit of the core, usually one, and 5000 for its test. Half of the test entries are drawn evenly, half
    where the function has its peaks; still, a feature of few entries that no fibre meets stays unseen. Up to
    50 000 entries are evaluated in full if ``max_evals`` allows, and decomposed as ``tucker`` does.

    References
    ----------
    .. [1] S. Dolgov, D. Kressner and C. Strössner, Functional Tucker approximation using Chebyshev
       interpolation, SIAM J. Sci. Comput. 43 (2021), section 3. doi:10.1137/20M1356944
    .. [2] Z. Drmač and S. Gugercin, A new selection operator for the discrete empirical interpolation method,
       SIAM J. Sci. Comput. 38 (2016), section 2. doi:10.1137/15M1019271

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0, 1, 200)
    >>> t = tucker_cross(lambda i: 1 / (x[i].sum(axis=1) + 0.05), (200, 200, 200), 1e-6)
    >>> t.rank, t.info.n_evals < 0.02 * 200**3
    ((8, 8, 8), True)
    """
    start = perf_counter()
    rng = generator(random_state)
    progress = Progress("tucker_cross", None, verbose, callback, "entries")
    shape = checked_shape(shape, "tucker_cross")
    progress.max_iter = limit = _limit(max_evals, shape)
    spare = limit - 1 - math.prod(shape) if _is_read_whole(shape, limit) else limit // _LOOK_PART
    sampler = Sampler(f, shape, batch, "tucker_cross", rng, min(_LOOK, spare))
    tol = check_tol(tol, sampler.dtype, "tucker_cross")
    with progress:
        core, bases, error, end = _approximated(sampler, tol, rng, progress)
    rounded, factors, rounding = _rounded(sampler, core, bases)
    info = _report(core, error + rounding, tol, end, sampler, progress)
    if info.warnings and not info.converged:
        warn_user(info.warnings[0])
    info = replace(info, seconds=perf_counter() - start, random_state=seed_of(random_state))
    return Tucker(rounded, factors, info=info)


def _approximated(
    sampler: Sampler, tol: float, rng: np.random.Generator, progress: Progress
) -> tuple[Array, list[Array], float, str]:
    """Core, bases, error and what ended it: all entries where they are few, else a cross approximation."""
    rounding = (len(sampler.shape) + 1) * eps(sampler.dtype) / 2  # at most, when core and bases are rounded
    tol = max(tol - rounding, tol / 2)
    if not _is_read_whole(sampler.shape, progress.left):
        return _Cross(sampler, tol, progress, rng).run()
    dense = sampler.grid([np.arange(size) for size in sampler.shape])
    core, bases, error = truncate(dense, None, tol)
    progress.log("all %d entries read, ranks %s, relative error %.3g", dense.size, core.shape, error)
    progress(error, sampler.n_evals)
    return core, list(bases), error, "max_evals reached"


def _rounded(sampler: Sampler, core: Array, bases: Sequence[Array]) -> tuple[Any, list[Any], float]:
    """Core and bases in the library and precision of the values, and what that rounding changes at most."""
    small, *rounded = (sampler.native(array) for array in (core, *bases))
    norm, lost = np.linalg.norm(core), np.linalg.norm(core - to_numpy(small))
    for n, (basis, kept) in enumerate(zip(bases, rounded, strict=True)):
        change = [basis - to_numpy(kept) if m == n else None for m in range(core.ndim)]
        lost += np.linalg.norm(contract(core, change))
    return small * sampler.scale, rounded, float(lost / norm) if norm else 0.0


def _report(core: Array, error: float, tol: float, end: str, sampler: Sampler, progress: Progress) -> Report:
    """What is said of a result with this error."""
    reason = STOPPED if progress.stopped else end if error > tol else "tolerance met"
    notes: tuple[str, ...] = ()
    if reason == end:
        notes = (
            f"tucker_cross: stopped after {sampler.n_evals:,} evaluations (max_evals={progress.max_iter:,}), "
            "as another round would pass max_evals or would not help; the estimated relative error is "
            f"{error:.2g}, above tol={tol:g}. Raise max_evals or tol. Ranks that go on growing mean a kink, "
            "a jump or noise, which no low rank can follow.",
        )
    elif not np.any(core):
        notes = (f"tucker_cross: each of the {sampler.n_evals:,} entries read was zero.",)
    return Report(
        reason == "tolerance met",
        reason,
        n_iter=progress.n_iter,
        n_evals=sampler.n_evals,
        rel_error=error,
        history=tuple(progress.history),
        warnings=notes,
    )


def _has_stalled(errors: Sequence[float]) -> bool:
    """Whether the last fits have brought no new best."""
    return min(errors[-_PATIENCE:]) > min(errors)


def _fewest(shape: tuple[int, ...]) -> int:
    """Evaluations that a few fibres of each mode and a test take."""
    return 8 * sum(shape) + 4 * 2 ** len(shape)


def _is_read_whole(shape: tuple[int, ...], limit: int) -> bool:
    """Whether all entries may be read, and are few, or fewer than fibres would be."""
    return math.prod(shape) < min(limit, max(_SMALL, _fewest(shape)))


def _limit(max_evals: int | None, shape: tuple[int, ...]) -> int:
    least = min(_fewest(shape), math.prod(shape) + 1)
    if max_evals is None:
        size = math.prod(shape)
        if least > _MOST:
            raise DataError(
                f"tucker_cross: shape {shape} needs {least:,} evaluations at least, more than the default of "
                f"{_MOST:,}. Give max_evals."
            )
        tenth = min(max(size // 10, min(size // 2, 500_000), 4 * least), _MOST)
        return max(tenth, size + 101) if size <= _SMALL else tenth
    max_evals = check_count(max_evals, "max_evals", "tucker_cross")
    if max_evals < least:
        raise DataError(
            f"tucker_cross: max_evals must be at least {least:,} for shape {shape}, a few fibres of "
            f"each mode and a test; got {max_evals:,}."
        )
    return max_evals


class _Cross:
    """State of one approximation: the fibres read so far, their bases, the entries to read next."""

    def __init__(self, sampler: Sampler, tol: float, progress: Progress, rng: np.random.Generator) -> None:
        self.sampler, self.tol, self.progress, self.rng = sampler, tol, progress, rng
        self.limit, self.told = progress.left, 0
        shape = sampler.shape
        self.n_test = min(_TEST, self.limit // _TEST_PART)
        self.reserve = self.n_test + _CONFIRM * self.n_test
        self.columns = [np.empty((0, len(shape) - 1), dtype=np.int64) for _ in shape]
        self.seen = [np.empty((size, 0)) for size in shape]
        self.bases = [np.empty((size, 0)) for size in shape]
        self.rows = [rng.choice(size, size=min(size, _ROWS), replace=False) for size in shape]
        self.worst = np.empty((0, len(shape)), dtype=np.int64)
        self.room = _ROOM

    def run(self) -> tuple[Array, list[Array], float, str]:
        """Core, bases and error of the best fit; what ended the search, if not the tolerance."""
        best: Any = None
        errors: list[float] = []
        fitted: int | None = None
        while True:
            missed = self._grow()
            if (
                missed is not None
                and missed > _FIT * self.tol
                and not self.progress(missed, self._new_evals())
            ):
                continue
            fit = None if sum(map(len, self.columns)) == fitted else self._fit()
            if fit is None:
                break
            fitted = sum(map(len, self.columns))
            best = fit if best is None or fit[2] < best[2] else best
            errors.append(fit[2])
            self.progress.log(
                "fit %d: ranks %s, %d entries read, estimated relative error %.3g",
                len(errors), fit[0].shape, self.sampler.n_evals, fit[2],
            )  # fmt: skip
            stop = self.progress.stopped or self.progress(fit[2], self._new_evals())
            if stop or fit[2] <= self.tol or missed is None or _has_stalled(errors):
                break
        return *best, "error stopped falling" if _has_stalled(errors) else "max_evals reached"

    def _new_evals(self) -> int:
        """Entries read since the last call."""
        before, self.told = self.told, self.sampler.n_evals
        return self.told - before

    def _grow(self) -> float | None:
        """Read new fibres of every mode; what the bases missed of them, or None if none can be read."""
        shape, first = self.sampler.shape, not self.columns[0].size
        core = _OVERSAMPLING * math.prod(basis.shape[1] for basis in self.bases)
        left = self.limit - self.sampler.n_evals - self.reserve - core
        most = int(left / (_ROUND * sum(shape)))
        if first:
            most = max(most, _FIRST)
        elif most < _LEAST:
            return None
        new = [self._propose(n, min(b.shape[1] // _GROWTH + _EXTRA, most)) for n, b in enumerate(self.bases)]
        if not any(map(len, new)):
            return None
        missed, worst = 0.0, []
        for n, columns in enumerate(new):
            if not len(columns):
                continue
            fibres = self.sampler.fibres(n, columns)
            self.columns[n] = np.concatenate([self.columns[n], columns])
            rest = fibres - self.bases[n] @ (self.bases[n].conj().T @ fibres)
            place, column = np.unravel_index(np.argmax(np.abs(rest)), rest.shape)
            worst.append(np.insert(columns[column], n, place))
            norm = np.linalg.norm(fibres)
            missed = max(missed, float(np.linalg.norm(rest) / norm) if norm else 0.0)
            seen = np.concatenate([self.seen[n], fibres], axis=1)
            self.bases[n], self.seen[n] = _leading(seen, _BASIS * self.tol)
        self.rows = [_choose_rows(basis, len(shape)) for basis in self.bases]
        self.worst = np.asarray(worst)  # the next fibres go through them, and so towards a peak
        return missed

    def _propose(self, n: int, count: int) -> Array:
        """Fibres of mode ``n`` not read yet: through the worst entries, through chosen rows, anywhere."""
        others = [m for m in range(len(self.rows)) if m != n]
        chosen = [self.rng.choice(self.rows[m], size=_POOL * count) for m in others]
        anywhere = [self.rng.integers(self.sampler.shape[m], size=_POOL * count) for m in others]
        parts = [self.worst[:, others], *(np.stack(p, axis=1) for p in (chosen, anywhere))]
        pool = np.concatenate([self.columns[n], *parts])
        _, first = np.unique(pool, axis=0, return_index=True)
        fresh = np.sort(first[first >= len(self.columns[n])])
        return pool[fresh[:count]]

    def _fit(self) -> tuple[Array, list[Array], float] | None:
        """Core by least squares, tested on fresh entries and compressed where the test leaves room."""
        budget = self.limit - self.sampler.n_evals - self.reserve
        bases, rows = list(self.bases), list(self.rows)
        while math.prod(map(len, rows)) > budget:
            n = max(range(len(rows)), key=lambda m: len(rows[m]))
            if len(rows[n]) <= _FEW:
                return None
            bases[n] = bases[n][:, : int(_SHRINK * bases[n].shape[1])]
            rows[n] = _choose_rows(bases[n], len(rows))
        inverse = [np.linalg.pinv(basis[row]) for basis, row in zip(bases, rows, strict=True)]
        core = contract(self.sampler.grid(rows), inverse)
        error, self.worst = self._test(core, bases, self.n_test)
        if error > _FIT * self.tol:
            return core, bases, error
        core, factors, _ = truncate(core, None, self.room * math.sqrt(self.tol**2 - error**2))
        bases = [basis @ factor for basis, factor in zip(bases, factors, strict=True)]
        self.room /= _LESS  # should the test of the compressed fit fail
        return core, bases, self._test(core, bases, _CONFIRM * self.n_test)[0]

    def _test(self, core: Array, bases: list[Array], count: int) -> tuple[float, Array]:
        """Relative error estimated at random entries, and the entries where it is worst.

        Half of the entries are drawn evenly, half where the rows of the bases have leverage: there the
        function has its peaks. Weights make up for the difference.
        """
        sizes, leverage = self.sampler.shape, [_leverage(basis) for basis in bases]
        points = np.stack(
            [
                np.where(
                    np.arange(count) % 2,
                    self.rng.integers(size, size=count),
                    self.rng.choice(size, p=weight, size=count),
                )
                for size, weight in zip(sizes, leverage, strict=True)
            ],
            axis=1,
        )
        drawn = np.prod([w[i] * len(w) for w, i in zip(leverage, points.T, strict=True)], axis=0)
        root = np.sqrt(1 + drawn)
        values = self.sampler.entries(points)
        rows = [basis[column] for basis, column in zip(bases, points.T, strict=True)]
        rest = values - contract(core, rows, paired=range(len(rows)))
        norm, left = np.linalg.norm(values / root), np.linalg.norm(rest / root)
        error = left / norm if norm else math.inf if left else 0.0
        return float(error), points[np.argsort(-np.abs(rest))[:_WORST]]


def _leverage(basis: Array) -> Array:
    """Squared lengths of the rows of an orthonormal basis, as probabilities."""
    squares = np.sum(np.abs(basis) ** 2, axis=1)
    return squares / squares.sum()


def _leading(matrix: Array, tol: float) -> tuple[Array, Array]:
    """Orthonormal basis of the columns of a matrix to a relative error; and the columns, condensed."""
    vectors, values, _ = np.linalg.svd(matrix, full_matrices=False)
    tails = np.sqrt(np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0))
    rank, more = (max(int(np.argmax(tails <= share * tails[0])), 1) for share in (tol, _CONDENSED * tol))
    return vectors[:, :rank], vectors[:, :more] * values[:more]


def _choose_rows(basis: Array, d: int) -> Array:
    """Rows at which a basis is best told apart: pivots of a QR, then the rows of greatest leverage."""
    size, rank = basis.shape
    rows = list(qr(basis.conj().T, mode="economic", pivoting=True)[2][:rank])
    inverse = np.linalg.pinv(basis[rows].conj().T @ basis[rows], hermitian=True)
    scaled = basis @ inverse
    for _ in range(min(math.ceil(rank * _OVERSAMPLING ** (1 / d)), size) - rank):
        leverage = np.einsum("ir,ir->i", scaled, basis.conj()).real
        leverage[rows] = -np.inf
        new = int(np.argmax(leverage))
        rows.append(new)
        along = scaled @ basis[new].conj()
        scaled = scaled - np.outer(along, scaled[new]) / (1 + along[new].real)
    return np.sort(np.asarray(rows, dtype=np.int64))
