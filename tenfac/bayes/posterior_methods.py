"""What a fitted functional Tucker model answers: predictions, draws, and functions of single modes."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from tenfac.bayes.columns import ModeIndex, as_column, check_column, columns_of, is_table
from tenfac.bayes.counts import Counts
from tenfac.bayes.fitted import FittedFunction
from tenfac.bayes.likelihood_base import Likelihood
from tenfac.bayes.likelihoods import Gaussian
from tenfac.bayes.mode_functions import mode_functions
from tenfac.bayes.response import Response
from tenfac.bayes.settings import mode_number
from tenfac.bayes.unseen import Unseen
from tenfac.core.arrays import generator
from tenfac.core.errors import DataError, RankError

if TYPE_CHECKING:
    from tenfac.core.tucker import Tucker

Array = NDArray[np.float64]
_MOST_ROWS = 10_000  # of a covariance matrix


class PosteriorMethods:
    """The part of ``FunctionalTucker`` that reads the posterior; needs what ``fit`` sets."""

    mode_names_: list[str]
    _modes: list[ModeIndex]
    _prediction: FittedFunction
    _response: Response
    _likelihood: Likelihood
    _slice_mode: int | None
    _kernels: tuple[str | None, ...]
    _fitted_by: str

    def predict(
        self, X: Any, return_std: bool = False, include_noise: bool = False, return_cov: bool = False
    ) -> Array | tuple[Array, Array]:
        """Posterior mean, and standard deviation or covariance, at any indices.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            Continuous indices may lie anywhere; labels must have been seen.
        return_std : bool
            Also return the standard deviation of the function.
        include_noise : bool
            Make it the standard deviation of a new observation: function and noise (of its slice), or of a
            new count, or of one new trial. Where ``response`` bends, the mean is then that of a new
            observation too, which noise moves a little.
        return_cov : bool
            Also return the joint covariance of the rows, of the function or of new observations; at most
            10,000 rows, and no "logit" ``response`` or likelihood of a probability.

        Returns
        -------
        array, shape (N,), or with a second one, shape (N,) or (N, N)
            In the unit of y, and its square. Of counts, the mean is the rate or probability.

        Raises
        ------
        DataError
            For an unseen label, an index that is not finite, or a covariance that cannot be had; for noise of
            Student's distribution with ``response="log"``, which has no moments.

        Notes
        -----
        Memory beside the result is linear in N, with blocks of rows; a covariance is computed in one piece.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.predict([[1e6]]).round(3).tolist()  # far from the data: back to the mean
        [2.0]
        """
        check_is_fitted(self, "info_")
        if return_cov:
            self._check_cov(return_std)
        positions = self._read_positions(X)
        if return_cov:
            return self._predict_cov(positions, include_noise)
        needed = return_std or self._response.kind != "identity"  # the mean of a bent y depends on it
        if include_noise and needed:
            mean, std = self._unseen(positions)[2].moments()
        else:
            mean, variance, _ = self._prediction.at(positions, with_variance=needed)
            mean, std = self._response.moments(mean, variance)
        return (mean, std) if return_std else mean

    def sample_posterior(
        self,
        X: Any,
        n: int = 1,
        *,
        include_noise: bool = False,
        random_state: int | np.random.Generator | None = 0,
    ) -> Array:
        """Joint posterior draws of the function at any indices.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            As in ``predict``.
        n : int
            Number of draws.
        include_noise : bool
            Draw new observations: function and noise. With ``noise="slice"`` the rows of a slice share its
            scale; with ``likelihood="binomial"`` they are of one trial.
        random_state : int, numpy Generator or None

        Returns
        -------
        array, shape (n, N)
            In the unit of y.

        Raises
        ------
        DataError
            If ``n`` is no count, or as in ``predict``.

        Notes
        -----
        One walk over the exact mode draws the coefficient functions, without a covariance of rows. What no
        kept product of mode functions carries (nothing at observed indices, unless the rank is cut), and the
        residual within slices, are drawn jointly for 1,024 rows at a time, in the order of the exact mode.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.sample_posterior([[0.2], [0.3], [0.3]], 5).shape
        (5, 3)
        """
        check_is_fitted(self, "info_")
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
            raise DataError(
                f"FunctionalTucker.sample_posterior: `n` must be an integer from 0 up; got {n!r}."
            )
        positions, rng = self._read_positions(X), generator(random_state)
        if isinstance(self._likelihood, Gaussian) or not include_noise:
            return self._response.observed(self._prediction.sample(positions, int(n), rng, include_noise))
        draws = self._prediction.sample(positions, int(n), rng)
        mean, variance, unseen = self._unseen(positions)
        draws = mean + np.sqrt(unseen.variance / np.maximum(variance, 1e-300)) * (draws - mean)
        slices = np.unique(positions[self._slice_mode or 0], return_inverse=True)[1]
        return self._likelihood.sample_jointly(draws, unseen.codes, slices, rng)

    def predict_derivative(self, X: Any, mode: str | int, return_std: bool = False) -> Any:
        """Posterior mean, and standard deviation, of the derivative by a continuous index.

        Of the part of f that has one: the terms "residual" and "cells" have none and are left out. Where
        ``response`` bends, or y is counted, it is the derivative of the median of y (of the median rate or
        probability), by the chain rule, and not that of the mean that ``predict`` gives.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            As in ``predict``.
        mode : str or int
            Name or number of a continuous mode with kernel "matern32" or "matern52".
        return_std : bool
            Not where ``response`` bends.

        Returns
        -------
        array, shape (N,), or two of them
            In the unit of y per unit of the column.

        Raises
        ------
        DataError
            If the mode has no derivative (labels, "matern12"), or no standard deviation can be had.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> bool(1.5 < model.predict_derivative([[1.0]], 0)[0] < 2.5)
        True
        """
        check_is_fitted(self, "info_")
        where = "FunctionalTucker.predict_derivative"
        number = mode_number(mode, self.mode_names_, where)
        index, kernel = self._modes[number], self._kernels[number]
        if kernel is None or kernel == "matern12":
            what = "discrete" if kernel is None else "a 'matern12' process, nowhere differentiable"
            raise DataError(
                f"{where}: mode {index.name!r} must have a derivative; it is {what}. Fit with "
                f"kernel={{{index.name!r}: 'matern32'}}, or take another mode."
            )
        bent = self._response.kind != "identity"
        if bent and return_std:
            raise DataError(
                f"{where}: `return_std` needs a function on the scale of y; got one on the scale "
                f"{self._response.kind!r}. Leave it out, or take differences of `sample_posterior` at close "
                "indices, which holds for any response."
            )
        positions = self._read_positions(X)
        mean, variance = self._prediction.derivative(positions, number)
        latent = self._prediction.at(positions, with_variance=False)[0] if bent else np.zeros(mean.size)
        unit = self._response.slope(latent) / index.span
        return (unit * mean, unit * np.sqrt(variance)) if return_std else unit * mean

    def mode_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Marginal function of one mode: the average of f over the other modes' observed indices.

        Unlike the factors of a Tucker tensor it has no free sign, scale or rotation. A mode with more than
        64 indices is averaged over 64 quantiles of them, and where the other modes have few cells (stations),
        the average is over these. A ``response`` other than the identity is averaged on its own scale. The
        residual within slices is no part of it: it has nothing that slices share.

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
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> x, mean, std = model.mode_posterior(0)
        >>> x.shape, bool(std[0] < std[50])
        ((101,), True)
        """
        number, x, positions = self._read_mode(mode, x, "FunctionalTucker.mode_posterior")
        mean, variance = self._prediction.marginal(number, positions)
        return x, *self._response.moments(mean, variance)

    def mode_functions(
        self, mode: str | int, x: Any = None, rank: int = 3
    ) -> tuple[NDArray[Any], Array, Array, Array]:
        """Factor functions of one mode in the Tucker form of the posterior, with bands.

        The factor of the higher-order SVD of the posterior mean, less the average of y, on the grid of
        observed indices: orthonormal over the mode's observed indices, ordered by singular value, the
        largest value of each positive. At any index it is f seen through the other modes' singular vector,
        so that mean and standard deviation are exact. Of another mode with more than 64 indices 64 quantiles
        enter the grid, unless it is the exact one. On the scale of ``response``.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            As in ``mode_posterior``.
        rank : int
            Most functions; fewer come where the rest is zero.

        Returns
        -------
        x : array, shape (N,)
        mean, std : arrays, shape (N, rank)
            Without unit: multiplied by a singular value they have that of y, summed over the grid.
        singular_values : array, shape (rank,)
            Descending; in the unit of y if ``response`` is the identity.

        Raises
        ------
        DataError
            If there is no such mode, or ``x`` holds an unseen label.
        RankError
            If ``rank`` is not an integer from 1 up.

        Notes
        -----
        The signs are fixed, the functions are not where two singular values are equal. ``std`` is that of f
        through fixed singular vectors of its mean: it tells how well a function is known, not its order.

        References
        ----------
        .. [1] L. De Lathauwer, B. De Moor, J. Vandewalle, A Multilinear Singular Value Decomposition, SIAM J.
           Matrix Anal. Appl. 21 (2000), theorem 2. doi:10.1137/S0895479896305696

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> X = [[a, b] for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0)]
        >>> model = FunctionalTucker(max_iter=0).fit(X, [1.0, -1.0, 2.0, -2.0, 3.0, -3.0])
        >>> x, mean, std, sizes = model.mode_functions(0, [0.0, 1.0, 2.0], rank=1)
        >>> mean.shape, float(np.linalg.norm(mean[:, 0]).round(8))
        ((3, 1), 1.0)
        """
        where = "FunctionalTucker.mode_functions"
        number, x, positions = self._read_mode(mode, x, where)
        if isinstance(rank, bool) or not hasattr(rank, "__index__") or rank < 1:
            raise RankError(f"{where}: `rank` must be an integer from 1 up; got {rank!r}.")
        index = self._modes[number]
        found = mode_functions(self._prediction, number, index.positions(index.values), positions, int(rank))
        return x, found.mean, found.std, self._response.spread * found.singular_values

    def mean_tucker(self, *, tol: float = 1e-4, max_degree: int = 2048) -> Tucker:
        """Posterior mean as a ``Tucker``: to integrate, differentiate, add, round, save.

        Continuous modes become ``Chebyshev`` over the observed range, discrete ones ``Discrete``, in the
        order of ``indices_``. In the unit of y. The residual within slices is no sum of products of
        functions and is left out, as ``info.warnings`` then tells.

        Parameters
        ----------
        tol : float
            Largest error to allow, as a share of the largest value: 1e-12 to below 1.
        max_degree : int
            Largest degree in a mode, 16 or more; rounded down to a power of 2.

        Returns
        -------
        Tucker
            ``info.rel_error`` is the largest difference to the mean found at 2,000 points, not a bound.

        Raises
        ------
        DataError
            If ``response`` or the likelihood bends the mean, the model has joint functions of modes (where
            few cells of them have rows), another inference fitted it, or an argument is out of range.

        Warns
        -----
        ConvergenceWarning
            If the tolerance was not reached: the mean has a kink at every observed index under "matern12",
            which needs degrees in the thousands. With "matern32" a third, with "matern52" a fifth derivative
            jumps there.

        Notes
        -----
        A degree in the exact mode costs as much as an index of it in ``predict``.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> X = [[a, b] for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0)]
        >>> model = FunctionalTucker(max_iter=0).fit(X, [1.0, -1.0, 2.0, -2.0, 3.0, -3.0])
        >>> mean = model.mean_tucker()
        >>> bool(abs(mean.at(1.5, 0.2) - model.predict([[1.5, 0.2]])[0]) < 1e-3), mean.integrate([1]).ndim
        (True, 1)
        """
        from tenfac.bayes.mean_tucker import MeanProducts, mean_tucker

        check_is_fitted(self, "info_")
        where = "FunctionalTucker.mean_tucker"
        if isinstance(tol, bool) or not isinstance(tol, Real) or not 1e-12 <= tol < 1:
            raise DataError(f"{where}: `tol` must be a number from 1e-12 to below 1; got {tol!r}.")
        if isinstance(max_degree, bool) or not hasattr(max_degree, "__index__") or max_degree < 16:
            raise DataError(f"{where}: `max_degree` must be an integer of 16 or more; got {max_degree!r}.")
        return mean_tucker(MeanProducts(self._prediction, self._modes, self._response), tol, max_degree)

    # What follows reads the user's input.

    def _check_cov(self, return_std: bool) -> None:
        if return_std:
            raise DataError(
                "FunctionalTucker.predict: give return_std or return_cov, not both; the standard deviations "
                "are the square roots of the covariance's diagonal."
            )
        if self._response.kind == "logit":
            raise DataError(
                "FunctionalTucker.predict: return_cov needs y that is the function or its exponential; got "
                "response='logit' or a likelihood of a probability, whose covariance has no closed form. "
                "Take that of draws from `sample_posterior`."
            )

    def _predict_cov(self, positions: list[Array], include_noise: bool) -> tuple[Array, Array]:
        if positions[0].size > _MOST_ROWS:
            raise DataError(
                f"FunctionalTucker.predict: a covariance has at most {_MOST_ROWS} rows; got "
                f"{positions[0].size}. Call `sample_posterior`, which needs none, or give fewer rows."
            )
        mean, cov, noise = self._prediction.cov(positions)
        variance, response = np.diag(cov).copy(), self._response
        if not include_noise or isinstance(self._likelihood, Gaussian):
            cov += np.diag(noise) if include_noise else 0.0
            return response.moments(mean, np.diag(cov))[0], response.covariance(mean, cov)
        own = self._likelihood.at(self._slices(positions))
        average, std = own.observed_moments(mean, self._for_observation(variance, variance + noise))
        cov = response.covariance(mean, cov)
        cov[np.diag_indices_from(cov)] = std**2
        return average, cov

    def _unseen(self, positions: list[Array], trials: Array | None = None) -> tuple[Array, Array, Unseen]:
        """Mean and variance of f at rows, on its own scale, and new observations of them."""
        mean, variance, noisy = self._prediction.at(positions)
        slices = self._slices(positions)
        if isinstance(self._likelihood, Gaussian):  # with the noise of its slice
            return mean, variance, Unseen(replace(self._likelihood, variance=0.0), mean, noisy, slices)
        own = self._for_observation(variance, noisy)
        return mean, variance, Unseen(self._likelihood, mean, own, slices, trials)

    def factor_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Functions that one mode brings to the products, as ``inference="cep"`` learns them.

        Each has mean square one over the observed indices and is positive where it is largest in size; the
        one with the largest share in the variance of y comes first. ``core_`` multiplies them.

        Parameters
        ----------
        mode : str or int
            Name or number.
        x : array, shape (N,), optional
            Indices; by default 101 points over the observed range, or all labels.

        Returns
        -------
        x : array, shape (N,)
        mean, std : arrays, shape (N, R)
            R is the entry of ``rank_``. In a diagonal core, the functions of one column belong together.

        Raises
        ------
        DataError
            If there is no such mode, ``x`` holds an unseen label, or another inference fitted the model: its
            functions are free to rotate.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> rng = np.random.default_rng(0)
        >>> X = rng.random((80, 2))
        >>> y = np.sin(4 * X[:, 0]) * X[:, 1] + 0.01 * rng.normal(size=80)
        >>> model = FunctionalTucker(inference="cep", core="diagonal", rank=1, max_iter=300).fit(X, y)
        >>> x, mean, std = model.factor_posterior(0, [0.1, 0.2, 0.3])
        >>> mean.shape
        (3, 1)
        """
        check_is_fitted(self, "info_")
        where = "FunctionalTucker.factor_posterior"
        if not hasattr(self, "core_"):
            raise DataError(
                f"{where}: single functions are learned by inference='cep' only; "
                f"got {self._fitted_by!r}. Fit with 'cep', or take mode_posterior."
            )
        from tenfac.bayes.cep.canonical import Canonical

        number, x, positions = self._read_mode(mode, x, where)
        return x, *Canonical.of(self._prediction).functions(number, positions)

    def _read_mode(self, mode: str | int, x: Any, where: str) -> tuple[int, NDArray[Any], Array]:
        """Number of a mode, indices of it (default: range or labels), and their positions."""
        check_is_fitted(self, "info_")
        number = mode_number(mode, self.mode_names_, where)
        index = self._modes[number]
        if x is None:
            x = index.values if index.discrete else np.linspace(index.values[0], index.values[-1], 101)
        if np.size(x) == 0:
            raise DataError(f"{where}: `x` is empty; give at least one index.")
        x = check_column(index.name, np.atleast_1d(np.asarray(x)), index.discrete)
        return number, x, index.positions(x)

    def _read_positions(self, X: Any) -> list[Array]:
        """Scaled positions of a table to predict, per mode."""
        columns = self._read_columns(X)
        return [index.positions(column) for index, column in zip(self._modes, columns, strict=True)]

    def _slices(self, positions: list[Array]) -> NDArray[np.intp]:
        """Number of the slice of every row, -1 where it is new; for ``self._likelihood.at``."""
        if self._slice_mode is None:
            return np.full(positions[0].size, -1)
        index, own = self._modes[self._slice_mode], positions[self._slice_mode]
        grid = index.positions(index.values)
        codes = np.minimum(np.searchsorted(grid, own), grid.size - 1)
        return np.where(grid[codes] == own, codes, -1)

    def _for_observation(self, variance: Array, noisy: Array) -> Array:
        """Variance of f where noise is added to it: what the basis leaves out is partly in the noise."""
        if isinstance(self._likelihood, Counts):
            return variance
        return np.maximum(noisy - np.exp(self._prediction.hyper.noise), 0.0)

    def _read_columns(self, X: Any) -> list[NDArray[Any]]:
        """Columns of a table to predict, checked, in the order of the fit."""
        if is_table(X):
            columns = columns_of(X, self.mode_names_)
        else:
            numeric = all(index.values.dtype.kind == "f" for index in self._modes)
            X = validate_data(self, X, dtype=float if numeric else None, reset=False, ensure_all_finite=False)
            columns = [as_column(column) for column in X.T]
        return [
            check_column(index.name, column, index.discrete)
            for index, column in zip(self._modes, columns, strict=True)
        ]
