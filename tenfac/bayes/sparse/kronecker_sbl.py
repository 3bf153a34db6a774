"""The estimator: sparse Bayesian recovery with a Kronecker dictionary."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.sparse.ascent import Options
from tenfac.bayes.sparse.box import Box, posterior_mean
from tenfac.bayes.sparse.em import em_am, em_svd
from tenfac.bayes.sparse.posterior_methods import PosteriorMethods
from tenfac.bayes.sparse.problem import Problem, factors_of, problem_of
from tenfac.bayes.sparse.recover import Found, found_by, recover
from tenfac.bayes.sparse.scattered import MaskedBox, Scattered
from tenfac.bayes.sparse.settings import REPLICAS, UPDATES, check_settings
from tenfac.bayes.sparse.statistics import energy
from tenfac.bayes.sparse.structured import Structured
from tenfac.bayes.sparse.values import structured
from tenfac.bayes.sparse.variants import (
    Outcome,
    check_variant,
    doubt_about_support,
    filled,
    mask_of,
    recover_variant,
)
from tenfac.core.arrays import device_of, generator, namespace_of, seed_of
from tenfac.core.door import door
from tenfac.core.errors import DataError, warn_user
from tenfac.core.precision import dtype_name
from tenfac.core.progress import Progress
from tenfac.core.report import Report, stored_report
from tenfac.core.shown import shows_what_it_learned


@door
@shows_what_it_learned(lambda model: f"{_columns(model)}, noise {model.noise_:.3g}")
class KroneckerSBL(PosteriorMethods, BaseEstimator):
    """Sparse coefficients of a Kronecker dictionary from noisy measurements, with their posterior.

    The measurements are ``Y = X x_0 A_0 x_1 A_1 ... + noise``: ``vec(Y) = (A_0 kron A_1 kron ...) vec(X)``.
    Most columns of each factor are not used, so that ``X`` is zero outside a box of few rows per mode (a
    Kronecker support [1]_). The prior of ``X[j, k, ...]`` is Gaussian with variance ``g_0[j] g_1[k] ...``;
    these numbers and the noise maximise the evidence, which makes most of them zero. Any number of modes,
    real or complex, wide or tall factors.

    Parameters
    ----------
    noise : float, optional
        Standard deviation of the noise in the units of ``Y`` (of a complex number: of both parts together).
        Learned if None.
    update : {"fixed_point", "mm", "em_am", "em_svd"}, default "fixed_point"
        Step of the prior variances. "fixed_point" and "mm" never lower the evidence; "mm" needs no guard, and
        about twice as many sweeps. "em_am" and "em_svd" are the algorithms of [1]_ (module
        ``tenfac.bayes.sparse.em``), with their start, thresholds and stopping rule; they read only ``noise``
        of the other settings.
    coupling : list of arrays, shapes (N_i, m_i), or None per mode, optional
        Nonnegative matrices ``C_i`` that make ``g_i = C_i h_i`` of learned ``h_i``: neighbours that are
        active together (a band), groups (their indicators), windows.
    prune_alpha : float, default 0.05
        Once the evidence has converged, columns that do not raise it significantly at this level, shared
        among the columns of all modes, are deleted, and so is a model that is no better than noise; then it
        goes on: about this many columns too many per fit, or fewer. 0 deletes nothing.
    n_starts : int, default 2
        Starts of which the one with the highest evidence wins: all columns alike; then the first result with
        the variances drawn anew in the mode with most active columns per row; then random ones.
    n_hops : int, default 0
        Restarts from the best solution with the variances of one mode, drawn too, anew.
    values : {"full", "rank1", "auto"}, default "full"
        Structure of the coefficients on the box. "rank1" makes them an outer product of one vector per mode
        (and snapshots), estimated by least squares once the support is found; "auto" takes the structure with
        the lowest Bayesian information criterion: free values, rank one, Tucker, or a sum of rank-one terms.
    prior : {"kronecker", "unstructured"}, default "kronecker"
        "unstructured" gives every unknown its own variance [4]_: for supports that are not a box. Then
        ``support_`` has one index array (k,) per mode that together are the places of the k coefficients, as
        ``numpy.nonzero`` gives them; ``coef_`` and ``coef_std_`` have the shapes (k,), with snapshots (k, T),
        and ``gammas_`` and ``column_gain_`` hold one array (k,).
    max_iter : int, default 500
        Most sweeps over the modes per start.
    tol : float, default 3e-6
        Converged when a sweep raises the log evidence by less than this per measurement.
    random_state : int, numpy Generator or None, default 0
        Draws the starts after the first.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 also logs a line per start to the logger ``tenfac``.

    Attributes
    ----------
    support_ : tuple of arrays of int, shapes (k_i,)
        Active columns of each factor, ascending.
    coef_ : array, shape (k_0, ..., k_{I-1}), with snapshots (k_0, ..., k_{I-1}, T)
        Posterior mean on the active box, or the least-squares estimate of low rank; it is zero elsewhere.
    coef_std_ : array, shape (k_0, ..., k_{I-1})
        Posterior standard deviations on the box; of a complex coefficient, the root of the variance of its
        magnitude around the mean. Of an estimate of low rank, its standard errors given the support, to first
        order in the noise (Gauss-Newton), with several snapshots (..., T).
    values_ : str
        Structure of ``coef_``: "full", "rank1", "tucker(2, 1, 2)" with its ranks, or "cp(2)" of two terms;
        snapshots are a further mode. All methods but ``log_evidence`` answer for it.
    values_bic_ : dict of str to float
        Criterion of each structure that was fitted, the best the lowest; with "auto", others cannot win.
    gammas_ : tuple of arrays, shapes (N_i,)
        Prior variances per mode, zero where pruned; of unit norm but for the last mode, which has the scale.
    noise_ : float
        Standard deviation of the noise.
    log_evidence_ : float
        Log marginal likelihood of the measurements with all constants; infinite for measurements that are
        all zero.
    evidence_trace_ : array
        Log evidence at the start and after each sweep of the winning start. It falls only where columns were
        deleted.
    starts_ : array
        Log evidence that each start and each hop reached.
    column_gain_ : tuple of arrays, shapes (k_i,)
        Log evidence lost if one active column (weight, with ``coupling``) were deleted.
    n_iter_ : int
        Sweeps of the winning start.
    info_ : Report
        ``rel_error`` is the relative residual of the measurements.

    Notes
    -----
    No array of the size of ``X`` is formed. A sweep costs ``O(I M max M_i + sum M_i^2 N_i)`` operations with
    M measurements, and less as columns go; memory is a few times that of measurements and factors.
    Everything is computed in float64, on the device of the arrays; results have their dtype.

    Snapshots are independent draws with the same support: an axis of them is one problem. A batch of
    unrelated problems is a loop over ``fit``, also with common factors: what it could share, checks and the
    decompositions of the first sweep, is some two percent of a fit.

    Parameters inside the factors (angles off the grid, delays, gains) are learned by ascending
    ``kronecker_log_evidence`` with the gradients of torch from the grid's solution: with the ``gammas_`` of
    the active columns and the noise, by L-BFGS say; then fit again with the factors found.

    The evidence has local maxima. Few measurements per active column (six of eight, say) leave some fits in
    one; more starts and hops help, and ``starts_`` shows whether they agreed. Modes with at least half as
    many active columns as rows are tried from 16 more starts at once, all other modes held.

    References
    ----------
    .. [1] Y. He and G. Joseph, Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery With
       Application to IRS-MIMO Channel Estimation, IEEE Transactions on Signal Processing (2024),
       arXiv:2307.14719, sections II and III.
    .. [2] D. J. C. MacKay, Bayesian interpolation, Neural Computation 4 (1992), the fixed point.
    .. [3] M. E. Tipping, Sparse Bayesian learning and the relevance vector machine, Journal of Machine
       Learning Research 1 (2001), section 2.
    .. [4] M. E. Tipping and A. C. Faul, Fast marginal likelihood maximisation for sparse Bayesian models,
       AISTATS 2003.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.standard_normal((8, 12)), rng.standard_normal((9, 12))
    >>> Y = A[:, [2, 5]] @ np.array([[3.0, 1.0], [1.0, -2.0]]) @ B[:, [0, 7]].T
    >>> model = KroneckerSBL().fit([A, B], Y + 0.1 * rng.standard_normal(Y.shape))
    >>> [columns.tolist() for columns in model.support_]
    [[2, 5], [0, 7]]
    >>> bool((abs(model.coef_ - [[3.0, 1.0], [1.0, -2.0]]) < 4 * model.coef_std_).all())
    True
    """

    def __init__(
        self,
        *,
        noise: float | None = None,
        update: str = "fixed_point",
        coupling: Sequence[Any] | None = None,
        prune_alpha: float = 0.05,
        n_starts: int = 2,
        n_hops: int = 0,
        values: str = "full",
        prior: str = "kronecker",
        max_iter: int = 500,
        tol: float = 3e-6,
        random_state: int | np.random.Generator | None = 0,
        verbose: int = 0,
    ) -> None:
        self.noise = noise
        self.update = update
        self.coupling = coupling
        self.prune_alpha = prune_alpha
        self.n_starts = n_starts
        self.n_hops = n_hops
        self.values = values
        self.prior = prior
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, operator: Any, Y: Any, *, snapshots: bool = False, mask: Any = None) -> KroneckerSBL:
        """Learn support, coefficients and noise.

        Parameters
        ----------
        operator : KroneckerOperator, or sequence of arrays, shapes (M_i, N_i)
            The factors, first mode first; numpy or torch.
        Y : array, shape (M_0, ..., M_{I-1}) or (M,)
            Measurements, in the order of the rows of the operator.
        snapshots : bool, default False
            Whether ``Y`` has one more axis, last, of measurements with the same support: (..., T).
        mask : array of bool, shape (M_0, ..., M_{I-1}) or (M,), optional
            True where measured, for all snapshots; what ``Y`` holds elsewhere, NaN perhaps, is not read. The
            evidence is exactly that of what was measured. One start, by the fixed point; it costs more than
            without.

        Returns
        -------
        KroneckerSBL
            The fitted estimator itself.

        Raises
        ------
        ShapeError, DataError, TypeError
            Before anything is computed: shapes that do not fit, naming the mode; NaN or infinite numbers; a
            setting that means nothing.

        Warns
        -----
        ConvergenceWarning
            If the sweeps did not converge.
        UserWarning
            If, with pruning, most coefficients of the box are no different from zero, there are at most 1e5
            unknowns, and the unstructured prior explains the measurements better.
        """
        started = time.perf_counter()
        check_settings(self)
        where = "KroneckerSBL.fit"
        mask = mask_of(mask, operator, where)
        variant = mask is not None or self.prior != "kronecker"
        if variant:
            check_variant(self, "a mask" if self.prior == "kronecker" else "the unstructured prior")
        Y = filled(Y, mask, snapshots)
        problem = problem_of(operator, Y, snapshots=snapshots, coupling=self.coupling, where=where)
        self._check_noise(problem, where)
        if variant:
            outcome = recover_variant(self, problem, mask)
        elif self.update in REPLICAS:
            replica = em_am if self.update == "em_am" else em_svd
            solution, _ = replica(factors_of(operator, where), Y, self.noise, snapshots=snapshots)
            outcome = _outcome(problem, found_by(problem, solution))
        else:
            rng = generator(self.random_state)
            counts = int(self.n_starts), int(self.n_hops)
            with Progress("KroneckerSBL", sum(counts), self.verbose, unit="start") as progress:
                found = recover(problem, self._options(problem), *counts, rng, progress)
            outcome = _outcome(problem, found)
        doubt = None
        own = self.prior == "kronecker" and self.coupling is None and self.update not in REPLICAS
        if own and self.prune_alpha:
            doubt = doubt_about_support(self, problem, mask, outcome)
        outcome = self._with_values(problem, outcome)
        self._store(problem, outcome)
        self._report(outcome, doubt, time.perf_counter() - started)
        return self

    def _check_noise(self, problem: Problem, where: str) -> None:
        """Refuse noise in units that cannot be those of the measurements."""
        share = 1.0 if self.noise is None or not problem.total else (float(self.noise) / problem.scale) ** 2
        if not 1e-100 < share < 1e30:
            raise DataError(
                f"{where}: `noise` must be from 1e-50 to 1e15 times the largest measurement; got "
                f"{self.noise!r}, {math.sqrt(share):.1g} times. Take it in the units of Y, or leave it out "
                "to learn it."
            )

    def _options(self, problem: Problem) -> Options:
        noise = None if self.noise is None else (float(self.noise) / problem.scale) ** 2
        return Options(
            noise, UPDATES[self.update], float(self.prune_alpha), int(self.max_iter), float(self.tol)
        )

    def _with_values(self, problem: Problem, outcome: Outcome) -> Outcome:
        """Put the structure asked for on the coefficients of the box."""
        self.values_: str = "full"
        self.values_bic_: dict[str, float] = {}
        if self.values == "full":
            return outcome
        measured = problem.measured * problem.scale
        box, self.values_, self.values_bic_ = structured(outcome.box, measured, self.values)
        if self.values_ == "full":
            return outcome
        left = energy(measured - box.predicted(box.columns), problem.xp)
        rel_error = math.sqrt(left / problem.total) / problem.scale
        return outcome._replace(box=box, rel_error=rel_error)

    def _store(self, problem: Problem, outcome: Outcome) -> None:
        """Set what is learned, in the units and the dtype of the user."""
        xp = problem.xp
        real = xp.float32 if dtype_name(problem.dtype) in ("float32", "complex64") else xp.float64
        self.shape_ = problem.shape
        self.support_ = outcome.support
        self.gammas_ = tuple(xp.astype(one, real, copy=False) for one in outcome.gammas)
        self._box = outcome.box
        mean = xp.astype(self._box.mean, problem.dtype, copy=False)
        self.coef_ = mean if problem.snapshots else mean[..., 0]
        self.coef_std_ = xp.astype(xp.sqrt(self._box.variances()), real, copy=False)
        self.column_gain_ = tuple(xp.astype(one, real, copy=False) for one in outcome.gains)
        self.noise_ = math.sqrt(outcome.noise_variance)
        self.log_evidence_ = outcome.evidence
        self.evidence_trace_ = np.asarray(outcome.trace)
        self.starts_ = np.asarray(outcome.starts)
        self.n_iter_ = outcome.n_iter

    def _report(self, outcome: Outcome, doubt: str | None, seconds: float) -> None:
        said = []
        if not outcome.converged:
            slope = ""
            if len(outcome.trace) > 1:
                gain = outcome.trace[-1] - outcome.trace[-2]
                slope = f"; the last one raised the log evidence by {gain:.3g}"
            fixed = self.update in REPLICAS
            remedy = "Take update='fixed_point'." if fixed else "Raise max_iter, or tol."
            said.append(f"KroneckerSBL: not converged after {outcome.n_iter} sweeps{slope}. {remedy}")
            warn_user(said[-1])
        if doubt:
            said.append(doubt)
            warn_user(doubt, UserWarning)
        self.info_ = Report(
            converged=outcome.converged,
            reason=outcome.reason,
            n_iter=outcome.n_iter,
            rel_error=outcome.rel_error,
            history=tuple(outcome.trace),
            seconds=seconds,
            random_state=seed_of(self.random_state),
            warnings=tuple(said),
        )

    def _to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and arrays for ``tenfac.save``: settings, and the posterior on the box."""
        check_is_fitted(self, "info_")
        params = {name: value for name, value in self.get_params().items() if name != "coupling"}
        params["random_state"] = seed_of(self.random_state)
        numbers = {"noise_variance": self._box.noise, "evidence": self.log_evidence_, "n_iter": self.n_iter_}
        header = {
            "params": params,
            "coupled": None if self.coupling is None else [one is not None for one in self.coupling],
            "shape": list(self.shape_),
            "box": type(self._box).__name__,
            "values": self.values_,
            "bic": self.values_bic_,
            "numbers": {name: float(value).hex() for name, value in numbers.items()},
            "info": asdict(self.info_),
        }
        arrays = {"coef": self.coef_, "mean": self._box.mean, "std": self.coef_std_}
        arrays |= {"trace": self.evidence_trace_, "starts": self.starts_}
        several: dict[str, Any] = {
            "factor": self._box.factors,
            "box_gammas": self._box.gammas,
            "support": self.support_,
        }
        several |= {"gammas": self.gammas_, "gains": self.column_gain_, "coupling": self.coupling or ()}
        if isinstance(self._box, Scattered):
            several["columns"] = self._box.columns
        if isinstance(self._box, Structured):
            several["vectors"] = self._box.vectors
            arrays["core"] = self._box.core
        for name, ones in several.items():
            arrays |= {f"{name}_{n}": one for n, one in enumerate(ones) if one is not None}
        if isinstance(self._box, MaskedBox):
            arrays["places"] = self._box.places
        return header, arrays

    @classmethod
    def _from_state(cls, header: dict[str, Any], arrays: dict[str, Any]) -> KroneckerSBL:
        """Inverse of ``_to_state``; nothing is computed."""
        coupled = header["coupled"]
        coupling = None
        if coupled is not None:
            coupling = [arrays[f"coupling_{n}"] if one else None for n, one in enumerate(coupled)]
        model = cls(coupling=coupling, **header["params"])
        numbers = {name: float.fromhex(value) for name, value in header["numbers"].items()}
        variance = numbers["noise_variance"]
        model.noise_, model.log_evidence_ = math.sqrt(variance), numbers["evidence"]
        model.n_iter_ = int(numbers["n_iter"])
        model.coef_, model.coef_std_ = arrays["coef"], arrays["std"]
        model.evidence_trace_, model.starts_ = arrays["trace"], arrays["starts"]
        model.support_, model.gammas_ = _numbered(arrays, "support"), _numbered(arrays, "gammas")
        model.column_gain_, model.shape_ = _numbered(arrays, "gains"), tuple(header["shape"])
        parts = (_numbered(arrays, "factor"), _numbered(arrays, "box_gammas"), variance)
        more = {
            "Scattered": lambda: {"columns": _numbered(arrays, "columns")},
            "MaskedBox": lambda: {"places": arrays["places"]},
            "Structured": lambda: {"core": arrays["core"], "vectors": _numbered(arrays, "vectors")},
            "Box": dict,
        }[header["box"]]()
        kinds = {"Scattered": Scattered, "MaskedBox": MaskedBox, "Structured": Structured, "Box": Box}
        model.values_, model.values_bic_ = header["values"], header["bic"]
        model._box = kinds[header["box"]](arrays["mean"], *parts, namespace_of(arrays["mean"]), **more)
        model.info_ = stored_report(header["info"])
        return model


