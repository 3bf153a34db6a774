"""The estimator: functional Bayesian Tucker regression on continuous and discrete indices."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
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
    is_table,
    looks_discrete,
)
from tenfac.bayes.evidence import Hyper, Problem
from tenfac.bayes.prediction import Prediction
from tenfac.bayes.search import Task, learn
from tenfac.core.errors import ConvergenceWarning, DataError, RankError
from tenfac.core.modes.state_space import check_kernel

Array = NDArray[np.float64]


class FunctionalTucker(RegressorMixin, BaseEstimator):
    """Posterior of a function of several indices, continuous or discrete, from scattered observations.

    The function is a Tucker tensor with functional modes,
    ``f(x_1, ..., x_D) = sum_r G[r_1, ..., r_D] prod_n phi_{n, r_n}(x_n)``: the factors are the
    Karhunen-Loève functions of one Gaussian-process prior per mode (Matérn for a continuous mode,
    exchangeable levels for a discrete one, plus a constant), and the core has independent Gaussian
    entries [1]_. The longest mode needs no basis: it is integrated out exactly, by a Kalman smoother over
    its Matérn state-space form when continuous [2]_, level by level when discrete. Everything given the
    hyperparameters is Gaussian, so means, variances and the evidence are exact; lengthscales, the sizes
    of main effects and interactions, and the noise are learned by maximising the evidence.

    Missing cells need no treatment: give only the rows that were observed.

    Parameters
    ----------
    discrete : sequence of str or int, optional
        Modes whose indices are labels, by column name or number. Columns that hold no numbers are
        discrete anyway.
    rank : int, sequence of int, optional
        Most functions per mode, one number or one per mode. The exact mode ignores its entry. None lets
        the learned prior decide.
    kernel : str or dict, default "matern32"
        Matérn kernel of the continuous modes, ``"matern12"``, ``"matern32"`` or ``"matern52"``; or a dict
        from column name or number to kernel.
    max_iter : int, default 60
        Most L-BFGS iterations for the hyperparameters. 0 keeps their starting values.
    tol : float, default 1e-7
        Stop when an iteration gains less than this, relative to the log evidence per observation.
    max_functions : int, default 256
        Most products of mode functions kept: memory grows with its square, time with its cube.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 logs a line per stage to the logger ``tenfac``.

    Attributes
    ----------
    mode_names_ : list of str
    kinds_ : tuple of {"continuous", "discrete"}
    indices_ : list of arrays
        Distinct observed indices or labels per mode, ascending.
    exact_mode_ : int
        The mode integrated out exactly.
    rank_ : tuple of int
        Functions used per mode; for the exact mode, its number of observed indices.
    lengthscales_ : dict
        Per continuous mode, in the unit of its column.
    constants_ : dict
        Per mode, the variance of the part shared by all its indices, relative to what varies.
    noise_ : float
        Standard deviation of the noise, in the unit of y.
    log_evidence_ : float
        Log marginal likelihood of y.
    info_ : Report
        Convergence, iterations, seconds, warnings.

    Notes
    -----
    Cost per evaluation of the evidence: ``O(M P^3)`` with M indices in the exact mode and P products of
    mode functions, after one pass of ``O(N P^2)`` over the observations.

    When the products that fit do not carry the whole prior variance, what is left out is counted as
    noise where there are data and as uncertainty where there are none; ``info_.warnings`` states the share.

    References
    ----------
    .. [1] S. Fang, X. Yu, Z. Wang, S. Li, M. Kirby, S. Zhe, Functional Bayesian Tucker Decomposition for
       Continuous-indexed Tensor Data, ICLR 2024, arXiv:2311.04829, equations 4-8.
    .. [2] J. Hartikainen and S. Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian
       process regression models, MLSP 2010. doi:10.1109/MLSP.2010.5589113

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.random((200, 2))
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
        rank: int | Sequence[int] | None = None,
        kernel: str | Mapping[str | int, str] = "matern32",
        max_iter: int = 60,
        tol: float = 1e-7,
        max_functions: int = 256,
        verbose: int = 0,
    ) -> None:
        self.discrete = discrete
        self.rank = rank
        self.kernel = kernel
        self.max_iter = max_iter
        self.tol = tol
        self.max_functions = max_functions
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
        DataError, ShapeError, RankError
            Before anything is computed: indices or values that are not finite, an unknown name in
            ``discrete`` or ``kernel``, a rank above the number of indices.

        Examples
        --------
        >>> FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0]).kinds_
        ('continuous',)
        """
        started = time.perf_counter()
        columns, names, y = self._read(X, y)
        weights = _check_sample_weight(sample_weight, y, dtype=float, ensure_non_negative=True)
        keep = weights > 0
        if not keep.any():
            raise DataError("FunctionalTucker.fit: every sample_weight is zero; at least one row must count.")
        self._learn_modes([column[keep] for column in columns], names)
        y, weights = y[keep], weights[keep]
        self._offset = float(np.average(y, weights=weights))
        spread = float(np.sqrt(np.average((y - self._offset) ** 2, weights=weights)))
        self._spread = spread if spread > 0 else 1.0
        self._search([c[keep] for c in columns], (y - self._offset) / self._spread, weights, started)
        return self

    def predict(
        self, X: Any, return_std: bool = False, include_noise: bool = False
    ) -> Array | tuple[Array, Array]:
        """Posterior mean, and standard deviation, at any indices.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            Continuous indices may lie anywhere; labels must have been seen.
        return_std : bool
            Also return the standard deviation of the function.
        include_noise : bool
            Make it the standard deviation of a new observation: function and noise.

        Returns
        -------
        array, shape (N,), or two of them
            In the unit of y.

        Raises
        ------
        DataError
            For an unseen label, or an index that is not finite.

        Examples
        --------
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.predict([[1e6]]).round(3).tolist()  # far from the data: back to the mean
        [2.0]
        """
        check_is_fitted(self)
        columns = self._read_columns(X)
        positions = [index.positions(column) for index, column in zip(self._modes, columns, strict=True)]
        mean, variance = self._prediction.at(positions, with_variance=return_std)
        mean = self._offset + self._spread * mean
        if not return_std:
            return mean
        noise = np.exp(self._hyper.noise) if include_noise else 0.0
        return mean, self._spread * np.sqrt(variance + noise)

    def mode_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Marginal function of one mode: the average of f over the other modes' observed indices.

        Unlike the factors of a Tucker tensor it has no free sign, scale or rotation.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            Indices; by default 101 points over the observed range, or all labels.

        Returns
        -------
        x, mean, std : arrays, shape (N,)
            ``mean`` and ``std`` (of the function, without noise) in the unit of y.

        Raises
        ------
        DataError
            If there is no such mode, or ``x`` holds an unseen label.

        Examples
        --------
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> x, mean, std = model.mode_posterior(0)
        >>> x.shape, bool(std[0] < std[50])
        ((101,), True)
        """
        check_is_fitted(self)
        number = _mode_number(mode, self.mode_names_, "FunctionalTucker.mode_posterior")
        index = self._modes[number]
        if x is None:
            x = index.values if index.discrete else np.linspace(index.values[0], index.values[-1], 101)
        x = check_column(index.name, np.atleast_1d(np.asarray(x)), index.discrete)
        mean, variance = self._prediction.marginal(number, index.positions(x))
        return x, self._offset + self._spread * mean, self._spread * np.sqrt(variance)

    # What follows turns input into positions, searches the hyperparameters, and stores the result.

    def _read(self, X: Any, y: Any) -> tuple[list[NDArray[Any]], list[str], Array]:
        """Columns, their names, and y; sets what scikit-learn expects of a fitted input."""
        if is_table(X) and not _is_numeric_frame(X):
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
                    f"FunctionalTucker.fit: y contains {int((~np.isfinite(y)).sum())} NaN or infinite values; "
                    "leave missing cells out of the table."
                )
        else:
            X, y = validate_data(self, X, y, dtype=float, y_numeric=True)
            names = [str(n) for n in getattr(self, "feature_names_in_", range(X.shape[1]))]
            columns = list(X.T)
        if not columns or columns[0].size == 0:
            raise DataError("FunctionalTucker.fit: the table is empty; give at least one row and one mode.")
        return columns, names, y.astype(float)

    def _read_columns(self, X: Any) -> list[NDArray[Any]]:
        """Columns of a table to predict, checked, in the order of the fit."""
        if is_table(X):
            columns = columns_of(X, self.mode_names_)
        else:
            columns = list(validate_data(self, X, dtype=None, reset=False, ensure_all_finite=False).T)
        return [
            check_column(index.name, column, index.discrete)
            for index, column in zip(self._modes, columns, strict=True)
        ]

    def _learn_modes(self, columns: list[NDArray[Any]], names: list[str]) -> None:
        where = "FunctionalTucker"
        discrete = {_mode_number(mode, names, where) for mode in self.discrete or ()}
        discrete |= {n for n, column in enumerate(columns) if looks_discrete(column)}
        self._modes = [
            ModeIndex.learn(name, check_column(name, column, n in discrete), n in discrete)
            for n, (name, column) in enumerate(zip(names, columns, strict=True))
        ]
        self._kernels = _kernels(self.kernel, self._modes)
        self._rank = _ranks(self.rank, self._modes)
        self.mode_names_ = names
        self.kinds_ = tuple("discrete" if index.discrete else "continuous" for index in self._modes)
        self.indices_ = [index.values for index in self._modes]
        self.exact_mode_ = int(np.argmax([index.size for index in self._modes]))

    def _search(self, columns: list[NDArray[Any]], y: Array, weights: Array, started: float) -> None:
        """Learn the hyperparameters and keep what prediction needs."""
        task = Task(
            kernels=self._kernels,
            exact=self.exact_mode_,
            grids=tuple(index.positions(index.values) for index in self._modes),
            positions=tuple(
                index.positions(column) for index, column in zip(self._modes, columns, strict=True)
            ),
            y=y,
            weights=weights,
            rank=self._rank,
            most=int(self.max_functions),
        )
        learned = learn(task, int(self.max_iter), float(self.tol), int(self.verbose))
        self._set_learned(learned.problem, learned.hyper)
        self.info_ = learned.report(self.max_iter, self._prediction.missing_share, started)
        if not self.info_.converged:
            warnings.warn(
                f"FunctionalTucker: the evidence was still rising when max_iter={self.max_iter} was reached; "
                "the best hyperparameters so far are kept. Raise max_iter.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _set_learned(self, problem: Problem, hyper: Hyper) -> None:
        self._problem, self._hyper = problem, hyper
        self._prediction = Prediction.build(problem, hyper)
        ranks = iter(problem.basis.rank)
        self.rank_ = tuple(
            index.size if n == self.exact_mode_ else next(ranks) for n, index in enumerate(self._modes)
        )
        self.lengthscales_ = {
            index.name: float(np.exp(hyper.lengthscales[n])) * index.span
            for n, index in enumerate(self._modes)
            if not index.discrete
        }
        self.constants_ = {
            index.name: float(np.exp(hyper.constants[n])) for n, index in enumerate(self._modes)
        }
        self.noise_ = float(np.exp(0.5 * hyper.noise)) * self._spread
        self.log_evidence_ = problem.log_evidence(hyper) - problem.slices.n_obs * float(np.log(self._spread))


def _mode_number(mode: str | int, names: list[str], where: str) -> int:
    """Number of a mode given by name or number."""
    if isinstance(mode, int | np.integer) and not isinstance(mode, bool) and -len(names) <= mode < len(names):
        return int(mode) % len(names)
    if isinstance(mode, str) and mode in names:
        return names.index(mode)
    near = get_close_matches(str(mode), names, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise DataError(
        f"{where}: there is no mode {mode!r}; the modes are {', '.join(names)} (0 to {len(names) - 1}).{hint}"
    )


def _kernels(kernel: str | Mapping[str | int, str], modes: list[ModeIndex]) -> tuple[str | None, ...]:
    """Kernel name per mode, None where discrete."""
    names = [index.name for index in modes]
    given = dict.fromkeys(range(len(modes)), "matern32")
    if isinstance(kernel, Mapping):
        for mode, name in kernel.items():
            given[_mode_number(mode, names, "FunctionalTucker, `kernel`")] = name
    else:
        given = dict.fromkeys(given, kernel)
    for name in given.values():
        check_kernel(name, "FunctionalTucker")
    return tuple(None if index.discrete else given[n] for n, index in enumerate(modes))


def _ranks(rank: int | Sequence[int] | None, modes: list[ModeIndex]) -> tuple[int | None, ...]:
    """Most functions per mode, checked against the number of indices."""
    if rank is None:
        return (None,) * len(modes)
    several = isinstance(rank, Sequence | np.ndarray)
    ranks = list(rank) if several else [min(rank, index.size) for index in modes]
    if len(ranks) != len(modes):
        raise RankError(
            f"FunctionalTucker: `rank` must be one integer or one per mode ({len(modes)}); got {len(ranks)}."
        )
    for index, value in zip(modes, ranks, strict=True):
        if isinstance(value, bool) or value != int(value) or not 1 <= value <= index.size:
            raise RankError(
                f"FunctionalTucker: the rank of mode {index.name!r} must be an integer from 1 to {index.size}, "
                f"its number of distinct indices; got {value!r}."
            )
    return tuple(int(value) for value in ranks)


def _is_numeric_frame(X: Any) -> bool:
    """Whether X is a DataFrame of numbers, which scikit-learn's validation understands."""
    return hasattr(X, "dtypes") and all(getattr(dtype, "kind", "O") in "biuf" for dtype in X.dtypes)
