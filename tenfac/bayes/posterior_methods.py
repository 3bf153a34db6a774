"""What a fitted functional Tucker model answers at given indices: predictions, draws, derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.likelihoods.added import Gaussian
from tenfac.bayes.likelihoods.counts import Counts
from tenfac.bayes.reading import FittedModel
from tenfac.bayes.settings import mode_number
from tenfac.bayes.unseen import Unseen
from tenfac.core.arrays import generator
from tenfac.core.errors import DataError

if TYPE_CHECKING:
    pass


Array = NDArray[Any]
_MOST_ROWS = 10_000  # of a covariance matrix


class PosteriorMethods(FittedModel):
    """The part of ``FunctionalTucker`` that predicts."""

    @overload
    def predict(
        self,
        X: Any,
        return_std: Literal[False] = False,
        include_noise: bool = False,
        return_cov: Literal[False] = False,
    ) -> Array: ...

    @overload
    def predict(
        self, X: Any, return_std: Literal[True], include_noise: bool = False, return_cov: bool = False
    ) -> tuple[Array, Array]: ...

    @overload
    def predict(
        self, X: Any, return_std: bool = False, include_noise: bool = False, *, return_cov: Literal[True]
    ) -> tuple[Array, Array]: ...

    @overload
    def predict(
        self, X: Any, return_std: bool = False, include_noise: bool = False, return_cov: bool = False
    ) -> Array | tuple[Array, Array]: ...

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

    def sample(
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
            Number of draws, from 0 up.
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
            If ``n`` is no count, after ``inference="cep"``, which has no joint draws, or as in ``predict``.

        Notes
        -----
        One walk over the exact mode draws the coefficient functions, without a covariance of rows. What no
        kept product of mode functions carries (nothing at observed indices, unless the rank is cut), and the
        residual within slices, are drawn jointly for 1,024 rows at a time, in the order of the exact mode.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.sample([[0.2], [0.3], [0.3]], 5).shape
        (5, 3)
        """
        check_is_fitted(self, "info_")
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 0:
            raise DataError(f"FunctionalTucker.sample: `n` must be an integer from 0 up; got {n!r}.")
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
            If the mode has no derivative (labels, "matern12"), no standard deviation can be had, or another
            inference than "collapsed" fitted the model.

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
                f"{self._response.kind!r}. Leave it out, or take differences of `sample` at close "
                "indices, which holds for any response."
            )
        positions = self._read_positions(X)
        mean, variance = self._prediction.derivative(positions, number)
        latent = self._prediction.at(positions, with_variance=False)[0] if bent else np.zeros(mean.size)
        unit = self._response.slope(latent) / index.span
        return (unit * mean, unit * np.sqrt(variance)) if return_std else unit * mean

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
                "Take that of draws from `sample`."
            )

    def _predict_cov(self, positions: list[Array], include_noise: bool) -> tuple[Array, Array]:
        if positions[0].size > _MOST_ROWS:
            raise DataError(
                f"FunctionalTucker.predict: a covariance has at most {_MOST_ROWS} rows; got "
                f"{positions[0].size}. Call `sample`, which needs none, or give fewer rows."
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
