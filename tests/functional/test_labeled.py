"""Between formats and xarray: names, places and labels kept, values those of the function."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import numpy as np
import pytest

xr = pytest.importorskip("xarray")

from tenfac import (  # noqa: E402
    CP,
    Chebyshev,
    ConvergenceWarning,
    DataError,
    Discrete,
    FunctionalTucker,
    ShapeError,
    Tucker,
    from_xarray,
    split,
    to_xarray,
    tucker,
)
from tenfac.core.errors import MissingExtraError  # noqa: E402
from tenfac.core.modes.gp import GP  # noqa: E402
from tenfac.functional import labeled  # noqa: E402
from tests.checks import assert_below, assert_close, assert_equal, assert_says, quietly  # noqa: E402

X = np.linspace(0.0, 2.0, 60)
CELLS = ["B", "NK", "T"]


def height(x: Any, cell: Any) -> Any:
    """A sine for each cell, of amplitudes 1, 2, 3."""
    return np.sin(2 * x) * (1 + cell)


def table() -> Any:
    values = height(X[:, None], np.arange(3))
    return xr.DataArray(values, {"x": ("x", X, {"units": "mm"}), "cell": CELLS}, name="height")


def mixed(make: Any) -> Tucker:
    """``x`` (continuous on [0, 2]) times the row of ``cell`` plus one."""
    factors = [make.asarray([[1.0], [1.0]]), make.asarray([[1.0], [2.0], [3.0]])]
    return Tucker(make.asarray([[1.0]]), factors, [Chebyshev(2, (0.0, 2.0)), Discrete(3)])


def test_a_format_on_a_grid_has_its_names_places_labels_and_values(make):
    places = np.array([0.0, 0.5, 2.0])
    got = to_xarray(mixed(make), ("x", "cell"), {"x": places, "cell": CELLS}, name="height")
    assert_equal((got.dims, got.name), (("x", "cell"), "height"))
    assert_equal(got.x.values, places)
    assert_equal(got.cell.values.tolist(), CELLS)
    want = (places[:, None] * [1.0, 2.0, 3.0]).astype(make.dtype)
    assert_close(got.values, want)
    assert_close(float(got.sel(cell="NK", x=0.5)), 1.0, 1e10 if make.dtype == "float32" else 100)


def test_a_count_is_equal_steps_and_nothing_is_the_chebyshev_points():
    t = Tucker(np.ones(1), [np.eye(5)[:, 1:2]], [Chebyshev(5, (0.0, 2.0))])
    assert_close(to_xarray(t, ["x"], {"x": 9}).x.values, np.linspace(0, 2, 9))
    got = to_xarray(t)
    assert_equal(got.dims, ("dim_0",))
    assert_equal(got.dim_0.values, Chebyshev(10, (0.0, 2.0)).nodes())


@pytest.mark.parametrize("size", [1, 2, 5, 8, 17, 100])
def test_the_chebyshev_points_are_enough_to_find_the_function_again(size):
    slow = 1 / np.arange(1.0, size + 1)[:, None]  # was too coarse a grid for coefficients that do not fall
    t = Tucker(np.ones(1), [slow], [Chebyshev(size, (0.0, 2.0))])
    got = to_xarray(t)
    assert_below(got.size, 4 / 3 * size + 4, "places")
    F = from_xarray(got, 1e-12)
    assert_equal((F.modes, F.info.converged), (t.modes, True))
    assert_close(F.at(0.7), t.at(0.7), 1e4)


def test_two_places_are_the_fewest_of_a_count():
    t = Tucker(np.ones(1), [np.eye(5)[:, 1:2]], [Chebyshev(5, (0.0, 2.0))])
    assert_equal(to_xarray(t, ["x"], {"x": 2}).values.tolist(), [-1.0, 1.0])
    assert_equal(to_xarray(model(), coords={"x": 2}).x.values.tolist(), [0.0, 2.0])
    for count in (1, True):
        with pytest.raises(ShapeError):
            to_xarray(t, ["x"], {"x": count})
        with pytest.raises(ShapeError):
            to_xarray(model(), coords={"x": count})


def test_cp_and_discrete_formats_are_their_dense_arrays():
    t = CP(np.array([2.0, 3.0]), [np.arange(8.0).reshape(4, 2), np.ones((3, 2))])
    got = to_xarray(t, ("a", "b"))
    assert_close(got.values, t.to_tensor())
    assert_equal(list(got.coords), [])


def test_a_function_comes_back_from_its_own_grid():
    F = quietly(from_xarray, table(), 1e-4)
    G = from_xarray(to_xarray(F, ("x", "cell"), {"cell": CELLS}), 1e-13)
    assert G.info.converged
    assert_equal(G.modes, F.modes)
    x = np.random.default_rng(0).uniform(0, 2, 50)
    assert_close(G.at(x[:, None], np.arange(3)), F.at(x[:, None], np.arange(3)), 1e3)


def test_the_coordinates_of_a_data_array_are_taken_as_they_are():
    data = table().assign_coords(source="made up", color=("cell", ["r", "g", "b"]))
    got = to_xarray(quietly(from_xarray, data, 1e-8), data.dims, data.coords)
    assert_below(np.abs(got - data).max(), 1e-5, "error of the splines")
    assert_equal((got.x.attrs, str(got.source.values)), ({"units": "mm"}, "made up"))
    assert_equal(got.color.values.tolist(), ["r", "g", "b"])


def test_numbers_become_continuous_and_labels_stay_discrete():
    F = from_xarray(table(), tol=1e-5)
    assert_equal((F.modes[0].domain, F.modes[1]), ((0.0, 2.0), Discrete(3)))
    assert F.info.converged
    x = np.random.default_rng(1).uniform(0, 2, 200)
    for cell in range(3):
        assert_below(np.abs(F.at(x, cell) - height(x, cell)).max(), 3e-5, "error")


def test_a_dimension_without_coordinates_a_single_place_and_a_named_one_stay_discrete():
    places = {"year": [1990, 2000], "z": [0.5], "x": X[:20]}
    years = xr.DataArray(np.ones((2, 1, 4, 20)), places, ["year", "z", "cell", "x"])
    F = from_xarray(years, discrete="year")
    assert_equal(F.shape, (2, 1, 4, None))
    assert_close(F.at([0, 1], 0, 3, 0.3), np.ones(2))
    assert_equal(from_xarray(years).shape, (None, 1, 4, None))


def test_coordinates_in_any_order_are_the_same_function():
    F = from_xarray(table(), tol=1e-5)
    order = np.random.default_rng(0).permutation(60)
    for other in (table()[::-1], table()[order]):
        G = from_xarray(other, tol=1e-5)
        assert_close(G.at([0.3, 1.7], 2), F.at([0.3, 1.7], 2))


def test_cell_centers_reach_the_domain_that_is_given():
    x = (np.arange(60) + 0.5) / 30
    data = xr.DataArray(np.exp(x), {"x": x})
    F = from_xarray(data, 1e-5, domain={"x": (0, 2)})
    assert_below(abs(F.at(2.0) - np.exp(2)), 1e-4, "error at the end")


def test_a_grid_that_is_too_coarse_says_so_and_zeros_keep_their_shape():
    with pytest.warns(ConvergenceWarning, match="too coarse"):
        F = from_xarray(table()[::6], tol=1e-10)
    assert not F.info.converged
    zero = from_xarray(0 * table())
    assert_equal((zero.shape, float(zero.at(1.0, 2))), ((None, 3), 0.0))


def test_tucker_takes_the_values_of_a_data_array():
    assert_close(tucker(table(), rank=1).to_tensor(), tucker(table().values, rank=1).to_tensor())


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (lambda d: d.values, DataError, ["ndarray", "Dataset"]),
        (lambda d: d.where(d.x > 0.5), DataError, ["NaN", "FunctionalTucker"]),
        (lambda d: d + 1j, DataError, ["complex128"]),
        (lambda d: d.assign_coords(x=np.r_[X[1], X[1:]]), DataError, ["'x'", "different"]),
        (lambda d: d.assign_coords(x=np.datetime64("2020") + np.arange(60)), DataError, ["'x'", "dates"]),
    ],
    ids=["array", "nan", "complex", "twice", "dates"],
)
def test_data_that_are_no_function_are_refused(change, error, parts):
    with pytest.raises(error) as caught:
        from_xarray(change(table()))
    assert_says(caught, "from_xarray", *parts)


def test_dates_as_objects_are_refused_and_labels_as_objects_stay_discrete():
    days = [datetime.date(2020, 1, day) for day in (1, 2, 3)]
    for along in (days, [None, *days[1:]], [*days[:2], None]):
        data = table()[:, :3].assign_coords(cell=np.array(along, dtype=object))
        if along[0] is None:
            assert_equal(from_xarray(data, 1e-5).modes[1], Discrete(3))
        else:
            with pytest.raises(DataError) as caught:
                from_xarray(data, 1e-5)
            assert_says(caught, "'cell'", "dates")
    labels = table().assign_coords(cell=np.array(CELLS, dtype=object))
    assert_equal(from_xarray(labels, 1e-5).modes[1], Discrete(3))


def test_how_many_values_are_missing_is_said():
    data = table()
    data[3, 1], data[5, 0] = np.nan, np.inf
    with pytest.raises(DataError) as caught:
        from_xarray(data)
    assert_says(caught, "2 of 180 are NaN or infinite")


def test_names_that_are_no_dimension_are_refused():
    for given in ({"discrete": ["cells"]}, {"domain": {"cells": (0, 1)}}):
        with pytest.raises(ShapeError) as caught:
            from_xarray(table(), **given)
        assert_says(caught, "'cells'", "Did you mean 'cell'?")
    with pytest.raises(ShapeError) as caught:
        from_xarray(table(), domain={"cell": (0, 2)})
    assert_says(caught, "cell", "no interval")


@pytest.mark.parametrize(
    ("dims", "coords", "parts"),
    [
        (("x",), None, ["2 different names"]),
        ("xy", None, ["2 different names", "'xy'"]),
        (("x", "x"), None, ["2 different names"]),
        (("x", "cell"), {"cells": CELLS}, ["'cells'", "Did you mean 'cell'?"]),
        (("x", "cell"), {"cell": ["B", "T"]}, ["'cell'", "3", "(2,)"]),
        (("x", "cell"), {"cell": 2}, ["'cell'", "3", "()"]),
        (("x", "cell"), {"x": 1}, ["'x'", "2 or more", "t.fix"]),
        (("x", "cell"), {"x": ["a"]}, ["'x'", "numbers"]),
    ],
)
def test_names_and_coordinates_that_do_not_fit_are_refused(dims, coords, parts):
    t = Tucker(np.ones((1, 1)), [np.ones((2, 1)), np.ones((3, 1))], [Chebyshev(2, (0.0, 2.0)), Discrete(3)])
    with pytest.raises(ShapeError) as caught:
        to_xarray(t, dims, coords)
    assert_says(caught, "to_xarray", *parts)


def test_a_place_outside_a_large_result_and_what_is_no_format_are_refused():
    t = Tucker(np.ones(1), [np.ones((2, 1))], [Chebyshev(2, (0.0, 2.0))])
    with pytest.raises(DataError) as caught:
        to_xarray(t, ["x"], {"x": [1.0, 2.5]})
    assert_says(caught, "[0, 2]", "2.5")
    with pytest.raises(DataError) as caught:
        to_xarray(t, ["x"], {"x": 1000}, max_bytes=100)
    assert_says(caught, "8,000 bytes")
    for other in (np.ones(3), Tucker(np.ones((2, 1)), [np.ones((2, 3, 1))])):
        with pytest.raises(ShapeError) as caught:
            to_xarray(other)
        assert_says(caught, "to_xarray", "without a batch")


def test_a_train_is_the_same_array_and_comes_back():
    t = Tucker(
        np.ones((2, 2)), [np.eye(5)[:, 1:3], np.eye(4)[:, :2]], [Chebyshev(5, (0.0, 2.0)), Chebyshev(4)]
    )
    got = to_xarray(t.to_train(order=[1, 0]), ["x", "y"])
    assert_close(got.values, to_xarray(t).values)
    assert_close(from_xarray(got).at(0.3, 0.7), np.array(t.at(0.3, 0.7)))


def test_patches_become_an_array_at_places_that_are_given():
    x = Tucker(
        np.ones((1, 1)), [np.eye(2)[:, 1:], np.array([[1.0], [2.0], [3.0]])], [Chebyshev(2), Discrete(3)]
    )
    patches = split(x, [4, None])
    got = to_xarray(patches, ("x", "cell"), {"x": 9, "cell": CELLS})
    assert_close(got.values, np.linspace(-1, 1, 9)[:, None] * [1.0, 2.0, 3.0])
    whole = to_xarray(split(x, 1), ("x", "cell"), {"x": 9})
    assert_close(whole.values, got.values)
    with pytest.raises(ShapeError) as caught:
        to_xarray(patches, ("x", "cell"))
    assert_says(caught, "say where 'x' is evaluated", "coords={'x': places}")


# --- fitted models ----------------------------------------------------------------------------------------


def model() -> FunctionalTucker:
    columns = {"cell": np.repeat(CELLS, 8), "x": np.tile(np.linspace(0, 2, 8), 3)}
    return FunctionalTucker(max_iter=0).fit(columns, height(columns["x"], np.repeat(np.arange(3), 8)))


def test_a_posterior_on_a_grid_has_the_names_of_the_table_and_its_predictions():
    fitted = model()
    got = to_xarray(fitted, coords={"x": [0.5, 1.25], "cell": ["T", "B"]})
    assert_equal((dict(got.sizes), list(got)), ({"cell": 2, "x": 2}, ["mean", "std"]))
    want = fitted.predict({"cell": ["T", "T", "B", "B"], "x": [0.5, 1.25] * 2}, return_std=True)
    for name, values in zip(("mean", "std"), want, strict=True):
        assert_equal(got[name].values.ravel(), values)
    assert_equal(got["mean"].sel(cell="B", x=1.25).values[()], want[0][3])


def test_a_posterior_on_a_grid_has_the_bytes_of_its_mean_and_deviation():
    fitted = model()
    places = {"x": [0.5, 1.25], "cell": ["T", "B"]}
    assert_equal(to_xarray(fitted, coords=places, max_bytes=64)["mean"].size, 4)
    with pytest.raises(DataError, match="64 bytes"):
        to_xarray(fitted, coords=places, max_bytes=63)


def test_a_posterior_without_places_is_on_what_it_has_seen_and_a_count_is_equal_steps():
    got = to_xarray(model(), name="height")
    assert_equal(list(got), ["height", "height_std"])
    assert_equal(got.cell.values.tolist(), CELLS)
    assert_close(got.x.values, np.linspace(0, 2, 8))
    assert_close(to_xarray(model(), coords={"x": 5}).x.values, np.linspace(0, 2, 5))


def test_the_mean_of_a_posterior_as_a_function_keeps_the_names_it_is_given():
    fitted = model()
    F = fitted.mean_tucker()
    got = to_xarray(F, fitted.mode_names_, {"cell": CELLS, "x": [0.3, 1.1]})
    want = to_xarray(fitted, coords={"x": [0.3, 1.1]})["mean"]
    assert_equal(got.dims, want.dims)
    assert_below(float(abs(got - want).max()), 1e-3 * float(abs(want).max()), "difference")


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"dims": ["a", "b"]}, ("cell, x", "rename")),
        ({"coords": {"y": 3}}, ("cell, x", "'y'")),
        ({"coords": {"x": 0.5}}, ("coords['x']", "places", "X.sel")),
        ({"coords": {"cell": 2}}, ("coords['cell']", "labels")),
        ({"coords": {"cell": ["Q"]}}, ("'cell'", "unseen label 'Q'")),
        ({"max_bytes": 10}, ("max_bytes", "fewer places")),
    ],
    ids=str,
)
def test_a_grid_that_a_posterior_cannot_have_is_refused(wrong: dict[str, Any], parts: tuple[str, ...]):
    with pytest.raises((ShapeError, DataError)) as error:
        to_xarray(model(), **wrong)
    assert_says(error, *parts)


def test_a_model_that_is_not_fitted_is_refused():
    with pytest.raises(ShapeError) as error:
        to_xarray(FunctionalTucker())
    assert_says(error, "a fitted FunctionalTucker")


def test_a_mode_with_knots_is_evaluated_there_and_at_its_ends_and_a_missing_library_is_said(
    monkeypatch,
):
    mode = GP("matern32", np.linspace(0.25, 1.5, 6).tolist(), lengthscale=1.0, domain=(0.0, 2.0))
    places, coordinate = labeled._axis("x", mode, None)
    assert_equal(places.tolist(), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0])
    assert_equal(coordinate, places)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(MissingExtraError) as error:
        to_xarray(Tucker(np.ones(1), [np.ones((3, 1))]))
    assert_says(error, "to_xarray", "pip install 'tenfac[xarray]'")
