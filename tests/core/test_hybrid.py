"""Formats that mix discrete, Chebyshev and GP modes: ligand, dose and time, against dense formulas."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.polynomial import chebyshev as polynomials

import tenfac
from tenfac import CP, GP, Chebyshev, DataError, Discrete, ShapeError, Tucker
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_says,
    library_of,
    to_numpy,
)
from tests.oracles import matern_dense

DOSES, TIMES = (0.0, 2.0), (-1.0, 7.0)
KNOTS = np.array([0.0, 0.7, 1.5, 3.0, 4.2, 6.0])
MODES = (Discrete(3), Chebyshev(5, DOSES), GP("matern52", KNOTS, lengthscale=2.0, domain=TIMES))
RANK = (2, 2, 3)
RNG = np.random.default_rng(0)
CORE, TABLE = RNG.normal(size=RANK), RNG.normal(size=(3, 2))
SERIES, VALUES, LEVEL = RNG.normal(size=(5, 2)), RNG.normal(size=(6, 3)), np.array([0.5, -1.0, 0.0])
FACTOR = 2000  # sums of products of polynomials and of inverses between knots


def gp_dense(times):
    """``level + k(x, grid) K^-1 (f - level)``."""
    weights = np.linalg.solve(matern_dense(KNOTS, KNOTS, 2.5, 2.0), VALUES - LEVEL)
    return matern_dense(times, KNOTS, 2.5, 2.0) @ weights + LEVEL


def dense(doses, times):
    """Values on the grid of all ligands, doses and times, written out."""
    shares = (2 * np.asarray(doses) - sum(DOSES)) / (DOSES[1] - DOSES[0])
    rows = [TABLE, polynomials.chebval(shares, SERIES).T.reshape(-1, 2), gp_dense(np.asarray(times))]
    return np.einsum("abc,ia,jb,kc->ijk", CORE, *rows)


def created(kind, make):
    factors = [TABLE, SERIES, MODES[2].factor(VALUES, level=LEVEL)]
    t = Tucker(make.asarray(CORE), [make.asarray(factor) for factor in factors], MODES)
    return {"tucker": lambda: t, "cp": t.to_cp, "train": t.to_train}[kind]()


@pytest.fixture(params=["tucker", "cp", "train"])
def hybrid(request, make):
    return created(request.param, make)


@cache
def grids():
    doses, times = np.linspace(*DOSES, 7), np.array([-1.0, -0.3, 0.0, 0.4, 0.7, 2.0, 5.0, 6.0, 6.5, 7.0])
    return doses, times, dense(doses, times)


def test_values_equal_the_dense_formulas(hybrid, make):
    doses, times, want = grids()
    assert_close(hybrid.on_grid(None, doses, times), want, FACTOR, like=hybrid.factors[0])
    i, j, k = np.indices(want.shape).reshape(3, -1)
    got = hybrid.at(make.index(i), make.asarray(doses[j]), make.asarray(times[k]))
    assert_close(got, want.ravel(), FACTOR, like=hybrid.factors[0])
    assert_close(hybrid.fix({2: times[3]}).fix({1: doses[2]}).to_tensor(), want[:, 2, 3], FACTOR, like=got)
    assert_close(hybrid[1].on_grid(doses, times), want[1], FACTOR, like=got)
    assert_equal(hybrid.shape, (3, None, None))


class Numpy:
    """Arrays as they are."""

    def asarray(self, values):
        return np.asarray(values)


def test_derivatives_by_every_continuous_mode_come_together(hybrid, make):
    place = (np.array([0, 2, 1]), np.array([0.3, 1.0, 1.9]), np.array([0.2, 3.3, -0.5]))
    value, slope = hybrid.value_and_grad(*place)
    assert_close(value, to_numpy(hybrid.at(*place)), FACTOR, like=hybrid.factors[0])
    nodes = 0.05 * np.polynomial.legendre.leggauss(11)[0]
    for k, (i, x, t) in enumerate(zip(*place, strict=True)):
        fits = [(x + nodes, dense(x + nodes, [t])[i, :, 0]), (t + nodes, dense([x], t + nodes)[i, 0])]
        slopes = [np.polynomial.Polynomial.fit(*fit, 10).deriv() for fit in fits]
        want = np.array([one(at) for one, at in zip(slopes, (x, t), strict=True)])
        assert_close(slope[k], want, 1e6 if make.dtype == "float64" else FACTOR, like=value)
    assert_close(hybrid.diff(2).at(*place), to_numpy(slope)[:, 1], FACTOR, like=value)


@cache
def quadrature():
    """Values at nodes of Gauss and Legendre from knot to knot, and the weights of doses and times."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    edges = np.unique([*TIMES, *KNOTS])
    halves = np.diff(edges)[:, None] / 2
    times, parts = (edges[:-1, None] + halves * (nodes + 1)).ravel(), (halves * weights).ravel()
    half = (DOSES[1] - DOSES[0]) / 2
    return dense(DOSES[0] + half * (nodes + 1), times), half * weights, parts


