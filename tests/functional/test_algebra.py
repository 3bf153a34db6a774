"""Functions of functions against the same functions of values."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from tenfac import (
    CP,
    Chebyshev,
    ConvergenceWarning,
    DataError,
    Discrete,
    ShapeError,
    Tucker,
    TuckerTrain,
    compose,
)
from tenfac.core.modes.chebyshev import coefficients
from tenfac.core.report import Report
from tenfac.functional import algebra
from tests.checks import assert_below, assert_equal, assert_relative, assert_says, quietly, to_numpy

BOX = ((0.0, 1.0), (-1.0, 2.0))


def separable(functions, sizes=(16, 18), make=None):
    """``g(x) h(y)`` as a Tucker tensor."""
    modes = [Chebyshev(n, box) for n, box in zip(sizes, BOX, strict=True)]
    factors = [coefficients(g(mode.nodes()))[:, None] for g, mode in zip(functions, modes, strict=True)]
    convert = np.asarray if make is None else make.asarray
    return Tucker(convert(np.ones((1, 1))), [convert(factor) for factor in factors], modes)


def f(x, y):
    return np.exp(x) * (2 + np.sin(y))


def g(x, y):
    return np.cos(x) * y


F = separable((np.exp, lambda y: 2 + np.sin(y)))
G = separable((np.cos, lambda y: y), sizes=(14, 3))
X = np.random.default_rng(0).uniform(*np.array(BOX).T, (300, 2)).T


def assert_function(got, want, tol=2e-10):
    error = np.abs(to_numpy(got.at(*X)) - want).max() / np.abs(want).max()
    assert_below(error, tol, "relative error")


@pytest.mark.parametrize(
    ("call", "want"),
    [
        (lambda: F * G, lambda f, g: f * g),
        (lambda: G / F, lambda f, g: g / f),
        (lambda: 2 / F, lambda f, _: 2 / f),
        (lambda: F**2, lambda f, _: f**2),
        (lambda: F**-0.5, lambda f, _: f**-0.5),
        (lambda: np.exp(-F), lambda f, _: np.exp(-f)),
        (lambda: np.sqrt(F), lambda f, _: np.sqrt(f)),
        (lambda: np.arctan2(G, F), lambda f, g: np.arctan2(g, f)),
        (lambda: np.multiply(F, G), lambda f, g: f * g),
        (lambda: np.add(F, 1.0), lambda f, _: f + 1),
        (lambda: np.float64(3) * F - np.float64(1), lambda f, _: 3 * f - 1),
        (lambda: 1 - F, lambda f, _: 1 - f),
    ],
)
def test_operators_and_functions_of_numpy_act_on_the_values(call, want):
    got = call()
    assert isinstance(got, Tucker)
    assert_function(got, want(f(*X), g(*X)))


def test_the_rank_of_a_product_is_found_and_the_report_tells(make):
    product = compose(
        np.multiply, separable((np.exp, np.exp), make=make), separable((np.sin, np.cos), make=make)
    )
    assert_equal(product.rank, (1, 1))
    assert_equal(str(product.dtype).rpartition(".")[2], make.dtype)
    assert_equal((product.info.converged, product.info.n_evals > 0), (True, True))
    assert_function(
        product,
        np.exp(X.sum(axis=0)) * np.sin(X[0]) * np.cos(X[1]),
        1e-6 if make.dtype == "float32" else 2e-10,
    )


def test_a_wider_tolerance_needs_fewer_evaluations():
    exact, loose = compose(np.exp, G), compose(np.exp, G, tol=1e-4)
    assert_below(loose.info.n_evals, 0.8 * exact.info.n_evals, "evaluations")
    assert_function(loose, np.exp(g(*X)), 2e-4)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_discrete_modes_are_gone_through_value_by_value(order):
    table = np.array(
        [[1.0, 0.5], [0.0, 0.0], [-2.0, 0.25]]
    )  # of the function exp(x) and of cos(x); once zero
    x, y = Chebyshev(16, BOX[0]), Chebyshev(18, BOX[1])
    columns = np.stack([coefficients(np.exp(x.nodes())), coefficients(np.cos(x.nodes()))], axis=1)
    factors = [table, columns, np.repeat(coefficients(np.sin(y.nodes()))[:, None], 2, axis=1)]
    modes = [Discrete(3), x, y]
    t = CP(None, [factors[n] for n in order], [modes[n] for n in order])
    squared = t * t
    assert_equal(squared.modes[order.index(0)], Discrete(3))
    index = np.arange(300) % 3
    values = (table[index, 0] * np.exp(X[0]) + table[index, 1] * np.cos(X[0])) * np.sin(X[1])
    arguments = [index, *X]
    got = squared.at(*(arguments[n] for n in order))
    assert_below(np.abs(got - values**2).max(), 3e-10 * np.max(values**2), "error")


def test_what_is_not_smooth_is_said_not_to_converge():
    with pytest.warns(ConvergenceWarning, match=r"compose: .*Raise tol"):
        kink = compose(np.abs, G, max_evals=20_000)
    assert kink.info.converged is False


def test_a_pole_is_refused_or_not_converged():
    shifted = G - G.at(0.5, 0.5)
    try:
        found = quietly(compose, lambda v: 1 / v, shifted, max_evals=20_000)
    except DataError as error:
        assert_says(error, "finite")
    else:
        assert found.info.converged is False


def test_formats_that_cannot_be_composed_are_refused():
    discrete = CP(None, [np.ones((3, 1)), np.ones((2, 1))])
    elsewhere = F.restrict([(0.0, 0.5), None])
    batch = Tucker(np.ones((2, 1)), [np.ones((2, 3, 1))], [Chebyshev(3)])
    for formats, parts in (
        ((discrete,), ["continuous mode", "to_tensor"]),
        ((F, elsewhere), ["one domain", "(0.0, 0.5)"]),
        ((batch,), ["batch", "(2,)"]),
    ):
        with pytest.raises(ShapeError) as error:
            compose(np.add, *formats)
        assert_says(error, "compose", *parts)
    with pytest.raises(TypeError) as error:
        compose(np.add, F, np.ones(3))
    assert_says(error, "Tucker, TuckerTrain or CP", "ndarray")


def test_functions_of_numpy_on_discrete_formats_say_what_to_write():
    t = CP(None, [np.ones((3, 1))])
    with pytest.raises(TypeError) as error:
        np.exp(t)
    assert_says(error, "numpy.exp", "to_tensor()")
    for call in (
        lambda: np.ones(3) * t,
        lambda: np.ones(2) * F,
        lambda: np.add.reduce(F),
        lambda: F + "a",
        lambda: t**2,
    ):
        with warnings.catch_warnings(), pytest.raises(TypeError):
            call()


def test_formats_are_compared_by_identity_also_by_numpy():
    for other in (np.float64(1), np.ones(3), G):
        assert other != F
        assert_equal(bool(np.equal(other, F)), False)
    assert_equal([G, F].index(F), 1)
    with pytest.raises(TypeError):
        np.less(np.float64(1), F)


def test_trains_are_composed_and_found_functions_of_a_discrete_mode_join_as_trains(monkeypatch):
    table = np.array([[1.0], [-2.0], [0.5]])
    whole = Tucker(
        np.ones((1, 1, 1)), [F.factors[0], table, F.factors[1]], [F.modes[0], Discrete(3), F.modes[1]]
    )
    train, index = whole.to_train(), np.arange(300) % 3
    want = f(*X) ** 2 * table[index, 0] ** 2
    for got in (compose(np.square, train), compose(np.multiply, whole, train)):
        assert isinstance(got, Tucker)
        assert_below(np.abs(got.at(X[0], index, X[1]) - want).max(), 1e-9 * want.max(), "error")
    found = algebra.chebyshev_tucker
    monkeypatch.setattr(algebra, "chebyshev_tucker", lambda *a, **k: _as_train(found(*a, **k)))
    joined = compose(np.square, train)
    assert isinstance(joined, TuckerTrain)
    assert_equal((joined.rank, joined.info.converged), ((1, 1, 1), True))
    assert_below(np.abs(joined.at(X[0], index, X[1]) - want).max(), 1e-9 * want.max(), "error")


def test_many_rows_of_a_discrete_mode_share_the_tolerance_of_a_joined_train(monkeypatch):
    found = algebra.chebyshev_tucker
    monkeypatch.setattr(algebra, "chebyshev_tucker", lambda *a, **k: _as_train(found(*a, **k)))
    x, k = np.linspace(0, 1, 50), np.arange(40)
    mode, unit = Chebyshev(16, (0.0, 1.0)), np.eye(40)
    waves = coefficients(np.sin(mode.nodes()[:, None] * (1 + 3 * k / 40)))
    line = TuckerTrain([unit[None], unit[:, :, None]], [waves, unit], [mode, Discrete(40)])
    got = compose(np.exp, line, tol=1e-2)
    assert isinstance(got, TuckerTrain)
    want = np.exp(line.on_grid(x, k))
    assert_below(np.abs(got.on_grid(x, k) - want).max(), 1e-2 * want.max(), "error")


def test_a_composition_says_how_each_function_ended(caplog):
    with caplog.at_level("INFO", logger="tenfac"):
        compose(np.exp, F, tol=1e-4, verbose=2)
    assert_says(caplog.text, "compose: tolerance met, rank (")


def _as_train(t):
    return dataclasses.replace(t.to_train(), info=t.info)


@pytest.mark.parametrize("other", ["to_train", "to_cp"])
def test_functions_in_different_formats_add_multiply_and_divide(other):
    a, b = separable((np.exp, np.cos)), getattr(separable((np.cos, np.exp)), other)()
    x, y = np.random.default_rng(0).random((2, 40))
    u, v = np.exp(x) * np.cos(y), np.cos(x) * np.exp(y)
    sums = [(a + b, u + v), (b + a, u + v), (a - b, u - v), (b - a, v - u)]
    for got, want in [*sums, (a * b, u * v)]:
        assert_below(np.abs(got.at(x, y) - want).max(), 1e-8, "error")


def test_a_number_is_raised_to_the_power_of_a_function():
    t = separable((np.exp, np.cos))
    x, y = np.random.default_rng(0).random((2, 40))
    for power in (2**t, 2.0**t, np.power(2, t)):
        assert_below(np.abs(power.at(x, y) - 2 ** (np.exp(x) * np.cos(y))).max(), 1e-8, "error")


def test_labels_are_constructed_one_by_one_and_keep_the_tolerance():
    plain = separable((np.exp, np.cos))
    table = np.array([[1.0], [1.0], [1.0]])
    t = Tucker(np.ones((1, 1, 1)), [table, *plain.factors], [Discrete(3), *plain.modes])
    made, one = compose(np.sin, t, tol=1e-6), compose(np.sin, plain, tol=1e-6)
    assert_equal(made.info.n_evals, 3 * one.info.n_evals)
    x, y = np.random.default_rng(0).random((2, 200))
    assert_below(np.abs(made.at(1, x, y) - np.sin(np.exp(x) * np.cos(y))).max(), 2e-6, "error")


def test_the_report_of_many_labels_is_that_of_the_worst() -> None:
    made = [
        Report(True, "tolerance met", n_evals=5, rel_error=1e-3),
        Report(False, "a kink", n_evals=7, rel_error=1e-5),
        Report(False, "a step", n_evals=None, rel_error=1e-4),
        Report(True, "tolerance met", n_evals=11, rel_error=1e-9),
    ]
    whole = algebra._summary(made, 0.5)
    assert_equal((whole.converged, whole.reason, whole.n_evals), (False, "a step", 23))
    assert_equal((whole.rel_error, whole.seconds), (1e-3, 0.5))
    assert_equal(algebra._summary(made[::3], 0.5).converged, True)


def test_labels_of_different_degrees_and_ranks_are_joined_exactly() -> None:
    rng = np.random.default_rng(0)
    made = [
        Tucker(
            rng.standard_normal(rank),
            [rng.standard_normal((k, r)) for k, r in zip(sizes, rank, strict=True)],
            [Chebyshev(k, box) for k, box in zip(sizes, BOX, strict=True)],
        )
        for sizes, rank in (((3, 5), (2, 1)), ((4, 2), (1, 2)), ((2, 2), (1, 1)), ((5, 4), (3, 2)))
    ]
    like = Tucker(
        np.ones((1,) * 4),
        [np.ones((2, 1)), np.ones((5, 1)), np.ones((2, 1)), np.ones((5, 1))],
        [Discrete(2), Chebyshev(5, BOX[0]), Discrete(2), Chebyshev(5, BOX[1])],
    )
    joined = algebra._joined(made, like, [2, 2], 1e-10)
    assert_equal(joined.modes, (Discrete(2), Chebyshev(5, BOX[0]), Discrete(2), Chebyshev(5, BOX[1])))
    for k, t in enumerate(made):
        assert_relative(joined.at(k // 2, X[0], k % 2, X[1]), t.at(*X), 1e-9)
        single = Tucker(t.core[None], [np.ones((1, 1)), *t.factors], [Discrete(1), *t.modes])
        assert_relative(algebra._joined([t], single, [1], 1e-10).at(0, *X), t.at(*X), 1e-9)


def test_a_function_of_one_variable_is_composed() -> None:
    line = Tucker(np.ones((1,), dtype="float32"), [np.array([[0.0], [1.0]], dtype="float32")], [Chebyshev(2)])
    got = compose(np.exp, line, tol=1e-5)
    x = np.linspace(-1, 1, 9, dtype="float32")
    assert_relative(got.at(x), np.exp(x), 1e-5)
    assert_equal(got.dtype, line.dtype)


def test_what_a_function_of_formats_returns_is_named_by_the_caller() -> None:
    for function, parts in ((lambda v: v * np.nan, ["finite"]), (lambda v: v[:1], ["one number"])):
        with pytest.raises((DataError, ShapeError)) as error:
            compose(function, F)
        assert_says(error, "compose: the function of the formats", *parts)
        assert "chebyshev_tucker" not in str(error.value)
