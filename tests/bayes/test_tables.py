"""What may be given as a table: arrays, frames, dicts; their columns, labels and edge cases."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from tenfac import FunctionalTucker
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below, assert_close, assert_equal, quietly

X, Y = smooth_table((4, 12, 3), (0,), 80)
LABELS = np.array(["liver", "lung", "skin", "bone"])[X[:, 0].astype(int) - 10]


def columns() -> dict[str, Any]:
    return {"tissue": LABELS, "time": X[:, 1], "dose": X[:, 2]}


def frame(**changes: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(columns() | changes)


@pytest.fixture(scope="module")
def model() -> FunctionalTucker:
    return FunctionalTucker(tol=1e-2).fit(columns(), Y)


# --- tables with labels -----------------------------------------------------------------------------------


def test_a_dict_a_frame_and_an_array_of_codes_give_the_same_fit() -> None:
    codes = np.column_stack([np.unique(LABELS, return_inverse=True)[1], X[:, 1:]])

    def fitted(table: Any, y: Any, **settings: Any) -> np.ndarray:
        return quietly(FunctionalTucker(max_iter=2, **settings).fit, table, y).predict(table)

    others = [
        fitted(frame(), Y),
        fitted(columns(), Y.tolist(), discrete=["tissue"]),
        fitted(codes, Y, discrete=[0]),
        fitted(codes, Y, discrete=np.array([0])),
        fitted(codes.tolist(), Y, discrete=[-3]),
    ]
    want = fitted(columns(), Y)
    for other in others:
        assert_equal(other, want)


def test_tensors_that_require_gradients_are_read_like_arrays() -> None:
    torch = pytest.importorskip("torch")
    codes = np.column_stack([np.unique(LABELS, return_inverse=True)[1], X[:, 1:]])
    rows, y, weights = (torch.tensor(values, requires_grad=True) for values in (codes, Y, np.ones_like(Y)))
    fitted = quietly(FunctionalTucker(max_iter=2, discrete=[0]).fit, rows, y, sample_weight=weights)
    want = quietly(FunctionalTucker(max_iter=2, discrete=[0]).fit, codes, Y)
    assert_equal(fitted.predict(rows), want.predict(codes))
    assert_equal(fitted.mode_posterior(1, rows[:3, 1])[1], want.mode_posterior(1, codes[:3, 1])[1])
    assert_equal((rows.requires_grad, y.requires_grad), (True, True))


def test_columns_are_found_by_name_in_any_order_and_others_are_ignored(model: FunctionalTucker) -> None:
    table = columns()
    shuffled = {name: table[name] for name in ("dose", "tissue", "time")} | {"operator": LABELS}
    assert_equal(model.predict(shuffled), model.predict(table))
    assert_equal(model.predict(frame()[["time", "dose", "tissue"]]), model.predict(table))


def test_a_numeric_frame_with_its_columns_permuted_gives_the_same_predictions() -> None:
    numbers = frame(tissue=X[:, 0])
    model = FunctionalTucker(discrete=["tissue"], max_iter=0).fit(numbers, Y)
    assert_equal(model.predict(numbers[["dose", "time", "tissue"]]), model.predict(numbers))
    assert_equal(model.mode_names_, ["tissue", "time", "dose"])


def test_a_frame_with_numbered_columns_is_an_array() -> None:
    pandas = pytest.importorskip("pandas")
    model = FunctionalTucker(discrete=[0], max_iter=0).fit(pandas.DataFrame(X), Y)
    assert_equal(model.predict(pandas.DataFrame(X)), model.predict(X))


@pytest.mark.parametrize("kind", ["object", "category", "string", "str"])
def test_labels_of_any_column_type_are_the_same_labels(model: FunctionalTucker, kind: str) -> None:
    table = frame(tissue=frame()["tissue"].astype(kind))
    got, want = (FunctionalTucker(max_iter=0).fit(data, Y).predict(data) for data in (table, columns()))
    assert_equal(got, want)
    assert_equal(model.predict(table), model.predict(columns()))


@pytest.mark.parametrize("kind", ["float32", "int64", "object", "Float64", "Int64"])
def test_numbers_of_any_column_type_are_continuous(kind: str) -> None:
    whole = frame(time=np.round(X[:, 1]))
    table = whole.assign(time=whole["time"].astype("Int64" if kind == "Int64" else kind))
    model = FunctionalTucker(max_iter=0).fit(table, Y)
    assert_equal(model.kinds_, ("discrete", "continuous", "continuous"))
    want = FunctionalTucker(max_iter=0).fit(whole, Y).predict(whole)
    assert_close(model.predict(table), want, factor=1e4)


def test_rows_with_text_among_their_cells_are_columns_of_labels_and_numbers() -> None:
    rows = list(zip(LABELS.tolist(), X[:, 1].tolist(), X[:, 2].tolist(), strict=True))
    want = FunctionalTucker(max_iter=0).fit(columns(), Y).predict(columns())
    for table in (rows, np.array(rows), np.array(rows, dtype=object)):
        model = FunctionalTucker(max_iter=0).fit(table, Y)
        assert_equal(model.kinds_, ("discrete", "continuous", "continuous"))
        assert_close(model.predict(table), want)
        assert_close(model.predict(rows), want)
    few = FunctionalTucker(max_iter=0).fit([["1", 0.1], ["b", 0.2], ["1", 0.5]], [1.0, 2.0, 3.0])
    assert_equal(few.predict([["1", 0.1]]), few.predict({"0": ["1"], "1": [0.1]}))
    kinds = (
        FunctionalTucker(max_iter=0).fit([["1", True], ["2", False], ["3.5", True]], [1.0, 2.0, 3.0]).kinds_
    )
    assert_equal(kinds, ("continuous", "discrete"))


def test_true_and_false_are_labels_in_every_kind_of_table() -> None:
    yes = X[:, 0] > 11
    table = {"yes": yes, "time": X[:, 1]}
    model = FunctionalTucker(max_iter=0).fit(table, Y)
    assert_equal(model.kinds_, ("discrete", "continuous"))
    mixed = FunctionalTucker(max_iter=0).fit(frame(tissue=yes).rename(columns={"tissue": "yes"}), Y)
    assert_equal(mixed.kinds_, ("discrete", "continuous", "continuous"))


def test_a_label_can_be_one_row_and_predictions_are_in_row_order(model: FunctionalTucker) -> None:
    table = columns()
    want = model.predict(table)
    for row in (0, 3, 79):
        one = {name: column[row : row + 1] for name, column in table.items()}
        assert_close(model.predict(one), want[row : row + 1], factor=1e4, scale=np.abs(want).max())


def test_integer_indices_predict_like_floats() -> None:
    whole = np.round(X)
    model = FunctionalTucker(discrete=[0], max_iter=0).fit(whole.astype(int), Y)
    assert_equal(
        model.predict(whole), FunctionalTucker(discrete=[0], max_iter=0).fit(whole, Y).predict(whole)
    )
    assert_equal(model.predict(whole.astype(int)), model.predict(whole))


def test_rows_of_weight_zero_are_not_there() -> None:
    weights = np.where(X[:, 0] == 12, 0.0, 1.0)
    model = FunctionalTucker(discrete=[0], tol=1e-2).fit(X, Y, sample_weight=weights)
    alone = FunctionalTucker(discrete=[0], tol=1e-2).fit(X[weights > 0], Y[weights > 0])
    assert_equal(model.indices_[0], np.array([10.0, 11.0, 13.0]))
    assert_equal(model.predict(X[weights > 0]), alone.predict(X[weights > 0]))


# --- settings by mode -------------------------------------------------------------------------------------


def test_kernels_by_name_and_by_number_are_the_same() -> None:
    by_name = FunctionalTucker(kernel={"time": "matern12", "dose": "matern52"}, tol=1e-2).fit(columns(), Y)
    by_number = FunctionalTucker(kernel={1: "matern12", -1: "matern52"}, tol=1e-2).fit(columns(), Y)
    plain = FunctionalTucker(kernel="matern12", tol=1e-2).fit(columns(), Y)
    assert_equal(by_number.predict(columns()), by_name.predict(columns()))
    assert_above(
        np.abs(plain.predict(columns()) - by_name.predict(columns())).max(), 1e-6, "effect of a kernel"
    )


def test_one_rank_is_the_same_rank_for_every_continuous_mode() -> None:
    one = FunctionalTucker(rank=2).fit(columns(), Y)
    each = FunctionalTucker(rank=[2, 2]).fit(columns(), Y)
    assert_equal(one.predict(columns()), each.predict(columns()))
    assert_equal(one.rank_, (4, 12, 2))  # labels keep all functions, and the exact mode has no basis


def test_fewer_products_fit_worse_and_the_report_says_what_they_carry() -> None:
    full = FunctionalTucker(max_iter=0).fit(columns(), Y)
    few = FunctionalTucker(max_iter=0, max_functions=2).fit(columns(), Y)
    assert_below(few.log_evidence_, full.log_evidence_ - 1, "log evidence")
    assert_equal(full.info_.warnings, ())
    assert_equal(len(few.info_.warnings), 1)
    assert "2 products" in few.info_.warnings[0]


# --- little data ------------------------------------------------------------------------------------------


def test_one_observation_is_returned_and_the_std_grows_away_from_it() -> None:
    model = FunctionalTucker().fit([[3.0, 1.0]], [2.0])
    mean, std = model.predict([[3.0, 1.0], [3.0, 2.0], [9.0, 9.0]], return_std=True)
    assert_close(mean, np.full(3, 2.0))
    assert_above(np.diff(std).min(), 0.0, "growth of the std")
    assert np.isfinite(model.log_evidence_)


def test_one_distinct_index_in_every_mode_gives_the_mean() -> None:
    y = np.random.default_rng(0).normal(size=12)
    model = FunctionalTucker().fit(np.full((12, 2), 3.0), y)
    mean, std = model.predict([[3.0, 3.0], [4.0, -4.0]], return_std=True)
    assert_close(mean, np.full(2, y.mean()), factor=1e6)
    assert_above(std[1] - std[0], 0.0, "growth of the std")
    assert_above(model.noise_, 0.5 * y.std(), "noise")


def test_one_distinct_index_in_one_mode_leaves_the_other_to_explain() -> None:
    X2, y2 = smooth_table((14,), (), 40)
    with_idle = FunctionalTucker().fit(np.column_stack([X2, np.ones(40)]), y2)
    alone = FunctionalTucker().fit(X2, y2)
    got, want = with_idle.predict(np.column_stack([X2, np.ones(40)])), alone.predict(X2)
    assert_below(np.abs(got - want).max(), 0.05 * y2.std(), "difference that an idle mode makes")


@pytest.mark.parametrize("value", [7.0, 0.0, 0.1, -1e30])
def test_constant_values_are_predicted_everywhere_with_a_small_std(value: float) -> None:
    model = FunctionalTucker().fit(np.linspace(0, 1, 12)[:, None], np.full(12, value))
    mean, std = model.predict([[0.3], [4.0]], return_std=True)
    assert_close(mean, np.full(2, value))
    assert_below(std.max(), 0.01 * max(abs(value), 1.0), "std")


def test_two_observations_in_three_modes() -> None:
    model = FunctionalTucker().fit([[0.0, 1.0, 2.0], [1.0, 1.0, 3.0]], [0.0, 1.0])
    mean, std = model.predict([[0.0, 1.0, 2.0], [1.0, 1.0, 3.0], [0.5, 9.0, 2.5]], return_std=True)
    assert np.isfinite(mean).all()
    assert_above(std.min(), 0.0, "std")
    assert_above(mean[1] - mean[0], 0.0, "order of the two values")


@pytest.mark.slow
def test_more_values_than_nodes_fit_a_smooth_function() -> None:
    rng = np.random.default_rng(0)
    Z = rng.random((400, 2))
    f = np.sin(6 * Z[:, 0]) * np.cos(3 * Z[:, 1])
    model = FunctionalTucker(kernel="matern52").fit(Z[:300], f[:300] + 0.05 * rng.normal(size=300))
    mean, std = model.predict(Z[300:], return_std=True)
    assert_below(np.sqrt(np.mean((mean - f[300:]) ** 2)), 0.04, "error on new points, noise 0.05")
    share = np.mean(np.abs(mean - f[300:]) < 2 * std)
    assert_above(share, 0.8, "share of new points within two std")


def test_dates_with_a_zone_are_days_in_utc() -> None:
    zoned = [datetime(2026, 1, day, 1, tzinfo=timezone(timedelta(hours=1))) for day in (1, 2, 4)]
    model = FunctionalTucker(max_iter=0).fit({"day": np.array(zoned, dtype=object)}, [1.0, 2.0, 3.0])
    assert_equal(model.indices_[0], np.array([20454.0, 20455.0, 20457.0]))
