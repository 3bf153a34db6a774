"""Every refusal comes before anything is computed, and says what was got and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning, NotFittedError

from tenfac import DataError, FunctionalTucker, RankError, ShapeError
from tests.checks import assert_equal, assert_says
from tests.fresh import in_fresh_python

TABLE = {"cell": ["liver", "lung"] * 6, "time": np.linspace(0, 1, 12), "dose": np.repeat([1.0, 2.0, 5.0], 4)}
Y = np.sin(np.arange(12.0))
NUMBERS = np.column_stack([TABLE["time"], TABLE["dose"]])


@pytest.fixture(scope="module")
def model() -> FunctionalTucker:
    return FunctionalTucker(max_iter=0).fit(TABLE, Y)


def fit_fails(error: type[Exception], X: Any, y: Any = Y, weights: Any = None, **settings: Any) -> Any:
    with pytest.raises(error) as caught:
        FunctionalTucker(**settings).fit(X, y, sample_weight=weights)
    return caught


# --- values that are not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_indices_that_are_not_finite_are_refused_in_fit_and_predict(model, value: float, word: str) -> None:
    time = TABLE["time"].copy()
    time[5] = value
    assert_says(
        fit_fails(DataError, TABLE | {"time": time}), "'time'", word, "first in row 5", "drop these rows"
    )
    with pytest.raises(DataError) as error:
        model.predict(TABLE | {"time": time})
    assert_says(error, "'time'", word, "row 5")
    numbers = NUMBERS.copy()
    numbers[5, 0] = value
    assert_says(fit_fails(ValueError, numbers), word)
    with pytest.raises(ValueError, match=word):
        FunctionalTucker(max_iter=0).fit(NUMBERS, Y).predict(numbers)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_values_that_are_not_finite_are_refused(value: float, word: str) -> None:
    y = Y.copy()
    y[3] = value
    assert_says(fit_fails(DataError, TABLE, y), "y contains 1", word, "leave missing cells out")
    assert_says(fit_fails(ValueError, NUMBERS, y), "y contains", word)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_labels_are_refused_in_fit_and_predict(model, missing: Any) -> None:
    cell = np.array(TABLE["cell"], dtype=object)
    cell[[2, 7]] = missing
    says = ("'cell'", "2 missing labels", "first in row 2", "a label of their own")
    assert_says(fit_fails(DataError, TABLE | {"cell": cell}), *says)
    with pytest.raises(DataError) as error:
        model.predict(TABLE | {"cell": cell})
    assert_says(error, *says)


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [{}, {"time": []}, {"time": np.zeros(0), "cell": np.zeros(0, dtype=str)}])
def test_an_empty_table_is_refused(table: dict[str, Any]) -> None:
    assert_says(fit_fails(DataError, table, []), "the table is empty", "at least one row")


def test_an_empty_array_is_refused() -> None:
    assert_says(fit_fails(ValueError, np.zeros((0, 2)), []), "0 sample(s)")


def test_columns_of_different_lengths_are_refused() -> None:
    assert_says(fit_fails(ShapeError, TABLE | {"time": np.zeros(3)}), "time: (3,)", "dose: (12,)")
    assert_says(fit_fails(ShapeError, TABLE | {"time": np.zeros((12, 2))}), "time: (12, 2)")


def test_values_that_are_no_numbers_are_refused_by_name() -> None:
    for table in (TABLE, NUMBERS):
        said = fit_fails(DataError, table, ["high"] * 12)
        assert_says(said, "FunctionalTucker.fit: `y` must hold real numbers", "'high'", "Convert it")


def test_a_table_of_indices_of_one_mode_is_refused(model: FunctionalTucker) -> None:
    with pytest.raises(ShapeError) as error:
        model.mode_posterior("time", x=[[0.1, 0.2]])
    assert_says(error, "FunctionalTucker.mode_posterior: `x` must be a list of indices", "'time'", "(1, 2)")


def test_y_of_another_length_is_refused() -> None:
    assert_says(fit_fails(ValueError, TABLE, Y[:-1]), "one value per row", "(11,)", "12 rows")
    assert_says(fit_fails(ValueError, NUMBERS, Y[:-1]), "12", "11")


def test_a_missing_column_is_refused_and_a_near_name_suggested(model) -> None:
    renamed = {"cell": TABLE["cell"], "Time": TABLE["time"], "dose": TABLE["dose"]}
    with pytest.raises(DataError) as error:
        model.predict(renamed)
    assert_says(error, "no column 'time'", "Did you mean Time?", "cell, Time, dose")


def test_an_unseen_label_is_refused_and_a_near_one_suggested(model) -> None:
    with pytest.raises(DataError) as error:
        model.predict(TABLE | {"cell": ["liver"] * 4 + ["livr"] + ["lung"] * 7})
    assert_says(error, "'cell'", "2 labels", "row 4", "unseen label 'livr'", "did you mean liver?")
    with pytest.raises(DataError) as error:
        model.mode_posterior("cell", ["zzz"])
    assert_says(error, "unseen label 'zzz'")
    assert "did you mean" not in str(error.value)


def test_an_unseen_number_as_label_is_shown_as_the_user_wrote_it() -> None:
    model = FunctionalTucker(discrete=[1], max_iter=0).fit(NUMBERS, Y)
    with pytest.raises(DataError) as error:
        model.predict([[0.0, 3.0]])
    assert_says(error, "unseen label 3.0")


def test_labels_in_a_mode_that_was_continuous_are_refused(model) -> None:
    with pytest.raises(DataError) as error:
        model.predict(TABLE | {"time": ["noon"] * 12})
    assert_says(error, "'time'", "numbers", "noon")


def test_another_number_of_columns_is_refused() -> None:
    model = FunctionalTucker(max_iter=0).fit(NUMBERS, Y)
    with pytest.raises(ValueError, match=r"3 features.*2 features"):
        model.predict(np.zeros((2, 3)))


def test_an_unfitted_model_predicts_nothing() -> None:
    for call in (lambda m: m.predict(NUMBERS), lambda m: m.mode_posterior(0)):
        with pytest.raises(NotFittedError):
            call(FunctionalTucker())


@pytest.mark.parametrize(("X", "y"), [(NUMBERS, np.full(12, np.nan)), (TABLE, Y[:-1])])
def test_a_refused_fit_leaves_the_model_unfitted(X: Any, y: np.ndarray) -> None:
    model = FunctionalTucker()
    with pytest.raises(ValueError, match="y"):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


# --- settings ---------------------------------------------------------------------------------------------


def test_an_unknown_discrete_name_is_refused_and_a_near_one_suggested() -> None:
    error = fit_fails(DataError, TABLE, discrete=["cel"])
    assert_says(error, "no mode 'cel'", "cell, time, dose", "Did you mean cell?")
    assert_says(fit_fails(DataError, TABLE, discrete=[3]), "no mode 3", "(0 to 2)")
    assert_says(fit_fails(DataError, TABLE, discrete=[True]), "no mode True")


def test_an_unknown_mode_of_a_posterior_is_refused(model) -> None:
    with pytest.raises(DataError) as error:
        model.mode_posterior("tim")
    assert_says(error, "no mode 'tim'", "Did you mean time?")


def test_an_unknown_kernel_is_refused_and_the_known_ones_are_named() -> None:
    for kernel in ("rbf", {"time": "rbf"}):
        error = fit_fails(DataError, TABLE, kernel=kernel)
        known = "auto, oscillator, matern12, matern32, matern52"
        assert_says(error, "FunctionalTucker, mode '", known, "'rbf'")
        assert "Did you mean" not in str(error.value)
    assert_says(
        fit_fails(DataError, TABLE, kernel={"tme": "matern12"}), "`kernel`", "'tme'", "Did you mean time?"
    )


@pytest.mark.parametrize(
    ("setting", "value", "meant"),
    [
        ("kernel", "matern", "matern32"),
        ("kernel", {"time": "Matérn-5/2"}, "matern52"),
        ("kernel", "aut", "auto"),
        ("noise", "slices", "slice"),
        ("terms", "main", "mains"),
        ("terms", ["mains", "residuals"], "residual"),
        ("inference", "colapsed", "collapsed"),
        ("likelihood", "Student-T", "student_t"),
        ("response", "Log", "log"),
    ],
)
def test_a_misspelled_setting_is_refused_and_the_nearest_suggested(
    setting: str, value: Any, meant: str
) -> None:
    error = fit_fails(DataError, TABLE, **{setting: value})
    assert_says(error, "FunctionalTucker", f"`{setting}` must be one of", f"Did you mean {meant!r}?")


def test_a_name_like_no_other_suggests_nothing() -> None:
    for setting, value in (("likelihood", "normal"), ("terms", 5), ("terms", None)):
        assert "Did you mean" not in str(fit_fails(DataError, TABLE, **{setting: value}).value)


@pytest.mark.parametrize("inference", ["collapsed", "cep", "svi"])
@pytest.mark.parametrize("verbose", [9, -1, 1.0, "yes", None])
def test_an_unknown_verbosity_is_refused(inference: str, verbose: Any) -> None:
    error = fit_fails(DataError, TABLE, inference=inference, verbose=verbose)
    assert_says(error, "`verbose` must be 0", f"got {verbose!r}")


@pytest.mark.parametrize(
    "rank", [0, -1, 1.5, True, np.nan, [0, 1], [1, 2.5], [13, 1], [1, 4], [None, 1], ["two", 1], [1, np.nan]]
)
def test_a_rank_that_no_mode_can_have_is_refused(rank: Any) -> None:
    bad = [value for value in (rank if isinstance(rank, list) else [rank]) if value != 1 or value is True]
    error = fit_fails(RankError, TABLE, rank=rank)
    assert_says(error, "an integer from 1 to", "number of distinct indices", f"got {bad[0]!r}")


@pytest.mark.parametrize("rank", [[1], [1, 1, 1], []])
def test_a_rank_of_another_length_is_refused(rank: list[int]) -> None:
    assert_says(fit_fails(RankError, TABLE, rank=rank), "one per continuous mode", f"got {len(rank)}")


@pytest.mark.parametrize("discrete", [2.5, [2.5], True, np.int64(3)])
def test_what_names_no_discrete_mode_is_refused(discrete: Any) -> None:
    first = discrete[0] if isinstance(discrete, list) else discrete
    assert_says(fit_fails(DataError, TABLE, discrete=discrete), f"no mode {first!r}", "cell, time, dose")


def test_a_number_of_numpy_names_a_discrete_mode() -> None:
    kinds = FunctionalTucker(discrete=np.int64(2), max_iter=0).fit(TABLE, Y).kinds_
    assert_equal(kinds, ("discrete", "continuous", "discrete"))


@pytest.mark.parametrize(
    ("weights", "got"),
    [
        (np.full(12, -1.0), "-1.0 in row 0"),
        ([*[1] * 11, np.nan], "nan in row 11"),
        (np.ones(11), "shape (11,) for 12 rows"),
        (np.ones((12, 1)), "shape (12, 1) for 12 rows"),
        (["much"] * 12, "values such as 'much'"),
    ],
)
def test_weights_that_are_no_weights_are_refused_in_fit_and_partial_fit(weights: Any, got: str) -> None:
    model = FunctionalTucker(max_iter=0).fit(NUMBERS, Y)
    for ask, where in ((FunctionalTucker().fit, "fit"), (model.partial_fit, "partial_fit")):
        with pytest.raises(DataError) as error:
            ask(NUMBERS, Y, sample_weight=weights)
        assert_says(
            error, f"FunctionalTucker.{where}: `sample_weight` must hold one finite number", f"got {got}"
        )


def test_weights_that_are_all_zero_are_refused() -> None:
    assert_says(fit_fails(DataError, TABLE, weights=np.zeros(12)), "every sample_weight is zero")


@pytest.mark.parametrize(
    ("y", "first"), [(["low"] * 12, "'low'"), (Y + 1j, "y.imag"), (Y.astype("M8[D]"), "datetime.date(")]
)
def test_values_that_are_no_real_numbers_are_refused_wherever_they_are_asked_for(y: Any, first: str) -> None:
    model = FunctionalTucker(max_iter=0).fit(TABLE, Y)
    for ask in (
        FunctionalTucker().fit,
        model.partial_fit,
        model.log_predictive,
        model.pit,
        model.calibration,
    ):
        with pytest.raises(DataError) as error:
            ask(TABLE, y)
        assert_says(error, f"FunctionalTucker.{ask.__name__}: `y` must hold real numbers", first)


def test_a_column_vector_of_values_is_taken_for_labels_as_for_numbers() -> None:
    for table in (NUMBERS, TABLE):
        with pytest.warns(DataConversionWarning):
            model = FunctionalTucker(max_iter=0).fit(table, Y[:, None])
        assert_equal(model.predict(table), FunctionalTucker(max_iter=0).fit(table, Y).predict(table))


@pytest.mark.parametrize(
    ("trials", "got"),
    [(None, "0.25 of 1 trials"), ([3] * 12, "0.25 of 3 trials"), ([4, 4.5] * 6, "4.5 trials")],
)
def test_shares_of_successes_need_their_numbers_of_trials(trials: Any, got: str) -> None:
    share = np.tile([0.0, 0.25, 1.0], 4)
    error = fit_fails(DataError, TABLE, share, trials, likelihood="binomial")
    assert_says(error, "whole numbers of trials", got, "in row 1", "Give the numbers of trials")


def test_a_share_of_one_trial_is_a_failure_or_a_success() -> None:
    share = np.tile([0.0, 0.25, 1.0], 4)
    one_each = FunctionalTucker(likelihood="binomial", max_iter=0).fit(TABLE, np.round(share))
    same = FunctionalTucker(likelihood="bernoulli", max_iter=0).fit(TABLE, np.round(share))
    assert_equal(one_each.predict(TABLE), same.predict(TABLE))


# --- imports ----------------------------------------------------------------------------------------------


def test_without_any_extra_the_estimator_works_and_what_needs_one_says_what_to_install() -> None:
    code = """
from tenfac import FunctionalTucker, MissingExtraError
table = {"a": [0.0, 1.0, 2.0, 3.0], "b": ["u", "v", "u", "v"]}
model = FunctionalTucker().fit(table, [0.0, 1.0, 2.0, 2.5])
print(model.predict({"a": [0.5], "b": ["v"]}).shape)
X, y = [[0.0], [1.0], [2.0]], [1.0, 2.0, 4.0]
print(FunctionalTucker(inference="cep", max_iter=300).fit(X, y).predict(X).shape)
for call in (lambda: FunctionalTucker(inference="nuts").fit(X, y), lambda: model.posterior_):
    try:
        call()
    except MissingExtraError as error:
        print(error)
"""
    blocked = ("torch", "pyro", "gpytorch", "pandas", "matplotlib", "xarray")
    plain, cep, nuts, tree = in_fresh_python(code, blocked=blocked).splitlines()
    assert_equal((plain, cep), ("(1,)", "(3,)"))
    assert_says(nuts, "inference='nuts'", "pip install 'tenfac[bayes]'")
    assert_says(tree, "`FunctionalTucker.posterior_` needs xarray", "tenfac[bayes]")
