"""The GP mode against dense conditional means (Cholesky) and ``scipy.integrate.quad``."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import fixed_quad, quad

from tenfac import GP, Chebyshev, DataError, Discrete, ShapeError
from tenfac.core.modes.bend import Bend
from tenfac.core.modes.process import Independent
from tenfac.core.modes.protocol import Continuous, Mode
from tenfac.core.modes.state_space import StateSpace
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import matern_dense
from tests.processes import CASES, M32, M52, PERIODIC

GRID = np.array([0.0, 0.4, 0.9, 2.1, 3.1, 4.7, 5.0])
DOMAIN = (-1.0, 6.5)
POINTS = np.unique([*np.linspace(*DOMAIN, 31), *GRID, 4.699999, 4.700001])
MATERN = ["matern12", "matern32", "matern52"]
# kernels that take any values at knots; a constant or a line alone does not
FREE = [name for name in CASES if name not in ("constant", "line")]
VALUES = np.random.default_rng(3).normal(size=(GRID.size, 2))
# an interval is a 16-point sum of exponentials; inverses between knots lose three digits
FACTOR = 2000


def mode_of(name, **options):
    return GP(CASES[name][0], GRID, **{"domain": DOMAIN, **options})


def dense(name, x, values=VALUES):
    kernel = CASES[name][1]
    return kernel(x, GRID) @ scipy.linalg.cho_solve(scipy.linalg.cho_factor(kernel(GRID, GRID)), values)


def pieces(function, low, high):
    """Integral from knot to knot of a function of arrays, by 40 points of Gauss and Legendre each."""
    edges = [low, *(x for x in GRID if low < x < high), high]
    return sum(fixed_quad(function, a, b, n=40)[0] for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize("name", FREE)
def test_values_equal_the_dense_conditional_mean_on_between_and_beyond_knots(name):
    mode, want = mode_of(name), dense(name, POINTS)
    factor = mode.factor(VALUES)
    scale = np.abs(want).max()
    assert_below(np.abs(mode.rows(factor, POINTS) - want).max(), 1e-10 * scale, "difference to dense")
    assert_below(np.abs(mode.rows(factor, GRID) - VALUES).max(), 1e-11 * scale, "difference at knots")
    assert_equal(tuple(mode.rows(factor, 0.5).shape), (2,))


def test_every_library_and_dtype_gives_the_same_values(make):
    mode = mode_of("matern52")
    factor = mode.factor(make.asarray(VALUES), level=make.asarray([1.0, 0.0]))
    level = np.array([1.0, 0.0])
    want = dense("matern52", POINTS, VALUES - level) + level
    assert_close(mode.rows(factor, make.asarray(POINTS)), want, FACTOR, like=factor)
    batch = make.asarray(np.stack([VALUES, 2 * VALUES]))
    assert_close(mode.rows(mode.factor(batch), POINTS)[1], 2 * dense("matern52", POINTS), FACTOR, like=factor)


@pytest.mark.parametrize(("name", "order"), [("matern32", 1), ("matern52", 1), ("matern52", 2), ("sum", 0)])
def test_derivatives_equal_those_of_the_dense_mean(name, order):
    # by a polynomial through values a little to the left and right, within one interval
    mode = mode_of(name)
    factor, step = mode.factor(VALUES), 0.02
    around = np.polynomial.legendre.leggauss(9)[0] * step
    for place in (-0.5, 0.6, 2.5, 5.9):
        fits = [
            np.polynomial.Polynomial.fit(place + around, column, 8)
            for column in dense(name, place + around).T
        ]
        want = np.array([fit.deriv(order)(place) if order else fit(place) for fit in fits])
        got = mode.rows(factor, place, derivative=order)
        assert_below(np.abs(got - want).max(), 1e-7 * np.abs(VALUES).max() / step**order * 0.02, "derivative")


@pytest.mark.parametrize("name", ["matern32", "matern52"])
def test_derivatives_equal_the_dense_formula_to_ten_digits(name):
    nu = {"matern32": 1.5, "matern52": 2.5}[name]
    process, kernel = CASES[name]
    rate = np.sqrt(2 * nu) / process.lengthscale
    signed = rate * (POINTS[:, None] - GRID)
    size = np.abs(signed)
    slope = -rate * np.exp(-size) * (signed if nu == 1.5 else signed * (1 + size) / 3)
    want = slope @ scipy.linalg.cho_solve(scipy.linalg.cho_factor(kernel(GRID, GRID)), VALUES)
    mode, factor = mode_of(name).diff(mode_of(name).factor(VALUES))
    assert_equal(mode.derivative, 1)
    assert_below(np.abs(mode.rows(factor, POINTS) - want).max(), 1e-10 * np.abs(want).max(), "slope")


@pytest.mark.parametrize("name", ["matern12", "matern52", "quasi-periodic", "product"])
def test_integrals_and_inner_products_equal_quadrature_of_the_dense_mean(name):
    level = np.array([0.5, -1.0])
    mode, factor = mode_of(name), mode_of(name).factor(VALUES, level=level)

    def value(x):
        return dense(name, x, VALUES - level) + level

    want = [pieces(lambda x, c=c: value(x)[:, c], *DOMAIN) for c in range(2)]
    assert_below(np.abs(mode.integral(factor) @ factor - want).max(), 1e-10 * np.abs(want).max(), "integral")
    gram, root = mode.gram(factor), mode.gram_root(factor)
    want = pieces(lambda x: value(x).prod(axis=1), *DOMAIN)
    assert_below(abs((factor.T @ gram @ factor)[0, 1] - want), 1e-10 * abs(want), "inner product")
    assert_close(root.T @ root, gram)
    assert_equal(np.tril(root, -1).any(), False)


def test_integrals_equal_adaptive_quadrature_of_the_dense_mean():
    mode, factor = mode_of("matern32"), mode_of("matern32").factor(VALUES)
    want = quad(lambda x: dense("matern32", np.array([x]))[0, 0], *DOMAIN, points=GRID, epsabs=1e-12)[0]
    assert_below(abs(mode.integral(factor) @ factor[:, 0] - want), 1e-10 * abs(want), "integral")


def test_inner_products_of_integrals_equal_quadrature():
    mode, factor = mode_of("matern12").antiderivative(mode_of("matern12").factor(VALUES, level=[0.5, -1.0]))
    want = pieces(lambda x: mode.rows(factor, x).prod(axis=1), *DOMAIN)
    root = mode.gram_root(factor) @ factor
    assert_below(abs(root[:, 0] @ root[:, 1] - want), 1e-12 * abs(want), "inner product")
    want = pieces(lambda x: mode.rows(factor, x)[:, 0], *DOMAIN)
    assert_below(abs(mode.integral(factor) @ factor[:, 0] - want), 1e-12 * abs(want), "integral")


@pytest.mark.parametrize("name", ["matern12", "sum"])
def test_the_integral_from_the_left_is_zero_there_and_its_derivative_is_the_function(name, make):
    mode, values = mode_of(name), make.asarray(VALUES)
    factor = mode.factor(values, level=make.asarray([0.5, -1.0]))
    longer, integral = mode.antiderivative(factor)
    assert_equal(longer.derivative, -1)
    for x in (DOMAIN[0], 0.9, 2.7, 6.2):
        want = [pieces(lambda t, c=c: to_numpy(mode.rows(factor, t))[:, c], DOMAIN[0], x) for c in range(2)]
        assert_close(longer.rows(integral, x), np.array(want), FACTOR, like=factor, scale=10.0)
    back, derivative = longer.diff(integral)
    assert_equal(back, mode)
    assert_equal(derivative, factor)


def test_the_integral_of_a_derivative_is_the_function_less_its_start():
    mode = mode_of("matern52")
    factor = mode.factor(VALUES, level=2.0)
    back, integral = GP.antiderivative(*mode.diff(factor))
    assert_equal(back, mode)
    rows = mode.rows(factor, POINTS)
    assert_close(back.rows(integral, POINTS), rows - rows[0], FACTOR)


@pytest.mark.parametrize("name", ["matern12", "matern52", "trend and season"])
def test_more_knots_and_a_part_of_the_domain_hold_the_same_functions(name):
    mode = mode_of(name)
    factor = mode.factor(VALUES, level=[0.5, -1.0])
    other = GP(CASES[name][0], [-0.5, 0.4, 1.0, 5.7], domain=DOMAIN)
    both = mode.common(other)
    assert_equal(both.grid, tuple(np.union1d(mode.grid, other.grid)))
    want = mode.rows(factor, POINTS)
    assert_close(both.rows(mode.embed(both, factor), POINTS), want, FACTOR)
    inside = POINTS[(POINTS >= 0.3) & (POINTS <= 6.0)]
    starts = [(mode, factor)] + ([mode.antiderivative(factor)] if name in MATERN else [])
    for start, start_factor in starts:
        part, found = start.restrict(start_factor, (0.3, 6.0))
        assert_equal(part.domain, (0.3, 6.0))
        assert_close(part.rows(found, inside), start.rows(start_factor, inside), FACTOR)
    with pytest.raises(DataError) as error:
        mode.restrict(factor, (0.3, 6.6))
    assert_says(error, "[-1, 6.5]", "[0.3, 6.6]", "domain")


def test_the_constant_is_exact_and_functions_decay_to_it():
    mode = GP("matern12", [0.0, 1.0], lengthscale=0.01, domain=(-1.0, 2.0))
    assert_equal(mode.rows(mode.constant(np.ones(1)), [-1.0, 0.0, 0.3, 1.7]).ravel().tolist(), [1.0] * 4)
    factor = mode.factor(np.array([[3.0], [5.0]]), level=4.0)
    assert_close(mode.rows(factor, [-1.0, 0.0, 1.0, 2.0]).ravel(), np.array([4.0, 3.0, 5.0, 4.0]))


def test_knots_thousands_of_lengthscales_apart_and_very_close_are_integrated():
    mode = GP("matern32", [0.0, 1e-6, 1.0, 5000.0], lengthscale=0.5)
    factor = mode.factor(np.array([[1.0], [1.0 + 1e-6], [2.0], [3.0]]))
    rate, ends = np.sqrt(3) / 0.5, np.array([2.0, 3.0])
    # half of a peak of height f is f (1 + r x) exp(-r x), with slope 0 at the last knot: 2 f / r
    got = mode.integral(factor) @ factor
    inner = quad(lambda x: mode.rows(factor, x)[0], 0.0, 1.0, points=[1e-6], epsabs=1e-13)[0]
    right = quad(lambda x: mode.rows(factor, x)[0], 1.0, 30.0, epsabs=1e-13)[0] + 2 * ends[1] / rate
    assert_below(abs(got[0] - inner - right), 1e-10, "integral")


@pytest.mark.parametrize("wrong", [6.51, -1.01, np.nan, np.inf])
def test_a_point_outside_is_refused_with_its_value_and_place(make, wrong):
    mode = mode_of("matern32")
    with pytest.raises(DataError) as error:
        mode.rows(mode.factor(make.asarray(VALUES)), make.asarray([0.5, wrong, 2.0]))
    assert_says(error, "GP:", "[-1, 6.5]", f"{wrong:g}", "position 1 of 3", "`domain`")


@pytest.mark.parametrize(
    ("kernel", "grid", "options", "word"),
    [
        ("matern42", GRID, {"lengthscale": 1.0}, "matern32"),
        ("matern32", GRID, {}, "lengthscale"),
        ("matern32", GRID, {"lengthscale": 0.0}, "above 0"),
        (M32, GRID, {"lengthscale": 1.0}, "Leave it out"),
        (Independent((M32, M52)), GRID, {}, "made of"),
        (M32, [0.0, 0.0], {}, "ascending"),
        (M32, [1.0, 0.0], {}, "numpy.unique"),
        (M32, [0.0, np.nan], {}, "finite"),
        (M32, [], {}, "one or more"),
        (M32, [[0.0, 1.0]], {}, "ascending"),
        (M32, "ab", {}, "ascending"),
        (M32, [1.0], {}, "single knot"),
        (M32, GRID, {"domain": (0.0, 1.0)}, "all knots"),
        (M32, GRID, {"domain": (0.2, 6.0)}, "all knots"),
        (M32, GRID, {"domain": (0.0, 4.9)}, "all knots"),
        (M32, GRID, {"domain": (1.0, 0.0)}, "a < b"),
        (M32, GRID, {"derivative": -2}, "-1 or more"),
        (M32, GRID, {"derivative": 1.0}, "-1 or more"),
        (M32, GRID, {"derivative": 2}, "change_mode"),
    ],
)
def test_a_mode_that_is_none_is_refused(kernel, grid, options, word):
    with pytest.raises(DataError) as error:
        GP(kernel, grid, **options)
    assert_says(error, "GP:", word)


def test_what_leaves_the_mode_is_refused_and_names_change_mode():
    rough, smooth = mode_of("matern12"), mode_of("matern52")
    factor = rough.factor(VALUES)
    calls = [
        lambda: rough.diff(factor),
        lambda: rough.rows(factor, 0.5, derivative=1),
        lambda: GP.antiderivative(*rough.antiderivative(factor)),
        lambda: mode_of("matern52", derivative=1).antiderivative(np.ones((smooth.size, 1))),
        lambda: rough.common(smooth),
        lambda: rough.common(Chebyshev(3, DOMAIN)),
        lambda: rough.common(mode_of("matern12", domain=(-1.0, 7.0))),
        lambda: rough.common(Discrete(3)),
    ]
    for call in calls:
        with pytest.raises((DataError, ShapeError)) as error:
            call()
        assert_says(error, "GP", "change_mode")


def test_what_is_shown_counts_the_knots():
    assert_says(repr(GP(M32, [1.0], domain=(0.0, 2.0))), ", 1 knot in [0, 2])")
    assert_says(repr(GP(M32, [0.0, 1.0], derivative=1)), ", 2 knots in [0, 1], derivative=1)")


def test_values_that_do_not_fit_or_cannot_be_taken_are_refused():
    with pytest.raises(ShapeError) as error:
        mode_of("matern32").factor(VALUES[:3])
    assert_says(error, "(7, R)", "(3, 2)")
    with pytest.raises(ShapeError) as error:
        mode_of("matern32", derivative=1).factor(VALUES)
    assert_says(error, "diff")
    for name, knot in (("constant", "0.4"), ("line", "0.4")):
        with pytest.raises(DataError) as error:
            mode_of(name).factor(VALUES)
        assert_says(error, "any values", knot, "Matérn")


@pytest.mark.parametrize("name", list(CASES))
def test_the_description_gives_the_mode_back(name):
    mode = mode_of(name)
    header, arrays = mode.spec()
    back = GP.from_spec(header, arrays)
    assert_equal(back, mode)
    assert_equal(hash(back), hash(mode))
    assert isinstance(mode, Mode)
    assert isinstance(mode, Continuous)


def test_hyperparameters_of_torch_become_plain_numbers():
    import torch

    mode = GP(torch.tensor(2.0) * StateSpace("matern32", torch.tensor(0.5)), torch.tensor([0.0, 1.0]))
    assert_equal(mode, GP(2.0 * StateSpace("matern32", 0.5), (0, 1)))
    assert_equal(repr(mode.grid), "(0.0, 1.0)")


def test_under_jit_a_point_outside_is_nan():
    jax = pytest.importorskip("jax")
    mode = mode_of("matern12")
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        factor = jax.numpy.asarray(mode.factor(VALUES))
        got = jax.jit(mode.rows)(factor, jax.numpy.asarray([0.5, 7.0]))
        assert_equal(np.isnan(np.asarray(got)).tolist(), [[False, False], [True, True]])
        assert_close(np.asarray(got)[0], dense("matern12", np.array([0.5]))[0], FACTOR)


@pytest.mark.slow
def test_gradients_of_jax_by_the_place_are_derivatives():
    jax = pytest.importorskip("jax")
    mode = mode_of("matern32")
    exact = mode.factor(VALUES)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        factor = jax.numpy.asarray(exact)
        x = np.array([-0.5, 0.4, 1.0, 6.0])  # beyond the knots, at one, between two
        slopes = jax.jit(jax.grad(lambda x: mode.rows(factor, x)[:, 1].sum()))(jax.numpy.asarray(x))
        assert_close(np.asarray(slopes), mode.rows(exact, x, derivative=1)[:, 1], FACTOR)


def test_a_rounding_weight_is_the_root_mean_square_of_a_function():
    mode = mode_of("matern32")
    weights = mode.metric(np.ones(1))
    want = pieces(lambda x: mode.rows(np.eye(mode.size)[:, [3]], x)[:, 0] ** 2, *DOMAIN) / 7.5
    assert_below(abs(weights[3] ** 2 - want), 1e-12, "mean square")
    assert_above(weights.min(), 1e-6, "smallest weight")


BEND = Bend(sharpness=20.0, center=0.3, start=0.0, span=5.0)


def bent(x):
    """The axis written out: a scaled asinh from 0 to 5, straight beyond."""
    inside = np.clip(x / 5.0, 0, 1)
    low, high = np.arcsinh(-6.0), np.arcsinh(14.0)
    slope = 20.0 / np.sqrt(1 + (20 * (inside - 0.3)) ** 2)
    return (np.arcsinh(20 * (inside - 0.3)) - low + (x / 5.0 - inside) * slope) / (high - low)


def dense_bent(x):
    knots = bent(GRID)
    weights = np.linalg.solve(matern_dense(knots, knots, 2.5, 0.3), VALUES)
    return matern_dense(bent(x), knots, 2.5, 0.3) @ weights


def test_on_a_bent_axis_values_integrals_and_inner_products_are_those_of_the_dense_mean(make):
    mode = GP("matern52", GRID, lengthscale=0.3, domain=DOMAIN, bend=BEND)
    factor = mode.factor(make.asarray(VALUES))
    assert_close(mode.rows(factor, make.asarray(POINTS)), dense_bent(POINTS), FACTOR, like=factor)
    exact = mode.factor(VALUES)
    edges = np.unique([*DOMAIN, *GRID, *np.linspace(0, 3, 31)])
    parts = [fixed_quad(lambda x: dense_bent(x)[:, 0], a, b, n=40)[0] for a, b in itertools.pairwise(edges)]
    assert_below(abs(mode.integral(exact) @ exact[:, 0] - sum(parts)), 1e-10 * abs(sum(parts)), "integral")
    parts = [
        fixed_quad(lambda x: dense_bent(x).prod(axis=1), a, b, n=40)[0] for a, b in itertools.pairwise(edges)
    ]
    got = (exact.T @ mode.gram(exact) @ exact)[0, 1]
    assert_below(abs(got - sum(parts)), 1e-10 * abs(sum(parts)), "inner product")
    longer, integral = mode.antiderivative(exact)
    assert_close(longer.rows(integral, DOMAIN[1]), mode.integral(exact) @ exact, FACTOR)
    part, found = mode.restrict(exact, (0.3, 6.0))
    assert_close(part.rows(found, [0.3, 1.0, 5.9]), mode.rows(exact, [0.3, 1.0, 5.9]), FACTOR)
    assert_equal(GP.from_spec(*mode.spec()), mode)
    assert_says(repr(mode), "bent axis")


@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_on_a_bent_axis_follow_the_chain_rule(order):
    mode = GP("matern52", GRID, lengthscale=0.3, domain=DOMAIN, bend=BEND)
    factor, nodes = mode.factor(VALUES), np.polynomial.legendre.leggauss(13)[0]
    for place in (-0.5, 0.6, 1.5, 2.6, 5.9):
        x = place + 0.03 * nodes
        fits = [np.polynomial.Polynomial.fit(x, column, 12).deriv(order)(place) for column in dense_bent(x).T]
        got = mode.rows(factor, place, derivative=order)
        assert_below(np.abs(got - fits).max(), 1e-6 * 20**order, "derivative")
    with pytest.raises(DataError) as error:
        mode.rows(factor, 0.5, derivative=3)
    assert_says(error, "change_mode")


@pytest.mark.parametrize(
    ("name", "value"), [("sharpness", 0.0), ("center", 1.5), ("span", -1.0), ("start", np.nan)]
)
def test_an_axis_that_is_none_is_refused(name, value):
    with pytest.raises(DataError) as error:
        replace(BEND, **{name: value})
    assert_says(error, "Bend:", name)
    with pytest.raises(DataError) as error:
        GP("matern32", GRID, lengthscale=1.0, bend=value)
    assert_says(error, "GP: `bend`", repr(value))


@pytest.mark.parametrize("derivative", [-1, 0])
def test_what_a_caller_does_to_an_answer_does_not_change_the_next_one(derivative, make):
    mode = GP("matern32", [0.0, 1.0], lengthscale=1.0, derivative=derivative)
    factor = make.asarray(np.ones((mode.size, 1)))
    for name in ("integral", "gram", "gram_root", "metric", "constant"):
        answer = getattr(mode, name)(factor)
        before = to_numpy(answer).copy()
        answer *= 2
        assert_equal(to_numpy(getattr(mode, name)(factor)), before)


def test_knots_of_all_distances_are_integrated_and_nearly_equal_ones_refused_where_values_are_lost():
    grid = np.unique([*np.linspace(0, 20, 400), 3.0, 3.0 + 1e-6])
    for kernel in MATERN:
        mode = GP(kernel, grid, lengthscale=2.0)
        factor = mode.factor(np.sin(grid))
        want = np.cos(grid[0]) - np.cos(grid[-1])
        assert_below(abs(mode.integral(factor) @ factor[:, 0] - want), 0.02, "integral of a sine")
        root = mode.gram_root(factor) @ factor
        want = (grid[-1] - grid[0]) / 2 - (np.sin(2 * grid[-1]) - np.sin(2 * grid[0])) / 4
        assert_below(abs(root[:, 0] @ root[:, 0] - want), 0.02, "square of a sine")
    lost = [GP(CASES["quasi-periodic"][0], [1.0, 1.0 + 1e-8, 2.0]), GP(M52, [3.0, 3.0 + 1e-9, 3.0 + 1e-6])]
    lost.append(GP(M32, [0.0, 1.0, 1.0 + 1e-8, 1.0 + 2.5e-8, 2.3]))  # no weight of a value is large
    for mode in lost:
        with pytest.raises(DataError) as error:
            mode.factor(np.zeros(mode.n_knots))
        assert_says(error, "GP.factor", "nearly coincide")


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_knots_that_differ_by_rounding_are_one_in_a_common_mode(scale):
    kernel = StateSpace("matern32", 0.8 * scale)
    one, other = (
        GP(kernel, [0.0, 0.3 * scale * (1 + 2e-16), scale]),
        GP(kernel, [0.0, 0.3 * scale, 0.5 * scale, scale]),
    )
    both = one.common(other)
    assert_equal(both.n_knots, 4)
    x = scale * np.array([0.2, 0.3, 0.7])
    for mode in (one, other):
        factor = mode.factor(np.cos(mode.nodes() / scale))
        assert_close(both.rows(mode.embed(both, factor), x), mode.rows(factor, x))


@pytest.mark.parametrize(("kernel", "most"), [("matern12", 0), ("matern32", 1), ("matern52", 2)])
def test_a_mode_has_as_many_derivatives_as_its_kernel(kernel, most):
    mode = GP(kernel, GRID, lengthscale=0.3, domain=DOMAIN, derivative=most)
    assert_equal(
        (mode.is_smooth, replace(mode, derivative=most - 1, lengthscale=None).is_smooth), (False, True)
    )
    with pytest.raises(DataError) as error:
        GP(kernel, GRID, lengthscale=0.3, domain=DOMAIN, derivative=most + 1)
    assert_says(error, f"derivatives up to {most} exist", f"asked for {most + 1}")


def test_a_bent_axis_has_two_derivatives_where_a_straight_one_has_all():

    straight = GP(PERIODIC, GRID, domain=DOMAIN, derivative=3)
    assert_equal(straight.is_smooth, True)
    bent_axis = GP(PERIODIC, GRID, domain=DOMAIN, derivative=2, bend=BEND)
    assert_equal(bent_axis.is_smooth, False)
    with pytest.raises(DataError) as error:
        replace(bent_axis, derivative=3, lengthscale=None)
    assert_says(error, "derivatives up to 2 exist", "asked for 3")
