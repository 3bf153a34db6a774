"""The estimator: functional Bayesian Tucker regression on continuous and discrete indices."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tenfac.bayes.columns import (
    ModeIndex,
    check_column,
    column_names,
    columns_of,
    is_numeric_frame,
    is_table,
    looks_discrete,
)
from tenfac.bayes.evidence import Hyper
from tenfac.bayes.inference import fitter_of, restored, state_of
from tenfac.bayes.margin import learn_with_response
from tenfac.bayes.mode_prior import ModePrior
from tenfac.bayes.posterior_methods import PosteriorMethods
from tenfac.bayes.prediction import Prediction
from tenfac.bayes.response import Response
from tenfac.bayes.search import Task, choose_exact
from tenfac.bayes.settings import (
    LIMITS,
    cep_ranks,
    check_inference,
    check_numbers,
    check_response,
    discrete_of,
    first_lengthscales,
    kernels_of,
    limits_of,
    mode_number,
    ranks_of,
)
from tenfac.core.arrays import generator
from tenfac.core.errors import ConvergenceWarning, DataError

Array = NDArray[np.float64]


class FunctionalTucker(PosteriorMethods, RegressorMixin, BaseEstimator):
    """Posterior of a function of several indices, continuous or discrete, from scattered observations.

    The function is a Tucker tensor with functional modes,
    ``f(x_1, ..., x_D) = sum_r G[r_1, ..., r_D] prod_n phi_{n, r_n}(x_n)``: the factors are the
    Karhunen-Loève functions of one Gaussian-process prior per mode (Matérn for a continuous mode,
    exchangeable levels for a discrete one, plus a constant), and the core has independent Gaussian entries
    [1]_. The longest mode needs no basis: it is integrated out exactly, by a Kalman smoother over its
    Matérn state-space form when continuous [2]_, level by level when discrete. Everything given the
    hyperparameters is Gaussian, so means, variances and the evidence are exact. Lengthscales, the sizes of
    main effects and interactions, the noise, and a bend of each continuous axis (for functions that vary
    faster in one part of it) are learned by maximising the evidence.

    Missing cells need no treatment: give only the rows that were observed.

    All this is ``inference="collapsed"``. Others fit the same family of models; see Notes.

    Parameters
    ----------
    discrete : sequence of str or int, optional
        Modes whose indices are labels, by column name or number. Columns that hold no numbers are
        discrete anyway.
    inference : {"collapsed", "cep", "svi", "nuts"}, default "collapsed"
        "collapsed": as above. "cep": the functions of all modes and the core are learned, each with its own
        prior, by conditional moments. "svi" and "nuts": hyperparameters have a posterior too, by the program
        of ``tenfac.pyro_model``, for up to 1000 distinct points; they need the extra ``bayes``.
    rank : "auto", int or sequence of int, default "auto"
        Most functions per continuous mode: one number, or one per continuous mode in column order. The
        exact mode ignores its entry; a discrete mode keeps all its levels. "auto" goes by the evidence: the
        learned prior decides how many products matter. With "cep", a sequence has one entry per mode,
        discrete ones too, and functions that the data do not support are switched off whatever the rank;
        "auto" begins with 3 per mode (fewer from four modes on), or 5 products if ``core`` is diagonal.
        "svi" and "nuts" keep all functions.
    core : {"full", "diagonal"}, default "full"
        "diagonal" (with "cep" only) has main effects and ``rank`` products of one function per mode: CP.
    kernel : str, GPyTorch kernel or dict, default "matern32"
        Matérn kernel of the continuous modes, ``"matern12"``, ``"matern32"`` or ``"matern52"``; or a dict
        from column name or number to kernel. A ``gpytorch.kernels.MaternKernel`` gives its order and, if it
        was set, the lengthscale to start from, in the unit of the column; how far a mode varies is learned.
    max_iter : int, optional
        Most L-BFGS iterations for the hyperparameters (400), and again for those of ``label_rank``, and for
        each floor and ceiling tried; 0 keeps the starting values. "cep": sweeps over all modes (300). "svi":
        steps (3000). "nuts": draws of each of two chains, after as many steps of adaptation (500).
    tol : float, optional
        Stop when an iteration gains less than this, relative to the log evidence per observation (1e-7), or
        with "cep" when several sweeps do (1e-3).
    label_rank : int, default 0
        Rank of the covariance that is learned between the labels of a discrete mode (the coregionalization
        rank [3]_): what makes labels act alike, or opposite. 0 leaves labels exchangeable. It takes many
        observations per label, and ``log_evidence_`` tells whether it pays.
    response : {"identity", "log", "logit"}, default "identity"
        Scale on which the function is Gaussian. "log" for values that approach a floor (concentrations),
        "logit" for values between a floor and a ceiling (fractions, dose responses). How far these lie beyond
        the smallest and largest y, as a share of their distance, is learned. Predictions are in the unit of y
        whatever the response.
    max_functions : int, optional
        Most products of mode functions kept: memory grows with its square, time with its cube. By default
        at most 400, and fewer when the exact mode has many indices, so that one evaluation of the evidence
        takes about a second.
    random_state : int, numpy Generator or None, default 0
        Draws the few missing cells of an almost complete grid while the hyperparameters are learned; nothing
        else of "collapsed" is random. The others draw their starts, held-out rows, and samples.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 logs a line per stage to the logger ``tenfac``.

    Attributes
    ----------
    mode_names_ : list of str
    kinds_ : tuple of {"continuous", "discrete"}
    indices_ : list of arrays
        Distinct observed indices or labels per mode, ascending.
    exact_mode_ : int
        With "collapsed", the mode integrated out exactly: the longest, unless a discrete one does better.
    rank_ : tuple of int
        Functions used per mode; for the exact mode, its number of observed indices. With "cep", those that
        have more than 1e-4 of the variance of y.
    lengthscales_ : dict
        Per continuous mode, in the unit of its column, at its median index (the axis may be bent, so
        that the function varies faster in one part than in another). With "cep", of the mode's function with
        the largest share.
    constants_ : dict
        Per mode, the variance of the part shared by all its indices, relative to what varies; not for "cep".
    core_ : array
        With "cep", what multiplies the functions of ``factor_posterior``: shape (R,) if ``core`` is diagonal,
        else (1 + R_0, 1 + R_1, ...), where place 0 of a mode is the function that is 1.
    noise_ : float
        Standard deviation of the noise, in the unit of y (in the middle of its range, if ``response`` bends).
    bounds_ : tuple of two floats
        Floor and ceiling of y; infinite where ``response`` has none.
    label_covariances_ : dict
        If ``label_rank`` is not 0: per discrete mode, prior covariance of its labels, shape (M, M), in the
        order of ``indices_``.
    log_evidence_ : float or None
        Log marginal likelihood of y at the learned hyperparameters; a lower bound of it with "cep", of that
        with hyperparameters integrated out with "svi"; None with "nuts".
    n_iter_ : int
        Iterations done, at least 1.
    info_ : Report
        Convergence, iterations, seconds, warnings.

    Notes
    -----
    Cost per evaluation of the evidence: ``O(M P^3)`` with M indices in the exact mode and P products of
    mode functions, after one pass of ``O(N P^2)`` over the observations.

    "cep" takes the functions of different modes for independent [5]_: one sweep is linear in the rows, but
    its standard deviations are too small where functions are known from few rows, and it predicts worse than
    "collapsed" on most data. It is for looking at single functions (``factor_posterior``). After "svi" and
    "nuts", numbers in attributes are medians over the draws; ``save`` does not take them.

    With ``label_rank=0`` what is common to all labels is shared, but no likeness between two labels is
    learned, so that a label's response to another label that it was never observed with is not guessed. When
    all modes are discrete and no cell is repeated, noise and the highest interaction cannot be told apart by
    the data.

    With a ``response`` other than the identity, the posterior of y is a bent Gaussian [4]_: ``predict`` gives
    its mean and standard deviation. The evidence compares responses, but not where many y are equal (clipped
    or counted): there a bent density may rise without telling more.

    When the products kept do not carry the whole prior variance, what is left out is learned as noise and
    stays in the standard deviation of the function; ``info_.warnings`` states the share.

    References
    ----------
    .. [1] S. Fang, X. Yu, Z. Wang, S. Li, M. Kirby, S. Zhe, Functional Bayesian Tucker Decomposition for
       Continuous-indexed Tensor Data, ICLR 2024, arXiv:2311.04829, equations 4-8.
    .. [2] J. Hartikainen and S. Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian
       process regression models, MLSP 2010. doi:10.1109/MLSP.2010.5589113
    .. [3] E. V. Bonilla, K. M. A. Chai, C. K. I. Williams, Multi-task Gaussian Process Prediction, NIPS 2007,
       equation 1.
    .. [4] E. Snelson, C. E. Rasmussen, Z. Ghahramani, Warped Gaussian Processes, NIPS 2003, equation 5.
    .. [5] Fang et al. [1]_, section 4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 20, (200, 2)) / 20
    >>> y = np.sin(6 * X[:, 0]) * X[:, 1] + 0.05 * rng.normal(size=200)
    >>> model = FunctionalTucker().fit(X, y)
    >>> mean, std = model.predict([[0.25, 0.5]], return_std=True)
    >>> bool(abs(mean[0] - 0.5 * np.sin(1.5)) < 3 * std[0])
    True
    """

    def __init__(
        self,
        *,
        discrete: Sequence[str | int] | None = None,
        inference: str = "collapsed",
        rank: str | int | Sequence[int] = "auto",
        core: str = "full",
        kernel: Any = "matern32",
        max_iter: int | None = None,
        tol: float | None = None,
        label_rank: int = 0,
        response: str = "identity",
        max_functions: int | None = None,
        random_state: int | np.random.Generator | None = 0,
        verbose: int = 0,
    ) -> None:
        self.discrete = discrete
        self.inference = inference
        self.rank = rank
        self.core = core
        self.kernel = kernel
        self.max_iter = max_iter
        self.tol = tol
        self.label_rank = label_rank
        self.response = response
        self.max_functions = max_functions
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> FunctionalTucker:
        """Learn the hyperparameters and the posterior.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            One row per observation, one column per mode.
        y : array, shape (N,)
            Observed values, finite.
        sample_weight : array, shape (N,), optional
            Numbers of repeats: weight 2 is the same as the row given twice, 0 leaves it out.

        Returns
        -------
        FunctionalTucker
            The fitted estimator itself.

        Raises
        ------
        ValueError
            Before anything is computed: indices or values that are not finite, an unknown name in
            ``discrete`` or ``kernel``, a setting that the inference does not know (DataError), columns of
            different lengths (ShapeError), a rank above the number of indices (RankError).
        MissingExtraError
            For "svi" and "nuts", if torch or Pyro is not installed.

        Examples
        --------
        >>> FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0]).kinds_
        ('continuous',)
        """
        started = time.perf_counter()
        check_inference(self)
        check_numbers(self.max_iter, self.max_functions, self.label_rank, self.tol, LIMITS[self.inference][0])
        check_response(self.response)
        columns, names, y = self._read(X, y)
        weights = _check_sample_weight(sample_weight, y, dtype=float, ensure_non_negative=True)
        keep = weights > 0
        if not keep.any():
            raise DataError("FunctionalTucker.fit: every sample_weight is zero; at least one row must count.")
        columns = self._learn_modes([column[keep] for column in columns], names)
        fitter_of(self)(columns, y[keep], weights[keep], started)
        return self

    def _to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Header and arrays for ``tenfac.save``: settings, hyperparameters and observations."""
        check_is_fitted(self, "info_")
        return state_of(self)

    @classmethod
    def _from_state(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> FunctionalTucker:
        """Inverse of ``_to_state``: solves once, at the stored hyperparameters."""
        return restored(cls, header, arrays)

    # What follows turns input into positions, searches the hyperparameters, and stores the result.

    def _read(self, X: Any, y: Any) -> tuple[list[NDArray[Any]], list[str], Array]:
        """Columns, their names, and y; sets what scikit-learn expects of a fitted input."""
        if is_table(X) and not is_numeric_frame(X):
            names = column_names(X)
            columns = columns_of(X, names)
            self.feature_names_in_ = np.asarray(names, dtype=object)
            self.n_features_in_ = len(names)
            y = np.asarray(y, dtype=float)
            if y.shape != columns[0].shape:
                raise DataError(
                    f"FunctionalTucker.fit: y must have one value per row; got shape {y.shape} for "
                    f"{columns[0].size} rows."
                )
            if not np.isfinite(y).all():
                raise DataError(
                    f"FunctionalTucker.fit: y contains {int((~np.isfinite(y)).sum())} NaN or infinite "
                    "values; leave missing cells out of the table."
                )
        else:
            X, y = validate_data(self, X, y, dtype=float, y_numeric=True)
            names = [str(n) for n in getattr(self, "feature_names_in_", range(X.shape[1]))]
            columns = list(X.T)
        if not columns or columns[0].size == 0:
            raise DataError("FunctionalTucker.fit: the table is empty; give at least one row and one mode.")
        return columns, names, y.astype(float)

    def _learn_modes(self, columns: list[NDArray[Any]], names: list[str]) -> list[NDArray[Any]]:
        where = "FunctionalTucker"
        discrete = {mode_number(mode, names, where) for mode in discrete_of(self.discrete)}
        discrete |= {n for n, column in enumerate(columns) if looks_discrete(column)}
        columns = [
            check_column(name, column, n in discrete)
            for n, (name, column) in enumerate(zip(names, columns, strict=True))
        ]
        self._set_modes(
            [
                ModeIndex.learn(name, column, n in discrete)
                for n, (name, column) in enumerate(zip(names, columns, strict=True))
            ]
        )
        return columns

    def _set_modes(self, modes: list[ModeIndex]) -> None:
        self._modes = modes
        self._kernels = kernels_of(self.kernel, modes)
        if self.inference == "cep":
            self._rank = cep_ranks(self.rank, self.core, modes)
        else:
            self._rank = ranks_of(self.rank, modes)
        self.mode_names_ = [index.name for index in modes]
        self.kinds_ = tuple("discrete" if index.discrete else "continuous" for index in self._modes)
        self.indices_ = [index.values for index in self._modes]

    def _search(self, columns: list[NDArray[Any]], y: Array, weights: Array, started: float) -> None:
        """Learn the hyperparameters and keep what prediction needs."""
        positions = tuple(index.positions(column) for index, column in zip(self._modes, columns, strict=True))
        max_iter, tol = limits_of(self)
        latent = Response.start(self.response, y, weights).latent(y)
        exact = choose_exact(self._make_task(positions, latent, weights, 0), max_iter, tol).exact
        self.exact_mode_ = exact

        def task_of(latent: Array) -> Task:
            return self._make_task(positions, latent, weights, exact)

        settings, start = (max_iter, tol, int(self.verbose)), self._first_hyper()
        fit = learn_with_response(self.response, y, weights, task_of, settings, start)
        self._response, self._task, self._learned, prediction, self._jacobian = fit
        learned = self._learned
        self._set_posterior(prediction)
        self.n_iter_ = max(learned.n_iter, 1)
        notes = self._notes()
        self.info_ = learned.report(max_iter, notes, started)
        chosen = self.max_functions is None and isinstance(self.rank, str)
        if notes and chosen and self._prediction.missing_noise_share > 0.5:
            warnings.warn(f"FunctionalTucker: {notes[0]}", UserWarning, stacklevel=3)
        if not self.info_.converged:
            warnings.warn(
                f"FunctionalTucker: the evidence was still rising when max_iter={max_iter} was reached; "
                "the best hyperparameters so far are kept. Raise max_iter.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _first_hyper(self) -> Hyper:
        """Neutral hyperparameters, but for lengthscales that came with a kernel."""
        hyper = Hyper.start(len(self._modes))
        for n, length in enumerate(first_lengthscales(self.kernel, self._modes)):
            if length is not None:
                hyper = hyper.moved(n, 1, float(np.log(length)) - hyper.modes[n, 1])
        return hyper

    def _make_task(self, positions: tuple[Array, ...], y: Array, weights: Array, exact: int) -> Task:
        grids = tuple(index.positions(index.values) for index in self._modes)
        return Task(
            self._kernels, exact, grids, positions, y, weights, self._rank,
            None if self.max_functions is None else int(self.max_functions), int(self.label_rank),
            generator(self.random_state),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        missing = self._prediction.missing_share
        if missing <= 0.05:
            return ()
        return (
            f"the {self._prediction.problem.basis.size} products of mode functions kept carry "
            f"{100 * (1 - missing):.0f} % of the prior variance, the rest counts as uncertainty. Round mode "
            f"{self.mode_names_[self.exact_mode_]!r} to fewer distinct indices, or set max_functions higher "
            "and wait longer.",
        )

    def _set_posterior(self, prediction: Prediction) -> None:
        self._prediction = prediction
        problem, hyper = prediction.problem, prediction.hyper
        ranks = iter(problem.basis.rank)
        self.rank_ = tuple(
            index.size if n == self.exact_mode_ else next(ranks) for n, index in enumerate(self._modes)
        )
        self.lengthscales_ = {
            index.name: _local_lengthscale(problem.prior(hyper, n), index)
            for n, index in enumerate(self._modes)
            if not index.discrete
        }
        self.constants_ = {
            index.name: problem.prior(hyper, n).constant for n, index in enumerate(self._modes)
        }
        labels = {n: np.arange(index.size) for n, index in enumerate(self._modes) if index.discrete}
        self.label_covariances_ = {
            self.mode_names_[n]: problem.prior(hyper, n).covariance(codes, codes)
            for n, codes in labels.items()
            if self.label_rank
        }
        response = self._response
        self.noise_ = float(np.exp(0.5 * hyper.noise)) * response.unit
        self.bounds_ = response.bounds
        self.log_evidence_ = prediction.log_evidence + self._jacobian


def _local_lengthscale(prior: ModePrior, index: ModeIndex) -> float:
    """Lengthscale in the unit of the column, where the axis is bent: at the median observed index."""
    slope = float(prior.slope(np.median(index.positions(index.values))))
    return prior.lengthscale / slope * index.span
