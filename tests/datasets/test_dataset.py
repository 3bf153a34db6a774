"""`Dataset` and `Axis`: what every data set promises, on a toy of four modes."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from tenfac.core.errors import DataError
from tenfac.datasets import Axis, Dataset
from tests.checks import assert_close, assert_equal, assert_says


@pytest.fixture
def toy() -> Dataset:
    values = np.random.default_rng(0).standard_normal((3, 4, 2))
    values[1, 2] = np.nan
    values[0, 0, 1] = np.nan
    modes = (
        Axis("cell", np.array(["c", "a", "b"])),
        Axis("dose", np.array([0.01, 0.1, 1.0, 10.0]), "nM", continuous=True, scale="log"),
        Axis("time", np.array([0.5, 4.0]), "h", continuous=True),
    )
    return Dataset(
        "toy", values, modes, value_name="response", target=np.array([2, 0, 1]), target_names=("x", "y", "z")
    )


def test_to_table_holds_every_observed_entry_once_at_its_index(toy: Dataset) -> None:
    X, y = toy.to_table()
    assert X.shape == (24 - 3, 3)
    rebuilt = np.full(toy.shape, np.nan)
    position = (X[:, 0].astype(int), np.rint(X[:, 1] + 2).astype(int), np.searchsorted([0.5, 4.0], X[:, 2]))
    rebuilt[position] = y
    assert_equal(rebuilt, toy.values)


def test_to_table_gives_log10_of_a_log_mode_only(toy: Dataset) -> None:
    X, _ = toy.to_table()
    raw, _ = toy.to_table(log=False)
    assert_close(X[:, 1], np.log10(raw[:, 1]))
    assert_equal(np.unique(raw[:, 1]), np.array([0.01, 0.1, 1.0, 10.0]))
    assert_equal(X[:, [0, 2]], raw[:, [0, 2]])


def test_to_frame_has_labels_raw_units_and_the_rows_of_to_table(toy: Dataset) -> None:
    pytest.importorskip("pandas")
    frame = toy.to_frame()
    X, y = toy.to_table(log=False)
    assert list(frame.columns) == ["cell", "dose", "time", "response"]
    assert_equal(frame["response"].to_numpy(), y)
    assert_equal(frame[["dose", "time"]].to_numpy(), X[:, 1:])
    assert list(frame["cell"]) == [["c", "a", "b"][int(code)] for code in X[:, 0]]


def test_select_takes_the_mode_the_values_and_the_target(toy: Dataset) -> None:
    part = toy.select("cell", [2, 0])
    assert list(part.axis("cell").values) == ["b", "c"]
    assert_equal(part.values, toy.values[[2, 0]])
    assert_equal(part.target, np.array([1, 2]))
    assert part.target_names == toy.target_names


@pytest.mark.parametrize("keep", [[1, 2], slice(1, 3), np.array([False, True, True, False])])
def test_select_accepts_positions_slices_and_masks(toy: Dataset, keep: object) -> None:
    part = toy.select("dose", keep)
    assert_equal(part.values, toy.values[:, 1:3])
    assert_equal(part.axis("dose").values, np.array([0.1, 1.0]))
    assert part.axis("dose").scale == "log"
    assert_equal(part.target, toy.target)


@pytest.mark.parametrize(
    ("keep", "said"),
    [([4], "0..3"), (np.array([True, False]), "4 entries"), ([2, 1], "ascending"), ([1, 1], "ascending")],
)
def test_select_refuses_what_the_mode_cannot_have(toy: Dataset, keep: object, said: str) -> None:
    with pytest.raises(DataError) as error:
        toy.select("dose", keep)
    assert_says(error, said)


def test_an_unknown_mode_name_lists_the_modes(toy: Dataset) -> None:
    with pytest.raises(DataError) as error:
        toy.axis("tme")
    assert_says(error, "cell, dose, time", "'tme'")


def test_missing_is_the_fraction_of_nan(toy: Dataset) -> None:
    assert_close(toy.missing, 3 / 24)


def test_repr_is_one_line_with_sizes_and_missing(toy: Dataset) -> None:
    assert repr(toy) == "Dataset(toy: 3 cell × 4 dose × 2 time, 12.50 % missing)"
    assert repr(toy.modes[0]) == "Axis(cell: 3 labels)"
    assert repr(toy.modes[1]) == "Axis(dose: 4 values, 0.01..10 nM, log)"
    assert toy.modes[1].label == "dose (nM)"
    assert toy.modes[0].label == "cell"


def test_a_dataset_is_frozen(toy: Dataset) -> None:
    with pytest.raises(FrozenInstanceError):
        toy.name = "other"


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([[1.0]], {}, "(1, 1)"),
        ([2.0, 1.0], {"continuous": True}, "ascending"),
        ([1.0, 1.0], {"continuous": True}, "ascending"),
        ([0.0, 1.0], {"continuous": True, "scale": "log"}, "> 0"),
        ([0.5, 1.0], {"continuous": True, "scale": "sqrt"}, "'sqrt'"),
    ],
)
def test_an_axis_refuses_values_it_cannot_have(values: list, options: dict, said: str) -> None:
    with pytest.raises(DataError) as error:
        Axis("time", np.array(values), **options)
    assert_says(error, "'time'", said)


def test_a_dataset_refuses_modes_and_targets_of_other_sizes() -> None:
    axis = Axis("time", np.arange(3.0), "s", continuous=True)
    with pytest.raises(DataError) as error:
        Dataset("toy", np.zeros((3, 2)), (axis,))
    assert_says(error, "(3, 2)", "(3,)")
    with pytest.raises(DataError) as error:
        Dataset("toy", np.zeros(3), (axis,), target=np.zeros(2, dtype=int))
    assert_says(error, "(2,)")
