"""How a fitted functional Tucker model reads indices: a table to predict, and indices of one mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from tenfac.bayes.columns import ModeIndex, as_column, check_column, columns_of, is_table, text_columns
from tenfac.bayes.likelihoods.base import Likelihood
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.settings import mode_number
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.report import Report
from tenfac.core.tracing import constant

Array = NDArray[Any]


class FittedModel:
    """The part of ``FunctionalTucker`` that knows what ``fit`` sets, and reads the user's indices by it."""

    # settings
    rank: Any
    kernel: Any
    response: Any
    likelihood: str
    noise: Any
    terms: Any
    label_rank: int
    max_functions: int | None
    random_state: Any
    verbose: int
    # what fit sets
    rank_: tuple[int, ...]
    lengthscales_: dict[str, float]
    qualities_: dict[str, Any]
    log_evidence_: float
    info_: Report
    slice_scales_: dict[str, Any]
    mode_names_: list[str]
    _modes: list[ModeIndex]
    _prediction: Any  # a FittedFunction; what one inference alone can answer, the others refuse in words
    _response: Response
    _likelihood: Likelihood
    _slice_mode: int | None
    _kernels: tuple[str | None, ...]
    _rank: tuple[int | None, ...]
    _stream: Any
    _fitted_by: str

    def _read_columns(self, X: Any) -> list[NDArray[Any]]:
        """Columns of a table to predict, checked, in the order of the fit."""
        X = constant(X)
        if is_table(X):
            columns = columns_of(X, self.mode_names_)
        else:
            text = text_columns(X, [index.values.dtype.kind == "U" for index in self._modes])
            if text is not None:
                X = np.array(text, dtype=object).T
            numeric = all(index.values.dtype.kind == "f" for index in self._modes)
            X = validate_data(self, X, dtype=float if numeric else None, reset=False, ensure_all_finite=False)
            columns = [as_column(column) for column in X.T]
        return [
            check_column(index.name, column, index.discrete)
            for index, column in zip(self._modes, columns, strict=True)
        ]

    def _read_positions(self, X: Any) -> list[Array]:
        """Scaled positions of a table to predict, per mode."""
        columns = self._read_columns(X)
        return [index.positions(column) for index, column in zip(self._modes, columns, strict=True)]

    def _read_mode(self, mode: str | int, x: Any, where: str) -> tuple[int, NDArray[Any], Array]:
        """Number of a mode, indices of it (default: range or labels), and their positions."""
        check_is_fitted(self, "info_")
        number = mode_number(mode, self.mode_names_, where)
        index, x = self._modes[number], constant(x)
        if x is None:
            x = index.values if index.discrete else np.linspace(index.values[0], index.values[-1], 101)
        if np.size(x) == 0:
            raise DataError(f"{where}: `x` is empty; give at least one index.")
        if np.ndim(x) > 1:
            raise ShapeError(
                f"{where}: `x` must be a list of indices of mode {index.name!r}; got shape {np.shape(x)}. "
                "Give one number or label each, as in x.ravel()."
            )
        x = check_column(index.name, np.atleast_1d(np.asarray(x)), index.discrete)
        return number, x, index.positions(x)
