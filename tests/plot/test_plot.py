"""Figures: what is drawn where, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.dates import date2num
from matplotlib.figure import Figure

from tenfac import DataError, ShapeError, plot
from tenfac.plot.coverage import coverage_curve
from tests.checks import assert_below, assert_close, assert_equal, assert_says


class Model:
    """A fitted model of known functions: a parabola over time, a step per cell."""

    mode_names_ = ("time", "cell")
    kinds_ = ("continuous", "discrete")

    def __init__(self, labels: Any = ("B", "NK", "T")) -> None:
        self.indices_ = [np.array([0.0, 1.0, 4.0]), np.asarray(labels)]

    def mode_posterior(self, mode: int, x: Any = None) -> tuple[Any, np.ndarray, np.ndarray]:
        if mode == 0:
            return x, x**2, 0.1 + 0 * x
        size = len(self.indices_[1])
        return self.indices_[1], 10.0 * np.arange(size), np.full(size, 0.5)


def test_a_continuous_mode_is_its_mean_with_a_95_percent_band() -> None:
    ax = plot.mode_function(Model(), "time", ax=Figure().subplots())
    x, mean = ax.lines[0].get_data()
    assert_equal((x[0], x[-1]), (0.0, 4.0))
    assert_close(mean, x**2)
    corners = ax.collections[0].get_paths()[0].vertices
    assert_below(abs(corners[:, 1].max() - (16 + 1.96 * 0.1)), 1e-4, "top of the band")
    marks = [segment[0, 0] for segment in ax.collections[1].get_segments()]
    assert_equal(marks, [0.0, 1.0, 4.0])


def test_a_discrete_mode_is_points_with_error_bars_at_its_labels() -> None:
    ax = plot.mode_function(Model(), 1, ax=Figure().subplots())
    assert_equal([tick.get_text() for tick in ax.get_xticklabels()], ["B", "NK", "T"])
    assert_close(np.asarray(ax.lines[0].get_ydata()), np.array([0.0, 10.0, 20.0]))
    lengths = [np.ptp(segment[:, 1]) for segment in ax.containers[0][2][0].get_segments()]
    assert_close(np.array(lengths), np.full(3, 2 * 1.959963984540054 * 0.5))


def test_labels_that_are_numbers_are_drawn_in_their_order() -> None:
    ax = plot.mode_function(Model(["10", "9", "1"]), "cell", ax=Figure().subplots())
    assert_equal([tick.get_text() for tick in ax.get_xticklabels()], ["1", "9", "10"])
    assert_close(np.asarray(ax.lines[0].get_ydata()), np.array([20.0, 10.0, 0.0]))


def test_many_labels_leave_room_to_read_some() -> None:
    ax = plot.mode_function(Model([f"sample {k}" for k in range(200)]), "cell", ax=Figure().subplots())
    assert_below(len(ax.get_xticks()), 14, "labels written")
    assert_equal(len(ax.lines[0].get_xdata()), 200)


def test_all_modes_share_one_vertical_scale_and_stand_where_asked() -> None:
    axes = Figure().subplots(1, 2)
    found = plot.mode_functions(Model(), axes=axes)
    assert found[0] is axes[0]
    assert found[1] is axes[1]
    assert_equal(found[0].get_ylim(), found[1].get_ylim())
    assert_equal([ax.get_xlabel() for ax in found], ["time", "cell"])


def test_without_axes_a_figure_is_made() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    before = plt.get_fignums()
    found = plot.mode_functions(Model())
    assert_equal(len(found[0].figure.axes), 2)
    single = [plot.mode_function(Model(), 0), plot.calibration([0.1], [0.0], [1.0])]
    for ax in [found[0], *single]:
        plt.close(ax.figure)
    assert_equal(plt.get_fignums(), before)


def test_an_unknown_mode_and_too_few_axes_are_refused() -> None:
    for mode in ("tim", 2, -3):
        with pytest.raises(DataError) as error:
            plot.mode_function(Model(), mode, ax=Figure().subplots())
        assert_says(error, "0..1", "time, cell", repr(mode))
    with pytest.raises(ShapeError) as error:
        plot.mode_functions(Model(), axes=[Figure().subplots()])
    assert_says(error, "one axes per mode, 2", "got 1")


def test_days_since_1970_are_the_dates_of_matplotlib() -> None:
    assert_close(float(date2num(np.datetime64("2024-01-01"))), 19723.0)


# --- calibration ------------------------------------------------------------------------------------------


def test_calibrated_predictions_stay_in_the_band_and_wrong_ones_leave_it() -> None:
    y = np.random.default_rng(0).standard_normal(2000)
    levels, covered, low, high = coverage_curve(y, np.zeros(2000), np.ones(2000))
    assert_below(np.mean((covered < low) | (covered > high)), 0.2, "share of levels outside a 95 % band")
    for std, side in ((0.5, -1), (2.0, 1)):
        _, covered, low, high = coverage_curve(y, np.zeros(2000), np.full(2000, std))
        beyond = (low - covered) if side < 0 else (covered - high)
        assert (beyond[2:17] > 0).all()
    assert_close(levels[9], 0.5)


def test_coverage_counts_the_values_inside_the_central_interval() -> None:
    z = np.array([0.0, 0.5, -0.6, 1.0, 3.0])
    _, covered, _, _ = coverage_curve(2 + 3 * z, np.full(5, 2.0), np.full(5, 3.0))
    assert_close(covered[9], 0.6)  # half of a normal lies within 0.674
    assert_close(covered[-1], 0.8)


def test_the_curve_is_drawn_in_the_unit_square() -> None:
    ax = plot.calibration([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], ax=Figure().subplots())
    assert_equal(
        (ax.get_xlim(), ax.get_xlabel(), ax.get_ylabel()), ((0, 1), "nominal coverage", "empirical coverage")
    )


@pytest.mark.parametrize(
    ("arrays", "error", "part"),
    [
        (([0.0], [0.0, 1.0], [1.0]), ShapeError, "(1,), (2,), (1,)"),
        (([], [], []), DataError, "0 values"),
        (([0.0], [0.0], [0.0]), DataError, "smallest std of 0"),
        (([np.nan], [0.0], [1.0]), DataError, "finite"),
    ],
    ids=["shapes", "empty", "zero", "nan"],
)
def test_what_cannot_be_calibrated_is_refused(arrays: Any, error: type[Exception], part: str) -> None:
    with pytest.raises(error) as raised:
        plot.calibration(*arrays, ax=Figure().subplots())
    assert_says(raised, "calibration", part)
