"""What a fitted functional Tucker model answers: predictions, and functions of single modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from tenfac.bayes.columns import ModeIndex, as_column, check_column, columns_of, is_table
from tenfac.bayes.fitted import FittedFunction
from tenfac.bayes.response import Response
from tenfac.bayes.settings import mode_number
from tenfac.core.errors import DataError

Array = NDArray[np.float64]


class PosteriorMethods:
    """The part of ``FunctionalTucker`` that reads the posterior; needs what ``fit`` sets."""

    mode_names_: list[str]
    _modes: list[ModeIndex]
    _prediction: FittedFunction
    _response: Response
    _fitted_by: str

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
            Make it the standard deviation of a new observation: function and noise. Where ``response`` bends,
            the mean is then that of a new observation too, which noise moves a little.

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
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.predict([[1e6]]).round(3).tolist()  # far from the data: back to the mean
        [2.0]
        """
        check_is_fitted(self, "info_")
        columns = self._read_columns(X)
        positions = [index.positions(column) for index, column in zip(self._modes, columns, strict=True)]
        bent = self._response.kind != "identity"  # the mean of y depends on the variance of what is bent
        mean, variance, noisy = self._prediction.at(positions, with_variance=return_std or bent)
        mean, std = self._response.moments(mean, noisy if include_noise else variance)
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
        x, positions = self._along(number, x, "mode_posterior")
        mean, variance = self._prediction.marginal(number, positions)
        return x, *self._response.moments(mean, variance)

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
        number = mode_number(mode, self.mode_names_, "FunctionalTucker.factor_posterior")
        if not hasattr(self, "core_"):
            raise DataError(
                "FunctionalTucker.factor_posterior: single functions are learned by inference='cep' only; "
                f"got {self._fitted_by!r}. Fit with 'cep', or take mode_posterior."
            )
        from tenfac.bayes.cep.canonical import Canonical

        x, positions = self._along(number, x, "factor_posterior")
        return x, *Canonical.of(self._prediction).functions(number, positions)

    def _along(self, number: int, x: Any, where: str) -> tuple[NDArray[Any], Array]:
        """Indices of one mode, those given or some over the observed range, and their positions."""
        index = self._modes[number]
        if x is None:
            x = index.values if index.discrete else np.linspace(index.values[0], index.values[-1], 101)
        if np.size(x) == 0:
            raise DataError(f"FunctionalTucker.{where}: `x` is empty; give at least one index.")
        x = check_column(index.name, np.atleast_1d(np.asarray(x)), index.discrete)
        return x, index.positions(x)

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