def _columns(model: KroneckerSBL) -> str:
    if model.prior == "unstructured":
        return f"{len(model.support_[0])} coefficients of {math.prod(model.shape_):,}"
    sizes = [" x ".join(map(str, ones)) for ones in (map(len, model.support_), model.shape_)]
    return f"columns {sizes[0]} of {sizes[1]}"


def _numbered(arrays: dict[str, Any], name: str) -> tuple[Any, ...]:
    """The arrays ``name_0``, ``name_1``, ... of a file."""
    count = sum(key.rpartition("_")[0] == name for key in arrays)
    return tuple(arrays[f"{name}_{n}"] for n in range(count))


def _outcome(problem: Problem, found: Found) -> Outcome:
    solution = found.solution
    support = tuple(problem.xp.nonzero(one > 0)[0] for one in solution.gammas)
    return Outcome(
        support=support,
        gammas=solution.gammas,
        box=_box_of(problem, found, support),
        gains=found.gains,
        noise_variance=solution.noise_variance,
        evidence=solution.evidence,
        trace=solution.trace,
        starts=found.starts,
        n_iter=solution.n_iter,
        converged=solution.converged,
        reason=solution.reason,
        rel_error=_residual(problem, found),
    )


def _box_of(problem: Problem, found: Found, support: tuple[Any, ...]) -> Box:
    """The posterior on the active box in the units of the user."""
    xp, solution, snapshots = problem.xp, found.solution, problem.measured.shape[-1]
    pairs = zip(problem.factors, problem.factor_scales, support, strict=True)
    factors = tuple(factor[:, columns] * scale for factor, scale, columns in pairs)
    gammas = tuple(one[columns] for one, columns in zip(solution.gammas, support, strict=True))
    if found.climb.state.modes:
        mean = posterior_mean(found.climb, snapshots, xp) * problem.unit
    else:
        shape = (*(0 for _ in factors), snapshots)
        mean = xp.zeros(shape, dtype=problem.measured.dtype, device=device_of(problem.measured))
    return Box(mean, factors, gammas, solution.noise_variance, xp)


def _residual(problem: Problem, found: Found) -> float:
    """Relative residual of the measurements, from its own terms."""
    if problem.total == 0:
        return 0.0
    state, sums = found.climb.state, found.climb.sums
    left = state.noise**2 * sums.left + state.outside
    return math.sqrt(left / problem.total)
