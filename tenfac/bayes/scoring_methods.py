"""How well a fitted functional Tucker model predicts new observations, and its posterior for ArviZ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tenfac.bayes.collapsed.search import Task
from tenfac.bayes.columns import numbers_of
from tenfac.bayes.likelihoods.added import Gaussian
from tenfac.bayes.likelihoods.counts import Counts
from tenfac.bayes.likelihoods.named import kind_of
from tenfac.bayes.posterior_methods import PosteriorMethods
from tenfac.bayes.settings import check_values
from tenfac.bayes.stored import first_modes
from tenfac.bayes.tree import datatree, hyperparameters
from tenfac.bayes.unseen import Unseen, trials_of
from tenfac.core.arrays import generator
from tenfac.core.errors import DataError

Array = NDArray[Any]
_MOST_DRAWS, _FEWEST_DRAWS, _NUMBERS = 500, 50, 20_000_000


class ScoringMethods(PosteriorMethods):
    """Densities, calibration and the DataTree; needs what ``fit`` sets."""

    exact_mode_: int
    dof_: float
    slice_dof_: float
    slice_scales_: dict[str, Array]
    _counted: Array | None
    _stream: Any
    _task: Task
    _tree: Any

    def log_predictive(self, X: Any, y: Any, sample_weight: Any = None) -> Array:
        """Log density (of counts, probability) of new observations, each on its own.

        Parameters
        ----------
        X : array of shape (N, D), DataFrame, or dict of columns
            As in ``predict``.
        y : array, shape (N,)
            Observed values.
        sample_weight : array, shape (N,), optional
            With ``likelihood="binomial"`` numbers of trials, one each if not given; no other has any.

        Returns
        -------
        array, shape (N,)
            In nats, of y in its own unit; minus infinity beyond ``bounds_``.

        Raises
        ------
        DataError
            If y has another length, is not finite or cannot come of the likelihood, or as in ``predict``.

        Examples
        --------
        >>> from tenfac import FunctionalTucker
        >>> model = FunctionalTucker(max_iter=0).fit([[0.0], [1.0]], [1.0, 3.0])
        >>> near, far = model.log_predictive([[0.0], [0.0]], [1.0, 9.0])
        >>> bool(near > far)
        True
        """
        y, unseen = self._read_unseen(X, y, sample_weight, "FunctionalTucker.log_predictive")
        return unseen.log_density(y)

    def pit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        random_state: int | np.random.Generator | None = 0,
    ) -> Array:
        """Probability integral transform: predicted probability of a value below each observed one.

        Uniform from 0 to 1 over held-out rows if the predictions are calibrated.

        Parameters
        ----------
        X, y, sample_weight
            As in ``log_predictive``.
        random_state : int, numpy Generator or None
            Of counts, a share of the probability of the observed one is added, drawn from 0 to 1.

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
        y, unseen = self._read_unseen(X, y, sample_weight, "FunctionalTucker.pit")
        return unseen.pit(y, generator(random_state))

    def calibration(
        self,
        X: Any,
        y: Any,
        level: float = 0.95,
        sample_weight: Any = None,
        *,
        random_state: int | np.random.Generator | None = 0,
    ) -> dict[str, Any]:
        """Score predictions of held-out rows, noise included.

        Parameters
        ----------
        X, y, sample_weight
            As in ``log_predictive``.
        level : float
            Probability of the central interval whose coverage is counted.
        random_state : int, numpy Generator or None
            As in ``pit``.

        Returns
        -------
        dict
            ``rmse``, ``mae`` (of the predictive mean, or of that of the function where noise has no moments;
            unit of y), ``nll`` (mean negative log density, nats), ``crps`` (mean continuous ranked
            probability score, unit of y; by 400 draws per row unless noise is Gaussian), ``coverage``;
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
        y, unseen = self._read_unseen(X, y, sample_weight, where)
        return unseen.scores(y, level, generator(random_state))

    @property
    def posterior_(self) -> Any:
        """The posterior as an xarray DataTree that ArviZ reads, drawn when first asked for.

        ``posterior``: joint draws ``f`` (chain, draw, observation) of the function at the observed rows, in
        the unit of y (of counts, of their rate or probability); ``log_likelihood`` of a row given ``f``, and
        ``observed_data``: ``y``; ``constant_data``: the learned hyperparameters. The observations carry the
        index of every mode, under the mode's name. One chain of independent draws: 500, fewer beyond 40,000
        rows, at least 50. After "svi" and "nuts", the draws of the program, with those of its
        hyperparameters. Needs the extra ``bayes``.
        """
        check_is_fitted(self, "info_")
        if getattr(self, "_tree", None) is None:
            drawn = (
                getattr(self._prediction, "posterior", None) if self._fitted_by in ("svi", "nuts") else None
            )
            self._tree = self._draw_tree() if drawn is None else drawn.to_datatree()
        return self._tree

    def _draw_tree(self) -> Any:
        if self._fitted_by == "cep":
            self._prediction.sample()  # which refuses
        columns, y, weights = self._observed_rows()
        positions = [index.positions(column) for index, column in zip(self._modes, columns, strict=True)]
        count = int(np.clip(_NUMBERS // y.size, _FEWEST_DRAWS, _MOST_DRAWS))
        draws = self._prediction.sample(positions, count, np.random.default_rng(0))
        own = self._likelihood.at(self._slices(positions))
        if isinstance(own, Gaussian):
            scales = self._prediction.problem.scale_at(positions[self.exact_mode_])
            own = replace(own, variance=own.variance * scales)
        likelihood = np.stack([own.given(y, draw, weights) for draw in draws])
        return datatree(
            "FunctionalTucker.posterior_", self._modes, (columns, y),
            (self._response.observed(draws)[None], likelihood[None]), self._held(), fixed=True,
        )  # fmt: skip

    def _held(self) -> dict[str, Array]:
        """Hyperparameters for the tree."""
        hyper = self._prediction.hyper
        values = hyperparameters(hyper.pack()[None, None], hyper, self._modes, self._response)
        values["lengthscale"] = np.array([[list(self.lengthscales_.values())]])
        values["sharpness"] *= [name not in self.qualities_ for name in self.lengthscales_]  # straight axes
        if isinstance(self._likelihood, Counts):
            del values["noise"]
        for name, dof in (("dof", self.dof_), ("slice_dof", self.slice_dof_)):
            if np.isfinite(dof):
                values[name] = np.full((1, 1), dof)
        for scales in self.slice_scales_.values():
            values["slice_scale"] = scales[None, None]
        return values

    def _observed_rows(self) -> tuple[list[NDArray[Any]], Array, Array]:
        """Columns, y and weights of all rows of the fit, and of those added since."""
        task, stream = self._task, self._stream
        columns = [
            index.values[np.searchsorted(grid, x)]
            for index, grid, x in zip(first_modes(self), task.grids, task.positions, strict=True)
        ]
        y = self._response.observed(task.y) if self._counted is None else self._counted
        if stream is None:
            return columns, y, task.weights
        added = stream.all_rows
        columns = [np.concatenate(pair) for pair in zip(columns, added.columns, strict=True)]
        return columns, np.concatenate([y, added.y]), np.concatenate([task.weights, added.weights])

    def _read_unseen(self, X: Any, y: Any, sample_weight: Any, where: str) -> tuple[Array, Unseen]:
        """Checked values, and what is expected of them."""
        check_is_fitted(self, "info_")
        positions, y = self._read_positions(X), np.asarray(numbers_of(y, where), dtype=float)
        if y.shape != positions[0].shape:
            raise DataError(
                f"{where}: y must have one value per row; got shape {y.shape} for {positions[0].size} rows."
            )
        if not np.isfinite(y).all():
            raise DataError(
                f"{where}: y contains {int((~np.isfinite(y)).sum())} NaN or infinite values. "
                "Leave these rows out."
            )
        check_values(kind_of(self._likelihood), y, where)
        trials = trials_of(self._likelihood, y, sample_weight, where)
        return y, self._unseen(positions, trials)[2]
