"""How well a fitted functional Tucker model predicts new observations, and its posterior for ArviZ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.metrics import calibration_of
from tenfac.bayes.posterior_methods import PosteriorMethods
from tenfac.bayes.search import Task
from tenfac.bayes.tree import datatree, hyperparameters
from tenfac.core.errors import DataError

Array = NDArray[np.float64]
_MOST_DRAWS, _FEWEST_DRAWS, _NUMBERS = 500, 50, 20_000_000


class ScoringMethods(PosteriorMethods):
    """Densities, calibration and the DataTree; needs what ``fit`` sets."""

    indices_: list[NDArray[Any]]
    noise_: float
    _task: Task
    _tree: Any

    def log_predictive(self, X: Any, y: Any) -> Array:
        """Log density of new observations, each on its own.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            As in ``predict``.
        y : array, shape (N,)
            Observed values.

        Returns
        -------
        array, shape (N,)
            In nats, of y in its own unit; minus infinity beyond ``bounds_``.

        Raises
        ------
        DataError
            If y has another length or is not finite, or as in ``predict``.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> near, far = model.log_predictive([[0.0], [0.0]], [1.0, 9.0])
        >>> bool(near > far)
        True
        """
        y, mean, noisy = self._predicted(X, y, "FunctionalTucker.log_predictive")
        return self._response.log_density(y, mean, noisy)

    def pit(self, X: Any, y: Any) -> Array:
        """Probability integral transform: predicted probability of a value below each observed one.

        Uniform from 0 to 1 over held-out rows if the predictions are calibrated.

        Parameters
        ----------
        X, y
            As in ``log_predictive``.

        Returns
        -------
        array, shape (N,)

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> model.pit([[0.5], [0.5]], [2.0, 90.0]).round(6).tolist()
        [0.5, 1.0]
        """
        y, mean, noisy = self._predicted(X, y, "FunctionalTucker.pit")
        return ndtr(self._response.standardized(y, mean, noisy))

    def calibration(self, X: Any, y: Any, level: float = 0.95) -> dict[str, Any]:
        """Score predictions of held-out rows, noise included.

        Parameters
        ----------
        X, y
            As in ``log_predictive``.
        level : float
            Probability of the central interval whose coverage is counted.

        Returns
        -------
        dict
            ``rmse``, ``mae`` (of the predictive mean, unit of y), ``nll`` (mean negative log density, nats),
            ``crps`` (mean continuous ranked probability score, unit of y), ``coverage``;
            ``coverage_by_quartile``, shape (4,): among the quarters of rows of smallest to largest predicted
            standard deviation; ``pit``, shape (N,).

        Raises
        ------
        DataError
            If ``level`` is not between 0 and 1, or as in ``log_predictive``.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> scores = model.calibration([[0.0], [0.5]], [1.0, 2.0])
        >>> scores["coverage"], sorted(scores)[:3]
        (1.0, ['coverage', 'coverage_by_quartile', 'crps'])
        """
        where = "FunctionalTucker.calibration"
        if not 0 < level < 1:
            raise DataError(f"{where}: `level` must lie between 0 and 1; got {level!r}.")
        y, mean, noisy = self._predicted(X, y, where)
        average, std = self._response.moments(mean, noisy)
        pit = ndtr(self._response.standardized(y, mean, noisy))
        return {
            "rmse": float(np.sqrt(np.mean((y - average) ** 2))),
            "mae": float(np.mean(np.abs(y - average))),
            "nll": float(-np.mean(self._response.log_density(y, mean, noisy))),
            "crps": float(np.mean(self._response.crps(y, mean, noisy))),
            **calibration_of(pit, std, level),
            "pit": pit,
        }

    @property
    def posterior_(self) -> Any:
        """The posterior as an xarray DataTree that ArviZ reads, drawn when first asked for.

        ``posterior``: joint draws ``f`` (chain, draw, observation) of the function at the observed rows, in
        the unit of y; ``log_likelihood`` and ``observed_data``: ``y``; ``constant_data``: the learned
        hyperparameters. The observations carry the index of every mode, under the mode's name. One chain of
        independent draws: 500, fewer beyond 40,000 rows, at least 50. Needs the extra ``bayes``.
        """
        check_is_fitted(self, "info_")
        if self._tree is None:
            self._tree = self._draw_tree()
        return self._tree

    def _draw_tree(self) -> Any:
        task, response, hyper = self._task, self._response, self._prediction.hyper
        count = int(np.clip(_NUMBERS // task.y.size, _FEWEST_DRAWS, _MOST_DRAWS))
        columns = [
            values[np.searchsorted(grid, x)]
            for values, grid, x in zip(self.indices_, task.grids, task.positions, strict=True)
        ]
        y, theta = response.observed(task.y), hyper.pack()[None, None]
        values = hyperparameters(theta, hyper, self._modes, response)
        draws = self._prediction.sample(list(task.positions), count, np.random.default_rng(0))
        noise = np.exp(hyper.noise)
        likelihood = (task.y - draws) ** 2
        likelihood *= -0.5 / noise
        likelihood += response.log_slope(y) - 0.5 * np.log(2 * np.pi * noise)
        likelihood *= task.weights
        return datatree(
            "FunctionalTucker.posterior_", self._modes, (columns, y),
            (response.observed(draws)[None], likelihood[None]), values, fixed=True,
        )  # fmt: skip

    def _predicted(self, X: Any, y: Any, where: str) -> tuple[Array, Array, Array]:
        """Checked values; mean and variance of new observations on the scale of the response, (N,)."""
        check_is_fitted(self, "info_")
        positions, y = self._read_positions(X), np.asarray(y, dtype=float)
        if y.shape != positions[0].shape:
            raise DataError(
                f"{where}: y must have one value per row; got shape {y.shape} for {positions[0].size} rows."
            )
        if not np.isfinite(y).all():
            raise DataError(
                f"{where}: y contains {int((~np.isfinite(y)).sum())} NaN or infinite values. "
                "Leave these rows out."
            )
        mean, _, noisy = self._prediction.at(positions)
        return y, mean, noisy