def test_integrals_norms_and_inner_products_equal_quadrature(hybrid):
    values, *weights = quadrature()
    like = hybrid.factors[0]
    want = np.einsum("ijk,j,k->i", values, *weights)
    assert_close(hybrid.integrate().to_tensor(), want, FACTOR, like=like)
    assert_close(hybrid.integrate(2).integrate(1).to_tensor(), want, FACTOR, like=like)
    square = np.einsum("ijk,j,k->", values**2, *weights)
    assert_close(to_numpy(hybrid.inner(hybrid)), square, FACTOR, like=to_numpy(like))
    assert_close(to_numpy(hybrid.norm()), np.sqrt(square), FACTOR, like=to_numpy(like))
    nothing = to_numpy((hybrid - hybrid).norm())
    assert_close(nothing, np.zeros(()), FACTOR, like=to_numpy(like), scale=np.sqrt(square))
    whole = to_numpy(hybrid.cumsum(2).at(1, 0.5, TIMES[1]))
    assert_close(whole, to_numpy(hybrid.integrate(2).at(1, 0.5)), FACTOR)


def test_functions_of_other_knots_and_degrees_are_added(hybrid, make):
    doses, times, want = grids()
    late = GP("matern52", [1.0, 4.2], lengthscale=2.0, domain=TIMES)
    factors = [TABLE[:, :1], SERIES[:3, :1], late.factor(np.array([1.0, -2.0]))]
    modes = (Discrete(3), Chebyshev(3, DOSES), late)
    other = CP(None, [make.asarray(factor) for factor in factors], modes)
    joined = hybrid + other - 1.5
    assert_equal(joined.modes[2].grid, (0.0, 0.7, 1.0, 1.5, 3.0, 4.2, 6.0))
    got = to_numpy(joined.on_grid(None, doses, times)) - to_numpy(other.on_grid(None, doses, times)) + 1.5
    assert_close(got, want, FACTOR, like=to_numpy(hybrid.factors[0]))
    rough = GP("matern12", [1.0, 4.2], lengthscale=2.0, domain=TIMES)
    unlike = CP(None, [make(rows, 1) for rows in (3, 3, 3)], (*modes[:2], rough))
    for call in (lambda: hybrid + unlike, lambda: hybrid.inner(unlike)):
        with pytest.raises(ShapeError) as error:
            call()
        assert_says(error, "one kernel", "change_mode")


def test_the_laplacian_of_a_process_is_its_second_derivative_and_is_not_added_to_others(hybrid):
    times, step = np.array([0.4, 2.0, 5.0, 6.5]), 1e-3
    values = [dense([0.5], times + shift)[1, 0] for shift in (-step, 0, step)]
    got = hybrid.fix({0: 1, 1: 0.5}).laplacian().at(times)
    scale = np.abs(values).max()
    error = np.abs(to_numpy(got) - (values[0] - 2 * values[1] + values[2]) / step**2).max()
    assert_below(error, 1e-2 * scale, "error")
    with pytest.raises(ShapeError) as error:
        hybrid.laplacian()
    assert_says(error, "laplacian", "mode 2", "t.change_mode(2, Chebyshev)")


@pytest.mark.parametrize("kind", ["tucker", "train"])
def test_rounding_keeps_the_values_and_drops_what_is_twice_there(make, kind):
    doses, times, want = grids()
    t = created(kind, make)
    twice = (t + t).round(tol=1e-5)
    assert_equal(twice.rank, (2, 2, 3))
    assert_close(twice.on_grid(None, doses, times), 2 * want, 10 * FACTOR, like=t.factors[0])
    cut = t.round(tol=0.3)
    assert_below(cut.info.rel_error, 0.3, "measured change")
    change = np.abs(to_numpy(cut.on_grid(None, doses, times)) - want).max() / np.abs(want).max()
    assert_below(change, 0.35, "change on the grid")
    assert_below(np.prod(cut.rank), 11, "numbers in the core")


