"""Rows that cannot be added are refused, and change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import DataError, FunctionalTucker, ShapeError
from tests.bayes.test_streaming import start, table
from tests.checks import assert_equal, assert_says


@pytest.fixture(scope="module")
def fitted() -> tuple[FunctionalTucker, np.ndarray, np.ndarray]:
    X, y = table()
    return start(X, np.exp(0.2 * y), discrete=[2], response="log", max_iter=0), X, np.exp(0.2 * y)


def bad(X: np.ndarray, y: np.ndarray) -> dict[str, tuple[Any, Any, Any, type[Exception], tuple[str, ...]]]:
    """Input, error, and what the error says."""
    nan_x, inf_x, label, nan_y = X.copy(), X.copy(), X.copy(), y.copy()
    nan_x[3, 1], inf_x[4, 0], label[5, 2], nan_y[6] = np.nan, np.inf, 3.5, np.nan
    low, named = y.copy(), {"0": X[:, 0], "1": X[:, 1], "2": X[:, 2]}
    low[7] = -100.0
    return {
        "NaN in X": (nan_x, y, None, DataError, ("'1'", "NaN", "row 3")),
        "inf in X": (inf_x, y, None, DataError, ("'0'", "infinity", "row 4")),
        "an unseen label": (label, y, None, DataError, ("'2'", "row 5", "unseen label 3.5")),
        "fewer columns": (X[:, :2], y, None, ValueError, ("2 features", "3 features")),
        "a missing column": ({"0": X[:, 0], "1": X[:, 1]}, y, None, DataError, ("no column '2'",)),
        "columns of two lengths": (named | {"1": X[:4, 1]}, y, None, ShapeError, ("one length",)),
        "NaN in y": (X, nan_y, None, DataError, ("y contains 1", "leave missing")),
        "a short y": (X, y[:4], None, DataError, ("one value per row", "(4,)", "90 rows")),
        "a wide y": (X, y[:, None], None, DataError, ("one value per row", "(90, 1)")),
        "y beyond the bounds": (
            X,
            low,
            None,
            DataError,
            ("between the bounds", "got -100 in row 7", "Fit all"),
        ),
        "negative weights": (X, y, -np.ones(90), DataError, ("`sample_weight`", "-1.0 in row 0")),
        "no rows": (X[:0], y[:0], None, ValueError, ("0 sample",)),
        "an empty table": ({n: x[:0] for n, x in named.items()}, y[:0], None, DataError, ("is empty",)),
    }


@pytest.mark.parametrize("name", bad(*table()))
def test_bad_rows_are_refused_and_change_nothing(fitted: Any, name: str) -> None:
    model, X, y = fitted
    before = model.predict(X, return_std=True)
    table, values, weights, error, says = bad(X, y)[name]
    with pytest.raises(error) as caught:
        model.partial_fit(table, values, weights)
    assert_says(caught, *says)
    for got, want in zip(model.predict(X, return_std=True), before, strict=True):
        assert_equal(got, want)


def test_new_labels_are_refused_where_their_likeness_was_learned() -> None:
    X, y = table((0,))
    first = X[:, 0] < 20
    model = start(X[first], y[first], discrete=[0], label_rank=1)
    assert_equal((model.exact_mode_, model.indices_[0].size), (0, 10))
    with pytest.raises(DataError) as error:
        model.partial_fit(X[~first], y[~first])
    assert_says(error, "'0'", "unseen label")
    assert_equal(model.indices_[0].size, 10)


def test_labels_of_another_kind_are_refused() -> None:
    model = FunctionalTucker(max_iter=0).partial_fit(
        {"cell": ["a", "b", "c"], "time": [0.0, 1, 2]}, [1.0, 2, 4]
    )
    with pytest.raises(DataError) as error:
        model.partial_fit({"cell": [1.0], "time": [3.0]}, [1.0])
    assert_says(error, "'cell'", "text; got numbers")


@pytest.mark.parametrize("settings", [{"likelihood": "poisson"}, {"noise": "slice"}], ids=str)
def test_noise_that_rows_do_not_share_takes_no_rows_and_the_error_says_what_to_do(settings: dict) -> None:
    model = FunctionalTucker(max_iter=0, **settings).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 4.0])
    with pytest.raises(DataError) as error:
        model.partial_fit([[3.0]], [1.0])
    assert_says(
        error, "only Gaussian noise, alike in all rows", *map(repr, settings.values()), "Fit all rows"
    )
