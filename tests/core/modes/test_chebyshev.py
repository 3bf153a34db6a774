"""The Chebyshev mode against ``numpy.polynomial.chebyshev`` and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev as oracle

from tenfac import Chebyshev, DataError, Discrete, ShapeError
from tenfac.core.modes.chebyshev import coefficients, lobatto
from tenfac.core.modes.protocol import Continuous, Mode
from tests.checks import assert_below, assert_close, assert_equal, assert_says, to_numpy

DOMAINS = [(-1.0, 1.0), (0.0, 3.0), (-250.0, -249.0)]


def series(mode, factor, n):
    """Column n of a factor as a polynomial of numpy, in the variable of the domain."""
    return oracle.Chebyshev(to_numpy(factor)[:, n].astype(float), domain=mode.domain)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_values_and_derivatives_equal_those_of_numpy(make, size, domain):
    mode, factor = Chebyshev(size, domain), make(size, 3)
    x = make.asarray(np.linspace(*domain, 11))
    exact = to_numpy(x).astype(float)
    for order in range(3):
        want = np.stack([series(mode, factor, n).deriv(order)(exact) for n in range(3)], axis=1)
        scale = max(np.abs(want).max(), 1e-3)
        # points in float32 far from 0 are themselves rounded: derivatives amplify that
        factor_of = 100 * (1 + size**2 * max(map(abs, domain)) / (domain[1] - domain[0]))
        assert_close(mode.rows(factor, x, derivative=order), want, factor_of, like=factor, scale=scale)
    assert_equal(tuple(mode.rows(factor, float(exact[3])).shape), (3,))


def test_values_written_into_an_array_are_the_basis_transposed():
    mode, x = Chebyshev(9, (0.0, 2.0)), np.array([0.0, 0.3, 2.0])
    out = np.full((9, 3), np.nan)
    mode.values(x, np, out)
    assert_close(out, mode.rows(np.eye(9), x).T)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_ends_of_the_domain_and_points_a_rounding_beyond_are_values(make, domain):
    mode = Chebyshev(6, domain)
    ends = make.asarray(np.array(domain))
    signs = (-1.0) ** np.arange(6)
    assert_equal(to_numpy(mode.rows(make.asarray(np.eye(6)), ends)).tolist(), [signs.tolist(), [1.0] * 6])
    a, b = domain
    rounding = 4 * make.eps * max(abs(a), abs(b))
    beyond = make.asarray([a - rounding, b + rounding])
    assert_equal(to_numpy(mode.rows(make.asarray(np.eye(6)), beyond)).tolist(), [signs.tolist(), [1.0] * 6])


@pytest.mark.parametrize("wrong", [2.01, -0.01, np.nan, np.inf, -np.inf])
def test_a_point_outside_is_refused_with_its_value_and_place(make, wrong):
    mode, factor = Chebyshev(4, (0.0, 2.0)), make(4, 2)
    for x, place in (
        ([0.0, 2.0, wrong, 1.0], " at position 2 of 4."),
        ([0.5, wrong], " at position 1 of 2."),
    ):
        with pytest.raises(DataError) as error:
            mode.rows(factor, make.asarray(x))
        assert_says(error, "[0, 2]", f"{wrong:g}{place}", "do not extrapolate")
    with pytest.raises(DataError) as error:
        mode.rows(factor, make.asarray([wrong]))
    assert_says(error, f"got {wrong:g}. ")
    assert_equal(tuple(mode.rows(factor, make.asarray([])).shape), (0, 2))


def test_the_constant_and_the_degree_are_those_of_polynomials(make):
    mode = Chebyshev(4, (0.0, 2.0))
    assert_equal(to_numpy(mode.rows(mode.constant(make(1)), [0.0, 0.3, 2.0])).tolist(), [[1.0]] * 3)
    assert_equal(mode.degree, 3)
    assert_equal(Chebyshev(1, (0.0, 2.0)).nodes().tolist(), [1.0])
    assert_equal(Chebyshev(2, (0.0, 2.0)).nodes().tolist(), [0.0, 2.0])


def test_gram_integral_and_root_equal_gauss_legendre_quadrature(make):
    mode, like = Chebyshev(12, (1.0, 4.0)), make(12, 1)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    basis = oracle.chebvander(nodes, 11)
    gram = 1.5 * basis.T @ (weights[:, None] * basis)
    assert_close(mode.gram(like), gram, like=like)
    assert_close(mode.integral(like), 1.5 * weights @ basis, like=like)
    root = to_numpy(mode.gram_root(like))
    assert_close(root.T @ root, gram, like=to_numpy(like))


def test_the_derivative_undoes_the_antiderivative_and_that_is_zero_on_the_left(make):
    mode, factor = Chebyshev(7, (-2.0, 5.0)), make(7, 2)
    longer, integral = mode.antiderivative(factor)
    assert_equal(longer, Chebyshev(8, (-2.0, 5.0)))
    assert_close(longer.rows(integral, -2.0), np.zeros(2), like=factor, scale=10)
    back, derivative = longer.diff(integral)
    assert_equal(back, mode)
    assert_close(derivative, to_numpy(factor), like=factor)


def test_the_derivative_of_a_constant_is_zero(make):
    mode, factor = Chebyshev(1).diff(make(1, 2))
    assert_equal(mode.size, 1)
    assert_equal(to_numpy(factor).tolist(), [[0.0, 0.0]])


def test_restricted_functions_are_the_same_functions(make):
    mode, factor = Chebyshev(10, (0.0, 4.0)), make(10, 3)
    part, inside = mode.restrict(factor, (1.0, 1.5))
    x = make.asarray(np.linspace(1.0, 1.5, 7))
    assert_close(part.rows(inside, x), to_numpy(mode.rows(factor, x)), 1000, like=factor)
    with pytest.raises(DataError) as error:
        mode.restrict(factor, (1.0, 4.5))
    assert_says(error, "[0, 4]", "[1, 4.5]", "extrapolate")


def test_a_longer_mode_holds_the_functions_of_both(make):
    short, long = Chebyshev(3, (0.0, 1.0)), Chebyshev(5, (0.0, 1.0))
    assert_equal(short.common(long), long)
    x, factor = make.asarray([0.0, 0.4, 1.0]), make(5, 3, 2)  # a batch
    for mode in (short, Chebyshev(4, (0.0, 1.0)), long):
        more = short.embed(mode, factor)
        assert_equal(tuple(more.shape), (5, mode.size, 2))
        assert_close(mode.rows(more, x), to_numpy(short.rows(factor, x)), like=factor)
    with pytest.raises(ShapeError) as error:
        short.common(Chebyshev(3, (0.0, 2.0)))
    assert_says(error, "one domain", "(0.0, 2.0)")
    with pytest.raises(ShapeError):
        short.common(Discrete(3))


def test_interpolation_at_the_nodes_gives_back_a_polynomial():
    mode = Chebyshev(6, (0.0, 3.0))
    polynomial = oracle.Chebyshev([0.5, -1.0, 2.0, 0.0, 0.25, 3.0], domain=(0.0, 3.0))
    assert_close(coefficients(polynomial(mode.nodes())), polynomial.coef)
    assert_equal((lobatto(5) + lobatto(5)[::-1]).tolist(), [0.0] * 5)


@pytest.mark.parametrize(
    ("size", "domain", "word"),
    [
        (0, (0, 1), "size"),
        (True, (0, 1), "size"),
        (2.0, (0, 1), "size"),
        (3, (1, 1), "(a, b)"),
        (3, (2, 1), "a < b"),
        (3, (0, np.nan), "finite"),
        (3, (0, 1, 2), "two"),
        (3, None, "two"),
        (3, ("0", 1), "numbers"),
    ],
)
def test_a_mode_that_is_none_is_refused(size, domain, word):
    with pytest.raises((ShapeError, DataError)) as error:
        Chebyshev(size, domain)
    assert_says(error, "Chebyshev:", word)


def test_the_mode_is_hashable_and_of_the_protocol():
    mode = Chebyshev(np.int64(3), (0, 1))
    assert_equal({mode: 1}[Chebyshev(3, (0.0, 1.0))], 1)
    assert isinstance(mode, Mode)
    assert isinstance(mode, Continuous)
    assert isinstance(Discrete(3), Mode)
    assert_equal(Chebyshev.from_spec(*mode.spec()), mode)


def test_discrete_modes_answer_where_an_answer_is_natural(make):
    mode, factor = Discrete(3), make(3, 2)
    assert mode.gram(factor) is None
    assert_close(mode.antiderivative(factor)[1], to_numpy(factor).cumsum(axis=0), like=factor)
    assert_equal(to_numpy(mode.constant(factor)).tolist(), [[1.0]] * 3)
    assert_equal(mode.common(Discrete(3)), mode)
    for refused, word in ((mode.integral, "t.sum"), (mode.diff, "derivative")):
        with pytest.raises(TypeError) as error:
            refused(factor)
        assert_says(error, word, "discrete")


def test_under_jit_a_point_outside_is_nan_and_gradients_pass():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        mode, factor = (
            Chebyshev(5, (0.0, 1.0)),
            jax.numpy.asarray(np.random.default_rng(0).normal(size=(5, 2))),
        )
        got = jax.jit(mode.rows)(
            factor, jax.numpy.asarray([0.25, 0.0, 1.0, 1 + 2.0**-50, -(2.0**-50), 1.5, -0.5])
        )
        assert_equal(np.isnan(np.asarray(got)).any(axis=1).tolist(), [False] * 5 + [True] * 2)
        slope = jax.grad(lambda x: mode.rows(factor, x)[1])(0.25)
        want = mode.rows(np.asarray(factor), 0.25, derivative=1)[1]
        assert_below(abs(float(slope) - want), 1e-13 * abs(want), "slope")