def test_parts_of_the_domain_keep_the_function(hybrid):
    part = hybrid.restrict([None, (0.5, 1.5), (0.3, 6.5)])
    assert_equal(part.domain[2], (0.3, 6.5))
    doses, times = np.array([0.5, 1.2]), np.array([0.3, 0.7, 5.0, 6.5])
    assert_close(part.on_grid(None, doses, times), dense(doses, times), FACTOR, like=hybrid.factors[0])
    with pytest.raises(IndexError) as error:
        hybrid[:, :, 1]
    assert_says(error, "continuous mode", "for mode 2")
    with pytest.raises(DataError) as raised:
        hybrid.at(0, 0.5, 7.1)
    assert_says(raised, "mode 2", "[-1, 7]", "7.1")


def test_the_largest_value_is_found_in_all_modes():
    value, place = created("tucker", Numpy()).max()
    fine = dense(np.linspace(*DOSES, 301), np.linspace(*TIMES, 401))
    assert_above(value, fine.max() - 1e-4, "maximum")
    assert_below(abs(value - dense([place[1]], [place[2]])[place[0], 0, 0]), 1e-4, "value at its place")


def test_the_extrema_of_a_mean_with_kinks_are_found_without_slopes():
    mode = GP("matern12", KNOTS, lengthscale=2.0)
    t = Tucker(np.ones(1), [mode.factor(np.array([1.0, 2.0, -1.0, 3.0, 0.0, 1.0]))], [mode])
    value, place = t.max()
    assert_equal(place, (3.0,))
    assert_close(value, 3.0)
    with pytest.raises(DataError) as error:
        t.value_and_grad(0.5)
    assert_says(error, "change_mode")


def test_hybrids_are_saved_and_come_back_bit_by_bit(hybrid, tmp_path):
    tenfac.save(hybrid, tmp_path / "x.tenfac")
    back = tenfac.load(tmp_path / "x.tenfac")
    assert_equal(back.modes, hybrid.modes)
    for name, array in hybrid._arrays().items():
        assert_equal(back._arrays()[name], array)


def test_the_repr_names_domain_degrees_and_knots():
    t = created("tucker", Numpy())
    assert_says(repr(t), "[-1, 7]", "degree=(-, 4, -)", "knots=(-, -, 6)", "85 numbers")
    assert_equal(t.degree, (None, 4, None))


def test_gradients_of_torch_reach_core_factors_and_places():
    import torch

    arrays = [CORE, TABLE, SERIES, MODES[2].factor(VALUES), [0.2, 3.3, 6.5]]
    arrays = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]

    def run(core, a, b, c, times):
        t = Tucker(core, [a, b, c], MODES)
        return t.at(torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.5, 1.9]), times), t.integrate().to_tensor()

    assert torch.autograd.gradcheck(run, arrays, fast_mode=True)


def test_the_module_of_torch_the_table_and_the_plots_take_gp_modes():
    import matplotlib.figure
    import torch

    t = created("tucker", Numpy())
    got = tenfac.to_torch(t)(torch.tensor([[1.0, 0.5, 3.3]], dtype=torch.float64))
    assert_equal(library_of(got), "torch")
    assert_close(to_numpy(got), dense([0.5], [3.3])[1, 0], FACTOR)
    X = tenfac.to_xarray(t, ["ligand", "dose", "time"])
    assert_equal(X.coords["time"].values.tolist(), [-1.0, *KNOTS.tolist(), 7.0])
    assert_close(X.values, dense(X.coords["dose"].values, X.coords["time"].values), FACTOR)
    ax = tenfac.plot.function_slice(t, {0: 1, 1: 0.5}, ax=matplotlib.figure.Figure().subplots())
    x, y = ax.lines[0].get_data()
    assert_close(y, dense([0.5], x)[1, 0], FACTOR)
    ax = tenfac.plot.coefficient_decay(t, ax=matplotlib.figure.Figure().subplots())
    assert_equal([text.get_text() for text in ax.get_legend().get_texts()], ["x1"])
