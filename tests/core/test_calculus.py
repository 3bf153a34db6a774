"""Formats with continuous modes: grids, derivatives, integrals, norms and parts, against closed forms."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

import tenfac
from tenfac import CP, Chebyshev, DataError, Discrete, ShapeError, Tucker, TuckerTrain
from tenfac.core.modes.chebyshev import coefficients
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_says,
    library_of,
    to_numpy,
)

BOX = ((0.0, 2.0), (-1.0, 3.0))
SIZE = 18
TABLE = np.array([1.0, -2.0, 0.5])
# f(x, j, y) = table[j] (exp(x) cos(y) + 3 sin(x) y): modes Chebyshev, Discrete, Chebyshev
PAIRS = [(np.exp, np.cos), (lambda x: 3 * np.sin(x), lambda y: y)]


def f(x, j, y):
    return TABLE[j] * (np.exp(x) * np.cos(y) + 3 * np.sin(x) * y)


def f_x(x, j, y):
    return TABLE[j] * (np.exp(x) * np.cos(y) + 3 * np.cos(x) * y)


def f_y(x, j, y):
    return TABLE[j] * (-np.exp(x) * np.sin(y) + 3 * np.sin(x))


def interpolated(functions, mode):
    return np.stack([coefficients(g(mode.nodes())) for g in functions], axis=1)


@pytest.fixture(params=["tucker", "cp", "train"])
def hybrid(request, make):
    """The function above as a format with a discrete mode between two continuous ones."""
    modes = (Chebyshev(SIZE, BOX[0]), Discrete(3), Chebyshev(SIZE + 2, BOX[1]))
    columns = [interpolated([pair[k] for pair in PAIRS], modes[2 * k]) for k in range(2)]
    if request.param == "cp":
        factors = [columns[0], np.stack([TABLE, TABLE], axis=1), columns[1]]
        return CP(None, [make.asarray(factor) for factor in factors], modes)
    if request.param == "train":
        cores = [np.eye(2)[None], np.eye(2)[:, None], np.eye(2)[..., None]]
        factors = [columns[0], TABLE[:, None], columns[1]]
        return TuckerTrain(map(make.asarray, cores), [make.asarray(factor) for factor in factors], modes)
    core = np.zeros((2, 1, 2))
    core[0, 0, 0] = core[1, 0, 1] = 1
    factors = [columns[0], TABLE[:, None], columns[1]]
    return Tucker(make.asarray(core), [make.asarray(factor) for factor in factors], modes)


@pytest.fixture
def points(make):
    rng = np.random.default_rng(0)
    n = 5000  # several blocks
    return (
        rng.uniform(*BOX[0], n).astype(make.dtype),
        rng.integers(0, 3, n),
        rng.uniform(*BOX[1], n).astype(make.dtype),
    )


# truncation at these degrees is below 1e-13, rounding in float32 is that of sums of 20 terms
FACTOR = 2000


def test_values_and_gradients_at_many_points_equal_the_function(hybrid, points):
    like = hybrid.factors[0]
    exact = points[0].astype(float), points[1], points[2].astype(float)
    assert_close(hybrid.at(*points), f(*exact), FACTOR, like=like)
    value, gradient = hybrid.value_and_grad(*points)
    assert_close(value, f(*exact), FACTOR, like=like)
    want = np.stack([f_x(*exact), f_y(*exact)], axis=1)
    assert_close(gradient, want, 100 * FACTOR, like=like)


def test_single_points_and_shapes_broadcast(hybrid):
    value, gradient = hybrid.value_and_grad(0.5, [[0], [2]], [0.0, 1.0])
    assert_equal((tuple(value.shape), tuple(gradient.shape)), ((2, 2), (2, 2, 2)))
    value, gradient = hybrid.value_and_grad(0.5, 1, 0.25)
    assert_equal((tuple(value.shape), tuple(gradient.shape)), ((), (2,)))
    assert_close(value, float(f(0.5, 1, 0.25)), FACTOR)


def test_a_grid_equals_the_function_and_numbers_and_none_stand_for_modes(hybrid):
    x, y = np.linspace(*BOX[0], 4), np.linspace(*BOX[1], 5)
    like = hybrid.factors[0]
    want = f(x[:, None, None], np.arange(3)[None, :, None], y[None, None])
    assert_close(hybrid.on_grid(x, None, y), want, FACTOR, like=like)
    assert_close(hybrid.on_grid(x, [2, 0], y), want[:, [2, 0]], FACTOR, like=like)
    assert_close(hybrid.on_grid(x, 1, y[2]), want[:, 1, 2], FACTOR, like=like)
    assert_close(hybrid.on_grid(0.0, 1, 0.0), float(f(0.0, 1, 0.0)), FACTOR)


@pytest.mark.parametrize(
    ("axes", "error", "parts"),
    [
        (([0.0], None), ShapeError, ["one axis per mode", "got 2"]),
        ((None, None, [0.0]), ShapeError, ["mode 0", "continuous", "[0.0, 2.0]"]),
        (([[0.0]], None, [0.0]), ShapeError, ["1-way", "(1, 1)", "t.at("]),
        (([0.0], [3], [0.0]), DataError, ["mode 1", "from 0 to 2", "3"]),
        (([0.0], None, [0.0, 3.5]), DataError, ["mode 2", "[-1, 3]", "3.5", "position 1 of 2"]),
    ],
)
def test_a_wrong_grid_is_refused_by_its_mode(axes, error, parts):
    t = Tucker(np.ones((1, 1, 1)), [np.ones((2, 1)), np.ones((3, 1)), np.ones((2, 1))], some_modes())
    with pytest.raises(error) as caught:
        t.on_grid(*axes)
    assert_says(caught, "on_grid", *parts)
    with pytest.raises(DataError):
        t.on_grid([0.0] * 9, None, [0.0], max_bytes=100)


def some_modes():
    return Chebyshev(2, BOX[0]), Discrete(3), Chebyshev(2, BOX[1])


def test_a_point_outside_is_refused_with_mode_value_and_place(hybrid):
    for call in (hybrid.at, hybrid.value_and_grad):
        with pytest.raises(DataError) as error:
            call([0.5, 1.0, 2.5], 0, 0.0)
        assert_says(error, "mode 0", "[0, 2]", "2.5", "position 2 of 3")
    with pytest.raises(DataError) as error:
        hybrid.at(0.5, 3, 0.0)
    assert_says(error, "mode 1", "from 0 to 2")


def test_derivatives_and_their_sum_equal_the_closed_forms(hybrid, make):
    x, j, y = np.array([0.1, 1.9]), np.array([0, 1]), np.array([2.5, -0.5])
    like = hybrid.factors[0]
    loose = 1e4 if make.dtype == "float64" else 1e3
    assert_close(hybrid.diff(0).at(x, j, y), f_x(x, j, y), loose, like=like)
    assert_close(hybrid.diff(-1).at(x, j, y), f_y(x, j, y), loose, like=like)
    assert_close(hybrid.diff(2, order=2).at(x, j, y), -TABLE[j] * np.exp(x) * np.cos(y), 1e6, like=like)
    for got, want in zip(hybrid.grad(), (f_x, f_y), strict=True):
        assert_close(got.at(x, j, y), want(x, j, y), loose, like=like)
    laplacian = hybrid.laplacian()
    want = -TABLE[j] * 3 * np.sin(x) * y  # that of exp(x) cos(y) is zero
    assert_close(laplacian.at(x, j, y), want, 1e6, like=like)
    if not isinstance(hybrid, CP):
        assert_equal(laplacian.rank, (4, 1, 4))
    if isinstance(hybrid, TuckerTrain):
        assert_equal(laplacian.train_rank, (4, 4))


def test_no_derivative_nor_integral_along_a_discrete_mode(hybrid):
    for call, word in ((hybrid.diff, "derivative"), (hybrid.integrate, "t.sum")):
        with pytest.raises(TypeError) as error:
            call(1)
        assert_says(error, word)
    for order in (0, -1, 1.0, True):
        with pytest.raises(ShapeError) as error:
            hybrid.diff(0, order=order)
        assert_says(error, "order", repr(order))
    plain = CP(None, [np.ones((3, 1))])
    for call in (plain.grad, plain.laplacian, plain.integrate, lambda: plain.value_and_grad(0)):
        with pytest.raises(ShapeError) as error:
            call()
        assert_says(error, "continuous mode", "Chebyshev")


def test_integrals_equal_the_closed_forms(hybrid):
    like = hybrid.factors[0]
    e, s = math.expm1(2.0), math.sin(3.0) + math.sin(1.0)
    table = TABLE * (e * s + 3 * (1 - math.cos(2.0)) * 4.0)
    got = hybrid.integrate()
    assert_equal(got.modes, (Discrete(3),))
    assert_close(got.to_tensor(), table, FACTOR, like=like)
    y = np.array([0.0, 1.5])
    want = TABLE[1] * (e * np.cos(y) + 3 * (1 - math.cos(2.0)) * y)
    assert_close(hybrid.integrate(0).at(1, y), want, FACTOR, like=like)
    assert_close(hybrid.marginal([0]).at(0.0), float(TABLE.sum() * s), FACTOR)
    assert_close(hybrid.marginal(1).to_tensor(), table, FACTOR, like=like)
    assert_close(hybrid.marginal(2).at(y), want * TABLE.sum() / TABLE[1], FACTOR, like=like)
    assert_close(hybrid.fix({1: 0}).integrate(), float(table[0]), FACTOR)
    assert_equal(library_of(hybrid.fix({1: 0}).integrate()), library_of(like))


def test_cumulative_integrals_and_sums_equal_the_closed_forms(hybrid):
    x, y, like = np.array([0.0, 0.7, 2.0]), 1.25, hybrid.factors[0]
    want = TABLE[2] * (np.expm1(x) * np.cos(y) + 3 * (1 - np.cos(x)) * y)
    assert_close(hybrid.cumsum(0).at(x, 2, y), want, FACTOR, like=like)
    values = f(0.5, np.arange(3), y).cumsum()
    assert_close(hybrid.cumsum(1).at(0.5, np.arange(3), y), values, FACTOR, like=like)


def test_fixed_and_restricted_functions_are_the_same_function(hybrid):
    like = hybrid.factors[0]
    x = np.array([0.5, 0.75])
    assert_close(hybrid.fix({0: 0.5, 1: 2}).at(x), f(0.5, 2, x), FACTOR, like=like)
    assert_close(hybrid.fix({0: 0.5, 1: 2, 2: 1.0}), float(f(0.5, 2, 1.0)), FACTOR)
    part = hybrid.restrict([(0.5, 1.0), None, (0.0, 1.0)])
    assert_equal(part.domain, ((0.5, 1.0), None, (0.0, 1.0)))
    assert_close(part.at(x, [0, 1], 0.3), f(x, [0, 1], 0.3), FACTOR, like=like)
    for wrong, kind in (([None], ShapeError), ([(0.5, 2.5), None, None], DataError)):
        with pytest.raises(kind) as error:
            hybrid.restrict(wrong)
        assert_says(error, "restrict")
    with pytest.raises(TypeError) as error:
        hybrid.restrict([None, (0, 1), None])
    assert_says(error, "Discrete", "mode 1")
    for wrong in ({0: [0.5, 1.0]}, {0: 1.0, -3: 1.0}):
        with pytest.raises(ShapeError) as error:
            hybrid.fix(wrong)
        assert_says(error, "fix")


def test_norm_and_inner_are_integrals_over_continuous_and_sums_over_discrete_modes(hybrid):
    nodes, weights = np.polynomial.legendre.leggauss(30)
    x, y = 1 + nodes, 1 + 2 * nodes
    values = f(x[:, None, None], np.arange(3)[None, :, None], y[None, None])
    square = 2 * np.einsum("ijk,i,k->", values**2, weights, weights)
    assert_close(hybrid.norm(), float(np.sqrt(square)), FACTOR)
    assert_close(hybrid.inner(hybrid), float(square), FACTOR)
    slope = hybrid.diff(0)  # one coefficient less in mode 0
    slopes = f_x(x[:, None, None], np.arange(3)[None, :, None], y[None, None])
    want = 2 * np.einsum("ijk,i,k->", values * slopes, weights, weights)
    assert_close(hybrid.inner(slope), float(want), 10 * FACTOR)
    assert_close(slope.inner(hybrid), float(want), 10 * FACTOR)


def test_sums_differences_and_numbers_join_functions_of_other_degrees(hybrid):
    x, j, y = np.array([0.1, 1.9]), np.array([0, 1]), np.array([2.5, -0.5])
    like, slope = hybrid.factors[0], hybrid.diff(0)
    both = hybrid + slope
    assert_equal(both.coef_shape, hybrid.coef_shape)
    assert_close(both.at(x, j, y), f(x, j, y) + f_x(x, j, y), 1e4, like=like)
    assert_close((slope - 2 * hybrid).at(x, j, y), f_x(x, j, y) - 2 * f(x, j, y), 1e4, like=like)
    for got, want in (
        (hybrid + 3, f(x, j, y) + 3),
        (1 - hybrid, 1 - f(x, j, y)),
        (hybrid - 0.5, f(x, j, y) - 0.5),
    ):
        assert_close(got.at(x, j, y), want, FACTOR, like=like)
    assert_close((np.float64(2.0) + hybrid / 4).at(x, j, y), 2 + f(x, j, y) / 4, FACTOR, like=like)
    other = hybrid.restrict([(0.0, 1.0), None, None])
    for call in (lambda: hybrid + other, lambda: hybrid.inner(other)):
        with pytest.raises(ShapeError) as error:
            call()
        assert_says(error, "one domain", "Restrict")


def test_rounding_keeps_the_function_and_drops_what_is_twice_there(hybrid, make):
    t = hybrid.to_tucker() if isinstance(hybrid, CP) else hybrid
    small = (t + t).round(tol=1e-4)
    assert_equal(small.rank, (2, 1, 2))
    x = np.array([0.1, 1.9])
    assert_below(np.abs(to_numpy(small.at(x, 0, x)) - 2 * f(x, 0, x)).max(), 1e-3, "error")
    assert_equal(small.modes, t.modes)


@cache
def on_fine_grid():
    x, y = (np.linspace(*ends, 801) for ends in BOX)
    return f(x[:, None, None], np.arange(3)[:, None], y)


def test_extrema_are_found_with_their_place(hybrid):
    grid = on_fine_grid()
    value, place = hybrid.max()
    assert_above(value, grid.max() - 1e-5 * abs(grid.max()), "maximum")
    assert_below(abs(value - f(*place)), 1e-5 * abs(value), "value at its place")
    low = hybrid.min()
    assert_below(low.value, grid.min() + 1e-5 * abs(grid.min()), "minimum")
    assert_equal(type(low.place[1]), int)


def test_a_smooth_maximum_inside_is_found_to_rounding():
    mode = Chebyshev(40, (-1.0, 2.0))
    bump = coefficients(np.exp(-4 * (mode.nodes() - 0.3) ** 2))[:, None]
    for size in (1.0, 1e8, 1e-8):  # of no matter for the climb
        value, place = Tucker(np.full((1, 1), size), [bump, bump], [mode, mode]).max()
        assert_below(abs(value / size - 1), 1e-12, "value")
        assert_below(max(abs(x - 0.3) for x in place), 1e-5, "place")
    with pytest.raises(ShapeError):
        CP(None, [np.ones((2, 3, 1))]).max()
    with pytest.raises(DataError, match="real values"):  # was the largest real part, with a warning of numpy
        CP(None, [1j * np.ones((2, 1))]).max()


def test_discrete_formats_have_extrema_and_grids_too():
    t = CP(None, [np.array([[1.0], [-4.0]]), np.array([[2.0], [3.0], [1.0]])])
    assert_equal((tuple(t.max()), tuple(t.min())), ((3.0, (0, 1)), (-12.0, (1, 1))))
    assert_close(t.on_grid([1], None), t.to_tensor()[1:])


def test_functions_are_saved_and_come_back_bit_by_bit(hybrid, tmp_path):
    path = tmp_path / "f.tenfac"
    tenfac.save(hybrid, path)
    back = tenfac.load(path)
    assert_equal(back.modes, hybrid.modes)
    for a, b in zip(back.factors, hybrid.factors, strict=True):
        assert_equal(a, b)


def test_the_repr_names_domain_and_degrees(hybrid):
    assert_says(repr(hybrid), "shape=(None, 3, None)", "domain=[0, 2] x - x [-1, 3]", "degree=(17, -, 19)")
    assert_equal(hybrid.degree, (17, None, 19))


def test_one_to_five_modes_and_batches_have_the_same_methods(make):
    for d in range(1, 6):
        modes = [Chebyshev(n + 2) for n in range(d)]
        ranks = (2, 3, 1, 2, 2)[:d]
        t = Tucker(make(*ranks), [make(m.size, r) for m, r in zip(modes, ranks, strict=True)], modes)
        x = np.random.default_rng(d).uniform(-1, 1, (d, 50)).astype(make.dtype)
        basis = [
            np.polynomial.chebyshev.chebvander(v.astype(float), m.size - 1)
            for v, m in zip(x, modes, strict=True)
        ]
        dense = np.einsum(to_numpy(t.core).astype(float), list(range(d)), *[
            part for n, factor in enumerate(t.factors)
            for part in (basis[n] @ to_numpy(factor).astype(float), [9, n])
        ], [9])  # fmt: skip
        scale = max(float(np.abs(dense).max()), 1.0)
        assert_close(t.at(*x), dense, 300, like=t.core, scale=scale)
        value, gradient = t.value_and_grad(*x)
        assert_close(value, dense, 300, like=t.core, scale=scale)
        for n, slope in enumerate(t.grad()):
            assert_close(gradient[:, n], to_numpy(slope.at(*x)), 1000, like=t.core, scale=10 * scale)
    batch = Tucker(make(4, 2, 2), [make(4, 3, 2), make(4, 5, 2)], [Chebyshev(3), Chebyshev(5)])
    value, gradient = batch.value_and_grad([0.1, 0.2, 0.3], 0.5)
    assert_equal((tuple(value.shape), tuple(gradient.shape)), ((4, 3), (4, 3, 2)))
    assert_equal(tuple(batch.norm().shape), (4,))
    assert_equal(tuple(batch.integrate().shape), (4,))
    assert_equal(tuple(batch.laplacian().on_grid([0.0], [0.0, 1.0]).shape), (4, 1, 2))


@pytest.mark.parametrize(
    ("seed", "second"), [(156, Discrete(3)), (266, Discrete(3)), (108, Chebyshev(5, (4.97, 4.99)))]
)
def test_the_highest_of_several_peaks_is_found(seed, second):
    rng, first = np.random.default_rng(seed), Chebyshev(5, (4.97, 4.99))  # 0.36 too low in each before
    t = CP(None, [rng.standard_normal((mode.size, 2)) for mode in (first, second)], [first, second])
    fine = np.linspace(4.97, 4.99, 301)
    values = t.on_grid(fine, None if second.domain is None else fine)
    assert_above(t.max().value, values.max() - 1e-9, "maximum")
    assert_below(t.min().value, values.min() + 1e-9, "minimum")


def test_wrong_values_are_refused_by_the_name_of_what_was_called():
    t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:]] * 2, [Chebyshev(2)] * 2)
    with pytest.raises(DataError) as caught:
        t.fix({0: 2.0})
    assert_says(caught, "fix: the value of mode 0")
    with pytest.raises(ShapeError) as caught:
        t.restrict(None)
    assert_says(caught, "restrict: needs one interval or None per mode, 2")


@pytest.mark.parametrize("rank", [1, 2])
def test_value_and_gradient_need_no_derivative_in_the_format(rank, monkeypatch):
    monkeypatch.setattr(CP, "diff", None)
    t = CP(None, [np.ones((3, rank))] * 2, [Chebyshev(3)] * 2)
    value, gradient = t.value_and_grad(0.5, 1.0)  # 1 + x + 2 x^2 - 1 in each mode
    assert_close(value, 3.0 * rank)
    assert_close(gradient, np.array([9.0, 5.0]) * rank)


def test_a_function_of_rank_zero_is_zero_with_its_gradient():
    t = CP(None, [np.ones((3, 0))] * 2, [Chebyshev(3)] * 2)
    value, gradient = t.value_and_grad([0.5, 1.0], 1.0)
    assert_equal(value, np.zeros(2))
    assert_equal(gradient, np.zeros((2, 2)))
