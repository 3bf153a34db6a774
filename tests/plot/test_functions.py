"""Figures of functions: the numbers that are drawn are those of the function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from tenfac import CP, Chebyshev, DataError, Discrete, Report, ShapeError, Tucker, plot
from tests.checks import assert_below, assert_close, assert_equal, assert_says

NAMES = ["x", "cell", "z"]


def mixed() -> Tucker:
    """``x * (cell + 1) * z`` on [-1, 1] x {0, 1, 2} x [0, 2]."""
    factors = [np.eye(2)[:, 1:], np.array([[1.0], [2.0], [3.0]]), np.ones((2, 1))]
    return Tucker(np.ones((1, 1, 1)), factors, [Chebyshev(2), Discrete(3), Chebyshev(2, (0.0, 2.0))])


def panel() -> Any:
    return Figure().subplots()


# --- slices -----------------------------------------------------------------------------------------------


def test_one_continuous_mode_is_a_curve_with_the_point_in_the_title() -> None:
    ax = plot.function_slice(mixed(), {"z": 2.0, 1: 2}, ax=panel(), names=NAMES, label="height (m)")
    x, y = ax.lines[0].get_data()
    assert_equal((x[0], x[-1]), (-1.0, 1.0))
    assert_close(y, 6 * x)
    assert_equal((ax.get_xlabel(), ax.get_ylabel()), ("x", "height (m)"))
    assert_equal(ax.get_title(), "cell = 2, z = 2")


def test_two_continuous_modes_are_an_image_with_the_first_to_the_right() -> None:
    ax = plot.function_slice(mixed(), {-2: 1}, ax=panel(), names=NAMES)
    image = ax.collections[0]
    want = 2 * np.linspace(-1, 1, 161) * np.linspace(0, 2, 161)[:, None]
    assert_close(np.asarray(image.get_array()), want)
    assert_equal((ax.get_xlabel(), ax.get_ylabel()), ("x", "z"))
    assert_equal(image.get_cmap().name, "RdBu_r")
    assert_close(np.array(image.get_clim()), np.array([-4.0, 4.0]))
    assert_equal(len(ax.figure.axes), 2)  # the color bar


def test_values_of_one_sign_have_another_color_map() -> None:
    ax = plot.function_slice(mixed() * 0 + 1, {1: 1}, ax=panel())
    assert_equal(ax.collections[0].get_cmap().name, "viridis")
    ax = plot.function_slice(mixed(), {1: 1}, ax=panel(), cmap="magma")
    assert_equal(ax.collections[0].get_cmap().name, "magma")


@pytest.mark.parametrize("held", [{2: 2.0}, {0: 1.0}], ids=["second", "first"])
def test_a_discrete_mode_beside_a_continuous_one_is_a_curve_per_row(held: dict[int, float]) -> None:
    ax = plot.function_slice(mixed(), held, ax=panel(), names=NAMES)
    for row, line in enumerate(ax.lines):
        x, y = line.get_data()
        assert_close(y, (row + 1) * x * (2.0 if 2 in held else 1.0))
    assert_equal([text.get_text() for text in ax.get_legend().get_texts()], ["0", "1", "2"])
    assert_equal(ax.get_legend().get_title().get_text(), "cell")


def test_discrete_modes_are_points_and_many_rows_are_an_image() -> None:
    ax = plot.function_slice(mixed(), {0: 1.0, 2: 2.0}, ax=panel(), names=NAMES)
    assert_close(np.asarray(ax.lines[0].get_ydata()), np.array([2.0, 4.0, 6.0]))
    t = CP(None, [np.arange(9.0)[:, None], np.ones((4, 1))])
    ax = plot.function_slice(t, ax=panel())
    assert_close(np.asarray(ax.collections[0].get_array()), np.ones((4, 1)) * np.arange(9.0))
    assert_equal(len(ax.collections), 1)  # no contours between rows


def test_a_slice_that_is_no_slice_is_refused() -> None:
    for fixed, part in ((None, "'z'"), ({0: 0.0, 1: 1, 2: 1.0}, "got 3")):
        with pytest.raises(ShapeError) as error:
            plot.function_slice(mixed(), fixed, ax=panel(), names=NAMES)
        assert_says(error, "one or two modes are drawn", part)
    for fixed in ({"cells": 1}, {3: 1}, {-4: 1}):
        with pytest.raises(DataError) as error:
            plot.function_slice(mixed(), fixed, ax=panel(), names=NAMES)
        assert_says(error, "0..2", "x, cell, z", repr(next(iter(fixed))))
    with pytest.raises(DataError) as error:
        plot.function_slice(mixed(), {2: 3.0}, ax=panel())
    assert_says(error, "[0, 2]", "3")
    with pytest.raises(DataError) as error:
        plot.function_slice(CP(None, [np.ones((2, 1)) * 1j]), ax=panel())
    assert_says(error, "complex128")


# --- decay ------------------------------------------------------------------------------------------------


def known() -> tuple[np.ndarray, Tucker]:
    """Coefficients ``c[j, k]`` with factors that are not orthonormal."""
    c = np.outer(0.5 ** np.array([0, 3, 1, 2, 5, 4]), 0.1 ** np.arange(4)) + 0.01 * np.eye(6, 4)
    twist = np.array([[1.0, 1, 1, 1], [0, 2, 1, 1], [0, 0, 3, 1], [0, 0, 0, 0.1]])
    return c, Tucker(np.linalg.inv(twist), [c @ twist, np.eye(4)], [Chebyshev(6), Chebyshev(4)])


def test_coefficients_are_norms_over_the_other_modes_relative_to_the_largest() -> None:
    c, t = known()
    ax = plot.coefficient_decay(t, ax=panel(), names=["x", "y"])
    for line, dots, want in (
        (ax.lines[0], ax.lines[1], np.linalg.norm(c, axis=1)),
        (ax.lines[2], ax.lines[3], np.linalg.norm(c, axis=0)),
    ):
        share = want / max(np.linalg.norm(c, axis=1).max(), np.linalg.norm(c, axis=0).max())
        assert_close(np.asarray(dots.get_ydata()), share)
        assert_close(np.asarray(line.get_ydata()), np.maximum.accumulate(share[::-1])[::-1])
    assert_equal((ax.get_yscale(), ax.get_xlabel()), ("log", "degree"))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_train_is_drawn_as_the_tucker_tensor_it_is(order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    factors = [rng.standard_normal((n, 3)) for n in (5, 6, 4)]
    modes = [Chebyshev(5), Discrete(6), Chebyshev(4, (0.0, 2.0))]
    t = Tucker(rng.standard_normal((3, 3, 3)), factors, modes)
    train = 1 * t.to_train(order=order).round(tol=1e-12)  # without a report
    drawings = (
        plot.coefficient_decay,
        plot.singular_values,
        lambda *a, **k: plot.function_slice(a[0], {1: 2}, **k),
    )
    for draw in drawings:
        want, got = draw(t, ax=panel()), draw(train, ax=panel())
        assert_equal(len(got.lines), len(want.lines))
        for one, other in zip(got.lines, want.lines, strict=True):
            assert_close(
                np.asarray(one.get_ydata(), float), np.asarray(other.get_ydata(), float), factor=1000
            )
        for one, other in zip(got.collections[:1], want.collections[:1], strict=True):
            assert_close(np.asarray(one.get_array()), np.asarray(other.get_array()), factor=1000)


def test_the_estimated_error_is_a_line_and_zero_coefficients_are_left_out() -> None:
    t = Tucker(
        np.ones(1), [np.array([[1.0], [0.0], [1e-3]])], [Chebyshev(3)], info=Report(True, "", rel_error=1e-5)
    )
    ax = plot.coefficient_decay(t, ax=panel())
    assert_close(np.asarray(ax.lines[1].get_ydata())[[0, 2]], np.array([1.0, 1e-3]))
    assert np.isnan(ax.lines[1].get_ydata()[1])
    assert_close(float(ax.lines[2].get_ydata()[0]), 1e-5)
    with pytest.raises(ShapeError) as error:
        plot.coefficient_decay(CP(None, [np.ones((2, 1))]), ax=panel())
    assert_says(error, "coefficient_decay", "Chebyshev")


def test_singular_values_are_those_of_the_unfoldings(make) -> None:
    X = np.random.default_rng(0).standard_normal((3, 4, 5)) * 0.1 ** np.arange(5)
    eyes = [make.asarray(np.eye(size)) for size in X.shape]
    terms = np.indices(X.shape).reshape(3, -1)
    cp = CP(make.asarray(X.ravel()), [eye[:, index] for eye, index in zip(eyes, terms, strict=True)])
    for t in (Tucker(make.asarray(X), eyes), cp):
        ax = plot.singular_values(t, ax=panel(), names=NAMES)
        norm = np.linalg.norm(X.reshape(3, -1), 2)
        for n, line in enumerate(ax.lines):
            want = np.linalg.svd(np.moveaxis(X, n, 0).reshape(X.shape[n], -1), compute_uv=False)
            top = max(
                norm, *(np.linalg.norm(np.moveaxis(X, m, 0).reshape(X.shape[m], -1), 2) for m in (1, 2))
            )
            got = np.asarray(line.get_ydata(), dtype=float)
            assert_below(np.abs(got - want / top).max(), 20 * make.eps, "error")
    assert_equal([text.get_text() for text in ax.get_legend().get_texts()], NAMES)


def test_zero_and_half_precision_are_drawn_and_batches_and_arrays_refused() -> None:
    zero = Tucker(np.zeros((1, 1)), [np.ones((3, 1))] * 2, [Chebyshev(3)] * 2)
    half = Tucker(np.ones((1, 1), np.float16), [np.ones((3, 1), np.float16)] * 2, [Chebyshev(3)] * 2)
    for t in (zero, half):
        for draw in (plot.coefficient_decay, plot.singular_values, plot.function_slice):
            assert draw(t, ax=panel()).get_figure() is not None
    batch = Tucker(np.ones((2, 1)), [np.ones((2, 3, 1))], [Chebyshev(3)])
    for draw in (plot.coefficient_decay, plot.singular_values, plot.function_slice):
        for other in (batch, np.ones(3)):
            with pytest.raises(ShapeError) as error:
                draw(other, ax=panel())
            assert_says(error, draw.__name__, "without a batch")
        for names in (["x"], ["x", "x"], "xy"):
            with pytest.raises(ShapeError) as error:
                draw(zero, ax=panel(), names=names)
            assert_says(error, draw.__name__, "2 different names", repr(names))


def test_without_axes_a_figure_is_made() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    before = plt.get_fignums()
    _, t = known()
    for ax in (plot.function_slice(t), plot.coefficient_decay(t), plot.singular_values(t)):
        plt.close(ax.figure)
    assert_equal(plt.get_fignums(), before)
