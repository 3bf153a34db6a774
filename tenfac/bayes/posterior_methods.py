"""What a fitted functional Tucker model answers: predictions, and functions of single modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from tenfac.bayes.columns import ModeIndex, as_column, check_column, columns_of, is_table
from tenfac.bayes.likelihoods import Counts, Likelihood
from tenfac.bayes.prediction import Prediction
from tenfac.bayes.response import Response
from tenfac.bayes.settings import mode_number
from tenfac.core.errors import DataError

Array = NDArray[np.float64]


class PosteriorMethods:
    """The part of ``FunctionalTucker`` that reads the posterior; needs what ``fit`` sets."""

    mode_names_: list[str]
    _modes: list[ModeIndex]
    _prediction: Prediction
    _response: Response
    _likelihood: Likelihood
    _slice_mode: int | None

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
            Make it the standard deviation of a new observation: function and noise (of its slice), or of a
            new count, or of one new trial. Where ``response`` bends, the mean is then that of a new
            observation too, which noise moves a little.

        Returns
        -------
        array, shape (N,), or two of them
            In the unit of y. Of counts, the mean is the rate or probability.

        Raises
        ------
        DataError
            For an unseen label, or an index that is not finite; for noise of Student's distribution with
            ``response="log"``, which has no moments.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.predict([[1e6]]).round(3).tolist()  # far from the data: back to the mean
        [2.0]
        """
        check_is_fitted(self, "info_")
        positions = self._read_positions(X)
        bent = self._response.kind != "identity"  # the mean of y depends on the variance of what is bent
        mean, variance, noisy = self._prediction.at(positions, with_variance=return_std or bent)
        if include_noise and (return_std or bent):
            likelihood = self._likelihood.at(self._slices(positions))
            mean, std = likelihood.observed_moments(mean, self._for_observation(variance, noisy))
        else:
            mean, std = self._response.moments(mean, variance)
        return (mean, std) if return_std else mean

    def mode_posterior(self, mode: str | int, x: Any = None) -> tuple[NDArray[Any], Array, Array]:
        """Marginal function of one mode: the average of f over the other modes' observed indices.

        Unlike the factors of a Tucker tensor it has no free sign, scale or rotation. A mode with more than
        64 indices is averaged over 64 quantiles of them. A ``response`` other than the identity is averaged
        on its own scale.

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
        check_is_fitted(self, "info_")
        number = mode_number(mode, self.mode_names_, "FunctionalTucker.mode_posterior")
        index = self._modes[number]
        if x is None:
            x = index.values if index.discrete else np.linspace(index.values[0], index.values[-1], 101)
        if np.size(x) == 0:
            raise DataError("FunctionalTucker.mode_posterior: `x` is empty; give at least one index.")
        x = check_column(index.name, np.atleast_1d(np.asarray(x)), index.discrete)
        mean, variance = self._prediction.marginal(number, index.positions(x))
        return x, *self._response.moments(mean, variance)

    def _read_positions(self, X: Any) -> list[Array]:
        """Scaled positions of a table to predict, one array (N,) per mode."""
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
