"""The estimator: functional Bayesian Tucker regression on continuous and discrete indices."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from tenfac.bayes.collapsed.fit import CollapsedMethods
from tenfac.bayes.collapsed.journal import Journal
from tenfac.bayes.columns import (
    ModeIndex,
    check_column,
    column_names,
    columns_of,
    is_numeric_frame,
    is_table,
    looks_discrete,
    numbers_of,
    text_columns,
    weights_of,
)
from tenfac.bayes.inference import fitter_of, restored, state_of
from tenfac.bayes.mode_methods import ModeMethods
from tenfac.bayes.scoring_methods import ScoringMethods
from tenfac.bayes.settings import (
    cep_ranks,
    check_settings,
    check_swings,
    check_trials,
    check_values,
    discrete_of,
    kernels_of,
    mode_number,
    ranks_of,
    slice_mode_of,
)
from tenfac.bayes.streaming import StreamingMethods
from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.core.interchange import refuse_decomposed
from tenfac.core.shown import shows_what_it_learned
from tenfac.core.tracing import constant

Array = NDArray[Any]


def _learned(model: Any) -> str:
    modes = ", ".join(
        f"{name} ({values.size})" if kind == "discrete" else f"{name}"
        for name, kind, values in zip(model.mode_names_, model.kinds_, model.indices_, strict=True)
    )
    noise = f", noise {model.noise_:.3g}" if np.isfinite(model.noise_) else ""
    return f"modes {modes}{noise}"


@door
@shows_what_it_learned(_learned)
class FunctionalTucker(
    StreamingMethods, CollapsedMethods, ScoringMethods, ModeMethods, RegressorMixin, BaseEstimator
):
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
    discrete : str, int or sequence of these, optional
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
    kernel : str, GPyTorch kernel or dict, default "auto"
        Matérn kernel of the continuous modes, ``"matern12"``, ``"matern32"`` or ``"matern52"``; with
        "collapsed" also ``"oscillator"``, a damped oscillation of learned period and quality; or a dict from
        column name or number to kernel. "auto" is "matern32", and for the longest mode of many scattered
        rows what the evidence prefers of it and "matern12". A ``gpytorch.kernels.MaternKernel`` gives its
        order and, if it was set, the lengthscale to start from, in the unit of the column; how far a mode
        varies is learned.
    max_iter : int, optional
        Most L-BFGS iterations for the hyperparameters (400), and again for those of ``label_rank``, and for
        each floor and ceiling tried; 0 keeps the starting values. "cep": sweeps over all modes (300). "svi":
        steps (3000). "nuts": draws of each of two chains, after as many steps of adaptation (500).
    tol : float, optional
        Stop when an iteration gains less than this, relative to the log evidence per observation (1e-7), or
        with "cep" when several sweeps do (1e-3). Where not all functions are kept, iterations stop at 2e-5,
        and the search when new functions gain less than 1e-4, or half a nat in all.
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
    likelihood : {"gaussian", "student_t", "poisson", "bernoulli", "binomial"}, default "gaussian"
        How y comes about. "student_t" adds noise with heavy tails, whose degrees of freedom are learned, so
        that outliers do not move the mean. "poisson": y are counts, the function is the logarithm of their
        rate. "bernoulli" (y is 0 or 1) and "binomial" (y is the share of successes in ``sample_weight``
        trials): the function is the logit of their probability. What is observed is then replaced by Gaussian
        sites that maximise a lower bound of the evidence [5]_ [6]_.
    noise : {"auto", "constant", "slice"} or ("slice", mode), default "auto"
        "auto" lets the slices of a model with a residual have scales of their own, of noise and residual
        together, if they differ [7]_, and is constant else; where few cells of the other modes recur in many
        slices, these also tell how the residuals of cells go together, around the kernel [9]_, if rows left
        out become more likely by it. With "slice" every index of the exact mode, or of
        the named mode, has a noise variance of its own, so that a few bad slices do not spoil the others. How
        much they differ is learned, and a new slice gets noise with the heavy tails of all (Student's
        distribution). Leave out a ``sample_weight`` that counts copies of one measurement: copies agree
        exactly, and their slices would be taken for free of noise.
    terms : "auto" or sequence of {"mains", "residual", "cells"}, default "auto"
        What stands beside the product over modes, where the longest mode is continuous. "mains": main effects
        with scales of their own. "residual": in every slice of the longest mode a Gaussian process over the
        other modes, drawn anew; what is particular to a day is then not forced into functions that all days
        share. "cells": an effect of every cell of the other modes, if these are few (stations). "auto" adds
        residual and cells if the evidence says so; () adds nothing.

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
    kernels_ : dict
        Per continuous mode.
    terms_ : tuple of str
        Terms beside the product.
    lengthscales_ : dict
        Per continuous mode, in the unit of its column, at its median index (the axis may be bent, so
        that the function varies faster in one part than in another). With "cep", of the mode's function with
        the largest share. Of an oscillator the period.
    qualities_ : dict
        With "collapsed", per mode of kernel "oscillator": in ``quality / pi`` periods it decays to ``1 / e``.
    constants_ : dict
        Per mode, the variance of the part shared by all its indices, relative to what varies; not for "cep".
    core_ : array
        With "cep", what multiplies the functions of ``factor_posterior``: shape (R,) if ``core`` is diagonal,
        else (1 + R_0, 1 + R_1, ...), where place 0 of a mode is the function that is 1.
    noise_ : float
        Standard deviation of the noise, in the unit of y (in the middle of its range, if ``response`` bends).
        The scale of Student's distribution, where the noise has one; NaN where y is counted.
    bounds_ : tuple of two floats
        Floor and ceiling of y; infinite where ``response`` has none. Of the mean of y, where y is counted.
    dof_ : float
        Learned degrees of freedom of ``likelihood="student_t"``; infinite for others.
    slice_scales_ : dict
        With ``noise="slice"``: name of the mode, and per index the variance of its noise relative to
        ``noise_`` squared, shape (M,), in the order of ``indices_``. Otherwise empty.
    slice_dof_ : float
        With ``noise="slice"``: degrees of freedom of the noise of a new slice; otherwise infinite.
    label_covariances_ : dict
        If ``label_rank`` is not 0: per discrete mode, prior covariance of its labels, shape (M, M), in the
        order of ``indices_``.
    log_evidence_ : float or None
        Log marginal likelihood of y at the learned hyperparameters; a lower bound of it with "cep", and where
        ``likelihood`` is not "gaussian" or ``noise`` is "slice"; of that with hyperparameters integrated out
        with "svi"; None with "nuts". Where ``noise="auto"`` found scales of slices, or a covariance of
        cells, it is that given these: not comparable with a fit without them.
    posterior_ : xarray DataTree
        Draws of the function at the observed rows, for ArviZ; made when first asked for.
    n_iter_ : int
        Iterations done, at least 1.
    info_ : Report
        Convergence, iterations, seconds, warnings.

    Notes
    -----
    A likelihood other than "gaussian", or noise by slice, takes rounds of a few iterations each, in all up
    to about three times as long.

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
    stays in the standard deviation of the function; ``info_.warnings`` states the share. It also tells, with
    "collapsed" and Gaussian noise, when rows lie farther from the function than such noise puts them, and
    when neighbouring rows deviate alike though the fit takes most of y for noise. Before it says the latter,
    a second search starts from short lengthscales, and the higher evidence wins.

    References
    ----------
    .. [1] S. Fang, X. Yu, Z. Wang, S. Li, M. Kirby, S. Zhe, Functional Bayesian Tucker Decomposition for
       Continuous-indexed Tensor Data, ICLR 2024, arXiv:2311.04829, equations 4-8.
    .. [2] J. Hartikainen and S. Särkkä, Kalman filtering and smoothing solutions to temporal Gaussian
       process regression models, MLSP 2010. doi:10.1109/MLSP.2010.5589113
    .. [3] E. V. Bonilla, K. M. A. Chai, C. K. I. Williams, Multi-task Gaussian Process Prediction, NIPS 2007,
       equation 1.
    .. [4] E. Snelson, C. E. Rasmussen, Z. Ghahramani, Warped Gaussian Processes, NIPS 2003, equation 5.
    .. [5] M. E. Khan and W. Lin, Conjugate-computation variational inference, AISTATS 2017, arXiv:1703.04265.
    .. [6] M. E. Tipping and N. D. Lawrence, Variational inference for Student-t models, Neurocomputing 69
       (2005). doi:10.1016/j.neucom.2005.02.016
    .. [7] K. L. Lange, R. J. A. Little, J. M. G. Taylor, Robust Statistical Modeling Using the t
       Distribution, JASA 84 (1989), section 4. doi:10.1080/01621459.1989.10478852
    .. [8] Fang et al. [1]_, section 4.
    .. [9] P. J. Brown, N. D. Le, J. V. Zidek, Multivariate spatial interpolation and exposure to air
       pollutants, Canadian Journal of Statistics 22 (1994), section 3.

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
        discrete: str | int | Sequence[str | int] | None = None,
        inference: str = "collapsed",
        rank: str | int | Sequence[int] = "auto",
        core: str = "full",
        kernel: Any = "auto",
        max_iter: int | None = None,
        tol: float | None = None,
        label_rank: int = 0,
        response: str = "identity",
        max_functions: int | None = None,
        random_state: int | np.random.Generator | None = 0,
        verbose: int = 0,
        likelihood: str = "gaussian",
        noise: str | tuple[str, str | int] = "auto",
        terms: str | Sequence[str] = "auto",
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
        self.likelihood = likelihood
        self.noise = noise
        self.terms = terms

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FunctionalTucker:
        """Learn the hyperparameters and the posterior.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, list of rows, or dict of columns
            One row per observation, one column per mode. In an array or list of rows, a column of text is
            one of labels unless all of it reads as numbers.
        y : array, shape (N,)
            Observed values, finite.
        sample_weight : array, shape (N,), optional
            Numbers of repeats: weight 2 is the same as the row given twice, 0 leaves it out. With
            ``likelihood="binomial"`` numbers of trials.
        checkpoint : str or path-like, optional
            File that keeps every evaluation of the evidence. The same call after a kill goes on where it was,
            to the same result, bit by bit; after the end it repeats it in a moment. The file is text of some
            hundred bytes per evaluation and stays: delete it when the model is saved. ``max_iter``, ``tol``
            and ``verbose`` may differ from those the file was begun with, nothing else.

        Returns
        -------
        FunctionalTucker
            The fitted estimator itself.

        Raises
        ------
        ValueError
            Before anything is computed: indices or values that are not finite, an unknown name in
            ``discrete`` or ``kernel``, a setting that the inference does not know, a ``checkpoint`` of other
            data or settings (DataError), columns of different lengths (ShapeError), a rank above the number
            of indices (RankError).
        MissingExtraError
            For "svi" and "nuts", if torch or Pyro is not installed.

        Examples
        --------
        >>> FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0]).kinds_
        ('continuous',)
        """
        started = time.perf_counter()
        check_settings(self)
        columns, names, y = self._read(X, y)
        slice_mode_of(self.noise, self.likelihood, names)
        check_values(self.likelihood, y)
        weights = weights_of(sample_weight, y, "FunctionalTucker.fit")
        check_trials(self.likelihood, y, weights)
        keep = weights > 0
        if not keep.any():
            raise DataError("FunctionalTucker.fit: every sample_weight is zero; at least one row must count.")
        columns = self._learn_modes([column[keep] for column in columns], names)
        y, weights = y[keep], weights[keep]
        journal = None if checkpoint is None else self._journal(checkpoint, columns, y, weights)
        fitter_of(self)(columns, y, weights, started, journal)
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
        for value, name in ((X, "X"), (y, "y")):
            refuse_decomposed(value, "FunctionalTucker.fit", name)
        X, y = constant(X), numbers_of(y, "FunctionalTucker.fit")
        text = text_columns(X)
        if text is not None:
            X = {str(n): column for n, column in enumerate(text)}
        if is_table(X) and not is_numeric_frame(X):
            names = column_names(X)
            columns = columns_of(X, names)
            if text is None:
                self.feature_names_in_ = np.asarray(names, dtype=object)
            elif hasattr(self, "feature_names_in_"):  # of an earlier fit
                del self.feature_names_in_
            self.n_features_in_ = len(names)
            y = np.asarray(y, dtype=float)
            y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y  # as for numbers alone
            if y.shape != columns[0].shape:
                raise DataError(
                    f"FunctionalTucker.fit: y must have one value per row; got shape {y.shape} for "
                    f"{columns[0].size} rows."
                )
            _check_finite(y)
        else:
            if (
                y is not None and y.dtype.kind == "f" and np.isnan(y).any()
            ):  # infinite ones: scikit-learn's words
                _check_finite(y)
            X, y = validate_data(self, X, y, dtype=float, y_numeric=True, ensure_all_finite=False)
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
        check_swings(self)
        if self.inference == "cep":
            self._rank = cep_ranks(self.rank, self.core, modes)
        else:
            self._rank = ranks_of(self.rank, modes)
        self.mode_names_ = [index.name for index in modes]
        self.kinds_ = tuple("discrete" if index.discrete else "continuous" for index in self._modes)
        self.indices_ = [index.values for index in self._modes]

    def _journal(
        self, path: str | os.PathLike[str], columns: list[NDArray[Any]], y: Array, weights: Array
    ) -> Journal:
        named = {f"mode {name!r}": column for name, column in zip(self.mode_names_, columns, strict=True)}
        return Journal.open(path, {**named, "y": y, "sample_weight": weights}, self.get_params())


def _check_finite(y: Array) -> None:
    bad = int((~np.isfinite(y)).sum())
    if bad:
        raise DataError(
            f"FunctionalTucker.fit: y contains {bad} NaN or infinite values; leave missing cells out of the "
            "table."
        )
